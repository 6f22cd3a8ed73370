"""What a handler did so far, call by call, as its record tells: a replay is answered from this and compared with it.

Pure: built from the lines about one execution, in order. Only its present generation counts: what came before a
restart is never replayed. Called when a process takes an execution up again, and offline by whoever replays a record.

A call that changes what flows keep may be cut off after the change and before its own line, so the change tells of the
call as well (``Loose``): whoever reads the journal at start passes those changes on, and the call counts as done.
"""

from __future__ import annotations

import bisect
from collections.abc import Iterable, Sequence

import msgspec

from .. import events, model, values
from ..state import protection

#: What flows keep and share, changed by a call: events that name the execution and the call they come from.
Loose = (
    events.RecordSaved
    | events.RecordDeleted
    | events.LockTaken
    | events.LockReleased
    | events.MessageCreated
    | events.ExecutionSaved
)
#: After one of these of the same execution none of them is loose any more.
SETTLING = events.CallStarted | events.CallEnded | events.ExecutionRestarted
LOG = "log"
_NULL = msgspec.Raw(b"null")


class Entry(msgspec.Struct):
    """One call, or a line logged (``kind`` is ``LOG``). An empty kind is one that the record does not tell."""

    number: int
    kind: str
    target: str = ""
    where: str = ""
    ended: bool = False
    result: model.Value = msgspec.field(default_factory=lambda: _NULL)
    failure: events.Failure | None = None
    children: tuple[str, ...] = ()
    message: str = ""
    loose: bool = False  # only what it changed tells of it

    def is_like(self, kind: str, target: str) -> bool:
        """Return whether a call of that kind and target can be this one; a masked target may stand for any."""
        if not self.kind:
            return kind != LOG
        return self.kind == kind and (self.target == target or protection.MARKER in self.target)


class History:
    """The calls of one generation."""

    def __init__(self) -> None:
        self.last = 0  # the highest number there is
        self.bytes = 0  # of what was asked and answered, roughly
        self._entries: dict[int, Entry] = {}
        self._repeated: list[tuple[int, int, Entry]] = []  # first and last number, what they repeat

    def find(self, number: int) -> Entry | None:
        """Return what the record tells of a call, None if nothing."""
        entry = self._entries.get(number)
        if entry is None and self._repeated:
            at = bisect.bisect_right(self._repeated, number, key=lambda run: run[0]) - 1
            if at >= 0 and number <= self._repeated[at][1]:
                return self._repeated[at][2]
        return entry

    def next_after(self, number: int) -> Entry | None:
        """Return the first call after ``number`` that the record tells of."""
        return next((entry for n in range(number + 1, self.last + 1) if (entry := self.find(n)) is not None), None)

    def entries(self) -> list[Entry]:
        """Return every call that has a line of its own, in order."""
        return [self._entries[number] for number in sorted(self._entries)]

    def add(self, event: events.ExecutionEvent) -> None:
        """Take in the next line of the record."""
        match event:
            case events.ExecutionRestarted():
                self._entries.clear()
                self._repeated.clear()
                self.last = self.bytes = 0
            case events.CallStarted():
                entry = self._put(Entry(event.call, event.kind, event.target, event.where))
                entry.children, entry.message = event.children, event.message
                self.bytes += _size(event.args)
            case events.CallEnded():
                entry = self._entries.get(event.call) or self._put(Entry(event.call, event.kind, event.target))
                entry.where = entry.where or event.where
                self._end(entry, model.value(event.result, event.result_blob, event.result_sealed), event.failure)
                self.bytes += _size(event.args) + _size(event.result)
            case events.CallsRepeated():
                last = event.call + event.count - 1
                if (repeated := self.find(event.call - 1)) is not None:
                    self._repeated.append((event.call, last, repeated))
                self.last = max(self.last, last)
            case events.LogWritten() if event.call:
                self._put(Entry(event.call, LOG, ended=True))
                self.bytes += len(bytes(event.args)) + len(bytes(event.kwargs))
            case events.ExecutionSaved() if not event.by:
                self._end(self._put(Entry(event.call, event.kind, where=event.where)), _NULL, None)
            case events.WebhookAnswered():
                self._end(self._put(Entry(event.call, "webhook_response", where=event.where)), _NULL, None)

    def add_loose(self, event: Loose) -> None:
        """Take in a change whose call has no end of its own in the record."""
        known = self._entries.get(event.call)
        if known is not None and known.ended:
            return
        entry = known or self._put(Entry(event.call, ""))
        entry.loose = True
        match event:
            case events.RecordSaved():
                self._end(entry, msgspec.Raw(values.encode({"id": event.id, "name": event.name})), None)
            case events.MessageCreated():
                entry.message = event.message
                if not event.bound:
                    self._end(entry, msgspec.Raw(values.encode({"id": event.message})), None)
            case _:
                self._end(entry, _NULL, None)

    def _put(self, entry: Entry) -> Entry:
        self._entries[entry.number] = entry
        self.last = max(self.last, entry.number)
        return entry

    def _end(self, entry: Entry, result: model.Value, failure: events.Failure | None) -> None:
        entry.ended, entry.result, entry.failure = True, result, failure


def of(recorded: Iterable[events.Recorded], loose: Sequence[Loose] = ()) -> History:
    """Return the history that the lines of one execution tell."""
    history = History()
    for line in recorded:
        if isinstance(line.event, events.ExecutionEvent):
            history.add(line.event)
    for change in loose:
        history.add_loose(change)
    return history


def divergence(
    number: int,
    recorded: Entry | None,
    kind: str = "",
    target: str = "",
    where: str = "",
    given: tuple[str, str] = ("", ""),
) -> events.Divergence:
    """Return both sides of a replay that is not like the record, for people; ``given``: what the call was given."""
    entry = recorded if recorded is not None else Entry(number, "")
    return events.Divergence(
        call=number,
        recorded_kind=entry.kind,
        recorded_target=f"{entry.target} {given[0]}".strip(),
        recorded_where=entry.where,
        attempted_kind=kind[:100],
        attempted_target=f"{target[:1024]} {given[1]}".strip(),
        attempted_where=where[:1024],
    )


def _size(text: msgspec.Raw | msgspec.UnsetType) -> int:
    return 0 if text is msgspec.UNSET else len(bytes(text))
