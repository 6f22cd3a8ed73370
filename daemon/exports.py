"""The route that gives an execution away whole: ``GET /api/v1/executions/{id}/export``."""

from __future__ import annotations

from aiohttp import web

from ..engine.running import extract
from . import operations, routes
from .reach import Reach


class Exports:
    """Serves exports."""

    def __init__(self, extracts: extract.Extracts) -> None:
        self._extracts = extracts

    def table(self) -> list[routes.Route]:
        """Return the route."""
        path = "/api/v1/executions/{id}/export"
        about = "all that a replay of it needs, as JSON lines"
        # Everything: it holds the sources of the whole commit, which are more than one flow.
        told = operations.Operation(gives=operations.LINES)
        return [routes.Route("GET", path, "read", self.export, about, Reach.EVERYTHING, told)]

    async def export(self, request: web.Request) -> web.StreamResponse:
        """Its record with what it refers to; the last line tells how many there are before it."""
        execution = request.match_info["id"]
        lines = self._extracts.of(execution)
        first = await anext(lines)  # refused before anything is sent, if it is
        response = web.StreamResponse(
            headers={
                "Content-Type": "application/x-ndjson",
                "Content-Disposition": f'attachment; filename="{execution}.jsonl"',
            }
        )
        await response.prepare(request)
        await response.write(first)
        async for line in lines:
            await response.write(line)
        await response.write_eof()
        return response
