"""Says again, at the journal's end, what still counts of segments that are to go.

Each subject (a record, a message, the locks, a commit, a key, an execution) is written down as it is in the same step
of the event loop, so that nothing that changes it can come between; what happens to it later is a later line. Nothing
is masked anew: what is carried says exactly what was said before. What is carried twice, because somebody died before
the segments went, changes nothing the second time.
"""

from __future__ import annotations

import asyncio
import functools
import secrets
from array import array
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

import msgspec

from .. import errors, events
from ..records import dropping, index, journal
from . import kept, live

#: A carried line of an execution's record is not longer, so that it fits into a line with what is around it.
_LINE_BYTES_MAX = 900 * 1024
_PART_BYTES = 256 * 1024
#: A line about a lock or a key is about so long.
_SMALL_BYTES = 250
#: So many subjects are written down, then they are on the disk and in the index before there are more.
_AT_ONCE = 100
#: An execution that does something in the very moment its record is read is read again so often.
_TRIES = 5


class NotNow(Exception):
    """Something cannot be carried, in words: the segments stay for this time."""


class Prefix(msgspec.Struct):
    """The oldest segments of the journal together: what lies in them, and who of it is alive."""

    segment: int = 0
    size: int = 0
    alive: set[str] = msgspec.field(default_factory=set)  # executions that begin in them and are not gone
    executions: dict[str, dict[int, int]] = msgspec.field(default_factory=dict)  # line → bytes, of those alive
    records: dict[tuple[str, str], int] = msgspec.field(default_factory=dict)
    messages: Counter[str] = msgspec.field(default_factory=Counter)
    locks: int = 0
    sources: set[str] = msgspec.field(default_factory=set)
    keys: list[tuple[Path, array[int]]] = msgspec.field(default_factory=list)  # see dropping.keys
    schedules: set[str] = msgspec.field(default_factory=set)
    maintenance: bool = False

    def add(self, found: dropping.Contents, alive: set[str]) -> None:
        """Take the next segment in, in which ``alive`` begin."""
        self.segment = found.segment
        self.size += found.size
        self.alive |= alive
        for execution, lines in found.executions.items():
            if execution in self.alive:
                self.executions.setdefault(execution, {}).update(lines)
        self.records |= found.records
        self.messages += found.messages
        self.locks += found.locks
        self.sources |= found.sources
        self.schedules |= found.schedules
        self.maintenance |= found.maintenance
        self.keys.append((found.path, found.keys))


