"""The first page, GET /: what needs somebody, what runs, what ended lately, how the daemon is.

The other pages: ``sync_pages``, ``flow_pages``, ``history_pages``, ``execution_pages``, ``value_pages``,
``message_pages``, ``record_pages``, ``task_pages``, ``account_pages``. Like the API each handler parses, calls and
renders, and everything goes through the same doors. Pages decide nothing: who may is ``access``'s, what a page looks
like the templates'.
"""

from __future__ import annotations

import asyncio
import contextlib
import shutil
import time
from pathlib import Path
from typing import Any

import msgspec
from aiohttp import web

from ..engine import errors, lifecycle, moments, ports
from ..engine.records import index, listing
from ..engine.running import dispatcher
from ..engine.state import messages
from ..sync import sources
from . import principals, reach, routes, templates
from .reach import Reach

_GOING_ON = (lifecycle.Status.RUNNING, lifecycle.Status.WAITING, lifecycle.Status.QUEUED)
_UNFINISHED = (*_GOING_ON, lifecycle.Status.PAUSED)
_ENDED = tuple(status for status in lifecycle.Status if status.ended)
_SHOWN, _TREND = 12, 60
#: Failures count as news for a week, and nobody counts more of them than that.
_FAILURES_S = 7 * 86400.0
_FAILURES_MAX = 100
_COUNTED_S = 60.0


class Hour(msgspec.Struct, frozen=True):
    """An hour (``2026-01-31T08``), how many executions of flows began in it, and how many of them failed."""

    name: str
    count: int
    failed: int


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
        self._hours: list[Hour] = []
        self._counted_at = 0.0
        templates.show_signals(self._signals)

    def table(self) -> list[routes.Route]:
        """Return the routes."""

        return [routes.Route("GET", "/", "read", self.home, "the first page", Reach.FILTERED, page=True)]

    async def _signals(self, who: principals.Principal) -> dict[str, int]:
        """What the navigation tells: what failed and nobody knows, how many wait for a person, are broken, cannot be
        followed."""
        flows = self._flows.current().flows
        return {
            "/executions": len(await self._unknown_failures(who)),
            "/messages": len(await self._asking(who)),
            "/flows": sum(flow.broken is not None for name, flow in flows.items() if who.may_touch(name)),
            "/sync": 0 if who.limited else int(self._synchroniser.status().state == "degraded"),
        }

    async def _unknown_failures(self, who: principals.Principal) -> list[listing.Summary]:
        """Return what failed lately and nobody acknowledged; what another execution started is that one's to judge."""
        since = moments.timestamp(time.time() - _FAILURES_S)
        query = listing.Query(type="FLOW", parent="", acknowledged=False, since=since, limit=_FAILURES_MAX)
        with contextlib.suppress(errors.NotAccepting):  # the index is being made
            return await self._subjects.theirs(who, (await self._archive.query(query)).items)
        return []

    async def _asking(self, who: principals.Principal) -> list[messages.Message]:
        """Return the messages that wait for an answer and are theirs to answer."""
        pending = self._work.asking.all(pending=True)
        if not who.limited:
            return pending
        return [one for one in pending if one.execution and await self._subjects.is_theirs(who, one.execution)]

    async def home(self, request: web.Request) -> web.Response:
        """What matters now."""
        who, theirs, query = request[routes.PRINCIPAL], self._subjects.theirs, self._archive.query
        flows = {name: flow for name, flow in self._flows.current().flows.items() if who.may_touch(name)}

        async def listed(limit: int = listing.LIMIT_MAX, **filters: Any) -> list[listing.Summary]:
            return await theirs(who, (await query(listing.Query(limit=limit, **filters))).items)

        queued = len(await listed(status=(lifecycle.Status.QUEUED,)))
        unfinished = len(await listed(status=_UNFINISHED)) if who.limited else self._work.unfinished
        ended = await listed(status=_ENDED, type="FLOW", parent="")
        disk = await asyncio.to_thread(shutil.disk_usage, self._state)
        return templates.page(
            request,
            "home.html",
            live="/live",
            flows=flows,
            pending=await self._asking(who),
            unknown=len(await self._unknown_failures(who)),
            hours=[] if who.limited else await self._last_day(),
            broken=[flow for _, flow in sorted(flows.items()) if flow.broken],
            failing=_failing(ended),
            stuck=(await listed(status=(lifecycle.Status.PAUSED,)))[:_SHOWN],
            running=(await listed(status=_GOING_ON, parent=""))[:_SHOWN],
            queued=queued if queued < listing.LIMIT_MAX else f"at least {queued}",
            unfinished=unfinished,
            recent=ended[:_SHOWN],
            trend=(await listed(_TREND, status=_ENDED, type="FLOW"))[::-1],
            sync=self._synchroniser.status(),
            free_bytes=disk.free,
            free_share=disk.free / disk.total,
            maintenance=str(self._work.maintaining.state),
            stalled=self._work.ledger.journal.stalled or self._work.ledger.journal.scarce,
        )

    async def _last_day(self) -> list[Hour]:
        """Return how many flows ran in each of the last 24 hours; counted anew once a minute at most."""
        now_s = time.time()
        if now_s - self._counted_at > _COUNTED_S or not self._hours:
            hours = _hours(now_s)
            counted = await self._archive.by_hour(hours)
            self._hours = [Hour(hour, *counted[hour]) for hour in hours]
            self._counted_at = now_s
        return self._hours


def _hours(now_s: float) -> list[str]:
    """Return the names of the last 24 hours, the present one last."""
    return [moments.timestamp(now_s - 3600 * back)[:13] for back in reversed(range(24))]


def _failing(ended: list[listing.Summary]) -> list[tuple[listing.Summary, int]]:
    """Return the newest run of each flow whose newest run failed, with how many before it failed in a row."""
    by_flow: dict[str, list[listing.Summary]] = {}
    for execution in ended:
        by_flow.setdefault(execution.flow_name, []).append(execution)
    failing = []
    for runs in by_flow.values():
        streak = next((n for n, one in enumerate(runs) if one.status != "ENDED_ERROR"), len(runs))
        if streak:
            failing.append((runs[0], streak))
    return failing[:_SHOWN]
