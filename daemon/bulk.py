"""The HTTP API that does one thing to many executions: run them again, cancel them, or say that somebody saw them fail.

    POST /api/v1/executions/bulk               to those that are named, or to those that a filter finds
    POST /api/v1/executions/{id}/acknowledge   it failed, and somebody knows

A ``dry_run`` tells which ones it would be. Each is done for itself: one that cannot be has the reason beside it, and
the others are done all the same. Called by ``app`` for the route table.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import msgspec
import multidict
from aiohttp import web

from ..engine import errors, model, ports
from ..engine.records import index, listing
from ..engine.running import dispatcher, views
from . import answers, api, operations, reach, routes, runs, shapes
from .reach import Reach

#: So many at a time; whoever has more asks again.
EXECUTIONS_MAX = 1000
_BODY_BYTES_MAX = 1024 * 1024


class Filter(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Which executions; as the query of ``GET /executions``."""

    flow: str = ""
    tag: str = ""
    status: tuple[str, ...] = ()
    acknowledged: bool | None = None
    since: str = ""
    until: str = ""
    q: str = ""


class BulkRequest(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The body: what to do, and to which: ``executions`` by their ids, or those that ``filter`` finds."""

    action: Literal["rerun", "cancel", "acknowledge"]
    executions: tuple[str, ...] = ()
    filter: Filter | None = None
    inputs: dict[str, Any] = {}  # of reruns, instead of theirs
    version: Literal["latest", "same"] = "latest"
    dry_run: bool = False


class Bulk:
    """The handlers, who acts, and what is whose."""

    def __init__(
        self,
        work: dispatcher.Dispatcher,
        archive: index.Index,
        flows: ports.Flows,
        subjects: reach.Subjects,
        again: runs.Runs,
    ) -> None:
        self._flows = flows
        self._work = work
        self._archive = archive
        self._subjects = subjects
        self._runs = again

    def table(self) -> list[routes.Route]:
        """Return the routes."""
        many = operations.Operation(takes=BulkRequest, gives=shapes.Bulk)
        one = operations.Operation(gives=shapes.Execution)
        summary = "run again, cancel or acknowledge many"
        return [
            routes.Route("POST", "/api/v1/executions/bulk", "run", self.act, summary, Reach.FILTERED, many),
            routes.Route(
                *(
                    "POST",
                    "/api/v1/executions/{id}/acknowledge",
                    "run",
                    self.acknowledge,
                    "somebody saw that it failed",
                ),
                *(Reach.EXECUTION, one),
            ),
        ]

    async def acknowledge(self, request: web.Request) -> web.Response:
        """It failed, and somebody knows: it is not among those any more that somebody has to look at."""
        state = await self._work.acknowledge(request.match_info["id"], request[routes.PRINCIPAL].name)
        return answers.json_answer(await views.for_people(self._work.ledger, state))

    async def act(self, request: web.Request) -> web.Response:
        """Do it to each, or tell which ones it would be."""
        asked = answers.decoded(await answers.json_of(request, _BODY_BYTES_MAX), BulkRequest)
        if bool(asked.executions) == (asked.filter is not None):
            raise errors.InvalidRequest("give either `executions`, a list of ids, or a `filter`")
        if len(asked.executions) > EXECUTIONS_MAX:
            raise errors.InvalidRequest(
                f"these are {len(asked.executions):,} executions, the limit is {EXECUTIONS_MAX:,}"
            )
        more = False
        if asked.filter is not None:
            chosen, more = await self._found(request, asked)
        else:
            chosen = [await self._shown(request, execution) for execution in asked.executions]
        if not asked.dry_run:
            for one in chosen:
                await self._do(request, asked, one)
            await self._work.ledger.journal.durable()
        return answers.json_answer({"items": chosen, "more": more, "dry_run": asked.dry_run})

    async def _found(self, request: web.Request, asked: BulkRequest) -> tuple[list[dict[str, Any]], bool]:
        """Return those the filter finds that the action can be meant for, and whether there are more."""
        assert asked.filter is not None
        usual = _MEANT[asked.action]
        wanted: Sequence[str] = [one for one in asked.filter.status if one in usual] if asked.filter.status else usual
        if not wanted:
            return [], False
        query = self._query(asked.filter, wanted)
        found: list[dict[str, Any]] = []
        who = request[routes.PRINCIPAL]
        while True:
            page = await self._archive.query(msgspec.structs.replace(query, limit=listing.LIMIT_MAX))
            theirs = [item for item in page.items if await self._subjects.is_theirs(who, item.id)]
            found += [views.summary(item) for item in theirs if item.type != "TASK" and not item.parent]
            if not page.cursor or len(found) > EXECUTIONS_MAX:
                return found[:EXECUTIONS_MAX], len(found) > EXECUTIONS_MAX
            query = msgspec.structs.replace(query, cursor=page.cursor)

    def _query(self, said: Filter, status: Sequence[str]) -> listing.Query:
        given = multidict.MultiDict([("status", one) for one in status])
        for key in ("flow", "tag", "since", "until", "q"):
            given[key] = getattr(said, key)
        if said.acknowledged is not None:
            given["acknowledged"] = str(said.acknowledged).lower()
        return api.listing_query(given, self._flows.current())

    async def _shown(self, request: web.Request, execution: str) -> dict[str, Any]:
        try:
            if await self._subjects.is_theirs(request[routes.PRINCIPAL], execution):
                return views.summary(await self._work.load(execution))
        except errors.NotFound:
            pass
        return {"id": execution, "error": f"there is no execution {execution!r}"}

    async def _do(self, request: web.Request, asked: BulkRequest, one: dict[str, Any]) -> None:
        """Do it to one, and write beside it what came of that."""
        if "error" in one:
            return
        who = request[routes.PRINCIPAL].name
        try:
            match asked.action:
                case "cancel":
                    self._work.influence.cancel(one["id"], who)
                case "acknowledge":
                    await self._work.acknowledge(one["id"], who)
                case "rerun":
                    before: model.Execution = await self._work.load(one["id"])
                    given = runs.RerunRequest(
                        inputs=msgspec.Raw(msgspec.json.encode(asked.inputs)), version=asked.version
                    )
                    wanted = await self._runs.wanted_again(request, before, given)
                    accepted = await self._work.submit(msgspec.structs.replace(wanted, created_by=who))
                    one["rerun"] = accepted.execution
        except errors.JournalFailed:
            raise
        except errors.HeadraceError as error:
            one["error"] = error.message


_OPEN = ("NEW", "QUEUED", "RUNNING", "WAITING", "PAUSED")
_ENDED = ("ENDED_SUCCESS", "ENDED_ERROR", "ENDED_CANCELLED")
#: Executions of which statuses an action can be meant for.
_MEANT = {"cancel": _OPEN, "rerun": _ENDED, "acknowledge": ("ENDED_ERROR",)}
