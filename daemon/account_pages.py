"""The pages of who may do what, and who did: GET /access, the tokens; GET /audit, the latest entries of the audit log.

Tokens are made and revoked on the command line or by the API, where the secret does not end up in a browser's history.
"""

from __future__ import annotations

import asyncio

from aiohttp import web

from . import audit, routes, templates, token_store

_ENTRIES = 200


class AccountPages:
    """The handlers, and the two books."""

    def __init__(self, tokens: token_store.TokenStore, book: audit.Audit) -> None:
        self._tokens = tokens
        self._audit = book

    def table(self) -> list[routes.Route]:
        """Return the routes."""
        return [
            routes.Route("GET", "/access", "admin", self.show_tokens, "the page of tokens", page=True),
            routes.Route("GET", "/audit", "admin", self.show_audit, "the page of the audit log", page=True),
        ]

    async def show_tokens(self, request: web.Request) -> web.Response:
        """Every token, without its secret."""
        tokens = [(token, self._tokens.last_used(token)) for token in self._tokens.all()]
        return templates.page(request, "access.html", tokens=tokens)

    async def show_audit(self, request: web.Request) -> web.Response:
        """Who changed what lately."""
        entries, _ = await asyncio.to_thread(self._audit.latest, _ENTRIES)
        return templates.page(request, "audit.html", entries=entries)
