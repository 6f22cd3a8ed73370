"""Salvage: what can be vouched for is kept, what cannot is named, and dying in between loses nothing."""

from __future__ import annotations

import os
import random
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from headrace.engine import errors, events
from headrace.engine.records import head, recovery, salvage, segments
from tests.engine.records import journals


@pytest.fixture
def state(tmp_path: Path) -> Path:
    state = tmp_path / "state"
    journals.filled(state / "records", [1, 2, 1, 1, 2, 1, 2], segment_bytes_max=640)
    assert len(journals.segment_names(state / "records")) == 3
    found = recovery.recover(state / "records")
    head.Head(state / "HEAD").write(found.instance, found.position)
    (state / "index.db").write_bytes(b"derived")
    return state


def told(records: Path) -> list[events.AnyEvent]:
    return [r.event for r in journals.recovered(records)[1]]


def rewrite(state: Path, name: str, content: bytes) -> None:
    path = state / "records" / name
    path.chmod(0o600)
    path.write_bytes(content)


def flip(content: bytes, offset: int) -> bytes:
    return content[:offset] + bytes([content[offset] ^ 1]) + content[offset + 1 :]


def assert_sound(state: Path) -> None:
    assert recovery.verify(state / "records", head.read(state / "HEAD")).problem == ""
    assert not (state / "index.db").exists()
    assert {path.name for path in state.iterdir()} == {"records", "HEAD"}


def test_a_sound_journal_is_left_alone(state: Path) -> None:
    before = journals.snapshot(state / "records")
    assert salvage.salvage(state) == salvage.Salvaged()
    assert journals.snapshot(state / "records") == before
    assert (state / "index.db").exists()


def test_one_damaged_line_costs_that_line_and_no_other(state: Path) -> None:
    files = journals.snapshot(state / "records")
    events_before = told(state / "records")
    content = files["00000002.jsonl"]
    victim = content.splitlines(keepends=True)[2]
    lost = segments.decode(victim).event
    rewrite(state, "00000002.jsonl", flip(content, content.index(victim) + 120))
    done = salvage.salvage(state)
    assert told(state / "records") == [event for event in events_before if event != lost]
    assert (done.missing, done.moved, len(done.losses)) == (1, 5, 1)
    loss = done.losses[0]
    assert (loss.file, loss.offset, loss.bytes) == ("00000002.jsonl", content.index(victim), len(victim))
    assert loss.executions == [lost.execution]
    assert done.set_aside == ["00000002.jsonl.damaged", "00000003.jsonl.damaged"]
    assert (state / "records" / "00000003.jsonl.damaged").read_bytes() == files["00000003.jsonl"]
    assert (state / "records" / "00000001.jsonl").read_bytes() == files["00000001.jsonl"]
    assert_sound(state)


def test_wherever_one_bit_flips_at_most_two_records_go(state: Path, tmp_path: Path) -> None:
    events_before = told(state / "records")
    files = journals.snapshot(state / "records")
    for name, content in files.items():
        for offset in range(0, len(content), 61):
            broken = tmp_path / "broken"
            shutil.rmtree(broken, ignore_errors=True)
            shutil.copytree(state, broken)
            rewrite(broken, name, flip(content, offset))
            if not (done := salvage.salvage(broken)).reason:
                continue  # in the last batch: torn, which recovery mends by itself
            kept = told(broken / "records")
            assert [event for event in events_before if event in kept] == kept
            assert len(kept) >= len(events_before) - 2
            assert len(events_before) - len(kept) <= done.missing + 1
            assert_sound(broken)


def drop_segment(files: dict[str, bytes]) -> dict[str, bytes]:
    return {name: content for name, content in files.items() if name != "00000002.jsonl"}


def nuls(files: dict[str, bytes]) -> dict[str, bytes]:
    return files | {"00000001.jsonl": b"\0" * len(files["00000001.jsonl"])}


def swapped(files: dict[str, bytes]) -> dict[str, bytes]:
    one, two, three = (files[f"0000000{n}.jsonl"] for n in (1, 2, 3))
    return {"00000001.jsonl": one, "00000002.jsonl": three, "00000003.jsonl": two}


def unsealed(files: dict[str, bytes]) -> dict[str, bytes]:
    lines = files["00000001.jsonl"].splitlines(keepends=True)
    return files | {"00000001.jsonl": b"".join(lines[:-1])}


def twice(files: dict[str, bytes]) -> dict[str, bytes]:
    return files | {"00000003.jsonl": files["00000002.jsonl"]}


def after_the_seal(files: dict[str, bytes]) -> dict[str, bytes]:
    name = "00000002.jsonl"
    seal = segments.decode(files[name].splitlines(keepends=True)[-1])
    crc = segments.crc_of(files[name])
    body = b'{"event":"log.written","execution":"odd"}'
    line, _ = segments.compose(seal.seq + 1, seal.seq + 1, seal.at.encode(), body, crc)
    return files | {name: files[name] + line}


#: what happened, and which of the ten events can be there afterwards
ACCIDENTS: dict[Callable[[dict[str, bytes]], dict[str, bytes]], set[int]] = {
    drop_segment: {1, 2, 3, 8, 9, 10},
    nuls: {4, 5, 6, 7, 8, 9, 10},
    swapped: set(range(1, 11)),
    unsealed: set(range(1, 11)),
    twice: {1, 2, 3, 4, 5, 6, 7},
    after_the_seal: set(range(1, 11)),
}


