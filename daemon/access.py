"""Who may do what: one decision, deny by default.

Over the unix socket, whose file only the service's own user can open, everything is allowed. Over TCP the bearer token
of ``client.json`` is asked for; that file is made at the first start with mode 0600, and the token is compared by its
hash. A browser has a session cookie instead; what changes something then also needs to come from a page of ours, with
the session's form token. Public routes are those the route table calls so, matched exactly.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import os
import secrets
import socket
from pathlib import Path

import msgspec
from aiohttp import web

from ..engine import errors
from . import answers, sessions

TOKEN_PREFIX = "hr_"  # noqa: S105 - the public half of every token
PUBLIC = "public"
#: What each scope includes. With one token, an administrator's, this decides little yet; routes declare their need.
_INCLUDES = {"admin": frozenset({"read", "run", "edit", "admin"})}


class Principal(msgspec.Struct, frozen=True):
    """Somebody who was recognised."""

    name: str
    scopes: frozenset[str]


_ADMIN = Principal("admin", _INCLUDES["admin"])
_SAFE_METHODS = frozenset({"GET", "HEAD", "OPTIONS"})
#: Where the token is kept that forms of this session's pages carry back, in a field or header of these names.
FORM_TOKEN = web.RequestKey("form token", str)
FORM_FIELD = "form_token"
FORM_HEADER = "X-Form-Token"


class Access:
    """Recognises who sent a request and decides whether they may. ``secure``: browsers come through https only."""

    def __init__(self, token: str, people: sessions.Sessions, *, secure: bool) -> None:
        self._token_sha256 = hashlib.sha256(token.encode()).digest()
        self._people = people
        self._secure = secure

    async def check(self, request: web.Request, scope: str) -> Principal:
        """Return who sent ``request``; raises ``Unauthenticated`` or ``NotAllowed`` if they may not."""
        principal = self._principal(request) or await self._person(request)
        if principal is None:
            raise errors.Unauthenticated(
                "a token is needed, and must be right", hint="send Authorization: Bearer with the token of client.json"
            )
        if scope not in principal.scopes:
            raise errors.NotAllowed(f"this needs the scope {scope!r}")
        return principal

    def _principal(self, request: web.Request) -> Principal | None:
        if arrived_locally(request):
            return _ADMIN
        scheme, _, token = request.headers.get("Authorization", "").partition(" ")
        return _ADMIN if scheme.lower() == "bearer" and self._is_client_token(token.strip()) else None

    def _is_client_token(self, token: str) -> bool:
        given = hashlib.sha256(token.encode("utf-8", "surrogatepass")).digest()
        return hmac.compare_digest(given, self._token_sha256)

    async def _person(self, request: web.Request) -> Principal | None:
        """Recognise a session's cookie; raises ``NotAllowed`` for a change that no page of ours asked for."""
        given_wrongly = request.headers.get("Authorization", "").lower().startswith("bearer ")
        session = None if given_wrongly else self.session(request)  # a proxy's own Basic is none of our business
        if session is None:
            return None
        cookie = request.cookies[self._cookie(request)]
        if request.method not in _SAFE_METHODS:
            check_same_origin(request)
            given = request.headers.get(FORM_HEADER) or (await answers.form_of(request)).get(FORM_FIELD, "")
            if not sessions.is_form_token(cookie, given):
                raise errors.NotAllowed("the form's token is missing or wrong", hint="reload the page and try again")
        request[FORM_TOKEN] = sessions.form_token(cookie)
        return Principal(session.name, session.scopes)

    def session(self, request: web.Request) -> sessions.Session | None:
        """Return the session whose cookie came with ``request``, if it is good."""
        cookie = request.cookies.get(self._cookie(request), "") if "Cookie" in request.headers else ""
        return self._people.find(cookie) if cookie else None

    def log_in(self, request: web.Request, response: web.StreamResponse, token: str) -> None:
        """Put a new session's cookie into ``response``, for a login token or the client's; raises ``Unauthenticated``.

        A login token is used up by this."""
        if not self._people.redeem_login(token) and not self._is_client_token(token):
            raise errors.Unauthenticated(
                "this token is wrong, was used before, or is older than an hour",
                hint="the token of client.json in the daemon's state directory works always",
            )
        self.log_out(request, response)
        response.set_cookie(
            self._cookie(request),
            self._people.open(_ADMIN.name, _ADMIN.scopes),
            max_age=int(sessions.ABSOLUTE_S),
            path="/",
            secure=self._secure,
            httponly=True,
            samesite="Strict",
        )

    def log_out(self, request: web.Request, response: web.StreamResponse) -> None:
        """End the session, if there is one, here and in the browser."""
        name = self._cookie(request)
        self._people.close(request.cookies.get(name, ""))
        response.del_cookie(name, path="/", secure=self._secure, httponly=True, samesite="Strict")

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
    connection = request.transport.get_extra_info("socket") if request.transport is not None else None
    return connection is not None and connection.family == socket.AF_UNIX


def client_token(state: Path) -> str:
    """Return the local client's token, made at the first start. If we die midway the file is whole or not there."""
    path = state / "client.json"
    try:
        token = json.loads(path.read_text()).get("token", "")
    except (FileNotFoundError, ValueError, AttributeError):
        token = ""
    known = isinstance(token, str) and token.startswith(TOKEN_PREFIX)
    return token if known else TOKEN_PREFIX + secrets.token_urlsafe(32)


def write_client_file(state: Path, url: str, token: str) -> None:
    """Tell local clients where the daemon listens, and the token."""
    write_private(state / "client.json", json.dumps({"url": url, "token": token}))


def write_private(path: Path, text: str) -> None:
    """Write a file that only its user can read. If we die midway it is the old one or the new one, whole."""
    temporary = path.with_name(path.name + ".tmp")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "w") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)
