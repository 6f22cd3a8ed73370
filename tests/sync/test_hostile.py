"""Repositories and settings made to do harm: nothing of theirs is executed, nothing is written outside."""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
import time
from pathlib import Path

import hypothesis
import pytest
from hypothesis import strategies

from headrace.engine import errors
from headrace.sync import git, mirror, remote, tree
from headrace.sync.source import Source
from tests.support import repositories
from tests.support.repositories import FLOW

_COMMIT = b"commit refs/heads/main\ncommitter Eve <eve@example.org> 1700000000 +0000\ndata 1\nx\n"


def stream(*entries: tuple[str, bytes, bytes]) -> bytes:
    """Return a fast-import stream with one commit of (mode, quoted path, content or sha) entries."""
    lines = [_COMMIT]
    for mode, path, content in entries:
        if mode == "160000":
            lines.append(b"M 160000 %s %s\n" % (content, path))
        else:
            lines.append(b"M %s inline %s\ndata %d\n%s\n" % (mode.encode(), path, len(content), content))
    return b"".join(lines)


GOOD = ("100644", b"good.py", FLOW.encode())


def nested_tree(repository: repositories.Repository, names: list[bytes], mode: bytes = b"100644") -> str:
    """Commit a file below folders of any name whatever, bypassing every check of git's, and return the commit."""

    def put(kind: str, content: bytes) -> str:
        return repositories.git(
            repository.upstream, "hash-object", "-w", "--stdin", "--literally", "-t", kind, stdin=content
        )

    flow = put("blob", FLOW.encode())
    inner = put("tree", mode + b" " + names[-1] + b"\0" + bytes.fromhex(flow))
    for name in reversed(names[:-1]):
        inner = put("tree", b"40000 " + name + b"\0" + bytes.fromhex(inner))
    about = b"Eve <e@example.org> 1700000000 +0000"
    commit = put("commit", b"tree %s\nauthor %s\ncommitter %s\n\nx\n" % (inner.encode(), about, about))
    repositories.git(repository.upstream, "update-ref", "refs/heads/main", commit)
    return commit


def outside(daemon, tmp_path: Path) -> set[Path]:
    """Return every path that sync has no business with."""
    return {path for path in tmp_path.rglob("*") if not path.is_relative_to(daemon.state)}


LEFT_OUT = {
    "absolute link": ("120000", b"link.py", b"/etc/passwd"),
    "relative link": ("120000", b"link.py", b"../../../../etc/passwd"),
    "link to itself": ("120000", b"link.py", b"link.py"),
    "link to a folder": ("120000", b"link.py", b"/etc"),
    "submodule": ("160000", b"link.py", b"1234567890123456789012345678901234567890"),
}


@pytest.mark.parametrize("kind", LEFT_OUT)
async def test_links_and_submodules_are_left_out_with_a_warning(repository, daemon, tmp_path, kind):
    repository.fast_import(stream(GOOD, LEFT_OUT[kind], ("100644", b".gitmodules", b'[submodule "x"]\n\turl = /x\n')))
    before = outside(daemon, tmp_path)
    sync = await daemon.started(repository.url)
    status = await daemon.synced(sync)
    assert (status.state, list(sync.flows.current().flows)) == ("ok", ["good"])
    assert "left out" in status.warnings["link.py"]
    assert not sync.flows.snapshot(status.commit).joinpath("link.py").is_symlink()
    assert outside(daemon, tmp_path) == before


async def test_a_flow_that_becomes_a_link_keeps_its_last_good_version(repository, daemon):
    repository.write("a.py")
    good = repository.push()
    sync = await daemon.started(repository.url)
    await daemon.synced(sync)
    repository.remove("a.py")
    repository.directory.joinpath("a.py").symlink_to("/etc/passwd")
    repository.push()
    await daemon.synced(sync)
    flow = sync.flows.find("a")
    assert (flow.commit, flow.runnable) == (good, True)
    assert "symbolic link" in flow.broken.reason


