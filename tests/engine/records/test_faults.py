"""Faults of the disk and death at every system call: what was acknowledged is found again, whatever happens."""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from headrace.engine import errors, events
from headrace.engine.records import blobs, head, recovery
from tests.engine.records import journals

WRITER = [sys.executable, "-m", "tests.engine.records.writing"]
ROOT = Path(__file__).parents[3]


def strace_works() -> bool:
    if shutil.which("strace") is None:
        return False
    return subprocess.run(["strace", "-o", "/dev/null", "true"], check=False, capture_output=True).returncode == 0


needs_strace = pytest.mark.skipif(not strace_works(), reason="strace is not installed or ptrace is not permitted")


def run(records: Path, *arguments: str, strace: tuple[str, ...] = ()) -> tuple[list[str], int, str]:
    """Run the writer on ``records``; return its lines, its exit code, and the trace of what concerned the records."""
    trace = records.parent / "trace"
    command = [*WRITER, str(records), *arguments]
    if strace:
        # -P: only calls on these files count, so that the k-th is the k-th of the journal.
        watched = [records, *(records / f"0000000{n}{end}" for n in range(1, 9) for end in (".jsonl", ".tmp"))]
        if "mark" in arguments:
            watched = [records.parent / "HEAD", records.parent / "HEAD.tmp", records.parent]
        paths = [part for path in watched for part in ("-P", str(path))]
        command = ["strace", "-f", "-y", "-o", str(trace), *paths, *strace, *command]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONDONTWRITEBYTECODE": "1"}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=60, check=False)
    return done.stdout.split(), done.returncode, trace.read_text() if strace else done.stderr


CALLS = ("write", "pwrite64", "fdatasync", "rename", "fsync", "fchmod")


def calls_of(records: Path, *arguments: str) -> dict[str, int]:
    """Count the journal's system calls in an undisturbed run."""
    _, _, trace = run(records, *arguments, strace=("-e", f"trace={','.join(CALLS)}"))
    return {call: len(re.findall(rf"\b{call}\(", trace)) for call in CALLS}


def numbers_in(records: Path) -> list[int]:
    seen: list[events.Recorded] = []
    recovery.recover(records, seen.append, head.read(records.parent / "HEAD"))
    return [int(r.event.execution[1:]) for r in seen]


def assert_acknowledged_are_there(records: Path, acknowledged: list[str]) -> None:
    found = numbers_in(records)
    for line in acknowledged:
        if line != "refused":
            assert int(line) in found
            assert 100 + int(line) in found
    assert recovery.verify(records, head.read(records.parent / "HEAD")).problem == ""


@needs_strace
@pytest.mark.parametrize(("words", "points_min"), [(["resume"], 30), (["resume", "mark"], 8)], ids=["journal", "HEAD"])
def test_killed_at_every_system_call_it_loses_nothing_acknowledged(
    tmp_path: Path, words: list[str], points_min: int
) -> None:
    journals.filled(tmp_path / "counted" / "records", [1])
    files = journals.snapshot(tmp_path / "counted" / "records")
    counted = calls_of(tmp_path / "counted" / "records", *words)
    assert len(journals.segment_names(tmp_path / "counted" / "records")) >= 3
    points = [(call, k) for call, count in counted.items() for k in range(1, count + 1)]
    assert len(points) >= points_min
    for call, k in points:
        records = tmp_path / f"{call}{k}" / "records"
        records.parent.mkdir()
        journals.restore(records, files)
        kill = ("-e", f"inject={call}:signal=SIGKILL:when={k}")
        acknowledged, code, _ = run(records, *words, strace=kill)
        assert code != 0, (call, k)
        assert_acknowledged_are_there(records, acknowledged)
        if k % 6 == 1:
            again, code, _ = run(records, words[-1] if "mark" in words else "")
            assert (again, code) == ([str(n) for n in range(1, 9)], 0)
            assert_acknowledged_are_there(records, again)


@needs_strace
@pytest.mark.parametrize("call", ["write", "fdatasync", "rename", "fsync"])
def test_killed_while_it_is_born_it_is_born_again(tmp_path: Path, call: str) -> None:
    records = tmp_path / "records"
    acknowledged, code, _ = run(records, strace=("-e", f"inject={call}:signal=SIGKILL:when=1"))
    assert (acknowledged, code != 0) == ([], True)
    again, code, _ = run(records)
    assert (again, code) == ([str(n) for n in range(1, 9)], 0)
    assert_acknowledged_are_there(records, again)


