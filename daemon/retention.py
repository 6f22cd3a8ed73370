"""The HTTP API of retention: ``POST /api/v1/records/prune``.

Parses, has the pruner make a pass, and renders what that did. Called by ``app`` for the route table.
"""

from __future__ import annotations

import msgspec
from aiohttp import web

from ..engine import errors
from ..engine.running import pruning
from . import answers, operations, routes

_BODY_BYTES_MAX = 4096


class PruneRequest(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The body: ``keep_s`` in seconds counts instead of ``records.keep``, this once; ``dry_run`` only says what."""

    keep_s: float | None = None
    dry_run: bool = False


class Retention:
    """The handler, and who prunes."""

    def __init__(self, pruner: pruning.Pruner) -> None:
        self._pruner = pruner

    def table(self) -> list[routes.Route]:
        """Return the routes."""
        summary = "forget what was kept long enough and free its disk"
        tells = operations.Operation(takes=PruneRequest, gives=pruning.Pruned)
        row = ("POST", "/api/v1/records/prune", "admin", self.prune, summary)
        return [routes.Route(*row, tells=tells)]

    async def prune(self, request: web.Request) -> web.Response:
        """Make a pass, or say what one would do; the answer comes when it is over."""
        body = await answers.json_of(request, _BODY_BYTES_MAX)
        asked = answers.decoded(body or b"{}", PruneRequest)
        if asked.keep_s is not None and not asked.keep_s > 0:
            raise errors.InvalidRequest("keep_s is a number of seconds above 0")
        return answers.json_answer(await self._pruner.prune(asked.keep_s, dry_run=asked.dry_run, at_once=True))
