"""The writer: order, batches, limits, rotation."""

from __future__ import annotations

import asyncio
import hashlib
import os
import pathlib
import threading
from pathlib import Path

import msgspec
import pytest
import uvloop

from headrace.engine import errors, events
from headrace.engine.records import journal, recovery, segments, tail
from tests.engine.records import journals


async def test_what_is_durable_is_on_disk_in_order(tmp_path: Path) -> None:
    told = await journals.fill(tmp_path / "records", [3, 1, 2])
    _, seen = journals.recovered(tmp_path / "records")
    assert seen == told
    assert [r.event.text for r in seen] == [f"line {n}" for n in range(1, 7)]
    assert [r.seq for r in seen] == list(range(2, 8))
    data = (tmp_path / "records" / "00000001.jsonl").read_bytes()
    for r in seen:
        assert list(segments.recorded(data[r.offset : r.offset + r.length], 1, r.offset)) == [r]


async def test_submit_answers_when_the_event_is_on_disk(tmp_path: Path) -> None:
    async with journals.opened(tmp_path) as writer:
        at = await writer.submit(journals.log(1))
        assert f'"at":"{at}","event":"log.written"'.encode() in (tmp_path / "00000001.jsonl").read_bytes()


async def test_many_appends_share_few_batches(tmp_path: Path) -> None:
    async with journals.opened(tmp_path) as writer:
        batches: list[int] = []
        writer.subscribe(lambda batch: batches.append(len(batch)))
        await asyncio.gather(*(writer.submit(journals.log(n)) for n in range(500)))
        assert sum(batches) == 500
        assert len(batches) <= 3


