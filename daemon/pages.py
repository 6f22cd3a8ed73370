"""The pages for people: flows, executions, sync. Plain HTML from the server, usable without script and by keyboard.

    GET  /                          flows and the latest executions
    GET  /flows/{name}              one flow: its source, what is wrong with it, a form to run it
    POST /flows/{name}/run          run it and go to the execution
    GET  /executions                executions by filters, a page at a time
    GET  /executions/{id}           one execution: inputs, outputs, error, calls, log; reloads until it has ended
    POST /executions/{id}/cancel    ask it to end; likewise …/pause, …/resume and …/restart
    GET  /sync · POST /sync         how the source is doing; look now

Like the API each handler parses, calls and renders, and everything goes through the same doors. It decides nothing:
who may is ``access``'s, what a page looks like the templates'.
"""

from __future__ import annotations

import asyncio
import hashlib

import msgspec
import multidict
from aiohttp import web

from ..engine import errors, events, ids, lifecycle, model, ports
from ..engine.records import index, listing
from ..engine.running import dispatcher
from ..sync import loop as sync_loop
from . import answers, api, chronicle, reach, routes, templates, wording
from .reach import Reach

_FLOWS_MAX = 200  # on one page; a filter finds the others
_RECENT = 10
_SOURCE_BYTES_MAX = 256 * 1024
#: A page that reloads itself does so less often when its record has become long.
_LONG_RECORD = 2000


class Source(msgspec.Struct, frozen=True, kw_only=True):
    """A version of a flow's file, with the line at fault."""

    title: str
    commit: str
    path: str
    marked: int
    lines: list[str]