BAD_NAMES = [
    [b".git", b"config"],
    [b".GIT", b"hooks", b"post-checkout"],
    [b"sub", b".Git"],
    [b"git~1", b"x.py"],
    [b".git ", b"x.py"],
    [b".git.", b"x.py"],
    [b".git::$INDEX_ALLOCATION", b"x.py"],
    [".g\u200cit".encode(), b"x.py"],
    [b"..", b"x.py"],
    [b".", b"x.py"],
    [b"", b"x.py"],
    [b"x\r", b"x.py"],
    [b"x\n.py"],
    [b"x\x1b[31m.py"],
    [b"..\\x.py"],
    [b"\xff\xfe.py"],
    [b"a" * 256],
    [b"d"] * 33 + [b"x.py"],
]


@pytest.mark.parametrize("names", BAD_NAMES, ids=lambda names: repr(names)[:40])
async def test_names_that_no_honest_repository_has_are_refused(repository, daemon, tmp_path, names):
    repository.write("a.py")
    good = repository.push()
    sync = await daemon.started(repository.url)
    await daemon.synced(sync)
    nested_tree(repository, names)
    before = outside(daemon, tmp_path)
    status = await daemon.synced(sync)
    assert (status.state, status.commit) == ("degraded", good)
    assert status.error
    assert outside(daemon, tmp_path) == before
    assert not list(daemon.state.rglob("x.py"))


@pytest.mark.parametrize("names", BAD_NAMES, ids=lambda names: repr(names)[:40])
def test_such_names_are_refused_even_where_the_transport_lets_them_through(tmp_path, names):
    """git's own check stands before ours; what it lets through today or tomorrow must not matter."""
    listing = b"100644 blob " + b"0" * 40 + b"       1\t" + b"/".join(names) + b"\0"
    with pytest.raises(tree.TreeRefused):
        tree.plan(tree.parse(listing))


@pytest.mark.parametrize(
    ("first", "second"),
    [
        (b"a.py", b"A.py"),
        (b"Sub/a.py", b"sub/b.py"),
        (b"Sub/x/a.py", b"sub/y/b.py"),
        ("é.py".encode(), "e\u0301.py".encode()),
    ],
)
async def test_names_that_are_one_on_some_file_systems_are_refused(repository, daemon, first, second):
    repository.fast_import(stream(("100644", first, FLOW.encode()), ("100644", second, FLOW.encode())))
    status = await daemon.synced(await daemon.started(repository.url))
    assert (status.state, status.flows) == ("degraded", 0)
    assert "differ only in case" in status.error


async def test_attributes_filters_and_hooks_of_a_commit_are_never_heard(repository, daemon, tmp_path):
    canary = tmp_path / "canary"
    script = f"#!/bin/sh\n: > {canary}\n".encode()
    repository.fast_import(
        stream(
            GOOD,
            (
                "100644",
                b".gitattributes",
                b"*.py filter=evil export-subst ident text eol=crlf\nhidden.py export-ignore\n",
            ),
            ("100644", b"hidden.py", FLOW.encode()),
            ("100644", b"ident.py", b"def handler(system, this):\n    return '$Format:%H$ $Id$'\n"),
            ("100755", b".githooks/post-checkout", script),
            ("100644", b".lfsconfig", b"[lfs]\n\turl = http://127.0.0.1:1/\n"),
            ("100644", b"conftest.py", f"open({str(canary)!r}, 'w')\n".encode()),
            ("100644", b"sitecustomize.py", f"open({str(canary)!r}, 'w')\n".encode()),
            ("100644", b"json.py", f"open({str(canary)!r}, 'w')\n".encode()),
            ("100644", b"evil.pth", f"import os; os.system('touch {canary}')\n".encode()),
        )
    )
    for hook in ("post-upload-pack", "pre-receive", "reference-transaction"):
        path = repository.upstream / "hooks" / hook
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(script)
        path.chmod(0o755)
    repositories.git(repository.upstream, "config", "uploadpack.packObjectsHook", f"touch {canary};")
    repositories.git(repository.upstream, "config", "core.fsmonitor", f"touch {canary}")
    sync = await daemon.started(repository.url)
    status = await daemon.synced(sync)
    assert (status.state, sorted(sync.flows.current().flows)) == ("ok", ["good", "hidden", "ident"])
    assert "$Format:%H$ $Id$" in sync.flows.snapshot(status.commit).joinpath("ident.py").read_text()
    assert not canary.exists()