async def test_what_is_recorded_together_is_one_batch_even_where_that_is_full(tmp_path: Path) -> None:
    async with journals.opened(tmp_path) as writer:
        batches: list[int] = []
        writer.subscribe(lambda batch: batches.append(len(batch)))

        def write_a_batch() -> None:
            for _ in range(journal.BATCH_BYTES_MAX // 100_000 + 1):
                writer.append(events.LogWritten(execution="e", text="x" * 100_000))

        with writer.together():
            write_a_batch()
            with writer.together():
                write_a_batch()
            write_a_batch()
        write_a_batch()
        await writer.durable()
        assert batches == [33, 11] and journal.BATCH_BYTES_MAX < 11 * 100_000


async def test_of_what_is_recorded_together_a_cut_leaves_all_or_nothing(tmp_path: Path) -> None:
    async with journals.opened(tmp_path) as writer:
        writer.append(journals.log(1))
        for first in (2, 5):
            with writer.together():
                for number in range(first, first + 3):
                    writer.append(journals.log(number))
        await writer.durable()
    whole = (tmp_path / "00000001.jsonl").read_bytes()
    for cut in range(len(whole.splitlines(keepends=True)[0]), len(whole) + 1):
        directory = tmp_path / str(cut)
        directory.mkdir()
        (directory / "00000001.jsonl").write_bytes(whole[:cut])
        seen: list[events.Recorded] = []
        found = recovery.recover(directory, seen.append)
        assert len(seen) in (0, 1, 4, 7)
        kept = (directory / "00000001.jsonl").read_bytes()
        assert kept == b"".join(whole.splitlines(keepends=True)[: 1 + len(seen)])
        assert (found.position.offset, found.torn_bytes) == (len(kept), cut - len(kept))
    async with journals.opened(directory) as again:
        again.append(journals.log(8))
        await again.durable()
    assert recovery.verify(directory).problem == ""


async def test_waiters_wake_before_the_next_batch_is_composed(tmp_path: Path) -> None:
    async with journals.opened(tmp_path) as writer:
        batches: list[int] = []
        writer.subscribe(lambda batch: batches.append(len(batch)))

        async def chain(number: int) -> None:
            for _ in range(10):
                await writer.submit(journals.log(number))

        await asyncio.gather(*(chain(n) for n in range(8)))
        assert batches == [8] * 10


async def test_there_is_time_for_other_things_while_the_disk_works(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    goes_on = threading.Event()

    def slow_sync(fd: int) -> None:
        assert goes_on.wait(10)
        os.fsync(fd)

    def fails() -> None:
        raise ValueError("keeps none of the others from theirs")

    async with journals.opened(tmp_path) as writer:
        done: list[str] = []
        asyncio.get_running_loop().set_exception_handler(lambda _, about: done.append(str(about["exception"])[:5]))
        monkeypatch.setattr(os, "fdatasync", slow_sync)
        writer.meanwhile(lambda: done.append("nothing is in line"))
        await asyncio.sleep(0)
        writer.append(journals.log(1))
        writer.meanwhile(fails)
        writer.meanwhile(lambda: done.append("the disk works"))
        writer.meanwhile(goes_on.set)
        durable = asyncio.ensure_future(writer.durable())
        durable.add_done_callback(lambda _: done.append("durable"))
        await asyncio.wait_for(durable, 10)
        assert done == ["nothing is in line", "keeps", "the disk works", "durable"]


async def test_durable_returns_at_once_when_nothing_is_in_line(tmp_path: Path) -> None:
    async with journals.opened(tmp_path) as writer:
        await writer.durable()
        writer.append(journals.log(1))
        await asyncio.gather(writer.durable(), writer.durable())
        assert writer.position.seq == 2


async def test_a_cancelled_waiter_does_not_take_the_record_away(tmp_path: Path) -> None:
    async with journals.opened(tmp_path) as writer:
        waiting = asyncio.ensure_future(writer.submit(journals.log(1)))
        await asyncio.sleep(0)
        waiting.cancel()
        await writer.durable()
    assert len(journals.recovered(tmp_path)[1]) == 1


async def test_a_record_over_the_limit_is_refused_and_nothing_else(tmp_path: Path) -> None:
    async with journals.opened(tmp_path) as writer:
        with pytest.raises(errors.TooLarge, match="over the limit"):
            writer.append(journals.log(1, "x" * segments.LINE_BYTES_MAX))
        writer.append(journals.log(2, "x" * (segments.BODY_BYTES_MAX - 100)))
        await writer.durable()
    assert len(journals.recovered(tmp_path)[1]) == 1


async def test_a_raw_line_break_inside_a_value_is_refused(tmp_path: Path) -> None:
    async with journals.opened(tmp_path) as writer:
        with pytest.raises(ValueError, match="line break"):
            writer.append(events.LogWritten(execution="e", args=msgspec.Raw(b"[\n]")))


async def test_segments_are_sealed_chained_and_read_only(tmp_path: Path) -> None:
    told = await journals.fill(tmp_path, [3] * 12, segment_bytes_max=1500)
    names = journals.segment_names(tmp_path)
    assert len(names) >= 3
    previous_crc, previous_sha256 = segments.NO_CRC, segments.NO_SHA256
    for name in names:
        lines = (tmp_path / name).read_bytes().splitlines(keepends=True)
        head = msgspec.json.decode(lines[0])
        assert (head["event"], head["previous_crc"]) == ("segment.opened", previous_crc)
        assert head["previous_sha256"] == previous_sha256
        if name != names[-1]:
            seal = msgspec.json.decode(lines[-1])
            assert (seal["event"], seal["count"]) == ("segment.sealed", len(lines) - 1)
            assert seal["sha256"] == hashlib.sha256(b"".join(lines[:-1])).hexdigest()
            assert (tmp_path / name).stat().st_mode & 0o777 == 0o400
            previous_crc, previous_sha256 = seal["crc"], seal["sha256"]
    assert journals.recovered(tmp_path)[1] == told
    assert recovery.verify(tmp_path).problem == ""


async def test_the_seal_of_a_large_segment_is_the_hash_of_all_of_it(tmp_path: Path) -> None:
    async with journals.opened(tmp_path, segment_bytes_max=3 * tail._HASHED_BYTES) as writer:
        for number in range(80):
            await writer.submit(journals.log(number, "x" * 10_001))
    assert len(journals.segment_names(tmp_path)) == 2
    lines = (tmp_path / journals.segment_names(tmp_path)[0]).read_bytes().splitlines(keepends=True)
    assert msgspec.json.decode(lines[-1])["sha256"] == hashlib.sha256(b"".join(lines[:-1])).hexdigest()


async def test_a_journal_goes_on_where_it_was_closed(tmp_path: Path) -> None:
    told = []
    for _ in range(5):
        told += await journals.fill(tmp_path, [2, 2], segment_bytes_max=900)
    found, seen = journals.recovered(tmp_path)
    assert seen == told
    async with journals.opened(tmp_path, recovered=found) as writer:
        await writer.submit(journals.log(99))
    assert recovery.verify(tmp_path).problem == ""
    assert recovery.recover(tmp_path).instance == found.instance


async def test_a_closed_journal_takes_nothing(tmp_path: Path) -> None:
    async with journals.opened(tmp_path) as writer:
        writer.append(journals.log(1))
    assert len(journals.recovered(tmp_path)[1]) == 1
    with pytest.raises(errors.JournalFailed, match="closed"):
        writer.append(journals.log(2))
    with pytest.raises(errors.JournalFailed, match="closed"):
        await writer.durable()
    assert not writer.failed.done()


async def test_a_listener_can_leave(tmp_path: Path) -> None:
    async with journals.opened(tmp_path) as writer:
        told: list[events.Recorded] = []
        leave = writer.subscribe(told.extend)
        await writer.submit(journals.log(1))
        leave()
        await writer.submit(journals.log(2))
        assert len(told) == 1


def test_it_works_on_uvloop(tmp_path: Path) -> None:
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        told = runner.run(journals.fill(tmp_path, [5] * 20, segment_bytes_max=2000))
    assert journals.recovered(tmp_path)[1] == told


async def test_requests_are_refused_when_too_much_is_in_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(journal, "PENDING_BYTES_MAX", 1000)
    async with journals.opened(tmp_path) as writer:
        writer.append(journals.log(1, "x" * 2000))
        with pytest.raises(errors.NotAccepting, match="too slow"):
            await writer.submit(journals.log(2))
        await writer.durable()
        await writer.submit(journals.log(3))


async def test_a_slow_disk_does_not_stop_the_loop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    release = threading.Event()
    entered = asyncio.Event()
    loop = asyncio.get_running_loop()
    real = os.fdatasync

    async with journals.opened(tmp_path) as writer:

        def slow(fd: int) -> None:
            loop.call_soon_threadsafe(entered.set)
            release.wait()
            real(fd)

        monkeypatch.setattr(os, "fdatasync", slow)
        waiting = asyncio.ensure_future(writer.submit(journals.log(1)))
        await entered.wait()
        for number in range(2, 100):
            writer.append(journals.log(number))
        assert not waiting.done()
        batches: list[int] = []
        writer.subscribe(lambda batch: batches.append(len(batch)))
        release.set()
        await writer.durable()
        assert batches == [1, 98]
        assert pathlib.Path(tmp_path / "00000001.jsonl").exists()
