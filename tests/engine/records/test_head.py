"""HEAD: what a journal must reach, whatever became of the disk it lies on."""

from __future__ import annotations

import asyncio
import os
import shutil
import threading
from pathlib import Path

import pytest
from structlog import testing

from headrace.engine import errors
from headrace.engine.records import head, journal, marking, recovery
from headrace.engine.records.segments import Position
from tests.engine.records import journals


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / head.FILE_NAME


def position(seq: int) -> Position:
    return Position(segment=1 + seq // 10, offset=100 * seq, seq=seq, crc=seq * 7)


def marked(path: Path, *seqs: int) -> head.Head:
    writer = head.Head(path)
    for seq in seqs:
        writer.write("i" * 32, position(seq))
    return writer


def test_the_newest_mark_is_read(path: Path) -> None:
    assert head.read(path) is None
    writer = head.Head(path)
    for seq in range(1, 8):
        writer.write("i" * 32, position(seq))
        mark = head.read(path)
        assert (mark.segment, mark.offset, mark.seq, mark.crc) == (1, 100 * seq, seq, f"{seq * 7:08x}")
    writer.close()
    assert path.stat().st_size == 2 * head.SLOT_BYTES
    assert path.stat().st_mode & 0o777 == 0o600


def test_a_new_writer_goes_on_counting(path: Path) -> None:
    marked(path, 1, 2, 3).close()
    marked(path, 4).close()
    assert (head.read(path).seq, head.read(path).count) == (4, 4)


def test_whatever_happens_to_one_slot_the_other_counts(path: Path) -> None:
    marked(path, 1, 2, 3).close()
    whole = path.read_bytes()
    length = len(whole[head.SLOT_BYTES :].rstrip(b" "))
    for size in range(length + 40):
        path.write_bytes(whole[: head.SLOT_BYTES + size])
        assert head.read(path).seq == (2 if size < length else 3)
    for bit in range(8 * length):
        damaged = bytearray(whole)
        damaged[head.SLOT_BYTES + bit // 8] ^= 1 << bit % 8
        path.write_bytes(damaged)
        assert head.read(path).seq == 2


def test_a_file_without_a_whole_slot_is_no_proof_and_is_said(path: Path) -> None:
    for content in (b"", b"\0" * 8192, b"{}" * 4096, os.urandom(8192)):
        path.write_bytes(content)
        with pytest.raises(errors.HistoryLost, match="damaged"):
            head.read(path)
    marked(path, 5).close()
    assert head.read(path).seq == 5


def test_after_a_failed_fsync_the_file_is_made_anew_and_not_synced_again(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    writer = marked(path, 1, 2)
    synced: list[int] = []
    real = os.fdatasync

    def fails(fd: int) -> None:
        synced.append(os.fstat(fd).st_ino)
        if len(synced) == 1:
            raise OSError(5, "Input/output error")
        real(fd)

    monkeypatch.setattr(os, "fdatasync", fails)
    with pytest.raises(OSError, match="Input"):
        writer.write("i" * 32, position(3))
    writer.write("i" * 32, position(4))
    writer.close()
    assert head.read(path).seq == 4
    assert len(set(synced)) == 2


def lost(records: Path, path: Path) -> str:
    """Return why recovery refuses, having made sure that it changed nothing."""
    before = journals.snapshot(records) if records.exists() else None
    with pytest.raises(errors.HistoryLost) as caught:
        recovery.recover(records, mark=head.read(path))
    assert (journals.snapshot(records) if records.exists() else None) == before
    assert "--accept-loss" in caught.value.hint
    assert recovery.verify(records, head.read(path)).problem == caught.value.message
    return caught.value.message


async def grow(tmp_path: Path, batches: list[int], segment_bytes_max: int = 700) -> None:
    """Write a journal and close it in an orderly way, with its mark."""
    found = await asyncio.to_thread(recovery.recover, tmp_path / "records", None, head.read(tmp_path / "HEAD"))
    lines = await journal.Journal.open(
        tmp_path / "records", journals.Clock(), recovered=found, segment_bytes_max=segment_bytes_max
    )
    keeping = marking.Marking(lines, tmp_path / "HEAD", found.instance, journals.Clock())
    await keeping.mark()
    for number, size in enumerate(batches):
        for _ in range(size):
            lines.append(journals.log(number))
        await lines.durable()
    await lines.close()
    await keeping.close()


async def test_a_journal_that_reaches_its_mark_goes_on(tmp_path: Path, path: Path) -> None:
    for _ in range(4):
        await grow(tmp_path, [2, 1, 3])
    mark = head.read(path)
    found = recovery.recover(tmp_path / "records", mark=mark)
    assert (mark.segment, mark.offset, mark.seq) == (
        found.position.segment,
        found.position.offset,
        found.position.seq,
    )
    assert recovery.verify(tmp_path / "records", mark).problem == ""


async def test_each_cut_at_a_record_boundary_is_noticed(tmp_path: Path, path: Path) -> None:
    await grow(tmp_path, [1, 2, 1, 1, 2, 1, 2])
    records = tmp_path / "records"
    files = journals.snapshot(records)
    names = sorted(files)
    for last in range(len(names)):
        kept = {name: files[name] for name in names[:last]}
        lines = files[names[last]].splitlines(keepends=True)
        for count in range(1, len(lines) + (last < len(names) - 1)):
            if last == len(names) - 1 or count == len(lines) or count > 1:
                journals.restore(records, kept | {names[last]: b"".join(lines[:count])})
                assert "went backwards" in lost(records, path)
    journals.restore(records, files)
    recovery.recover(records, mark=head.read(path))


async def test_an_older_copy_another_journal_and_an_empty_folder_are_told_apart(tmp_path: Path, path: Path) -> None:
    await grow(tmp_path, [1, 2])
    records = tmp_path / "records"
    shutil.copytree(records, tmp_path / "older")
    await grow(tmp_path, [3])
    shutil.rmtree(records)
    assert "holds no records" in lost(records, path)
    records.mkdir()
    assert "holds no records" in lost(records, path)
    shutil.copytree(tmp_path / "older", records, dirs_exist_ok=True)
    assert "older copy" in lost(records, path)
    await journals.fill(records, [9])  # an older copy that somebody went on with
    assert "another history" in lost(records, path)
    shutil.rmtree(records)
    await journals.fill(records, [9, 9])
    assert "another volume" in lost(records, path)


async def test_a_loss_that_was_accepted_is_accepted_for_good(tmp_path: Path, path: Path) -> None:
    await grow(tmp_path, [1, 2])
    shutil.rmtree(tmp_path / "records")
    path.rename(tmp_path / "kept")  # what `--accept-loss` amounts to
    await grow(tmp_path, [1])
    (tmp_path / "HEAD").replace(tmp_path / "HEAD")
    await grow(tmp_path, [1])
    assert recovery.verify(tmp_path / "records", head.read(path)).problem == ""


async def test_the_first_segment_may_be_gone(tmp_path: Path, path: Path) -> None:
    """The mark's own segment may have been removed in an orderly way since: its number is then all there is to see."""
    await grow(tmp_path, [2, 2, 2, 2])
    found = recovery.recover(tmp_path / "records")
    mark = head.Mark(1, found.instance, 1, 10, 2, "00000000")
    (tmp_path / "records" / "00000001.jsonl").unlink()
    head.check(tmp_path / "records", found.instance, found.position, mark)


async def test_rotation_and_the_clock_lead_to_marks_and_nothing_else_does(
    tmp_path: Path, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lines = await journal.Journal.open(tmp_path / "records", journals.Clock(), segment_bytes_max=700)
    keeping = marking.Marking(lines, path, "i" * 32, journals.Clock())
    lines.subscribe(keeping.absorb)
    written: list[int] = []
    real = head.Head.write

    def write(self: head.Head, instance: str, end: Position) -> None:
        real(self, instance, end)
        written.append(end.segment)

    monkeypatch.setattr(head.Head, "write", write)
    with testing.capture_logs() as told:
        running = asyncio.create_task(keeping.run(), name="marking")
        for number in range(12):
            await lines.submit(journals.log(number))
            while not written or written[-1] < lines.position.segment:
                await asyncio.sleep(0.001)
        segments_begun = lines.position.segment
        running.cancel()
        await asyncio.wait({running})
        await lines.close()
        await keeping.close()
    assert segments_begun >= 3
    assert {*written} == {*range(1, segments_begun + 1)}
    assert len(written) <= segments_begun + 3
    assert head.read(path).seq == lines.position.seq
    assert [line["event"] for line in told].count("journal.head") == 1
    sealed = [line["sha256"] for line in told if line["event"] == "segment.sealed"]
    assert len(sealed) == segments_begun - 1
    assert lines.previous_sha256 == sealed[-1]


async def test_a_mark_that_cannot_be_written_is_said_once_and_stops_nothing(tmp_path: Path) -> None:
    lines = await journal.Journal.open(tmp_path / "records", journals.Clock())
    keeping = marking.Marking(lines, tmp_path / "missing" / "HEAD", "i" * 32, journals.Clock())
    with testing.capture_logs() as told:
        for number in range(3):
            await lines.submit(journals.log(number))
            await keeping.mark()
        (tmp_path / "missing").mkdir()
        await keeping.mark()
    await lines.close()
    await keeping.close()
    assert [line["event"] for line in told] == ["head.write_failed", "journal.head"]
    assert head.read(tmp_path / "missing" / "HEAD").seq == lines.position.seq


async def test_whoever_stops_marking_leaves_no_write_behind(
    tmp_path: Path, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lines = await journal.Journal.open(tmp_path / "records", journals.Clock())
    await lines.submit(journals.log(1))
    keeping = marking.Marking(lines, path, "i" * 32, journals.Clock())
    begun, goes_on, steps, real = threading.Event(), threading.Event(), [], head.Head.write

    def write(self: head.Head, instance: str, end: Position) -> None:
        steps.append("begun")
        begun.set()
        assert goes_on.wait(10)
        real(self, instance, end)
        steps.append("over")

    monkeypatch.setattr(head.Head, "write", write)
    marking_now = asyncio.create_task(keeping.mark())
    await asyncio.to_thread(begun.wait, 10)
    marking_now.cancel()
    threading.Timer(0.1, goes_on.set).start()
    await asyncio.wait({marking_now})
    await keeping.close()
    await lines.close()
    assert steps == ["begun", "over", "begun", "over"]
    assert head.read(path).seq == lines.position.seq
