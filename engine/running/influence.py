"""What others may do to an execution: cancel, pause and resume it, or let it begin anew.

People do it through the API, handlers by their calls, parents when they are cancelled themselves. One that runs is told
through its supervision; one that has no process is looked after here and by ``resting``.
"""

from __future__ import annotations

from .. import errors, events, model
from ..lifecycle import Status
from . import asking, live, locking, resting


class Influence:
    """The verbs. Those that ``request`` do nothing to an execution that has ended; the others refuse."""

    def __init__(
        self,
        ledger: live.Ledger,
        rests: resting.Resting,
        executions: resting.Executions,
        asked: asking.Asking,
        held: locking.Locking,
    ) -> None:
        self._ledger = ledger
        self._resting = rests
        self._executions = executions
        self._asking = asked
        self._locking = held

    # -- from outside -----------------------------------------------------------------------------------------------

    def cancel(self, execution: str, by: str) -> None:
        """Ask an execution to end; raises ``NotFound`` and, if it has ended, ``Conflict``."""
        subject = self._ledger.find(execution)
        if subject is None or subject.state.status.ended:
            raise errors.Conflict(f"execution {execution} has ended already")
        self.request_cancel(execution, by)

    def pause(self, execution: str, by: str) -> None:
        """Ask an execution to stand still; raises ``Conflict`` if it has ended or is a task."""
        subject = self._ledger.find(execution)
        if subject is None or subject.state.status.ended:
            raise errors.Conflict(f"execution {execution} has ended already")
        if subject.state.type == "TASK":
            raise errors.Conflict("a task cannot be paused", hint="cancel it, or pause the flow that waits for it")
        self.request_pause(execution, by)

    def can_restart(self, execution: str) -> bool:
        """Return whether it stands still without a process, so that it may begin anew."""
        subject = self._ledger.find(execution)
        return subject is not None and subject.state.status is Status.PAUSED and subject.supervision is None

    def restart(self, execution: str, by: str) -> None:
        """Let an execution that stands still begin anew; raises ``Conflict`` if it has ended or does not."""
        subject = self._ledger.find(execution)
        if subject is None or not self.can_restart(execution):
            raise errors.Conflict(
                f"execution {execution} does not stand still without a process", hint="rerun makes a new execution"
            )
        self._resting.restart(subject, by, "")

    def resume(self, execution: str, by: str) -> None:
        """Let an execution go on; raises ``Conflict`` if it has ended or was not asked to pause."""
        subject = self._ledger.find(execution)
        if subject is None or not (subject.state.pause_requested or subject.state.status is Status.PAUSED):
            raise errors.Conflict(f"execution {execution} is not paused")
        self.request_resume(execution, by)

    # -- from calls, and from other executions ----------------------------------------------------------------------

    def request_cancel(self, execution: str, by: str) -> None:
        """Ask a live execution to end, and with it those that shall not go on without it; nothing happens if it has
        ended, or was asked before."""
        subject = self._ledger.find(execution)
        if subject is None or subject.state.status.ended or subject.state.cancel_requested:
            return
        with self._ledger.journal.together():
            self._ledger.record(subject, events.CancelRequested(execution=execution, by=by))
            self.carry_out_cancel(subject, by)

    def carry_out_cancel(self, subject: live.Live, by: str) -> None:
        """Do what was asked for, now or just before an earlier daemon was cut off."""
        execution = subject.state.id
        stuck = subject.state.divergence is not None or subject.state.fruitless > 0
        if subject.state.status is Status.PAUSED and subject.supervision is None and not stuck:
            self._resting.resume(subject, by)
        elif subject.state.pause_requested:
            self._ledger.record(subject, events.ExecutionResumed(execution=execution, by=by))
        if subject.supervision is not None:
            subject.supervision.cancel()
        elif subject.state.attempt and not stuck:
            self._clean_up(subject)
        else:
            text = "cancelled; its handler could not be replayed" if stuck else "cancelled before it ran"
            self._executions.end(subject, Status.ENDED_CANCELLED, text, "")
        for child in subject.dependents:
            self.request_cancel(child, execution)

    def _clean_up(self, subject: live.Live) -> None:
        """Replay one that was cancelled while it had no process: its handler may have something to put in order."""
        for call in subject.state.pending.values():
            self.cancel_children(subject.state.id, call)
        if subject.state.status is Status.WAITING:
            self._executions.again(subject)

    def cancel_children(self, execution: str, call: model.PendingCall) -> None:
        """Ask those to end that ``execution`` made or set off and waits for in ``call``; others go on."""
        for child in call.children if call.waits else ():
            subject = self._ledger.find(child)
            if subject is not None and execution in (subject.state.parent, subject.state.set_off_by):
                self.request_cancel(child, execution)

    def request_pause(self, execution: str, by: str) -> None:
        """Ask a live flow execution to stand still; nothing happens if it has ended or was asked before."""
        subject = self._ledger.find(execution)
        if subject is None or subject.state.status.ended or subject.state.pause_requested:
            return
        if subject.state.type == "TASK":  # it has no calls at which it could stand still
            return
        self._ledger.record(subject, events.PauseRequested(execution=execution, by=by))
        if subject.supervision is not None:
            subject.supervision.pause()
        else:
            self._resting.pause(subject)

    def request_resume(self, execution: str, by: str) -> None:
        """Let an execution go on; nothing happens if it does."""
        subject = self._ledger.find(execution)
        if subject is None or subject.state.status.ended:
            return
        if not (subject.state.pause_requested or subject.state.status is Status.PAUSED):
            return
        if subject.supervision is None:
            self._resting.resume(subject, by)
            return
        self._ledger.record(subject, events.ExecutionResumed(execution=execution, by=by))
        subject.supervision.resume()

    def give_back(self, subject: live.Live) -> None:
        """What belongs to a generation of an execution that is over, belongs to nobody any more."""
        self._locking.ended(subject.state.id)
        self._asking.ended(subject.state.id)
        for execution in (*subject.unrun, *subject.dependents):
            child = self._ledger.find(execution)
            if child is not None and (child.state.status is Status.NEW or not child.state.orphan):
                self.request_cancel(execution, subject.state.id)
        subject.unrun.clear()
        subject.dependents.clear()