async def test_compiled_python_is_left_out(repository, daemon):
    repository.fast_import(
        stream(GOOD, ("100644", b"__pycache__/good.cpython-311.pyc", b"x"), ("100644", b"lib.pyc", b"x"))
    )
    sync = await daemon.started(repository.url)
    status = await daemon.synced(sync)
    assert [path.name for path in sync.flows.snapshot(status.commit).iterdir()] == ["good.py"]
    assert len(status.warnings) == 2


async def test_files_over_the_limit_are_left_out_and_reported(repository, daemon):
    repository.fast_import(
        stream(
            GOOD,
            ("100644", b"big.py", b"#" * (tree.PYTHON_BYTES_MAX + 1)),
            ("100644", b"big.bin", b"0" * (tree.FILE_BYTES_MAX + 1)),
        )
    )
    status = await daemon.synced(await daemon.started(repository.url))
    assert (status.state, status.flows) == ("ok", 1)
    assert all("the limit is" in status.warnings[name] for name in ("big.py", "big.bin"))


def entries(count: int, size: int) -> list[tree.Entry]:
    return [tree.Entry(f"{number}.bin", "0" * 40, "100644", size) for number in range(count)]


def test_trees_over_the_limits_are_refused():
    tree.plan(entries(tree.FILES_MAX, 1))
    with pytest.raises(tree.TreeRefused, match="more than 20,000 files"):
        tree.plan(entries(tree.FILES_MAX + 1, 1))
    with pytest.raises(tree.TreeRefused, match="more than 268,435,456 bytes"):
        tree.plan(entries(9, 31 * 1024 * 1024))


BAD_URLS = [
    "", "-", "--upload-pack=touch canary", "-oProxyCommand=touch canary", "ext::sh -c 'touch canary'", "fd::17",
    "git://host/x", "http://host/x", "ftp://host/x", "file://host/x", "file://../x", "file:///x\ny", "file:///x%0ay",
    "https://user:secret@host/x", "https://secret@host/x", "https://-host/x", "https://host/x y", "https://host/$(id)",
    "https://host/x\n", "https://host/x\0", "https://host/`id`", "ssh://-oProxyCommand=x/y", "ssh://user@-host/x",
    "ssh://host/x;id", "-host:path", "user@-host:path", "host:-path", "host::path", "host:p\rath", "ｈost:path",
    "https://ho‐st/x", "/absolute", "relative/path", "$HOME", "~/x", "https:///x", "transport::https://host/x",
    "ssh://u\u2010ser@host/x", "ext::https://host/x", "https://host:port/x", "-chttp.proxy=x:y",
]  # fmt: skip

BAD_REFS = [
    "-", "--upload-pack=touch canary", "-c", "a b", "a..b", "a//b", "/a", "a/", ".a", "a/.b", "a.lock", "a.lock/b",
    "a.", "a~1", "a^", "a:b", "+a", "a?", "a*", "[a]", "a\\b", "a\nb", "a\0", "a\x7f", "a@{1}", "@", "$(id)", "`id`",
    "a;id", "‐a", "a" * 201, "refs/heads/--x", "HEAD:refs/x",
]  # fmt: skip


