"""The route table, and the one place where a request meets it: who may, what went wrong, how that is answered, and
what of it stands in the audit log.

A route without a scope that exists cannot be made, so a forgotten one stops the start. Handlers raise errors of ours;
they become problems here, or pages for people, who are sent to the login where they need one. Anything else is a
defect: logged with its traceback, which stays there.
"""

from __future__ import annotations

import asyncio
import itertools
import re
import time
from collections.abc import Awaitable, Callable, Iterable
from typing import ClassVar

import msgspec
import structlog
from aiohttp import web

from ..engine import errors, ids
from . import access, answers, audit, limits, metrics, operations, principals, templates
from .reach import Reach

log = structlog.get_logger()

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]

PRINCIPAL = access.PRINCIPAL
_GOOD_REQUEST_ID = re.compile(r"[A-Za-z0-9._:-]{1,100}")
#: What a head may have, in bytes: its address, and its headers together. Each line is bounded by ``connections``.
_TARGET_BYTES_MAX = 4096
_HEADERS_BYTES_MAX = 32 * 1024
_SEGMENT = re.compile(r"\{(\w+)\}")
_SAFE_METHODS = frozenset({"GET", "HEAD", "OPTIONS"})


class Route(msgspec.Struct, frozen=True):
    """One row: method, path pattern, what it needs (a scope, or ``access.PUBLIC``), who answers, one line of help.

    ``page``: it is made for people in a browser, who are sent to the login rather than refused. ``touches``: what those
    who are limited to some flows must be allowed to touch. ``audited``: it stands in the audit log; what changes
    something does unless it is public. ``counted``: how often an address may ask is limited. ``named``: it is there
    under the daemon's own names only. ``tells``: what programs learn of it from the description of the API; those of
    pages tell nothing.
    """

    method: str
    path: str
    scope: str
    handler: Handler
    summary: str
    touches: Reach = Reach.EVERYTHING
    tells: operations.Operation | None = None
    page: bool = False
    audited: bool | None = None
    counted: bool = True
    named: bool = True

    def __post_init__(self) -> None:
        """Refuse a route of which nobody said who may use it."""
        if self.scope not in (*principals.SCOPES, access.PUBLIC):
            raise errors.ConfigurationInvalid(f"the route {self.method} {self.path} needs no scope that exists")

    def stands_in_audit(self, method: str) -> bool:
        """Whether a request that was let through is written down."""
        changes = self.scope != access.PUBLIC and method not in _SAFE_METHODS
        return changes if self.audited is None else self.audited


class MethodNotAllowed(errors.InvalidRequest):
    """There is something at this address, but not for this method."""

    http_status: ClassVar[int] = 405


