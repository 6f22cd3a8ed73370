"""What must be true of a journal, whatever happened while it was written."""

from __future__ import annotations

import msgspec

from headrace.engine import events, model, policy
from headrace.engine.lifecycle import Status
from headrace.engine.state import locks


class Broken(AssertionError):
    """A promise was not kept."""


def check(lines: list[events.Recorded]) -> dict[str, model.Execution]:
    """Fold a whole journal and return its executions, ended ones too; raises ``Broken``."""
    book = _Book()
    for line in lines:
        try:
            book.take(line)
        except (ValueError, KeyError, Exception) as error:
            if isinstance(error, Broken):
                raise
            raise Broken(f"{error!r} at {line.seq}: {line.event}") from error
    for execution in book.to_cancel:
        state = book.states[execution]
        _want(state.status.ended or state.cancel_requested, f"{execution} goes on, and its parent was cancelled")
    return book.states


class _Book:
    def __init__(self) -> None:
        self.states: dict[str, model.Execution] = {}
        self._locks = locks.Locks()
        self._made: set[tuple[str, int, int]] = set()  # children: parent, generation, call
        self._answered: set[tuple[str, int, int]] = set()  # calls: execution, generation, number
        self._keys: dict[str, str] = {}
        self.to_cancel: set[str] = set()  # those whose parent was asked to end, and that shall not go on then

    def take(self, line: events.Recorded) -> None:
        match line.event:
            case events.ExecutionCreated() as event:
                self._created(event, line.at)
            case events.LockTaken() | events.LockReleased() as lock:
                self._locks.apply(lock, line.at)
            case event if isinstance(event, events.ExecutionEvent):
                self._about(event, line.at)

    def _created(self, event: events.ExecutionCreated, at: str) -> None:
        _want(event.execution not in self.states, f"{event.execution} was created twice")
        if event.key:
            known = self._keys.setdefault(event.key, event.execution)
            _want(known == event.execution, f"key {event.key} made {known} and {event.execution}")
        if event.parent:
            parent = self.states[event.parent]
            made = (parent.id, parent.generation, event.parent_call)
            _want(made not in self._made, f"call {made} made a second child, {event.execution}")
            call = parent.pending.get(event.parent_call)
            named = call is not None and event.execution in call.children
            _want(named, f"{event.execution} was made before its call {made} was recorded")
            self._made.add(made)
        self.states[event.execution] = model.Execution.created(event, at)

    def _about(self, event: events.ExecutionEvent, at: str) -> None:
        state = self.states[event.execution]
        _want(not state.status.ended, f"{state.id} has ended, and then: {event}")
        match event:
            case events.CancelRequested():
                children = (one for one in self.states.values() if one.parent == state.id and not one.orphan)
                self.to_cancel.update(one.id for one in children if not one.status.ended)
            case events.CallEnded():
                call = (state.id, state.generation, event.call)
                _want(call not in self._answered, f"call {call} ended twice")
                self._answered.add(call)
            case events.ExecutionPaused(divergence=divergence) if divergence is not None:
                raise Broken(f"{state.id} diverged: {divergence}")
            case events.ExecutionEnded(reason="internal"):
                raise Broken(f"{state.id} failed internally: {event.message}")
        state.apply(event, at)


def is_due_again(state: model.Execution, retry: policy.Retry) -> bool:
    """Return whether an execution has ended so that there must be another attempt; retries of retries are not asked."""
    failed = state.status is Status.ENDED_ERROR and not state.terms.retry and retry.attempts > 1
    failure = state.failure.type if state.failure is not None else ""
    return failed and not state.parent and not state.cancel_requested and retry.covers(failure, state.reason)


def same(one: events.AnyEvent, other: events.AnyEvent) -> bool:
    """Return whether two events are written alike."""
    return type(one) is type(other) and msgspec.json.encode(one) == msgspec.json.encode(other)


def _want(condition: bool, otherwise: str) -> None:
    if not condition:
        raise Broken(otherwise)
