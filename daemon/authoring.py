"""The HTTP API that changes flows: each change is a commit in the repository they come from.

Owns: guarding a change against an older view (``If-Match`` with the flow's ``ETag``), and waiting a moment for the
catalogue, so that who changed a flow sees at once what became of it. Where flows are written is ``sync``'s business.
Called by ``app`` for the route table.
"""

from __future__ import annotations

import asyncio
import datetime
import re

import msgspec
from aiohttp import web

from ..engine import errors, model, ports
from ..sync import sources
from . import answers, api, operations, preconditions, routes, shapes
from .reach import Reach

#: How long an answer waits for the catalogue to have the change.
PUBLICATION_S = 5.0
BODY_BYTES_MAX = 16 * 1024 * 1024
#: An ETag as ``api.flow_tag`` makes it.
_TAG = re.compile(r'"([0-9a-f]{40,64})(?:-[0-9a-f]{12})?"')
#: What a flow that nobody wrote yet looks like.
TEMPLATE = """import flow_api


def handler(system: flow_api.System, this: flow_api.Execution, inputs: dict):
    # TODO: write your automation
    return this.success('all done')
"""


class NewFlow(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The body of ``POST /flows``; what is not given has a default."""

    name: str = ""
    script: str = TEMPLATE
    message: str = ""


class Script(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The body of ``PUT /flows/{name}``: the new text, and what the commit says."""

    script: str
    message: str = ""


class Renaming(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The body of ``PATCH /flows/{name}``."""

    name: str
    message: str = ""


class Authoring:
    """The handlers, the catalogue and who writes to the repository."""

    def __init__(self, flows: ports.Flows, origin: sources.Sources) -> None:
        self._flows = flows
        self._origin = origin
        self._repository: ports.Authoring = origin.authoring

    def table(self) -> list[routes.Route]:
        """Return the routes."""
        route, flow = routes.Route, "/api/v1/flows/{name}"
        return [
            route(
                *("POST", "/api/v1/flows", "edit", self.create, "make a flow"),
                tells=operations.Operation(takes=NewFlow, gives=shapes.Committed, statuses=(201, 202)),
            ),
            route(
                *("PUT", flow, "edit", self.save, "change the script of a flow, or make it"),
                touches=Reach.FLOW,
                tells=operations.Operation(
                    takes=Script, gives=shapes.Committed, statuses=(200, 201, 202), headers=(operations.IF_MATCH,)
                ),
            ),
            route(
                *("PATCH", flow, "edit", self.rename, "give a flow another name"),
                tells=operations.Operation(
                    takes=Renaming, gives=shapes.Committed, statuses=(200, 202), headers=(operations.IF_MATCH,)
                ),
            ),
            route(
                *("DELETE", flow, "edit", self.delete, "delete a flow"),
                touches=Reach.FLOW,
                tells=operations.Operation(statuses=(204,), headers=(operations.IF_MATCH,)),
            ),
        ]

    async def create(self, request: web.Request) -> web.Response:
        """Make a flow; one that is there already is a conflict."""
        asked = answers.decoded(await answers.json_of(request, BODY_BYTES_MAX), NewFlow)
        name = asked.name or f"new flow {datetime.datetime.now(datetime.UTC):%Y-%m-%dT%H:%M:%SZ}"
        if self._known(name) is not None:
            raise errors.Conflict(f"there is a flow {name!r} already", hint="PUT changes it")
        return await self._saved(request, name, asked.script, asked.message, status=201)

    async def save(self, request: web.Request) -> web.Response:
        """Make the script what the flow is; commits even a script that does not run, which marks the flow broken."""
        asked = answers.decoded(await answers.json_of(request, BODY_BYTES_MAX), Script)
        name = request.match_info["name"]
        known = await self._guarded(request, name)
        return await self._saved(
            request, known.name if known else name, asked.script, asked.message, status=200 if known else 201
        )

    async def restore(self, request: web.Request, name: str, script: str, message: str) -> web.Response:
        """Make a former text of ``name`` what the flow is; guarded as ``save`` is."""
        known = await self._guarded(request, name)
        return await self._saved(request, known.name if known else name, script, message, status=200 if known else 201)

    async def rename(self, request: web.Request) -> web.Response:
        """Move its file; the flow keeps its id."""
        asked = answers.decoded(await answers.json_of(request, BODY_BYTES_MAX), Renaming)
        flow = await self._guarded(request, self._flows.find(request.match_info["name"]).name)
        assert flow is not None
        who = request[routes.PRINCIPAL].name
        await self._repository.rename_flow(flow.name, asked.name, author=who, message=asked.message)
        return await self._published(request, asked.name, 200)

    async def delete(self, request: web.Request) -> web.Response:
        """Remove its file."""
        flow = await self._guarded(request, self._flows.find(request.match_info["name"]).name)
        assert flow is not None
        message = request.query.get("message", "")
        await self._repository.delete_flow(flow.name, author=request[routes.PRINCIPAL].name, message=message)
        await self._repository.published(PUBLICATION_S)
        return web.Response(status=204)

    async def _saved(self, request: web.Request, name: str, script: str, message: str, *, status: int) -> web.Response:
        await self._repository.save_flow(name, script, author=request[routes.PRINCIPAL].name, message=message)
        return await self._published(request, name, status)

    async def _published(self, request: web.Request, name: str, status: int) -> web.Response:
        """Answer with the flow as the catalogue has it now; 202 if it has not got it yet."""
        is_there = await self._repository.published(PUBLICATION_S)
        flow = self._known(name)
        if not is_there or flow is None:
            return answers.json_answer({"name": name, "published": False}, status=202)
        answers.note_change(request, after=api.flow_tag(flow))
        headers = {"ETag": api.flow_tag(flow), "Location": api.flow_address(flow)}
        return answers.json_answer(api.flow_view(flow), status=status, headers=headers)

    async def _since(self, flow: model.Flow, seen: str) -> str:
        """Return what became of a flow since it had the ETag ``seen``; nothing where that cannot be said."""
        blob = _TAG.fullmatch(seen.strip())
        if blob is None:
            return ""
        try:
            at = self._origin.place(flow.name)
            return await asyncio.to_thread(at.versions.since, at.path, blob[1], at.tip)
        except errors.HeadraceError:  # the refusal is what matters
            return ""

    def _known(self, name: str) -> model.Flow | None:
        try:
            return self._flows.find(name)
        except errors.NotFound:
            return None

    async def _guarded(self, request: web.Request, name: str) -> model.Flow | None:
        """Return the flow if there is one; raises ``PreconditionFailed`` if it is not what the sender says it is."""
        flow = self._known(name)
        tag = "" if flow is None else api.flow_tag(flow)
        try:
            preconditions.check(request.headers, tag, f"flow {name!r}")
        except preconditions.PreconditionFailed as failed:
            if flow is not None:
                failed.diff = await self._since(flow, request.headers.get("If-Match", ""))
            raise
        answers.note_change(request, before=tag)
        return flow
