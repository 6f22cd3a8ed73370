"""Where flow processes run: GET /api/v1/workers and the page GET /workers. This machine first, then the nodes of the
cluster, if there is one, as they were a moment ago; with what runs there now, as far as that is the reader's business.
"""

from __future__ import annotations

import platform
from collections.abc import Iterator

from aiohttp import web

from ..engine.running import dispatcher, flow_run
from ..engine.workers import cluster
from . import answers, operations, principals, routes, shapes, templates
from .reach import Reach


class Workers:
    """The handlers; who runs what, and where else."""

    def __init__(self, work: dispatcher.Dispatcher, remote: cluster.Cluster | None) -> None:
        self._work = work
        self._remote = remote

    def table(self) -> list[routes.Route]:
        """Return the routes."""
        tells = operations.Operation(gives=shapes.Workers)
        summary = "the machines that flow processes run on, and what runs there"
        return [
            routes.Route("GET", "/api/v1/workers", "read", self.show, summary, Reach.FILTERED, tells),
            routes.Route(
                "GET", "/workers", "read", self.page, "the page of workers", touches=Reach.FILTERED, page=True
            ),
        ]

    async def show(self, request: web.Request) -> web.Response:
        """All of them."""
        return answers.json_answer(self._told(request[routes.PRINCIPAL]))

    async def page(self, request: web.Request) -> web.Response:
        """The same for people."""
        return templates.page(request, "workers.html", live="/live", workers=self._told(request[routes.PRINCIPAL]))

    def _told(self, who: principals.Principal) -> shapes.Workers:
        here = shapes.Worker(
            id="local", host=platform.node(), alive=True, resources={"running": float(self._work.max_running)}
        )
        machines = {here.id: here}
        places: dict[str, str] = {}
        cluster_told: shapes.Cluster | None = None
        if self._remote is not None:
            address = self._remote.options.address
            cluster_told = shapes.Cluster(address=address, reason=self._remote.reason, waiting=self._remote.waiting)
            places = dict(self._remote.running)
            for one in self._remote.nodes:
                machines[one.id] = shapes.Worker(
                    id=one.id, host=one.host, alive=one.alive, resources=one.resources, labels=one.labels
                )
        for execution, name in self._running(who):
            machine = machines.get(places.get(execution, "local"))
            if machine is not None:
                machine.running.append(shapes.Running(execution_id=execution, flow_name=name))
        listed = sorted(machines.values(), key=lambda one: (one is not here, not one.alive, one.host, one.id))
        return shapes.Workers(cluster=cluster_told, items=[one for one in listed if one.alive or one.running])

    def _running(self, who: principals.Principal) -> Iterator[tuple[str, str]]:
        for subject in self._work.ledger:
            state = subject.state
            if isinstance(subject.supervision, flow_run.FlowRun) and who.may_touch(state.flow_name):
                yield state.id, state.flow_name or state.name
