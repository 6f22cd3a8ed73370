"""Where the lines of unfinished executions lie, learnt while the journal is read at start.

The index knows that of all executions, but making it anew takes its time, and what is under way cannot wait for it.
Used by ``index`` until it is complete.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from .. import events
from . import segments

#: Lines that lie closer than this are read together; what lies between is skipped.
GAP_BYTES = 4096

Extent = tuple[int, int, int]


class Places:
    """Extents (segment, start, end) by execution, from its creation until it ends."""

    def __init__(self) -> None:
        self._extents: dict[str, list[list[int]]] = {}
        self._parts: dict[tuple[str, str], list[events.Recorded]] = {}  # of records that are being carried

    def visit(self, recorded: events.Recorded) -> None:
        """Take one event, in the order of the journal."""
        event = recorded.event
        execution: str | None = getattr(event, "execution", None)
        if execution is None:
            return
        extents = self._extents.get(execution)
        if extents is None:
            if type(event) is events.ExecutionCreated or type(event) is events.ExecutionCarried:
                self._extents[execution] = [[recorded.segment, recorded.offset, recorded.offset + recorded.length]]
                if type(event) is events.ExecutionCarried:
                    self._carry(event, recorded)
            return
        if type(event) is events.ExecutionEnded:
            del self._extents[execution]
            return
        last, start = extents[-1], recorded.offset
        if last[0] == recorded.segment and start - last[2] <= GAP_BYTES:
            last[2] = start + recorded.length
        else:
            extents.append([recorded.segment, start, start + recorded.length])
        if type(event) is events.ExecutionCarried:
            self._carry(event, recorded)

    def _carry(self, event: events.ExecutionCarried, recorded: events.Recorded) -> None:
        """With the last part of a record that is carried, it lies there and behind; what is before may go."""
        parts = self._parts.setdefault((event.execution, event.carry), [])
        parts.append(recorded)
        if not event.last:
            return
        del self._parts[event.execution, event.carry]
        if any(type(line.event) is events.ExecutionEnded for part in parts for line in segments.unfolded(part)):
            del self._extents[event.execution]
            return
        segment, offset = parts[0].segment, parts[0].offset
        self._extents[event.execution] = [
            [each[0], max(each[1], offset) if each[0] == segment else each[1], each[2]]
            for each in self._extents[event.execution]
            if (each[0], each[2]) > (segment, offset)
        ]

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


def record(lines: Iterable[events.Recorded]) -> list[events.Recorded]:
    """Return what the lines of one execution tell: those that were carried stand for the ones before them."""
    found: list[events.Recorded] = []
    parts: dict[str, list[events.Recorded]] = {}
    for recorded in lines:
        event = recorded.event
        if not isinstance(event, events.ExecutionCarried):
            found.append(recorded)
            continue
        carried = parts.setdefault(event.carry, [])
        carried.append(recorded)
        if event.last:
            first = (carried[0].segment, carried[0].offset)
            behind = [line for line in found if (line.segment, line.offset) > first]
            found = [line for part in carried for line in segments.unfolded(part)] + behind
    return [line for line in found if isinstance(line.event, events.ExecutionEvent)]
