"""The first page, and the page of the source.

    GET  /                       what needs somebody, what runs, what ended lately, how the daemon is
    GET  /sync · POST /sync      how the source is doing; look now

The other pages: ``flow_pages``, ``history_pages``, ``execution_pages``, ``message_pages``, ``record_pages``,
``task_pages``, ``account_pages``. Like the API each handler parses, calls and renders, and everything goes through the
same doors. Pages decide nothing: who may is ``access``'s, what a page looks like the templates'.
"""

from __future__ import annotations

import asyncio
import shutil
from pathlib import Path

from aiohttp import web

from ..engine import ports
from ..engine.records import index, listing
from ..engine.running import dispatcher
from ..sync import sources
from . import principals, reach, routes, templates
from .reach import Reach

_UNFINISHED = ("RUNNING", "WAITING", "QUEUED", "PAUSED")
_SHOWN = 12


class Pages:
    """The handlers, and what they need."""

    def __init__(
        self,
        work: dispatcher.Dispatcher,
        archive: index.Index,
        flows: ports.Flows,
        synchroniser: sources.Sources,
        subjects: reach.Subjects,
        state: Path,
    ) -> None:
        self._subjects = subjects
        self._work = work
        self._archive = archive
        self._flows = flows
        self._synchroniser = synchroniser
        self._state = state
        templates.show_signals(self._signals)

    def table(self) -> list[routes.Route]:
        """Return the routes."""

        route = routes.Route
        return [
            route("GET", "/", "read", self.home, "the first page", Reach.FILTERED, page=True),
            route("GET", "/sync", "read", self.show_sync, "the page of the source", page=True),
            route("POST", "/sync", "run", self.sync_now, "look for new commits from its page", page=True),
        ]

    def _signals(self, who: principals.Principal) -> dict[str, int]:
        """What the navigation tells: how many wait for a person, are broken, cannot be followed."""
        if who.limited:
            return {}
        sync = self._synchroniser.status()
        return {
            "/messages": len(self._work.asking.all(pending=True)),
            "/flows": len(sync.broken),
            "/sync": int(sync.state == "degraded"),
        }

    async def home(self, request: web.Request) -> web.Response:
        """What matters now."""
        who, theirs, query = request[routes.PRINCIPAL], self._subjects.theirs, self._archive.query
        flows = {name: flow for name, flow in self._flows.current().flows.items() if who.may_touch(name)}
        unfinished = (await query(listing.Query(status=_UNFINISHED, limit=listing.LIMIT_MAX))).items
        latest = (await query(listing.Query(type="FLOW", limit=listing.LIMIT_MAX))).items
        unfinished, latest = await theirs(who, unfinished), await theirs(who, latest)
        pending = self._work.asking.all(pending=True)
        if who.limited:
            pending = [one for one in pending if one.execution and await self._subjects.is_theirs(who, one.execution)]
        disk = await asyncio.to_thread(shutil.disk_usage, self._state)
        return templates.page(
            request,
            "home.html",
            live="/live",
            flows=flows,
            pending=pending,
            broken=[flow for _, flow in sorted(flows.items()) if flow.broken],
            failing=_failing(latest),
            stuck=[one for one in unfinished if one.status == "PAUSED"][:_SHOWN],
            running=[one for one in unfinished if one.status != "PAUSED" and not one.parent][:_SHOWN],
            queued=sum(one.status == "QUEUED" for one in unfinished),
            unfinished=len(unfinished) if who.limited else self._work.unfinished,
            recent=[one for one in latest if not one.parent and one.ended_at][:_SHOWN],
            trend=[one for one in reversed(latest[:60]) if one.ended_at],
            sync=self._synchroniser.status(),
            free_bytes=disk.free,
            free_share=disk.free / disk.total,
            stalled=self._work.ledger.journal.stalled or self._work.ledger.journal.scarce,
        )

    async def show_sync(self, request: web.Request) -> web.Response:
        """What is published, and how the source is doing."""
        return templates.page(request, "sync.html", live="/live", sync=self._synchroniser.status())

    async def sync_now(self, request: web.Request) -> web.Response:
        """Look now, wait a moment for it, and show how it went."""
        await self._synchroniser.sync_now(10.0)
        return templates.redirect("/sync")


def _failing(latest: list[listing.Summary]) -> list[tuple[listing.Summary, int]]:
    """Return the newest run of each flow whose newest run failed, with how many before it failed in a row."""
    by_flow: dict[str, list[listing.Summary]] = {}
    for execution in latest:
        if execution.ended_at:
            by_flow.setdefault(execution.flow_name, []).append(execution)
    failing = []
    for runs in by_flow.values():
        streak = next((n for n, one in enumerate(runs) if one.status != "ENDED_ERROR"), len(runs))
        if streak:
            failing.append((runs[0], streak))
    return failing[:_SHOWN]
