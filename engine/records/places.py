"""Where the lines of unfinished executions lie, learnt while the journal is read at start.

The index knows that of all executions, but making it anew takes its time, and what is under way cannot wait for it.
Used by ``index`` until it is complete.
"""

from __future__ import annotations

from collections.abc import Sequence

from .. import events

#: Lines that lie closer than this are read together; what lies between is skipped.
GAP_BYTES = 4096

Extent = tuple[int, int, int]


class Places:
    """Extents (segment, start, end) by execution, from its creation until it ends."""

    def __init__(self) -> None:
        self._extents: dict[str, list[list[int]]] = {}

    def visit(self, recorded: events.Recorded) -> None:
        """Take one event, in the order of the journal."""
        event = recorded.event
        execution: str | None = getattr(event, "execution", None)
        if execution is None:
            return
        extents = self._extents.get(execution)
        if extents is None:
            if type(event) is events.ExecutionCreated:
                self._extents[execution] = [[recorded.segment, recorded.offset, recorded.offset + recorded.length]]
            return
        if type(event) is events.ExecutionEnded:
            del self._extents[execution]
            return
        last, start = extents[-1], recorded.offset
        if last[0] == recorded.segment and start - last[2] <= GAP_BYTES:
            last[2] = start + recorded.length
        else:
            extents.append([recorded.segment, start, start + recorded.length])

    def absorb(self, batch: Sequence[events.Recorded]) -> None:
        """Take in a durable batch; of what ends now the places stay, for those who ask right after."""
        for recorded in batch:
            if type(recorded.event) is events.ExecutionEnded and recorded.event.execution in self._extents:
                extents = self._extents[recorded.event.execution]
                extents.append([recorded.segment, recorded.offset, recorded.offset + recorded.length])
            else:
                self.visit(recorded)

    def find(self, execution: str) -> list[Extent] | None:
        """Return where the lines of an execution lie, in order, or None if it is not known here."""
        extents = self._extents.get(execution)
        return None if extents is None else [(segment, start, end) for segment, start, end in extents]
