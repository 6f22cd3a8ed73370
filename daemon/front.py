"""What stands between the daemon and whoever asks: the names it is called by, and the proxy that may speak for others.

A page of another site can have a browser talk to this machine under a name of its own (DNS rebinding); a request whose
``Host`` is none of ours is misdirected (421). What ``X-Forwarded-For`` and the headers of an identity say counts from a
proxy of the networks in ``access.proxy`` alone: anybody can send headers. Called by ``access`` and ``routes``.
"""

from __future__ import annotations

import ipaddress
import re
import time
import urllib.parse
from collections.abc import Iterable
from typing import ClassVar

import msgspec
import structlog
from aiohttp import web

from ..engine import errors
from . import principals, written

log = structlog.get_logger()

#: What this machine calls itself. Everybody else has to come by another name.
LOOPBACK_NAMES = frozenset({"localhost", "127.0.0.1", "::1"})
_HEADER = re.compile(r"[A-Za-z0-9-]{1,100}")
_NAME_CHARACTERS_MAX = 200
_GROUPS_MAX = 500
_TELL_AGAIN_S = 60.0


class Misdirected(errors.InvalidRequest):
    """The request is for a name that is none of the daemon's."""

    http_status: ClassVar[int] = 421


class Proxy(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The setting ``access.proxy``: whom to believe, and what.

    ``networks``: addresses of proxies, as CIDR. ``hosts``: names under which they reach the daemon; empty: any.
    ``user_header``: the name of whoever they have recognised; ``groups_header``: their groups, separated by commas.
    ``roles``: role or scope of a group; the group ``*`` is everybody who was recognised."""

    networks: tuple[str, ...]
    hosts: tuple[str, ...] = ()
    user_header: str = ""
    groups_header: str = ""
    roles: dict[str, str] = {}

    def __post_init__(self) -> None:
        """Refuse what would let in nobody, or everybody."""
        if not self.networks:
            raise ValueError("`networks` names nobody: write the proxy's address, such as 127.0.0.1/32")
        for network in self.networks:
            if ipaddress.ip_network(network).prefixlen == 0:  # the error of one that is none says what is wrong
                raise ValueError(f"{network} is everybody, and everybody could say to be anybody")
        for name in self.hosts:
            if "/" in name or _host(f"[{name}]" if name.count(":") > 1 else name) != name.lower():
                raise ValueError(f"{name!r} is not a name without a port, such as flows.example")
        for header in (self.user_header, self.groups_header):
            if header and not _HEADER.fullmatch(header):
                raise ValueError(f"{header!r} is not the name of a header")
        if (self.groups_header or self.roles) and not self.user_header:
            raise ValueError("`user_header` is missing: groups alone are nobody")
        principals.check_roles(self.roles, wanted=bool(self.user_header))


class Front:
    """Knows the daemon's names and its proxy. ``behind_proxy``: one is there, whatever is known of it."""

    def __init__(self, proxy: Proxy | None, *, behind_proxy: bool, address: written.Address) -> None:
        self._proxy = proxy
        self._behind_proxy = behind_proxy
        self._networks = [ipaddress.ip_network(network) for network in proxy.networks] if proxy else []
        if behind_proxy:
            names: Iterable[str] = (*proxy.hosts, *LOOPBACK_NAMES) if proxy and proxy.hosts else ()
        else:  # with a certificate of its own a browser has compared the name already
            names = (*LOOPBACK_NAMES, address.host) if address.loopback else ()
        self._told_s = float("-inf")
        self._names = frozenset(name.lower() for name in names)

    def check_host(self, request: web.Request) -> None:
        """Raise ``Misdirected`` for a name that is none of ours, and for a target that contradicts it."""
        name = _host(request.headers.get("Host", ""))
        if self._names and name not in self._names:
            raise Misdirected(
                f"nothing is served under the name {name[:200]!r}",
                hint="behind a proxy, `hosts` in access.proxy lists the names; else use localhost",
            )
        if "://" in request.raw_path[:8] and _host(urllib.parse.urlsplit(request.raw_path).netloc) != name:
            raise Misdirected("the target of the request and its Host are not the same")

    def origin(self, request: web.Request) -> str:
        """Return the address a request came from, as far as those can be believed that it came through.

        It is the last address of ``X-Forwarded-For`` that no proxy of ours has: the one a proxy itself put there."""
        remote = request.remote or "unknown"
        if not self._behind_proxy or (self._networks and not self._trusted(remote)):
            return remote
        forwarded = ",".join(request.headers.getall("X-Forwarded-For", [])).split(",")
        for told in reversed([address.strip() for address in forwarded if address.strip()]):
            if not self._trusted(told):
                return told[:64]
        return remote

    def told(self, request: web.Request) -> principals.Principal | None:
        """Return whom the proxy has recognised; None if it says nothing. Raises ``NotAllowed`` for who has no role."""
        proxy = self._proxy
        if proxy is None or not proxy.user_header or proxy.user_header not in request.headers:
            return None
        if not self._trusted(request.remote or ""):
            if time.monotonic() - self._told_s > _TELL_AGAIN_S:  # strangers could fill the log with it
                self._told_s = time.monotonic()
                log.warning("access.header_ignored", header=proxy.user_header, origin=request.remote or "")
            return None
        names = request.headers.getall(proxy.user_header)
        if len(names) != 1 or not names[0].strip():
            raise errors.NotAllowed(f"the proxy sent {proxy.user_header} {len(names)} times, or empty")
        groups = ",".join(request.headers.getall(proxy.groups_header, [])) if proxy.groups_header else ""
        listed = [group.strip() for group in groups.split(",")[:_GROUPS_MAX] if group.strip()]
        return principals.of_groups(names[0].strip()[:_NAME_CHARACTERS_MAX], listed, proxy.roles)

    def _trusted(self, text: str) -> bool:
        try:
            address = ipaddress.ip_address(text)
        except ValueError:
            return False
        address = getattr(address, "ipv4_mapped", None) or address
        return any(address in network for network in self._networks)


def _host(text: str) -> str:
    """``Name.example.:8420`` → ``name.example``; ``[::1]:8420`` → ``::1``."""
    if text.startswith("["):
        inside, _, port = text[1:].partition("]")
        return inside.lower() if not port or port.startswith(":") else text.lower()
    return text.rpartition(":")[0].lower().rstrip(".") if ":" in text else text.lower().rstrip(".")
