"""The pages of flows: the catalogue, one flow, its editor.

    GET  /flows                     the catalogue, with how the latest runs went
    GET  /flows/{name}              one flow: what is wrong with it, a form to run it, its runs, its source, its users
    POST /flows/{name}/run          run it and go to the execution
    GET  /edit?flow=…               the editor, for that flow or for a new one
    POST /edit                      save: a commit, unless somebody else changed the flow meanwhile
    POST /edit/try                  run the text as it is in the editor, and commit nothing
    POST /edit/check                what is wrong with the text, for the editor's margin (JSON)
    GET  /edit/words                what the editor completes (JSON)
    POST /flows/{name}/rename · …/delete

A flow is saved, checked and run through the same doors as by the API; what a page looks like is the templates'.
"""

from __future__ import annotations

import asyncio
import datetime
import hashlib
import inspect
import re
from typing import Any

import msgspec
from aiohttp import web

from ..engine import errors, events, ids, model, ports
from ..engine.guest import flow_api
from ..engine.records import index, listing
from ..engine.running import dispatcher
from ..sync import check, sources
from . import answers, api, authoring, reach, routes, run_inputs, templates, wording
from .reach import Reach

_FLOWS_MAX = 300  # on one page; a search finds the others
_RECENT = 10
_TREND = 14
_SOURCE_BYTES_MAX = 256 * 1024
#: So many files are searched for the name of a flow, to say who uses it.
_USERS_MAX = 2000


class Source(msgspec.Struct, frozen=True, kw_only=True):
    """A version of a flow's file, with the line at fault."""

    title: str
    commit: str
    path: str
    marked: int
    lines: list[str]


class Draft(msgspec.Struct, frozen=True, kw_only=True):
    """What stands in the editor: of which flow (empty: a new one), and which version its author began with."""

    flow: str
    name: str
    script: str
    original: str
    tag: str
    message: str = ""
    inputs: str = "{}"


