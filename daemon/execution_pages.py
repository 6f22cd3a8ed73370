"""The pages of executions: the list, one of them with all that is known, two of them side by side.

    GET  /executions                 by filters, a page at a time; kept up to date while it is looked at
    GET  /executions/{id}            inputs, outputs, error, source, timeline, tree, calls, log
    GET  /executions/{id}/lines      its log as it grows, as rows of the page, and that something else changed (an
                                     event stream: one for both, as browsers have few connections)
    GET  /compare?a=…&b=…            two executions side by side
    POST /executions/{id}/cancel     ask it to end; likewise …/pause, …/resume and …/restart
    GET  /live                       an event stream that says that something changed

It decides nothing: what may be done is ``influence``'s, what a record tells ``chronicle``'s and ``timeline``'s.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import time
from collections.abc import Collection

import msgspec
import multidict
from aiohttp import web

from ..engine import errors, events, ids, lifecycle, model, ports
from ..engine.records import index, listing
from ..engine.running import dispatcher
from . import (
    answers,
    api,
    chronicle,
    excerpt,
    folding,
    principals,
    questions,
    reach,
    routes,
    stream,
    templates,
    timeline,
    value_pages,
)
from .reach import Reach

_NAMES_MAX = 200
#: A page that reloads itself, without script, does so less often when its record has become long.
_LONG_RECORD = 2000
_TREE_MAX = 150
_TREE_DEPTH = 6
_QUESTIONS_MAX = 20
#: So many pages are looked through for what somebody who is limited may see.
_PAGES_MAX = 10


class Branch(msgspec.Struct, frozen=True, kw_only=True):
    """An execution and those it started."""

    execution: listing.Summary
    children: list[Branch]
    left_out: int = 0


class Side(msgspec.Struct, frozen=True, kw_only=True):
    """One of two executions that are compared."""

    ordinal: str
    state: model.Execution
    values: list[tuple[str, folding.Node | None]]
    calls: list[chronicle.Call]
    children: dict[str, listing.Summary]


class ExecutionPages:
    """The handlers, and what they need."""

    def __init__(
        self,
        work: dispatcher.Dispatcher,
        archive: index.Index,
        flows: ports.Flows,
        hub: stream.Hub,
        subjects: reach.Subjects,
    ) -> None:
        self._subjects = subjects
        self._work = work
        self._archive = archive
        self._flows = flows
        self._hub = hub

    def table(self) -> list[routes.Route]:
        """Return the routes."""

        def row(
            method: str, path: str, handler: routes.Handler, summary: str, its: Reach = Reach.EXECUTION
        ) -> routes.Route:
            return routes.Route(method, path, "read" if method == "GET" else "run", handler, summary, its, page=True)

        one = "/executions/{id}"
        return [
            row("GET", "/live", self.tell_changes, "that something changed, as an event stream", Reach.FILTERED),
            row("GET", "/executions", self.list_executions, "the page of executions", Reach.FILTERED),
            row("GET", one, self.show_execution, "the page of one execution"),
            row("GET", one + "/lines", self.follow_log, "its log as rows of its page, as an event stream"),
            row("GET", "/compare", self.compare, "two executions side by side", Reach.FILTERED),
            row("POST", one + "/cancel", self.cancel_execution, "cancel it from its page"),
            row("POST", one + "/pause", self.pause_execution, "let it stand still, from its page"),
            row("POST", one + "/resume", self.resume_execution, "let it go on, from its page"),
            row(
                "POST", one + "/acknowledge", self.acknowledge_execution, "say that its failure is known, from its page"
            ),
            row("POST", "/executions/acknowledge", self.acknowledge, "likewise of several", Reach.FILTERED),
            row("POST", one + "/restart", self.restart_execution, "let it begin anew, from its page"),
        ]

    # -- looking ----------------------------------------------------------------------------------------------------

    async def list_executions(self, request: web.Request) -> web.Response:
        """A page of executions, newest first."""
        given = multidict.MultiDict((key, value) for key, value in request.query.items() if value.strip())
        page = await self._theirs(request[routes.PRINCIPAL], api.listing_query(given, self._flows.current()))
        older = request.rel_url.with_query(given).update_query(cursor=page.cursor) if page.cursor else None
        return templates.page(
            request,
            "executions.html",
            live="" if given.get("cursor") else "/live",
            items=page.items,
            given=given,
            older=older,
            statuses=list(lifecycle.Status),
            types=listing.TYPES,
            names=sorted(filter(request[routes.PRINCIPAL].may_touch, self._flows.current().flows))[:_NAMES_MAX],
        )

    async def _theirs(self, who: principals.Principal, query: listing.Query) -> listing.Page:
        """Return a page of what ``who`` may see: the next ones are asked for until there is something, or enough."""
        page = await self._archive.query(query)
        items = await self._subjects.theirs(who, page.items)
        for _ in range(_PAGES_MAX if who.limited else 0):
            if len(items) >= query.limit or not page.cursor:
                break
            page = await self._archive.query(msgspec.structs.replace(query, cursor=page.cursor))
            items += await self._subjects.theirs(who, page.items)
        return listing.Page(items, page.cursor)

    async def show_execution(self, request: web.Request) -> web.Response:
        """Everything about one execution that fits on a page."""
        execution, who = request.match_info["id"], request[routes.PRINCIPAL]
        state = await self._work.load(execution)
        record = await self._archive.events_of(execution)
        started = await self._archive.query(listing.Query(parent=execution, limit=listing.LIMIT_MAX))
        children = {child.id: child for child in started.items}
        # What is in memory may be ahead of what is recorded: the page follows until the record has its end.
        over = bool(record) and isinstance(record[-1].event, events.ExecutionEnded)
        still = over or "still" in request.query
        return templates.page(
            request,
            "execution.html",
            live="" if still else f"/executions/{state.id}/lines?after={record[-1].seq if record else 0}",
            state=state,
            held=self._work.why(state),
            flow=self._flows.current().flows.get(state.flow_name) if who.may_touch(state.flow_name) else None,
            parent=state.parent if state.parent and await self._subjects.is_theirs(who, state.parent) else "",
            told=await chronicle.told(self._work.ledger, record),
            children=children,
            tree=await self._tree(started, _TREE_DEPTH),
            picture=timeline.draw(record, children, time.time()),
            failing=await self._failing(state),
            key=ids.new_id(),
            trace_url=self._work.ledger.tracing.page(state.traceparent, state.id),
            inputs=await value_pages.first_look(self._work.ledger.contents, state.inputs),
            outputs=await value_pages.first_look(self._work.ledger.contents, state.output),
            previous=await self._previous(who, state),
            questions=await self._questions(execution, children),
            can_restart=self._work.influence.can_restart(execution),
            reload_s=0 if still else 2 if len(record) < _LONG_RECORD else 10,
        )

    async def _tree(self, page: listing.Page, depth: int) -> list[Branch]:
        """Return the executions of a page, oldest first, with those below them as deep and as many as a page shows."""
        branches = []
        for child in reversed(page.items):
            below = listing.Page([], "")
            if depth > 0 and child.type != "TASK":
                below = await self._archive.query(listing.Query(parent=child.id, limit=max(1, _TREE_MAX // 10)))
            grown = await self._tree(below, depth - 1) if below.items else []
            branches.append(Branch(execution=child, children=grown, left_out=1 if below.cursor else 0))
        return branches[:_TREE_MAX]

    async def _questions(self, execution: str, children: Collection[str]) -> list[questions.Question]:
        """Return what it asks and asked, and what those it started are asking."""
        asked = self._work.asking
        chosen = [
            one for one in asked.all() if one.execution == execution or (one.pending and one.execution in children)
        ]
        return [await questions.shown(asked, one) for one in chosen[:_QUESTIONS_MAX]]

    async def _failing(self, state: model.Execution) -> excerpt.Excerpt | None:
        """Return the lines around the one that failed, of the very commit that ran."""
        failure = state.failure
        if failure is None or not failure.file or not failure.line or not state.commit:
            return None
        path = self._flows.snapshot(state.commit) / failure.file
        return await asyncio.to_thread(excerpt.read, self._flows.snapshot(state.commit), path, failure.line)

    async def _previous(self, who: principals.Principal, state: model.Execution) -> listing.Summary | None:
        """Return the run of the same flow before this one, to compare it with."""
        if not state.flow_name or state.type == "TASK":
            return None
        page = await self._archive.query(listing.Query(flow=state.flow_name, until=state.created_at, limit=1))
        theirs = await self._subjects.theirs(who, page.items)
        return theirs[0] if theirs else None

    async def follow_log(self, request: web.Request) -> web.StreamResponse:
        """Its log as it grows, each line a finished row; of everything else, that it happened."""
        following = self._hub.follow(self._archive, request.match_info["id"], stream.last_event_id(request))
        return await stream.serve(request, following, self._row)

    async def _row(self, recorded: events.Recorded) -> tuple[str, bytes] | None:
        if isinstance(recorded.event, events.CallsRepeated):
            return None
        if not isinstance(recorded.event, events.LogWritten):
            return "changed", b"{}"
        line = await chronicle.line(self._work.ledger, recorded)
        return "line", msgspec.json.encode(templates.fragment("log_row.html", line=line))

    async def tell_changes(self, request: web.Request) -> web.StreamResponse:
        """Say whenever something changed, about one execution or about any."""
        execution = request.query.get("execution", "")
        if execution:
            await self._check(request, execution)
        if "text/event-stream" not in request.headers.get("Accept", ""):
            raise errors.InvalidRequest("this is an event stream", hint="ask for it with Accept: text/event-stream")
        return await stream.serve_changes(request, self._hub.changes(execution))

    async def _check(self, request: web.Request, execution: str) -> None:
        """Raise ``NotFound`` for one that is not theirs, as for one that is not there."""
        await self._subjects.check(request[routes.PRINCIPAL], Reach.EXECUTION, {"id": execution})

    async def compare(self, request: web.Request) -> web.Response:
        """Two executions side by side: what they were given, what they did, what came of it."""
        sides = []
        for ordinal, name in [("first", "a"), ("second", "b")]:
            if not request.query.get(name):
                raise errors.InvalidRequest("two executions are compared", hint="give their ids as a and b")
            await self._check(request, request.query[name])
            sides.append(await self._side(ordinal, request.query[name]))
        pairs = itertools.zip_longest(*(side.calls for side in sides))
        return templates.page(request, "compare.html", sides=sides, pairs=list(pairs))

    async def _side(self, ordinal: str, execution: str) -> Side:
        """Return one of two that are compared; its values are folded as on its own page."""
        state = await self._work.load(execution)
        record = await self._archive.events_of(state.id)
        held = self._work.ledger.contents
        return Side(
            ordinal=ordinal,
            state=state,
            values=[
                ("inputs", await value_pages.first_look(held, state.inputs)),
                ("outputs", await value_pages.first_look(held, state.output)),
            ],
            calls=chronicle.calls_of(record)[: chronicle.CALLS_MAX],
            children=await self._children(execution),
        )

    async def _children(self, execution: str) -> dict[str, listing.Summary]:
        """Return the latest of those it started, by their ids."""
        started = await self._archive.query(listing.Query(parent=execution, limit=listing.LIMIT_MAX))
        return {child.id: child for child in started.items}

    # -- influence --------------------------------------------------------------------------------------------------

    async def cancel_execution(self, request: web.Request) -> web.Response:
        """Ask it to end and show it again; one that has ended meanwhile is simply shown."""
        execution = request.match_info["id"]
        if not (await self._work.load(execution)).status.ended:
            self._work.influence.cancel(execution, request[routes.PRINCIPAL].name)
        return await self._shown_again(execution)

    async def pause_execution(self, request: web.Request) -> web.Response:
        """Let it stand still and show it again; one that has ended meanwhile is simply shown."""
        execution = request.match_info["id"]
        self._work.influence.request_pause(execution, request[routes.PRINCIPAL].name)
        return await self._shown_again(execution)

    async def resume_execution(self, request: web.Request) -> web.Response:
        """Let it go on and show it again; one that does already is simply shown."""
        execution = request.match_info["id"]
        self._work.influence.request_resume(execution, request[routes.PRINCIPAL].name)
        return await self._shown_again(execution)

    async def restart_execution(self, request: web.Request) -> web.Response:
        """Let one that stands still begin anew and show it again; one that goes on already is simply shown."""
        execution = request.match_info["id"]
        if self._work.influence.can_restart(execution):
            self._work.influence.restart(execution, request[routes.PRINCIPAL].name)
        return await self._shown_again(execution)

    async def acknowledge_execution(self, request: web.Request) -> web.Response:
        """Say that somebody knows that it failed and show it again; one that did not fail is simply shown."""
        execution = request.match_info["id"]
        if (await self._work.load(execution)).status is lifecycle.Status.ENDED_ERROR:
            await self._work.acknowledge(execution, request[routes.PRINCIPAL].name)
        return await self._shown_again(execution)

    async def acknowledge(self, request: web.Request) -> web.Response:
        """Say so of those that were listed, as many as are theirs, and list what is left."""
        who = request[routes.PRINCIPAL]
        for execution in (await answers.form_of(request)).get("ids", "").split()[: listing.LIMIT_MAX]:
            if await self._subjects.is_theirs(who, execution):
                with contextlib.suppress(errors.NotFound, errors.Conflict):
                    await self._work.acknowledge(execution, who.name)
        return templates.redirect("/executions?type=FLOW&acknowledged=false&parent=none")

    async def _shown_again(self, execution: str) -> web.Response:
        """Show it when what was asked for is on disk."""
        await self._work.ledger.journal.durable()
        return templates.redirect(f"/executions/{execution}")
