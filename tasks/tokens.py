"""Access tokens of clouds (OAuth 2.0), got once and used until shortly before their end.

They are kept in memory only, by a digest of who asked for what: the secret behind one is not kept.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Awaitable, Callable
from typing import Any

import msgspec

from ..engine import errors, ports
from . import rest

#: A token is not used in the last minute of its life: a request may be under way for that long.
_EARLIER_S = 60.0
_TOKENS_MAX = 1000


class Tokens:
    """The tokens of one task type."""

    def __init__(self, *, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._monotonic = monotonic
        self._known: dict[str, tuple[str, float]] = {}

    async def get(
        self, who: tuple[str, ...], context: ports.TaskContext, ask: Callable[[], Awaitable[rest.RestOutput]]
    ) -> str:
        """Return a token for ``who``, asking only when there is none; raises ``TaskFailed``."""
        name = hashlib.sha256(msgspec.json.encode(who)).hexdigest()
        token, end = self._known.get(name, ("", 0.0))
        if self._monotonic() >= end:
            token, seconds = _granted(await ask())
            if len(self._known) >= _TOKENS_MAX:
                self._known.clear()
            self._known[name] = token, self._monotonic() + seconds - _EARLIER_S
        context.hide(token)
        return token

    def forget(self, who: tuple[str, ...]) -> None:
        """Ask anew the next time: the service did not like it."""
        self._known.pop(hashlib.sha256(msgspec.json.encode(who)).hexdigest(), None)


def _granted(answer: rest.RestOutput) -> tuple[str, float]:
    granted: Any = answer.json
    try:
        token, seconds = granted["access_token"], float(granted.get("expires_in", 0))
    except (LookupError, TypeError, ValueError, AttributeError):
        token, seconds = None, 0.0
    if not isinstance(token, str) or not token:
        raise errors.TaskFailed("no token was given for the credentials: the answer holds none")
    return token, seconds