class FlowPages:
    """The handlers, and what they need."""

    def __init__(
        self,
        work: dispatcher.Dispatcher,
        archive: index.Index,
        flows: ports.Flows,
        origin: sources.Sources,
        subjects: reach.Subjects,
    ) -> None:
        self._subjects = subjects
        self._work = work
        self._archive = archive
        self._flows = flows
        self._origin = origin
        self._repository: ports.Authoring = origin.authoring

    def table(self) -> list[routes.Route]:
        """Return the routes."""

        def row(
            method: str, path: str, scope: str, handler: routes.Handler, summary: str, its: Reach = Reach.EVERYTHING
        ) -> routes.Route:
            return routes.Route(method, path, scope, handler, summary, its, page=True)

        return [
            row("GET", "/flows", "read", self.list_flows, "the page of flows", Reach.FILTERED),
            row("GET", "/flows/{name}", "read", self.show_flow, "the page of one flow", Reach.FLOW),
            row("POST", "/flows/{name}/run", "run", self.run_flow, "run it from its page", Reach.FLOW),
            row("POST", "/flows/{name}/rename", "edit", self.rename, "give it another name, from its page"),
            row("POST", "/flows/{name}/delete", "edit", self.delete, "delete it from its page", Reach.FLOW),
            row("GET", "/edit", "read", self.show_editor, "the editor of a flow"),
            row("POST", "/edit", "edit", self.save, "save what stands in the editor"),
            row("POST", "/edit/try", "edit", self.try_out, "run what stands in the editor, without a commit"),
            routes.Route("POST", "/edit/check", "read", self.check, "what is wrong with a text", audited=False),
            routes.Route("GET", "/edit/words", "read", self.words, "what the editor completes"),
        ]

    # -- looking ----------------------------------------------------------------------------------------------------

    async def list_flows(self, request: web.Request) -> web.Response:
        """Flows with how their latest runs went."""
        sought, order = request.query.get("q", "").strip(), request.query.get("sort", "name")
        who = request[routes.PRINCIPAL]
        flows = {name: flow for name, flow in self._flows.current().flows.items() if who.may_touch(name)}
        found = (await self._archive.query(listing.Query(type="FLOW", limit=listing.LIMIT_MAX))).items
        latest = await self._subjects.theirs(who, found)
        trends: dict[str, list[listing.Summary]] = {}
        for execution in latest:
            runs = trends.setdefault(execution.flow_name, [])
            if len(runs) < _TREND:
                runs.insert(0, execution)
        chosen = [flow for name, flow in sorted(flows.items()) if sought.lower() in name.lower()]
        if order == "latest":
            chosen.sort(key=lambda flow: trends[flow.name][-1].created_at if flow.name in trends else "", reverse=True)
        elif order == "broken":
            chosen.sort(key=lambda flow: flow.broken is None)
        shown: dict[str, Any] = {
            "found": len(chosen),
            "total": len(flows),
            "q": sought,
            "order": order,
            "trends": trends,
        }
        return templates.page(request, "flows.html", live="/live", flows=chosen[:_FLOWS_MAX], **shown)

    async def show_flow(self, request: web.Request) -> web.Response:
        """One flow; the form holds the inputs of the execution ``like``, if one is named."""
        text = "{}"
        if like := request.query.get("like"):
            await self._subjects.check(request[routes.PRINCIPAL], Reach.EXECUTION, {"id": like})
            given = (await self._work.load(like)).inputs
            given = given.shown if isinstance(given, model.Sealed) else given  # what was secret is typed again
            text = "{}" if isinstance(given, events.Blob) else wording.indented(bytes(given))
        return await self._flow_page(request, run_inputs.Typed.prefilled(text))

    async def run_flow(self, request: web.Request) -> web.Response:
        """Run it with what was typed; what does not fit comes back to be mended."""
        typed = run_inputs.Typed.sent(await answers.form_of(request))
        name = request.match_info["name"]
        try:
            commit = await self._origin.commit(name, typed.ref)
            flow = self._flows.find(name, commit)
            inputs = typed.inputs(flow.metadata.input_schema)
            protect = run_inputs.check(flow, inputs)
            accepted = await self._work.submit(_submission(request, typed, commit, inputs, protect))
        except (errors.InvalidRequest, errors.InputsUnfit) as error:
            return await self._flow_page(request, typed, error)
        return templates.redirect(f"/executions/{accepted.execution}")

    async def _flow_page(
        self, request: web.Request, typed: run_inputs.Typed, error: errors.HeadraceError | None = None
    ) -> web.Response:
        flow = self._flows.find(request.match_info["name"])
        schema = flow.metadata.input_schema
        who = request[routes.PRINCIPAL]
        recent = (await self._archive.query(listing.Query(flow=flow.name, limit=_RECENT))).items
        users = await asyncio.to_thread(self._users, flow.name)
        return templates.page(
            request,
            "flow.html",
            status=200 if error is None else error.http_status,
            live="/live",
            flow=flow,
            sources=await asyncio.to_thread(self._sources, flow),
            users=[name for name in users if who.may_touch(name)],
            recent=await self._subjects.theirs(who, recent),
            inputs=typed.text(schema),
            controls=typed.controls(schema, getattr(error, "wrong", {})),
            as_json=typed.as_json,
            versions=[
                one for one in await asyncio.to_thread(self._flows.kept, flow.source) if one.commit != flow.commit
            ],
            ref=typed.ref,
            error=error,
            key=ids.new_id(),
        )

    def _sources(self, flow: model.Flow) -> list[Source]:
        """Return the newest version, and the one that runs where that is another. Blocking."""
        shown = []
        if flow.broken is not None:
            commit = self._flows.current().commit_of(flow)
            shown.append(self._source("The newest version", commit, flow.broken.file, marked=flow.broken.line))
        if flow.runnable:
            title = "The version that runs" if flow.broken else "Source"
            shown.append(self._source(title, flow.commit, flow.path))
        return shown

    def _source(self, title: str, commit: str, path: str, marked: int = 0) -> Source:
        lines = wording.plain(self._text(commit, path)).rstrip("\n").split("\n")
        return Source(title=title, commit=commit, path=path, marked=marked, lines=lines)

    def _text(self, commit: str, path: str) -> str:
        try:
            with (self._flows.snapshot(commit) / path).open("rb") as file:
                return file.read(_SOURCE_BYTES_MAX).decode("utf-8", "replace")
        except OSError:  # a file that was left out of the snapshot, or one that was cleaned away this moment
            return ""

    def _users(self, name: str) -> list[str]:
        """Return the flows in whose text the name of this one stands as a string. Blocking; a hint, not a proof."""
        mention = re.compile(rf"""(['"]){re.escape(name)}\1""")
        others = list(self._flows.current().flows.values())[:_USERS_MAX]
        return [
            flow.name for flow in others if flow.name != name and mention.search(self._text(flow.commit, flow.path))
        ]

    # -- editing ----------------------------------------------------------------------------------------------------

    async def show_editor(self, request: web.Request) -> web.Response:
        """The editor with the newest text of a flow, or with a new one."""
        flow = request.query.get("flow", "")
        if not flow:
            name = f"new flow {datetime.datetime.now(datetime.UTC):%Y-%m-%dT%H:%M:%SZ}"
            script = authoring.TEMPLATE
            return self._editor(request, Draft(flow="", name=name, script=script, original="", tag=""))
        known = self._flows.find(flow)
        text = await asyncio.to_thread(self._newest, known)
        draft = Draft(flow=known.name, name=known.name, script=text, original=text, tag=api.flow_tag(known))
        return self._editor(request, draft)

    def _newest(self, flow: model.Flow) -> str:
        """Return the text that a change of a flow begins with. Blocking."""
        if flow.broken is not None:
            return self._text(self._flows.current().commit_of(flow), flow.broken.file)
        return self._text(flow.commit, flow.path)

    async def save(self, request: web.Request) -> web.Response:
        """Commit what stands in the editor and go to the flow; what cannot be saved stays in the editor."""
        draft = await self._draft(request)
        who = request[routes.PRINCIPAL].name
        known = self._known(draft.flow or draft.name)
        if (api.flow_tag(known) if known else "") != draft.tag:
            return await self._conflict(request, draft, known)
        try:
            if draft.flow and draft.name != draft.flow:
                await self._repository.rename_flow(draft.flow, draft.name, author=who, message=draft.message)
            if draft.script != draft.original or not draft.flow:
                await self._repository.save_flow(draft.name, draft.script, author=who, message=draft.message)
        except errors.Conflict:
            return await self._conflict(request, draft, self._known(draft.flow or draft.name))
        except (errors.InvalidRequest, errors.NotAllowed) as error:
            return self._editor(request, draft, error)
        await self._published(request, draft.name, known)
        return templates.redirect(f"/flows/{wording.segment(draft.name)}")

    async def _conflict(self, request: web.Request, draft: Draft, theirs: model.Flow | None) -> web.Response:
        """Show the draft against what is there now; saved again, it replaces that."""
        if theirs is None:
            text, tag, what = "", "", f"{draft.flow!r} is not there any more: saving makes it anew"
        else:
            text, tag = await asyncio.to_thread(self._newest, theirs), api.flow_tag(theirs)
            what = f"somebody else changed {theirs.name!r} meanwhile"
        against = msgspec.structs.replace(draft, original=text, tag=tag)
        return self._editor(request, against, errors.Conflict(what), conflict=True)

    async def try_out(self, request: web.Request) -> web.Response:
        """Run the text and go to the execution."""
        draft = await self._draft(request)
        try:
            inputs = answers.checked_inputs(draft.inputs.encode())
            wanted = model.Submission(
                flow="",
                script=draft.script,
                inputs=inputs,
                name=f"try: {draft.name}"[:200],
                created_by=request[routes.PRINCIPAL].name,
            )
            accepted = await self._work.submit(wanted)
        except errors.InvalidRequest as error:
            return self._editor(request, draft, error)
        return templates.redirect(f"/executions/{accepted.execution}")

    async def rename(self, request: web.Request) -> web.Response:
        """Move its file and show it under its new name."""
        flow, form = self._flows.find(request.match_info["name"]), await answers.form_of(request)
        name, who = form.get("name", "").strip(), request[routes.PRINCIPAL].name
        await self._repository.rename_flow(flow.name, name, author=who)
        await self._published(request, name, flow)
        return templates.redirect(f"/flows/{wording.segment(name)}")

    async def delete(self, request: web.Request) -> web.Response:
        """Remove its file; what it did stays."""
        flow = self._flows.find(request.match_info["name"])
        await self._repository.delete_flow(flow.name, author=request[routes.PRINCIPAL].name)
        await self._published(request, "", flow)
        return templates.redirect("/flows")

    async def _published(self, request: web.Request, name: str, before: model.Flow | None) -> None:
        """Wait a moment until the catalogue has the change, and have the audit log say what it was."""
        await self._repository.published(authoring.PUBLICATION_S)
        after = self._known(name) if name else None
        answers.note_change(request, api.flow_tag(before) if before else "", api.flow_tag(after) if after else "")

    async def check(self, request: web.Request) -> web.Response:
        """What the sync would say of the text, line by line."""
        body = await answers.body_of(request, authoring.BODY_BYTES_MAX)
        verdict = (await asyncio.to_thread(check.check, {"flow.py": body}))["flow.py"]
        problems: list[dict[str, Any]] = []
        if verdict.reason:
            problems.append({"line": verdict.line or 1, "message": verdict.reason, "severity": "error"})
        elif not verdict.handler:
            what = "there is no function `handler` at the top: this is a module, not a flow"
            problems.append({"line": 1, "message": what, "severity": "warning"})
        return answers.json_answer({"problems": problems})

    async def words(self, request: web.Request) -> web.Response:
        """What `system.` and `this.` are completed with."""
        owners = {"this": flow_api.Execution, "system": flow_api.System}
        return answers.json_answer({name: _members(owner) for name, owner in owners.items()})

    async def _draft(self, request: web.Request) -> Draft:
        form = await answers.form_of(request)
        flow = form.get("flow", "")
        script, original = (form.get(name, "").replace("\r\n", "\n") for name in ("script", "original"))
        return Draft(
            flow=flow,
            name=form.get("name", "").strip() or flow,
            script=script,
            original=original,
            tag=form.get("tag", ""),
            message=form.get("message", "").strip(),
            inputs=form.get("inputs", "").strip() or "{}",
        )

    def _editor(
        self,
        request: web.Request,
        draft: Draft,
        error: errors.HeadraceError | None = None,
        *,
        conflict: bool = False,
    ) -> web.Response:
        status = 200 if error is None else error.http_status
        return templates.page(request, "edit.html", status=status, draft=draft, error=error, conflict=conflict)

    def _known(self, name: str) -> model.Flow | None:
        try:
            return self._flows.find(name)
        except errors.NotFound:
            return None


def _members(owner: type) -> list[dict[str, str]]:
    """Return a class's public methods as the editor offers them."""
    found = []
    for name, member in sorted(inspect.getmembers(owner)):
        if name.startswith("_") or not (callable(member) or isinstance(member, property)):
            continue
        lead = (inspect.getdoc(member) or "").partition("\n")[0]
        shown = {"label": name, "type": "method" if callable(member) else "property", "info": lead}
        if inspect.isfunction(member):
            shown["detail"] = str(inspect.signature(member)).replace("(self, ", "(").replace("(self)", "()")[:80]
        found.append(shown)
    return found


def _submission(
    request: web.Request, typed: run_inputs.Typed, commit: str, inputs: bytes, protect: tuple[str, ...]
) -> model.Submission:
    """Return the run that a form asks for. A form has its own key, so a button pressed twice runs the flow once."""
    who, flow, key = request[routes.PRINCIPAL].name, request.match_info["name"], typed.key
    return model.Submission(
        flow=flow,
        commit=commit,
        inputs=inputs,
        created_by=who,
        protect_inputs=protect,
        key=f"page:{who}:{key[:40]}" if key else "",
        key_digest=hashlib.sha256(flow.encode() + b"\0" + inputs).hexdigest() if key else "",
    )
