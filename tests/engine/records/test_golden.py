"""Journals that earlier versions wrote: they stay readable, to the last field, for ever.

``tests/golden/records/write.py`` made them. If one of these tests fails, mend the code, not the files.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import typing
from pathlib import Path

import msgspec
import pytest

from headrace.engine import errors, events
from headrace.engine.records import filing, recovery, salvage, segments
from tests.engine.records import journals

GOLDEN = Path(__file__).parents[2] / "golden" / "records"
VERSIONS = sorted(path for path in GOLDEN.iterdir() if path.name.startswith("v"))
JOURNALS = sorted(path for version in VERSIONS for path in version.iterdir() if path.is_dir())


def name(path: Path) -> str:
    return str(path.relative_to(GOLDEN))


@pytest.fixture
def records(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """A copy, as git keeps no modes and recovery rewrites the last segment."""
    return Path(shutil.copytree(request.param, tmp_path / "records"))


def those(*named: str) -> pytest.MarkDecorator:
    found = [path for path in JOURNALS if not named or path.name in named]
    return pytest.mark.parametrize("records", found, ids=name, indirect=True)


@pytest.mark.parametrize("version", VERSIONS, ids=name)
def test_no_byte_of_them_was_changed(version: Path) -> None:
    sums = dict(reversed(line.split("  ")) for line in (version / "SHA256SUMS").read_text().splitlines())
    found = {
        str(path.relative_to(version)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in version.rglob("*.jsonl")
    }
    assert found == sums


def stored(records: Path) -> list[dict]:
    lines = [line for _, path in segments.files(records) for line in path.read_bytes().splitlines()]
    return [json.loads(line) for line in lines]


@those("every_kind_full", "every_kind_sparse", "rotated", "dropped")
def test_every_field_means_what_it_meant(records: Path) -> None:
    before = journals.snapshot(records)
    found, seen = journals.recovered(records)
    assert (found.unknown_kinds, found.torn_bytes) == ({}, 0)
    assert journals.snapshot(records) == before
    told = {r.seq: r for r in seen}
    for line in stored(records):
        if line["event"].startswith("segment."):
            continue
        recorded = told.pop(line["seq"])
        members = {key: value for key, value in line.items() if key not in ("seq", "batch", "at", "crc")}
        assert recorded.at == line["at"]
        assert json.loads(msgspec.json.encode(recorded.event)) == members
    assert told == {}
    assert recovery.verify(records).problem == ""


@those("torn")
def test_a_torn_end_is_dropped_as_ever(records: Path) -> None:
    found, seen = journals.recovered(records)
    assert [r.event.text for r in seen] == ["line 1", "line 2"]
    assert found.torn_bytes > 100


@those("unknown_kinds")
def test_what_this_version_does_not_know_is_kept_and_named(records: Path) -> None:
    before = journals.snapshot(records)
    found, seen = journals.recovered(records)
    assert found.unknown_kinds == {"thing.invented": 1, "log.written": 1, "daemon.dreamt": 1}
    assert found.unknown_executions == {"e7", "e8", ""}
    assert [r.event.text for r in seen] == ["line 1", "known"]
    assert journals.snapshot(records) == before
    assert recovery.verify(records).unknown_kinds == found.unknown_kinds
    filing.rebuild(records.parent / "index.db", records, found.instance, found.position)


@those("newer_format")
def test_a_newer_format_is_refused_untouched_with_advice(records: Path) -> None:
    before = journals.snapshot(records)
    with pytest.raises(errors.JournalCorrupt, match=r"format 99, this version reads") as caught:
        recovery.recover(records)
    assert "newer" in caught.value.hint
    with pytest.raises(errors.JournalCorrupt, match="format 99"):
        salvage.salvage(records.parent)
    assert journals.snapshot(records) == before


@those("rotated", "every_kind_full")
async def test_they_can_be_written_on(records: Path) -> None:
    found, seen = journals.recovered(records)
    async with journals.opened(records, recovered=found) as writer:
        await writer.submit(journals.log(7))
    assert journals.recovered(records)[1][:-1] == seen
    assert recovery.verify(records).problem == ""


def test_every_kind_of_event_stands_in_the_newest_ones() -> None:
    """An event that is new has no journal yet: before a release write the newest folder anew, after it the next one."""
    kinds = {kind.__struct_config__.tag for kind in typing.get_args(events.AnyEvent)}
    lines = stored(VERSIONS[-1] / "every_kind_full") + stored(VERSIONS[-1] / "dropped")
    newest = {line["event"] for line in lines}
    fields = {(line["event"], key) for line in lines for key in line}
    assert kinds <= newest, "python -m tests.golden.records.write vN"
    for kind in typing.get_args(events.AnyEvent):
        for field in kind.__struct_fields__:
            assert (kind.__struct_config__.tag, field) in fields, f"no {field} in the newest journals of tests/golden"
