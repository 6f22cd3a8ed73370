"""Retention: what was kept long enough goes, with its disk; what counts stays, whatever happens meanwhile."""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import sqlite3
import time
from pathlib import Path

import msgspec
import pytest

from headrace.daemon import stream
from headrace.engine import errors, events, model, upkeep
from headrace.engine.records import recovery
from headrace.engine.running import carrying
from tests.engine.running import archives

HISTORIES = int(os.environ.get("HEADRACE_HISTORIES", "4"))
SEED = int(os.environ.get("HEADRACE_SEED", str(random.randrange(10**6))))


def size(directory: Path) -> int:
    return sum(path.stat().st_size for path in directory.rglob("*") if path.is_file())


def found(directory: Path) -> archives.unfinished.Unfinished:
    fold = archives.unfinished.Unfinished()
    recovery.recover(directory / "records", fold.visit)
    return fold


async def test_old_executions_go_and_the_disk_comes_back(tmp_path):
    async with archives.opened(tmp_path) as archive:
        for number in range(100):
            await archive.run(f"e{number}")
        before, first = size(tmp_path / "records"), archive.segments()[0]
        archive.clock.now += archives.KEEP_S + 1
        await archive.run("young")
        done = await archive.pruner.prune()
        assert (done.executions, done.segments > 3) == (100, True)
        assert done.bytes > before * 0.7
        assert size(tmp_path / "records") < before * 0.3
        assert first not in archive.segments()
        assert [one.id for one in (await archive.index.query(archives.index.listing.Query())).items] == ["young"]
        assert await archive.index.events_of("e1") == []
    assert recovery.verify(tmp_path / "records").problem == ""
    assert found(tmp_path).executions == {}


async def test_a_dry_run_says_what_would_go_and_touches_nothing(tmp_path):
    async with archives.opened(tmp_path) as archive:
        for number in range(100):
            await archive.run(f"e{number}")
        archive.clock.now += archives.KEEP_S + 1
        names = archive.segments()
        foreseen = await archive.pruner.prune(dry_run=True)
        assert archive.segments() == names
        assert len(await archive.index.events_of("e1")) == 3
        done = await archive.pruner.prune()
        assert (foreseen.executions, foreseen.segments, foreseen.bytes) == (100, done.segments, done.bytes)
        assert (await archive.pruner.prune(1.0, dry_run=True)).executions == 0


async def test_the_journal_is_refused_without_the_line_that_vouches_for_its_beginning(tmp_path):
    async with archives.opened(tmp_path) as archive:
        for number in range(60):
            await archive.run(f"e{number}")
        names = archive.segments()
    assert len(names) > 3
    for name in names[:2]:
        (tmp_path / "records" / name).unlink()
    with pytest.raises(errors.JournalCorrupt, match="00000002.jsonl is missing"):
        recovery.recover(tmp_path / "records")


async def pruned(directory: Path) -> int:
    """Prune a hundred executions and return the number of the first segment that is left."""
    async with archives.opened(directory) as archive:
        for number in range(100):
            await archive.run(f"e{number}")
        archive.clock.now += archives.KEEP_S + 1
        await archive.pruner.prune()
        for number in range(100, 200):
            await archive.run(f"e{number}")
        return int(archive.segments()[0][:8])


async def test_more_may_not_be_missing_than_what_was_vouched_for(tmp_path):
    first = await pruned(tmp_path)
    assert recovery.verify(tmp_path / "records").problem == ""
    (tmp_path / "records" / f"{first:08d}.jsonl").unlink()
    with pytest.raises(errors.JournalCorrupt, match=f"{first:08d}.jsonl is missing"):
        recovery.recover(tmp_path / "records")


async def test_an_older_segment_that_is_still_there_must_be_one_that_was_dropped(tmp_path):
    first = await pruned(tmp_path)
    records = tmp_path / "records"
    (records / f"{first - 2:08d}.jsonl").write_bytes(b"left over")
    recovery.recover(records)
    assert not (records / f"{first - 2:08d}.jsonl").exists()
    # One right before is read, as it is not known yet that it is not needed.
    (records / f"{first - 1:08d}.jsonl").write_bytes(b"damaged")
    with pytest.raises(errors.JournalCorrupt):
        recovery.recover(records)


