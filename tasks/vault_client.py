"""HashiCorp Vault and OpenBao over HTTP: the key-value engine version 2, tokens and AppRole.

It owns how a vault is talked to: addresses, headers, logging in, and what a refusal means. The task type VAULT and the
daemon's references to secrets go through it. A token is sent to the address it was given for and nowhere else: a
redirect to another host is not followed. No message holds a token, or anything of a secret.
"""

from __future__ import annotations

import asyncio
import collections
import hashlib
import math
import ssl
import time
import urllib.parse
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

import aiohttp
import msgspec
import yarl

from ..engine import errors, ports
from . import rest, tls
from .egress import Egress

#: Vault keeps secrets up to 1 MiB; a list of names can be longer.
_BODY_BYTES_MAX = 16 * 1024 * 1024
_TIMEOUT = aiohttp.ClientTimeout(total=60, connect=10)
_REDIRECTS = frozenset({301, 302, 303, 307, 308})
_REDIRECTS_MAX = 3
_QUOTED_CHARACTERS = 300
#: A login is not used in the last seconds of its lease: a request is on its way for a while.
_MARGIN_S = 5.0
#: Roles and certificates that are remembered; an installation has a handful.
_KEPT_MAX = 100

K = TypeVar("K")
V = TypeVar("V")


class Request(msgspec.Struct, frozen=True, kw_only=True):
    """What to do in the engine: ``section`` is one of its parts (``data``, ``metadata``, ``delete``, …)."""

    method: str
    section: str
    path: str
    query: Mapping[str, str] = msgspec.field(default_factory=dict)
    body: Any = None


class Answer(msgspec.Struct, frozen=True):
    """What a vault said; ``body`` is its JSON, or None."""

    status: int
    body: Any

    @property
    def good(self) -> bool:
        """Whether it did what was asked."""
        return 200 <= self.status < 300

    @property
    def words(self) -> str:
        """Its reasons for a refusal, on one line; often there are none."""
        listed = self.body.get("errors") if isinstance(self.body, dict) else None
        said = " ".join(str(one) for one in listed) if isinstance(listed, list) else ""
        return " ".join(said.split())

    def member(self, *names: str) -> Any:
        """Return what lies below these names in the body, or None."""
        found = self.body
        for name in names:
            found = found.get(name) if isinstance(found, dict) else None
        return found


class _Role(msgspec.Struct):
    """A login by AppRole. The lock lets one log in while the others wait for the token."""

    lock: asyncio.Lock = msgspec.field(default_factory=asyncio.Lock)
    token: str = ""
    ends: float = 0.0  # monotonic


