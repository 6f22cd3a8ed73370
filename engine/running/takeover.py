"""What an earlier daemon left unfinished: each execution goes on through the same doors as ever.

One that had not begun is queued, one that ran is interrupted like any whose process died, one that waits goes on
waiting without a process, a task is repeated if that does no harm.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection, Sequence

from .. import errors, events, model, ports
from ..lifecycle import Status
from . import failures, influence, live, resting

_CUT_OFF = "the daemon was cut off"


class Takeover:
    """Takes them up. ``enqueue`` lets an execution run when there is room, ``prepare`` makes a task ready to run."""

    def __init__(
        self,
        ledger: live.Ledger,
        rests: resting.Resting,
        influenced: influence.Influence,
        executions: resting.Executions,
        enqueue: Callable[[live.Live], None],
        prepare: Callable[[model.Execution], Awaitable[ports.PreparedTask]],
    ) -> None:
        self._ledger = ledger
        self._resting = rests
        self._influence = influenced
        self._executions = executions
        self._enqueue = enqueue
        self._prepare = prepare

    async def take_up(self, unfinished: Sequence[model.Execution], unreadable: Collection[str]) -> None:
        """Let each go on through the same doors as ever; those that wait in line keep their order.

        ``unreadable`` ones have records of a newer version: what would be replayed is not all there is."""
        for state in sorted(unfinished, key=_turn):
            subject = self._ledger.find(state.id)
            if subject is None or state.status.ended or subject.supervision is not None:
                continue
            if state.id in unreadable:
                self._park(subject)
                continue
            match state.status:
                case Status.NEW if state.cancel_requested:
                    self._influence.carry_out_cancel(subject, "")
                case Status.NEW if state.parent and not self._ledger.is_live(state.parent):
                    self._influence.request_cancel(state.id, state.parent)
                case Status.QUEUED | Status.RUNNING if state.type == "TASK":
                    self._executions.spawn(self._take_up_task(subject), f"task {state.id}")
                case Status.RUNNING | Status.QUEUED if state.attempt:
                    self._executions.spawn(
                        self._resting.interrupted(subject, _CUT_OFF, daemon=True), f"return of {state.id}"
                    )
                case Status.QUEUED:
                    self._influence.give_back(subject)  # it may have begun anew just before the daemon was cut off
                    self._enqueue(subject)
                case Status.WAITING | Status.PAUSED if state.effect is not None:
                    self._executions.spawn(
                        self._resting.interrupted(subject, _CUT_OFF, daemon=True), f"return of {state.id}"
                    )
                case Status.PAUSED if state.cancel_requested:
                    self._influence.carry_out_cancel(subject, "")
                case Status.WAITING:
                    await self._resting.lie_down(subject)

    async def _take_up_task(self, subject: live.Live) -> None:
        """Run a task that had not begun, and once more one that was cut off if that does no harm."""
        state = subject.state
        try:
            subject.prepared = await self._prepare(state)
        except errors.HeadraceError as error:
            if state.status.ended:
                return
            failure = events.Failure(type=failures.flow_side(error), message=error.message)
            self._executions.end(subject, Status.ENDED_ERROR, error.message, "interrupted", failure)
            return
        if state.status is Status.RUNNING and subject.supervision is None:
            if not subject.prepared.idempotent:
                text = f"interrupted: {_CUT_OFF}; whether it took effect is not known"
                failure = events.Failure(type="OutcomeUnknownError", message=text)
                self._executions.end(subject, Status.ENDED_ERROR, text, "interrupted", failure)
                return
            reason = f"interrupted: {_CUT_OFF}"
            self._ledger.record(subject, events.ExecutionInterrupted(execution=state.id, reason=reason, daemon=True))
        self._enqueue(subject)

    def _park(self, subject: live.Live) -> None:
        if subject.state.type == "TASK" or subject.state.status in (Status.NEW, Status.PAUSED):
            return
        reason = "parked: it has records of a newer version of headrace; start that one, or cancel it"
        self._ledger.record(subject, events.ExecutionPaused(execution=subject.state.id, reason=reason))


def _turn(state: model.Execution) -> tuple[str, str]:
    """Since when it waits, or was made."""
    return max((call.at for call in state.pending.values()), default=""), state.created_at
