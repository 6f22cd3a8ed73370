"""Waiting as data: what a call waits for is in its record, so that a daemon can wait for it without its handler.

``arm`` watches what a pending call names: executions, a lock, a person's answer, and its deadline. It serves a handler
that sits in the call and an execution that rests without a process alike, and after a restart the same as before.
"""

from __future__ import annotations

import asyncio
import functools
import heapq
import itertools
from collections.abc import Awaitable, Callable, Iterable

from .. import lifecycle, model, ports
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
        self._deadlines = Deadlines(clock)

    async def arm(self, state: model.Execution, call: model.PendingCall, hold: Hold) -> live.Undo:
        """Let ``hold`` be done when what ``call`` waits for is there, or its time is over; returns the way out.

        Raises ``Refused`` for a wait that could never end, ``NotFound`` for executions that do not exist (yet)."""
        undo: live.Undo = ()
        if call.return_when:
            undo = await self._watch(state, call, hold)
        elif call.message:
            if self._asking.wait(call.message, hold):
                finish(hold)
            undo = (functools.partial(self._asking.give_up, call.message, hold),)
        elif call.kind in LOCKS:
            undo = self._stand_in_line(state, call, hold)
        if call.until is not None and not hold.done():
            self._deadlines.add(call.until, hold)
        return undo

    async def _watch(self, state: model.Execution, call: model.PendingCall, hold: Hold) -> live.Undo:
        if circle := self._locking.circle(state.id):
            raise failures.Refused("DeadlockError", f"this could never end: {'; '.join(circle)}")
        # Live ones first: what is loaded after that has ended, and stays as it is.
        watched = [subject for subject in map(self._ledger.find, call.children) if subject is not None]
        states = [subject.state for subject in watched]
        live_ones = {one.id for one in states}
        states += [await self._load(child) for child in call.children if child not in live_ones]
        return_when = ReturnWhen(call.return_when)
        watched = [subject for subject in watched if not subject.state.status.ended]
        left = len(watched)

        def look(one: model.Execution) -> None:
            """One of them has ended; only what may decide is judged, for there may be thousands."""
            nonlocal left
            left -= 1
            succeeded = one.status is lifecycle.Status.ENDED_SUCCESS
            undecided = return_when is ReturnWhen.ALL_ENDED or (succeeded == (return_when is ReturnWhen.ALL_SUCCEEDED))
            if not left or not undecided or return_when is ReturnWhen.FIRST_ENDED:
                finish(hold)

        if judge(return_when, [one.status for one in states]) is not Verdict.WAIT:
            finish(hold)
            return ()
        for subject in watched:
            subject.watchers.append(look)
        return (functools.partial(_unwatch, watched, look),)

    def _stand_in_line(self, state: model.Execution, call: model.PendingCall, hold: Hold) -> live.Undo:
        waiter = locks.Waiter(call.target, state.id, LOCKS[call.kind], call.until is not None)
        wait = self._locking.take(waiter, call.number, hold)
        if wait is None:
            finish(hold)
            return ()
        return (functools.partial(self._locking.give_up, wait),)


def _unwatch(watched: list[live.Live], look: live.Watcher) -> None:
    for subject in watched:
        if look in subject.watchers:  # one that has ended has told and forgotten its watchers
            subject.watchers.remove(look)


class Deadlines:
    """Ends waits at moments of the wall clock, never early. One timer for all of them: there may be very many."""

    def __init__(self, clock: ports.Clock) -> None:
        self._clock = clock
        #: When to look, by the clock that never steps; a number, for order; the moment, if it is not that; who waits.
        self._heap: list[tuple[float, int, float, Hold]] = []
        self._numbers = itertools.count()
        self._timer: asyncio.TimerHandle | None = None

    def add(self, until: float, hold: Hold) -> None:
        """Let ``hold`` be done, late, when the wall clock says ``until``; one that is done before is forgotten."""
        left = until - self._clock.time()
        if left <= 0:
            finish(hold, late=True)
            return
        # A long wait looks at the wall clock again now and then; a short one is not disturbed when that is set.
        long = left > _LOOK_AGAIN_S
        look = self._clock.monotonic() + (_LOOK_AGAIN_S if long else left)
        heapq.heappush(self._heap, (look, next(self._numbers), until if long else 0.0, hold))
        if self._heap[0][0] == look:
            self._wind()

    def _wind(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        delay = max(0.0, self._heap[0][0] - self._clock.monotonic())
        self._timer = asyncio.get_running_loop().call_later(delay, self._ring)

    def _ring(self) -> None:
        self._timer = None
        now = self._clock.monotonic()
        while self._heap and self._heap[0][0] <= now:
            _, _, until, hold = heapq.heappop(self._heap)
            if hold.done():
                continue
            if until:
                self.add(until, hold)
            else:
                finish(hold, late=True)
        if self._heap:
            self._wind()


def needed(ledger: live.Ledger, state: model.Execution) -> Iterable[str]:
    """Return the executions of which one needs every one to end before it goes on, and without a deadline."""
    for call in state.pending.values():
        if not (call.waits and call.return_when) or call.until is not None:
            continue
        unfinished = [child for child in call.children if _unfinished(ledger, child)]
        if len(unfinished) == 1 or call.return_when in (ReturnWhen.ALL_ENDED, ReturnWhen.ALL_SUCCEEDED):
            yield from unfinished


def _unfinished(ledger: live.Ledger, execution: str) -> bool:
    subject = ledger.find(execution)
    return subject is not None and not subject.state.status.ended


def patience_s(call: model.PendingCall, after_s: float, now_s: float) -> float:
    """Return how long a process is kept while its handler waits: ``after_s``, and not at all where it is known to take
    longer than that."""
    alone = not (call.return_when or call.message or call.kind in LOCKS)
    return 0.0 if alone and call.until is not None and call.until - now_s > after_s else after_s


def going(ledger: live.Ledger, until: float, *, asking: Callable[[str], bool]) -> set[str]:
    """Return the executions that may get further by ``until`` although nothing new begins: they run, wait for no longer
    than that, or for others of which that is true. People are not waited for; ``asking`` says it of a task."""
    found: dict[str, bool] = {}

    def goes(execution: str) -> bool:
        if execution not in found:
            found[execution] = False  # in a circle nobody gets further
            subject = ledger.find(execution)
            found[execution] = subject is not None and moves(subject.state)
        return found[execution]

    def moves(state: model.Execution) -> bool:
        if state.status is lifecycle.Status.RUNNING:
            return state.type != "TASK" or not asking(state.id)
        return state.status is lifecycle.Status.WAITING and any(map(over, state.pending.values()))

    def over(call: model.PendingCall) -> bool:
        if call.until is not None and call.until <= until:
            return True
        left = [child for child in call.children if _unfinished(ledger, child)]
        enough = all if call.return_when == ReturnWhen.ALL_ENDED else any
        return bool(call.return_when) and (not left or enough(map(goes, left)))

    return {subject.state.id for subject in ledger if goes(subject.state.id)}
