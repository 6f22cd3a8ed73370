"""Whether the daemon lives, whether it can take work, and its figures: for load balancers, supervisors, Prometheus.

    GET /healthz   the process answers; depends on nothing else
    GET /readyz    it can take work, or the reasons why not; 503 then
    GET /metrics   figures

Called by ``app`` for the route table.
"""

from __future__ import annotations

import datetime
import os
from collections.abc import Callable
from pathlib import Path

from aiohttp import web

from .. import __version__
from ..engine import ports
from ..engine.records import index
from ..engine.running import dispatcher
from ..sync import sources
from . import access, answers, metrics, routes, shapes
from .operations import Operation
from .reach import Reach


class Health:
    """The handlers, and whom they ask."""

    def __init__(
        self,
        state: Path,
        work: dispatcher.Dispatcher,
        archive: index.Index,
        flows: ports.Flows,
        synchroniser: sources.Sources,
        figures: metrics.Metrics,
        notices: Callable[[], list[str]],
    ) -> None:
        self._state = state
        self._work = work
        self._archive = archive
        self._flows = flows
        self._synchroniser = synchroniser
        self._figures = figures
        self._notices = notices

    def table(self) -> list[routes.Route]:
        """Return the routes."""
        alive, ready = Operation(gives=shapes.Health), Operation(gives=shapes.Readiness, statuses=(200, 503))
        figures, free = Operation(gives="text/plain"), Reach.GENERAL
        rows: list[tuple[str, str, str, routes.Handler, str, Reach, Operation]] = [
            ("GET", "/healthz", access.PUBLIC, self.healthz, "whether the process is alive", free, alive),
            ("GET", "/readyz", access.PUBLIC, self.readyz, "whether it can take work, why not", free, ready),
            ("GET", "/metrics", "read", self.show_metrics, "figures for Prometheus", Reach.EVERYTHING, figures),
        ]
        # whoever looks after the daemon asks it by an address
        return [routes.Route(*row, named=False) for row in rows]

    def watch(self) -> None:
        """Have everything that is so now among the figures."""
        say = self._figures.gauge
        say("headrace_ready", "1 if it can take work", lambda: 0 if self.reasons() else 1)
        say("headrace_executions_unfinished", "executions that have not ended", lambda: self._work.unfinished)
        upkeep = self._work.maintaining
        say("headrace_maintenance", "1 while nothing new begins", lambda: int(bool(upkeep.state.since)))
        say("headrace_executions_held", "executions that wait for its end", lambda: upkeep.waiting)
        say("headrace_flows", "flows of the catalogue", lambda: len(self._flows.current().flows))
        say("headrace_flows_broken", "flows whose newest version does not run", self._broken)
        say("headrace_sync_degraded", "1 if the source cannot be read or was refused", self._degraded)
        say("headrace_sync_last_success_timestamp_seconds", "when the source was last read", self._synced_at_s)
        say("headrace_state_free_bytes", "room on the disk of the state directory", self._free_bytes)

    async def healthz(self, request: web.Request) -> web.Response:
        """The event loop turns; nothing else is asked."""
        return answers.json_answer({"status": "ok", "version": __version__})

    async def readyz(self, request: web.Request) -> web.Response:
        """Ready if there is no reason against it; ``notices`` is what somebody should see to all the same."""
        reasons = self.reasons()
        body = {"status": "not ready" if reasons else "ready", "reasons": reasons, "notices": self._notices()}
        return answers.json_answer(body, status=503 if reasons else 200)

    async def show_metrics(self, request: web.Request) -> web.Response:
        """All figures."""
        self._figures.executions(await self._archive.counts())
        return web.Response(body=self._figures.text(), headers={"Content-Type": metrics.CONTENT_TYPE})

    def reasons(self) -> list[str]:
        """Return why work cannot be taken now; empty if it can. The source's own troubles are none: see ``/sync``."""
        found = list(self._work.refusals)
        if not self._flows.current().commit:
            found.append("no commit is published yet")
        return found

    def _free_bytes(self) -> int:
        disk = os.statvfs(self._state)
        return disk.f_bavail * disk.f_frsize

    def _broken(self) -> int:
        return sum(flow.broken is not None for flow in self._flows.current().flows.values())

    def _degraded(self) -> int:
        return int(self._synchroniser.status().state == "degraded")

    def _synced_at_s(self) -> float:
        at = self._synchroniser.status().last_success_at
        return datetime.datetime.fromisoformat(at).timestamp() if at else 0.0
