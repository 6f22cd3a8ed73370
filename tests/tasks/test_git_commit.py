"""GIT's commands beside get and metadata: clone, ls, commit_and_push and tag, against real remotes."""

from __future__ import annotations

import asyncio
import base64
import json
import pathlib
import tempfile

import pytest

from headrace.engine import errors
from headrace.tasks import definition, git_commit, registry
from headrace.tasks.egress import Egress
from tests.support import git_http, raw_server, sshd
from tests.support.git_repository import Repository
from tests.support.task_context import Context


@pytest.fixture(autouse=True)
def scratch(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch):
    """Where temporary repositories are made; nothing may be left there."""
    folder = tmp_path / "scratch"
    folder.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    yield folder
    assert list(folder.iterdir()) == []


@pytest.fixture
def repository(tmp_path: pathlib.Path) -> Repository:
    made = Repository(tmp_path / "served" / "repository")
    made.git("config", "http.receivepack", "true")
    made.git("config", "receive.denyCurrentBranch", "ignore")
    made.write_all({"README.md": "first\n", "sub/run.sh": "#!/bin/sh\n"})
    (made.path / "sub/run.sh").chmod(0o755)
    made.commit("first commit")
    made.commit("second commit")  # the history is longer than what is fetched
    return made


@pytest.fixture
def url(repository: Repository, context: Context) -> str:
    context.allow_local_files = True
    return f"file://{repository.bare}"


async def failure(awaitable) -> str:
    with pytest.raises(errors.TaskFailed) as failed:
        await awaitable
    return failed.value.message


PAGE = {"command": "commit_and_push", "ref": "main", "message": "a page", "files": [{"name": "p.md", "text": "hi"}]}


async def test_clone_puts_the_files_into_the_store(call, url: str, context: Context) -> None:
    output = await call("GIT", command="clone", url=url, files_path="headrace:there")
    assert "files" not in output and output["commit_message"] == "second commit\n"
    assert context.files.names() == ["there/README.md", "there/sub/run.sh"]


async def test_ls_tells_the_names_of_the_files(call, url: str) -> None:
    output = await call("GIT", command="ls", url=url)
    assert output["names"] == ["README.md", "sub/run.sh"] and "files" not in output


async def test_a_commit_adds_replaces_and_removes(call, url: str, repository: Repository, context: Context) -> None:
    before = repository.git("rev-parse", "main")
    context.files.write("kept.bin").commit()
    files = [
        {"name": "sub/run.sh", "text": "#!/bin/bash\n"},
        {"name": "new/ä.bin", "content": base64.b64encode(b"\0\xff").decode()},
        {"name": "kept", "src": "headrace:kept.bin", "executable": True},
    ]
    asked = {"author_name": "Flo W", "author_email": "flo@example.com", "message": "all of it\n\nand why"}
    output = await call("GIT", **{**PAGE, **asked, "files": files}, url=url, remove=["README.md"])
    assert output["pushed"] and output["author_name"] == "Flo W" and output["author_email"] == "flo@example.com"
    assert output["commit_sha"] == repository.git("rev-parse", "main")
    assert repository.git("rev-parse", "main^") == before
    assert repository.git("log", "-1", "--format=%B", "main") == "all of it\n\nand why"
    listed = repository.git("-c", "core.quotePath=false", "ls-tree", "-r", "--format=%(objectmode) %(path)", "main")
    assert listed.splitlines() == ["100755 kept", "100644 new/ä.bin", "100755 sub/run.sh"]
    assert repository.git("show", "main:sub/run.sh") == "#!/bin/bash"


async def test_what_changes_nothing_is_not_committed(call, url: str, repository: Repository) -> None:
    before = repository.git("rev-parse", "main")
    output = await call("GIT", **{**PAGE, "files": [{"name": "README.md", "text": "first\n"}]}, url=url)
    assert (output["pushed"], output["commit_sha"], repository.git("rev-parse", "main")) == (False, before, before)


