"""An execution as a picture over time: its own spans (running, waiting, away, standing still) and one bar a call.

Pure: it turns a record into stretches of a line ``WIDTH`` long; the template draws one for each row. A call that waits
for children is as long as they are. Called by ``execution_pages``.
"""

from __future__ import annotations

import datetime
from collections.abc import Mapping, Sequence

import msgspec

from ..engine import events
from ..engine.records import listing
from . import chronicle, wording

WIDTH = 1000.0
_WIDTH_MIN = 4.0  # what is over at once is seen all the same
BARS_MAX = 60
_TICKS = 4


class Span(msgspec.Struct, frozen=True, kw_only=True):
    """A stretch of a bar: what it is (a class of the style sheet), where it begins and how long it is."""

    kind: str
    x: float
    width: float
    title: str


class Bar(msgspec.Struct, frozen=True, kw_only=True):
    """A row of the picture."""

    label: str
    spans: list[Span]
    target: str = ""  # the execution it leads to


class Timeline(msgspec.Struct, frozen=True, kw_only=True):
    """The picture: rows, times at equal distances along the top, and how many calls are left out."""

    bars: list[Bar]
    ticks: list[str]
    left_out: int = 0


#: What follows in an execution's life after an event of this kind.
_PHASES: tuple[tuple[type, str], ...] = (
    (events.ExecutionCreated, "queued"),
    (events.ExecutionQueued, "queued"),
    (events.ExecutionStarted, "running"),
    (events.ExecutionHibernated, "away"),
    (events.ExecutionPaused, "paused"),
    (events.ExecutionResumed, "queued"),
    (events.ExecutionInterrupted, "queued"),
    (events.ExecutionRestarted, "queued"),
)


def draw(record: Sequence[events.Recorded], children: Mapping[str, listing.Summary], now_s: float) -> Timeline | None:
    """Return the picture of a record and of the ``children`` known, or None if there is nothing to see yet."""
    if not record:
        return None
    begin = _seconds(record[0].at)
    ended = isinstance(record[-1].event, events.ExecutionEnded)
    end = _seconds(record[-1].at) if ended else max(now_s, _seconds(record[-1].at))
    whole = max(end - begin, 0.001)

    def span(kind: str, since: float, until: float) -> Span:
        width = max((until - since) / whole * WIDTH, _WIDTH_MIN)
        title = f"{kind}, {wording.duration(max(0.0, until - since))}"
        x = min((since - begin) / whole * WIDTH, WIDTH - _WIDTH_MIN)
        return Span(kind=kind, x=round(x, 2), width=round(width, 2), title=title)

    phases = [(kind, _seconds(one.at)) for one in record for type_, kind in _PHASES if isinstance(one.event, type_)]
    own = [
        span(kind, since, phases[n + 1][1] if n + 1 < len(phases) else end) for n, (kind, since) in enumerate(phases)
    ]
    bars = [Bar(label="this execution", spans=own)]
    calls = [call for call in chronicle.calls_of(record) if call.kind not in ("get", "load")]
    for call in calls[:BARS_MAX]:
        child = children.get(call.children[0]) if len(call.children) == 1 else None
        over = child.ended_at if child else call.ended
        failed = call.failed or (child is not None and child.status == "ENDED_ERROR")
        kind = "failed" if failed else "call" if over else "open"
        until = min(_seconds(over), end) if over else end
        bars.append(
            Bar(
                label=f"{call.kind} {wording.plain(call.target)}".strip()[:80],
                spans=[span(kind, _seconds(call.began), until)],
                target=call.children[0] if len(call.children) == 1 else "",
            )
        )
    ticks = [wording.duration(whole * n / _TICKS) for n in range(_TICKS + 1)]
    return Timeline(bars=bars, ticks=ticks, left_out=max(0, len(calls) - BARS_MAX))


def _seconds(at: str) -> float:
    return datetime.datetime.fromisoformat(at).timestamp()
