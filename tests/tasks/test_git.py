"""GIT against real remotes: files, smart HTTP, ssh."""

# ruff: noqa: E501 - a table of whole messages, one a line
from __future__ import annotations

import asyncio
import base64
import json
import os
import pathlib
import tempfile

import pytest
from aiohttp import web

from headrace.engine import errors
from headrace.tasks import definition, git, git_address, git_fetch, registry
from headrace.tasks.egress import Egress
from tests.support import git_http, raw_server, sshd
from tests.support.certificates import Certificates
from tests.support.git_repository import Repository
from tests.support.task_context import Context, ManualPacing


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
    made.write_all({"README.md": "first\n", "sub/dir/data.bin": b"\0\xff"})
    made.commit("first commit")
    return made


@pytest.fixture
def local(context: Context) -> Context:
    context.allow_local_files = True
    return context


def contents(output: dict) -> dict[str, bytes]:
    return {one["name"]: base64.b64decode(one["content"]) for one in output["files"]}


async def failure(awaitable) -> errors.TaskFailed:
    with pytest.raises(errors.TaskFailed) as failed:
        await awaitable
    return failed.value


# --- what comes back


async def test_get_gives_files_and_the_facts_of_the_commit(call, repository: Repository, local: Context) -> None:
    sha = repository.git("rev-parse", "HEAD")
    output = await call("GIT", repository_url=f"file://{repository.bare}")
    assert contents(output) == {"README.md": b"first\n", "sub/dir/data.bin": b"\0\xff"}
    del output["files"]
    assert output == {
        "author_name": "Ann Author",
        "author_email": "ann@example.com",
        "commit_date_iso": "2024-01-03T04:05:06+02:00",
        "commit_date_unix": 1704247506,
        "commit_message": "first commit\n",
        "commit_sha": sha,
        "short_sha": sha[:7],
    }


async def test_metadata_gives_the_facts_alone(call, repository: Repository, local: Context) -> None:
    output = await call("git", command="metadata", url=f"file://{repository.bare}")
    assert "files" not in output
    assert output["commit_message"] == "first commit\n"


async def test_a_ref_is_a_branch_a_tag_or_a_commit(call, repository: Repository, local: Context) -> None:
    first = repository.git("rev-parse", "HEAD")
    repository.git("tag", "-a", "v1", "-m", "tagged")
    repository.git("checkout", "-q", "-b", "feature/x")
    repository.write(extra="1")
    second = repository.commit("second")
    repository.write(extra="2")
    third = repository.commit("third")
    repository.git("checkout", "-q", "main")
    expected = {
        None: first,
        "HEAD": first,
        "v1": first,
        "feature/x": third,
        "refs/heads/feature/x": third,
        second: second,
        second[:9]: second,
    }
    for ref, sha in expected.items():
        output = await call("GIT", command="metadata", url=f"file://{repository.bare}", ref=ref)
        assert output["commit_sha"] == sha, ref


async def test_a_branch_wins_over_a_tag_of_the_same_name(call, repository: Repository, local: Context) -> None:
    repository.git("tag", "both")
    repository.git("checkout", "-q", "-b", "both")
    branch = repository.commit("on the branch")
    assert (await call("GIT", command="metadata", url=f"file://{repository.bare}", ref="both"))["commit_sha"] == branch


async def test_links_submodules_and_odd_names_are_skipped_and_logged(call, repository, local: Context) -> None:
    os.symlink("/etc/passwd", repository.path / "link")
    repository.write_all({"back\\slash": "x", "run.sh": "#!/bin/sh\n"})
    (repository.path / "run.sh").chmod(0o755)
    sha = repository.git("rev-parse", "HEAD")
    repository.git("update-index", "--add", "--cacheinfo", f"160000,{sha},module")
    repository.git("add", "link", "back\\slash", "run.sh")
    repository.git("commit", "-q", "-m", "odd things")
    output = await call("GIT", url=f"file://{repository.bare}")
    assert sorted(contents(output)) == ["README.md", "run.sh", "sub/dir/data.bin"]
    assert sorted(context_line for _, context_line in local.lines) == [
        "skipped 'back\\\\slash': its name cannot be used elsewhere",
        "skipped 'link': it is a symbolic link or a submodule",
        "skipped 'module': it is a symbolic link or a submodule",
    ]


async def test_attributes_and_filters_never_take_effect(call, repository: Repository, local: Context) -> None:
    repository.write_all(
        {".gitattributes": "* text eol=crlf export-subst\n*.md filter=evil\n", "a.md": "$Format:%H$\n"}
    )
    repository.commit()
    assert contents(await call("GIT", url=f"file://{repository.bare}"))["a.md"] == b"$Format:%H$\n"


