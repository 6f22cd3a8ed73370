"""The HTTP API under ``/api/v1``: each handler parses, calls and renders. Names and shapes are what scripts rely on."""

from __future__ import annotations

import asyncio
import datetime
import urllib.parse
from collections.abc import Callable
from typing import Any

import msgspec
import multidict
from aiohttp import web

from ..engine import errors, events, lifecycle, model, moments, ports
from ..engine.records import index, listing
from ..engine.running import dispatcher, views
from ..sync import sources
from . import answers, operations, paging, reach, routes, shapes, stream, typings
from .operations import Operation
from .reach import Reach

#: What a listing may be asked for; see ``listing_query``.
_FILTERS = (
    operations.Parameter("flow", {"type": "string"}, "executions of the flow with that name"),
    operations.Parameter("status", {"enum": list(lifecycle.Status)}, "those with that status", several=True),
    operations.Parameter("type", {"enum": list(listing.TYPES)}, "those of that type"),
    operations.Parameter("parent", {"type": "string"}, "children of that execution; none: what no execution started"),
    operations.Parameter("since", {"type": "string", "format": "date-time"}, "those created from that time"),
    operations.Parameter("until", {"type": "string", "format": "date-time"}, "those created before that time"),
    operations.Parameter("q", {"type": "string"}, "those with that text in their name or message"),
    operations.Parameter("tag", {"type": "string"}, "those of flows that have that tag now"),
    operations.Parameter("acknowledged", {"type": "boolean"}, "those that failed and nobody acknowledged, or others"),
    operations.LIMIT,
    operations.CURSOR,
)

_TAG = operations.Parameter("tag", {"type": "string"}, "those that have that tag")