@pytest.fixture
def recorder(tmp_path, monkeypatch):
    """Put a ``git`` first on the PATH that writes down how it is called."""
    log = tmp_path / "argv"
    wrapper = tmp_path / "bin" / "git"
    wrapper.parent.mkdir()
    wrapper.write_text(f'#!/bin/sh\nprintf \'%s\\0\' "$@" >> {log}; echo >> {log}\nexec {shutil.which("git")} "$@"\n')
    wrapper.chmod(0o755)
    monkeypatch.setenv("PATH", f"{wrapper.parent}:/usr/bin:/bin")
    monkeypatch.chdir(tmp_path)
    return log


@pytest.mark.parametrize("url", BAD_URLS, ids=repr)
def test_a_bad_url_never_reaches_git(recorder, tmp_path, url):
    with pytest.raises(errors.ConfigurationInvalid) as caught:
        Source(url=url)
    assert "secret" not in str(caught.value)
    assert not recorder.exists()


@pytest.mark.parametrize("ref", BAD_REFS, ids=repr)
def test_a_bad_ref_never_reaches_git(recorder, ref):
    with pytest.raises(errors.ConfigurationInvalid):
        Source(url="https://host/x", ref=ref)
    assert not recorder.exists()


@pytest.mark.parametrize(
    "url",
    [
        "https://forge.example:8443/ops/flows.git",
        "ssh://git@forge:22/x.git",
        "git@forge.example:ops/x.git",
        "file:///a%20b",
    ],
)
def test_good_urls_pass(url):
    assert git.checked_url(url) == url.replace("file://", "").replace("%20", " ")


@pytest.mark.parametrize("ref", ["main", "feature/x-1", "v1.0", "release_2", "fix#12", "größe", "refs/heads/a"])
def test_good_refs_pass(ref):
    assert git.checked_ref(ref) == ref


@hypothesis.given(
    text=strategies.text("-:/@.ax%~$ \n\0\u2010", max_size=20),
    start=strategies.sampled_from(["", "https://", "ssh://", "h:"]),
)
def test_what_passes_the_allowlists_can_be_no_option_and_no_helper(text, start):
    for check in (git.checked_url, git.checked_ref):
        try:
            passed = check(start + text)
        except errors.ConfigurationInvalid:
            continue
        assert not passed.startswith("-")
        assert "::" not in passed.partition("/")[0]
        assert not set(passed) & set("$ \n\0\u2010")


@pytest.mark.parametrize("sha", ["", "HEAD", "-x", "abc", "0" * 39, "0" * 41, "G" * 40, "A" * 40, "0" * 40 + "\n"])
def test_only_whole_shas_pass(sha):
    with pytest.raises(errors.InvalidRequest):
        git.checked_sha(sha)


async def test_what_comes_from_outside_stands_behind_two_dashes(recorder, repository, daemon):
    repository.write("a.py")
    repository.push()
    await daemon.synced(await daemon.started(repository.url, ref="main"))
    remote_calls = [line for line in recorder.read_text().splitlines() if "ls-remote" in line or "\0fetch\0" in line]
    assert len(remote_calls) == 2
    for call in remote_calls:
        words = call.split("\0")
        assert words.index(str(repository.upstream)) > words.index("--")
        assert all(not word.endswith("main") for word in words[: words.index("--")])


async def test_git_sees_nothing_of_the_daemons_environment(tmp_path, repository, daemon, monkeypatch):
    seen = tmp_path / "environment"
    wrapper = tmp_path / "bin" / "git"
    wrapper.parent.mkdir()
    wrapper.write_text(f'#!/bin/sh\nenv >> {seen}\nexec {shutil.which("git")} "$@"\n')
    wrapper.chmod(0o755)
    monkeypatch.setenv("PATH", f"{wrapper.parent}:/usr/bin:/bin")
    for name in (
        "GIT_DIR",
        "GIT_INDEX_FILE",
        "GIT_SSH",
        "GIT_EXTERNAL_DIFF",
        "LD_PRELOAD_X",
        "HEADRACE_TOKEN",
        "GIT_TRACE",
    ):
        monkeypatch.setenv(name, "canary")
    repository.write("a.py")
    repository.push()
    status = await daemon.synced(await daemon.started(repository.url))
    assert status.state == "ok"
    text = seen.read_text()
    assert "canary" not in text
    names = {line.partition("=")[0] for line in text.splitlines()}
    assert {"GIT_CONFIG_NOSYSTEM", "GIT_TERMINAL_PROMPT", "GIT_SSH_COMMAND"} <= names
    assert f"HOME={daemon.state}/git-home" in text
    assert not list((daemon.state / "git-home").iterdir())


