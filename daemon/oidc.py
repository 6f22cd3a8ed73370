"""Logging in with an OpenID provider: authorization code flow with PKCE.

    browser ─ GET /login/oidc ─▶ daemon ─ 303 ─▶ provider ─ 303 ?code&state ─▶ daemon ─ POST code, verifier ─▶ provider
                                                                                  ◀─ ID token, signed ─┘

Owns what is between the two visits and what the provider publishes about itself; the judgement over an ID token is
``id_token``'s. Sources: OpenID Connect Core 1.0, Discovery 1.0, RFC 7636 (PKCE), RFC
9207 (``iss`` in the answer). An outage of the provider keeps new people out and nobody else. Called by ``login``.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import secrets
import urllib.parse
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import aiohttp
import msgspec

from ..engine import ports
from . import id_token, principals, written

#: How long somebody may take at the provider; how many may be on their way at once.
VISIT_S = 600.0
_VISITS_MAX = 1000
_PUBLISHED_S = 3600.0
_KEYS_AGAIN_S = 60.0
_ANSWER_S = 10.0
_ANSWER_BYTES_MAX = 1 << 20
_GROUPS_MAX = 1000
_AGAIN = "begin again on the login page"


class Oidc(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The setting ``access.oidc``. ``url``: where browsers find this daemon, for the way back.

    ``client_secret_file``: without one the credential ``oidc-client-secret`` counts, and without that the client is a
    public one. ``name_claim`` says what people are called here, ``roles_claim`` where their groups stand; ``roles``:
    role or scope of a group; the group ``*`` is everybody whom the provider knows."""

    issuer: str
    client_id: str
    url: str
    roles: dict[str, str]
    client_secret_file: str = ""
    scopes: tuple[str, ...] = ("openid", "profile", "email")
    name_claim: str = "preferred_username"
    roles_claim: str = "groups"

    def __post_init__(self) -> None:
        """Refuse what cannot be used, or not safely."""
        for field, text in (("issuer", self.issuer), ("url", self.url)):
            check_address(text, field)
        if not self.client_id:
            raise ValueError("`client_id` is empty")
        if "openid" not in self.scopes:
            raise ValueError('`scopes` must hold "openid"')
        if self.client_secret_file and not Path(self.client_secret_file).is_file():
            raise ValueError(f"`client_secret_file` {self.client_secret_file!r} is not a file")
        principals.check_roles(self.roles, wanted=True)


class Visit(msgspec.Struct, frozen=True):
    """Somebody who was sent to the provider: what has to come back, and where they wanted to go."""

    nonce: str
    verifier: str
    next_page: str
    began_s: float


class Published(msgspec.Struct, frozen=True):
    """What the provider says about itself (Discovery 1.0, section 3)."""

    issuer: str
    authorization_endpoint: str
    token_endpoint: str
    jwks_uri: str
    userinfo_endpoint: str = ""
    token_endpoint_auth_methods_supported: tuple[str, ...] = ("client_secret_basic",)


