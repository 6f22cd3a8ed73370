"""Lanes: only so many executions of one kind at a time, and what becomes of those that find their lane full.

Who is inside is a set of live executions, made anew from them at every start, and left by whoever ends, however that
comes about; there is no count that could leak. The limit is asked of the flow as it is published now, whenever it
matters. Those that wait are queued executions like any others, so they are durable; each lane lets them in by itself,
in order, and holds up no other lane.

An execution below another one of its lane runs on that one's place: it would wait for ever.
"""

from __future__ import annotations

from collections import deque
from typing import Protocol

from .. import errors, model, policy, ports
from ..lifecycle import Status
from . import live, terms


class LaneFull(errors.NotAccepting):
    """As many executions run as may at a time."""

    http_status = 429


class Cancelling(Protocol):
    """What this needs of ``influence``."""

    def request_cancel(self, execution: str, by: str) -> None:
        """Ask a live execution to end."""


class Executions(Protocol):
    """What this needs of the dispatcher."""

    def admit(self, subject: live.Live) -> None:
        """Let it run when there is room."""

    def end(self, subject: live.Live, status: Status, message: str, reason: str) -> None:
        """End one that has not begun."""

    @property
    def influence(self) -> Cancelling:
        """What may be done to others."""


class _Lane:
    __slots__ = ("coming", "guests", "inside", "waiting")

    def __init__(self) -> None:
        self.inside: dict[str, live.Live] = {}  # in the order they came in
        self.guests: dict[str, live.Live] = {}  # below one that is inside
        self.waiting: deque[live.Live] = deque()
        self.coming: set[str] = set()  # promised a place, not here yet

    @property
    def is_empty(self) -> bool:
        return not (self.inside or self.guests or self.waiting or self.coming)