async def test_nothing_an_unfinished_execution_needs_goes(tmp_path):
    async with archives.opened(tmp_path) as archive:
        archive.begin("parent")
        await archive.run("child", parent="parent", retention_time_s=1.0)
        await archive.run("grandchild", parent="child")
        archive.clock.now += archives.KEEP_S * 2
        assert (await archive.pruner.prune()).executions == 0
        await archive.end("parent")
        assert (await archive.pruner.prune()).executions == 2  # the child asked for less; its own child goes along
        archive.clock.now += archives.KEEP_S * 2
        assert (await archive.pruner.prune()).executions == 1


async def test_children_go_with_their_parent_unless_they_are_to_stay_longer(tmp_path):
    async with archives.opened(tmp_path) as archive:
        archive.begin("parent")
        await archive.run("child", parent="parent")
        await archive.run("precious", parent="parent", retention_time_s=archives.KEEP_S * 10)
        archive.begin("busy", parent="parent")
        await archive.end("parent")
        archive.clock.now += archives.KEEP_S + 1
        assert (await archive.pruner.prune()).executions == 2
        left = await archive.index.query(archives.index.listing.Query())
        assert {one.id for one in left.items} == {"precious", "busy"}
        await archive.end("busy")
        archive.clock.now += archives.KEEP_S * 10
        assert (await archive.pruner.prune()).executions == 2


async def test_an_execution_may_say_itself_how_long_it_is_kept(tmp_path):
    async with archives.opened(tmp_path, keep_s=0) as archive:
        subject = archive.begin("short")
        archive.ledger.record(subject, events.ExecutionSaved(execution="short", retention_time_s=10.0))
        await archive.end("short")
        await archive.run("ages", retention_time_s=1e300)
        await archive.run("for ever")
        archive.clock.now += 11
        assert (await archive.pruner.prune()).executions == 1
        archive.clock.now += 1e9
        assert (await archive.pruner.prune()).executions == 0


async def test_a_flow_may_say_how_many_of_its_executions_are_kept(tmp_path):
    async with archives.opened(tmp_path) as archive:
        metadata = model.Metadata(retention_count=3)
        flow = model.Flow(id="f", name="chatty", path="chatty.py", commit="c", blob="b", metadata=metadata)
        archive.flows.swap(model.Catalogue(commit="c", flows={"chatty": flow}))
        for number in range(10):
            await archive.run(f"e{number}", flow_name="chatty")
            await archive.run(f"other{number}", flow_name="other")
            archive.clock.now += 1
        archive.begin("running", flow_name="chatty")
        assert (await archive.pruner.prune()).executions == 7
        left = await archive.index.query(archives.index.listing.Query(flow="chatty"))
        assert [one.id for one in left.items] == ["running", "e9", "e8", "e7"]


@pytest.mark.parametrize("part_bytes", [100, 1_000_000])
async def test_a_long_lived_execution_does_not_hold_the_rest(tmp_path, monkeypatch, part_bytes):
    monkeypatch.setattr(carrying, "_PART_BYTES", part_bytes)
    async with archives.opened(tmp_path) as archive:
        subject = archive.begin("old", key="k", key_digest="d")
        archive.ledger.record(subject, events.LogWritten(execution="old", call=1, text="long ago"))
        await archive.run("asked for", retention_time_s=1e6)
        for number in range(100):
            await archive.run(f"e{number}")
        before = await archive.index.events_of("old"), await archive.index.events_of("asked for")
        archive.clock.now += archives.KEEP_S + 1
        assert (await archive.pruner.prune()).segments > 3
        archive.ledger.record(subject, events.LogWritten(execution="old", call=2, text="still here"))
        await archive.journal.durable()
        after = await archive.index.events_of("old"), await archive.index.events_of("asked for")
        assert [(one.seq, one.at, one.event) for one in after[0][:-1]] == [(o.seq, o.at, o.event) for o in before[0]]
        assert [(one.seq, one.at, one.event) for one in after[1]] == [(o.seq, o.at, o.event) for o in before[1]]
        state = archives.shown(subject.state)
        assert archive.index.find_key("k")[0] == "old"
    (tmp_path / "index.db").unlink()
    async with archives.opened(tmp_path) as archive:
        assert archives.shown(archive.found.executions["old"]) == state
        assert len(await archive.index.events_of("old")) == 4
        assert archive.index.find_key("k")[0] == "old"
        for number in range(200, 300):
            await archive.run(f"e{number}")
        archive.clock.now += archives.KEEP_S + 1
        assert (await archive.pruner.prune()).segments > 3  # it is carried once more
        assert len(await archive.index.events_of("old")) == 4


