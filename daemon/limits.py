"""How often somebody may try: failed logins and wrong tokens, counted by the address they came from.

Tokens are random and cannot be guessed; this keeps those who try from costing time and filling the audit log. Only the
address that fails is slowed down. Memory alone, bounded, pure but for its clock. Called by ``access`` and ``routes``.
"""

from __future__ import annotations

import collections
import ipaddress

from ..engine import ports

#: Ten wrong ones within five minutes; after that the oldest has to become older than that first.
FAILURES_MAX = 10
WITHIN_S = 300.0
#: Addresses that are remembered; an attacker with more of them has other means.
_ADDRESSES_MAX = 10_000


class Attempts:
    """Counts what happened at most ``most`` times within ``within_s`` seconds for each address."""

    def __init__(self, clock: ports.Clock, most: int = FAILURES_MAX, within_s: float = WITHIN_S) -> None:
        self._clock = clock
        self._most = most
        self._within_s = within_s
        self._at: collections.OrderedDict[str, collections.deque[float]] = collections.OrderedDict()

    def count(self, address: str) -> None:
        """Remember that it happened now."""
        at = self._at.setdefault(address, collections.deque(maxlen=self._most))
        at.append(self._clock.monotonic())
        self._at.move_to_end(address)
        while len(self._at) > _ADDRESSES_MAX:
            self._at.popitem(last=False)

    def wait_s(self, address: str) -> float:
        """Return how long nothing more is let through; 0 if it may happen again now."""
        at = self._at.get(address)
        if at is None or len(at) < self._most:
            return 0.0
        return max(0.0, at[0] + self._within_s - self._clock.monotonic())


def network(address: str) -> str:
    """Return what an address counts as: itself, for IPv6 the /64 of which its sender has all addresses."""
    try:
        parsed = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return address
    if isinstance(parsed, ipaddress.IPv4Address):
        return str(parsed)
    if parsed.ipv4_mapped is not None:
        return str(parsed.ipv4_mapped)
    return str(ipaddress.IPv6Network((parsed, 64), strict=False))