@pytest.mark.parametrize(("accident", "kept"), ACCIDENTS.items())
def test_whole_segments_gone_swapped_or_odd(state: Path, accident: Callable, kept: set[int]) -> None:
    journals.restore(state / "records", accident(journals.snapshot(state / "records")))
    assert journals.outcome(state / "records") is None
    done = salvage.salvage(state)
    numbers = [int(event.text.split()[1]) for event in told(state / "records") if event.execution != "odd"]
    assert numbers == sorted(kept)
    assert done.reason
    assert_sound(state)


def test_another_journals_segment_is_set_aside_whole(state: Path, tmp_path: Path) -> None:
    journals.filled(tmp_path / "other", [1, 2, 1, 1, 2, 1, 2], segment_bytes_max=640)
    foreign = (tmp_path / "other" / "00000003.jsonl").read_bytes()
    rewrite(state, "00000003.jsonl", foreign)
    done = salvage.salvage(state)
    assert [(loss.file, loss.bytes) for loss in done.losses] == [("00000003.jsonl", len(foreign))]
    assert len(told(state / "records")) == 7
    assert_sound(state)


def test_it_goes_on_in_new_segments_and_can_be_written_and_salvaged_again(
    state: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(salvage, "SEGMENT_BYTES_MAX", 300)
    monkeypatch.setattr(salvage, "_PORTION_BYTES", 100)
    for turn in range(2):
        content = (state / "records" / "00000001.jsonl").read_bytes()
        rewrite(state, "00000001.jsonl", flip(content, content.index(b"line") + 5))
        salvage.salvage(state)
        assert len(told(state / "records")) == 9 - turn
        assert len(journals.segment_names(state / "records")) > 3
        assert_sound(state)
        journals.filled(state / "records", [1, 1], segment_bytes_max=640)
        events_after = told(state / "records")
        assert events_after[-2:] == [journals.log(1), journals.log(2)]
        lines = (state / "records" / journals.segment_names(state / "records")[-1]).read_bytes().splitlines(True)
        rewrite(state, journals.segment_names(state / "records")[-1], b"".join(lines[:-2]))
    assert (state / "records" / "00000001.jsonl.2.damaged").exists()


def test_a_format_of_the_future_is_left_alone(state: Path) -> None:
    content = (state / "records" / "00000001.jsonl").read_bytes()
    lines = content.splitlines(keepends=True)
    opened = segments.decode(lines[0])
    body = lines[0][lines[0].index(b'"event"') : lines[0].rindex(b',"crc"')].replace(b'"format":1', b'"format":2')
    line, _ = segments.compose(1, 1, opened.at.encode(), b"{" + body + b"}", 0)
    rewrite(state, "00000001.jsonl", line + b"".join(lines[1:]))
    before = journals.snapshot(state / "records")
    with pytest.raises(errors.JournalCorrupt, match="format 2"):
        salvage.salvage(state)
    assert journals.snapshot(state / "records") == before


class Died(Exception):
    """Stands for a kill."""


CALLS = ("rename", "link", "unlink", "rmdir", "mkdir", "fdatasync", "fsync", "open")


def test_dying_anywhere_it_can_be_done_again(state: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    content = (state / "records" / "00000002.jsonl").read_bytes()
    rewrite(state, "00000002.jsonl", flip(content, content.index(b"line") + 5))
    shutil.copytree(state, tmp_path / "undisturbed")
    salvage.salvage(tmp_path / "undisturbed")
    expected = told(tmp_path / "undisturbed" / "records")
    assert len(expected) == 9
    points = 0
    for when in range(1, 200):
        folder = tmp_path / f"s{when}"
        shutil.copytree(state, folder)
        left = [when]

        def dying(real: Callable, left: list[int] = left) -> Callable:
            def call(*arguments: object, **named: object) -> object:
                left[0] -= 1
                if left[0] <= 0:
                    raise Died
                return real(*arguments, **named)

            return call

        with monkeypatch.context() as patched:
            for name in CALLS:
                patched.setattr(os, name, dying(getattr(os, name)))
            try:
                salvage.salvage(folder)
                break
            except Died:
                points += 1
        try:
            again = recovery.recover(folder / "records", mark=head.read(folder / "HEAD"))
            assert again.position.seq > 10
        except (errors.JournalCorrupt, errors.HistoryLost):
            pass
        salvage.salvage(folder)
        assert told(folder / "records") == expected
        assert recovery.verify(folder / "records", head.read(folder / "HEAD")).problem == ""
        assert not list(folder.glob("records.*"))
    assert points > 15


def test_random_damage_never_yields_a_wrong_record(state: Path, tmp_path: Path) -> None:
    events_before = told(state / "records")
    pick = random.Random(5)
    for turn in range(60):
        broken = tmp_path / f"b{turn}"
        shutil.copytree(state, broken)
        for _ in range(pick.randint(1, 3)):
            name = pick.choice(journals.segment_names(broken / "records"))
            content = bytearray((broken / "records" / name).read_bytes())
            start = pick.randrange(len(content))
            content[start : start + pick.randrange(300)] = pick.randbytes(pick.randrange(300))
            rewrite(broken, name, bytes(content))
        salvage.salvage(broken)
        kept = told(broken / "records")
        assert [event for event in events_before if event in kept] == kept
