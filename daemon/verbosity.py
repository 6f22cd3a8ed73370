"""How much is logged: as the settings say, or more or less of it for a while.

What somebody wants to see now does not outlive the reason: it ends by itself, and with the daemon. Called by ``app``,
``service`` and, for the settings, ``reloading``.
"""

from __future__ import annotations

import asyncio
import contextvars

import structlog

from ..engine import errors, moments, ports
from . import logs, written

log = structlog.get_logger()

#: What is not said otherwise, and what may be said at most.
FOR_S = 3600.0
FOR_S_MAX = 7 * 86400.0


class Verbosity:
    """``logs`` is as ``configure`` said, unless there is something else for now."""

    def __init__(self, form: str, level: str, clock: ports.Clock) -> None:
        self._form = form
        self._configured = level
        self._for_now = ""
        self._clock = clock
        self._timer: asyncio.TimerHandle | None = None
        self.until = ""  # RFC 3339: when the configured level counts again; empty if it does

    @property
    def level(self) -> str:
        """The least severe lines that are written now."""
        return self._for_now or self._configured

    def configure(self, form: str, level: str) -> None:
        """The settings say this from now on."""
        self._form, self._configured = form, level
        logs.configure(self._form, self.level)

    def set(self, level: str, for_s: float, by: str) -> None:
        """Log from ``level`` on for so long; raises ``InvalidRequest`` for what is none."""
        if level not in written.LEVELS:
            raise errors.InvalidRequest(
                f"{level!r} is not a level of the log", hint=f"there are {', '.join(written.LEVELS)}"
            )
        if not 0 < for_s <= FOR_S_MAX:
            raise errors.InvalidRequest(
                f"a level is set for up to {FOR_S_MAX:.0f} seconds", hint="log.level is for what is to stay"
            )
        self._forget()
        self._for_now = level
        self.until = moments.timestamp(self._clock.time() + for_s)
        self._timer = asyncio.get_running_loop().call_later(
            for_s, self.restore, "its time was over", context=contextvars.Context()
        )
        self._apply(by)

    def restore(self, by: str) -> None:
        """Log as the settings say."""
        if self._for_now:
            self._forget()
            self._apply(by)

    def _forget(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer, self._for_now, self.until = None, "", ""

    def _apply(self, by: str) -> None:
        logs.configure(self._form, self.level)
        # A warning, so that it stands there whatever was and is left out below.
        log.warning("log.level_set", now=self.level, until=self.until or None, by=by)