class Provider:
    """One provider; close it last."""

    def __init__(self, setting: Oidc, secret: str, clock: ports.Clock) -> None:
        self._setting = setting
        self.secret = secret
        self._clock = clock
        self._visits: dict[str, Visit] = {}
        self._published: Published | None = None
        self._published_s = 0.0
        self._keys: dict[str, Any] = {"keys": []}
        self._keys_s = float("-inf")
        self._session: aiohttp.ClientSession | None = None

    @property
    def name(self) -> str:
        """What the provider is called on the page that logs in."""
        return urllib.parse.urlsplit(self._setting.issuer).netloc

    async def close(self) -> None:
        """Close the connections."""
        if self._session is not None:
            await self._session.close()

    async def begin(self, next_page: str) -> tuple[str, str]:
        """Return where to send the browser, and the state that its cookie keeps. Raises ``Refused``."""
        published = await self._about()
        now_s = self._clock.monotonic()
        self._visits = {state: one for state, one in self._visits.items() if now_s - one.began_s < VISIT_S}
        while len(self._visits) >= _VISITS_MAX:
            del self._visits[next(iter(self._visits))]
        state = secrets.token_urlsafe(32)
        visit = Visit(secrets.token_urlsafe(32), secrets.token_urlsafe(48), next_page, now_s)
        self._visits[state] = visit
        query = {
            "response_type": "code",
            "client_id": self._setting.client_id,
            "redirect_uri": self._return_address(),
            "scope": " ".join(self._setting.scopes),
            "state": state,
            "nonce": visit.nonce,
            "code_challenge": _challenge(visit.verifier),
            "code_challenge_method": "S256",
        }
        mark = "&" if "?" in published.authorization_endpoint else "?"
        return published.authorization_endpoint + mark + urllib.parse.urlencode(query), state

    async def finish(self, answer: Mapping[str, str], state: str) -> tuple[principals.Principal, str]:
        """Return who came back and where they wanted to go. Raises ``Refused``, and ``NotAllowed`` for no role.

        ``answer`` is the query they came back with, ``state`` what their cookie kept: the one who began has to be the
        one who ends, so nobody can be logged in as somebody else by a link."""
        given = answer.get("state", "")
        if not state or not hmac.compare_digest(given.encode(), state.encode()):
            raise id_token.Refused("this login was not begun in this browser", hint=_AGAIN)
        visit = self._visits.pop(state, None)
        if visit is None or self._clock.monotonic() - visit.began_s >= VISIT_S:
            raise id_token.Refused("this login took too long, or was used before", hint=_AGAIN)
        published = await self._about()
        if answer.get("iss", published.issuer) != published.issuer:
            raise id_token.Refused("the answer is another provider's", hint=_AGAIN)
        if "error" in answer or not answer.get("code"):
            said = answer.get("error_description") or answer.get("error") or "it sent no code"
            raise id_token.Refused(f"{self.name} did not log you in: {said[:300]}", hint=_AGAIN)
        tokens = await self._exchange(published, answer["code"], visit.verifier)
        claims = await self._claims(published, tokens, visit.nonce)
        return self._principal(claims), visit.next_page

    # -- what the provider says -------------------------------------------------------------------------------------

    async def _exchange(self, published: Published, code: str, verifier: str) -> dict[str, Any]:
        form = {
            "grant_type": "authorization_code",
            "code": code,
            "redirect_uri": self._return_address(),
            "client_id": self._setting.client_id,
            "code_verifier": verifier,
        }
        headers = {}
        if self.secret and "client_secret_basic" in published.token_endpoint_auth_methods_supported:
            pair = f"{urllib.parse.quote_plus(self._setting.client_id)}:{urllib.parse.quote_plus(self.secret)}"
            headers["Authorization"] = "Basic " + base64.b64encode(pair.encode()).decode()
        elif self.secret:
            form["client_secret"] = self.secret
        return await self._asked("POST", published.token_endpoint, data=form, headers=headers)

    async def _claims(self, published: Published, tokens: dict[str, Any], nonce: str) -> dict[str, Any]:
        token = tokens.get("id_token")
        if not isinstance(token, str):
            raise id_token.Refused(f"{self.name} sent no ID token", hint="is `openid` among the scopes it allows?")
        expected = id_token.Expected(published.issuer, self._setting.client_id, nonce, self._clock.time())
        claims = id_token.judged(token, await self._keys_for(published, token), expected)
        wanted = {self._setting.name_claim, self._setting.roles_claim}
        if published.userinfo_endpoint and wanted - claims.keys() and isinstance(tokens.get("access_token"), str):
            bearer = {"Authorization": f"Bearer {tokens['access_token']}"}
            more = await self._asked("GET", published.userinfo_endpoint, headers=bearer)
            if more.get("sub") == claims["sub"]:  # else it speaks of somebody else (5.3.2)
                claims = more | claims
        return claims

    def _principal(self, claims: dict[str, Any]) -> principals.Principal:
        name = claims.get(self._setting.name_claim)
        if not isinstance(name, str) or not name.strip() or not name.isprintable() or len(name) > 200:
            raise id_token.Refused(
                f"{self.name} did not say what you are called",
                hint=f"the claim {self._setting.name_claim!r} is missing or no name",
            )
        groups = claims.get(self._setting.roles_claim, [])
        listed = [groups] if isinstance(groups, str) else groups if isinstance(groups, list) else []
        told = [group for group in listed[:_GROUPS_MAX] if isinstance(group, str) and group != principals.EVERYBODY]
        return principals.of_groups(name.strip(), told, self._setting.roles)

    async def _about(self) -> Published:
        """What the provider publishes; asked for once an hour, and the old goes on while it does not answer."""
        now_s = self._clock.monotonic()
        if self._published is not None and now_s - self._published_s < _PUBLISHED_S:
            return self._published
        issuer = self._setting.issuer
        try:
            told = await self._asked("GET", issuer.rstrip("/") + "/.well-known/openid-configuration")
            try:
                found = msgspec.convert(told, Published)
                for field in ("authorization_endpoint", "token_endpoint", "jwks_uri"):
                    check_address(getattr(found, field), field)
            except ValueError as error:
                raise id_token.Refused(f"what {self.name} says about itself cannot be used: {error}") from None
            if found.issuer != issuer:
                raise id_token.Refused(
                    f"{self.name} calls itself {found.issuer[:200]!r}, and not {issuer!r} as configured"
                )
        except id_token.Refused:
            if self._published is None:
                raise
        else:
            self._published, self._published_s = found, now_s
        return self._published

    async def _keys_for(self, published: Published, token: str) -> dict[str, Any]:
        """The provider's keys; asked for again when they do not hold the one that ``token`` names (it was changed)."""
        now_s = self._clock.monotonic()
        names = {key.get("kid") for key in self._keys["keys"] if isinstance(key, dict)}
        if not names or (id_token.header(token).get("kid") not in names and now_s - self._keys_s >= _KEYS_AGAIN_S):
            self._keys_s = now_s
            found = await self._asked("GET", published.jwks_uri)
            if not isinstance(found.get("keys"), list):
                raise id_token.Refused(f"the keys of {self.name} cannot be read")
            self._keys = found
        return self._keys

    async def _asked(self, method: str, address: str, **how: Any) -> dict[str, Any]:
        """Return the JSON object that the provider answers; raises ``Refused`` without anything secret in its words."""
        if self._session is None:
            timeout = aiohttp.ClientTimeout(total=_ANSWER_S)
            self._session = aiohttp.ClientSession(timeout=timeout, trust_env=False, cookie_jar=aiohttp.DummyCookieJar())
        where = f"{self.name} {urllib.parse.urlsplit(address).path}"
        try:
            async with self._session.request(method, address, allow_redirects=False, **how) as answer:
                body = await answer.content.read(_ANSWER_BYTES_MAX)
                while len(body) < _ANSWER_BYTES_MAX and (more := await answer.content.read(_ANSWER_BYTES_MAX)):
                    body += more
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            raise id_token.Refused(
                f"{where} does not answer: {error or type(error).__name__}", hint="a token still logs you in"
            ) from None
        try:
            found = msgspec.json.decode(body)
        except (msgspec.MsgspecError, UnicodeError, RecursionError):
            found = None
        if answer.status != 200 or not isinstance(found, dict):
            said = found.get("error", "no JSON object") if isinstance(found, dict) else "no JSON object"
            raise id_token.Refused(f"{where} answered {answer.status}: {str(said)[:200]}")
        return found

    def _return_address(self) -> str:
        return self._setting.url.rstrip("/") + "/login/oidc/callback"


def _challenge(verifier: str) -> str:
    return base64.urlsafe_b64encode(hashlib.sha256(verifier.encode()).digest()).decode().rstrip("=")


def check_address(text: str, field: str) -> None:
    """Raise ``ValueError`` unless ``text`` is an https address, or an http one of this machine."""
    parts = urllib.parse.urlsplit(text)
    local = parts.hostname in ("localhost", "127.0.0.1", "::1")
    if parts.scheme not in ("https", "http") or not parts.hostname or parts.username or parts.fragment:
        raise ValueError(
            f"`{field}` {written.without_credentials(text)[:200]!r} is not an address such as https://id.example"
        )
    if parts.scheme == "http" and not local:
        raise ValueError(f"`{field}` has to begin with https://: what travels there lets people in")
