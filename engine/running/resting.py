"""Executions without a process: they wait, stand still, or were cut off, and are replayed when it is their turn again.

Owns what happens between two processes of one execution: its wait goes on as data, its time limit runs, and after an
interruption a policy decides whether it is replayed, begun anew, ended, or parked until somebody looks at it. Who lets
it run again is the dispatcher (``again``); who ends it is too (``end``).
"""

from __future__ import annotations

import asyncio
import enum
import functools
from collections.abc import Coroutine
from typing import Protocol

import structlog

from .. import errors, events, model, ports
from ..lifecycle import Status
from . import failures, live, waits

log = structlog.get_logger()

#: A process that dies so often in a row without getting any further will not do better the next time.
FRUITLESS_MAX = 5
_BACK_OFF_S, _BACK_OFF_MAX_S = 1.0, 300.0


class Verdict(enum.Enum):
    """What becomes of an execution whose process is gone."""

    REPLAY = "replay"
    RESTART = "restart"
    FAIL = "fail"
    PARK = "park"


def judge(state: model.Execution) -> Verdict:
    """Decide from what is recorded of it; ``on_interrupt`` of its flow has the first word."""
    if state.fruitless >= FRUITLESS_MAX:
        return Verdict.PARK
    match state.on_interrupt:
        case "fail":
            return Verdict.FAIL
        case "restart":
            return Verdict.RESTART
        case "resume":
            return Verdict.REPLAY
    return Verdict.FAIL if state.effect is not None else Verdict.REPLAY


def back_off_s(state: model.Execution) -> float:
    """Return how long to wait before it is replayed once more, in seconds."""
    return min(_BACK_OFF_MAX_S, _BACK_OFF_S * 2.0 ** (state.fruitless - 1)) if state.fruitless else 0.0


class Cancelling(Protocol):
    """What this needs of ``influence``, which stands on it."""

    def cancel_children(self, execution: str, call: model.PendingCall) -> None:
        """Ask those to end that it made or set off and waits for in ``call``."""

    def give_back(self, subject: live.Live) -> None:
        """What belongs to a generation that is over, belongs to nobody any more."""


class Executions(Protocol):
    """What this needs of the dispatcher."""

    def again(self, subject: live.Live) -> None:
        """Let it be replayed when there is room."""

    def end(
        self, subject: live.Live, status: Status, message: str, reason: str, failure: events.Failure | None = None
    ) -> None:
        """End it where it is."""

    @property
    def influence(self) -> Cancelling:
        """What may be done to others."""

    def spawn(self, work: Coroutine[None, None, None], name: str) -> asyncio.Task[None]:
        """Run ``work`` as an asyncio.Task of the daemon."""


