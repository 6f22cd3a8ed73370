"""Waiting as data: what a call waits for is in its record, so that a daemon can wait for it without its handler.

``arm`` watches what a pending call names: executions, a lock, a person's answer, and its deadline. It serves a handler
that sits in the call and an execution that rests without a process alike, and after a restart the same as before.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable

from .. import model, ports
from ..state import locks
from . import asking, failures, live, locking
from .waiting import ReturnWhen, Verdict, judge

#: Longer waits look at the wall clock again after so many seconds: it may have been set, or the machine slept.
_LOOK_AGAIN_S = 3600.0
LOCKS = {"lock": True, "setting.acquire": False}  # kinds of calls that wait for one, and whether it is owned

#: Done when the waiting is over: True if that is only because of the deadline.
Hold = asyncio.Future[bool]


def finish(hold: Hold, *, late: bool = False) -> None:
    """End the waiting, if it has not ended."""
    if not hold.done():
        hold.set_result(late)


class Waits:
    """Everything that executions wait for."""

    def __init__(
        self,
        ledger: live.Ledger,
        load: Callable[[str], Awaitable[model.Execution]],
        asked: asking.Asking,
        held: locking.Locking,
        clock: ports.Clock,
    ) -> None:
        self._ledger = ledger
        self._load = load
        self._asking = asked
        self._locking = held
        self._clock = clock

    async def arm(self, state: model.Execution, call: model.PendingCall, hold: Hold) -> Callable[[], None]:
        """Let ``hold`` be done when what ``call`` waits for is there, or its time is over; returns the way out.

        Raises ``Refused`` for a wait that could never end, ``NotFound`` for executions that do not exist (yet)."""
        undo: list[Callable[[], None]] = []
        if call.return_when:
            undo += await self._watch(state, call, hold)
        elif call.message:
            if self._asking.wait(call.message, hold):
                finish(hold)
            undo.append(lambda: self._asking.give_up(call.message, hold))
        elif call.kind in LOCKS:
            undo += self._stand_in_line(state, call, hold)
        if call.until is not None and not hold.done():
            undo.append(_Timer(self._clock, call.until, hold).cancel)

        def disarm() -> None:
            for step in undo:
                step()

        return disarm

    async def _watch(self, state: model.Execution, call: model.PendingCall, hold: Hold) -> list[Callable[[], None]]:
        if circle := self._locking.circle(state.id):
            raise failures.Refused("DeadlockError", f"this could never end: {'; '.join(circle)}")
        # Live ones first: what is loaded after that has ended, and stays as it is.
        watched = [subject for subject in map(self._ledger.find, call.children) if subject is not None]
        states = [subject.state for subject in watched]
        live_ones = {one.id for one in states}
        states += [await self._load(child) for child in call.children if child not in live_ones]
        return_when = ReturnWhen(call.return_when)

        def look() -> None:
            if judge(return_when, [one.status for one in states]) is not Verdict.WAIT:
                finish(hold)

        def unwatch() -> None:
            for subject in watched:
                if look in subject.watchers:  # one that has ended has told and forgotten its watchers
                    subject.watchers.remove(look)

        for subject in watched:
            subject.watchers.append(look)
        look()
        return [unwatch]

    def _stand_in_line(self, state: model.Execution, call: model.PendingCall, hold: Hold) -> list[Callable[[], None]]:
        waiter = locks.Waiter(call.target, state.id, LOCKS[call.kind], call.until is not None)
        wait = self._locking.take(waiter, call.number, hold)
        if wait is None:
            finish(hold)
            return []
        return [lambda: self._locking.give_up(wait)]


class _Timer:
    """Ends a waiting at a moment of the wall clock, never early."""

    def __init__(self, clock: ports.Clock, until: float, hold: Hold) -> None:
        self._clock = clock
        self._until = until
        self._hold = hold
        self._loop = hold.get_loop()
        self._next: asyncio.TimerHandle | None = None
        self._look()

    def cancel(self) -> None:
        if self._next is not None:
            self._next.cancel()

    def _look(self) -> None:
        left = self._until - self._clock.time()
        if left <= 0:
            self._ring()
        elif left > _LOOK_AGAIN_S:
            self._next = self._loop.call_later(_LOOK_AGAIN_S, self._look)
        else:  # from here on by the clock that never steps
            self._next = self._loop.call_later(left, self._ring)

    def _ring(self) -> None:
        finish(self._hold, late=True)


def needed(ledger: live.Ledger, state: model.Execution) -> Iterable[str]:
    """Return the executions of which one needs every one to end before it goes on, and without a deadline."""
    for call in state.pending.values():
        if not (call.waits and call.return_when) or call.until is not None:
            continue
        unfinished = [
            child
            for child in call.children
            if (subject := ledger.find(child)) is not None and not subject.state.status.ended
        ]
        if len(unfinished) == 1 or call.return_when in (ReturnWhen.ALL_ENDED, ReturnWhen.ALL_SUCCEEDED):
            yield from unfinished
