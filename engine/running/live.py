"""The executions that have not ended: their state in memory, and writing down what happens to them.

``Ledger.record`` is the only way a live execution changes: the event goes to the journal and into the state in one
step. Who waits inside the engine is told at once; whoever stands outside is told when the end is durable.
"""

from __future__ import annotations

import asyncio
import contextvars
from collections import OrderedDict
from collections.abc import Callable, Iterator
from typing import Protocol

import msgspec

from .. import events, model, ports, traces
from . import contents, history

#: Executions that ended lately are answered for from memory: most questions come right after the end.
_RECENT_MAX = 100


class Supervision(Protocol):
    """The asyncio.Task that runs an execution, as others may influence it."""

    def cancel(self) -> None:
        """The execution was asked to end."""

    def interrupt(self) -> None:
        """The daemon stops: end at once."""

    def pause(self) -> None:
        """It was asked to stand still."""

    def resume(self) -> None:
        """It may go on."""


class Archive(Protocol):
    """The records of all executions, durable ones."""

    async def events_of(self, execution: str) -> list[events.Recorded]:
        """Return the record of one execution, in order; empty if there is none."""


#: Told when an execution has ended, before that is durable.
Watcher = Callable[[model.Execution], None]
#: How to stop waiting for something.
Undo = tuple[Callable[[], None], ...]
#: Callbacks need none of their own, and there may be very many.
CONTEXT = contextvars.copy_context()


class Rest(msgspec.Struct, eq=False):
    """The wait of a ``call`` that goes on without a handler: ``hold`` is done when it is over."""

    call: int
    hold: asyncio.Future[bool]
    undo: Undo

    def disarm(self) -> None:
        """Give it up."""
        for step in self.undo:
            step()
        self.hold.cancel()


class Live:
    """An execution that has not ended, or whose end is not durable yet.

    One without ``supervision`` has not begun, or rests: it will be replayed."""

    __slots__ = (
        *("dependents", "ended", "limit", "loose", "prepared", "rest", "state", "supervision", "unrun", "watchers"),
    )

    def __init__(self, state: model.Execution) -> None:
        self.state = state
        self.watchers: list[Watcher] = []
        self.ended: asyncio.Future[None] = asyncio.get_running_loop().create_future()  # when that is durable
        self.supervision: Supervision | None = None
        self.prepared: ports.PreparedTask | None = None  # of a task
        self.rest: Rest | None = None  # what it waits for while it rests
        self.limit: asyncio.TimerHandle | None = None  # until its time is over, while it rests
        self.loose: tuple[history.Loose, ...] = ()  # what its last call changed before the daemon was cut off
        self.unrun: list[str] = []  # children that were only created
        self.dependents: list[str] = []  # children that shall not go on when it is cancelled


class Ledger:
    """All live executions, and the one way to change them."""

    def __init__(
        self,
        journal: ports.Journal,
        store: contents.Contents,
        archive: Archive,
        tracing: traces.Tracing = traces.Tracing(),  # noqa: B008 - it never changes
    ) -> None:
        self.journal = journal
        self.tracing = tracing
        self.contents = store
        self._archive = archive
        self._live: dict[str, Live] = {}
        self._recent: OrderedDict[str, model.Execution] = OrderedDict()
        self.at_end: Callable[[Live], None] = lambda _: None  # told of each end; what it records belongs to that

    def __iter__(self) -> Iterator[Live]:
        return iter(list(self._live.values()))

    def __len__(self) -> int:
        return len(self._live)

    def find(self, execution: str) -> Live | None:
        """Return the live execution, or None if it ended or never was."""
        return self._live.get(execution)

    def is_live(self, execution: str) -> bool:
        """Return whether there is such an execution and it has not ended."""
        subject = self._live.get(execution)
        return subject is not None and not subject.state.status.ended

    def recent(self, execution: str) -> model.Execution | None:
        """Return an execution that ended lately, durably, or None: the records know about it then."""
        return self._recent.get(execution)

    def forget(self, state: model.Execution) -> None:
        """Answer no more for an execution that ended."""
        self._recent.pop(state.id, None)

    def add(self, state: model.Execution) -> Live:
        """Take up an execution whose creation is recorded."""
        live = self._live[state.id] = Live(state)
        return live

    def create(self, event: events.ExecutionCreated) -> Live:
        """Record a new execution and take it up."""
        event = self._said(event)
        return self.add(model.Execution.created(event, self.journal.append(event)))

    async def submit(self, event: events.ExecutionCreated) -> Live:
        """The same for a request from outside: durable on return, or refused with ``NotAccepting``."""
        event = self._said(event)
        return self.add(model.Execution.created(event, await self.journal.submit(event)))

    def _said(self, event: events.ExecutionCreated) -> events.ExecutionCreated:
        """Return ``event`` without secrets and with the trace that the execution begins, if it came with none."""
        if not event.traceparent and (begun := self.tracing.begun(event.execution)):
            event = msgspec.structs.replace(event, traceparent=begun)
        return self.contents.masks.event(event)

    async def events_of(self, execution: str) -> list[events.Recorded]:
        """Return the record of an execution, in order, as far as it is durable; empty if there is none."""
        return await self._archive.events_of(execution)

    def record(self, live: Live, event: events.ExecutionEvent) -> None:
        """Write ``event`` down, without secrets, and apply it."""
        event = self.contents.masks.event(event)
        if isinstance(event, events.ExecutionEnded):
            with self.journal.together():
                self._end(live, event)
        else:
            live.state.apply(event, self.journal.append(event))
            if live.loose and isinstance(event, history.SETTLING):
                live.loose = ()
        if live.rest is not None and live.rest.call not in live.state.pending:  # it ended by what the record had of it
            live.rest.disarm()
            live.rest = None

    def _end(self, live: Live, event: events.ExecutionEnded) -> None:
        live.state.apply(event, self.journal.append(event))
        for watcher in live.watchers:
            watcher(live.state)
        live.watchers.clear()
        self.at_end(live)

    async def settle(self, live: Live) -> None:
        """Wait until the end of ``live`` is durable, then let it go and tell the outside."""
        await self.journal.durable()
        self._live.pop(live.state.id, None)
        self._recent[live.state.id] = live.state
        if len(self._recent) > _RECENT_MAX:
            self._recent.popitem(last=False)
        if not live.ended.done():
            live.ended.set_result(None)
        live.supervision = None  # each has the other: so both are freed now and not by the garbage collector
