"""Servers that misbehave at every stage of a fetch: what is published stays, it ends in time, a good answer heals."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from aiohttp import web

from headrace.sync import git as sync_git
from headrace.sync import remote
from tests.support import git_http, git_servers, hostile_git
from tests.support.hostile_git import Hostile
from tests.support.repositories import FLOW, git

#: Far more than any of this takes; each git is given a second.
GUARD_S = 90


@pytest.fixture
async def server(repository, tmp_path, certificates, monkeypatch) -> AsyncIterator[git_servers.Https]:
    monkeypatch.setenv("SSL_CERT_FILE", str(certificates.folder / "ca.crt"))
    (tmp_path / "keys").mkdir()
    made = git_servers.Https(repository.upstream.parent, tmp_path / "keys", certificates)
    await made.start()
    yield made
    await made.stop()


@pytest.fixture
def hostile(server) -> Hostile:
    made = Hostile(server.answer)
    server.answer = made.serve
    return made


def leftovers(state: Path) -> list[str]:
    """Return what of a broken-off fetch lies in the mirror."""
    mirror = state / "mirror.git"
    found = [*mirror.rglob("tmp_*"), *mirror.rglob("*.lock"), *mirror.rglob("*.keep")]
    return [str(path.relative_to(mirror)) for path in found]


async def spoilt_pass(daemon, sync, hostile: Hostile, monkeypatch, manner: str | int, newest: str) -> None:
    """Make a pass with ``hostile.stage`` spoilt. A git that would wait for ever is given a second, or a few more."""
    before = sync.status()
    hostile.manner, hostile.spoilt = manner, 0
    waits = manner in hostile_git.SLOW | hostile_git.ENDLESS
    for seconds in (1.0, 4.0, 16.0) if waits else (0.0,):  # on a busy machine it may not come as far as that in one
        with monkeypatch.context() as patched:
            if seconds and hostile.stage == "fetch":
                patched.setattr(remote, "FETCH_TIMEOUT_S", seconds)
                patched.setattr(remote, "FIRST_FETCH_TIMEOUT_S", seconds)
            elif seconds:
                patched.setattr(remote, "_ASK_TIMEOUT_S", seconds)
            async with asyncio.timeout(GUARD_S):
                status = await daemon.synced(sync)
        if hostile.spoilt:
            break
    said = (hostile.stage, manner, status.error)
    assert hostile.spoilt, said
    assert "canary" not in str(status), said
    if manner == "a wrong bit" and status.state == "ok":  # it was one that says nothing
        assert status.commit == newest
        return
    assert (status.state, status.commit, status.flows) == ("degraded", before.commit, before.flows), said
    assert status.error.isprintable(), said
    assert "cannot be" in status.error, said
    assert status.hint, said


@pytest.mark.parametrize("stage", hostile_git.STAGES)
async def test_whatever_a_server_answers_the_catalogue_stays_and_a_good_answer_heals(
    repository, daemon, server, hostile, monkeypatch, stage
):
    repository.write("a.py", FLOW)
    repository.push()
    sync = await daemon.started(server.url, **server.settings)
    await daemon.synced(sync)
    repository.write("b.py", FLOW + "# filling\n" * 300)
    commit = repository.push()
    hostile.stage = stage
    for manner in (*hostile_git.STATUSES, *hostile_git.MANNERS):
        if manner not in hostile_git.SLOW or manner == "half, then silence":
            await spoilt_pass(daemon, sync, hostile, monkeypatch, manner, commit)
    hostile.stage = ""
    status = await daemon.synced(sync)
    assert (status.state, status.commit, status.flows) == ("ok", commit, 2), status.error
    assert leftovers(daemon.state) == []


async def test_a_first_clone_that_breaks_off_begins_again(repository, daemon, server, hostile, monkeypatch):
    repository.write("a.py", FLOW)
    commit = repository.push()
    sync = await daemon.started(server.url, **server.settings)
    hostile.stage = "fetch"
    for manner in ("half of it", "half, then a reset", "silence"):
        await spoilt_pass(daemon, sync, hostile, monkeypatch, manner, commit)
    hostile.stage = ""
    assert (await daemon.synced(sync)).commit == commit
    assert leftovers(daemon.state) == []


async def test_the_first_clone_may_take_longer(repository, daemon, server, monkeypatch):
    repository.write("a.py", FLOW)
    commit = repository.push()
    monkeypatch.setattr(remote, "FETCH_TIMEOUT_S", 0.0)
    sync = await daemon.started(server.url, **server.settings)
    assert (await daemon.synced(sync)).commit == commit
    repository.write("b.py", FLOW)
    repository.push()
    status = await daemon.synced(sync)
    assert (status.state, status.commit) == ("degraded", commit)
    assert "git fetch was not done after 0 s" in status.error


@pytest.mark.parametrize("sent", ["pack_without_end", "chatter_without_end", "bomb"])
async def test_what_never_ends_takes_neither_the_disk_nor_memory(
    repository, daemon, server, hostile, monkeypatch, sent
):
    repository.write("a.py", FLOW)
    commit = repository.push()
    sync = await daemon.started(server.url, **server.settings)
    with monkeypatch.context() as patched:
        patched.setattr(remote, "FIRST_FETCH_TIMEOUT_S", 60.0 if sent == "pack_without_end" else 1.0)
        patched.setattr(sync_git.Git, "_room", lambda self: 8 * 2**20)
        patched.setattr(sync_git, "_MEMORY_BYTES_MAX", 200 * 2**20)
        hostile.stage, hostile.give = "fetch", getattr(hostile_git, sent)
        async with asyncio.timeout(GUARD_S):
            status = await daemon.synced(sync)
    assert (status.state, status.commit) == ("degraded", ""), status.error
    if sent == "pack_without_end":
        assert "more came than the disk has room for" in status.error
        assert "the disk" in status.hint
    else:
        assert "git fetch was not done after 1 s" in status.error
    used = sum(path.stat().st_size for path in daemon.state.rglob("*") if path.is_file())
    assert used < 12 * 2**20
    hostile.stage = ""
    assert (await daemon.synced(sync)).commit == commit
    assert leftovers(daemon.state) == []


def test_git_may_make_no_file_larger_than_half_of_what_is_left(tmp_path, monkeypatch):
    wrapper = tmp_path / "bin" / "git"
    wrapper.parent.mkdir()
    wrapper.write_text("#!/bin/sh\nulimit -c; ulimit -f; ulimit -d\n")
    wrapper.chmod(0o755)
    monkeypatch.setenv("PATH", f"{wrapper.parent}:/usr/bin:/bin")
    room = shutil.disk_usage(tmp_path).free // 2
    core, blocks, kilobytes = map(int, sync_git.Git(tmp_path / "to" / "come", tmp_path).run("fetch").split())
    assert (core, kilobytes) == (0, 2 * 2**20)
    assert abs(blocks * 512 - room) < room / 10  # others write, too


class Elsewhere:
    """Another server: it writes down what it is shown, and serves the same repositories to anybody."""

    def __init__(self, root: Path, *, asks: bool) -> None:
        self.shown: list[str] = []
        self._good = git_http.handler(root, **({"user": "git", "password": "another"} if asks else {}))

    async def serve(self, request: web.Request) -> web.StreamResponse:
        self.shown.append(f"{request.url} {dict(request.headers)} {await request.read()!r}")
        return await self._good(request)


@pytest.mark.parametrize("asks", [False, True], ids=["open", "asks for credentials"])
@pytest.mark.parametrize("stage", hostile_git.STAGES)
@pytest.mark.parametrize("known", [False, True], ids=["before it knows who asks", "after it was shown the token"])
async def test_a_redirect_elsewhere_takes_no_credentials_along(
    repository, daemon, server, certificates, tmp_path, stage, known, asks
):
    repository.write("a.py", FLOW)
    commit = repository.push()
    other = git_servers.Https(repository.upstream.parent, tmp_path / "keys", certificates)
    elsewhere = Elsewhere(repository.upstream.parent, asks=asks)
    other.answer = elsewhere.serve
    await other.start()
    good = server.answer
    sent = []

    async def redirecting(request: web.Request) -> web.StreamResponse:
        asked = hostile_git.stage_of(request, await request.read())
        answer = await good(request)
        if asked != stage or (known and answer.status == 401):
            return answer
        sent.append(asked)
        raise web.HTTPFound(other.url.removesuffix("/upstream.git") + request.path_qs)

    server.answer = redirecting
    status = await daemon.synced(await daemon.started(server.url, **server.settings))
    await other.stop()
    assert sent
    assert "canary" not in f"{elsewhere.shown} {status}"
    assert not any("Authorization" in shown for shown in elsewhere.shown)
    if status.state == "ok":  # from the beginning the other server is asked, as anybody
        assert (stage, asks, status.commit) == ("advertise", False, commit)
    else:
        assert status.commit == ""


@pytest.mark.parametrize(
    "target", ["file://{upstream}", "git://127.0.0.1:{port}/upstream.git", "http://127.0.0.1:{port}/", "ext::touch {x}"]
)
async def test_a_redirect_to_another_protocol_is_not_followed(repository, daemon, server, tmp_path, target):
    repository.write("a.py", FLOW)
    repository.push()
    knocks = []
    listening = await asyncio.start_server(lambda reader, writer: knocks.append(writer.close()), "127.0.0.1", 0)
    port = listening.sockets[0].getsockname()[1]

    async def redirecting(request: web.Request) -> web.StreamResponse:
        where = target.format(upstream=repository.upstream, port=port, x=tmp_path / "canary")
        return web.Response(status=302, headers={"Location": f"{where}/info/refs?service=git-upload-pack"})

    server.answer = redirecting
    status = await daemon.synced(await daemon.started(server.url, **server.settings))
    listening.close()
    await listening.wait_closed()
    assert (status.state, status.commit, knocks) == ("degraded", "", [])
    assert not (tmp_path / "canary").exists()


async def test_a_server_of_the_old_kind_cannot_send_us_to_other_objects(repository, daemon, server, tmp_path):
    """Plain files over HTTP: what ``http-alternates`` names is neither asked over the net nor read from the disk."""
    repository.write("a.py", FLOW)
    repository.push()
    secret = tmp_path / "secret.git"
    shutil.copytree(repository.upstream, secret)
    for path in (repository.upstream / "objects").glob("??"):
        shutil.rmtree(path)
    git(secret, "update-server-info")
    asked = []

    async def plain(request: web.Request) -> web.StreamResponse:
        asked.append(request.path)
        if request.path.endswith("/info/refs"):
            return web.Response(body=(secret / "info" / "refs").read_bytes(), content_type="text/plain")
        if request.path.endswith("/HEAD"):
            return web.Response(text="ref: refs/heads/main\n")
        if "alternates" in request.path:
            return web.Response(text=f"/secret.git/objects\n{secret}/objects\n")
        if request.path.startswith("/secret.git"):
            return web.Response(body=(tmp_path / request.path[1:]).read_bytes())
        return web.Response(status=404)

    server.answer = plain
    status = await daemon.synced(await daemon.started(server.url, **server.settings))
    assert (status.state, status.commit) == ("degraded", "")
    assert not [path for path in asked if path.startswith("/secret.git")]


async def test_a_server_with_very_many_refs_is_asked_for_one(repository, daemon, server):
    repository.write("a.py", FLOW)
    commit = repository.push()
    lines = "".join(f"{commit} refs/heads/crowd/{number}\n" for number in range(200_000))
    (repository.upstream / "packed-refs").write_text(f"# pack-refs with: peeled fully-peeled sorted \n{lines}")
    status = await daemon.synced(await daemon.started(server.url, **server.settings))
    assert (status.state, status.commit) == ("ok", commit), status.error


async def test_a_default_branch_with_a_name_that_is_none_is_not_repeated(repository, daemon, server, hostile):
    repository.write("a.py", FLOW)
    commit = repository.push()

    async def named(good: bytes):
        line = f"{commit} HEAD symref-target:refs/heads/-\x1b[31mred\n".encode()
        yield hostile_git.packet(line) + b"0000"

    hostile.stage, hostile.give = "refs", named
    status = await daemon.synced(await daemon.started(server.url, **server.settings))
    assert (status.state, status.commit, status.ref) == ("ok", commit, "HEAD")