class Api:
    """The handlers, and what they need."""

    def __init__(
        self,
        work: dispatcher.Dispatcher,
        archive: index.Index,
        flows: ports.Flows,
        tasks: ports.Tasks,
        synchroniser: sources.Sources,
        hub: stream.Hub,
        subjects: reach.Subjects,
    ) -> None:
        self._work = work
        self._archive = archive
        self._flows = flows
        self._tasks = tasks
        self._synchroniser = synchroniser
        self._hub = hub
        self._subjects = subjects

    def table(self) -> list[routes.Route]:
        """Return the routes."""
        v1 = "/api/v1"
        return [
            *self._of_flows(v1),
            *self._of_executions(v1),
            *self._of_tasks_and_sync(v1),
        ]

    def _of_flows(self, v1: str) -> list[routes.Route]:
        route = routes.Route
        listed = Operation(gives=shapes.Page[shapes.Flow], query=(_TAG, *paging.PARAMETERS))
        return [
            route("GET", f"{v1}/flows", "read", self.list_flows, "the catalogue", Reach.FILTERED, listed),
        ]

    def _of_executions(self, v1: str) -> list[routes.Route]:
        one, its = v1 + "/executions/{id}", Reach.EXECUTION
        page = Operation(gives=shapes.Page[shapes.Summary], query=_FILTERS)
        seen = Operation(gives=shapes.Execution, query=(operations.WAIT,))
        log = Operation(gives=operations.LINES, also=(operations.STREAM,), headers=(operations.LAST_EVENT_ID,))
        record = Operation(
            gives=shapes.Items[shapes.JournalLine], also=(operations.STREAM,), headers=(operations.LAST_EVENT_ID,)
        )
        acted, gone = Operation(gives=shapes.Execution, statuses=(202,)), Operation(statuses=(204,))
        rows: list[tuple[str, str, str, routes.Handler, str, Reach, Operation]] = [
            ("GET", f"{v1}/executions", "read", self.list_executions, "newest first", Reach.FILTERED, page),
            ("GET", one, "read", self.show_execution, "one execution", its, seen),
            ("GET", one + "/log", "read", self.show_log, "its log, followed live as an event stream", its, log),
            ("GET", one + "/events", "read", self.show_events, "its record, followed live likewise", its, record),
            ("DELETE", one, "edit", self.delete_execution, "forget an ended one", its, gone),
            ("POST", one + "/cancel", "run", self.cancel_execution, "ask it to end", its, acted),
            ("POST", one + "/pause", "run", self.pause_execution, "have it stand still at its next call", its, acted),
            ("POST", one + "/resume", "run", self.resume_execution, "let it go on", its, acted),
        ]
        return [routes.Route(*row) for row in rows]

    def _of_tasks_and_sync(self, v1: str) -> list[routes.Route]:
        types, one = Operation(gives=shapes.Items[shapes.TaskType]), Operation(gives=shapes.TaskType)
        stubs, sync = Operation(gives=dict[str, str]), Operation(gives=shapes.Sync)
        planned = Operation(gives=shapes.Items[shapes.Plan])
        look = Operation(gives=shapes.Sync, query=(operations.WAIT,))
        free, all_ = Reach.GENERAL, Reach.EVERYTHING
        rows: list[tuple[str, str, str, routes.Handler, str, Reach, Operation]] = [
            ("GET", f"{v1}/tasks", "read", self.list_tasks, "all task types", free, types),
            ("GET", v1 + "/tasks/{type}", "read", self.show_task, "a task type with its inputs and outputs", free, one),
            ("GET", f"{v1}/typings", "read", self.show_typings, "what editors learn of flow_api", free, stubs),
            ("GET", f"{v1}/sync", "read", self.show_sync, "what is published, how the source is doing", all_, sync),
            ("POST", f"{v1}/sync/plan", "run", self.plan_sync, "what syncing now would change", all_, planned),
            ("POST", f"{v1}/sync", "run", self.sync_now, "look for new commits now", all_, look),
        ]
        return [routes.Route(*row) for row in rows]

    # -- flows ------------------------------------------------------------------------------------------------------

    async def list_flows(self, request: web.Request) -> web.Response:
        """All flows by name, as far as they are the sender's."""
        who, tag = request[routes.PRINCIPAL], request.query.get("tag", "")
        flows = self._flows.current().flows.values()
        theirs = [one for one in flows if who.may_touch(one.name) and (not tag or tag in one.metadata.policies.tags)]

        async def show(flow: model.Flow) -> dict[str, Any]:
            return flow_view(flow)

        return await paging.answer(request, theirs, lambda flow: (flow.name,), show)

    # -- executions -------------------------------------------------------------------------------------------------

    async def list_executions(self, request: web.Request) -> web.Response:
        """A page of executions; ``next`` and the ``Link`` header lead on."""
        page = await self._archive.query(listing_query(request.query, self._flows.current()))
        who = request[routes.PRINCIPAL]
        items = [views.summary(item) for item in page.items if await self._subjects.is_theirs(who, item.id)]
        return paging.linked(request, items, page.cursor)

    async def show_execution(self, request: web.Request) -> web.Response:
        """Everything about one execution, as it is on disk; ``wait`` waits for its end first."""
        wait_s = answers.wait_s(request) or 0
        state, request[answers.CONFIRM] = await self._work.ends.foresee(request.match_info["id"], wait_s)
        shown = await views.for_people(self._work.ledger, state)
        return answers.json_answer(shown | {"held": self._work.why(state)})

    async def cancel_execution(self, request: web.Request) -> web.Response:
        """Ask it to end; the answer does not wait for that."""
        return await self._act(request, self._work.influence.cancel)

    async def pause_execution(self, request: web.Request) -> web.Response:
        """Ask it to stand still; likewise."""
        return await self._act(request, self._work.influence.pause)

    async def resume_execution(self, request: web.Request) -> web.Response:
        """Let it go on; likewise. ``restart=true``: from its beginning."""
        restart = request.query.get("restart", "false")
        if restart not in ("true", "false"):
            raise errors.InvalidRequest(f"restart is true or false, not {restart[:100]!r}")
        influence = self._work.influence
        return await self._act(request, influence.restart if restart == "true" else influence.resume)

    async def _act(self, request: web.Request, act: Callable[[str, str], None]) -> web.Response:
        execution = request.match_info["id"]
        await self._work.load(execution)
        act(execution, request[routes.PRINCIPAL].name)
        await self._work.ledger.journal.durable()  # who asked may rely on it, whatever happens now
        state = await self._work.load(execution)
        return answers.json_answer(await views.for_people(self._work.ledger, state), status=202)

    async def delete_execution(self, request: web.Request) -> web.Response:
        """Have it not listed or shown any more."""
        await self._work.delete_execution(request.match_info["id"], request[routes.PRINCIPAL].name)
        return web.Response(status=204)

    async def show_log(self, request: web.Request) -> web.StreamResponse:
        """What it logged and wrote, a JSON object a line; or an event stream."""
        execution = request.match_info["id"]
        if _wants_stream(request):
            following = self._hub.follow(self._archive, execution, stream.last_event_id(request))
            return await stream.serve(request, following, self._render_log)
        past = await self._past(execution)
        response = web.StreamResponse(headers={"Content-Type": "application/x-ndjson"})
        await response.prepare(request)
        for recorded in past:  # one by one: a log may be large
            if (line := await stream.log_line(self._work.ledger, recorded)) is not None:
                await response.write(msgspec.json.encode(line) + b"\n")
        await response.write_eof()
        return response

    async def show_events(self, request: web.Request) -> web.StreamResponse:
        """Its record as the journal has it; or an event stream."""
        execution = request.match_info["id"]
        if _wants_stream(request):
            following = self._hub.follow(self._archive, execution, stream.last_event_id(request))
            return await stream.serve(request, following, _render_event)
        items = [msgspec.Raw(stream.line(recorded)) for recorded in await self._past(execution)]
        return answers.json_answer({"items": items})

    async def _past(self, execution: str) -> list[events.Recorded]:
        found = await self._archive.events_of(execution)
        if not found:
            raise errors.NotFound(f"there is no execution {execution!r}")
        return found

    async def _render_log(self, recorded: events.Recorded) -> tuple[str, bytes] | None:
        line = await stream.log_line(self._work.ledger, recorded)
        return None if line is None else ("log", msgspec.json.encode(line))

    # -- tasks and sync ---------------------------------------------------------------------------------------------

    async def list_tasks(self, request: web.Request) -> web.Response:
        """All task types, documented."""
        return answers.json_answer({"items": await asyncio.to_thread(self._tasks.types)})

    async def show_task(self, request: web.Request) -> web.Response:
        """One task type."""
        name = request.match_info["type"].upper()
        for found in await asyncio.to_thread(self._tasks.types):
            if name == found.name or name in found.aliases:
                return answers.json_answer(found)
        raise errors.NotFound(f"there is no task type {name!r}", hint="`headrace tasks` lists what there is")

    async def show_typings(self, request: web.Request) -> web.Response:
        """Stubs for editors and type checkers: path below a flows repository → text."""
        return answers.json_answer(await asyncio.to_thread(typings.files))

    async def show_sync(self, request: web.Request) -> web.Response:
        """What is published and how the source is doing."""
        return answers.json_answer(self._synchroniser.status())

    async def plan_sync(self, request: web.Request) -> web.Response:
        """What looking now would change, for each source; nothing of it is done."""
        return answers.json_answer({"items": await self._synchroniser.plan()})

    async def sync_now(self, request: web.Request) -> web.Response:
        """Look now; the answer comes after that, or after ``wait`` seconds."""
        return answers.json_answer(await self._synchroniser.sync_now(answers.wait_s(request, 60.0) or 0))