async def test_a_branch_is_made_only_when_asked_for(call, url: str, repository: Repository) -> None:
    said = await failure(call("GIT", **{**PAGE, "ref": "pages/x"}, url=url))
    assert said == f"GIT commit_and_push {url}: there is no branch 'pages/x'; 'new_branch' makes one"
    await call("GIT", **{**PAGE, "ref": "pages/x"}, url=url, new_branch=True)
    assert repository.git("rev-parse", "pages/x^") == repository.git("rev-parse", "main")


async def test_an_empty_repository_gets_its_first_commit(call, tmp_path: pathlib.Path, context: Context) -> None:
    empty = Repository(tmp_path / "empty")
    empty.git("config", "receive.denyCurrentBranch", "ignore")
    context.allow_local_files = True
    await call("GIT", **PAGE, url=f"file://{empty.bare}", new_branch=True)
    assert empty.git("log", "--format=%s", "main") == "a page"


async def test_who_pushes_meanwhile_loses_nothing(call, url: str, repository: Repository, monkeypatch) -> None:
    made = git_commit.made

    def slowly(*arguments):
        sha = made(*arguments)
        if not (repository.path / "theirs").exists():
            repository.write(theirs="1")
            repository.commit("theirs")
        return sha

    monkeypatch.setattr(git_commit, "made", slowly)
    await call("GIT", **PAGE, url=url)
    assert repository.git("log", "-3", "--format=%s", "main").splitlines() == ["a page", "theirs", "second commit"]


async def test_a_tag_names_a_commit_and_is_never_moved(call, url: str, repository: Repository) -> None:
    assert (await call("GIT", command="tag", url=url, tag="v1", ref="main"))["pushed"]
    assert repository.git("rev-parse", "v1") == repository.git("rev-parse", "main")
    await call("GIT", command="tag", url=url, tag="v2", message="what is new", author_name="Flo W")
    assert repository.git("cat-file", "-t", "v2") == "tag"
    assert repository.git("tag", "-l", "--format=%(taggername) %(contents)", "v2") == "Flo W what is new"
    repository.commit("third")
    said = await failure(call("GIT", command="tag", url=url, tag="v1"))
    assert said.startswith(f"GIT tag {url}: ") and "already exists" in said


async def test_over_http_with_a_password(call, serve, repository: Repository) -> None:
    there = await serve(git_http.handler(repository.path.parent, user="me", password="right"))
    address = f"{there}/repository/.git"
    await call("GIT", **PAGE, url=address, username="me", password="right")
    assert repository.git("show", "main:p.md") == "hi"
    said = await failure(call("GIT", **PAGE, url=address, username="me", password="wrong-one"))
    assert said == f"GIT commit_and_push {address}: the server refused the username and password"


async def test_a_server_that_takes_no_pushes_says_so(call, serve, repository: Repository) -> None:
    repository.git("config", "http.receivepack", "false")
    address = f"{await serve(git_http.handler(repository.path.parent))}/repository/.git"
    said = await failure(call("GIT", **PAGE, url=address))
    assert said.startswith(f"GIT commit_and_push {address}: ") and "403" in said


async def test_over_ssh_with_the_right_host_key_alone(call, repository: Repository, tmp_path: pathlib.Path) -> None:
    if not sshd.PROGRAM.exists():
        pytest.skip(f"{sshd.PROGRAM} is not there (Debian: apt-get install openssh-server)")
    async with sshd.running(tmp_path / "sshd") as server:
        address = f"ssh://{server.user}@127.0.0.1:{server.port}{repository.bare}"
        await call("GIT", **PAGE, url=address, ssh_key=server.key, ssh_hostkey=server.host_key)
        assert repository.git("show", "main:p.md") == "hi"
        other = sshd._made_key(tmp_path / "other")
        said = await failure(call("GIT", **PAGE, url=address, ssh_key=server.key, ssh_hostkey=other))
        assert said.endswith(": the server's host key is not the one that is expected")


async def test_private_addresses_can_be_forbidden(serve, repository: Repository, context: Context) -> None:
    tasks = registry.installed(definition.Settings(egress=Egress(deny_private=True)))
    address = f"{await serve(git_http.handler(repository.path.parent))}/repository/.git"
    said = await failure(tasks.prepare("GIT", json.dumps({**PAGE, "url": address}).encode()).run(context))
    assert "127.0.0.1 is not a public address" in said
    await tasks.aclose()


