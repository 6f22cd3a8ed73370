"""Who may do what: one decision, deny by default.

    the socket's own user ─┐
    bearer token ──────────┼─▶ principal ─▶ has the scope? ─▶ may touch what is named? ─▶ the handler
    session's cookie ──────┤        none: 401       403             404, as if it were not there
    word of the proxy ─────┘

Over the unix socket the kernel tells who connected: the daemon's own user and root may do everything, others need a
token as everywhere. Over TCP that is the token of ``client.json``, made at the first start with mode 0600, or one that
an administrator made (``token_store``). A browser has a session cookie instead; what changes something then also needs
to come from a page of ours, with the session's form token. Public routes are those the route table calls so, matched
exactly. Whoever gives wrong credentials too often is not listened to for a while.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import hmac
import json
import os
import secrets
import socket
import struct
import time
from collections.abc import Iterator
from pathlib import Path
from typing import ClassVar

from aiohttp import web

from ..engine import errors
from . import answers, connections, front, limits, principals, private_files, reach, sessions, token_store

PUBLIC = principals.PUBLIC
_SAFE_METHODS = frozenset({"GET", "HEAD", "OPTIONS"})
#: Nothing ends with what let somebody in.
_ANYHOW = contextlib.nullcontext()
_CREDENTIALS = struct.Struct("3i")  # pid, uid, gid of SO_PEERCRED
#: Where a recognised sender is kept for the handler, also when they may not do what they ask for.
PRINCIPAL = web.RequestKey("principal", principals.Principal)
#: Where the token is kept that forms of this session's pages carry back, in a field or header of these names.
FORM_TOKEN = web.RequestKey("form token", str)
FORM_FIELD = "form_token"
FORM_HEADER = "X-Form-Token"


class TooManyAttempts(errors.Unauthenticated):
    """This address gave too many wrong credentials; ``retry_after_s`` says when it is listened to again."""

    http_status: ClassVar[int] = 429
    retryable: ClassVar[bool] = True

    def __init__(self, wait_s: float) -> None:
        super().__init__("too many wrong tokens came from this address", hint="wait, or use the right one")
        self.retry_after_s = max(1, round(wait_s))


class Access:
    """Recognises who sent a request and decides whether they may.

    ``secure``: browsers come through https only."""

    def __init__(
        self,
        token: str,
        tokens: token_store.TokenStore,
        people: sessions.Sessions,
        subjects: reach.Subjects,
        attempts: limits.Attempts,
        front_: front.Front,
        *,
        secure: bool,
    ) -> None:
        self._token_sha256 = hashlib.sha256(token.encode()).digest()
        self._tokens = tokens
        self._people = people
        self.subjects = subjects
        self._attempts = attempts
        self._secure = secure
        self._front = front_
        self._told_secret = secrets.token_urlsafe(32)
        self._present: dict[str, set[asyncio.Transport]] = {}

    async def check(self, request: web.Request, scope: str, touches: reach.Reach) -> principals.Principal:
        """Return who sent ``request``; raises ``Unauthenticated``, ``NotAllowed`` or ``NotFound`` if they may not."""
        principal = await self.recognised(request)
        if principal is None:
            raise errors.Unauthenticated(
                "a token is needed, and must be right", hint="send Authorization: Bearer with the token of client.json"
            )
        request[PRINCIPAL] = principal
        if scope not in principal.scopes:
            raise errors.NotAllowed(f"this needs the scope {scope!r}")
        await self.subjects.check(principal, touches, request.match_info)
        return principal

    async def recognised(self, request: web.Request) -> principals.Principal | None:
        """Return who sent ``request``, None if that is not known; raises ``TooManyAttempts``."""
        if _is_own_user(request):
            return principals.ADMIN
        scheme, _, secret = request.headers.get("Authorization", "").partition(" ")
        if scheme.lower() != "bearer":  # a proxy's own Basic is none of our business
            told = self._front.told(request)
            return await self._person(request) if told is None else await self._by_proxy(request, told)
        found = self._holder(secret.strip())
        if found is None:
            self._failed(request)
        return found

    async def _by_proxy(self, request: web.Request, told: principals.Principal) -> principals.Principal:
        """Somebody whom a proxy recognised. It lets their browser through whoever made it ask, as a cookie would."""
        await self._check_form(request, f"{self._told_secret}{told.name}")
        return told

    async def _check_form(self, request: web.Request, secret: str) -> None:
        """Raise ``NotAllowed`` for a change that no page of ours asked for; forms made now carry ``secret``'s token."""
        if request.method not in _SAFE_METHODS:
            check_same_origin(request)
            given = request.headers.get(FORM_HEADER)
            given = given or (await answers.form_of(request, files=True)).get(FORM_FIELD, "")
            if not sessions.is_form_token(secret, given):
                raise errors.NotAllowed("the form's token is missing or wrong", hint="reload the page and try again")
        request[FORM_TOKEN] = sessions.form_token(secret)

    def _failed(self, request: web.Request) -> None:
        """Count wrong credentials; raises ``TooManyAttempts`` from the eleventh on."""
        address = limits.network(self.origin(request))
        wait_s = self._attempts.wait_s(address)
        if wait_s > 0:
            raise TooManyAttempts(wait_s)
        self._attempts.count(address)

    def _holder(self, secret: str) -> principals.Principal | None:
        """Return whom a token stands for, if it is one of ours and good."""
        given = hashlib.sha256(secret.encode("utf-8", "surrogatepass")).digest()
        if hmac.compare_digest(given, self._token_sha256):
            return principals.ADMIN
        token = self._tokens.find(secret)
        return None if token is None else token_store.principal(token)

    async def _person(self, request: web.Request) -> principals.Principal | None:
        """Recognise a session's cookie; raises ``NotAllowed`` for a change that no page of ours asked for."""
        session = self.session(request)
        if session is None:
            return None
        await self._check_form(request, request.cookies[self._cookie(request)])
        return session.principal

    def session(self, request: web.Request) -> sessions.Session | None:
        """Return the session whose cookie came with ``request``, if it is good."""
        cookie = request.cookies.get(self._cookie(request), "") if "Cookie" in request.headers else ""
        return self._people.find(cookie) if cookie else None

    def log_in(self, request: web.Request, response: web.StreamResponse, secret: str) -> principals.Principal:
        """Put a new session's cookie into ``response``, for a login token, the client's or anybody's; returns who.

        A login token is used up by this. Raises ``Unauthenticated``."""
        principal = principals.ADMIN if self._people.redeem_login(secret) else self._holder(secret)
        if principal is None:
            self._failed(request)
            raise errors.Unauthenticated(
                "this token is wrong, was used before, or is not good any more",
                hint="the token of client.json in the daemon's state directory works always",
            )
        self.begin_session(request, response, principal)
        return principal

    def begin_session(self, request: web.Request, response: web.StreamResponse, who: principals.Principal) -> None:
        """Put a new session's cookie into ``response``, instead of the one there may be."""
        self.log_out(request, response)
        response.set_cookie(
            self._cookie(request),
            self._people.open(who),
            max_age=int(sessions.ABSOLUTE_S),
            path="/",
            secure=self._secure,
            httponly=True,
            samesite="Strict",
        )

    def log_out(self, request: web.Request, response: web.StreamResponse) -> None:
        """End the session, if there is one, here and in the browser, with what it still has open."""
        name = self._cookie(request)
        key = self._people.close(request.cookies.get(name, ""))
        if key:
            self._dismiss(key, but=request.transport)
        response.del_cookie(name, path="/", secure=self._secure, httponly=True, samesite="Strict")

    async def revoke(self, name: str) -> token_store.Token:
        """Take a token from whoever has it, with the sessions it began and the connections it has open.

        Raises ``NotFound``. After this returns nothing is answered to it any more."""
        token = await self._tokens.revoke(name)
        self._people.close_all(token.id)
        self._dismiss(token.id)
        return token

    # -- being connected --------------------------------------------------------------------------------------------

    def present(self, principal: principals.Principal, request: web.Request) -> contextlib.AbstractContextManager[None]:
        """While a request is answered: have its connection cut when what let its sender in is taken or runs out.

        So an event stream ends with its token, not at its own end. What was begun for the sender goes on."""
        if request.transport is None or not principal.keys:
            return _ANYHOW
        return self._as_long_as(principal, request.transport)

    @contextlib.contextmanager
    def _as_long_as(self, principal: principals.Principal, transport: asyncio.Transport) -> Iterator[None]:
        timer = None
        if principal.expires_s is not None:
            left_s = min(max(0.0, principal.expires_s - time.time()), sessions.ABSOLUTE_S)
            timer = asyncio.get_running_loop().call_later(left_s, transport.abort)
        for key in principal.keys:
            self._present.setdefault(key, set()).add(transport)
        try:
            yield
        finally:
            if timer is not None:
                timer.cancel()
            for key in principal.keys:
                here = self._present.get(key, set())
                here.discard(transport)
                if not here:
                    self._present.pop(key, None)

    def _dismiss(self, key: str, but: asyncio.BaseTransport | None = None) -> None:
        for transport in list(self._present.get(key, ())):
            if transport is not but:
                transport.abort()

    def origin(self, request: web.Request) -> str:
        """Return where a request came from: an address, or "socket"."""
        return "socket" if arrived_locally(request) else self._front.origin(request)

    def check_host(self, request: web.Request) -> None:
        """Raise ``Misdirected`` for a request over TCP under a name that is none of ours."""
        if not arrived_locally(request):
            self._front.check_host(request)

    def _cookie(self, request: web.Request) -> str:
        """Return the cookie's name. Browsers do not tell ports apart, and a machine may run several daemons."""
        if self._secure:
            return "__Host-headrace"
        port = request.host.rpartition(":")[2]
        return f"headrace-{port}" if port.isascii() and port.isdecimal() else "headrace"