async def test_files_path_writes_to_the_store(call, repository: Repository, local: Context) -> None:
    output = await call("GIT", url=f"file://{repository.bare}", files_path="headrace:checkout/")
    assert "files" not in output
    assert local.files.names() == ["checkout/README.md", "checkout/sub/dir/data.bin"]
    assert local.files.read("checkout/sub/dir/data.bin") == b"\0\xff"


async def test_a_file_that_cannot_be_stored_is_said_plainly(call, repository: Repository, local: Context) -> None:
    url = f"file://{repository.bare}"
    failed = await failure(call("GIT", url=url, files_path="../out"))
    assert failed.message == (
        f"GIT get {url}: cannot write the file '../out/README.md': the path ../out/README.md leaves the store"
    )


async def test_a_name_written_in_another_encoding_does_no_harm(call, repository: Repository, local: Context) -> None:
    repository.git("config", "i18n.commitEncoding", "iso-8859-1")
    message = repository.path / "message"
    message.write_bytes("Ümlaut".encode("latin-1"))
    repository.git("commit", "-q", "--allow-empty", "-F", str(message))
    message.unlink()
    assert (await call("GIT", command="metadata", url=f"file://{repository.bare}"))["commit_message"] == "Ümlaut\n"


# --- limits and failures


async def test_too_many_or_too_large_files_are_a_clear_failure(
    call, repository: Repository, local: Context, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = f"file://{repository.bare}"
    monkeypatch.setattr(git, "ENTRIES_MAX", 2)
    failed = await failure(call("GIT", url=url))
    assert failed.message == f"GIT get {url}: the commit has more than 2 files and folders"
    monkeypatch.undo()
    repository.write(big=os.urandom(1_200_000))
    repository.commit()
    monkeypatch.setattr(git, "OUTPUT_BYTES_MAX", 1024 * 1024)
    failed = await failure(call("GIT", url=url))
    assert failed.message == (
        f"GIT get {url}: the files are larger than 1 MiB together; 'files_path' writes them to the store instead"
    )
    monkeypatch.setattr(git_fetch, "PACK_BYTES_MAX", 1024 * 1024)
    failed = await failure(call("GIT", url=url))
    assert "MiB to fetch" in failed.message


async def test_a_ref_that_does_not_exist_is_said_plainly(call, repository: Repository, local: Context) -> None:
    url = f"file://{repository.bare}"
    for ref in ("develop", "a" * 40, "abcdef1"):
        failed = await failure(call("GIT", url=url, ref=ref))
        assert failed.message == f"GIT get {url}: there is no branch, tag or commit '{ref}'"


async def test_an_empty_repository_is_said_plainly(call, tmp_path: pathlib.Path, local: Context) -> None:
    empty = Repository(tmp_path / "empty")
    failed = await failure(call("GIT", url=f"file://{empty.bare}"))
    assert failed.message == f"GIT get file://{empty.bare}: the repository has no commits that its HEAD points to"


async def test_file_addresses_are_for_developer_mode(call, repository: Repository) -> None:
    failed = await failure(call("GIT", url=f"file://{repository.bare}"))
    assert failed.message == f"GIT get file://{repository.bare}: file addresses are for developer mode"


async def test_a_repository_that_is_not_there_is_said_plainly(call, tmp_path: pathlib.Path, local: Context) -> None:
    failed = await failure(call("GIT", url=f"file://{tmp_path}/none", retry_backoff=False))
    assert f"'{tmp_path}/none' does not appear to be a git repository" in failed.message


@pytest.mark.parametrize(
    ("given", "kind", "message"),
    [
        ({}, "Missing", "GIT needs the input 'repository_url': (or url) https://host/path, ssh://user@host/path, user@host:path; file:///path in developer mode"),
        ({"url": "--upload-pack=touch x"}, "Invalid", f"GIT cannot use the input 'repository_url': {git_address.EXPECTED}"),
        ({"url": "ext::sh -c x"}, "Invalid", f"GIT cannot use the input 'repository_url': {git_address.EXPECTED}"),
        ({"url": "/srv/x.git"}, "Invalid", f"GIT cannot use the input 'repository_url': {git_address.EXPECTED}"),
        ({"url": "https://-oProxy/x"}, "Invalid", f"GIT cannot use the input 'repository_url': {git_address.EXPECTED}"),
        ({"url": "ssh://-oProxyCommand=x/y"}, "Invalid", f"GIT cannot use the input 'repository_url': {git_address.EXPECTED}"),
        ({"url": "git@host:-x"}, "Invalid", f"GIT cannot use the input 'repository_url': {git_address.EXPECTED}"),
        ({"url": "https://h/x\ny"}, "Invalid", f"GIT cannot use the input 'repository_url': {git_address.EXPECTED}"),
        ({"url": "https://h/x", "ref": "--exec=x"}, "Invalid", "GIT cannot use the input 'ref': expected the name of a branch or tag, or a commit"),
        ({"url": "https://h/x", "ref": "a..b"}, "Invalid", "GIT cannot use the input 'ref': expected the name of a branch or tag, or a commit"),
        ({"url": "https://h/x", "ref": "a:b"}, "Invalid", "GIT cannot use the input 'ref': expected the name of a branch or tag, or a commit"),
        ({"url": "https://h/x", "command": "push"}, "Invalid", "GIT cannot use the input 'command': it is not one of the values that are possible"),
        ({"url": "https://h/x", "password": "a\nb"}, "Invalid", "GIT cannot use the input 'password': it contains a control character"),
        ({"url": "git@h:x"}, "Missing", "GIT needs the input 'ssh_key': the private key, because the address is one of ssh"),
        ({"url": "git@h:x", "ssh_key": "hunter2"}, "Invalid", "GIT cannot use the input 'ssh_key': expected a private key, '-----BEGIN … PRIVATE KEY-----'"),
        ({"url": "git@h:x", "ssh_key": "-----BEGIN X PRIVATE KEY-----", "ssh_hostkey": "x"}, "Invalid", "GIT cannot use the input 'ssh_hostkey': expected 'type key', such as one line of ssh-keyscan without the host"),
        ({"url": "h:x", "ssh_key": "-----BEGIN X PRIVATE KEY-----", "username": "-oX"}, "Invalid", "GIT cannot use the input 'username': expected the name of a user of the server"),
    ],
)  # fmt: skip
def test_wrong_inputs_are_refused(tasks: registry.Registry, given: dict, kind: str, message: str) -> None:
    with pytest.raises(errors.InputRefused) as refused:
        tasks.prepare("GIT", json.dumps(given).encode())
    assert (refused.value.kind, refused.value.message) == (f"{kind}InputError", message)


def test_reading_may_be_repeated(tasks: registry.Registry) -> None:
    assert tasks.prepare("GIT", b'{"url": "https://h/x"}').idempotent


# --- smart HTTP


async def test_a_public_repository_over_http(call, serve, repository: Repository) -> None:
    address = await serve(git_http.handler(repository.path.parent))
    assert contents(await call("GIT", url=f"{address}/repository/.git"))["README.md"] == b"first\n"


async def test_a_single_commit_over_http(call, serve, repository: Repository) -> None:
    first = repository.git("rev-parse", "HEAD")
    repository.write(more="x")
    repository.commit()
    address = await serve(git_http.handler(repository.path.parent))
    assert (await call("GIT", url=f"{address}/repository/.git", ref=first))["commit_sha"] == first


async def test_https_with_an_authority_of_the_operator(
    call, serve, repository, certs: Certificates, monkeypatch
) -> None:
    address = await serve(git_http.handler(repository.path.parent), certs.server_context())
    failed = await failure(call("GIT", url=f"{address}/repository/.git", retry_backoff=False))
    assert "certificate" in failed.message
    monkeypatch.setenv("GIT_SSL_CAINFO", str(certs.folder / "ca.crt"))
    assert contents(await call("GIT", url=f"{address}/repository/.git"))["README.md"] == b"first\n"


async def test_username_and_password_are_given_to_the_server(call, serve, repository: Repository) -> None:
    odd = "p'w \"$(x)\\ä"
    address = await serve(git_http.handler(repository.path.parent, user="me", password=odd))
    given = {"url": f"{address}/repository/.git", "command": "metadata"}
    assert (await call("GIT", **given, username="me", password=odd))["commit_message"] == "first commit\n"


async def test_credentials_in_the_address_work_and_are_not_shown(call, serve, repository, context: Context) -> None:
    address = await serve(git_http.handler(repository.path.parent, user="me", password="se%cret"))
    inside = address.replace("//", "//me:se%25cret@")
    assert (await call("GIT", command="metadata", url=f"{inside}/repository/.git"))["commit_sha"]
    failed = await failure(call("GIT", url=f"{inside}/nothing", retry_backoff=False))
    assert failed.message.startswith(f"GIT get {address}/nothing: ")
    assert "cret" not in failed.message + context.text


async def test_refused_and_missing_credentials_are_said_plainly(call, serve, repository: Repository) -> None:
    address = await serve(git_http.handler(repository.path.parent, user="me", password="right"))
    url = f"{address}/repository/.git"
    failed = await failure(call("GIT", url=url, username="me", password="wrong-one"))
    assert failed.message == f"GIT get {url}: the server refused the username and password"
    failed = await failure(call("GIT", url=url))
    assert failed.message == f"GIT get {url}: the server asks for a username and a password"


async def test_a_cookie_is_sent(call, serve, repository: Repository) -> None:
    address = await serve(git_http.handler(repository.path.parent, cookie="sid=abc"))
    url = f"{address}/repository/.git"
    assert (await call("GIT", command="metadata", url=url, httpCookie="sid=abc"))["commit_sha"]
    failed = await failure(call("GIT", url=url, httpCookie="sid=wrong-cookie"))
    assert "403" in failed.message
    assert "wrong-cookie" not in failed.message


async def test_a_redirect_elsewhere_gets_no_credentials(call, serve, repository: Repository) -> None:
    seen = []

    async def elsewhere(request):
        seen.append((request.headers.get("Authorization"), request.headers.get("Cookie")))
        return web.Response(status=401, headers={"WWW-Authenticate": 'Basic realm="git"'})

    there = await serve(elsewhere)

    async def away(request):
        return web.Response(status=302, headers={"Location": there + request.path_qs})

    address = await serve(away)
    await failure(call("GIT", url=f"{address}/x", username="me", password="secret", httpCookie="sid=abc"))
    assert seen
    assert set(seen) == {(None, None)}


async def test_a_server_that_is_away_is_tried_again(call, serve, repository, pacing: ManualPacing) -> None:
    served = git_http.handler(repository.path.parent)
    left = [503, 503]

    async def flaky(request):
        return web.Response(status=left.pop()) if left else await served(request)

    url = f"{await serve(flaky)}/repository/.git"
    assert (await call("GIT", command="metadata", url=url))["commit_sha"]
    assert pacing.pauses == [1, 2]


async def test_no_secret_is_in_an_argument_or_the_environment_while_git_runs(call) -> None:
    """A server that never answers keeps git running long enough to look at it."""
    async with raw_server.running(raw_server.until_gone) as server:
        given = {"url": f"{server.address}/x", "username": "me", "password": "s3cr3t", "httpCookie": "sid=c00kie"}
        running = asyncio.create_task(call("GIT", **given), name="the call")
        await asyncio.wait_for(server.arrived.wait(), 10)
        processes = _descendants(os.getpid())
        seen = b"".join(_proc(pid, "cmdline") + _proc(pid, "environ") for pid in processes)
        assert b"fetch" in seen
        for secret in (b"s3cr3t", b"c00kie"):
            assert secret not in seen
        running.cancel()
        with pytest.raises(asyncio.CancelledError):
            await running


async def test_cancelling_kills_git_and_what_it_started(call) -> None:
    others = set(_descendants(os.getpid()))
    async with raw_server.running(raw_server.until_gone) as server:
        running = asyncio.create_task(call("GIT", url=f"{server.address}/x"), name="the call")
        await asyncio.wait_for(server.arrived.wait(), 10)
        processes = set(_descendants(os.getpid())) - others
        assert len(processes) >= 2  # git and its helper for http
        running.cancel()
        with pytest.raises(asyncio.CancelledError):
            await running
        assert not [pid for pid in processes if _proc(pid, "cmdline")]
        await asyncio.wait_for(server.gone.wait(), 10)


def _descendants(root: int) -> list[int]:
    found = []
    for child in (int(one) for one in _proc(root, f"task/{root}/children").split()):
        found += [child, *_descendants(child)]
    return found


def _proc(pid: int, name: str) -> bytes:
    try:
        return pathlib.Path(f"/proc/{pid}/{name}").read_bytes()
    except (FileNotFoundError, ProcessLookupError):
        return b""


async def test_private_addresses_can_be_forbidden(serve, repository: Repository, context: Context) -> None:
    tasks = registry.installed(definition.Settings(egress=Egress(deny_private=True)))
    url = f"{await serve(git_http.handler(repository.path.parent))}/repository/.git"
    failed = await failure(tasks.prepare("GIT", json.dumps({"url": url}).encode()).run(context))
    assert "127.0.0.1 is not a public address" in failed.message
    await tasks.aclose()


class EverythingIsPublic(Egress):
    """Goes the way of the policy, finds nothing to refuse."""

    def refusal(self, address: str) -> str | None:
        return None


async def test_git_uses_the_very_addresses_that_were_checked(serve, repository: Repository, context: Context) -> None:
    tasks = registry.installed(definition.Settings(egress=EverythingIsPublic(deny_private=True)))
    address = await serve(git_http.handler(repository.path.parent))
    url = address.replace("127.0.0.1", "localhost") + "/repository/.git"
    assert b"first commit" in await tasks.prepare("GIT", json.dumps({"url": url}).encode()).run(context)


async def test_ssh_uses_the_very_addresses_that_were_checked(
    repository: Repository, context: Context, ssh_server, tmp_path, monkeypatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / ".ssh").mkdir()
    (tmp_path / ".ssh/known_hosts").write_text(f"[localhost]:{ssh_server.port} {ssh_server.host_key}")
    tasks = registry.installed(definition.Settings(egress=EverythingIsPublic(deny_private=True)))
    monkeypatch.setattr(git_fetch.socket, "getaddrinfo", lambda *_, **__: [(0, 0, 0, "", ("127.0.0.1", 0))])
    url = f"ssh://{ssh_server.user}@localhost:{ssh_server.port}{repository.bare}"
    inputs = json.dumps({"url": url, "ssh_key": ssh_server.key}).encode()
    assert b"first commit" in await tasks.prepare("GIT", inputs).run(context)


# --- ssh


@pytest.fixture
async def ssh_server(tmp_path: pathlib.Path):
    if not sshd.PROGRAM.exists() or os.getuid() != 0:
        pytest.skip(f"{sshd.PROGRAM} is not there or may not be started (Debian: apt-get install openssh-server)")
    async with sshd.running(tmp_path / "sshd") as server:
        yield server


async def test_ssh_with_a_key_and_a_host_key_in_every_form(call, repository: Repository, ssh_server) -> None:
    url = f"ssh://{ssh_server.user}@127.0.0.1:{ssh_server.port}{repository.bare}"
    kind, key, comment = ssh_server.host_key.split()
    for host_key in (f"{kind} {key}", f"{kind} {key} {comment}", key):
        output = await call("GIT", command="metadata", url=url, ssh_key=ssh_server.key, ssh_hostkey=host_key)
        assert output["commit_message"] == "first commit\n"


@pytest.mark.parametrize("key_lines", ["\n", "\r\n"])
async def test_the_user_is_the_one_of_the_address_else_the_username(call, repository, ssh_server, key_lines) -> None:
    place = f"127.0.0.1:{ssh_server.port}{repository.bare}"
    given = {"ssh_key": ssh_server.key.replace("\n", key_lines), "ssh_hostkey": ssh_server.host_key}
    named = {"username": ssh_server.user}
    assert (await call("GIT", command="metadata", url=f"ssh://{place}", **named, **given))["commit_sha"]
    for url, username in ((f"ssh://{place}", "stranger"), (f"ssh://stranger@{place}", ssh_server.user)):
        failed = await failure(call("GIT", url=url, username=username, **given))
        assert failed.message == f"GIT get ssh://{place}: the server refused the key"


async def test_a_wrong_or_unknown_host_key_is_refused(call, repository, ssh_server, tmp_path, monkeypatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    url = f"ssh://{ssh_server.user}@127.0.0.1:{ssh_server.port}{repository.bare}"
    other = sshd._made_key(tmp_path / "other")
    for given in ({"ssh_hostkey": other}, {}):
        failed = await failure(call("GIT", url=url, ssh_key=ssh_server.key, **given))
        assert failed.message == f"GIT get {url.replace(f'{ssh_server.user}@', '')}: " + (
            "the server's host key is not the one that is expected"
        )


async def test_a_host_the_user_knows_is_trusted(call, repository, ssh_server, tmp_path, monkeypatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / ".ssh").mkdir()
    (tmp_path / ".ssh/known_hosts").write_text(f"[127.0.0.1]:{ssh_server.port} {ssh_server.host_key}")
    url = f"ssh://{ssh_server.user}@127.0.0.1:{ssh_server.port}{repository.bare}"
    assert (await call("GIT", command="metadata", url=url, ssh_key=ssh_server.key))["commit_sha"]


async def test_a_key_the_server_does_not_know_is_refused(call, repository, ssh_server, tmp_path) -> None:
    sshd._made_key(tmp_path / "stranger")
    url = f"ssh://{ssh_server.user}@127.0.0.1:{ssh_server.port}{repository.bare}"
    key = (tmp_path / "stranger").read_text()
    failed = await failure(call("GIT", url=url, ssh_key=key, ssh_hostkey=ssh_server.host_key))
    assert failed.message.endswith(": the server refused the key")
