"""Did it start, did it finish in time: what a schedule expects of the executions of its ticks.

What does not come about is recorded once (``schedule.late``), and the flow's ``on_failure`` is told together with that.
What is expected of unfinished executions is found again after a restart. For ``schedules`` alone.
"""

from __future__ import annotations

import heapq
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, Protocol

import structlog

from .. import cron, errors, model, moments, policy, ports, scheduled
from ..state import ticks
from . import live

log = structlog.get_logger()

#: Tells whoever is to be told of a flow; what they get, and what it is about.
Tell = Callable[[model.Flow, dict[str, Any], str], None]


class Entry(Protocol):
    """A schedule that is ready."""

    @property
    def said(self) -> policy.Schedule:
        """What was said of it."""

    @property
    def cron(self) -> cron.Cron:
        """When it is due."""


class Expectations:
    """All that is expected; one heap."""

    def __init__(
        self,
        ledger: live.Ledger,
        state: ticks.Ticks,
        flows: ports.Flows,
        load: Callable[[str], Awaitable[model.Execution]],
        tell: Tell,
        clock: ports.Clock,
    ) -> None:
        self._ledger = ledger
        self._ticks = state
        self._flows = flows
        self._load = load
        self._tell = tell
        self._clock = clock
        #: When to look; the schedule; the execution; its tick; whether it should have finished by then, else started.
        self._heap: list[tuple[float, str, str, float, bool]] = []
        self._resumed = False

    @property
    def next(self) -> float | None:
        """When to look again."""
        return self._heap[0][0] if self._heap else None

    def begun(self, entry: Entry, tick: float, execution: str) -> None:
        """Expect of the ``execution`` of a tick what its schedule says."""
        for within_s, finish in ((entry.said.start_within_s, False), (entry.said.finish_within_s, True)):
            if within_s is not None:
                heapq.heappush(self._heap, (tick + within_s, entry.said.key, execution, tick, finish))

    def missed(self, entry: Entry, passed: Sequence[float], now: float) -> None:
        """These ticks have no execution: the latest of them did not start in time, if that is expected."""
        within_s = entry.said.start_within_s
        late = [tick for tick in passed if within_s is not None and now - tick > within_s]
        if late:
            self._late(entry.said, late[-1], "", finish=False)

    async def look(self, entries: Mapping[str, Entry]) -> None:
        """See which expectations were not met by now."""
        self._resume(entries)
        while self._heap and self._heap[0][0] <= self._clock.time():
            _, key, execution, tick, finish = heapq.heappop(self._heap)
            if key not in entries:
                continue
            try:
                state = await self._load(execution)
            except errors.HeadraceError:  # forgotten: it has ended
                continue
            if (not state.status.ended) if finish else state.started_at is None:
                self._late(entries[key].said, tick, execution, finish=finish)

    def _resume(self, entries: Mapping[str, Entry]) -> None:
        """Expect of what an earlier daemon left unfinished what it expected."""
        if self._resumed:
            return
        self._resumed = True
        for subject in self._ledger:
            said = subject.state.terms
            if said.schedule in entries and not said.retry:
                self.begun(entries[said.schedule], ticks.seconds(said.due), subject.state.id)

    def _late(self, said: policy.Schedule, tick: float, execution: str, *, finish: bool) -> None:
        due = moments.timestamp(tick)
        position = self._ticks.positions.get(said.key)
        if position is None or (due, finish) in position.lates:
            return
        within_s = (said.finish_within_s if finish else said.start_within_s) or 0.0
        event = scheduled.ScheduleLate(
            schedule=said.key,
            due=due,
            name=said.name,
            flow=said.flow,
            execution=execution,
            finish=finish,
            within_s=within_s,
        )
        with self._ledger.journal.together():
            self._ledger.journal.append(event)
            self._ticks.apply(event)
            self._tell_of(event)

    def _tell_of(self, late: scheduled.ScheduleLate) -> None:
        what = "finish" if late.finish else "start"
        log.warning("schedule.late", schedule=late.name, due=late.due, execution=late.execution or None, what=what)
        try:
            flow = self._flows.find(late.flow)
        except errors.NotFound:
            return
        inputs: dict[str, Any] = {
            "execution_id": late.execution,
            "name": flow.name,
            "flow": flow.name,
            "status": "LATE",
            "reason": f"late {what}",
            "message": f"schedule {late.name!r}, due {late.due}, did not {what} within {late.within_s:g} s",
            "schedule": late.schedule,
            "due": late.due,
            "tags": list(flow.metadata.policies.tags),
        }
        self._tell(flow, inputs, late.execution or late.schedule)
