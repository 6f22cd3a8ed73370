"""Defects, put into the real parts: a world that does not notice them is blind."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any
from unittest import mock

from headrace.engine import events
from headrace.engine.lifecycle import Status
from headrace.engine.records import journal, recovery, segments, tail
from headrace.engine.running import child_calls, dispatcher, ends, flow_run, influence, live, takeover


async def _acknowledge_at_once(self: journal.Journal, event: events.AnyEvent) -> str:
    return self.append(event)


async def _tell_at_once(self: live.Ledger, subject: live.Live) -> None:
    self._live.pop(subject.state.id, None)
    self._recent[subject.state.id] = subject.state
    if not subject.ended.done():
        subject.ended.set_result(None)


async def _confirm_at_once(self: ends.Ends, subject: live.Live, deadline_s: float) -> None:
    """Nothing is waited for."""


async def _repeat_any_task(self: takeover.Takeover, subject: live.Live) -> None:
    subject.prepared = await self._prepare(subject.state)
    if subject.state.status is Status.RUNNING:
        self._ledger.record(subject, events.ExecutionInterrupted(execution=subject.state.id, daemon=True))
    self._enqueue(subject)


def _admit_whoever_comes(self: dispatcher.Dispatcher) -> None:
    while (self._woken or self._flow_queue) and self._flow_slots.has_room() and not self._stopping:
        subject = self._woken.popleft() if self._woken else self._flow_queue.popleft()
        if not subject.state.status.ended:
            self._flow_slots.enter(subject.state.id)
            self.supervise(subject, flow_run.FlowRun(subject, self._around), self._flow_slots)


def _leave_dependents(self: influence.Influence, subject: live.Live, by: str) -> None:
    subject.dependents.clear()
    _CARRY_OUT_CANCEL(self, subject, by)


_CARRY_OUT_CANCEL = influence.Influence.carry_out_cancel
#: What is wrong: where, and what is there instead.
MUTANTS: dict[str, tuple[object, str, Any]] = {
    "a request is acknowledged before it is durable": (journal.Journal, "submit", _acknowledge_at_once),
    "an end is told before it is durable": (live.Ledger, "settle", _tell_at_once),
    "an answer goes out when it is made": (ends.Ends, "_confirm", _confirm_at_once),
    "fdatasync is left out": (tail.Tail, "_sync", lambda self: None),
    "recovery does not write the end anew": (recovery, "_rewrite", lambda path, found: None),
    "a call that goes on makes another child": (
        child_calls.ChildCalls,
        "_child_id",
        lambda self, run, call: self._executions.new_id(),
    ),
    "any task is repeated": (takeover.Takeover, "_take_up_task", _repeat_any_task),
    "what was recorded together is taken apart": (segments, "goes_with_next", lambda line: False),
    "who depends on one that is cancelled goes on": (influence.Influence, "carry_out_cancel", _leave_dependents),
    "one that runs is let in again": (dispatcher.Dispatcher, "_admit_flows", _admit_whoever_comes),
    "who begins anew keeps its locks": (influence.Influence, "give_back", lambda self, subject: None),
}


@contextlib.contextmanager
def present(name: str) -> Iterator[None]:
    """Have a defect for a while."""
    owner, attribute, instead = MUTANTS[name]
    with mock.patch.object(owner, attribute, instead):
        yield