class Desk:
    """Meets every request: asks the guard, calls the handler, writes it down, answers.

    No answer tells of anything that could be lost yet: ``settled`` returns when what has happened so far is on disk,
    and what a handler leaves in ``answers.CONFIRM`` does the same for its answer: the disk works while that is made."""

    def __init__(
        self,
        guard: access.Access,
        book: audit.Audit,
        refusals: limits.Attempts,
        rate: limits.Rate | None,
        figures: metrics.Metrics,
        settled: Callable[[], Awaitable[None]],
    ) -> None:
        self._guard = guard
        self._settled = settled
        self._audit = book
        self._refusals = refusals  # how many of an address are written down
        self._rate = rate  # None: everybody is of this machine
        self._figures = figures

    def install(self, application: web.Application, table: Iterable[Route]) -> None:
        """Put every route of ``table`` into the application."""
        for route in table:
            handler = self._handler(route)
            path = _SEGMENT.sub(r"{\1:[^/]+}", route.path)  # aiohttp's own pattern takes no braces, names do
            if route.method == "GET":
                application.router.add_get(path, handler)  # and HEAD
            else:  # "*" is for webhooks, which decide about methods on their own
                application.router.add_route(route.method, path, handler)

    def _handler(self, route: Route) -> Handler:
        async def handle(request: web.Request) -> web.StreamResponse:
            began = time.perf_counter()
            response = await answered(request)
            self._figures.request(request.method, route.path, response.status, time.perf_counter() - began)
            return response

        async def answered(request: web.Request) -> web.StreamResponse:
            try:
                if route.stands_in_audit(request.method):
                    self._audit.check()
                response = await self._admitted(route, request)
                self._write(route, request, response.status, made=response.headers.get("Location", ""))
                if (confirm := request.get(answers.CONFIRM)) is not None:
                    await confirm()
            except errors.HeadraceError as error:
                self._write(route, request, error.http_status, reason=error.message)
                return _refused(route, request, error)
            except (web.HTTPException, ConnectionError):
                raise
            except asyncio.CancelledError:  # the daemon stops; what was begun may have happened
                self._write(route, request, 503, reason="cut off")
                raise
            except Exception:  # the seam of HTTP: one request fails, the daemon goes on
                log.exception("request.failed", method=request.method, path=request.path)
                self._write(route, request, 500, reason="a defect")
                defect = errors.HeadraceError("something is wrong inside; the daemon's log says what")
                return _refused(route, request, defect)
            return response

        return handle

    async def _admitted(self, route: Route, request: web.Request) -> web.StreamResponse:
        if self._rate is not None and route.counted and not access.arrived_locally(request):
            wait_s = self._rate.wait_s(limits.network(self._guard.origin(request)))
            if wait_s > 0:
                raise limits.TooManyRequests("come from this address", wait_s)
        if route.named:
            self._guard.check_host(request)
        if route.scope == access.PUBLIC:
            return await route.handler(request)
        principal = await self._guard.check(request, route.scope, route.touches)
        if route.page and request.method in ("GET", "POST"):
            await templates.look_around(request, principal)
        with self._guard.present(principal, request):
            response = await route.handler(request)
            if request.method in _SAFE_METHODS and not response.prepared:
                await self._settled()  # what changes something has waited for its own
            return response

    def _write(self, route: Route, request: web.Request, status: int, *, made: str = "", reason: str = "") -> None:
        """Write down what changes something, and whoever was refused, as long as they are not refused all the time."""
        who = request.get(PRINCIPAL)
        was_refused = status in (401, 403, 429) and route.scope != access.PUBLIC
        if not was_refused and not route.stands_in_audit(request.method):
            return
        if who is None:
            address = limits.network(self._guard.origin(request))
            if self._refusals.wait_s(address) > 0:
                return
            self._refusals.count(address)
        before, after = request.get(answers.CHANGE, ("", ""))
        entry = audit.Entry(
            at="",  # the log puts it in
            who=who.name if who else "",
            token=who.keys[0] if who and who.keys else "",
            what=f"{request.method} {route.path}",
            target=request.path[:2000],
            origin=self._guard.origin(request),
            status=status,
            request=request[answers.REQUEST_ID],
            made=made,
            reason=reason,
            before=before,
            after=after,
        )
        self._audit.write(entry)


def _refused(route: Route, request: web.Request, error: errors.HeadraceError) -> web.Response:
    looks = route.scope != access.PUBLIC and request.method in ("GET", "HEAD")
    is_stranger = isinstance(error, errors.Unauthenticated) and error.http_status == 401
    if is_stranger and looks and (route.page or templates.wants_page(request)):
        return templates.to_login(request)
    return templates.refusal(request, error)


@web.middleware
async def named(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Give the request the name that its sender chose for it (``X-Request-Id``), or a new one; refuse huge heads."""
    given = request.headers.get("X-Request-Id", "")
    request[answers.REQUEST_ID] = given if _GOOD_REQUEST_ID.fullmatch(given) else ids.random_letters()
    if len(request.raw_path) > _TARGET_BYTES_MAX:
        return templates.refusal(request, errors.TooLarge("the address is too long"), status=414)
    if sum(map(len, itertools.chain.from_iterable(request.raw_headers))) > _HEADERS_BYTES_MAX:
        return templates.refusal(request, errors.TooLarge("the headers are too long"), status=431)
    structlog.contextvars.bind_contextvars(request=request[answers.REQUEST_ID])  # each request has a context of its own
    return await handler(request)


async def finish(request: web.Request, response: web.StreamResponse) -> None:
    """Put into every answer, before it is sent, its request's name and what keeps browsers from making more of it."""
    headers = response.headers
    if answers.REQUEST_ID in request:
        headers.setdefault("X-Request-Id", request[answers.REQUEST_ID])
    headers.setdefault("X-Content-Type-Options", "nosniff")
    headers.setdefault("Content-Security-Policy", "default-src 'none'; frame-ancestors 'none'")
    headers.setdefault("Cache-Control", "no-store")
    headers["Server"] = "headrace"


@web.middleware
async def problems_for_unknown(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Answer unknown routes and methods as problems too, instead of aiohttp's plain text."""
    try:
        return await handler(request)
    except web.HTTPNotFound:
        return templates.refusal(request, errors.NotFound(f"there is nothing at {request.path}"))
    except web.HTTPMethodNotAllowed as error:
        allowed = ", ".join(sorted(error.allowed_methods))
        response = templates.refusal(request, MethodNotAllowed(f"{request.method} is not possible here"))
        response.headers["Allow"] = allowed
        return response
