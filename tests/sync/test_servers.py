"""Sync from real servers: https with a token, ssh with a deploy key and a pinned host key, and what can be wrong."""

from __future__ import annotations

import asyncio
import contextlib
import os
import pathlib
import shutil
import threading
from collections.abc import AsyncIterator

import pytest
import structlog.testing

from headrace.engine import errors, events
from headrace.sync import loop
from headrace.sync.source import Source
from tests.support import git_servers, sshd
from tests.support.daemons import until
from tests.support.repositories import FLOW, git


@pytest.fixture(params=["https", "ssh"])
async def server(request, repository, tmp_path, certificates, monkeypatch) -> AsyncIterator[git_servers.GitServer]:
    keys = tmp_path / "keys"
    keys.mkdir()
    root = repository.upstream.parent
    if request.param == "ssh":
        if not sshd.PROGRAM.exists():
            pytest.skip("sshd is not installed")
        made: git_servers.GitServer = git_servers.Ssh(root, keys)
    else:
        monkeypatch.setenv("SSL_CERT_FILE", str(certificates.folder / "ca.crt"))
        made = git_servers.Https(root, keys, certificates)
    await made.start()
    yield made
    await made.stop()


def everything_said(daemon, logs: list, status: loop.SourceStatus) -> str:
    """Return what people, logs and records get to see, and all that lies in the state directory."""
    written = "".join(path.read_bytes().decode("latin-1") for path in daemon.state.rglob("*") if path.is_file())
    return f"{logs} {status} {daemon.events} {written}"


async def test_a_push_arrives_and_so_does_all_that_can_happen_to_a_branch(server, repository, daemon):
    repository.write("a.py")
    first = repository.push()
    sync = await daemon.started(server.url, **server.settings)
    status = await daemon.synced(sync)
    assert (status.state, status.commit, status.ref, status.flows) == ("ok", first, "main", 1), status.error

    repository.write("b.py")
    second = repository.push()
    assert (await daemon.synced(sync)).commit == second

    git(repository.directory, "checkout", "--quiet", "--orphan", "other")
    repository.write("c.py")
    forced = repository.push(force=True)
    assert (await daemon.synced(sync)).commit == forced
    assert sync.flows.snapshot(second).is_dir()

    git(repository.upstream, "update-ref", "-d", "refs/heads/main")
    status = await daemon.synced(sync)
    assert (status.state, status.commit, status.flows) == ("degraded", forced, 3)
    assert "has no commit on its default branch" in status.error

    git(repository.upstream, "symbolic-ref", "HEAD", "refs/heads/trunk")
    git(repository.directory, "push", "--quiet", "origin", "HEAD:trunk")
    status = await daemon.synced(sync)
    assert (status.state, status.commit, status.flows, status.error) == ("ok", forced, 3, "")
    repository.branch = "trunk"
    repository.remove("c.py")
    last = repository.push()
    status = await daemon.synced(sync)
    assert (status.commit, status.ref, status.flows) == (last, "trunk", 2)


async def test_an_empty_repository_waits_for_its_first_commit(server, repository, daemon):
    sync = await daemon.started(server.url, **server.settings)
    status = await daemon.synced(sync)
    assert (status.state, status.hint) == ("degraded", "push a first commit")
    repository.write("a.py")
    commit = repository.push()
    assert (await daemon.synced(sync)).commit == commit


async def test_wrong_credentials_are_said_without_saying_them_and_right_ones_count_at_once(server, repository, daemon):
    repository.write("a.py")
    first = repository.push()
    with structlog.testing.capture_logs() as logs:
        sync = await daemon.started(server.url, **server.settings)
        server.lock_out()
        status = await daemon.synced(sync)
        assert (status.state, status.flows) == ("degraded", 0)
        assert "Authentication failed" in status.error or "Permission denied (publickey)" in status.error
        assert "source.token_file" in status.hint
        assert "canary" not in everything_said(daemon, logs, status)
        server.let_in()
        assert (await daemon.synced(sync)).commit == first
        repository.write("b.py")
        repository.push()
        server.lock_out()
        status = await daemon.synced(sync)
        assert (status.state, status.commit, status.flows) == ("degraded", first, 1)
        assert "canary" not in everything_said(daemon, logs, status)


async def test_a_server_that_is_gone_stops_nothing_and_is_found_again_without_help(
    server, repository, daemon, monkeypatch
):
    monkeypatch.setattr(loop, "_BACKOFF_FIRST_S", 0.05)
    monkeypatch.setattr(loop, "_BACKOFF_MAX_S", 0.2)
    repository.write("a.py")
    first = repository.push()
    sync = await daemon.started(server.url, **server.settings, poll_s=1)
    pauses = []
    pause_s = sync._pause_s
    monkeypatch.setattr(sync, "_pause_s", lambda **about: pauses.append(pause_s(**about)) or pauses[-1])
    async with daemon.running(sync), asyncio.timeout(60):
        succeeded = (await sync.sync_now(30)).last_success_at
        await server.stop()
        status = await sync.sync_now(30)
        failures = len(pauses)
        while len(pauses) < failures + 3:
            await asyncio.sleep(0.01)
        assert (status.state, status.commit, status.flows) == ("degraded", first, 1)
        assert "cannot be reached" in status.error
        assert sync.status().last_success_at == succeeded  # its age is what pages and metrics show
        assert sync.flows.find("a").runnable
        assert all(pause <= 0.2 for pause in pauses[failures:])
        repository.write("b.py")
        second = repository.push()
        await server.start()
        while sync.status().commit != second:
            await asyncio.sleep(0.01)
    assert [event.commit for event in daemon.published] == [first, second]


