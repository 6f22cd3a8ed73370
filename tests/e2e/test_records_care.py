"""A daemon on a wrong volume, an old copy, a small disk, and with a damaged or a lost file: what it says and does."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from headrace.engine import errors
from tests.support.daemons import Daemon, until

FLOW = "def handler(system, this):\n    this.log('x' * 500)\n    return this.success()\n"
WAITS = "def handler(system, this):\n    this.message('go on?', request='x')\n    return this.success('went on')\n"


@pytest.fixture
def flows(tmp_path: Path) -> Path:
    folder = tmp_path / "flows"
    folder.mkdir()
    (folder / "short.py").write_text(FLOW)
    (folder / "waits.py").write_text(WAITS)
    return folder


def events_of(daemon: Daemon) -> list[str]:
    lines = daemon.log.read_text().splitlines()
    return [json.loads(line).get("event", "") for line in lines if line.startswith("{")]


def refused(daemon: Daemon, error: type[errors.HeadraceError]) -> None:
    """The start is refused with the code of ``error`` and changes nothing."""
    before = {path: path.read_bytes() for path in sorted(daemon.state.rglob("*")) if path.is_file()}
    daemon.start(wait=False)
    assert daemon.process is not None
    assert daemon.process.wait(30) == error.exit_code
    after = {path: path.read_bytes() for path in sorted(daemon.state.rglob("*")) if path.is_file()}
    assert {k: v for k, v in after.items() if k.name != "daemon.lock"} == {
        k: v for k, v in before.items() if k.name != "daemon.lock"
    }


def test_a_wrong_volume_is_refused_without_a_write(make_daemon: Callable[..., Daemon], flows: Path) -> None:
    daemon, other = make_daemon(flows), make_daemon(flows, state="other")
    daemon.start().run("short")
    other.start().run("short")
    assert daemon.stop() == other.stop() == 0
    mine, away = daemon.state / "records", daemon.state.parent / "away"
    mine.rename(away)
    refused(daemon, errors.HistoryLost)
    mine.mkdir()
    refused(daemon, errors.HistoryLost)
    mine.rmdir()
    shutil.copytree(other.state / "records", mine)
    refused(daemon, errors.HistoryLost)
    shutil.rmtree(mine)
    away.rename(mine)
    link = daemon.state.parent / "link"
    link.symlink_to(daemon.state)
    second = make_daemon(flows, state="link").start()
    assert second.client.all_executions(limit=5)
    refused(daemon, errors.StateInUse)
    assert second.stop() == 0


def test_a_killed_daemon_left_a_mark_that_its_journal_reaches(make_daemon: Callable[..., Daemon], flows: Path) -> None:
    daemon = make_daemon(flows).start()
    for _ in range(3):
        daemon.run("short")
        daemon.kill()
        daemon.start()
    assert len(daemon.client.all_executions(limit=50)) == 3
    assert daemon.stop() == 0


def test_a_lost_index_is_made_behind_and_everything_is_there(make_daemon: Callable[..., Daemon], flows: Path) -> None:
    daemon = make_daemon(flows).start()
    ids = [daemon.run("short")["id"] for _ in range(3)]
    assert daemon.stop() == 0
    for path in daemon.state.glob("index.db*"):
        path.unlink()
    daemon.start()
    assert {each["id"] for each in daemon.client.all_executions(limit=9)} == {*ids}
    assert events_of(daemon).count("index.rebuilt") == 2
    assert daemon.stop() == 0


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    disk = tmp_path / "disk"
    disk.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=24m", "tmpfs", str(disk)], capture_output=True).returncode:
        pytest.skip("a small file system cannot be mounted")
    yield disk
    subprocess.run(["umount", "-l", str(disk)], check=True)


def leave(disk: Path, free: int) -> None:
    found = os.statvfs(disk)
    with (disk / "filler").open("ab") as file:
        file.write(b"x" * max(0, found.f_bavail * found.f_frsize - free))


def test_scarce_room_refuses_requests_and_lets_the_rest_go_on(
    make_daemon: Callable[..., Daemon], flows: Path, small_disk: Path
) -> None:
    daemon = make_daemon(flows, state="disk/s").start()
    waiting = daemon.client.run("waits")["id"]
    until(lambda: daemon.client.messages(pending=True), "it asks")
    until(lambda: (daemon.state / "ballast").exists(), "there is a ballast")
    leave(small_disk, 1_000_000)  # of 24 MiB, 5 % is 1.26 million
    until(lambda: daemon.raw("GET", "/readyz")[0] == 503, "it is not ready")
    status, body, _ = daemon.raw("GET", "/readyz")
    assert "what runs needs them" in body["reasons"][0]
    assert "are free on the disk" in body["notices"][0]
    authorised = {"Authorization": f"Bearer {daemon.token()}"}
    status, _, headers = daemon.raw("POST", "/api/v1/flows/short/run", {}, authorised)
    assert (status, int(headers["Retry-After"]) > 0) == (503, True)
    (message,) = daemon.client.messages(pending=True)
    daemon.client.answer(message["id"], {"string": "yes"})
    assert daemon.client.wait(waiting)["status"] == "ENDED_SUCCESS"
    leave(small_disk, 0)
    until(lambda: daemon.raw("GET", "/readyz")[0] == 503, "it is not ready")
    (small_disk / "filler").unlink()
    until(lambda: daemon.raw("GET", "/readyz")[0] == 200, "it is ready again")
    assert daemon.run("short")["status"] == "ENDED_SUCCESS"
    assert daemon.stop() == 0