async def test_a_server_that_is_away_is_not_tried_again(call, pacing) -> None:
    said = await failure(call("GIT", **PAGE, url="http://127.0.0.1:1/x"))
    assert said.startswith("GIT commit_and_push http://127.0.0.1:1/x: ") and pacing.pauses == []


async def test_cancelled_it_ends_and_leaves_nothing(call) -> None:
    async with raw_server.running(raw_server.until_gone) as server:
        running = asyncio.create_task(call("GIT", **PAGE, url=f"{server.address}/x"), name="the call")
        await asyncio.wait_for(server.arrived.wait(), 10)
        running.cancel()
        with pytest.raises(asyncio.CancelledError):
            await running
        await asyncio.wait_for(server.gone.wait(), 10)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"remove": ["none"]}, "there is no file 'none' to remove"),
        ({"remove": ["sub"]}, "there is no file 'sub' to remove"),
        ({"files": [{"name": "sub", "text": ""}]}, "there cannot be a file 'sub': it is a folder or a submodule"),
        (
            {"files": [{"name": "README.md/x", "text": ""}]},
            "there cannot be a file 'README.md/x': 'README.md' is no folder",
        ),
    ],
)
async def test_a_change_that_does_not_fit(call, url: str, change: dict, words: str) -> None:
    assert await failure(call("GIT", **{**PAGE, **change}, url=url)) == f"GIT commit_and_push {url}: {words}"


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"command": "clone"}, "needs the input 'files_path': the folder of the store that the command clone fills"),
        ({"command": "ls", "files_path": "x"}, "cannot use the input 'files_path': the command ls does not use it"),
        ({"command": "get", "tag": "x"}, "cannot use the input 'tag': the command get does not use it"),
        ({"command": "tag"}, "needs the input 'tag': the name of the tag that the command tag makes"),
        ({"command": "tag", "tag": "-d"}, "cannot use the input 'tag': expected the name of a tag"),
        ({**PAGE, "ref": None}, "needs the input 'ref': the branch that commit_and_push adds to"),
        ({**PAGE, "ref": "refs/heads/x"}, "cannot use the input 'ref': expected the name of a branch"),
        ({**PAGE, "message": None}, "needs the input 'message': the message of the commit"),
        ({**PAGE, "message": " "}, "cannot use the input 'message': expected a text"),
        ({**PAGE, "files": []}, "needs the input 'files': what to commit, unless 'remove' says what to remove"),
        (
            {**PAGE, "author_name": "a <b"},
            "cannot use the input 'author_name': expected a text without < and > and control characters",
        ),
        ({**PAGE, "remove": ["p.md"]}, "cannot use the input 'files': a path is named twice"),
        (
            {**PAGE, "files": [{"name": "x"}]},
            "cannot use the input 'files': expected one of 'text', 'content' and 'src' for each file",
        ),
        (
            {**PAGE, "files": [{"name": "x", "content": "?"}]},
            "cannot use the input 'files': expected base64 as 'content'",
        ),
        (
            {**PAGE, "files": [{"name": "x", "src": "/etc/x"}]},
            "cannot use the input 'files': expected headrace:<path> as 'src'",
        ),
        *(
            (
                {**PAGE, "files": [{"name": name, "text": ""}]},
                "cannot use the input 'files': expected paths in the repository, such as docs/page.md",
            )
            for name in ("../x", "/x", ".GIT/config", "a/.git./x", "a\nb", "a//b", "", ".git::$INDEX_ALLOCATION/x")
        ),
    ],
)  # fmt: skip
def test_wrong_inputs_are_refused(tasks: registry.Registry, given: dict, message: str) -> None:
    with pytest.raises(errors.InputRefused) as refused:
        tasks.prepare("GIT", json.dumps({"url": "https://h/x", **given}).encode())
    assert refused.value.message == f"GIT {message}"


def test_writing_may_not_be_repeated(tasks: registry.Registry) -> None:
    assert not tasks.prepare("GIT", json.dumps({**PAGE, "url": "https://h/x"}).encode()).idempotent
    assert tasks.prepare("GIT", b'{"url": "https://h/x", "command": "ls"}').idempotent