@pytest.mark.parametrize("times", [3, 100])
async def test_what_happens_to_an_execution_while_it_is_carried_is_not_lost(tmp_path, monkeypatch, times):
    async with archives.opened(tmp_path) as archive:
        subject = archive.begin("old")
        for number in range(100):
            await archive.run(f"e{number}")
        archive.clock.now += archives.KEEP_S + 1
        read, said = archive.index.events_of, 0

        async def interrupted(execution: str) -> list[events.Recorded]:
            nonlocal said
            record = await read(execution)
            if said < times:
                said += 1
                archive.ledger.record(subject, events.LogWritten(execution="old", text=f"{said}"))
            return record

        with monkeypatch.context() as patched:
            patched.setattr(archive.index, "events_of", interrupted)
            done = await archive.pruner.prune()
        assert (done.segments > 3) == (times == 3)  # it is waited for, but not for ever
        await archive.journal.durable()
        texts = [str(number) for number in range(1, said + 1)]
        assert [one.event.text for one in (await archive.index.events_of("old"))[2:]] == texts
    (tmp_path / "index.db").unlink()
    async with archives.opened(tmp_path) as archive:
        assert [one.event.text for one in (await archive.index.events_of("old"))[2:]] == texts


async def test_an_index_that_lost_a_line_is_not_believed(tmp_path):
    async with archives.opened(tmp_path) as archive:
        subject = archive.begin("old")
        for number in range(100):
            if number == 20:  # in another segment than its beginning
                archive.ledger.record(subject, events.LogWritten(execution="old", text="long ago"))
            await archive.run(f"e{number}")
        archive.clock.now += archives.KEEP_S + 1
        await archive.index.flushed()
        with contextlib.closing(sqlite3.connect(tmp_path / "index.db")) as connection, connection:
            of_it = "execution = (SELECT seq FROM executions WHERE id = 'old')"
            where = f"{of_it} AND start > (SELECT min(start) FROM extents WHERE {of_it})"
            assert connection.execute(f"DELETE FROM extents WHERE {where}").rowcount == 1
        assert (await archive.pruner.prune()).segments == 0
    (tmp_path / "index.db").unlink()
    async with archives.opened(tmp_path) as archive:
        assert [type(one.event).__name__ for one in await archive.index.events_of("old")] == [
            *("ExecutionCreated", "ExecutionStarted", "LogWritten")
        ]
        assert (await archive.pruner.prune()).segments > 3


async def test_what_has_only_just_ended_is_left_to_those_who_end_it(tmp_path):
    async with archives.opened(tmp_path) as archive:
        subject = archive.begin("ending", retention_time_s=0.0)
        archive.ledger.record(subject, events.ExecutionEnded(execution="ending", status="ENDED_SUCCESS"))
        await archive.journal.durable()
        archive.clock.now += 1
        assert (await archive.pruner.prune()).executions == 0
        await archive.ledger.settle(subject)
        assert (await archive.pruner.prune()).executions == 1


async def test_who_follows_an_execution_is_not_told_twice_what_is_carried(tmp_path):
    async with archives.opened(tmp_path) as archive:
        hub = stream.Hub(archive.journal)
        subject = archive.begin("old")
        archive.say(events.LockTaken(name="l", execution="old", owned=True))
        for number in range(100):
            await archive.run(f"e{number}")
        archive.clock.now += archives.KEEP_S + 1
        following = hub.follow(archive.index, "old", 0)
        seen = [await anext(following), await anext(following)]
        assert (await archive.pruner.prune()).segments > 3
        archive.ledger.record(subject, events.LogWritten(execution="old", text="new"))
        await archive.end("old")
        seen += [one async for one in following]
        assert [type(one.event).__name__ for one in seen] == [
            *("ExecutionCreated", "ExecutionStarted", "LogWritten", "ExecutionEnded")
        ]
        assert [one.seq for one in await archive.index.events_of("old")] == [one.seq for one in seen]