class Onlooker(threading.Thread):
    """Looks at the command line and the environment of every process there is, again and again."""

    def __init__(self, wanted: bytes) -> None:
        super().__init__(name="onlooker", daemon=True)
        self._wanted = wanted
        self.over = threading.Event()
        self.programs: set[bytes] = set()
        self.found: list[bytes] = []

    def run(self) -> None:
        while not self.over.is_set():
            for process in pathlib.Path("/proc").glob("[0-9]*"):
                with contextlib.suppress(OSError):
                    words = (process / "cmdline").read_bytes()
                    self.programs |= {pathlib.Path(os.fsdecode(word)).name.encode() for word in words.split(b"\0")[:3]}
                    if self._wanted in words + (process / "environ").read_bytes():
                        self.found.append(words)


@pytest.mark.parametrize("server", ["https"], indirect=True)
async def test_nobody_on_the_machine_sees_the_token_go_by(server, repository, daemon):
    repository.write("a.py")
    repository.push()
    onlooker = Onlooker(server.token.encode())
    onlooker.start()
    sync = await daemon.started(server.url, **server.settings)
    for number in range(6):
        repository.write("a.py", FLOW + f"# {number}\n")
        commit = repository.push()
        assert (await daemon.synced(sync)).commit == commit
    onlooker.over.set()
    onlooker.join(30)
    assert {b"git", b"git-remote-https"} & onlooker.programs
    assert onlooker.found == []


@pytest.mark.parametrize("server", ["https"], indirect=True)
async def test_a_server_whose_certificate_nobody_vouches_for_gets_no_question(server, repository, daemon, monkeypatch):
    repository.write("a.py")
    commit = repository.push()
    monkeypatch.delenv("SSL_CERT_FILE")
    asked = []
    serve = server.answer
    server.answer = lambda request: asked.append(request) or serve(request)
    status = await daemon.synced(await daemon.started(server.url, **server.settings))
    assert (status.state, asked) == ("degraded", [])
    assert "certificate" in status.error
    assert "SSL_CERT_FILE" in status.hint
    monkeypatch.setenv("SSL_CERT_FILE", str(pathlib.Path(server.settings["token_file"]).parent / "nowhere.crt"))
    assert (await daemon.synced(await daemon.started(server.url, **server.settings))).state == "degraded"
    assert commit not in str(daemon.events)


@pytest.mark.parametrize("server", ["ssh"], indirect=True)
async def test_a_host_key_that_changed_is_refused_until_it_is_pinned(server, repository, daemon):
    repository.write("a.py")
    first = repository.push()
    sync = await daemon.started(server.url, **server.settings)
    assert (await daemon.synced(sync)).commit == first
    await server.stop()
    server.new_host_key()
    await server.start()
    repository.write("b.py")
    second = repository.push()
    status = await daemon.synced(sync)
    assert (status.state, status.commit) == ("degraded", first)
    assert "Host key for [127.0.0.1]" in status.error
    assert "has changed" in status.error
    assert "source.known_hosts" in status.hint
    server.trust()
    assert (await daemon.synced(sync)).commit == second


@pytest.mark.parametrize("server", ["ssh"], indirect=True)
async def test_a_host_nobody_pinned_is_refused(server, repository, daemon, tmp_path):
    repository.write("a.py")
    repository.push()
    server.known_hosts.write_text("")
    status = await daemon.synced(await daemon.started(server.url, **server.settings))
    assert status.state == "degraded"
    assert "host key is known for [127.0.0.1]" in status.error
    assert "ssh-keyscan" in status.hint
    assert server.known_hosts.read_text() == ""


async def test_the_git_protocol_is_refused_for_it_proves_nothing(repository, tmp_path):
    repository.write("a.py")
    repository.push()
    async with git_servers.git_daemon(repository.upstream.parent) as (address, log):
        assert git(tmp_path, "ls-remote", f"{address}/upstream.git", "refs/heads/main")  # it would answer
        until(lambda: "Disconnected" in log.read_text(), "the server has written all of it")
        asked = log.read_text()
        with pytest.raises(errors.ConfigurationInvalid, match="not allowed"):
            Source(url=f"{address}/upstream.git")
        assert log.read_text() == asked


async def test_what_was_cut_off_in_the_askpass_program_is_written_again(
    tmp_path, repository, daemon, certificates, monkeypatch
):
    monkeypatch.setenv("SSL_CERT_FILE", str(certificates.folder / "ca.crt"))
    (tmp_path / "keys").mkdir()
    server = git_servers.Https(repository.upstream.parent, tmp_path / "keys", certificates)
    await server.start()
    repository.write("a.py", FLOW)
    commit = repository.push()
    sync = await daemon.started(server.url, **server.settings)
    daemon.state.joinpath("git-askpass").write_text("#!/bin")
    status = await daemon.synced(sync)
    await server.stop()
    assert (status.state, status.commit) == ("ok", commit), status.error
    assert isinstance(daemon.events[-1], events.CommitPublished)
    assert shutil.which(str(daemon.state / "git-askpass"))
