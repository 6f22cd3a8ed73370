"""The HTTP API of schedules: every one there is, of flows and of records, and when each is due next.

What a stored schedule holds is read and written under ``/schedules``; this tells what comes of it. Called by ``app``
for the route table.
"""

from __future__ import annotations

from typing import Any

from aiohttp import web

from ..engine import errors
from ..engine.running import schedules
from . import operations, paging, routes, shapes
from .reach import Reach

_TICKS_MAX = 100
_COUNT = operations.Parameter(
    "count", {"type": "integer", "minimum": 1, "maximum": _TICKS_MAX}, "how many of the next ticks; 5 unless said"
)


class Timetable:
    """The handler, and who knows."""

    def __init__(self, known: schedules.Schedules) -> None:
        self._known = known

    def table(self) -> list[routes.Route]:
        """Return the routes."""
        tells = operations.Operation(gives=shapes.Page[shapes.Scheduled], query=(_COUNT, *paging.PARAMETERS))
        summary = "every schedule, of flows and records, and when it is due next"
        return [routes.Route("GET", "/api/v1/timetable", "read", self.show, summary, Reach.FILTERED, tells)]

    async def show(self, request: web.Request) -> web.Response:
        """A page of all schedules, as far as their flows are the sender's."""
        count = request.query.get("count", "5")
        if not count.isascii() or not count.isdecimal() or not 1 <= int(count) <= _TICKS_MAX:
            raise errors.InvalidRequest(f"count={count[:100]} is not a number from 1 to {_TICKS_MAX}")
        who = request[routes.PRINCIPAL]
        found = await self._known.timetable(int(count))
        theirs = [one for one in found if who.may_touch(one["flow_name"])]

        async def shown(one: dict[str, Any]) -> dict[str, Any]:
            return one

        return await paging.answer(request, theirs, lambda one: (one["flow_name"], one["name"], one["id"]), shown)
