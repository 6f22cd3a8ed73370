"""The page of a flow's history: every version, what each changed, and a button that brings one back.

    GET  /flows/{name}/history            versions, newest first; ``?commit=`` shows what that one changed
    POST /flows/{name}/restore            make that version the newest one, by a commit

What a version is, and which commits count, is ``flow_history``'s. Called by ``app`` for the route table.
"""

from __future__ import annotations

import asyncio
import contextlib

from aiohttp import web

from ..engine import errors, model, ports
from . import answers, api, authoring, flow_history, routes, templates, wording
from .reach import Reach

_VERSIONS_MAX = 100


class HistoryPages:
    """The handlers, where versions are found, and who writes."""

    def __init__(self, flows: ports.Flows, history: flow_history.FlowHistory, repository: ports.Authoring) -> None:
        self._flows = flows
        self._history = history
        self._repository = repository

    def table(self) -> list[routes.Route]:
        """Return the routes."""
        flow = "/flows/{name}"
        return [
            routes.Route(
                *("GET", flow + "/history", "read", self.show, "the page of a flow's history", Reach.FLOW), page=True
            ),
            routes.Route(
                *("POST", flow + "/restore", "edit", self.restore, "bring a version back from its page", Reach.FLOW),
                page=True,
            ),
        ]

    async def show(self, request: web.Request) -> web.Response:
        """The versions, and what one of them changed."""
        name = request.match_info["name"]
        place = self._history.place(name)
        found = await asyncio.to_thread(place.versions.of, place.path, place.tip, _VERSIONS_MAX + 1)
        if not found:
            raise errors.NotFound(f"there never was a flow {name!r}")
        chosen = request.query.get("commit", "")
        at = next((n for n, one in enumerate(found) if chosen and one.commit.startswith(chosen)), None)
        changed: list[str] = []
        if at is not None and at + 1 < len(found):
            pair = (found[at + 1].commit, found[at].commit)
            text = await asyncio.to_thread(place.versions.diff, place.path, *pair, place.tip)
            changed = wording.plain(text).rstrip("\n").split("\n")[2:]
        elif at is not None:
            _, text = await self._history.version(name, found[at].commit)
            changed = [f"+{line}" for line in wording.plain(text).rstrip("\n").split("\n")]
        return templates.page(
            request,
            "history.html",
            name=name,
            is_there=self._known(name) is not None,
            versions=found[:_VERSIONS_MAX],
            more=len(found) > _VERSIONS_MAX,
            chosen=found[at] if at is not None else None,
            is_newest=at == 0,
            changed=changed,
        )

    async def restore(self, request: web.Request) -> web.Response:
        """Commit the text of that version."""
        name = request.match_info["name"]
        form = await answers.form_of(request)
        commit, script = await self._history.version(name, form.get("commit", ""))
        message = f'Restore flow "{name}" as it was in {commit[:12]}'
        before = self._known(name)
        await self._repository.save_flow(name, script, author=request[routes.PRINCIPAL].name, message=message)
        await self._repository.published(authoring.PUBLICATION_S)
        after = self._known(name)
        answers.note_change(request, api.flow_tag(before) if before else "", api.flow_tag(after) if after else "")
        return templates.redirect(f"/flows/{wording.segment(name)}")

    def _known(self, name: str) -> model.Flow | None:
        with contextlib.suppress(errors.NotFound):
            return self._flows.find(name)
        return None
