"""What a forge says when somebody has pushed: the source is looked at now, not at the next poll.

    POST /api/v1/sync/push    a push event of GitHub, GitLab, Gitea, Forgejo, Gogs or Bitbucket, signed with one secret

An event only says that there may be something: what is fetched, and from where, the settings say alone. It is verified
over its raw body before anything of it is read; who is not believed learns nothing. Called by ``app``.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec
import structlog
from aiohttp import web

from ..engine import errors
from ..sync import sources
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


class Believed(msgspec.Struct, frozen=True):
    """A source, by its prefix, whose forge signs events with ``secret``; ``ref`` as it is configured."""

    prefix: str
    secret: str
    ref: str


class Pushes:
    """The handler."""

    def __init__(
        self, origin: sources.Sources, believed: Sequence[Believed], clock: Callable[[], float] = time.time
    ) -> None:
        self._origin = origin
        self.believed = believed
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
        now = self._clock()
        meant = [
            one
            for one in self.believed
            if forge and signatures.verified(FORGES[forge], body, request.headers, one.secret, now)
        ]
        if not meant:
            why = "wrong signature" if self.believed else "no secret is set"
            log.info("push.refused", reason=why, forge=forge)
            raise _REFUSED
        event = request.headers[forge]
        if event not in _PUSHES:
            return answers.json_answer({"status": "ignored", "reason": f"{event[:100]!r} is no push"})
        named = branches(_said(body, request.content_type))
        wanted = {one.prefix: self._wanted(one) for one in meant}
        told = [prefix for prefix, branch in wanted.items() if not (branch and named and branch not in named)]
        if not told:
            expected = ", ".join(sorted(filter(None, wanted.values())))
            reason = f"the source is {expected}, this is about {', '.join(sorted(named))[:300]}"
            return answers.json_answer({"status": "ignored", "reason": reason}, status=202)
        for prefix in told:
            self._origin.nudge("push", prefix)
        return answers.json_answer({"status": "accepted", "reason": ""}, status=202)

    def _wanted(self, source: Believed) -> str:
        """The branch that its flows come from; empty if it is not known, or no branch."""
        status = next(one for one in self._origin.statuses() if one.prefix == source.prefix)
        ref = status.ref if source.ref in ("", "HEAD") else source.ref
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
