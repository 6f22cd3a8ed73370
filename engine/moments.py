"""Moments as text: RFC 3339 in UTC, as records, the API and flows show them."""

from __future__ import annotations

import datetime
import functools
import math


def timestamp(epoch_s: float) -> str:
    """Return a moment with microseconds and offset: ``2026-02-03T04:05:06.000007+00:00``."""
    second = math.floor(epoch_s)
    carry, micros = divmod(round((epoch_s - second) * 1e6), 1_000_000)
    return f"{_second(second + carry)}.{micros:06d}+00:00"


@functools.lru_cache(maxsize=256)  # the costly part, and many times are of the same second
def _second(epoch_s: int) -> str:
    return datetime.datetime.fromtimestamp(epoch_s, datetime.UTC).isoformat()[:19]


def seconds_between(earlier: str, later: str) -> float:
    """Return the seconds between two timestamps, 0 if there is no earlier one."""
    if not earlier:
        return 0.0
    parse = datetime.datetime.fromisoformat
    return (parse(later) - parse(earlier)).total_seconds()
