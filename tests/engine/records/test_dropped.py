"""Journals whose first segments were dropped: mended like others, and known by HEAD."""

from __future__ import annotations

import shutil
from pathlib import Path

import msgspec
import pytest

from headrace.engine import carried, events
from headrace.engine.records import head, places, recovery, salvage
from tests.engine.records import journals

GOLDEN = Path(__file__).parents[2] / "golden" / "records" / "v1" / "dropped"


@pytest.mark.parametrize("name", ["00000002.jsonl", "00000003.jsonl", "00000004.jsonl"])
@pytest.mark.parametrize("where", [0.0, 0.5])
def test_damage_costs_one_record_at_most_and_the_rest_is_sound(tmp_path: Path, name: str, where: float) -> None:
    shutil.copytree(GOLDEN, tmp_path / "records")
    before = [r.event for r in journals.recovered(tmp_path / "records")[1]]
    path = tmp_path / "records" / name
    content = bytearray(path.read_bytes())
    content[int(len(content) * where) + 30] ^= 1
    path.chmod(0o600)
    path.write_bytes(content)
    assert salvage.salvage(tmp_path).reason
    kept = [r.event for r in journals.recovered(tmp_path / "records")[1]]
    assert [event for event in before if event in kept] == kept
    assert len(kept) >= len(before) - 2  # the line, and what is said of dropped segments if these are renumbered
    assert recovery.verify(tmp_path / "records", head.read(tmp_path / "HEAD")).problem == ""


def recorded(seq: int, event: events.AnyEvent) -> events.Recorded:
    return events.Recorded(seq, "2026-01-01T00:00:00.000000+00:00", event, 1 + seq // 10, 5000 * seq, 100)


def test_a_record_that_is_carried_lies_where_it_was_carried_to() -> None:
    told = [
        recorded(1, events.ExecutionCreated(execution="e")),
        recorded(2, events.LogWritten(execution="e", text="a")),
    ]
    lines = tuple(carried.CarriedLine(r.seq, r.at, msgspec.Raw(msgspec.json.encode(r.event))) for r in told)
    parts = [
        recorded(11, events.ExecutionCarried(execution="e", carry="c", lines=lines[:1], last=False)),
        recorded(12, events.ExecutionCarried(execution="e", carry="c", lines=lines[1:], last=True)),
    ]
    after = recorded(13, events.LogWritten(execution="e", text="b"))
    known = places.Places()
    for line in (*told, *parts, after):
        known.visit(line)
    assert known.find("e") == [(2, 55_000, 55_100), (2, 60_000, 60_100), (2, 65_000, 65_100)]
    for found in ([*told, *parts, after], [*parts, after]):
        assert [r.event for r in places.record(found)] == [told[0].event, told[1].event, after.event]
    assert [r.seq for r in places.record([*told, parts[0], after])] == [1, 2, 13]  # it died in between
