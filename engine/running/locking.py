"""Taking and releasing locks: who waits is woken in the order of coming, and a wait that could never end is refused.

A lock is taken by an event; its holder may go on when that is appended. One that ``this.lock`` took goes back when its
execution ends, however that happens. Called by the calls of handlers and, to force a release, by people.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from typing import Any

from .. import errors, events, ports
from ..state import locks
from . import contents, failures, keeper


class Wait:
    """One handler's wait for a lock. ``hold`` is done when it has it, or has to give up."""

    def __init__(self, waiter: locks.Waiter, call: int, hold: asyncio.Future[bool]) -> None:
        self.waiter = waiter
        self.call = call
        self.hold = hold


class Locking:
    """All locks."""

    def __init__(
        self,
        state: locks.Locks,
        journal: ports.Journal,
        values_in: contents.Contents,
        waits_for: Callable[[str], Iterable[str]],
    ) -> None:
        """``waits_for``: the executions that another one needs to end, all of them and without a deadline."""
        self._locks = state
        self._journal = journal
        self._masks = values_in.masks
        self._waits_for = waits_for
        self._waits: dict[locks.Waiter, Wait] = {}

    def _record(self, event: events.LockEvent) -> None:
        event = self._masks.event(event)
        self._locks.apply(event, self._journal.append(event))

    def take_if_free(self, waiter: locks.Waiter, call: int) -> bool:
        """Take the lock if nobody has it or waits for it; raises ``Refused`` for a wait that could never end."""
        self._refuse_own(waiter)
        self._locks.enqueue(waiter)
        if self._locks.next_for(waiter.name) is waiter:
            self._grant(waiter, call)
            return True
        self._locks.leave(waiter)
        return False

    def _refuse_own(self, waiter: locks.Waiter) -> None:
        holder = self._locks.holder(waiter.name)
        if holder is not None and holder.owned and holder.execution == waiter.execution:
            raise failures.Refused("DeadlockError", f"this execution has the lock {waiter.name!r} already")

    def take(self, waiter: locks.Waiter, call: int, hold: asyncio.Future[bool]) -> Wait | None:
        """Take the lock now and return None, or stand in line; raises ``Refused`` for a wait that could never end."""
        holder = self._locks.holder(waiter.name)
        if holder is not None and (holder.execution, holder.call) == (waiter.execution, call):
            return None  # it came while nobody was there to take it
        self._refuse_own(waiter)
        self._locks.enqueue(waiter)
        if self._locks.next_for(waiter.name) is waiter:
            self._grant(waiter, call)
            return None
        circle = self._locks.deadlock(waiter, self._waits_for)
        if circle:
            self._locks.leave(waiter)
            raise failures.Refused("DeadlockError", f"this could never end: {'; '.join(circle)}")
        wait = self._waits[waiter] = Wait(waiter, call, hold)
        return wait

    def give_up(self, wait: Wait) -> None:
        """Leave the line, unless the lock came meanwhile; whoever stood behind may have it now."""
        self._waits.pop(wait.waiter, None)
        self._locks.leave(wait.waiter)
        self._serve(wait.waiter.name)

    def release(self, name: str, execution: str, call: int) -> None:
        """Give the lock back; harmless if it is free. Raises ``NotAllowed`` for another's owned lock."""
        if self._locks.releasable(name, execution):
            self._record(events.LockReleased(name=name, execution=execution, call=call))
            self._serve(name)

    def force_release(self, name: str, actor: keeper.Actor) -> None:
        """Free a lock whoever has it; raises ``NotFound`` if nobody does."""
        if self._locks.holder(name) is None:
            raise errors.NotFound(f"nobody has a lock {name!r}", hint="`headrace locks` lists those that are held")
        self._record(events.LockReleased(name=name, by=actor.name))
        self._serve(name)

    def ended(self, execution: str) -> None:
        """An execution is over: what it waits for and what it owns is free for others."""
        for waiter in self._locks.wanted_by(execution):
            self._waits.pop(waiter, None)
            self._locks.leave(waiter)
        for name in self._locks.held_by(execution):
            self._record(events.LockReleased(name=name))
            self._serve(name)

    def settle(self, is_live: Callable[[str], bool]) -> None:
        """At start: free the locks of executions that ended just before the daemon did."""
        for holder in self._locks.all():
            if holder.owned and not is_live(holder.execution):
                self._record(events.LockReleased(name=holder.name))

    def circle(self, execution: str) -> list[str]:
        """Return, in words, the circle of waits that an execution is in; empty if there is none."""
        return self._locks.circle(execution, self._waits_for)

    def list(self) -> list[dict[str, Any]]:
        """Return the locks that are held, by name, with who waits for them."""
        return [self.view(holder) for holder in self._locks.all()]

    def find(self, name: str) -> dict[str, Any]:
        """Return one lock that is held; raises ``NotFound``."""
        holder = self._locks.holder(name)
        if holder is None:
            raise errors.NotFound(f"nobody has a lock {name!r}")
        return self.view(holder)

    def view(self, holder: locks.Holder) -> dict[str, Any]:
        """Return a lock as people and flows see it."""
        return {
            "id": holder.name,
            "name": holder.name,
            "execution_id": holder.execution,
            "owned": holder.owned,
            "since": holder.since,
            "waiting": [{"execution_id": waiter.execution} for waiter in self._locks.waiting(holder.name)],
        }

    def _grant(self, waiter: locks.Waiter, call: int) -> None:
        self._record(events.LockTaken(name=waiter.name, execution=waiter.execution, call=call, owned=waiter.owned))
        self._locks.leave(waiter)

    def _serve(self, name: str) -> None:
        """Give a free lock to the first in line who still wants it."""
        while (waiter := self._locks.next_for(name)) is not None:
            wait = self._waits.pop(waiter, None)
            if wait is None or wait.hold.done():  # timed out or cancelled at this very moment
                self._locks.leave(waiter)
                continue
            self._grant(waiter, wait.call)
            wait.hold.set_result(False)
