"""The route table, and the one place where a request meets it: who may, what went wrong, how that is answered.

A route without a scope cannot be made. Handlers raise errors of ours; they become problems here. Anything else is a
defect: logged with its traceback, answered without it.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Awaitable, Callable, Iterable

import structlog
from aiohttp import web

from ..engine import errors
from . import access, answers

log = structlog.get_logger()

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]

#: Where a recognised sender is kept for the handler.
PRINCIPAL = web.RequestKey("principal", access.Principal)


@dataclasses.dataclass(frozen=True, slots=True)
class Route:
    """One row: method, path pattern, what it needs (a scope, or ``access.PUBLIC``), who answers, one line of help."""

    method: str
    path: str
    scope: str
    handler: Handler
    summary: str


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
                request[PRINCIPAL] = guard.check(request, route.scope)
            return await route.handler(request)
        except errors.HeadraceError as error:
            return answers.problem(error)
        except (web.HTTPException, ConnectionError):
            raise
        except Exception:  # the seam of HTTP: one request fails, the daemon goes on
            log.exception("request.failed", method=request.method, path=request.path)
            return answers.problem(errors.HeadraceError("something is wrong inside; the daemon's log says what"))

    return handle


@web.middleware
async def problems_for_unknown(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Answer unknown routes and methods as problems too, instead of aiohttp's plain text."""
    try:
        return await handler(request)
    except web.HTTPNotFound:
        return answers.problem(errors.NotFound(f"there is nothing at {request.path}"))
    except web.HTTPMethodNotAllowed as error:
        allowed = ", ".join(sorted(error.allowed_methods))
        response = answers.problem(errors.InvalidRequest(f"{request.method} is not possible here"), status=405)
        response.headers["Allow"] = allowed
        return response
