"""The route table, and the one place where a request meets it: who may, what went wrong, how that is answered.

A route without a scope cannot be made. Handlers raise errors of ours; they become problems here, or pages for people,
who are sent to the login where they need one. Anything else is a defect: logged with its traceback, which stays there.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Awaitable, Callable, Iterable

import structlog
from aiohttp import web

from ..engine import errors
from . import access, templates

log = structlog.get_logger()

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]

#: Where a recognised sender is kept for the handler.
PRINCIPAL = web.RequestKey("principal", access.Principal)


@dataclasses.dataclass(frozen=True, slots=True)
class Route:
    """One row: method, path pattern, what it needs (a scope, or ``access.PUBLIC``), who answers, one line of help.

    ``page``: it is made for people in a browser, who are sent to the login rather than refused.
    """

    method: str
    path: str
    scope: str
    handler: Handler
    summary: str
    page: bool = False


def install(application: web.Application, table: Iterable[Route], guard: access.Access) -> None:
    """Put every route of ``table`` into the application."""
    for route in table:
        handler = _guarded(route, guard)
        if route.method == "GET":
            application.router.add_get(route.path, handler)  # and HEAD
        else:  # "*" is for webhooks, which decide about methods on their own
            application.router.add_route(route.method, route.path, handler)


def _guarded(route: Route, guard: access.Access) -> Handler:
    public = route.scope == access.PUBLIC

    async def handle(request: web.Request) -> web.StreamResponse:
        try:
            if not public:
                request[PRINCIPAL] = await guard.check(request, route.scope)
            return await route.handler(request)
        except errors.HeadraceError as error:
            return _refused(route, request, error)
        except (web.HTTPException, ConnectionError):
            raise
        except Exception:  # the seam of HTTP: one request fails, the daemon goes on
            log.exception("request.failed", method=request.method, path=request.path)
            return _refused(
                route, request, errors.HeadraceError("something is wrong inside; the daemon's log says what")
            )

    return handle


def _refused(route: Route, request: web.Request, error: errors.HeadraceError) -> web.Response:
    looks = route.scope != access.PUBLIC and request.method in ("GET", "HEAD")
    if isinstance(error, errors.Unauthenticated) and looks and (route.page or templates.wants_page(request)):
        return templates.to_login(request)
    return templates.refusal(request, error)


@web.middleware
async def problems_for_unknown(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Answer unknown routes and methods as problems too, instead of aiohttp's plain text."""
    try:
        return await handler(request)
    except web.HTTPNotFound:
        return templates.refusal(request, errors.NotFound(f"there is nothing at {request.path}"))
    except web.HTTPMethodNotAllowed as error:
        allowed = ", ".join(sorted(error.allowed_methods))
        impossible = errors.InvalidRequest(f"{request.method} is not possible here")
        response = templates.refusal(request, impossible, status=405)
        response.headers["Allow"] = allowed
        return response
