"""Where tasks may connect to: everywhere, or (``deny_private``) to public addresses only.

The policy looks at addresses, not names, and every address a name has must pass: a name can point anywhere, and can
point elsewhere a second later. Whoever connects asks here about the very address it is going to use. Addresses that
carry an IPv4 address inside (mapped, NAT64, 6to4, Teredo, ISATAP) are judged by both. Of IPv6 only what is handed out
to the public counts as public, so that forms nobody uses any more (IPv4-compatible, site-local) lead nowhere.
"""

from __future__ import annotations

import ipaddress
import socket
from collections.abc import Iterator

import msgspec

_Address = ipaddress.IPv4Address | ipaddress.IPv6Address
_PUBLIC_IPV6 = ipaddress.IPv6Network("2000::/3")
_DOCUMENTATION = ipaddress.IPv6Network("3fff::/20")
_ISATAP = (0x00005EFE, 0x02005EFE)
_NAT64 = (ipaddress.IPv6Network("64:ff9b::/96"), ipaddress.IPv6Network("64:ff9b:1::/48"))


class Egress(msgspec.Struct, frozen=True, kw_only=True):
    """The operator's choice."""

    deny_private: bool = False

    def refusal(self, address: str) -> str | None:
        """Return why nobody may connect to this numeric address, or None if it is allowed or is a name."""
        if not self.deny_private:
            return None
        parsed = _parsed(address.partition("%")[0].strip("[]"))
        if parsed is None or all(_is_public(one) for one in _meanings(parsed)):
            return None
        return f"{address} is not a public address, and this daemon lets tasks connect to public addresses only"


def _is_public(address: _Address) -> bool:
    if not address.is_global or address.is_multicast:
        return False
    return address.version == 4 or (address in _PUBLIC_IPV6 and address not in _DOCUMENTATION)


def _parsed(address: str) -> _Address | None:
    try:
        return ipaddress.ip_address(address)
    except ValueError:
        pass
    try:
        # The old spellings 127.1, 0x7f000001 and 2130706433 are addresses too for everything that connects.
        return ipaddress.IPv4Address(socket.inet_aton(address))
    except OSError:
        return None


def _meanings(address: _Address) -> Iterator[_Address]:
    """Yield what the address means: the address inside it where there is one, else itself."""
    if isinstance(address, ipaddress.IPv4Address):
        yield address
    elif address.ipv4_mapped is not None:
        yield address.ipv4_mapped
    elif any(address in network for network in _NAT64):
        yield ipaddress.IPv4Address(int(address) & 0xFFFFFFFF)
    else:
        yield address
        yield from (inner for inner in (address.sixtofour, *(address.teredo or ())) if inner is not None)
        if (int(address) >> 32) & 0xFFFFFFFF in _ISATAP:
            yield ipaddress.IPv4Address(int(address) & 0xFFFFFFFF)
