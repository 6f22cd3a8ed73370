"""The scrub: sealed segments are read again, and what changed is said and left alone."""

from __future__ import annotations

from pathlib import Path

import pytest
from structlog import testing

from headrace.engine.records import scrub, seals
from tests.engine.records import journals


@pytest.fixture
def records(tmp_path: Path) -> Path:
    journals.filled(tmp_path / "records", [1, 2, 1, 1, 2, 1, 2], segment_bytes_max=640)
    assert len(journals.segment_names(tmp_path / "records")) == 3
    return tmp_path / "records"


def test_a_sound_journal_has_nothing_to_say(records: Path) -> None:
    care = scrub.Scrub(records)
    with testing.capture_logs() as told:
        care.round()
    assert (care.damaged, told) == ({}, [])


def test_every_flipped_bit_of_a_sealed_segment_is_found_and_nothing_is_touched(records: Path) -> None:
    path = records / "00000002.jsonl"
    whole = path.read_bytes()
    path.chmod(0o600)
    for bit in range(0, len(whole) * 8, 3):
        damaged = bytearray(whole)
        damaged[bit // 8] ^= 1 << bit % 8
        path.write_bytes(damaged)
        assert seals.problem(path), bit
        assert path.read_bytes() == damaged
    for size in range(0, len(whole), 5):
        path.write_bytes(whole[:size])
        assert seals.problem(path), size
    path.write_bytes(whole)
    assert seals.problem(path) == ""


def test_what_is_found_is_said_once_and_forgotten_when_it_is_mended(records: Path) -> None:
    path = records / "00000001.jsonl"
    whole = path.read_bytes()
    path.chmod(0o600)
    path.write_bytes(whole.replace(b"line 1", b"line 7"))
    care = scrub.Scrub(records)
    with testing.capture_logs() as told:
        care.round()
        care.round()
    assert [(line["event"], line["log_level"]) for line in told] == [("segment.damaged", "error")]
    assert list(care.damaged) == ["00000001.jsonl"]
    path.write_bytes(whole)
    care.round()
    assert care.damaged == {}


def test_the_open_segment_and_one_that_goes_meanwhile_are_passed_over(
    records: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (records / "00000003.jsonl").write_bytes(b"being written")
    real = seals.problem

    def gone(path: Path, *pause: object) -> str:
        path.rename(path.with_suffix(".away"))
        return real(path, *pause)

    care = scrub.Scrub(records)
    care.round()
    assert care.damaged == {}
    monkeypatch.setattr(seals, "problem", gone)
    care.round()
    assert care.damaged == {}


def test_it_stops_in_the_middle_of_a_round(records: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scrub, "BYTES_PER_S_MIN", 0.001)
    care = scrub.Scrub(records)
    care.start()
    care.stop()
    assert not care._thread.is_alive()
