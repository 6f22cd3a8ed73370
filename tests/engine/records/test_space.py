"""Room on the disk: warned in time, refused before it is gone, and what runs can record its end."""

from __future__ import annotations

import asyncio
import os
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from structlog import testing

from headrace.engine import errors
from headrace.engine.records import recovery, space
from tests.engine.records import journals

SIZE = 8 * 1024 * 1024


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 8 MiB: it warns at 0.8, refuses at 0.4, and has a ballast of 0.16."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={SIZE}", "tmpfs", disk], check=False, capture_output=True, text=True
    )
    if mounted.returncode != 0:
        pytest.skip(f"a small file system cannot be mounted: {mounted.stderr.strip()}")
    yield disk
    subprocess.run(["umount", "-l", disk], check=True)


def leave(disk: Path, free: int) -> None:
    """Fill the disk until so many bytes are free."""
    filler = disk / "filler"
    filler.unlink(missing_ok=True)
    found = os.statvfs(disk)
    filler.write_bytes(b"x" * max(0, found.f_bavail * found.f_frsize - free))


def test_bounds_are_shares_of_small_disks_and_amounts_of_large_ones() -> None:
    gigabyte = 1024**3
    assert space.Bounds.of(1000 * gigabyte) == space.Bounds(2 * gigabyte, gigabyte, 64 * 1024**2)
    assert space.Bounds.of(gigabyte) == space.Bounds(gigabyte // 10, gigabyte // 20, gigabyte // 50)


async def test_it_warns_then_refuses_requests_and_takes_them_again(disk: Path) -> None:
    async with journals.opened(disk / "records") as writer:
        room = space.Space(disk, writer)
        with testing.capture_logs() as told:
            await room.look()
            assert (room.low, writer.scarce) == ("", "")
            assert (disk / space.FILE_NAME).stat().st_size == SIZE // 50
            leave(disk, 700_000)
            await room.look()
            assert "0.7 MiB" in room.low
            await writer.submit(journals.log(1))
            leave(disk, 300_000)
            await room.look()
            with pytest.raises(errors.NotAccepting, match="what runs needs them"):
                await writer.submit(journals.log(2))
            writer.append(journals.log(3))
            await writer.durable()
            leave(disk, 430_000)  # more than it begins with, less than it ends with
            await room.look()
            assert writer.scarce
            leave(disk, 4_000_000)
            await room.look()
            assert (room.low, writer.scarce) == ("", "")
            await writer.submit(journals.log(4))
        assert [line["event"] for line in told] == ["disk.low", "disk.refusing", "disk.accepting"]
    assert [r.event for r in journals.recovered(disk / "records")[1]] == [journals.log(n) for n in (1, 3, 4)]


async def test_a_full_disk_gives_the_ballast_to_what_runs(disk: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("headrace.engine.records.journal.RETRY_S", 0.02)
    async with journals.opened(disk / "records") as writer:
        room = space.Space(disk, writer)
        await room.look()
        leave(disk, 0)
        for number in range(10):
            writer.append(journals.log(number, "x" * 3000))
        waiting = asyncio.create_task(writer.durable(), name="durable")
        while not writer.stalled:
            await asyncio.sleep(0.01)
        with testing.capture_logs() as told:
            await room.look()
            await waiting
            assert not (disk / space.FILE_NAME).exists()
            assert writer.stalled == ""
            await room.look()
            with pytest.raises(errors.NotAccepting):
                await writer.submit(journals.log(99))
            leave(disk, 2_000_000)
            await room.look()
            await writer.submit(journals.log(100))
        assert (disk / space.FILE_NAME).stat().st_size == SIZE // 50
        events = [line["event"] for line in told]
        assert events == ["disk.refusing", "ballast.released", "journal.resumed", "disk.low", "disk.accepting"]
    assert len(journals.recovered(disk / "records")[1]) == 11
    assert recovery.verify(disk / "records").problem == ""


async def test_without_a_file_system_to_ask_nothing_is_refused(tmp_path: Path) -> None:
    async with journals.opened(tmp_path / "records") as writer:
        room = space.Space(tmp_path / "gone", writer)
        await room.look()
        assert (room.low, writer.scarce) == ("", "")


async def test_a_file_system_that_cannot_reserve_does_without(disk: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuses(error: int) -> Callable[..., None]:
        def fallocate(*_: object) -> None:
            raise OSError(error, os.strerror(error))

        return fallocate

    async with journals.opened(disk / "records") as writer:
        room = space.Space(disk, writer)
        monkeypatch.setattr(os, "posix_fallocate", refuses(95))
        await room.look()
        assert writer.scarce == ""
        monkeypatch.setattr(os, "posix_fallocate", refuses(28))
        await room.look()
        assert "not enough for its reserve" in writer.scarce
    assert not (disk / space.FILE_NAME).exists()
