"""A few worlds of ``tests.faults.simulation``, and moments at which a daemon was cut off that one of them found."""

from __future__ import annotations

import asyncio
import gc
from pathlib import Path

import msgspec
import pytest

from headrace.engine import events, lifecycle, model, policy
from headrace.engine.records import journal
from headrace.engine.running import contents, flow_run, live
from headrace.engine.state import masks
from tests.engine.running import archives
from tests.faults.simulation import beyond, mutants, world


def test_no_world_breaks_a_promise() -> None:
    assert sum(world.run(seed).executions for seed in range(25)) > 100


def test_worlds_that_broke_a_promise_once_break_none() -> None:
    """3167437968: a daemon dies between a message and the line of its call, the next flow process before that call;
    2075008463: a flow process dies that was told the same thing twice, and the second time is not written yet;
    2243011654: a wait was over while nobody sat in it, its call was answered from the record, and the next generation
    waits in a call of the same number; 5008789: an execution is begun anew while it is found out what it waited for,
    and waits in a call of the same number when that is known; 697110819: a daemon dies before the name of its first
    segment is durable, and the next has no room to write that file anew."""
    for seed in (3167437968, 2075008463, 2243011654, 5008789, 697110819):
        world.run(seed)


def test_the_same_seed_is_the_same_world() -> None:
    traces = [[world.run(seed).trace.hexdigest() for seed in range(100, 104)] for _ in range(2)]
    assert traces[0] == traces[1]
    assert len(set(traces[0])) == 4


def test_a_mutant_is_noticed() -> None:
    with mutants.present("fdatasync is left out"), pytest.raises(world.Broken):
        list(map(world.run, range(50)))


def after(directory: Path, *told: events.AnyEvent) -> dict[str, model.Execution]:
    """Return what becomes of what a daemon left when it was cut off."""

    async def write() -> None:
        lines = await journal.Journal.open(directory / "records", archives.Clock(1_700_000_000.0))
        for event in told:
            lines.append(event)
        await lines.close()

    asyncio.run(write())
    return world.World(1, directory).go_on_after(told)


def made(execution: str, **fields: object) -> events.ExecutionCreated:
    inputs = b'{"depth":0,"generation":0}'
    flow = {"name": "a", "flow_id": "id of a", "flow_name": "a", "commit": beyond.COMMIT, "path": "a.py"}
    return events.ExecutionCreated(**{"execution": execution, **flow, "inputs": msgspec.Raw(inputs), **fields})


def test_one_that_was_only_created_ends_though_the_daemon_died_between_the_wish_and_the_end(tmp_path: Path) -> None:
    states = after(tmp_path, made("e1", queued=False), events.CancelRequested(execution="e1", by="me"))
    assert states["e1"].status is lifecycle.Status.ENDED_CANCELLED


def test_one_that_stands_still_is_cancelled_though_the_daemon_died_just_after_the_wish(tmp_path: Path) -> None:
    states = after(
        tmp_path,
        made("e1"),
        events.ExecutionStarted(execution="e1", attempt=1),
        events.PauseRequested(execution="e1"),
        events.ExecutionPaused(execution="e1"),
        events.CancelRequested(execution="e1", by="me"),
    )
    assert states["e1"].status is lifecycle.Status.ENDED_CANCELLED


def test_what_a_call_changed_before_its_line_is_known_until_that_line_is_there(tmp_path: Path) -> None:
    async def kept() -> list[int]:
        lines = await journal.Journal.open(tmp_path, archives.Clock(1_700_000_000.0))
        ledger = live.Ledger(lines, contents.Contents(None, None, masks.Masks()), None)
        subject = ledger.create(made("e1"))
        asked = events.MessageCreated(message="m1", subject="well?", execution="e1", call=1)
        found = []
        for settling in (
            events.CallStarted(execution="e1", call=1, kind="message"),
            events.CallEnded(execution="e1", call=1, kind="message"),
            events.ExecutionRestarted(execution="e1"),
        ):
            subject.loose = (asked,)
            ledger.record(subject, events.ExecutionStarted(execution="e1", attempt=2))
            ledger.record(subject, events.ExecutionInterrupted(execution="e1", reason="its process died"))
            found.append(len(subject.loose))
            ledger.record(subject, settling)
            found.append(len(subject.loose))
        await lines.close()
        return found

    assert asyncio.run(kept()) == [1, 0] * 3


@pytest.mark.parametrize("cut_off_after", ["a lock was taken", "it was begun anew"])
def test_who_begins_anew_has_no_locks(tmp_path: Path, cut_off_after: str) -> None:
    told: list[events.AnyEvent] = [
        made("e1", on_interrupt="restart"),
        events.ExecutionStarted(execution="e1", attempt=1),
        events.LockTaken(name="mine", execution="e1", call=1, owned=True),
        events.CallEnded(execution="e1", call=1, kind="lock", target="mine"),
    ]
    if cut_off_after == "it was begun anew":
        told.append(events.ExecutionRestarted(execution="e1", reason="continued as new"))
    after(tmp_path, *told)
    kinds = [type(line.event) for line in world.read(tmp_path / "records")]
    began = kinds.index(events.ExecutionStarted, len(told))
    assert events.LockReleased in kinds[:began]


def test_one_that_is_cancelled_before_its_return_ends_and_takes_nobody_along(tmp_path: Path) -> None:
    newest_only = policy.Terms(lane="schedule s", when_full="replace")
    states = after(
        tmp_path,
        made("e1", terms=newest_only),
        events.ExecutionStarted(execution="e1", attempt=1),
        events.ExecutionInterrupted(execution="e1", reason="its process died"),
        made("e2", terms=newest_only),
    )
    assert states["e1"].status is lifecycle.Status.ENDED_CANCELLED
    assert states["e2"].status.ended


def test_what_ended_at_its_first_attempt_is_freed_without_the_garbage_collector(tmp_path: Path) -> None:
    def left() -> list[str]:
        found = [one for one in gc.get_objects() if isinstance(one, live.Live | flow_run.FlowRun)]
        return [one.state.id for one in found if one.state.attempt == 1]

    gc.collect()
    before = left()
    gc.disable()
    try:
        states = after(tmp_path, *(made(f"e{number}") for number in range(20)))
        ended = [state for state in states.values() if state.status.ended and state.attempt == 1]
        assert len(ended) > 5
        assert left() == before
    finally:
        gc.enable()