class Lanes:
    """All of them; an execution without a lane passes through."""

    def __init__(self, ledger: live.Ledger, flows: ports.Flows, executions: Executions) -> None:
        self._ledger = ledger
        self._flows = flows
        self._executions = executions
        self._lanes: dict[str, _Lane] = {}
        self._waiting: set[str] = set()

    @property
    def waiting(self) -> int:
        """How many wait for a place."""
        return len(self._waiting)

    def holds(self, subject: live.Live) -> bool:
        """Return whether it is inside its lane, or needs none."""
        lane = self._lanes.get(subject.state.terms.lane)
        return not subject.state.terms.lane or (
            lane is not None and (subject.state.id in lane.inside or subject.state.id in lane.guests)
        )

    # -- coming -----------------------------------------------------------------------------------------------------

    def promise(self, event_id: str, said: policy.Terms, flow: model.Flow) -> None:
        """Keep a place for an execution that is about to be created; raises ``LaneFull`` if its lane refuses more."""
        if said.when_full != "reject":
            return
        lane = self._lanes.setdefault(said.lane, _Lane())
        limit = self._limit(said.lane, flow.id, flow.name)
        if limit is not None and len(lane.inside) + len(lane.coming) + len(lane.waiting) >= limit:
            raise LaneFull(
                f"{limit} of flow {flow.name!r} {'runs' if limit == 1 else 'run'} already",
                hint="ask again when it has ended; `concurrency` in its metadata says how many may run",
            )
        lane.coming.add(event_id)

    def forget(self, event_id: str, said: policy.Terms) -> None:
        """It arrives now, or was not created after all."""
        lane = self._lanes.get(said.lane)
        if lane is not None:
            lane.coming.discard(event_id)
            self._let_in(said.lane, lane)

    def take_up(self, subject: live.Live) -> None:
        """It was inside when an earlier daemon left it."""
        if subject.state.terms.lane and subject.state.attempt and not subject.state.status.ended:
            self._seat(self._lanes.setdefault(subject.state.terms.lane, _Lane()), subject)

    def arrive(self, subject: live.Live) -> None:
        """Let it run if there is a place; else it waits, or what its terms say happens."""
        state = subject.state
        if state.status.ended:
            return
        if not state.terms.lane or self.holds(subject):
            self._executions.admit(subject)
            return
        lane = self._lanes.setdefault(state.terms.lane, _Lane())
        limit = self._limit(state.terms.lane, state.flow_id, state.flow_name)
        if limit is None or self._is_guest(lane, state) or (not lane.waiting and len(lane.inside) < limit):
            self._enter(lane, subject)
        elif state.terms.when_full == "skip":
            running = next(iter(lane.inside), "one that waits")
            text = f"skipped: {limit} of its kind {'runs' if limit == 1 else 'run'} already ({running})"
            self._executions.end(subject, Status.ENDED_CANCELLED, text, "skipped")
        else:
            lane.waiting.append(subject)
            self._waiting.add(state.id)
            subject.watchers.append(self._gave_up)
            if state.terms.when_full == "replace":
                self._replace(lane, subject, limit)

    def _replace(self, lane: _Lane, subject: live.Live, limit: int) -> None:
        """Make room for the newest: what waits before it gives way, and as many of those inside as are too many."""
        before = [other for other in lane.waiting if other is not subject]
        staying = [one for one in lane.inside.values() if not one.state.cancel_requested]
        for other in (*before, *staying[: max(0, len(staying) - limit + 1)]):
            self._executions.influence.request_cancel(other.state.id, subject.state.id)

    # -- inside -----------------------------------------------------------------------------------------------------

    def _enter(self, lane: _Lane, subject: live.Live) -> None:
        self._seat(lane, subject)
        self._executions.admit(subject)

    def _seat(self, lane: _Lane, subject: live.Live) -> None:
        seats = lane.guests if self._is_guest(lane, subject.state) else lane.inside
        seats[subject.state.id] = subject
        subject.watchers.append(self._left)

    def _is_guest(self, lane: _Lane, state: model.Execution) -> bool:
        parent = state.parent
        while parent:
            if parent in lane.inside:
                return True
            above = self._ledger.find(parent)
            parent = above.state.parent if above is not None else ""
        return False

    def _left(self, state: model.Execution) -> None:
        """It has ended: its place is free."""
        lane = self._lanes[state.terms.lane]
        lane.inside.pop(state.id, None)
        lane.guests.pop(state.id, None)
        self._let_in(state.terms.lane, lane)

    def _gave_up(self, state: model.Execution) -> None:
        """It has ended while it waited, or went in before. Its place in line is passed over when it comes up."""
        if state.id in self._waiting:
            self._waiting.discard(state.id)
            self._let_in(state.terms.lane, self._lanes[state.terms.lane])

    def reconsider(self) -> None:
        """Limits may have changed: let those in that may go in now. Nobody inside has to leave."""
        for name, lane in list(self._lanes.items()):
            self._let_in(name, lane)

    def _let_in(self, name: str, lane: _Lane) -> None:
        while lane.waiting:
            state = lane.waiting[0].state
            if state.status.ended:
                lane.waiting.popleft()
                continue
            limit = self._limit(name, state.flow_id, state.flow_name)
            if limit is not None and len(lane.inside) + len(lane.coming) >= limit:
                break
            subject = lane.waiting.popleft()
            self._waiting.discard(state.id)
            self._enter(lane, subject)
        self._tidy(name, lane)

    def _tidy(self, name: str, lane: _Lane) -> None:
        if lane.is_empty:
            self._lanes.pop(name, None)

    def _limit(self, lane: str, flow_id: str, flow_name: str) -> int | None:
        """Return how many may be inside as the flow is published now; None for any number."""
        if lane.startswith(terms.SCHEDULE_LANE):
            return 1
        flows = self._flows.current().flows
        flow = flows.get(flow_name)
        if flow is None or flow.id != flow_id:
            flow = next((one for one in flows.values() if one.id == flow_id), None)
        said = flow.metadata.policies.concurrency if flow is not None else None
        return said.limit if said is not None else None
