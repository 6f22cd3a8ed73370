"""The HTTP API of who may do what: who am I, the tokens there are, the audit log.

    GET    /api/v1/me               whom the request's credentials stand for
    GET    /api/v1/tokens           all of them, without their secrets
    POST   /api/v1/tokens           make one; its secret is in this answer and nowhere else
    DELETE /api/v1/tokens/{name}    take one away, with everything it has open
    GET    /api/v1/audit            who did what, newest first

Parses, calls, renders; called by ``app`` for the route table.
"""

from __future__ import annotations

import asyncio
from typing import Any

import msgspec
from aiohttp import web

from ..engine import errors
from . import (
    access,
    answers,
    audit,
    operations,
    paging,
    preconditions,
    principals,
    routes,
    shapes,
    token_store,
    written,
)
from .operations import Operation
from .reach import Reach

_BODY_BYTES_MAX = 64 * 1024
#: Ten years; who wants longer gives none.
_VALID_S_MAX = 10 * 365 * 86400.0
_ENTRIES = 100


_LIMIT = operations.Parameter(
    "limit", {"type": "integer", "minimum": 1, "maximum": audit.LIMIT_MAX}, f"how many lines; {_ENTRIES} unless said"
)


class NewToken(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The body of ``POST /tokens``. ``scopes`` may name roles; ``flows`` are patterns; ``valid`` is a duration."""

    name: str
    scopes: tuple[str, ...] = ()
    flows: tuple[str, ...] = ()
    valid: str = ""


class Accounts:
    """The handlers, the tokens, who decides, and what was done."""

    def __init__(self, tokens: token_store.TokenStore, guard: access.Access, book: audit.Audit) -> None:
        self._tokens = tokens
        self._guard = guard
        self._audit = book

    def table(self) -> list[routes.Route]:
        """Return the routes."""
        v1, all_ = "/api/v1", Reach.EVERYTHING
        me, made = Operation(gives=shapes.Me), Operation(takes=NewToken, gives=shapes.NewToken, statuses=(201,))
        tokens = Operation(gives=shapes.Page[shapes.Token], query=paging.PARAMETERS)
        gone = Operation(statuses=(204,))
        lines = Operation(gives=shapes.Page[audit.Entry], query=(_LIMIT, operations.CURSOR))
        rows: list[tuple[str, str, str, routes.Handler, str, Reach, Operation]] = [
            ("GET", f"{v1}/me", "read", self.who_am_i, "whom the credentials stand for", Reach.GENERAL, me),
            ("GET", f"{v1}/tokens", "admin", self.list_tokens, "all tokens, without their secrets", all_, tokens),
            ("POST", f"{v1}/tokens", "admin", self.create_token, "make a token", all_, made),
            ("DELETE", v1 + "/tokens/{name}", "admin", self.revoke_token, "take a token away", all_, gone),
            ("GET", f"{v1}/audit", "admin", self.show_audit, "who did what, newest first", all_, lines),
        ]
        return [routes.Route(*row) for row in rows]

    async def who_am_i(self, request: web.Request) -> web.Response:
        """Name, scopes and flows of whoever asks."""
        who = request[routes.PRINCIPAL]
        scopes = [scope for scope in principals.SCOPES if scope in who.scopes]
        return answers.json_answer({"name": who.name, "scopes": scopes, "flows": who.flows})

    async def list_tokens(self, request: web.Request) -> web.Response:
        """All of them."""
        return await paging.answer(request, self._tokens.all(), lambda token: (token.name, token.id), self._view)

    async def create_token(self, request: web.Request) -> web.Response:
        """Make one. Nobody can give more than they have: only administrators of all flows come here."""
        asked = answers.decoded(await answers.json_of(request, _BODY_BYTES_MAX), NewToken)
        token, secret = await self._tokens.create(
            asked.name,
            principals.scopes_of(asked.scopes),
            asked.flows,
            valid_s(asked.valid) if asked.valid else None,
            request[routes.PRINCIPAL].name,
        )
        shown = await self._view(token)
        answers.note_change(request, after=preconditions.tag_of(shown))
        headers = {"Location": f"/api/v1/tokens/{token.id}", "Cache-Control": "no-store"}
        return answers.json_answer({**shown, "token": secret}, status=201, headers=headers)

    async def revoke_token(self, request: web.Request) -> web.Response:
        """Take it away; nothing is answered to it after this."""
        gone = await self._guard.revoke(request.match_info["name"])
        answers.note_change(request, before=preconditions.tag_of(await self._view(gone)))
        return web.Response(status=204)

    async def show_audit(self, request: web.Request) -> web.Response:
        """The latest lines."""
        limit = paging.limit_of(request.query, _ENTRIES, audit.LIMIT_MAX)
        end = paging.read_cursor(request.query, int)
        entries, begin = await asyncio.to_thread(self._audit.latest, limit, end)
        return paging.linked(request, list(entries), paging.written_cursor(begin) if begin else "")

    async def _view(self, token: token_store.Token) -> dict[str, Any]:
        return view(token, self._tokens)


def view(token: token_store.Token, tokens: token_store.TokenStore) -> dict[str, Any]:
    """Return a token as people see it."""
    return {
        "id": token.id,
        "name": token.name,
        "scopes": token.scopes,
        "flows": token.flows,
        "created_at": token.created_at,
        "created_by": token.created_by,
        "expires_at": token.expires_at,
        "last_used_at": tokens.last_used(token),
    }


def valid_s(text: str) -> float:
    """Return for how many seconds a token is good, as people write it; raises ``InvalidRequest``."""
    try:
        seconds = written.duration_s(text)
    except ValueError as error:
        raise errors.InvalidRequest(f"valid={text!r} {error}") from None
    if not 0 < seconds <= _VALID_S_MAX:
        raise errors.InvalidRequest(f"valid={text!r} is not within ten years", hint="leave it out for no end")
    return seconds
