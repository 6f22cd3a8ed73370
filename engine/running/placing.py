"""Executions that run on a cluster: they wait, as they are, until a node has come for each; then they are supervised.

Which ones, the terms of an execution decide. Those that are placed hold a slot of their own kind, so a cluster that is
full or away holds up nothing that runs on this machine. Here nothing is recorded: an execution without a place is
queued, or rests, like any other, and a daemon that starts again asks for its place again.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from collections.abc import Coroutine
from typing import Protocol

import msgspec

from .. import model, policy
from ..lifecycle import Status
from ..workers import cluster
from . import admission, flow_run, live, maintaining, resting, slots

#: An execution that has no place after so long says why.
_SAYS_WHY_S = 1.0


class Executions(Protocol):
    """What this needs of the dispatcher."""

    resting: resting.Resting
    maintaining: maintaining.Maintaining

    def supervise(self, subject: live.Live, run: flow_run.FlowRun, room: slots.Slots) -> None:
        """Run an execution that has a slot."""

    def spawn(self, work: Coroutine[None, None, None], name: str) -> asyncio.Task[None]:
        """Run ``work`` as an asyncio.Task of the daemon."""


class Options(msgspec.Struct, frozen=True):
    """Which executions run on the cluster, and how many at a time."""

    every_flow: bool = True
    max_running: int = 1000


#: As good as any where there is no cluster.
EVERYTHING = Options()


class Placing:
    """All executions that run there and have no process yet."""

    def __init__(
        self, where: cluster.Cluster | None, options: Options, around: flow_run.Surroundings, executions: Executions
    ) -> None:
        self._cluster = where  # without one nothing runs there
        self._options = options
        self._executions = executions
        self._slots = slots.Slots(options.max_running, self._admit)
        self._around = msgspec.structs.replace(around, slots=self._slots, waiting={}, waiting_max=options.max_running)
        self._woken: deque[live.Live] = deque()
        self._queue = admission.Line()
        self._places: dict[str, tuple[live.Live, cluster.Place]] = {}
        self._stopping = False

    def start(self) -> None:
        """Begin to look after those that wait."""
        if self._cluster is not None:
            self._executions.spawn(self._make_room(self._cluster), "executions without a place")

    def stop(self) -> None:
        """Ask for no more places."""
        self._stopping = True
        for _, place in list(self._places.values()):
            place.cancel()

    def adjust(self, *, cancel_grace_s: float, hibernate_after_s: float) -> None:
        """Run executions so from now on."""
        self._around.cancel_grace_s, self._around.hibernate_after_s = cancel_grace_s, hibernate_after_s

    def takes(self, subject: live.Live, *, woken: bool) -> bool:
        """Whether an execution runs on the cluster: then it does when there is a place. One that is ``woken`` comes
        before those that have not begun."""
        wants = subject.state.terms.placement
        if self._cluster is None or wants.worker == policy.LOCAL:
            return False
        if not self._options.every_flow and wants == policy.ANYWHERE:
            return False
        (self._woken if woken else self._queue).append(subject)
        self._admit()
        return True

    def why(self, state: model.Execution) -> str:
        """Return in words why an execution has no place yet; empty if it has one, or asked for it a moment ago."""
        _, place = self._places.get(state.id, (None, None))
        if self._cluster is None or place is None or not self._is_late(self._cluster, place):
            return ""
        return self._cluster.why(place)

    @staticmethod
    def _is_late(where: cluster.Cluster, place: cluster.Place) -> bool:
        return where.clock.monotonic() - place.asked_at > _SAYS_WHY_S

    def _admit(self) -> None:
        while (self._woken or self._queue) and self._slots.has_room() and not self._stopping:
            subject = self._woken.popleft() if self._woken else self._queue.popleft()
            held = self._executions.maintaining.holds(subject)
            if not held and self._may_begin(subject) and subject.state.id not in self._places:
                assert self._cluster is not None
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
            if not taken:
                place.cancel()
                self._slots.leave(subject.state.id)
        if taken:
            self._executions.resting.get_up(subject)
            run = flow_run.FlowRun(subject, self._around, place)
            self._executions.supervise(subject, run, self._slots)

    async def _make_room(self, where: cluster.Cluster) -> None:
        """Let those that only wait make room for those that have no place."""
        while not self._stopping:
            await asyncio.sleep(_SAYS_WHY_S)
            late = sum(self._is_late(where, place) for _, place in self._places.values())
            self._around.is_crowded = late > 0
            for run in list(self._around.waiting)[:late]:
                run.hibernate()