def check_same_origin(request: web.Request) -> None:
    """Raise ``NotAllowed`` unless the browser says that a page of ours made the request."""
    if not sessions.same_origin(request.headers):
        raise errors.NotAllowed(
            "this was not sent by a page of this daemon", hint="open the page itself and try again from there"
        )


def arrived_locally(request: web.Request) -> bool:
    """Whether the request came through the unix socket."""
    protocol = request.protocol
    return isinstance(protocol, connections.Connection) and protocol.is_local


def _is_own_user(request: web.Request) -> bool:
    """Whether the kernel says that the other end of the unix socket is the daemon's own user, or root."""
    if request.transport is None or not arrived_locally(request):  # hung up already
        return False
    connection = request.transport.get_extra_info("socket")
    told = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
    return _CREDENTIALS.unpack(told)[1] in (0, os.geteuid())


def client_token(state: Path) -> str:
    """Return the local client's token, made at the first start. If we die midway the file is whole or not there.

    Raises ``ConfigurationInvalid`` for a file that others could read."""
    path = state / "client.json"
    private_files.check(path)
    try:
        token = json.loads(path.read_text()).get("token", "")
    except (FileNotFoundError, ValueError, AttributeError):
        token = ""
    known = isinstance(token, str) and token.startswith(token_store.PREFIX)
    return token if known else token_store.PREFIX + secrets.token_urlsafe(32)


def write_client_file(state: Path, url: str, token: str) -> None:
    """Tell local clients where the daemon listens, and the token."""
    private_files.write(state / "client.json", json.dumps({"url": url, "token": token}))