class Resting:
    """Looks after them."""

    def __init__(self, ledger: live.Ledger, armed: waits.Waits, executions: Executions, clock: ports.Clock) -> None:
        self._ledger = ledger
        self._waits = armed
        self._executions = executions
        self._clock = clock

    # -- lying down and getting up ----------------------------------------------------------------------------------

    async def lie_down(self, subject: live.Live) -> None:
        """Let it rest: what it waits for is watched from now on, and so is its time limit.

        What it was asked for while it lay down (to end, to stand still) counts now."""
        self._limit_time(subject)
        if subject.state.cancel_requested:
            self._executions.again(subject)
            return
        if subject.state.pause_requested:
            self.pause(subject)
        await self._watch(subject)

    async def _watch(self, subject: live.Live) -> None:
        state = subject.state
        call = next((call for call in state.pending.values() if call.waits), None)
        if state.status is not Status.WAITING or call is None:
            return
        if subject.rest is None:
            hold: waits.Hold = asyncio.get_running_loop().create_future()
            try:
                rest = live.Rest(call.number, hold, await self._waits.arm(state, call, hold))
            except (failures.Refused, errors.HeadraceError):
                self._executions.again(subject)  # its handler has to be told, or to make what is not there
                return
            is_watched = subject.rest is not None or subject.supervision is not None
            if is_watched or state.pending.get(call.number) is not call:
                rest.disarm()  # meanwhile somebody else came to watch this, or it was begun anew
                return
            subject.rest = rest
        subject.rest.hold.add_done_callback(functools.partial(self._over, subject), context=live.CONTEXT)

    def _over(self, subject: live.Live, hold: waits.Hold) -> None:
        """What it waited for is there."""
        resting = subject.supervision is None and subject.state.status is Status.WAITING
        if not hold.cancelled() and resting and not subject.state.pause_requested:
            self._executions.again(subject)

    def get_up(self, subject: live.Live) -> None:
        """It has a process again, or has ended."""
        if subject.limit is not None:
            subject.limit.cancel()
            subject.limit = None

    def forget(self, subject: live.Live) -> None:
        """It has ended: nothing is waited for any more."""
        self.get_up(subject)
        if subject.rest is not None:
            subject.rest.disarm()
            subject.rest = None

    def pause(self, subject: live.Live) -> None:
        """Stand still without a process; what comes meanwhile is handed on after that."""
        if subject.state.status is Status.WAITING:
            self._ledger.record(subject, events.ExecutionPaused(execution=subject.state.id))
            self.get_up(subject)

    def resume(self, subject: live.Live, by: str) -> None:
        """Go on after a pause."""
        state = subject.state
        waiting = any(call.waits for call in state.pending.values())
        queued = state.status is Status.PAUSED and not waiting
        self._ledger.record(subject, events.ExecutionResumed(execution=state.id, by=by, queued=queued))
        if state.status is Status.QUEUED:
            self._executions.again(subject)
        elif state.status is Status.WAITING:
            self._executions.spawn(self.lie_down(subject), f"rest of {state.id}")

    def restart(self, subject: live.Live, by: str, reason: str) -> None:
        """Begin anew."""
        for call in list(subject.state.pending.values()):
            self._executions.influence.cancel_children(subject.state.id, call)
        self.forget(subject)
        self._ledger.record(subject, events.ExecutionRestarted(execution=subject.state.id, by=by, reason=reason))
        self._executions.influence.give_back(subject)
        self._executions.again(subject)

    def _limit_time(self, subject: live.Live) -> None:
        left_s = subject.state.left_s(self._clock.time())
        if left_s is not None and subject.state.since and subject.state.status is not Status.PAUSED:
            loop = asyncio.get_running_loop()
            self.get_up(subject)
            subject.limit = loop.call_later(max(0.0, left_s), self._expire, subject)

    def _expire(self, subject: live.Live) -> None:
        state = subject.state
        if subject.supervision is None and not state.status.ended:
            for call in list(state.pending.values()):
                self._executions.influence.cancel_children(state.id, call)
            text = f"timed out after {state.timeout_s:g} s"
            self._executions.end(subject, Status.ENDED_ERROR, text, "timeout")

    # -- interruptions ----------------------------------------------------------------------------------------------

    async def interrupted(self, subject: live.Live, why: str, *, daemon: bool = False) -> None:
        """Its process is gone, for a reason of its own or because the daemon was: see what becomes of it."""
        state = subject.state
        if state.status.ended or subject.supervision is not None:
            return  # before its turn came here, somebody cancelled it
        reason = f"interrupted: {why}"
        self._ledger.record(subject, events.ExecutionInterrupted(execution=state.id, reason=reason, daemon=daemon))
        if state.cancel_requested and not daemon:
            text = f"cancelled; it could not clean up: {why}"
            self._executions.end(subject, Status.ENDED_CANCELLED, text, "")
            return
        match judge(state):
            case Verdict.REPLAY:
                await self._replay(subject)
            case Verdict.RESTART:
                self.restart(subject, "", f"interrupted: {why}")
            case Verdict.PARK:
                self._park(subject, why)
            case Verdict.FAIL:
                for call in list(state.pending.values()):
                    self._executions.influence.cancel_children(state.id, call)
                failure = events.Failure(type="InterruptedError", message=why)
                if state.effect is not None:
                    failure = events.Failure(
                        type="InterruptedError", message=why, file=state.effect.file, line=state.effect.line
                    )
                self._executions.end(subject, Status.ENDED_ERROR, _told(state, why), "interrupted", failure)

    async def _replay(self, subject: live.Live) -> None:
        delay_s = back_off_s(subject.state)
        if delay_s:
            log.warning(
                "execution.resumed_fruitlessly",
                execution=subject.state.id,
                times=subject.state.fruitless,
                again_in_s=delay_s,
            )
            await asyncio.sleep(delay_s)
        if subject.state.status is Status.WAITING:
            await self.lie_down(subject)
        elif subject.state.status is Status.QUEUED:
            self._limit_time(subject)
            self._executions.again(subject)

    def _park(self, subject: live.Live, why: str) -> None:
        if subject.state.status is Status.PAUSED:
            return
        text = f"parked: its process was lost {FRUITLESS_MAX} times in a row before it got any further ({why})"
        log.error("execution.parked", execution=subject.state.id, reason=why)
        self._ledger.record(subject, events.ExecutionPaused(execution=subject.state.id, reason=text))


def _told(state: model.Execution, why: str) -> str:
    """Return why an execution that was cut off does not go on, and what to do about it."""
    if state.effect is None:
        return f'interrupted: {why}; on_interrupt = "fail" forbids to go on'
    what = f"{state.effect.effect} {state.effect.detail}".strip()
    return (
        f"interrupted: {why}; it is not run again, because it touched the world by itself: {what} at "
        f"{state.effect.file}:{state.effect.line}. Put that into this.step(…), or set on_interrupt"
    )
