"""What a forge says when somebody has pushed: the source is looked at now, not at the next poll.

    POST /api/v1/sync/push    a push event of GitHub, GitLab, Gitea, Forgejo, Gogs or Bitbucket, signed with one secret

An event only says that there may be something: what is fetched, and from where, the settings say alone. It is verified
over its raw body before anything of it is read; who is not believed learns nothing. Called by ``app``.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import msgspec
import structlog
from aiohttp import web

from ..engine import errors
from ..sync import loop as sync_loop
from . import access, answers, operations, routes, shapes, signatures
from .reach import Reach

log = structlog.get_logger()

BODY_BYTES_MAX = 25 * 1024 * 1024
_BRANCH = "refs/heads/"
#: The header in which a forge names its event → how it signs. Gitea calls itself GitHub besides, so it comes first.
FORGES = {
    "X-Gitea-Event": "gitea",
    "X-Forgejo-Event": "gitea",
    "X-Gogs-Event": "gitea",
    "X-Gitlab-Event": "gitlab",
    "X-Event-Key": "bitbucket",
    "X-GitHub-Event": "github",
}
_PUSHES = {"push", "Push Hook", "repo:push"}
_REFUSED = errors.Unauthenticated("no push events are taken here, or the signature is wrong")


class Push(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The setting ``source.push``. ``secret_file``: the secret that the forge signs its events with."""

    secret_file: str

    def __post_init__(self) -> None:
        """Refuse a file that is not there."""
        if not Path(self.secret_file).is_file():
            raise ValueError(f"`secret_file` {self.secret_file!r} is not a file")


class Pushes:
    """The handler. ``secret`` is empty where no events are taken."""

    def __init__(
        self, synchroniser: sync_loop.Synchroniser, secret: str, ref: str, clock: Callable[[], float] = time.time
    ) -> None:
        self._synchroniser = synchroniser
        self._secret = secret
        self._ref = ref
        self._clock = clock

    def table(self) -> list[routes.Route]:
        """Return the routes."""
        tells = operations.Operation(takes=operations.BYTES, gives=shapes.Pushed, statuses=(200, 202))
        summary = "a forge's push event: look for new commits now"
        return [routes.Route("POST", "/api/v1/sync/push", access.PUBLIC, self.take, summary, Reach.GENERAL, tells)]

    async def take(self, request: web.Request) -> web.Response:
        """Look at the source, unless the event is about something else."""
        body = await answers.body_of(request, BODY_BYTES_MAX)
        forge = next((name for name in FORGES if name in request.headers), "")
        if not forge or not signatures.verified(FORGES[forge], body, request.headers, self._secret, self._clock()):
            log.info("push.refused", reason="no secret is set" if not self._secret else "wrong signature", forge=forge)
            raise _REFUSED
        event = request.headers[forge]
        if event not in _PUSHES:
            return answers.json_answer({"status": "ignored", "reason": f"{event[:100]!r} is no push"})
        named = branches(_said(body, request.content_type))
        wanted = self._wanted()
        if wanted and named and wanted not in named:
            reason = f"the source is {wanted}, this is about {', '.join(sorted(named))[:300]}"
            return answers.json_answer({"status": "ignored", "reason": reason}, status=202)
        self._synchroniser.nudge("push")
        return answers.json_answer({"status": "accepted", "reason": ""}, status=202)

    def _wanted(self) -> str:
        """The branch that flows come from; empty if it is not known, or no branch."""
        ref = self._synchroniser.status().ref if self._ref in ("", "HEAD") else self._ref
        return "" if ref == "HEAD" else ref.removeprefix(_BRANCH)


def branches(event: Mapping[str, Any]) -> set[str]:
    """Return the branches that a push event is about; empty if it does not say."""
    if isinstance(event.get("ref"), str):
        return {event["ref"].removeprefix(_BRANCH)}
    push = event.get("push")
    changes = push.get("changes") if isinstance(push, dict) else None
    sides = [change.get(side) for change in changes or [] if isinstance(change, dict) for side in ("new", "old")]
    return {side["name"] for side in sides if isinstance(side, dict) and isinstance(side.get("name"), str)}


def _said(body: bytes, content_type: str) -> dict[str, Any]:
    """Return what the event says. One that cannot be read is surely from the forge all the same: it says nothing."""
    try:
        found = msgspec.json.decode(body) if content_type == answers.JSON else {}
    except (msgspec.MsgspecError, UnicodeError, RecursionError):
        found = {}
    return found if isinstance(found, dict) else {}
