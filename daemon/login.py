"""Logging in and out in a browser.

    GET  /login    a page with a button (for ``?token=…``) or a field for a token; whoever is logged in is sent on
    POST /login    uses the token up and begins a session
    POST /logout   ends it
    GET  /login/oidc            sends the browser to the OpenID provider, if there is one
    GET  /login/oidc/callback   where it comes back, and a session begins

Looking at a link must not use it up: mail and chat programs look at every link. So only the button does. A token of
the terminal is good once; the token of ``client.json`` and those that an administrator made are taken as well, and the
session may do what its token may.
"""

from __future__ import annotations

import structlog
from aiohttp import web

from ..engine import errors
from . import access, answers, assets, id_token, oidc, routes, templates
from .reach import Reach

log = structlog.get_logger()

#: The cookie of whoever is on their way to the provider.
_STATE = "headrace-login"


class Login:
    """The handlers, who decides, and the OpenID provider if there is one."""

    def __init__(self, guard: access.Access, provider: oidc.Provider | None, *, secure: bool) -> None:
        self._guard = guard
        self._provider = provider
        self._secure = secure

    def table(self) -> list[routes.Route]:
        """Return the routes."""
        return [
            routes.Route("GET", "/login", access.PUBLIC, self.show, "the page that logs in"),
            routes.Route("POST", "/login", access.PUBLIC, self.log_in, "begin a session", audited=True),
            routes.Route("POST", "/logout", "read", self.log_out, "end the session", touches=Reach.GENERAL),
            routes.Route("GET", "/login/oidc", access.PUBLIC, self.visit_provider, "log in at the OpenID provider"),
            routes.Route(
                *("GET", "/login/oidc/callback", access.PUBLIC, self.come_back, "where the provider sends people back"),
                audited=True,
            ),
            routes.Route("GET", "/style.css", access.PUBLIC, templates.style, "how pages look"),
            routes.Route("GET", "/assets/{name}", access.PUBLIC, assets.serve, "what pages load", counted=False),
        ]

    async def show(self, request: web.Request) -> web.Response:
        """The page; nothing is used up by looking at it."""
        next_page = _local(request.query.get("next", "/"))
        if self._guard.session(request) is not None:
            return templates.redirect(next_page)
        # A cookie does not come along from another site; from our own page it does.
        from_elsewhere = request.headers.get("Sec-Fetch-Site") == "cross-site"
        token = request.query.get("token", "")
        return self._page(request, token=token, next=next_page, elsewhere=from_elsewhere)

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
            return self._page(request, next=next_page, error=error)
        log.info("session.opened", origin=self._guard.origin(request))
        return response

    async def visit_provider(self, request: web.Request) -> web.Response:
        """Send the browser there; what comes back has to come to this browser."""
        next_page = _local(request.query.get("next", "/"))
        try:
            address, state = await self._at_hand().begin(next_page)
        except id_token.Refused as error:
            return self._page(request, next=next_page, error=error)
        response = templates.redirect(address)
        # Lax: the way back begins at another site. It is of no use to anybody without the provider's answer.
        self._keep_state(response, state, max_age=int(oidc.VISIT_S))
        return response

    async def come_back(self, request: web.Request) -> web.Response:
        """Begin a session, or say why not."""
        try:
            who, next_page = await self._at_hand().finish(request.query, request.cookies.get(_STATE, ""))
        except (id_token.Refused, errors.NotAllowed) as error:
            log.warning("login.refused", origin=self._guard.origin(request), reason=error.message)
            response = self._page(request, error=error)
        else:
            request[routes.PRINCIPAL] = who
            # A page that goes on by itself, no redirect: that would still count as the other site's, and the cookie
            # of the new session does not come along from there.
            response = templates.page(request, "welcome.html", name=who.name, next=next_page)
            response.headers["Refresh"] = f"0; url={next_page}"
            self._guard.begin_session(request, response, who)
            log.info("session.opened", origin=self._guard.origin(request), who=who.name)
        self._keep_state(response, "", max_age=0)
        return response

    def _at_hand(self) -> oidc.Provider:
        if self._provider is None:
            raise errors.NotFound("no OpenID provider is configured", hint="the setting access.oidc names one")
        return self._provider

    def _keep_state(self, response: web.Response, state: str, *, max_age: int) -> None:
        response.set_cookie(
            *(_STATE, state), max_age=max_age, path="/login/oidc", secure=self._secure, httponly=True, samesite="Lax"
        )

    def _page(
        self,
        request: web.Request,
        *,
        token: str = "",
        next: str = "/",  # noqa: A002 - what the page calls it
        elsewhere: bool = False,
        error: errors.HeadraceError | None = None,
    ) -> web.Response:
        provider = self._provider.name if self._provider is not None else ""
        shown = {"token": token, "next": next, "elsewhere": elsewhere, "error": error, "provider": provider}
        return templates.page(request, "login.html", status=error.http_status if error else 200, **shown)

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
