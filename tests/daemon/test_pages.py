"""What pages are made of: words for times and values, text that programs wrote, and colours people can read."""

import json
import re
from pathlib import Path

import msgspec
import pytest

from headrace.daemon import chronicle, login, templates, wording
from headrace.engine import events

CSS = (Path(wording.__file__).parent / "web/style.css").read_text()


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (0, "0 ms"),
        (0.0124, "12 ms"),
        (3.44, "3.4 s"),
        (125, "2 min 5 s"),
        (11520, "3 h 12 min"),
        (200000, "2 days 7 h"),
    ],
)
def test_durations_have_at_most_two_units(seconds, words):
    assert wording.duration(seconds) == words


@pytest.mark.parametrize(
    ("passed_s", "words"),
    [
        (-3, "just now"),
        (4, "just now"),
        (59, "59 s ago"),
        (60, "1 min ago"),
        (7200, "2 hours ago"),
        (90000, "1 day ago"),
    ],
)
def test_times_are_told_by_how_long_ago_they_are(passed_s, words):
    assert wording.ago("1970-01-01T00:00:00.000000+00:00", passed_s) == words


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("\x1b[1;31mred\x1b[0m", "red"),
        ("\x1b]0;title\x07text", "text"),
        ("\x1b]8;;http://evil\x1b\\link\x1b]8;;\x1b\\", "link"),
        ("\x1b(B\x1bM\x1b[2Jx", "x"),
        ("a\r\nb\tc\x00\x08\x9b", "a\nb\tc"),
        ("cut off \x1b]0;never ends", "cut off "),
        ("<b> & ünïcode", "<b> & ünïcode"),
    ],
)
def test_terminal_codes_and_control_characters_are_taken_out(text, shown):
    assert wording.plain(text) == shown


def test_values_are_indented_characters_are_readable_and_numbers_are_kept():
    text = wording.pretty(msgspec.Raw(b'{"name":"\\u00fc","big":123456789012345678901234567890}'))
    assert text == '{\n  "name": "ü",\n  "big": 123456789012345678901234567890\n}'
    assert wording.pretty(None) == wording.pretty(msgspec.Raw(b"{}")) == wording.pretty({}) == ""
    assert wording.pretty(msgspec.Raw(b"null")) == "null"


def test_values_in_files_are_not_opened_and_long_ones_are_cut():
    blob = events.Blob(sha256="0" * 64, bytes=5_000_000)
    assert "5,000,000 bytes" in wording.pretty(blob)
    assert "5,000,000 bytes" in json.loads(wording.pretty({"a": blob, "b": msgspec.Raw(b"1")}))["a"]
    assert len(wording.pretty(msgspec.Raw(json.dumps("x" * 500_000).encode()))) < wording.JSON_CHARACTERS_MAX + 100


def test_a_deeply_nested_value_is_shown_as_it_is():
    assert wording.indented(b"[" * 100_000).startswith("[[[")


def recorded(event, second=0):
    at = f"2026-01-31T08:00:{second:02}.000000+00:00"
    return events.Recorded(seq=1, at=at, event=event, segment=1, offset=0, length=1)


def test_calls_are_told_with_what_came_of_them():
    calls = chronicle.calls_of(
        [
            recorded(events.CallStarted(execution="e", call=1, kind="flow", target="child", children=("c",))),
            recorded(events.CallEnded(execution="e", call=1, result=msgspec.Raw(b'{"id":"c"}')), 2),
            recorded(events.CallEnded(execution="e", call=2, kind="now", result=msgspec.Raw(b'"x"')), 3),
            recorded(events.CallStarted(execution="e", call=3, kind="sleep"), 4),
            recorded(events.CallEnded(execution="e", call=3, failure=events.Failure(type="E", message="\x1b[1mno")), 5),
            recorded(events.CallStarted(execution="e", call=4, kind="sleep"), 6),
        ]
    )
    told = [(call.number, call.kind, call.children, call.result, call.failed, call.ended is None) for call in calls]
    assert told == [
        (1, "flow", ("c",), "", "", False),
        (2, "now", (), '"x"', "", False),
        (3, "sleep", (), "", "no", False),
        (4, "sleep", (), "", "", True),
    ]


@pytest.mark.parametrize(
    ("path", "leads_to"),
    [
        ("/executions?q=1", "/executions?q=1"),
        ("//evil.example", "/"),
        ("/\\evil.example", "/"),
        ("https://evil.example", "/"),
        ("/a\r\nSet-Cookie: x", "/"),
        ("", "/"),
    ],
)
def test_the_way_on_after_a_login_stays_here(path, leads_to):
    assert login._local(path) == leads_to


def test_every_template_compiles_and_its_links_into_the_style_sheet_exist():
    names = templates._environment().list_templates()
    assert "layout.html" in names
    for name in names:
        templates._environment().get_template(name)
        source, _, _ = templates._environment().loader.get_source(templates._environment(), name)
        assert not re.search(r'\sstyle="|\son\w+="|<script(?! type="module" src=")|\| *safe\b', source), (
            f"{name}: the policy forbids it"
        )


def palette(css):
    return dict(re.findall(r"--([\w-]+):\s*(#[0-9a-f]{6});", css))


def luminance(colour):
    parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    red, green, blue = [p / 12.92 if p <= 0.04045 else ((p + 0.055) / 1.055) ** 2.4 for p in parts]
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def contrast(one, other):
    bright, dark = sorted([luminance(one), luminance(other)], reverse=True)
    return (bright + 0.05) / (dark + 0.05)


GROUNDS = ["ground", "raised", "sunken"]
TEXTS = [
    *[(ink, ground, 4.5) for ink in ("text", "quiet", "water", "bad", "warn") for ground in GROUNDS],
    *[(ink, ground, 4.5) for ink in ("text", "quiet", "water") for ground in ("bad-ground", "warn-ground")],
    ("good", "good-ground", 4.5),
    ("good", "ground", 4.5),
    ("bad", "bad-ground", 4.5),
    ("warn", "warn-ground", 4.5),
    ("water", "busy-ground", 4.5),
    ("text", "busy-ground", 4.5),
    ("on-water", "water", 4.5),
    ("on-water", "water-strong", 4.5),
    ("edge", "ground", 3.0),
    ("edge", "raised", 3.0),
]


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_can_be_read_on_its_ground_in_both_schemes(scheme):
    light, dark = CSS.split("@media (prefers-color-scheme: dark)")
    colours = palette(light) | (palette(dark) if scheme == "dark" else {})
    poor = {
        (a, b): contrast(colours[a], colours[b]) for a, b, least in TEXTS if contrast(colours[a], colours[b]) < least
    }
    assert poor == {}
