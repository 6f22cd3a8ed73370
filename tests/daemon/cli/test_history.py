"""The verb ``records``: it needs no daemon, and says what it found and what it did."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from headrace.daemon import ownership
from headrace.daemon.cli import main
from headrace.engine import errors
from headrace.engine.records import head, recovery
from tests.engine.records import journals


@pytest.fixture
def state(tmp_path: Path) -> Path:
    journals.filled(tmp_path / "records", [1, 2, 1, 1, 2, 1, 2], segment_bytes_max=640)
    found = recovery.recover(tmp_path / "records")
    writer = head.Head(tmp_path / "HEAD")
    writer.write(found.instance, found.position)
    writer.close()
    return tmp_path


@pytest.fixture
def records(capsys, state):
    def records(*words):
        capsys.readouterr()  # what making the journal said
        status = main.main(["records", *words, "--state", str(state)])
        out, err = capsys.readouterr()
        return status, out, err

    return records


def damage(state: Path) -> None:
    path = state / "records" / "00000002.jsonl"
    path.chmod(0o600)
    path.write_bytes(path.read_bytes().replace(b"line 5", b"line 9"))


def test_a_sound_journal_is_sound(records):
    status, out, _ = records("verify")
    assert (status, out.splitlines()[-1]) == (0, "sound")
    assert "15 records in 3 segments" in out
    report = json.loads(records("verify", "--json")[1])
    assert (report["records"], report["segments"], report["problem"]) == (15, 3, "")


def test_damage_is_named_mended_and_gone(records, state):
    damage(state)
    status, out, _ = records("verify")
    assert (status, "00000002.jsonl is damaged at byte" in out) == (1, True)
    assert records("reindex")[0] == errors.JournalCorrupt.exit_code
    status, out, _ = records("salvage")
    assert status == 0
    assert "\n1 records are lost\n" in out
    assert "with something of e0005" in out
    assert "00000002.jsonl.damaged" in out
    assert records("verify")[0] == 0
    assert "nothing was changed" in records("salvage")[1]


def test_what_was_lost_can_be_had_as_json(records, state):
    damage(state)
    lost = json.loads(records("salvage", "--json")[1])
    assert (lost["missing"], lost["losses"][0]["executions"]) == (1, ["e0005"])


def test_a_lost_end_is_a_problem(records, state):
    path = state / "records" / "00000003.jsonl"
    path.write_bytes(b"".join(path.read_bytes().splitlines(keepends=True)[:-2]))
    status, out, _ = records("verify")
    assert (status, "history went backwards" in out) == (1, True)
    (state / "HEAD").write_bytes(b"nonsense")
    status, out, _ = records("verify", "--json")
    assert (status, "HEAD is damaged" in json.loads(out)["problem"]) == (1, True)


def test_a_torn_end_and_kinds_of_the_future_are_no_problem(records, state):
    path = state / "records" / "00000003.jsonl"
    path.write_bytes(path.read_bytes() + b'{"seq":')
    status, out, _ = records("verify")
    assert (status, "7 bytes at the end" in out) == (0, True)


def test_the_index_is_made_anew(records, state):
    (state / "index.db").write_bytes(b"nonsense")
    status, _, err = records("reindex")
    assert (status, "15 records are indexed" in err) == (0, True)
    assert (state / "index.db").read_bytes().startswith(b"SQLite format 3")


def test_what_a_daemon_works_on_is_not_changed(records, state):
    with ownership.locked(state):
        for verb in ("reindex", "salvage"):
            status, _, err = records(verb)
            assert (status, "another daemon works" in err) == (errors.StateInUse.exit_code, True)
        assert records("verify")[0] == 0


def test_a_state_directory_that_is_not_there_is_not_made(capsys, tmp_path):
    assert main.main(["records", "verify", "--state", str(tmp_path / "none")]) == errors.NotFound.exit_code
    assert not (tmp_path / "none").exists()
