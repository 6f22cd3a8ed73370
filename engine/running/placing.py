"""Executions that run on a cluster: they wait, as they are, until a node has come for each; then they are supervised.

Which ones, the terms of an execution decide. Those that are placed hold a slot of their own kind, so a cluster that is
full or away holds up nothing that runs on this machine. Here nothing is recorded: an execution without a place is
queued, or rests, like any other, and a daemon that starts again asks for its place again.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
from collections import deque
from collections.abc import Coroutine
from typing import Protocol

from .. import policy
from ..lifecycle import Status
from ..workers import cluster
from . import admission, flow_run, live, resting, slots

#: An execution that has no place after so long says why.
_SAYS_WHY_S = 1.0


class Executions(Protocol):
    """What this needs of the dispatcher."""

    resting: resting.Resting

    def supervise(self, subject: live.Live, run: flow_run.FlowRun, room: slots.Slots) -> None:
        """Run an execution that has a slot."""

    def spawn(self, work: Coroutine[None, None, None], name: str) -> asyncio.Task[None]:
        """Run ``work`` as an asyncio.Task of the daemon."""


@dataclasses.dataclass(frozen=True, slots=True)
class Options:
    """Which executions run on the cluster, and how many at a time."""

    every_flow: bool = True
    max_running: int = 1000


#: As good as any where there is no cluster.
EVERYTHING = Options()


class Placing:
    """All executions that run there and have no process yet."""

    def __init__(
        self, where: cluster.Cluster, options: Options, around: flow_run.Surroundings, executions: Executions
    ) -> None:
        self._cluster = where
        self._options = options
        self._executions = executions
        self._slots = slots.Slots(options.max_running, self._admit)
        self._around = dataclasses.replace(around, slots=self._slots, waiting={}, waiting_max=options.max_running)
        self._woken: deque[live.Live] = deque()
        self._queue = admission.Line()
        self._places: dict[str, tuple[live.Live, cluster.Place]] = {}
        self._stopping = False

    def start(self) -> None:
        """Begin to look after those that wait."""
        self._executions.spawn(self._look_after(), "executions without a place")

    def stop(self) -> None:
        """Ask for no more places."""
        self._stopping = True
        for _, place in list(self._places.values()):
            place.cancel()

    def concerns(self, terms: policy.Terms) -> bool:
        """Whether an execution on these terms runs on the cluster."""
        wants = terms.placement
        return wants.worker != policy.LOCAL and (self._options.every_flow or wants != policy.ANYWHERE)

    def admit(self, subject: live.Live, *, woken: bool) -> None:
        """Let it run when there is a place; one that is ``woken`` comes before those that have not begun."""
        (self._woken if woken else self._queue).append(subject)
        self._admit()

    def _admit(self) -> None:
        while (self._woken or self._queue) and self._slots.free and not self._stopping:
            subject = self._woken.popleft() if self._woken else self._queue.popleft()
            if self._may_begin(subject) and subject.state.id not in self._places:
                self._slots.enter(subject.state.id)
                place = self._cluster.place(subject.state.id, subject.state.terms.placement)
                self._places[subject.state.id] = subject, place
                self._executions.spawn(self._await(subject, place), f"place of {subject.state.id}")

    @staticmethod
    def _may_begin(subject: live.Live) -> bool:
        return subject.supervision is None and subject.state.status in (Status.QUEUED, Status.WAITING)

    async def _await(self, subject: live.Live, place: cluster.Place) -> None:
        """Supervise an execution from the moment it has its place."""
        give_up: live.Watcher = lambda _: place.cancel()  # noqa: E731 - it is to be found again below
        subject.watchers.append(give_up)
        taken = False
        try:
            await asyncio.wait({place.taken})
            taken = not place.taken.cancelled() and self._may_begin(subject) and not self._stopping
        finally:
            with contextlib.suppress(ValueError):  # those of one that has ended are gone
                subject.watchers.remove(give_up)
            del self._places[subject.state.id]
            subject.state.hold = ""
            if not taken:
                place.cancel()
                self._slots.leave(subject.state.id)
        if taken:
            self._executions.resting.get_up(subject)
            run = flow_run.FlowRun(subject, self._around, place)
            self._executions.supervise(subject, run, self._slots)

    async def _look_after(self) -> None:
        """Say why executions have no place, and let those that only wait make room for them."""
        while not self._stopping:
            await asyncio.sleep(_SAYS_WHY_S)
            now = self._cluster.clock.monotonic()
            late = [both for both in self._places.values() if now - both[1].asked_at > _SAYS_WHY_S]
            for subject, place in late:
                subject.state.hold = self._cluster.why(place)
            for run in list(self._around.waiting)[: len(late)]:
                run.hibernate()
