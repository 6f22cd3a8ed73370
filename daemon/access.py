"""Who may do what: one decision, deny by default.

Over the unix socket, whose file only the service's own user can open, everything is allowed. Over TCP the bearer token
of ``client.json`` is asked for; that file is made at the first start with mode 0600, and the token is compared by its
hash. Public routes are those the route table calls so, matched exactly.
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

TOKEN_PREFIX = "hr_"  # noqa: S105 - the public half of every token
PUBLIC = "public"
#: What each scope includes. With one token, an administrator's, this decides little yet; routes declare their need.
_INCLUDES = {"admin": frozenset({"read", "run", "edit", "admin"})}


class Principal(msgspec.Struct, frozen=True):
    """Somebody who was recognised."""

    name: str
    scopes: frozenset[str]


class Access:
    """Recognises who sent a request and decides whether they may."""

    def __init__(self, token: str) -> None:
        self._token_sha256 = hashlib.sha256(token.encode()).digest()

    def check(self, request: web.Request, scope: str) -> Principal:
        """Return who sent ``request``; raises ``Unauthenticated`` or ``NotAllowed`` if they may not."""
        principal = self._principal(request)
        if principal is None:
            raise errors.Unauthenticated(
                "a token is needed, and must be right", hint="send Authorization: Bearer with the token of client.json"
            )
        if scope not in principal.scopes:
            raise errors.NotAllowed(f"this needs the scope {scope!r}")
        return principal

    def _principal(self, request: web.Request) -> Principal | None:
        if arrived_locally(request):
            return Principal("admin", _INCLUDES["admin"])
        scheme, _, token = request.headers.get("Authorization", "").partition(" ")
        given = hashlib.sha256(token.strip().encode("utf-8", "surrogatepass")).digest()
        if scheme.lower() == "bearer" and hmac.compare_digest(given, self._token_sha256):
            return Principal("admin", _INCLUDES["admin"])
        return None


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
    """Tell local clients where the daemon listens, and the token, in a file only its user can read."""
    temporary = state / "client.json.tmp"
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "w") as file:
        json.dump({"url": url, "token": token}, file)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(state / "client.json")
