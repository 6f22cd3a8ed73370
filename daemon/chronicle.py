"""What a page tells of one execution's record: its calls in order, and what it logged, within bounds. No HTML here.

A record may be large; a page shows the first calls and the last lines and says how many there are. Values kept in
files are not opened for a page. Called by ``pages``.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import msgspec

from ..engine import events, values
from ..engine.running import live
from . import stream, wording

CALLS_MAX = 200
LINES_MAX = 1000
_LINE_CHARACTERS_MAX = 16 * 1024
_PREVIEW_CHARACTERS = 160


class Call(msgspec.Struct, kw_only=True):
    """One call of the handler: what it asked for, whom it made or waited for, and what came of it."""

    number: int
    kind: str
    target: str
    began: str
    children: tuple[str, ...] = ()
    ended: str | None = None
    failed: str = ""
    result: str = ""
    where: str = ""


class Line(msgspec.Struct, frozen=True, kw_only=True):
    """One entry of the log."""

    at: str
    level: str
    stream: str
    text: str  # with its terminal colours


class Told(msgspec.Struct, frozen=True, kw_only=True):
    """What a page shows of a record; the counts are of all there is."""

    calls: list[Call]
    call_count: int
    lines: list[Line]
    line_count: int


async def told(ledger: live.Ledger, record: Sequence[events.Recorded]) -> Told:
    """Return the first calls and the last lines of a record."""
    calls = calls_of(record)
    written = [recorded for recorded in record if isinstance(recorded.event, events.LogWritten)]
    lines = [await line(ledger, recorded) for recorded in written[-LINES_MAX:]]
    return Told(calls=calls[:CALLS_MAX], call_count=len(calls), lines=lines, line_count=len(written))


def calls_of(record: Iterable[events.Recorded]) -> list[Call]:
    """Return the calls in the order they were made."""
    found: dict[int, Call] = {}
    for recorded in record:
        match recorded.event:
            case events.CallStarted(call=number, kind=kind, target=target, children=children):
                call = Call(number=number, kind=kind, target=target, began=recorded.at, children=children)
                call.where = recorded.event.where
                found[number] = call
            case events.CallEnded(call=number, kind=kind, target=target) as event:
                call = found.setdefault(number, Call(number=number, kind=kind, target=target, began=recorded.at))
                call.ended = recorded.at
                call.failed = wording.plain(event.failure.message) if event.failure else ""
                call.result = "" if call.children else _preview(event.result)
    return list(found.values())


def _preview(result: msgspec.Raw | msgspec.UnsetType) -> str:
    if result is msgspec.UNSET:
        return ""
    text = bytes(result)[: 4 * _PREVIEW_CHARACTERS].decode(errors="ignore")
    return text if len(text) <= _PREVIEW_CHARACTERS else text[:_PREVIEW_CHARACTERS] + "…"


async def line(ledger: live.Ledger, recorded: events.Recorded) -> Line:
    """Return an entry of the log as a page shows it."""
    event = recorded.event
    assert isinstance(event, events.LogWritten)
    blob = event.args_blob or event.kwargs_blob
    if blob is not None:
        text = f"… {blob.bytes:,} bytes, too many for a page: they are in the whole log …"
    else:
        shown = await stream.log_line(ledger, recorded) or {}
        text = values.shortened(shown["text"], _LINE_CHARACTERS_MAX).rstrip("\n")
    return Line(at=recorded.at, level=event.level, stream=event.stream, text=text)