@needs_strace
def test_killed_in_recovery_it_can_be_done_again(tmp_path: Path) -> None:
    whole = tmp_path / "whole" / "records"
    whole.parent.mkdir()
    acknowledged, _, _ = run(whole)
    last = max(whole.iterdir())
    last.write_bytes(last.read_bytes()[:-3])
    files = journals.snapshot(whole)
    counted = calls_of(whole, "recover")
    expected = journals.snapshot(whole)
    assert expected != files
    for call, count in counted.items():
        for k in range(1, count + 1):
            records = tmp_path / f"{call}{k}" / "records"
            records.parent.mkdir()
            journals.restore(records, files)
            _, code, _ = run(records, "recover", strace=("-e", f"inject={call}:signal=SIGKILL:when={k}"))
            assert code != 0, (call, k)
            assert_acknowledged_are_there(records, acknowledged[:-1])
            assert journals.snapshot(records) == expected


@needs_strace
@pytest.mark.parametrize("nth", [1, 2, 5, 7])
def test_after_a_failed_fdatasync_nothing_is_acknowledged_nor_synced_again(tmp_path: Path, nth: int) -> None:
    records = tmp_path / "records"
    journals.filled(records, [1])
    faults = ("-e", "trace=fdatasync,write", "-e", f"inject=fdatasync:error=EIO:when={nth}")
    acknowledged, code, trace = run(records, "resume", strace=faults)
    assert code == 74
    assert len(re.findall(r"\bfdatasync\(", trace)) == nth
    assert trace.rsplit("EIO", 1)[1].count("write(") == 0
    assert_acknowledged_are_there(records, acknowledged)
    again, code, _ = run(records)
    assert code == 0
    assert_acknowledged_are_there(records, acknowledged + again)


@needs_strace
@pytest.mark.parametrize("error", ["EIO", "ENOSPC", "EDQUOT"])
@pytest.mark.parametrize("nth", [2, 4])
def test_a_failed_write_costs_requests_but_nothing_that_happened(tmp_path: Path, error: str, nth: int) -> None:
    records = tmp_path / "records"
    acknowledged, code, _ = run(records, strace=("-e", f"inject=write:error={error}:when={nth}"))
    assert code == 0
    assert "refused" in acknowledged
    assert_acknowledged_are_there(records, acknowledged)
    kept = [number for number in numbers_in(records) if number > 100]
    assert kept == list(range(101, 109))


@needs_strace
def test_a_file_that_there_is_no_room_to_write_anew_has_a_durable_name_all_the_same(tmp_path: Path) -> None:
    """Whoever gave it that may have died before it was."""
    records = tmp_path / "records"
    journals.filled(records, [1])
    faults = ("-e", "trace=write,fdatasync,fsync,rename", "-e", "inject=write:error=ENOSPC:when=1")
    acknowledged, code, trace = run(records, strace=faults)
    assert (code, trace.count("rename(")) == (0, 0)
    mended, named = trace.index("fdatasync("), trace.index(f"<{records}>")
    assert mended < named < trace.index("fdatasync(", mended + 1)
    assert_acknowledged_are_there(records, acknowledged)


@needs_strace
def test_a_truncate_that_fails_ends_it(tmp_path: Path) -> None:
    records = tmp_path / "records"
    faults = ("-e", "inject=write:error=EIO:when=3", "-e", "inject=ftruncate:error=EIO:when=1")
    acknowledged, code, _ = run(records, strace=faults)
    assert code == 74
    assert_acknowledged_are_there(records, acknowledged)


