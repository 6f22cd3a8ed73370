"""What an execution's page is drawn from: colours of terminals, bars over time, the lines around a failure."""

import msgspec
import pytest

from headrace.daemon import ansi, excerpt, timeline
from headrace.engine import events


@pytest.mark.parametrize(
    ("text", "pieces"),
    [
        ("plain", [("", "plain")]),
        ("\x1b[31mred\x1b[0m then", [("ansi-red", "red"), ("", " then")]),
        ("\x1b[1;92mgood\x1b[22m on", [("ansi-bold ansi-green", "good"), ("ansi-green", " on")]),
        ("\x1b[38;5;9mfar\x1b[39m", [("", "far")]),
        ("\x1b]0;title\x07a\x1b[2Kb\x1b[mc", [("", "ab"), ("", "c")]),
        ('\x1b[31m"><b>', [("ansi-red", '"><b>')]),
    ],
)
def test_colours_become_classes_and_other_codes_nothing(text, pieces):
    assert ansi.pieces(text) == pieces


def test_a_line_of_nothing_but_colours_is_shown_without():
    assert ansi.pieces("\x1b[31ma" * 1000) == [("", "a" * 1000)]


def recorded(event, second):
    at = f"2026-01-31T08:00:{second:02}.000000+00:00"
    return events.Recorded(seq=second + 1, at=at, event=event, segment=1, offset=0, length=1)


def test_a_record_is_drawn_with_its_phases_and_its_calls():
    created = events.ExecutionCreated(execution="e", type="FLOW", inputs=msgspec.Raw(b"{}"))
    record = [
        recorded(created, 0),
        recorded(events.ExecutionStarted(execution="e", attempt=1), 2),
        recorded(events.CallStarted(execution="e", call=1, kind="sleep", waits=True), 3),
        recorded(events.ExecutionHibernated(execution="e"), 4),
        recorded(events.CallEnded(execution="e", call=1), 8),
        recorded(events.ExecutionEnded(execution="e", status="ENDED_SUCCESS"), 10),
    ]
    picture = timeline.draw(record, {}, 0.0)
    own, call = picture.bars
    assert [(span.kind, span.x, span.width) for span in own.spans] == [
        ("queued", 0, 200),
        ("running", 200, 200),
        ("away", 400, 600),
    ]
    assert [(span.kind, span.x, span.width) for span in call.spans] == [("call", 300, 500)]
    assert timeline.draw([], {}, 0.0) is None


def test_the_lines_around_one_are_read_and_nothing_outside_of_the_snapshot(tmp_path):
    inside = tmp_path / "snapshot"
    inside.mkdir()
    (inside / "a.py").write_text("\n".join(f"line {n}" for n in range(1, 31)))
    (tmp_path / "secret").write_text("x")
    found = excerpt.read(inside, inside / "a.py", 10)
    assert (found.first, found.lines[0], found.lines[-1]) == (4, "line 4", "line 16")
    assert excerpt.read(inside, inside / "a.py", 99) is None
    assert excerpt.read(inside, inside / "../secret", 1) is None
    assert excerpt.read(inside, inside / "gone.py", 1) is None
