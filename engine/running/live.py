"""The executions that have not ended: their state in memory, and writing down what happens to them.

``Ledger.record`` is the only way a live execution changes: the event goes to the journal and into the state in one
step. Who waits inside the engine is told at once; whoever stands outside is told when the end is durable.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Callable, Iterator
from typing import Protocol

import msgspec

from .. import errors, events, model, ports, values
from ..records import blobs

#: How often a value that found no room on the disk is tried again.
_ROOM_RETRY_S = 0.5
#: Executions that ended lately are answered for from memory: most questions come right after the end.
_RECENT_MAX = 100


class Supervision(Protocol):
    """The asyncio.Task that runs an execution, as others may influence it."""

    def cancel(self) -> None:
        """The execution was asked to end."""

    def interrupt(self) -> None:
        """The daemon stops: end at once."""


class Live:
    """An execution that has not ended, or whose end is not durable yet."""

    __slots__ = ("ended", "prepared", "state", "supervision", "unrun", "watchers")

    def __init__(self, state: model.Execution) -> None:
        self.state = state
        self.watchers: list[Callable[[], None]] = []  # told when it has ended, before that is durable
        self.ended: asyncio.Future[None] = asyncio.get_running_loop().create_future()  # when that is durable
        self.supervision: Supervision | None = None
        self.prepared: ports.PreparedTask | None = None  # of a task
        self.unrun: list[str] = []  # children that were only created


class Ledger:
    """All live executions, and the one way to change them."""

    def __init__(self, journal: ports.Journal, store: blobs.Blobs) -> None:
        self.journal = journal
        self._blobs = store
        self._live: dict[str, Live] = {}
        self._recent: OrderedDict[str, model.Execution] = OrderedDict()

    def __iter__(self) -> Iterator[Live]:
        return iter(list(self._live.values()))

    def __len__(self) -> int:
        return len(self._live)

    def find(self, execution: str) -> Live | None:
        """Return the live execution, or None if it ended or never was."""
        return self._live.get(execution)

    def recent(self, execution: str) -> model.Execution | None:
        """Return an execution that ended lately, durably, or None: the records know about it then."""
        return self._recent.get(execution)

    def add(self, state: model.Execution) -> Live:
        """Take up an execution whose creation is recorded."""
        live = self._live[state.id] = Live(state)
        return live

    def create(self, event: events.ExecutionCreated) -> Live:
        """Record a new execution and take it up."""
        return self.add(model.Execution.created(event, self.journal.append(event)))

    def record(self, live: Live, event: events.ExecutionEvent) -> None:
        """Write ``event`` down and apply it."""
        live.state.apply(event, self.journal.append(event))
        if live.state.status.ended:
            for watcher in live.watchers:
                watcher()
            live.watchers.clear()

    async def settle(self, live: Live) -> None:
        """Wait until the end of ``live`` is durable, then let it go and tell the outside."""
        await self.journal.durable()
        self._live.pop(live.state.id, None)
        self._recent[live.state.id] = live.state
        if len(self._recent) > _RECENT_MAX:
            self._recent.popitem(last=False)
        if not live.ended.done():
            live.ended.set_result(None)

    async def stored(
        self, value: bytes | msgspec.Raw, *, inline: bool = True, patient: bool = True
    ) -> tuple[msgspec.Raw | msgspec.UnsetType, events.Blob | None]:
        """Return a value as an event holds it: itself, or a reference to the file it was put in.

        On a full disk this waits for room, as the journal does with what has happened already; one that is not
        ``patient``, because nothing was promised yet, raises ``NotAccepting``.
        """
        text = bytes(value)
        if inline and len(text) <= values.INLINE_BYTES_MAX:
            return msgspec.Raw(text), None
        while True:
            try:
                return msgspec.UNSET, await asyncio.to_thread(self._blobs.put, text)
            except errors.NotAccepting:
                if not patient:
                    raise
                await asyncio.sleep(_ROOM_RETRY_S)

    async def opened(self, value: msgspec.Raw | events.Blob) -> msgspec.Raw:
        """Return the value itself, from its file if need be."""
        if isinstance(value, events.Blob):
            return msgspec.Raw(await asyncio.to_thread(self._blobs.get, value))
        return value
