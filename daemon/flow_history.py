"""The HTTP API of one flow and of what it was before: its versions, two of them compared, one of them brought back.

Owns: pages of versions that stay the same while commits come. Refuses: whatever is not in the history of what is
published. A flow that was deleted still has its history, under the name it had. Called by ``app`` for the route table.
"""

from __future__ import annotations

import asyncio

import msgspec
from aiohttp import web

from ..engine import errors, ports
from ..sync import sources, tree, versions
from . import answers, api, authoring, operations, paging, routes, shapes
from .reach import Reach

_COMMIT = operations.Parameter("commit", {"type": "string"}, "as it was in that commit")
_ENDS = (
    operations.Parameter("from", {"type": "string"}, "the commit to begin with"),
    operations.Parameter("to", {"type": "string"}, "the commit to end with; what is published unless said"),
)
_VERSIONS = 50


class Restoring(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The body of ``POST /flows/{name}/restore``: which version, and what the commit says."""

    commit: str
    message: str = ""


class FlowHistory:
    """The handlers, and what they need."""

    def __init__(self, flows: ports.Flows, repository: sources.Sources, writing: authoring.Authoring) -> None:
        self._flows = flows
        self._repository = repository
        self._writing = writing

    def table(self) -> list[routes.Route]:
        """Return the routes."""
        flow, listed = "/api/v1/flows/{name}", shapes.Page[versions.Version]
        return [
            routes.Route(
                *("GET", flow + "/history", "read", self.list_versions, "every version of a flow, newest first"),
                *(Reach.FLOW, operations.Operation(gives=listed, query=paging.PARAMETERS)),
            ),
            routes.Route(
                *("GET", flow, "read", self.show_flow, "one flow with its source, now or at a commit"),
                *(Reach.FLOW, operations.Operation(gives=shapes.FlowWithScript, query=(_COMMIT,))),
            ),
            routes.Route(
                *("GET", flow + "/diff", "read", self.show_diff, "what two versions of a flow differ in"),
                *(Reach.FLOW, operations.Operation(gives=shapes.FlowDiff, query=_ENDS)),
            ),
            routes.Route(
                *("POST", flow + "/restore", "edit", self.restore, "make a former version the newest one"),
                touches=Reach.FLOW,
                tells=operations.Operation(takes=Restoring, gives=shapes.Committed, statuses=(200, 201, 202)),
            ),
        ]

    async def list_versions(self, request: web.Request) -> web.Response:
        """A page of versions, from the commit that was published when the first page was made."""
        limit = paging.limit_of(request.query, _VERSIONS, paging.LIMIT_MAX)
        at = self.place(request.match_info["name"])
        tip, begin = at.tip, 0
        if given := paging.read_cursor(request.query, tuple[str, int]):
            tip = await asyncio.to_thread(at.versions.commit, given[0], tip)
            begin = max(0, given[1])
        most = min(begin + limit + 1, versions.VERSIONS_MAX)
        found = await asyncio.to_thread(at.versions.of, at.path, tip, most)
        if not found:
            raise errors.NotFound(f"there never was a flow {request.match_info['name']!r}")
        end = begin + limit
        cursor = paging.written_cursor((tip, end)) if len(found) > end else ""
        return paging.linked(request, [msgspec.to_builtins(one) for one in found[begin:end]], cursor)

    async def show_flow(self, request: web.Request) -> web.Response:
        """One flow, with the source of the version that runs, and of a newer one that does not; or a former source."""
        name = request.match_info["name"]
        if given := request.query.get("commit", ""):
            commit, script = await self.version(name, given)
            return answers.json_answer({"name": name, "commit": commit, "script": script})
        flow = self._flows.find(name)
        shown = api.flow_view(flow) | {"script": self._script(flow.commit, flow.path)}
        if flow.broken is not None:
            shown["newest_script"] = self._script(self._flows.current().commit_of(flow), flow.broken.file)
        return answers.json_answer(shown, headers={"ETag": api.flow_tag(flow)})

    async def show_diff(self, request: web.Request) -> web.Response:
        """A unified diff."""
        at = self.place(request.match_info["name"])
        old = await asyncio.to_thread(at.versions.commit, request.query.get("from", ""), at.tip)
        new = await asyncio.to_thread(at.versions.commit, request.query.get("to", "") or at.tip, at.tip)
        text = await asyncio.to_thread(at.versions.diff, at.path, old, new, at.tip)
        return answers.json_answer({"name": request.match_info["name"], "from": old, "to": new, "diff": text})

    async def restore(self, request: web.Request) -> web.Response:
        """Commit the text of a former version; a flow that was deleted is there again, with an id of its own."""
        name = request.match_info["name"]
        asked = answers.decoded(await answers.json_of(request, authoring.BODY_BYTES_MAX), Restoring)
        commit, script = await self.version(name, asked.commit)
        message = asked.message or f'Restore flow "{name}" as it was in {commit[:12]}'
        return await self._writing.restore(request, name, script, message)

    async def version(self, name: str, given: str) -> tuple[str, str]:
        """Return a commit of the published history, by its beginning, and the flow's text in it."""
        at = self.place(name)
        commit = await asyncio.to_thread(at.versions.commit, given, at.tip)
        return commit, await asyncio.to_thread(at.versions.text, at.path, commit, at.tip)

    def _script(self, commit: str, path: str) -> str:
        try:
            return (self._flows.snapshot(commit) / path).read_text("utf-8", "replace")
        except OSError:  # left out of the snapshot, or cleaned away this moment
            return ""

    def place(self, name: str) -> sources.Place:
        """Return where a flow lies, or where one that is gone must have lain; raises ``NotFound``."""
        at = self._repository.place(name)
        try:
            tree.check_path(at.path)
        except tree.TreeRefused as refused:
            raise errors.NotFound(f"no flow can be called {name[:200]!r}: {refused.message}") from None
        return at
