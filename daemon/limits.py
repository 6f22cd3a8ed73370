"""How often somebody may try, and how much somebody may ask for; counted by the address they came from, or by name.

``Attempts`` are wrong tokens. Tokens are random and cannot be guessed; this keeps those who try from costing time and
filling the audit log. ``Rate`` is how many requests there may be. Only whoever is over a limit is slowed down. Memory
alone, bounded, pure but for the clock. Called by ``access``, ``routes`` and ``webhooks``.
"""

from __future__ import annotations

import collections
import ipaddress
import math
from typing import ClassVar

from ..engine import errors, ports

#: Ten wrong ones within five minutes; after that the oldest has to become older than that first.
FAILURES_MAX = 10
WITHIN_S = 300.0
#: Addresses that are remembered; an attacker with more of them has other means.
_ADDRESSES_MAX = 10_000
_EXACT_S = 1e-6  # sums of floats are not more exact than that


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


class TooManyRequests(errors.NotAccepting):
    """Somebody asks too often; ``retry_after_s`` says when there is room again."""

    http_status: ClassVar[int] = 429

    def __init__(self, what: str, wait_s: float) -> None:
        super().__init__(f"too many requests {what}", hint="ask again a little later, and less often")
        self.retry_after_s = math.ceil(wait_s)


class Rate:
    """Lets through ``per_s`` requests a second of each name, and ``burst`` at once after it was quiet."""

    def __init__(self, clock: ports.Clock, per_s: float, burst: int) -> None:
        self._clock = clock
        self._per_s = per_s
        self._burst = burst
        self._free_at: collections.OrderedDict[str, float] = collections.OrderedDict()

    def wait_s(self, name: str) -> float:
        """Count a request; returns 0 if it may pass, else how long it is too early (and does not count it).

        For each name a time is kept at which all its requests so far would have passed one by one."""
        now_s = self._clock.monotonic()
        free_at = max(now_s, self._free_at.get(name, now_s))
        early_s = free_at - now_s - (self._burst - 1) / self._per_s
        if early_s > _EXACT_S:
            return early_s
        self._free_at[name] = free_at + 1 / self._per_s
        self._free_at.move_to_end(name)
        while len(self._free_at) > _ADDRESSES_MAX:
            self._free_at.popitem(last=False)
        return 0.0


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
