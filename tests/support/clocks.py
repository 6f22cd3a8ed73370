"""A clock that a test moves."""

from __future__ import annotations


class Clock:
    """See ``ports.Clock``; both times are the same number here."""

    def __init__(self, now_s: float = 1_800_000_000.0) -> None:
        self.now_s = now_s

    def time(self) -> float:
        """Seconds since the epoch."""
        return self.now_s

    def monotonic(self) -> float:
        """The same."""
        return self.now_s
