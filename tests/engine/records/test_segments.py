"""The format: what one line must be to follow another."""

from __future__ import annotations

import zlib

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from headrace.engine import errors, events, moments
from headrace.engine.records import segments

AT = moments.timestamp(1_700_000_000.25).encode()


def compose(seq: int, event: msgspec.Struct, crc: int = 0, batch: int | None = None) -> tuple[bytes, int]:
    return segments.compose(seq, batch or seq, AT, msgspec.json.encode(event), crc)


def test_a_line_is_json_with_the_checksum_of_what_precedes_it() -> None:
    line, crc = compose(7, events.LogWritten(execution="e1", text="grün"), crc=99, batch=5)
    fields = msgspec.json.decode(line)
    assert list(fields) == ["seq", "batch", "at", "event", "execution", "text", "crc"]
    assert (fields["seq"], fields["batch"], fields["event"]) == (7, 5, "log.written")
    assert "grün".encode() in line
    assert int(fields["crc"], 16) == crc == zlib.crc32(line[: line.index(b',"crc":')], 99)


@given(st.lists(st.tuples(st.text(), st.booleans()), min_size=1, max_size=8))
def test_what_is_composed_follows_and_decodes_to_the_same(texts: list[tuple[str, bool]]) -> None:
    chain = segments.Chain()
    crc, batch = 0, 1
    for seq, (text, new_batch) in enumerate(texts, 1):
        batch = seq if new_batch else batch
        event = events.LogWritten(execution="e", text=text)
        line, crc = compose(seq, event, crc, batch)
        assert line.count(b"\n") == 1
        assert chain.follow(line)
        assert segments.decode(line) == segments.Line(seq, AT.decode(), event)


def test_a_line_that_was_left_out_repeated_or_swapped_does_not_follow() -> None:
    first, crc = compose(1, events.LogWritten(execution="e", text="1"))
    second, crc = compose(2, events.LogWritten(execution="e", text="2"), crc)
    third, _ = compose(3, events.LogWritten(execution="e", text="3"), crc)
    for wrong in ([second], [first, first], [first, third], [first, second, second]):
        chain = segments.Chain()
        assert [chain.follow(line) for line in wrong][-1] is False


def test_a_line_of_an_unknown_kind_is_a_good_line() -> None:
    line, _ = segments.compose(1, 1, AT, b'{"event":"thing.invented","execution":"e9","x":[1]}', 0)
    assert segments.Chain().follow(line)
    assert segments.decode(line).event == segments.Unknown("thing.invented", "e9", line)


def test_a_known_kind_that_changed_its_fields_is_kept_as_unknown() -> None:
    line, _ = segments.compose(1, 1, AT, b'{"event":"log.written","execution":"e9","text":[1]}', 0)
    assert segments.decode(line).event == segments.Unknown("log.written", "e9", line)


def test_what_is_no_line_at_all_is_refused_when_read_back() -> None:
    with pytest.raises(errors.JournalCorrupt, match="not a line"):
        segments.decode(b"\0" * 200)


def test_a_flow_cannot_forge_evidence_against_a_torn_batch() -> None:
    forged = b'{"seq":900,"batch":900,"at":"' + AT + b'","event":"log.written","execution":"e","crc":"00000000"}'
    body = b'{"event":"execution.created","execution":"e","inputs":{"a":{"x":1,"crc":"00000000"},"b":' + forged + b"}}"
    line, _ = segments.compose(2, 1, AT, body, 0)
    chain = segments.Chain(seq=1, batch=1)
    assert not chain.contradicted_by(line.replace(b'"a"', b'"\0"'), first=True)
    assert not chain.contradicted_by(line.replace(b'"seq":2', b'"seq":4'), first=False)
