"""The journal, folded at a start into what is still open. Called by ``app`` for each line, in order."""

from __future__ import annotations

from typing import assert_never

from ..engine import events, model
from ..engine.records import segments
from ..engine.running import history, kept

#: What tells of changes that a call made before its own line, or that it has that line now.
_LOOSENING = frozenset(
    {
        *(events.CallStarted, events.CallEnded, events.ExecutionRestarted, events.ExecutionSaved),
        *(events.RecordSaved, events.RecordDeleted, events.LockTaken, events.LockReleased, events.MessageCreated),
    }
)


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
        """Take one event, in the order of the journal. Starts wait for it: what is frequent is asked for first."""
        event = recorded.event
        if type(event) in _LOOSENING:
            self._note_loose(event)
        if type(event) is events.ExecutionCreated:
            self.executions[event.execution] = model.Execution.created(event, recorded.at)
            self.kept.ticks.ran(event)
        elif type(event) is events.ExecutionEnded:
            self.executions.pop(event.execution, None)
            self.loose.pop(event.execution, None)
        elif isinstance(event, events.ExecutionEvent):
            state = self.executions.get(event.execution)
            if state is not None:
                state.apply(event, recorded.at)
        elif isinstance(event, events.StateEvent):
            self.kept.apply(event, recorded.at)
        elif isinstance(event, events.CommitPublished):
            self.published[event.source] = event
        elif isinstance(event, events.ExecutionCarried):
            self._carry(event, recorded)
        elif not isinstance(event, events.DaemonEvent | events.RetentionEvent):
            assert_never(event)

    def _note_loose(self, event: events.AnyEvent) -> None:
        if isinstance(event, history.SETTLING):
            self.loose.pop(event.execution, None)
            return
        match event:
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
