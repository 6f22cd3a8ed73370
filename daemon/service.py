"""The HTTP API of the daemon as a service: how it is, its configuration read anew, how much it logs, maintenance.

Parses, calls and renders; what happens is ``reloading``'s, ``verbosity``'s and ``running.maintaining``'s. Called by
``app`` for the route table.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec
from aiohttp import web

from .. import __version__
from ..engine import errors
from ..engine.guest import cgroups
from ..engine.running import dispatcher, maintaining
from . import answers, health, operations, reloading, routes, shapes, templates, verbosity

_BODY_BYTES_MAX = 16 * 1024
_REASON_CHARACTERS_MAX = 500


class LevelRequest(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The body: from which level on the log is written, and for how many seconds."""

    level: str
    for_s: float = verbosity.FOR_S


class MaintenanceRequest(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The body: why."""

    reason: str = ""


class Service:
    """The handlers. What ``vitals`` has against work, and the ``notices``, are those of ``/readyz``."""

    def __init__(
        self,
        turn: reloading.Reloading,
        loudness: verbosity.Verbosity,
        upkeep: maintaining.Maintaining,
        vitals: health.Health,
        notices: Callable[[], list[str]],
        work: dispatcher.Dispatcher,
        subtree: cgroups.Subtree,
        since: str,
    ) -> None:
        self._reloading = turn
        self._verbosity = loudness
        self._maintaining = upkeep
        self._vitals = vitals
        self._notices = notices
        self._work = work
        self._subtree = subtree
        self._since = since

    def table(self) -> list[routes.Route]:
        """Return the routes."""
        tells, v1 = operations.Operation, "/api/v1"
        level, upkeep = f"{v1}/log-level", f"{v1}/maintenance"
        asked = tells(takes=LevelRequest, gives=shapes.Service)
        begun = tells(takes=MaintenanceRequest, gives=shapes.Service)
        shown, taken = tells(gives=shapes.Service), tells(gives=shapes.Reload)
        reread = "read the configuration anew; refused whole if any of it is wrong"
        rows: list[tuple[str, str, str, routes.Handler, str, operations.Operation]] = [
            ("GET", f"{v1}/status", "read", self.show, "how the daemon is", shown),
            ("POST", f"{v1}/reload", "admin", self.reload, reread, taken),
            ("PUT", level, "admin", self.set_level, "log more or less for a while", asked),
            ("DELETE", level, "admin", self.restore_level, "log as the settings say", shown),
            ("PUT", upkeep, "admin", self.begin, "take what is asked for, and let nothing new begin", begun),
            ("DELETE", upkeep, "admin", self.end, "let begin what waited", shown),
        ]
        summary = "begin or end maintenance from the overview"
        return [
            *(routes.Route(*row[:5], tells=row[5]) for row in rows),
            routes.Route("POST", "/maintenance", "admin", self.switch, summary, page=True),
        ]

    async def show(self, request: web.Request) -> web.Response:
        """Everything there is to say in short."""
        return answers.json_answer(self._shown())

    async def reload(self, request: web.Request) -> web.Response:
        """Take the settings as they are now; what was wrong with them is a 409."""
        try:
            return answers.json_answer(await self._reloading.reload(request[routes.PRINCIPAL].name))
        except errors.ConfigurationInvalid as error:
            raise errors.Conflict(f"nothing has changed: {error.message}", hint=error.hint) from error

    async def set_level(self, request: web.Request) -> web.Response:
        """For so long, an hour unless said."""
        asked = answers.decoded(await answers.json_of(request, _BODY_BYTES_MAX), LevelRequest)
        self._verbosity.set(asked.level, asked.for_s, request[routes.PRINCIPAL].name)
        return answers.json_answer(self._shown())

    async def restore_level(self, request: web.Request) -> web.Response:
        """At once."""
        self._verbosity.restore(request[routes.PRINCIPAL].name)
        return answers.json_answer(self._shown())

    async def begin(self, request: web.Request) -> web.Response:
        """On the answer it is durable, over restarts."""
        asked = answers.decoded(await answers.json_of(request, _BODY_BYTES_MAX), MaintenanceRequest)
        await self._begin(request, asked.reason)
        return answers.json_answer(self._shown())

    async def end(self, request: web.Request) -> web.Response:
        """What waited begins, in its order."""
        await self._maintaining.end(request[routes.PRINCIPAL].name)
        return answers.json_answer(self._shown())

    async def switch(self, request: web.Request) -> web.Response:
        """As its button says; then the overview again."""
        form = await answers.form_of(request)
        match form.get("switch"):
            case "on":
                await self._begin(request, form.get("reason", "").strip())
            case "off":
                await self._maintaining.end(request[routes.PRINCIPAL].name)
            case _:
                raise errors.InvalidRequest("switch must be on or off")
        return templates.redirect("/")

    async def _begin(self, request: web.Request, reason: str) -> None:
        if len(reason) > _REASON_CHARACTERS_MAX:
            raise errors.InvalidRequest(f"a reason has {_REASON_CHARACTERS_MAX} characters at most")
        await self._maintaining.begin(reason, request[routes.PRINCIPAL].name)

    def _shown(self) -> dict[str, Any]:
        upkeep, reasons = self._maintaining.state, self._vitals.reasons()
        cells = self._subtree
        told = {"since": upkeep.since, "reason": upkeep.reason, "by": upkeep.by, "waiting": self._maintaining.waiting}
        return {
            "status": "not ready" if reasons else "ready",
            "version": __version__,
            "since": self._since,
            "reasons": reasons,
            "notices": self._notices(),
            "running": self._work.running,
            "cgroups": {"path": cells.path, "controllers": cells.controllers, "reason": cells.reason},
            "maintenance": told if upkeep.since else None,
            "log": {"level": self._verbosity.level, "until": self._verbosity.until},
            "reload": self._reloading.last,
        }
