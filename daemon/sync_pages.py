"""The page of the sources: how each is doing, and what its latest commits changed.

    GET  /sync    where each stands, its latest commits, what is broken
    POST /sync    look now, and show how it went

Called by ``app`` for the route table.
"""

from __future__ import annotations

import asyncio

import msgspec
from aiohttp import web

from ..engine import errors
from ..sync import loop, sources, union, versions
from . import routes, templates

_COMMITS = 20
#: Somebody who asks for a look is not kept waiting for longer.
_LOOK_S = 10.0


class Shown(msgspec.Struct, frozen=True, kw_only=True):
    """A source: where it stands, its latest commits, or why they cannot be read, and when commits were published."""

    status: loop.SourceStatus
    commits: list[versions.Commit]
    trouble: str
    published: dict[str, str]

    def flow(self, path: str) -> str:
        """Return what a flow at that path is called among all sources; empty for other files."""
        return union.prefixed(self.status.prefix, path.removesuffix(".py")) if path.endswith(".py") else ""


class SyncPages:
    """The handlers."""

    def __init__(self, origin: sources.Sources) -> None:
        self._origin = origin

    def table(self) -> list[routes.Route]:
        """Return the routes."""
        route = routes.Route
        return [
            route("GET", "/sync", "read", self.show_sync, "the page of the sources", page=True),
            route("POST", "/sync", "run", self.sync_now, "look for new commits from its page", page=True),
        ]

    async def show_sync(self, request: web.Request) -> web.Response:
        """What is published, how each source is doing, and what its latest commits changed."""
        each = [await self._shown(status) for status in self._origin.statuses()]
        return templates.page(request, "sync.html", live="/live", sync=self._origin.status(), each=each)

    async def _shown(self, status: loop.SourceStatus) -> Shown:
        commits, trouble = list[versions.Commit](), ""
        if tip := status.rejected or status.commit:
            try:
                commits = await asyncio.to_thread(self._origin.versions(status.prefix).commits, tip, _COMMITS)
            except (errors.SourceUnavailable, errors.NotAccepting) as error:
                trouble = error.message
        kept = await asyncio.to_thread(self._origin.flows.kept, status.prefix)
        return Shown(status=status, commits=commits, trouble=trouble, published={one.commit: one.at for one in kept})

    async def sync_now(self, request: web.Request) -> web.Response:
        """Look now, wait a moment for it, and show how it went."""
        await self._origin.sync_now(_LOOK_S)
        return templates.redirect("/sync")