class Client:
    """Implements ``ports.Vaults``. ``aclose`` it on the event loop it was used on."""

    def __init__(self, egress: Egress | None = None, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._connections = rest.Connections(egress or Egress())
        self._monotonic = monotonic
        self._roles: collections.OrderedDict[tuple[str, ...], _Role] = collections.OrderedDict()
        self._trusts: collections.OrderedDict[str, ssl.SSLContext] = collections.OrderedDict()

    async def read(self, access: ports.VaultAccess, path: str) -> dict[str, Any]:
        """Return the newest version of a secret; raises ``NotFound``, ``NotAllowed`` and ``SourceUnavailable``."""
        answer = await self.ask(access, Request(method="GET", section="data", path=path))
        data = answer.member("data", "data")
        if answer.good and isinstance(data, dict):
            return data
        raise refusal(answer, access, path)

    async def write(self, access: ports.VaultAccess, path: str, data: dict[str, Any]) -> None:
        """Make ``data`` the newest version of a secret; raises likewise, and ``InvalidRequest``."""
        answer = await self.ask(access, Request(method="POST", section="data", path=path, body={"data": data}))
        if not answer.good:
            raise refusal(answer, access, path)

    async def ask(self, access: ports.VaultAccess, request: Request) -> Answer:
        """Return what the vault answers, be it a refusal.

        Raises ``SourceUnavailable`` for one that cannot be reached, ``NotAllowed`` when it does not let us log in, and
        ``InvalidRequest`` for an address or path that makes none."""
        url = address(access, request.section, request.path).with_query(request.query or None)
        if access.token:
            return await self._send(access, request.method, url, access.token, request.body)
        token, fresh = await self._token(access)
        answer = await self._send(access, request.method, url, token, request.body)
        if answer.status == 403 and not fresh:  # revoked, or the vault was restored: what we remember is worth nothing
            token, _ = await self._token(access, instead_of=token)
            answer = await self._send(access, request.method, url, token, request.body)
        return answer

    async def aclose(self) -> None:
        """Close the connections and forget all logins."""
        self._roles.clear()
        await self._connections.aclose()

    async def _token(self, access: ports.VaultAccess, *, instead_of: str = "") -> tuple[str, bool]:
        """Return a token for the role, and whether it was got just now."""
        if not access.role_id:
            raise errors.InvalidRequest(
                f"nothing says how to get into the vault {access.url}", hint="give a token, or role_id and secret_id"
            )
        secret = hashlib.sha256(access.secret_id.encode()).hexdigest()
        role = _kept(self._roles, (access.url, access.namespace, access.role_id, secret), _Role)
        async with role.lock:
            if role.token not in ("", instead_of) and self._monotonic() < role.ends:
                return role.token, False
            role.token = ""
            given = {"role_id": access.role_id, "secret_id": access.secret_id}
            login = yarl.URL(f"{_base(access)}/v1/auth/approle/login", encoded=True)
            began = self._monotonic()
            answer = await self._send(access, "POST", login, "", {name: one for name, one in given.items() if one})
            token = answer.member("auth", "client_token")
            if not answer.good or not isinstance(token, str) or not token:
                raise _not_logged_in(answer, access)
            lease_s = answer.member("auth", "lease_duration") or math.inf  # 0 is a token that does not end
            role.token, role.ends = token, began + float(lease_s) - _MARGIN_S
            return token, True

    async def _send(self, access: ports.VaultAccess, method: str, url: yarl.URL, token: str, body: Any) -> Answer:
        headers = {"X-Vault-Request": "true"}
        if token:
            headers["X-Vault-Token"] = _header(token, "token")
        if access.namespace:
            headers["X-Vault-Namespace"] = _header(access.namespace, "namespace")
        if body is not None:
            headers["Content-Type"] = "application/json"
        content = None if body is None else msgspec.json.encode(body)
        if (refused := self._connections.egress.refusal(url.raw_host or "")) is not None:
            raise errors.NotAllowed(refused)
        trust = await self._trust(access)
        try:
            for _ in range(_REDIRECTS_MAX + 1):
                async with self._connections.session().request(
                    method, url, data=content, headers=headers, allow_redirects=False, ssl=trust, timeout=_TIMEOUT
                ) as response:
                    location = response.headers.get("Location")
                    if response.status not in _REDIRECTS or not location:
                        return Answer(response.status, _decoded(await _body(response)))
                url = _redirected(url, location)
        except (aiohttp.ClientError, OSError) as error:
            raise errors.SourceUnavailable(f"the vault {url.origin()} cannot be reached: {_explained(error)}") from None
        raise errors.SourceUnavailable(f"the vault {url.origin()} redirects in a circle")

    async def _trust(self, access: ports.VaultAccess) -> ssl.SSLContext | bool:
        if not access.cacert:
            return True
        if access.cacert not in self._trusts:
            try:
                made = await asyncio.to_thread(
                    tls.context, cacert=access.cacert, client_cert=None, client_key=None, verify=True
                )
            except tls.TlsInputInvalid as problem:
                raise errors.InvalidRequest(f"cacert: {problem}") from None
            _kept(self._trusts, access.cacert, lambda: made)
        return self._trusts[access.cacert]


def address(access: ports.VaultAccess, section: str, path: str) -> yarl.URL:
    """Return where a secret is found; raises ``InvalidRequest`` for a url, engine or path that cannot be."""
    engine = _quoted(access.engine_path, "engine_path")
    below = f"/{_quoted(path, 'path')}" if path.strip("/") or section != "metadata" else ""
    return yarl.URL(f"{_base(access)}/v1/{engine}/{section}{below}", encoded=True)


def refusal(answer: Answer, access: ports.VaultAccess, path: str) -> errors.HeadraceError:
    """Return the error that an answer without success means."""
    where = f"{access.engine_path.strip('/')}/{path.strip('/')} in the vault {_base(access)}"
    said = _said(answer, access)
    match answer.status:
        case 404 if answer.member("data", "metadata") is not None:
            return errors.NotFound(f"this version of {where} was deleted", hint="an older or newer one may be there")
        case 404:
            return errors.NotFound(
                f"there is no secret {where}{said}", hint="engine_path names a key-value engine of version 2"
            )
        case 401 | 403:
            return errors.NotAllowed(f"not allowed: {where}{said}", hint="a policy of the token must allow it")
        case status if status in (412, 429, 472, 473) or status >= 500:
            return _unavailable(answer, access)
        case status if 200 <= status < 300:
            return errors.NotFound(f"what was found is no secret: {where}")
    return errors.InvalidRequest(f"status {answer.status} for {where}{said}")


def _not_logged_in(answer: Answer, access: ports.VaultAccess) -> errors.HeadraceError:
    if answer.status == 429 or answer.status >= 500:
        return _unavailable(answer, access)
    said = f"status {answer.status}{_said(answer, access)}"
    return errors.NotAllowed(
        f"the vault {_base(access)} does not accept role_id and secret_id: {said}",
        hint="the secret_id may have ended, or the namespace is another one",
    )


def _unavailable(answer: Answer, access: ports.VaultAccess) -> errors.SourceUnavailable:
    said = _said(answer, access)
    state = "is sealed or in maintenance" if answer.status == 503 else f"answers with status {answer.status}"
    return errors.SourceUnavailable(f"the vault {_base(access)} {state}{said}")


def _said(answer: Answer, access: ports.VaultAccess) -> str:
    """Return the vault's words, for the end of a message. It does not repeat what it was sent; a proxy might."""
    words = answer.words
    for secret in (access.token, access.secret_id):
        words = words.replace(secret, "***") if secret else words
    return f": {words[:_QUOTED_CHARACTERS]}" if words else ""


def _base(access: ports.VaultAccess) -> str:
    """Return the address that ``/v1`` comes after."""
    text = access.url.strip()
    try:
        url = yarl.URL(text if "://" in text else f"https://{text}")
        usable = url.scheme in ("http", "https") and bool(url.raw_host) and url.port is not None
    except ValueError:
        usable = False
    if not usable or url.user is not None or url.query_string:
        raise errors.InvalidRequest(
            "the address of the vault cannot be used", hint="such as https://vault.example:8200"
        )
    return f"{url.origin()}{url.raw_path.rstrip('/').removesuffix('/v1')}"


def _quoted(path: str, name: str) -> str:
    segments = path.strip("/").split("/")
    if any(segment in ("", ".", "..") for segment in segments):
        raise errors.InvalidRequest(f"{name} is not a path in the vault: {path[:100]!r}", hint="such as team/app/db")
    return "/".join(urllib.parse.quote(segment, safe="") for segment in segments)


def _header(value: str, name: str) -> str:
    value = value.strip()  # a file with a token ends with a line break
    if not value.isprintable():
        raise errors.InvalidRequest(f"{name} holds a character that cannot be sent")
    return value


def _redirected(url: yarl.URL, location: str) -> yarl.URL:
    try:
        target = url.join(yarl.URL(location, encoded=True))
        at_home = target.origin() == url.origin()
    except ValueError:
        at_home = False
    if not at_home:
        raise errors.SourceUnavailable(
            f"the vault {url.origin()} redirects to another host, which gets no token",
            hint="give the address of the active node, or of what stands before all of them",
        )
    return target


async def _body(response: aiohttp.ClientResponse) -> bytes:
    body = bytearray()
    async for chunk in response.content.iter_any():
        body += chunk
        if len(body) > _BODY_BYTES_MAX:
            raise errors.SourceUnavailable(f"the vault's answer is larger than {_BODY_BYTES_MAX:,} bytes")
    return bytes(body)


def _decoded(body: bytes) -> Any:
    try:
        return msgspec.json.decode(body) if body.strip() else None
    except (msgspec.MsgspecError, RecursionError, ValueError):
        return None


def _explained(error: Exception) -> str:
    match error:
        case aiohttp.ClientConnectorCertificateError():
            return "its certificate is not trusted; cacert can name an authority"
        case aiohttp.ClientConnectorDNSError():
            return "its name cannot be resolved"
        case TimeoutError():
            return "no answer in time"
        case aiohttp.ClientConnectorError():
            return error.strerror or str(error.os_error)
        case aiohttp.ServerDisconnectedError():
            return "it closed the connection without an answer"
        case aiohttp.ClientResponseError() | aiohttp.ClientPayloadError():
            return "its answer is not valid HTTP"
        case OSError():
            return error.strerror or type(error).__name__
    return type(error).__name__


def _kept(kept: collections.OrderedDict[K, V], key: K, make: Callable[[], V]) -> V:
    """Return what is remembered for ``key``, made if need be, and forget what was not asked for the longest."""
    if key not in kept:
        kept[key] = make()
    kept.move_to_end(key)
    while len(kept) > _KEPT_MAX:
        kept.popitem(last=False)
    return kept[key]