def test_a_git_that_hangs_is_killed_with_what_it_spawned(tmp_path, monkeypatch):
    wrapper = tmp_path / "bin" / "git"
    wrapper.parent.mkdir()
    wrapper.write_text(f"#!/bin/sh\nsleep 60 & echo $! > {tmp_path}/child\nwait\n")
    wrapper.chmod(0o755)
    monkeypatch.setenv("PATH", f"{wrapper.parent}:/usr/bin:/bin")
    with pytest.raises(git.GitFailed, match="git fetch was not done after 1 s"):
        git.Git(tmp_path, tmp_path).run("fetch", timeout_s=1)
    child = Path("/proc") / (tmp_path / "child").read_text().strip() / "stat"
    deadline = time.monotonic() + 10
    while child.exists() and child.read_text().split()[2] != "Z":
        assert time.monotonic() < deadline, "what git spawned is still running"
        time.sleep(0.01)


def test_a_source_that_is_not_local_cannot_reach_local_files(tmp_path, repository):
    """Should a forge redirect or a rewritten address name a file, git itself refuses."""
    repository.write("a.py")
    repository.push()
    made = mirror.Mirror(tmp_path / "state", environment={"GIT_ALLOW_PROTOCOL": "https"})
    (tmp_path / "state").mkdir()
    made.ensure()
    with pytest.raises(git.GitFailed, match="not allowed"):
        made.git.run("ls-remote", "--", repository.url)


def test_the_token_is_given_to_the_sources_host_only(tmp_path):
    (tmp_path / "token").write_text("s3cret\n")
    made = remote.Remote(Source(url="https://forge.example/x.git", token_file=str(tmp_path / "token")), tmp_path)
    made._write_files()
    environment = made._environment(tmp_path)
    assert "s3cret" not in repr(environment)

    def ask(prompt: str) -> tuple[int, str]:
        done = subprocess.run([environment["GIT_ASKPASS"], prompt], env=environment, capture_output=True, text=True)
        return done.returncode, done.stdout.strip()

    assert ask("Username for 'https://forge.example': ") == (0, "git")
    assert ask("Password for 'https://git@forge.example': ") == (0, "s3cret")
    assert ask("Password for 'https://git@evil.example': ")[1] == ""
    assert ask("Password for 'https://git@forge.example.evil.example': ")[1] == ""
    assert ask("Password for 'https://forge.example@evil.example': ")[1] == ""


def test_ssh_asks_nobody_and_knows_its_hosts():
    words = shlex.split(git.ssh_command("/keys/my key", "/etc/known hosts"))
    assert words[:3] == ["ssh", "-F", "none"]
    assert {"-oBatchMode=yes", "-oStrictHostKeyChecking=yes", '-oUserKnownHostsFile="/etc/known hosts"'} <= set(words)
    assert "-oGlobalKnownHostsFile=/dev/null" in words
    assert words[-2:] == ["-i", "/keys/my key"]


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a repository to another user")
async def test_a_local_repository_of_another_user_can_be_the_source(repository, daemon):
    repository.write("a.py")
    repository.push()
    for path in [repository.upstream, *repository.upstream.rglob("*")]:
        os.chown(path, 65534, 65534)
    assert (await daemon.synced(await daemon.started(repository.url))).state == "ok"


def test_messages_hold_no_credentials():
    assert git.redacted("fatal: https://user:pa55@host/x failed") == "fatal: https://host/x failed"