@needs_strace
def test_each_batch_is_synced_before_it_is_acknowledged(tmp_path: Path) -> None:
    records = tmp_path / "records"
    trace = tmp_path / "all"
    command = [
        "strace",
        "-f",
        "-y",
        "-o",
        str(trace),
        "-e",
        "trace=write,fdatasync,rename,fsync",
        *WRITER,
        str(records),
    ]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    subprocess.run(command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, timeout=60, check=True)
    unsynced, unnamed, acknowledged = False, False, 0
    for line in trace.read_text().splitlines():
        if "write(" in line and f"<{records}/" in line:
            assert not unnamed
            unsynced = True
        elif ("fdatasync(" in line and "= 0" in line) or "fdatasync resumed" in line:
            unsynced = False
        elif "rename(" in line and f'"{records}/' in line:
            assert not unsynced
            unnamed = True
        elif "fsync(" in line and f"<{records}>" in line:
            unnamed = False
        elif re.search(r'write\(1<[^>]*>, "\d', line):
            assert not unsynced
            assert not unnamed
            acknowledged += 1
    assert acknowledged == 8


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 256 KiB."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=256k", "tmpfs", disk], check=False, capture_output=True, text=True
    )
    if mounted.returncode != 0:
        pytest.skip(f"a small file system cannot be mounted: {mounted.stderr.strip()}")
    yield disk
    subprocess.run(["umount", "-l", disk], check=True)


def fill_disk(path: Path, *, leave: int = 0) -> None:
    with path.open("wb", buffering=0) as file, contextlib.suppress(OSError):
        while file.write(b"x" * 4096):
            pass
    os.truncate(path, path.stat().st_size - leave)


@pytest.mark.parametrize("leave", [0, 4096])
async def test_a_full_disk_refuses_requests_and_keeps_what_happened(
    small_disk: Path, leave: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("headrace.engine.records.journal.RETRY_S", 0.02)
    records = small_disk / "records"
    async with journals.opened(records) as writer:
        await writer.submit(journals.log(1))
        fill_disk(small_disk / "filler", leave=leave)
        writer.append(journals.log(101, "x" * 6000))
        waiting = asyncio.create_task(writer.durable(), name="durable")
        with pytest.raises(errors.NotAccepting, match="No space left") as refused:
            await writer.submit(journals.log(2, "y" * 6000))
        assert "free disk space" in refused.value.hint
        writer.append(journals.log(102))
        with pytest.raises(errors.NotAccepting):
            await writer.submit(journals.log(3))
        assert not waiting.done()
        assert recovery.verify(records).torn_bytes == 0
        (small_disk / "filler").unlink()
        await waiting
        await writer.durable()
        await writer.submit(journals.log(4))
        assert not writer.failed.done()
    assert numbers_in(records) == [1, 101, 102, 4]


async def test_who_waits_behind_a_refused_request_is_woken(small_disk: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("headrace.engine.records.journal.RETRY_S", 0.02)
    async with journals.opened(small_disk / "records") as writer:
        fill_disk(small_disk / "filler")
        writer.append(journals.log(1, "x" * 9000))
        with pytest.raises(errors.NotAccepting):
            await writer.submit(journals.log(2))
        waiting = asyncio.create_task(writer.durable(), name="durable")
        await asyncio.sleep(0)
        (small_disk / "filler").unlink()
        await waiting
    assert numbers_in(small_disk / "records") == [1]


async def test_rotation_waits_for_space(small_disk: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("headrace.engine.records.journal.RETRY_S", 0.02)
    records = small_disk / "records"
    async with journals.opened(records, segment_bytes_max=3000) as writer:
        await writer.submit(journals.log(1))
        fill_disk(small_disk / "filler")
        with contextlib.suppress(errors.NotAccepting):
            while True:
                await writer.submit(journals.log(2, "x" * 500))
        writer.append(journals.log(3))
        (small_disk / "filler").unlink()
        await writer.durable()
    assert len(journals.segment_names(records)) == 2
    assert numbers_in(records)[-1] == 3
    assert recovery.verify(records).problem == ""


def test_recovery_needs_no_free_space(small_disk: Path) -> None:
    records = small_disk / "records"
    told = journals.filled(records, [100] * 3)
    path = records / "00000001.jsonl"
    whole = path.read_bytes()
    path.write_bytes(whole[:-10])
    fill_disk(small_disk / "filler")
    found, seen = journals.recovered(records)
    assert seen == told[:-1]
    assert path.read_bytes() == whole[: found.position.offset]
    assert not list(records.glob("*.tmp"))


def test_a_blob_that_does_not_fit_is_refused_and_leaves_nothing(small_disk: Path) -> None:
    store = blobs.Blobs(small_disk / "blobs")
    kept = store.put(b'"small"')
    with pytest.raises(errors.NotAccepting, match="no room"):
        store.put(b'"' + b"x" * 300_000 + b'"')
    assert not list(small_disk.rglob("*.tmp"))
    assert store.get(kept) == b'"small"'