async def _render_event(recorded: events.Recorded) -> tuple[str, bytes] | None:
    return str(recorded.event.__struct_config__.tag), stream.line(recorded)


def flow_tag(flow: model.Flow) -> str:
    """Return the ETag of a flow: git's sha of the file that runs, and the commit of a newer one that does not."""
    return f'"{flow.blob}-{flow.broken.commit[:12]}"' if flow.broken is not None else f'"{flow.blob}"'


def flow_address(flow: model.Flow) -> str:
    """Return where a flow is found."""
    return f"/api/v1/flows/{urllib.parse.quote(flow.name, safe='')}"


def flow_view(flow: model.Flow) -> dict[str, Any]:
    """A flow as the API shows it. The reference of a webhook's secret is not shown."""
    hook = flow.metadata.webhook
    return {
        "id": flow.id,
        "name": flow.name,
        "path": flow.path,
        "commit": flow.commit,
        "runnable": flow.runnable,
        "broken": flow.broken,
        "webhook": None if hook is None else {"name": hook.name, "auth": hook.auth, "methods": hook.methods},
        "description": flow.metadata.description,
        "timeout_s": flow.metadata.timeout_s,
        "policies": flow.metadata.policies,
        "dependencies": flow.metadata.dependencies,
        "venv": flow.venv,
        "input_schema": msgspec.Raw(flow.metadata.input_schema.encode() or b"null"),
    }


def tagged(current: model.Catalogue, tag: str) -> tuple[str, ...]:
    """Return the names of the flows that have a tag."""
    return tuple(sorted(flow.name for flow in current.flows.values() if tag in flow.metadata.policies.tags))


def listing_query(given: multidict.MultiMapping[str], current: model.Catalogue) -> listing.Query:
    """Read the filters of a listing; raises ``InvalidRequest`` for one that is not known."""
    known = {"flow", "status", "type", "parent", "since", "until", "q", "limit", "cursor", "tag", "acknowledged"}
    if unknown := given.keys() - known:
        raise errors.InvalidRequest(f"{', '.join(sorted(unknown))}: no such filter", hint=f"there are {sorted(known)}")
    return listing.Query(
        flow=given.get("flow", ""),
        status=tuple(given.getall("status", [])),
        type=given.get("type", ""),
        parent=_parent(given.get("parent", "")),
        since=_moment(given.get("since", "")),
        until=_moment(given.get("until", "")),
        q=given.get("q", ""),
        flows=tagged(current, given["tag"]) if given.get("tag") else None,
        acknowledged=_flag("acknowledged", given.get("acknowledged", "")),
        limit=paging.limit_of(given, 50, listing.LIMIT_MAX),
        cursor=given.get("cursor", ""),
    )


def _parent(text: str) -> str | None:
    return "" if text == "none" else text or None


def _flag(name: str, text: str) -> bool | None:
    if text not in ("", "true", "false"):
        raise errors.InvalidRequest(f"{name} is true or false, not {text[:100]!r}")
    return text == "true" if text else None


def _moment(text: str) -> str:
    """Return an RFC 3339 time as records write it; raises ``InvalidRequest``."""
    if not text:
        return ""
    try:
        moment = datetime.datetime.fromisoformat(text.replace(" ", "+"))  # a bare + in a URL means a blank
    except ValueError:
        raise errors.InvalidRequest(f"{text!r} is not a time", hint="write it like 2026-01-31T08:00:00Z") from None
    return moments.timestamp(moment.timestamp())


def _wants_stream(request: web.Request) -> bool:
    return "text/event-stream" in request.headers.get("Accept", "")
