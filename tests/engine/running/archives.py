"""A daemon's records without the daemon: journal, index, state and pruner, and what a random history does to them.

python -m tests.engine.running.archives DIRECTORY   prunes what is there, for tests that kill it
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import msgspec
import structlog

from headrace.daemon import unfinished
from headrace.engine import events, model, upkeep
from headrace.engine.records import blobs, index, journal, recovery, sweeping
from headrace.engine.running import carrying, contents, live, pruning
from headrace.engine.state import masks, sealed
from headrace.sync import manifests

KEEP_S = 1000.0
YEAR_S = 365 * 86400.0
SEGMENT_BYTES = 6000
START_S = 1_800_000_000.0
NAMES = [f"n{number}" for number in range(8)]


class Clock:
    """Moves on by itself a little with each look, and as far as the test says. It goes on where the records end."""

    def __init__(self, now: float = START_S) -> None:
        self.now = now

    def time(self) -> float:
        self.now += 0.001
        return self.now

    monotonic = time


def at_the_end(directory: Path) -> float:
    """A time after all that is recorded, and after all retention."""
    return START_S + 1e6 if (directory / "records").exists() else START_S


class Archive:
    """What a daemon has of its records, open."""

    def __init__(self, directory: Path, clock: Clock, keep_s: float, grace_s: float) -> None:
        self.directory = directory
        self.clock = clock
        self.keep_s = keep_s
        self.grace_s = grace_s
        self.found = unfinished.Unfinished()
        self.flows = manifests.Published(directory / "snapshots")
        self.told: list[events.Recorded] = []

    async def open(self, segment_bytes: int, recovered: recovery.Recovered | None) -> None:
        records, known = self.directory / "records", masks.Masks()
        recovered = recovered or recovery.recover(records, self.found.visit)
        self.index = await index.Index.open(self.directory / "index.db", records, recovered)
        self.journal = await journal.Journal.open(
            records, self.clock, recovered=recovered, segment_bytes_max=segment_bytes
        )
        self.journal.subscribe(self.index.absorb)
        self.journal.subscribe(self.told.extend)
        self.blobs = blobs.Blobs(self.directory / "blobs")
        self.sealed = sealed.Sealed(self.directory / "sealed", known)
        self.ledger = live.Ledger(self.journal, contents.Contents(self.blobs, self.sealed, known), self.index)
        for state in self.found.executions.values():
            self.ledger.add(state)
        self.state = self.found.kept
        self.carrier = carrying.Carrier(self.journal, self.ledger, self.index, self.state, self.found.published)
        self.pruner = pruning.Pruner(
            records,
            self.journal,
            self.ledger,
            self.index,
            self.state,
            self.carrier,
            sweeping.Sweeper(records, self.ledger.contents.files(), self.grace_s),
            self.flows,
            self.clock,
            self.keep_s,
        )

    def say(self, event: events.StateEvent) -> None:
        """Record a change of state."""
        self.state.apply(event, self.journal.append(event))

    def begin(self, execution: str, **fields: Any) -> live.Live:
        """Record an execution that runs."""
        subject = self.ledger.create(events.ExecutionCreated(execution=execution, **fields))
        self.ledger.record(subject, events.ExecutionStarted(execution=execution))
        return subject

    async def end(self, execution: str, **fields: Any) -> None:
        """Record its end, durably."""
        subject = self.ledger.find(execution)
        assert subject is not None
        self.ledger.record(subject, events.ExecutionEnded(execution=execution, status="ENDED_SUCCESS", **fields))
        await self.ledger.settle(subject)

    async def run(self, execution: str, **fields: Any) -> None:
        """Record one that begins and ends."""
        self.begin(execution, **fields)
        await self.end(execution)

    def segments(self) -> list[str]:
        return sorted(path.name for path in (self.directory / "records").glob("*.jsonl"))


@contextlib.asynccontextmanager
async def opened(
    directory: Path,
    *,
    clock: Clock | None = None,
    segment_bytes: int = SEGMENT_BYTES,
    keep_s: float = KEEP_S,
    grace_s: float = 0.0,
    recovered: recovery.Recovered | None = None,
) -> AsyncIterator[Archive]:
    """Open the records in ``directory`` as the daemon does; close them at the end."""
    (directory / "snapshots").mkdir(parents=True, exist_ok=True)
    archive = Archive(directory, clock or Clock(at_the_end(directory)), keep_s, grace_s)
    await archive.open(segment_bytes, recovered)
    try:
        yield archive
    finally:
        await archive.journal.close()
        await archive.index.close()


class History:
    """A random history: what flows keep and run, in all its ways."""

    def __init__(self, archive: Archive, seed: int) -> None:
        self.archive = archive
        self.pick = random.Random(seed)
        self.count = 0

    async def go_on(self, steps: int) -> None:
        """Let ``steps`` things happen."""
        ways = [self.setting, self.setting, self.message, self.lock, self.execution, self.execution, self.publish]
        for _ in range(steps):
            self.count += 1
            self.archive.clock.now += self.pick.choice([0.1, 1, 20])
            await self.pick.choice(ways)()
            if self.count % 60 == 20:  # not drawn: histories of a seed stay what they are otherwise
                self.maintenance()
        await self.archive.journal.durable()

    async def setting(self) -> None:
        archive, name = self.archive, self.pick.choice(NAMES)
        type_, base = self.pick.choice(["setting", "file"]), self.pick.choice(["", "", "digest"])
        match self.pick.randrange(6):
            case 0:
                archive.say(events.RecordDeleted(type=type_, name=name, base=base))
            case 1:
                archive.say(events.RecordSuperseded(type=type_, name=name))
            case _:
                fields: dict[str, Any] = {"fields": {"value": msgspec.Raw(b"%d" % self.count)}}
                if self.pick.random() < 0.3:
                    blob = archive.blobs.put(b'"%d"' % self.pick.randrange(30))
                    fields["field_blobs"] = {"big": blob}
                    fields["fields_sealed"] = {"value": archive.sealed.put(b'"%d"' % self.count)}
                id_ = archive.state.store.id_of(type_, name) or f"i{self.count}"
                archive.say(events.RecordSaved(type=type_, name=name, id=id_, base=base, by="me", **fields))

    async def message(self) -> None:
        archive = self.archive
        pending = archive.state.messages.all(pending=True)
        execution = self.pick.choice(["", "", *(one.state.id for one in archive.ledger)])
        match self.pick.randrange(5):
            case 0 if pending:
                archive.say(events.MessageAnswered(message=self.pick.choice(pending).id, by="Ada"))
            case 1 if pending:
                archive.say(events.MessageWithdrawn(message=self.pick.choice(pending).id, reason="old"))
            case 2 if pending:
                archive.say(events.MessageDeleted(message=self.pick.choice(pending).id))
            case _:
                id_, bound = f"m{self.count}", bool(execution)
                archive.say(events.MessageCreated(message=id_, subject="well?", execution=execution, bound=bound))

    async def lock(self) -> None:
        name = self.pick.choice(NAMES)
        if self.archive.state.locks.holder(name) is not None:
            self.archive.say(events.LockReleased(name=name))
        else:
            self.archive.say(events.LockTaken(name=name, execution=self.pick.choice(NAMES), owned=self.count % 2 == 0))

    async def publish(self) -> None:
        source = self.pick.choice(["here", "there"])
        self.archive.journal.append(events.CommitPublished(source=source, commit=f"c{self.count}"))

    def maintenance(self) -> None:
        begun = upkeep.MaintenanceBegun(reason=f"r{self.count}", by="me")
        self.archive.say(upkeep.MaintenanceEnded(by="me") if self.count % 120 == 20 else begun)

    async def execution(self) -> None:
        archive = self.archive
        running = [one.state.id for one in archive.ledger]
        if running and self.pick.random() < (0.9 if len(running) > 5 else 0.5):
            one = self.pick.choice(running)
            subject = archive.ledger.find(one)
            assert subject is not None
            archive.ledger.record(subject, events.LogWritten(execution=one, text="x" * self.pick.randrange(200)))
            # The first of all goes on for ever.
            if one != running[0] or self.pick.random() < 0.05:
                blob = archive.blobs.put(b'"end %d"' % self.pick.randrange(100))
                await archive.end(one, output_blob=blob)
            return
        fields: dict[str, Any] = {"retention_time_s": self.pick.choice([None, None, 50.0])}
        if running and self.pick.random() < 0.5:
            fields["parent"] = self.pick.choice(running)
        if self.pick.random() < 0.3:
            fields |= {"key": f"k{self.count}", "key_digest": "d"}
        archive.begin(f"e{self.count}", flow_name=self.pick.choice(["a", "b"]), **fields)


def original(told: list[events.Recorded]) -> list[events.Recorded]:
    """What happened, without what retention said of it."""
    carried = events.RecordCarried | events.LockCarried | events.MessageCarried | events.RetentionEvent
    return [
        one
        for one in told
        if not isinstance(one.event, carried)
        and not (isinstance(one.event, events.CommitPublished) and one.event.carried)
        and not (isinstance(one.event, upkeep.MaintenanceBegun) and one.event.since)
    ]


def folded(lines: list[events.Recorded]) -> unfinished.Unfinished:
    found = unfinished.Unfinished()
    for line in lines:
        found.visit(line)
    return found


def seen(found: unfinished.Unfinished) -> dict[str, Any]:
    """Everything that a fold knows, in a form that can be compared."""
    store, locks, messages = found.kept.store, found.kept.locks, found.kept.messages
    return {
        "records": {
            t: {n: msgspec.structs.asdict(s) for n, s in names.items()} for t, names in store._saved.items() if names
        },
        "ids": {type_: ids for type_, ids in store._saved_ids.items() if ids},
        "locks": locks.all(),
        "owned": {one.execution: locks.held_by(one.execution) for one in locks.all()},
        "messages": messages.all(),
        "pending": messages.all(pending=True),
        "bound": {one.execution: messages.bound_to(one.execution) for one in messages.all()},
        "maintenance": vars(found.kept.maintenance),
        "published": {s: msgspec.structs.replace(e, carried=False) for s, e in found.published.items()},
        "executions": {id_: shown(state) for id_, state in found.executions.items()},
    }


def shown(state: model.Execution) -> dict[str, Any]:
    return {name: getattr(state, name) for name in state.__struct_fields__ if name != "pending"}


async def prune(directory: Path) -> None:
    """Two passes, as one process makes them; what is carried takes several lines, and is there in portions."""
    carrying._PART_BYTES = 300
    carrying._AT_ONCE = 4
    pruning.KEYS_S = YEAR_S
    async with opened(directory) as archive:
        await archive.pruner.prune()
        await archive.pruner.prune()


if __name__ == "__main__":
    structlog.configure(logger_factory=structlog.PrintLoggerFactory(sys.stderr))
    asyncio.run(prune(Path(sys.argv[1])))
    os.write(1, b"done\n")