class Carrier:
    """Carries what counts. ``published``: what is in force, by source; it is kept up to date here."""

    def __init__(
        self,
        lines: journal.Journal,
        ledger: live.Ledger,
        archive: index.Index,
        state: kept.Kept,
        published: Mapping[str, events.CommitPublished],
    ) -> None:
        self._journal = lines
        self._ledger = ledger
        self._archive = archive
        self._state = state
        self._published = dict(published)
        self._latest: dict[str, int] = {}  # of executions that are being carried → their last line
        lines.subscribe(self._listen)

    def _listen(self, batch: Sequence[events.Recorded]) -> None:
        for recorded in batch:
            match recorded.event:
                case events.CommitPublished() as event:
                    self._published[event.source] = event
                case event if self._latest and isinstance(event, events.ExecutionEvent):
                    if event.execution in self._latest:
                        self._latest[event.execution] = recorded.seq

    def cost(self, prefix: Prefix) -> int:
        """Return about how many bytes would have to be carried."""
        records = sum(size for key, size in prefix.records.items() if self._state.store.carried(*key) is not None)
        messages = sum(size for id_, size in prefix.messages.items() if self._state.messages.carried(id_) is not None)
        keys = sum(len(offsets) for _, offsets in prefix.keys)
        small = keys + len(prefix.schedules) + (len(self._state.locks.all()) if prefix.locks else 0)
        executions = sum(sum(lines.values()) for lines in prefix.executions.values())
        return records + messages + executions + small * _SMALL_BYTES

    async def carry(self, prefix: Prefix) -> None:
        """Append all of it; durable when the journal says so. Raises ``NotNow``."""
        for execution in prefix.executions:
            await self._execution(execution, prefix)
        try:
            for count, say in enumerate(self._others(prefix), 1):
                say()
                if count % _AT_ONCE == 0:
                    await self._settle()
        except errors.TooLarge as error:
            raise NotNow(error.message) from error
        await self._keys(prefix)

    async def _settle(self) -> None:
        """Return when nothing of it is held in memory any more, on its way to the disk or into the index."""
        await self._journal.durable()
        await self._archive.flushed()

    def _others(self, prefix: Prefix) -> Iterator[Callable[[], None]]:
        """Yield what writes one subject down as it is when that is called."""
        for type_, name in prefix.records:
            yield functools.partial(self._record, type_, name)
        for message in prefix.messages:
            yield functools.partial(self._message, message)
        if prefix.locks:
            yield self._locks
        for source in prefix.sources:
            yield functools.partial(self._publication, source)
        for schedule in prefix.schedules:
            yield functools.partial(self._schedule, schedule)
        if prefix.maintenance:
            yield self._maintenance

    async def _keys(self, prefix: Prefix) -> None:
        """Append each key once: where somebody died after carrying it, it is there again."""
        said: set[str] = set()
        for path, offsets in prefix.keys:
            for start in range(0, len(offsets), _AT_ONCE):
                some = offsets[start : start + _AT_ONCE]
                for key in await asyncio.to_thread(dropping.keys, path, some):
                    if key.key not in said:
                        said.add(key.key)
                        self._journal.append(key)
                await self._settle()

    def _maintenance(self) -> None:
        if (event := self._state.maintenance.carried()) is not None:
            self._journal.append(event)

    def _schedule(self, schedule: str) -> None:
        if (event := self._state.ticks.carried(schedule)) is not None:
            self._journal.append(event)  # it says how far the schedule is already

    def _record(self, type_: str, name: str) -> None:
        if (event := self._state.store.carried(type_, name)) is not None:
            self._state.store.apply(event, self._journal.append(event))

    def _message(self, message: str) -> None:
        if (event := self._state.messages.carried(message)) is not None:
            self._state.messages.apply(event, self._journal.append(event))

    def _locks(self) -> None:
        for event in self._state.locks.carried():
            self._state.locks.apply(event, self._journal.append(event))

    def _publication(self, source: str) -> None:
        event = self._published.get(source)
        for appended in self._journal.in_line():
            if isinstance(appended, events.CommitPublished) and appended.source == source:
                event = appended
        if event is not None:
            self._journal.append(msgspec.structs.replace(event, carried=True))

    # -- executions -------------------------------------------------------------------------------------------------

    async def _execution(self, execution: str, prefix: Prefix) -> None:
        """Append the whole record of an execution anew."""
        try:
            for _ in range(_TRIES):
                await self._journal.durable()
                self._latest[execution] = 0
                record = await self._archive.events_of(execution)
                # From here on there is no turn for others until it is written.
                if record and not self._goes_on(execution, record[-1].seq):
                    self._check(execution, record, prefix)
                    if record[0].segment <= prefix.segment:  # else somebody died when it had been carried
                        for part in _parts(execution, record):
                            self._journal.append(part)
                    return
        finally:
            self._latest.pop(execution, None)
        raise NotNow(f"execution {execution} goes on all the time, or its record cannot be found")

    def _goes_on(self, execution: str, last: int) -> bool:
        """Return whether something happened to it after line ``last``, durable or not."""
        return self._latest[execution] > last or any(
            isinstance(event, events.ExecutionEvent) and event.execution == execution
            for event in self._journal.in_line()
        )

    def _check(self, execution: str, record: Sequence[events.Recorded], prefix: Prefix) -> None:
        """Believe what the index found only if it is all that the segments have."""
        begins = isinstance(record[0].event, events.ExecutionCreated)
        if not begins or not prefix.executions[execution].keys() <= {one.seq for one in record}:
            raise NotNow(f"the index does not have the whole record of execution {execution}")
        subject = self._ledger.find(execution)
        ends = any(isinstance(one.event, events.ExecutionEnded) for one in record)
        if ends == (subject is not None and not subject.state.status.ended):
            raise NotNow(f"the index has another end of execution {execution}")


def _parts(execution: str, record: Sequence[events.Recorded]) -> list[events.ExecutionCarried]:
    carry = secrets.token_hex(8)
    parts: list[list[events.CarriedLine]] = [[]]
    size = 0
    for recorded in record:
        text = msgspec.json.encode(recorded.event)
        if len(text) > _LINE_BYTES_MAX:
            raise NotNow(f"a line of execution {execution} is too long to be carried")
        if parts[-1] and size + len(text) > _PART_BYTES:
            parts.append([])
            size = 0
        parts[-1].append(events.CarriedLine(recorded.seq, recorded.at, msgspec.Raw(text)))
        size += len(text) + 100
    return [
        events.ExecutionCarried(execution=execution, carry=carry, last=lines is parts[-1], lines=tuple(lines))
        for lines in parts
    ]