class Pages:
    """The handlers, and what they need."""

    def __init__(
        self,
        work: dispatcher.Dispatcher,
        archive: index.Index,
        flows: ports.Flows,
        synchroniser: sync_loop.Synchroniser,
        subjects: reach.Subjects,
    ) -> None:
        self._subjects = subjects
        self._work = work
        self._archive = archive
        self._flows = flows
        self._synchroniser = synchroniser

    def table(self) -> list[routes.Route]:
        """Return the routes."""

        def row(
            method: str, path: str, handler: routes.Handler, summary: str, touches: Reach = Reach.EVERYTHING
        ) -> routes.Route:
            scope = "read" if method == "GET" else "run"
            return routes.Route(method, path, scope, handler, summary, touches=touches, page=True)

        one = "/executions/{id}"
        return [
            row("GET", "/", self.home, "the page of flows", Reach.FILTERED),
            row("GET", "/flows/{name}", self.show_flow, "the page of one flow", Reach.FLOW),
            row("POST", "/flows/{name}/run", self.run_flow, "run it from its page", Reach.FLOW),
            row("GET", "/executions", self.list_executions, "the page of executions", Reach.FILTERED),
            row("GET", one, self.show_execution, "the page of one execution", Reach.EXECUTION),
            row("POST", one + "/cancel", self.cancel_execution, "cancel it from its page", Reach.EXECUTION),
            row("POST", one + "/pause", self.pause_execution, "let it stand still, from its page", Reach.EXECUTION),
            row("POST", one + "/resume", self.resume_execution, "let it go on, from its page", Reach.EXECUTION),
            row("POST", one + "/restart", self.restart_execution, "let it begin anew, from its page", Reach.EXECUTION),
            row("GET", "/sync", self.show_sync, "the page of the source"),
            row("POST", "/sync", self.sync_now, "look for new commits from its page"),
        ]

    # -- flows ------------------------------------------------------------------------------------------------------

    async def home(self, request: web.Request) -> web.Response:
        """Flows with how their latest run went, and the latest executions."""
        sought = request.query.get("q", "").strip()
        who = request[routes.PRINCIPAL]
        flows = {name: flow for name, flow in self._flows.current().flows.items() if who.may_touch(name)}
        found = [flow for name, flow in sorted(flows.items()) if sought.lower() in name.lower()]
        latest = await self._theirs(request, listing.Query(type="FLOW", limit=listing.LIMIT_MAX))
        return templates.page(
            request,
            "flows.html",
            flows=found[:_FLOWS_MAX],
            found=len(found),
            total=len(flows),
            q=sought,
            last={execution.flow_name: execution for execution in reversed(latest)},
            recent=[execution for execution in latest if not execution.parent][:_RECENT],
            sync=self._synchroniser.status(),
        )

    async def show_flow(self, request: web.Request) -> web.Response:
        """One flow; the form holds the inputs of the execution ``like``, if one is named."""
        inputs = "{}"
        if like := request.query.get("like"):
            given = (await self._work.load(like)).inputs
            given = given.shown if isinstance(given, model.Sealed) else given  # what was secret is typed again
            inputs = "{}" if isinstance(given, events.Blob) else wording.indented(bytes(given))
        return await self._flow_page(request, inputs)

    async def run_flow(self, request: web.Request) -> web.Response:
        """Run it with the inputs of the form; inputs that are no JSON object come back to be mended."""
        form = await answers.form_of(request)
        text = form.get("inputs", "").strip() or "{}"
        try:
            inputs = answers.checked_inputs(text.encode())
        except errors.InvalidRequest as error:
            return await self._flow_page(request, text, error)
        accepted = await self._work.submit(_submission(request, form.get("key", ""), inputs))
        return templates.redirect(f"/executions/{accepted.execution}")

    async def _flow_page(
        self, request: web.Request, inputs: str, error: errors.HeadraceError | None = None
    ) -> web.Response:
        flow = self._flows.find(request.match_info["name"])
        recent = await self._theirs(request, listing.Query(flow=flow.name, limit=_RECENT))
        return templates.page(
            request,
            "flow.html",
            status=200 if error is None else error.http_status,
            flow=flow,
            sources=await asyncio.to_thread(self._sources, flow),
            recent=recent,
            inputs=inputs,
            error=error,
            key=ids.new_id(),
        )

    def _sources(self, flow: model.Flow) -> list[Source]:
        """Return the newest version, and the one that runs where that is another. Blocking."""
        shown = []
        if flow.broken is not None:
            commit = self._flows.current().commit
            shown.append(self._source("The newest version", commit, flow.broken.file, marked=flow.broken.line))
        if flow.runnable:
            title = "The version that runs" if flow.broken else "Source"
            shown.append(self._source(title, flow.commit, flow.path))
        return shown

    def _source(self, title: str, commit: str, path: str, marked: int = 0) -> Source:
        try:
            with (self._flows.snapshot(commit) / path).open("rb") as file:
                text = file.read(_SOURCE_BYTES_MAX).decode("utf-8", "replace")
        except OSError:  # a file that was left out of the snapshot, or one that was cleaned away this moment
            text = ""
        return Source(
            title=title, commit=commit, path=path, marked=marked, lines=wording.plain(text).rstrip("\n").split("\n")
        )

    # -- executions -------------------------------------------------------------------------------------------------

    async def list_executions(self, request: web.Request) -> web.Response:
        """A page of executions, newest first."""
        given = multidict.MultiDict((key, value) for key, value in request.query.items() if value.strip())
        page = await self._archive.query(api.listing_query(given, self._flows.current()))
        who = request[routes.PRINCIPAL]
        older = request.rel_url.with_query(given).update_query(cursor=page.cursor) if page.cursor else None
        return templates.page(
            request,
            "executions.html",
            items=[item for item in page.items if await self._subjects.is_theirs(who, item.id)],
            given=given,
            older=older,
            statuses=list(lifecycle.Status),
            types=listing.TYPES,
            names=sorted(filter(who.may_touch, self._flows.current().flows))[:_FLOWS_MAX],
        )

    async def show_execution(self, request: web.Request) -> web.Response:
        """Everything about one execution that fits on a page."""
        execution = request.match_info["id"]
        state = await self._work.load(execution)
        record = await self._archive.events_of(execution)
        children = await self._archive.query(listing.Query(parent=execution, limit=listing.LIMIT_MAX))
        still = state.status.ended or "still" in request.query
        return templates.page(
            request,
            "execution.html",
            state=state,
            flow=self._flows.current().flows.get(state.flow_name),
            told=await chronicle.told(self._work.ledger, record),
            children={child.id: child for child in children.items},
            questions=[one for one in self._work.asking.all(pending=True) if one.execution == execution],
            can_restart=self._work.influence.can_restart(execution),
            reload_s=0 if still else 2 if len(record) < _LONG_RECORD else 10,
        )

    async def _theirs(self, request: web.Request, query: listing.Query) -> list[listing.Summary]:
        """The executions that a query finds, as far as whoever looks may see them."""
        who = request[routes.PRINCIPAL]
        found = (await self._archive.query(query)).items
        return [one for one in found if await self._subjects.is_theirs(who, one.id)]

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

    async def _shown_again(self, execution: str) -> web.Response:
        """Show it when what was asked for is on disk."""
        await self._work.ledger.journal.durable()
        return templates.redirect(f"/executions/{execution}")

    # -- sync -------------------------------------------------------------------------------------------------------

    async def show_sync(self, request: web.Request) -> web.Response:
        """What is published, and how the source is doing."""
        return templates.page(request, "sync.html", sync=self._synchroniser.status())

    async def sync_now(self, request: web.Request) -> web.Response:
        """Look now, wait a moment for it, and show how it went."""
        await self._synchroniser.sync_now(10.0)
        return templates.redirect("/sync")


def _submission(request: web.Request, key: str, inputs: bytes) -> model.Submission:
    """Return the run that a form asks for. A form has its own key, so a button pressed twice runs the flow once."""
    who, flow = request[routes.PRINCIPAL].name, request.match_info["name"]
    return model.Submission(
        flow=flow,
        inputs=inputs,
        created_by=who,
        key=f"page:{who}:{key[:40]}" if key else "",
        key_digest=hashlib.sha256(flow.encode() + b"\0" + inputs).hexdigest() if key else "",
    )