async def test_young_keys_of_requests_outlive_their_executions(tmp_path):
    async with archives.opened(tmp_path, keep_s=10) as archive:
        await archive.run("asked", key="young", key_digest="d")
        for number in range(100):
            await archive.run(f"e{number}")
        archive.clock.now += 11
        assert (await archive.pruner.prune()).segments > 3
        await archive.index.flushed()
        assert archive.index.find_key("young")[:2] == ("asked", "d")
    (tmp_path / "index.db").unlink()
    clock = archives.Clock()
    for days in (4, 8):  # it is as old as its request, however often it was carried
        async with archives.opened(tmp_path, clock=clock, keep_s=10) as archive:
            assert archive.index.find_key("young")[:2] == ("asked", "d")
            clock.now = archives.START_S + days * 86400
            for number in range(100):
                await archive.run(f"e{days}-{number}")
            clock.now += 11
            assert (await archive.pruner.prune()).segments > 3
            await archive.index.flushed()
            assert (archive.index.find_key("young") is None) == (days == 8)


async def test_keys_are_carried_a_few_at_a_time(tmp_path):
    """Tens of thousands at once would take memory that a daemon of months never gives back."""
    async with archives.opened(tmp_path, keep_s=10) as archive:
        count = 2 * carrying._AT_ONCE + 10
        for number in range(count):
            archive.begin(f"e{number}", key=f"k{number}", path="x" * 1500)
        await asyncio.gather(*(archive.end(f"e{number}") for number in range(count)))
        await archive.run("last")
        archive.clock.now += 11
        most = 0

        def see(batch: list[events.Recorded]) -> None:
            nonlocal most
            most = max(most, len([one for one in batch if isinstance(one.event, events.KeyCarried)]))

        archive.journal.subscribe(see)
        assert (await archive.pruner.prune()).segments
        assert 0 < most <= carrying._AT_ONCE
    (tmp_path / "index.db").unlink()
    async with archives.opened(tmp_path, keep_s=10) as archive:
        assert [number for number in range(count) if archive.index.find_key(f"k{number}")[0] != f"e{number}"] == []


async def test_a_key_that_was_carried_in_vain_is_carried_once(tmp_path, monkeypatch):
    def broken(*_anything: object) -> None:
        raise OSError("somebody died")

    async with archives.opened(tmp_path, keep_s=10) as archive:
        await archive.run("asked", key="young", key_digest="d")
        for round_ in range(3):
            for number in range(100):
                await archive.run(f"e{round_}-{number}")
            archive.clock.now += 11
            with monkeypatch.context() as patched:
                if round_ < 2:
                    patched.setattr(carrying.dropping, "tombstone", broken)
                    with pytest.raises(OSError, match="somebody died"):
                        await archive.pruner.prune()
                else:
                    assert (await archive.pruner.prune()).segments > 20
    lines = "".join(path.read_text() for path in (tmp_path / "records").glob("*.jsonl"))
    assert lines.count('"key.carried"') == 1


async def test_files_that_no_line_names_go_and_no_others(tmp_path):
    async with archives.opened(tmp_path) as archive:
        held = archive.blobs.put(b'"held"')
        shared = archive.blobs.put(b'"shared"')
        alone = archive.blobs.put(b'"alone"')
        orphan = archive.blobs.put(b'"orphan"')
        seal, lost = archive.sealed.put(b'"s"'), archive.sealed.put(b'"lost"')
        archive.say(events.RecordSaved(type="file", name="f", id="i", field_blobs={"content": held, "more": shared}))
        shown, sealed = {"value": msgspec.Raw(b'"[]"')}, {"value": seal}
        archive.say(events.RecordSaved(type="setting", name="s", id="j", fields=shown, fields_sealed=sealed))
        await archive.run("e", inputs_blob=alone, inputs_sealed=archive.sealed.put(b'"gone with e"'))
        await archive.run("f", inputs_blob=shared)
        for number in range(100):
            await archive.run(f"e{number}")
        archive.clock.now += archives.KEEP_S + 1
        first, second = await archive.pruner.prune(), await archive.pruner.prune()
        assert (first.files, second.files) == (0, 4)
        for blob in (held, shared):
            assert archive.blobs.get(blob)
        assert archive.sealed.get(seal) == b'"s"'
        for blob in (alone, orphan):
            with pytest.raises(errors.NotFound):
                archive.blobs.get(blob)
        with pytest.raises(errors.NotFound):
            archive.sealed.get(lost)


