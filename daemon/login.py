"""Logging in and out in a browser.

    GET  /login    a page with a button (for ``?token=…``) or a field for a token; whoever is logged in is sent on
    POST /login    uses the token up and begins a session
    POST /logout   ends it

Looking at a link must not use it up: mail and chat programs look at every link. So only the button does. A token of
the terminal is good once; the token of ``client.json`` and those that an administrator made are taken as well, and the
session may do what its token may.
"""

from __future__ import annotations

import structlog
from aiohttp import web

from ..engine import errors
from . import access, answers, routes, templates
from .reach import Reach

log = structlog.get_logger()


class Login:
    """The handlers, and who decides."""

    def __init__(self, guard: access.Access) -> None:
        self._guard = guard

    def table(self) -> list[routes.Route]:
        """Return the routes."""
        return [
            routes.Route("GET", "/login", access.PUBLIC, self.show, "the page that logs in"),
            routes.Route("POST", "/login", access.PUBLIC, self.log_in, "begin a session", audited=True),
            routes.Route("POST", "/logout", "read", self.log_out, "end the session", touches=Reach.GENERAL),
            routes.Route("GET", "/style.css", access.PUBLIC, templates.style, "how pages look"),
        ]

    async def show(self, request: web.Request) -> web.Response:
        """The page; nothing is used up by looking at it."""
        next_page = _local(request.query.get("next", "/"))
        if self._guard.session(request) is not None:
            return templates.redirect(next_page)
        # A cookie does not come along from another site; from our own page it does.
        from_elsewhere = request.headers.get("Sec-Fetch-Site") == "cross-site"
        token = request.query.get("token", "")
        return templates.page(request, "login.html", token=token, next=next_page, elsewhere=from_elsewhere, error=None)

    async def log_in(self, request: web.Request) -> web.Response:
        """Begin a session, or say why not."""
        access.check_same_origin(request)
        form = await answers.form_of(request)
        next_page = _local(form.get("next", "/"))
        response = templates.redirect(next_page)
        try:
            request[routes.PRINCIPAL] = self._guard.log_in(request, response, form.get("token", "").strip())
        except errors.Unauthenticated as error:
            log.warning("login.refused", origin=self._guard.origin(request))
            shown = {"token": "", "next": next_page, "elsewhere": False, "error": error}
            return templates.page(request, "login.html", status=error.http_status, **shown)
        log.info("session.opened", origin=self._guard.origin(request))
        return response

    async def log_out(self, request: web.Request) -> web.Response:
        """End the session."""
        response = templates.redirect("/login")
        self._guard.log_out(request, response)
        log.info("session.closed", origin=self._guard.origin(request))
        return response


def _local(path: str) -> str:
    """Return ``path`` if it leads to a page of ours, else the first one."""
    ours = path.startswith("/") and not path.startswith("//") and path.isascii() and path.isprintable()
    return path if ours and "\\" not in path else "/"
