"""Sessions of people in a browser: one-time login tokens, what their cookie stands for, and what guards their forms.

Everything lives in memory and only as sha256: a restart logs everybody out, and a dump of memory logs nobody in. A
session ends twelve hours after the login, an hour after its last use, or when it is closed. ``same_origin`` and
``form_token`` refuse what another site makes a logged-in browser send. Pure but for the clock and randomness it is
given; called by ``access``.
"""

from __future__ import annotations

import hashlib
import hmac
import secrets
import urllib.parse
from collections.abc import Mapping

import msgspec

from ..engine import ports
from . import principals

LOGIN_S = 3600.0
ABSOLUTE_S = 12 * 3600.0
IDLE_S = 3600.0
#: More people than one daemon has; the longest unused goes first.
_SESSIONS_MAX = 1000
_TOKEN_BYTES = 32


class Session(msgspec.Struct):
    """Somebody who logged in, and until when."""

    principal: principals.Principal
    ends_s: float
    used_s: float


class Sessions:
    """The login tokens and sessions there are."""

    def __init__(self, clock: ports.Clock) -> None:
        self._clock = clock
        self._logins: dict[bytes, float] = {}
        self._sessions: dict[bytes, Session] = {}

    def issue_login(self) -> str:
        """Return a token that opens one session within the hour."""
        token = secrets.token_urlsafe(_TOKEN_BYTES)
        self._logins[_digest(token)] = self._clock.monotonic() + LOGIN_S
        return token

    def redeem_login(self, token: str) -> bool:
        """Use up a login token; returns whether it was good."""
        until_s = self._logins.pop(_digest(token), None)
        return until_s is not None and self._clock.monotonic() < until_s

    def open(self, who: principals.Principal) -> str:
        """Begin a session for somebody and return the id that goes into the cookie.

        It ends with what let them in, if that ends sooner, and is one more of their keys."""
        now_s = self._clock.monotonic()
        self._sessions = {key: found for key, found in self._sessions.items() if not _over(found, now_s)}
        if len(self._sessions) >= _SESSIONS_MAX:
            del self._sessions[min(self._sessions, key=lambda key: self._sessions[key].used_s)]
        session_id = secrets.token_urlsafe(_TOKEN_BYTES)
        key = _digest(session_id)
        left_s = ABSOLUTE_S if who.expires_s is None else min(ABSOLUTE_S, who.expires_s - self._clock.time())
        there = msgspec.structs.replace(who, keys=(*who.keys, key.hex()), expires_s=self._clock.time() + left_s)
        self._sessions[key] = Session(there, now_s + left_s, now_s)
        return session_id

    def find(self, session_id: str) -> Session | None:
        """Return the session, which counts as a use of it, or None if there is none (any more)."""
        key, now_s = _digest(session_id), self._clock.monotonic()
        session = self._sessions.get(key)
        if session is None or _over(session, now_s):
            self._sessions.pop(key, None)
            return None
        session.used_s = now_s
        return session

    def close(self, session_id: str) -> str:
        """End a session and return its key; harmless if there is none (and empty)."""
        key = _digest(session_id)
        return key.hex() if self._sessions.pop(key, None) is not None else ""

    def close_all(self, key: str) -> None:
        """End all sessions of whoever has this key."""
        self._sessions = {id_: found for id_, found in self._sessions.items() if key not in found.principal.keys}


def _over(session: Session, now_s: float) -> bool:
    return now_s >= session.ends_s or now_s >= session.used_s + IDLE_S


def _digest(secret: str) -> bytes:
    return hashlib.sha256(secret.encode("utf-8", "surrogatepass")).digest()


def form_token(session_id: str) -> str:
    """Return what every form of this session carries: made of the cookie, which no other site can read."""
    return hmac.digest(session_id.encode("utf-8", "surrogatepass"), b"form", "sha256").hex()


def is_form_token(session_id: str, given: str) -> bool:
    """Whether ``given`` is the session's form token."""
    return hmac.compare_digest(form_token(session_id).encode(), given.encode("utf-8", "surrogatepass"))


def same_origin(headers: Mapping[str, str]) -> bool:
    """Whether a request was made by a page of ours, as far as the browser tells.

    One of the two headers has to be there: every browser of the last years sends one with every form."""
    site, origin = headers.get("Sec-Fetch-Site"), headers.get("Origin")
    if site is None and origin is None:
        return False
    if site is not None and site != "same-origin":
        return False
    # A proxy may change Host or scheme. Where the browser itself has compared the origins, only "null" is suspicious.
    return origin is None or (origin != "null" and (site is not None or _authority(origin) == headers.get("Host")))


def _authority(origin: str) -> str | None:
    try:
        return urllib.parse.urlsplit(origin).netloc or None
    except ValueError:
        return None
