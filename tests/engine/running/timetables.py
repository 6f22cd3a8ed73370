"""Schedules over real records, with a clock that the test moves: what makes them run is the real reception."""

from __future__ import annotations

import contextlib
import shutil
from pathlib import Path

import msgspec

from headrace.engine import events, ids, model, policy, scheduled
from headrace.engine.running import expectations, keeper, lanes, reception, schedules, sequels
from tests.engine.running import archives
from tests.support.clocks import Clock

COMMIT = "c" * 40


def flow(name: str, *said: policy.Schedule, **policies) -> model.Flow:
    """A flow with schedules; its id is its name."""
    whole = policy.Policies(
        schedules=tuple(msgspec.structs.replace(one, key=one.key or str(n)) for n, one in enumerate(said)), **policies
    )
    return model.Flow(
        id=f"id of {name}",
        name=name,
        path=f"{name}.py",
        commit=COMMIT,
        blob="",
        metadata=model.Metadata(policies=whole),
    )


class Table:
    """One life of a daemon, as far as schedules go."""

    def __init__(self, archive: archives.Archive, clock: Clock, flows: list[model.Flow]) -> None:
        self.archive = archive
        self.clock = clock
        self.begun: list[model.Execution] = []
        self.publish(*flows)
        ledger, found = archive.ledger, archive.flows
        self.keeper = keeper.Keeper(
            archive.state.store, archive.journal, ledger.contents, found, clock=clock, new_id=ids.new_id
        )
        self.sequels = sequels.Sequels(found, clock, ids.new_id, self._begin)
        room = lanes.Lanes(ledger, found, self)
        self.reception = reception.Reception(ledger, archive.index, found, ids.new_id, self._enqueue, room)
        state = archive.state.ticks
        self.schedules = schedules.Schedules(
            archive.journal,
            state,
            found,
            self.keeper,
            self.reception.take,
            expectations.Expectations(ledger, state, found, self._load, self.sequels.tell_late, clock),
            clock,
        )
        found.watchers.append(self.schedules.nudge)
        self.keeper.watchers.append(self.schedules.nudge)

    def publish(self, *flows: model.Flow) -> None:
        """Make these the flows there are."""
        self.archive.flows.swap(
            model.Catalogue(commit=COMMIT, published_at="2026-01-01T00:00:00+00:00", flows={f.name: f for f in flows})
        )

    def _enqueue(self, subject) -> None:
        self.begun.append(subject.state)

    def _begin(self, event: events.ExecutionCreated) -> None:
        self.begun.append(self.archive.ledger.create(event).state)

    async def _load(self, execution: str) -> model.Execution:
        return self.archive.ledger.find(execution).state

    async def until(self, moment: float, step_s: float = 30.0) -> None:
        """Let time pass up to ``moment``, looking whenever a daemon would."""
        while self.clock.now_s < moment:
            delay_s = await self.schedules.look()
            self.clock.now_s = min(moment, self.clock.now_s + (step_s if delay_s is None else max(delay_s, 0.001)))
        await self.schedules.look()


@contextlib.asynccontextmanager
async def opened(directory: Path, clock: Clock, *flows: model.Flow):
    """A daemon's schedules over the records in ``directory``."""
    async with archives.opened(directory, clock=clock, segment_bytes=1 << 20) as archive:
        yield Table(archive, clock, list(flows))


def copied(directory: Path, target: Path) -> Path:
    """What kill -9 would leave of the records at this moment."""
    target.mkdir(parents=True, exist_ok=True)
    shutil.copytree(directory / "records", target / "records", dirs_exist_ok=True)
    return target


async def story(directory: Path, clock: Clock) -> tuple[list[str], list[tuple[str, str, int]]]:
    """Return from the records alone which ticks ran, and from when to when which others were missed."""
    ran, missed = [], []
    async with archives.opened(directory, clock=clock, segment_bytes=1 << 20):
        pass
    from headrace.engine.records import recovery

    def visit(recorded: events.Recorded) -> None:
        match recorded.event:
            case events.ExecutionCreated() as event if event.terms.schedule:
                ran.append(f"{event.terms.schedule} {event.terms.due}")
            case scheduled.TicksMissed() as event:
                missed.append((event.first, event.last, event.count))

    recovery.recover(directory / "records", visit)
    return ran, missed