async def test_a_file_that_is_put_again_meanwhile_stays(tmp_path):
    async with archives.opened(tmp_path, grace_s=0.0) as archive:
        blob = archive.blobs.put(b'"x"')
        assert (await archive.pruner.prune()).files == 0
        assert archive.blobs.put(b'"x"') == blob
        assert (await archive.pruner.prune()).files == 0
        assert archive.blobs.get(blob) == b'"x"'
        assert (await archive.pruner.prune()).files == 1


async def test_a_file_that_is_named_only_when_it_was_looked_for_stays(tmp_path):
    async with archives.opened(tmp_path) as archive:
        blob = archive.blobs.put(b'"x"')
        assert (await archive.pruner.prune()).files == 0
        archive.say(events.RecordSaved(type="file", name="f", id="i", field_blobs={"content": blob}))
        assert (await archive.pruner.prune()).files == 0
        assert archive.blobs.get(blob) == b'"x"'


async def test_young_files_are_left_alone(tmp_path):
    async with archives.opened(tmp_path, grace_s=3600.0) as archive:
        blob = archive.blobs.put(b'"x"')
        for _ in range(3):
            assert (await archive.pruner.prune()).files == 0
        assert archive.blobs.get(blob) == b'"x"'


async def test_an_index_that_knows_what_was_dropped_heals(tmp_path):
    async with archives.opened(tmp_path) as archive:
        for number in range(50):
            await archive.run(f"e{number}")
    older = (tmp_path / "index.db").read_bytes()
    async with archives.opened(tmp_path, clock=archives.Clock(archives.START_S + 1)) as archive:
        for number in range(50, 100):
            await archive.run(f"e{number}")
        archive.clock.now += archives.KEEP_S + 1
        await archive.run("young")
        assert (await archive.pruner.prune()).segments > 3
    for left in tmp_path.glob("index.db*"):
        left.unlink()
    (tmp_path / "index.db").write_bytes(older)
    async with archives.opened(tmp_path) as archive:
        assert [one.id for one in (await archive.index.query(archives.index.listing.Query())).items] == ["young"]
        assert len(await archive.index.events_of("young")) == 3


async def test_a_damaged_segment_is_not_dropped(tmp_path):
    async with archives.opened(tmp_path) as archive:
        archive.say(events.RecordSaved(type="setting", name="s", id="i", fields={"value": msgspec.Raw(b"1")}))
        for number in range(100):
            await archive.run(f"e{number}")
        archive.clock.now += archives.KEEP_S + 1
        path = tmp_path / "records" / archive.segments()[0]
        path.chmod(0o600)
        path.write_bytes(path.read_bytes().replace(b'"name":"s"', b'"name":"t"'))
        names = archive.segments()
        with pytest.raises(errors.JournalCorrupt, match="damaged in line 2"):
            await archive.pruner.prune()
        assert archive.segments() == names


async def test_a_segment_that_does_not_fill_up_is_finished_after_a_day(tmp_path):
    async with archives.opened(tmp_path, keep_s=0) as archive:
        await archive.run("a")
        await archive.pruner.prune()
        await archive.run("b")
        assert archive.segments() == ["00000001.jsonl"]
        archive.clock.now += 86_401
        await archive.pruner.prune()
        await archive.run("c")
        assert archive.segments() == ["00000001.jsonl", "00000002.jsonl"]
        await archive.pruner.prune()
        await archive.run("d")
        assert len(archive.segments()) == 2


async def test_what_a_writer_left_behind_goes_after_a_day(tmp_path):
    async with archives.opened(tmp_path) as archive:
        writer = archive.blobs.writer()
        writer.write(b"x")
        (left,) = (tmp_path / "blobs").glob("*.tmp")
        assert (await archive.pruner.prune()).files == 0
        day_ago = time.time() - 86_500
        os.utime(left, (day_ago, day_ago))
        assert (await archive.pruner.prune()).files == 1
        writer.abort()
        assert not left.exists()


