"""The journal, folded at a start into what is still open. Called by ``app`` for each line, in order."""

from __future__ import annotations

from ..engine import events, model
from ..engine.records import segments
from ..engine.running import history, kept


class Unfinished:
    """Folds the journal at start into what is still open: executions without an end, the commit that is in force, what
    flows keep and share."""

    def __init__(self) -> None:
        self.executions: dict[str, model.Execution] = {}
        self.kept = kept.Kept()
        self.published: dict[str, events.CommitPublished] = {}
        #: What the last call of an execution changed, until the call's own line follows.
        self.loose: dict[str, list[history.Loose]] = {}
        self._parts: dict[tuple[str, str], list[events.Recorded]] = {}  # of records that are carried
        #: Executions with records that this version cannot read: what is known of them is not all there is.
        self.unreadable: frozenset[str] = frozenset()

    def visit(self, recorded: events.Recorded) -> None:
        """Take one event, in the order of the journal."""
        self._note_loose(recorded.event)
        match recorded.event:
            case events.ExecutionCreated() as event:
                self.executions[event.execution] = model.Execution.created(event, recorded.at)
                self.kept.ticks.ran(event)
            case events.ExecutionEnded() as event:
                self.executions.pop(event.execution, None)
                self.loose.pop(event.execution, None)
            case events.CommitPublished() as event:
                self.published[event.source] = event
            case events.ExecutionCarried() as event:
                self._carry(event, recorded)
            case events.CommitRejected() | events.DaemonStarted() | events.DaemonStopped() | events.ExecutionDeleted():
                pass
            case events.ExecutionsPruned() | events.KeyCarried() | events.SegmentsDropped():
                pass
            case event if isinstance(event, events.ExecutionEvent):
                state = self.executions.get(event.execution)
                if state is not None:
                    state.apply(event, recorded.at)
            case event:
                self.kept.apply(event, recorded.at)

    def _note_loose(self, event: events.AnyEvent) -> None:
        match event:
            case events.CallStarted() | events.CallEnded() | events.ExecutionRestarted():
                self.loose.pop(event.execution, None)
            case events.ExecutionSaved(by=by) if by:
                self.loose.setdefault(by, []).append(event)
            case (
                events.RecordSaved()
                | events.RecordDeleted()
                | events.LockTaken()
                | events.LockReleased()
                | events.MessageCreated()
            ) if event.execution in self.executions:
                self.loose.setdefault(event.execution, []).append(event)

    def _carry(self, event: events.ExecutionCarried, recorded: events.Recorded) -> None:
        """Begin an execution anew with its record as it was carried, once all of that is there."""
        parts = self._parts.setdefault((event.execution, event.carry), [])
        parts.append(recorded)
        if event.last:
            del self._parts[event.execution, event.carry]
            self.executions.pop(event.execution, None)
            loose = self.loose.pop(event.execution, None)
            for line in (line for part in parts for line in segments.unfolded(part)):
                self.visit(line)
            if loose is not None and event.execution in self.executions:
                self.loose[event.execution] = loose  # its last call is the same
