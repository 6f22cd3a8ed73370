"""The pages of who may do what, and who did.

    GET  /access                        the tokens, and a form for another one
    POST /access · …/revoke             make one, whose secret is on this page and nowhere else; take one away
    GET  /audit?q=…&who=…&refused=on    the audit log, newest first, by what stands in it

A secret stands in the answer to a form and never in an address, so no history of a browser has it.
"""

from __future__ import annotations

import asyncio
import urllib.parse
from collections.abc import Mapping

from aiohttp import web

from ..engine import errors
from . import access, accounts, answers, audit, paging, preconditions, principals, routes, templates, token_store

_ENTRIES = 100
_FILTERS = ("q", "who", "refused")


class AccountPages:
    """The handlers, the two books, and who decides."""

    def __init__(self, tokens: token_store.TokenStore, guard: access.Access, book: audit.Audit) -> None:
        self._tokens = tokens
        self._guard = guard
        self._audit = book

    def table(self) -> list[routes.Route]:
        """Return the routes."""

        def row(method: str, path: str, handler: routes.Handler, summary: str) -> routes.Route:
            return routes.Route(method, path, "admin", handler, summary, page=True)

        return [
            row("GET", "/access", self.show_tokens, "the page of tokens"),
            row("POST", "/access", self.create_token, "make a token from its page"),
            row("POST", "/access/revoke", self.revoke_token, "take a token away from its page"),
            row("GET", "/audit", self.show_audit, "the page of the audit log"),
        ]

    async def show_tokens(self, request: web.Request) -> web.Response:
        """Every token, without its secret."""
        return self._page(request)

    async def create_token(self, request: web.Request) -> web.Response:
        """Make one and show its secret; what cannot be made comes back to be mended."""
        form = await answers.form_of(request)
        valid = form.get("valid", "").strip()
        try:
            token, secret = await self._tokens.create(
                form.get("name", "").strip(),
                principals.scopes_of(filter(None, [form.get("role", "")])),
                tuple(line.strip() for line in form.get("flows", "").splitlines() if line.strip()),
                accounts.valid_s(valid) if valid else None,
                request[routes.PRINCIPAL].name,
            )
        except (errors.InvalidRequest, errors.Conflict) as error:
            return self._page(request, typed=form, error=error)
        answers.note_change(request, after=preconditions.tag_of(accounts.view(token, self._tokens)))
        return self._page(request, made=token, secret=secret)

    async def revoke_token(self, request: web.Request) -> web.Response:
        """Take it away; nothing is answered to it after this."""
        gone = await self._guard.revoke((await answers.form_of(request)).get("id", ""))
        answers.note_change(request, before=preconditions.tag_of(accounts.view(gone, self._tokens)))
        return templates.redirect("/access")

    def _page(
        self,
        request: web.Request,
        *,
        typed: Mapping[str, str] | None = None,
        error: errors.HeadraceError | None = None,
        made: token_store.Token | None = None,
        secret: str = "",
    ) -> web.Response:
        return templates.page(
            request,
            "access.html",
            status=error.http_status if error else 200,
            tokens=[(token, self._tokens.last_used(token)) for token in self._tokens.all()],
            roles=principals.ROLES,
            typed=typed or {},
            error=error,
            made=made,
            secret=secret,
        )

    async def show_audit(self, request: web.Request) -> web.Response:
        """Who changed what, and who was refused."""
        given = {name: text for name in _FILTERS if (text := request.query.get(name, "").strip())}
        end = paging.read_cursor(request.query, int)
        found, begin = await asyncio.to_thread(self._audit.search, _chosen(given), _ENTRIES, end)
        older = "/audit?" + urllib.parse.urlencode({**given, "cursor": paging.written_cursor(begin)}) if begin else ""
        return templates.page(request, "audit.html", entries=found, given=given, older=older, first=end is None)


def _chosen(given: Mapping[str, str]) -> audit.Chosen:
    """Return which entries the filters of the page mean."""
    sought, who, refused = given.get("q", "").lower(), given.get("who", "").lower(), "refused" in given

    def chosen(entry: audit.Entry) -> bool:
        told = f"{entry.what} {entry.target} {entry.made} {entry.reason} {entry.origin}".lower()
        is_theirs = not who or who == entry.who.lower()
        return sought in told and is_theirs and (not refused or entry.status >= 400)

    return chosen
