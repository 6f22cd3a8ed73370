"""Power cuts: what was acknowledged is there when the power is back, and after a cut in what followed."""

from __future__ import annotations

import os
import select
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from headrace.engine import errors, events
from headrace.engine.records import head, recovery
from tests.faults import powered
from tests.faults.conftest import Suite

pytestmark = pytest.mark.timeout(7200)
ROOT = Path(__file__).parents[2]


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[powered.Disk]:
    try:
        disk = powered.Disk(tmp_path)
    except RuntimeError as reason:
        pytest.skip(f"a loop file system cannot be mounted: {reason}")
    try:
        disk.cut()
        disk.again()
    except (OSError, RuntimeError) as reason:
        disk.close()
        pytest.skip(f"its power cannot be cut: {reason}")
    yield disk
    disk.close()


def acknowledged_until_the_cut(disk: powered.Disk, flag: str, wait_s: float, *words: str) -> list[int]:
    """Write, cut the power after so long, and return what was acknowledged."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONDONTWRITEBYTECODE": "1"}
    writer = subprocess.Popen(
        [sys.executable, "-m", "tests.faults.powered", str(disk.path), *words],
        cwd=ROOT, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip
    assert writer.stdout is not None and writer.stderr is not None
    data = writer.stdout.readline()
    assert data.startswith(b"began"), writer.stderr.read().decode()
    deadline = time.monotonic() + wait_s
    rest = b""
    while (left := deadline - time.monotonic()) > 0:
        if select.select([writer.stdout], [], [], left)[0]:
            rest += os.read(writer.stdout.fileno(), 65536)
    disk.cut(flag)
    writer.kill()
    writer.communicate()  # what it says of a sync that was under way does not count: see tests/e2e/test_power_cut.py
    disk.again()
    return [int(line) for line in rest[: rest.rfind(b"\n") + 1].split() if line.isdigit()]


def found_on(disk: powered.Disk) -> list[int]:
    seen: list[events.Recorded] = []
    recovery.recover(disk.path / "records", seen.append, head.read(disk.path / head.FILE_NAME))
    assert recovery.verify(disk.path / "records", head.read(disk.path / head.FILE_NAME)).problem == ""
    return [int(r.event.execution[1:]) for r in seen]


def test_power_cuts(disk: powered.Disk, suite: Suite) -> None:
    """One journal lives through all of them; every second recovery is cut, too, after it acted."""
    acknowledged: list[int] = []
    for _ in suite.times(60):
        flag = suite.random.choice(list(powered.FLAGS))
        with suite.attempt(flag):
            acknowledged += acknowledged_until_the_cut(disk, flag, suite.random.uniform(0.0, 0.25))
            if suite.random.random() < 0.5:
                found_on(disk)
                disk.cut()
                disk.again()
            found = found_on(disk)
            assert found == list(range(1, len(found) + 1))
            assert not set(acknowledged) - set(found)
    suite.note = f"{len(acknowledged):,} records acknowledged"


def test_a_disk_that_lies_is_noticed(disk: powered.Disk, suite: Suite) -> None:
    """The negative control: without fdatasync records get lost, and either HEAD, the journal or this test says so."""
    noticed = 0
    for _ in suite.times(6):
        acknowledged = acknowledged_until_the_cut(disk, "nologflush", 0.3, "lying")
        suite.tries += 1
        try:
            found = found_on(disk)
        except (errors.HistoryLost, errors.JournalCorrupt):
            noticed += 1
            found = []
        else:
            noticed += bool(set(acknowledged) - set(found))
        for path in sorted(disk.path.rglob("*"), reverse=True):
            if path.name != "lost+found":
                path.rmdir() if path.is_dir() else path.unlink()
    suite.note = f"the loss was seen {noticed} times"
    assert noticed == suite.tries