async def test_passes_are_made_now_and_then_also_after_one_that_failed(tmp_path):
    async with archives.opened(tmp_path) as archive:
        for number in range(100):
            await archive.run(f"e{number}")
        archive.clock.now += archives.KEEP_S + 1
        path = tmp_path / "records" / archive.segments()[0]
        whole = path.read_bytes()
        path.chmod(0o600)
        path.write_bytes(b"damaged" + whole)
        running = asyncio.create_task(archive.pruner.run(interval_s=0.01, first_s=0.0), name="retention")
        while await archive.index.events_of("e99"):
            await asyncio.sleep(0.01)
        assert path.exists()
        path.write_bytes(whole)
        while path.exists():
            await asyncio.sleep(0.01)
        running.cancel()
        await asyncio.wait([running])
        assert running.cancelled()


@pytest.mark.parametrize("number", range(HISTORIES))
async def test_a_pruned_history_folds_to_what_happened(tmp_path, monkeypatch, number):
    monkeypatch.setattr(carrying, "_PART_BYTES", 100 if number % 2 else 1_000_000)
    print(f"seed {SEED + number}")
    pick = random.Random(SEED + number)
    told: list[events.Recorded] = []
    clock = archives.Clock()
    dropped = 0
    for opening in range(3):
        async with archives.opened(tmp_path, clock=clock) as archive:
            assert archives.seen(archive.found) == archives.seen(archives.folded(archives.original(told)))
            history = archives.History(archive, SEED + number * 100 + opening)
            history.count = 10_000 * opening
            for _ in range(4):
                await history.go_on(pick.randrange(20, 150))
                if pick.random() < 0.4:
                    clock.now += archives.KEEP_S
                done, _ = await asyncio.gather(archive.pruner.prune(), history.go_on(30))
                dropped += done.segments
                told += archive.told
                archive.told.clear()
                live, expected = archives.seen(archive.found), archives.seen(archives.folded(archives.original(told)))
                for kind in ("records", "ids", "locks", "owned", "messages", "pending", "bound"):
                    assert live[kind] == expected[kind]
                await check(archive, told)
        if pick.random() < 0.5:
            (tmp_path / "index.db").unlink()
    assert dropped > 0


async def check(archive: archives.Archive, told: list[events.Recorded]) -> None:
    """Executions that were not pruned have their record; all that is named is there."""
    gone: set[str] = set()
    for one in told:
        if isinstance(one.event, events.ExecutionsPruned):
            gone |= set(one.event.executions)
    lines: dict[str, list[events.Recorded]] = {}
    for one in told:
        if isinstance(one.event, events.ExecutionEvent) and one.event.execution not in gone:
            lines.setdefault(one.event.execution, []).append(one)
    listed = set()
    cursor = ""
    while True:
        page = await archive.index.query(archives.index.listing.Query(limit=200, cursor=cursor))
        listed |= {one.id for one in page.items}
        cursor = page.cursor
        if not cursor:
            break
    assert listed == set(lines)
    for execution, expected in lines.items():
        record = await archive.index.events_of(execution)
        assert [(one.seq, one.at, one.event) for one in record] == [(one.seq, one.at, one.event) for one in expected]
    for names in archive.state.store._saved.values():
        for saved in names.values():
            for value in saved.fields.values():
                if isinstance(value, model.Sealed):
                    archive.sealed.get(value.id)
                elif isinstance(value, events.Blob):
                    archive.blobs.get(value)


async def test_maintenance_outlives_the_segment_it_was_begun_in(tmp_path):
    async with archives.opened(tmp_path) as archive:
        archive.say(upkeep.MaintenanceBegun(reason="a new disk", by="Ada"))
        since = archive.state.maintenance.since
        for number in range(100):
            await archive.run(f"e{number}")
        archive.clock.now += archives.KEEP_S + 1
        await archive.run("young")
        assert (await archive.pruner.prune()).segments > 3
    now = found(tmp_path).kept.maintenance
    assert (now.since, now.reason, now.by) == (since, "a new disk", "Ada")
    async with archives.opened(tmp_path) as archive:
        archive.say(upkeep.MaintenanceEnded(by="Ada"))
    assert str(found(tmp_path).kept.maintenance) == ""
