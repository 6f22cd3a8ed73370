"""What a handler reads in a loop: equal answers are counted instead of written down, and given ever later.

Flows in the wild poll without sleeping. Such a loop must neither fill the disk nor starve what it polls for.
"""

from __future__ import annotations

from typing import Any

from .. import events
from ..workers import protocol


class Reads:
    """What one handler read last."""

    #: So many equal answers in a row are given at once; the next ones later and later.
    PATIENCE = 10
    _FIRST_S, _FACTOR, _LONGEST_S = 0.005, 1.5, 1.0

    def __init__(self) -> None:
        self._last: tuple[object, ...] = ()
        self._number = 0  # of the call that read it last
        self._first = 0  # of those that were not written down
        self._in_a_row = 0

    def again(self, call: protocol.Call, result: dict[str, Any]) -> bool:
        """Return whether this call came to the same as the one right before it; it needs no line of its own then."""
        read = (call.kind, call.target, bytes(call.args), result)
        same = read == self._last and call.call == self._number + 1
        self._last, self._number = read, call.call
        self._in_a_row = self._in_a_row + 1 if same else 0
        if same and not self._first:
            self._first = call.call
        return same

    def delay_s(self, call: protocol.Call) -> float:
        """Return how long the handler has to wait before this call is looked at."""
        over = self._in_a_row - self.PATIENCE
        if over < 0 or (call.kind, call.target, bytes(call.args)) != self._last[:3] or call.call != self._number + 1:
            return 0.0
        return min(self._LONGEST_S, self._FIRST_S * self._FACTOR ** min(over, 30))

    def unwritten(self, execution: str) -> events.CallsRepeated | None:
        """Return what stands for the repetitions that were not written down, once."""
        if not self._first:
            return None
        first, self._first = self._first, 0
        return events.CallsRepeated(execution=execution, call=first, count=self._number - first + 1)
