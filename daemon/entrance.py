"""The entrance, put together: who is let in (tokens, sessions, limits), who decides, and where it is written down.

Owns the files behind it: ``client.json``, ``tokens.json``, ``audit.jsonl``, ``login-link``. ``app`` opens it when the
state directory is locked, lets its helpers run beside everything else, and closes it last.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path

import msgspec

from ..engine import ports
from . import (
    access,
    account_pages,
    accounts,
    audit,
    front,
    limits,
    login,
    metrics,
    oidc,
    private_files,
    reach,
    routes,
    sessions,
    token_store,
)

#: Refused calls of one address that are written down within five minutes.
_REFUSALS_MAX = 30
#: Requests of one address, of a daemon that other machines can reach. People and scripts are far below this.
_REQUESTS_PER_S = 100.0
_REQUESTS_AT_ONCE = 1000


class Options(msgspec.Struct, frozen=True, kw_only=True):
    """Where the daemon stands: ``private`` if only this machine can reach it, ``secure`` if browsers come by https."""

    private: bool = True
    secure: bool = False
    front: front.Front
    provider: oidc.Provider | None = None


class Entrance:
    """What every request from outside passes; ``guard`` decides and ``desk`` is what routes are installed at."""

    def __init__(
        self,
        state: Path,
        subjects: reach.Subjects,
        clock: ports.Clock,
        options: Options,
        figures: metrics.Metrics,
        settled: Callable[[], Awaitable[None]],
    ) -> None:
        self._state = state
        self._token = access.client_token(state)
        self._provider, self._secure = options.provider, options.secure
        self._tokens = token_store.TokenStore.open(state / "tokens.json", clock)
        self._people = sessions.Sessions(clock)
        self._audit = audit.Audit.open(state / audit.FILE, clock)
        self.guard = access.Access(
            self._token,
            self._tokens,
            self._people,
            subjects,
            limits.Attempts(clock),
            options.front,
            secure=options.secure,
        )
        rate = None if options.private else limits.Rate(clock, _REQUESTS_PER_S, _REQUESTS_AT_ONCE)
        self.desk = routes.Desk(self.guard, self._audit, limits.Attempts(clock, _REFUSALS_MAX), rate, figures, settled)

    def table(self) -> list[routes.Route]:
        """Return the routes of the entrance itself."""
        return [
            *login.Login(self.guard, self._provider, secure=self._secure).table(),
            *accounts.Accounts(self._tokens, self.guard, self._audit).table(),
            *account_pages.AccountPages(self._tokens, self.guard, self._audit).table(),
        ]

    def announce(self, url: str) -> str:
        """Tell local clients where the daemon listens; returns the link that logs one browser in, once."""
        access.write_client_file(self._state, url, self._token)
        link = f"{url}/login?token={self._people.issue_login()}"
        private_files.write(self._state / "login-link", link + "\n")
        return link

    async def run(self) -> None:
        """Keep the files behind memory by little, until cancelled."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._tokens.run(), name="uses of tokens")
            group.create_task(self._audit.run(), name="audit log")

    async def close(self) -> None:
        """Write down the rest."""
        await self._tokens.write_uses()
        if self._provider is not None:
            await self._provider.close()
        self._audit.close()
