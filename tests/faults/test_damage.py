"""Bit rot, truncation and disorder: never a wrong record, and torn only where nobody was promised anything."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st

from headrace.engine import errors, events
from headrace.engine.records import head, recovery, seals, segments
from tests.engine.records import journals, machine
from tests.faults.conftest import SCALE, SEED, Suite

pytestmark = pytest.mark.timeout(7200)


@pytest.fixture(scope="module")
def golden(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[events.Recorded], dict[str, bytes], int]:
    """Three segments, their records, and where the last batch begins."""
    records = tmp_path_factory.mktemp("golden") / "records"
    told = journals.filled(records, [3, 2, 5, 1] * 8 + [3], segment_bytes_max=5000)
    assert len(journals.segment_names(records)) == 3
    lines = (records / "00000003.jsonl").read_bytes().splitlines(keepends=True)
    begin = sum(len(line) for line in lines if journals.batch_of(line) != journals.batch_of(lines[-1]))
    return records, told, journals.snapshot(records), begin


def read(records: Path) -> list[events.Recorded] | None:
    """Return what recovery would find, or None if it would refuse; nothing is mended."""
    seen: list[events.Recorded] = []
    reader = recovery.Reader(seen.append)
    try:
        reader.read(segments.files(records))
    except errors.JournalCorrupt:
        return None
    return seen


def test_flipped_bits(golden: tuple, suite: Suite) -> None:
    records, told, files, begin = golden
    for name, content in files.items():
        path = records / name
        path.chmod(0o600)
        bits = range(len(content) * 8)
        for bit in suite.random.sample(bits, min(len(bits), suite.times(12_000).stop)):
            damaged = bytearray(content)
            damaged[bit // 8] ^= 1 << bit % 8
            path.write_bytes(damaged)
            with suite.attempt((name, bit)):
                seen = read(records)
                if name == "00000003.jsonl" and bit // 8 >= begin:
                    assert seen == [r for r in told if r.segment < 3 or r.offset + r.length <= bit // 8]
                else:
                    assert seen is None
                if name != "00000003.jsonl":
                    assert seals.problem(path)
        path.write_bytes(content)


def test_truncations(golden: tuple, suite: Suite) -> None:
    records, told, files, begin = golden
    found = recovery.Reader(None)
    found.read(segments.files(records))
    end = found.found.position
    mark = head.Mark(1, found.found.instance, end.segment, end.offset, end.seq, f"{end.crc:08x}")
    for name, content in files.items():
        path = records / name
        path.chmod(0o600)
        for size in range(len(content)):
            path.write_bytes(content[:size])
            with suite.attempt((name, size)):
                seen = read(records)
                if name != "00000003.jsonl":
                    assert seen is None
                elif seen is not None:
                    assert seen == [r for r in told if r.segment < 3 or r.offset + r.length <= size]
                    assert size < begin or len(seen) >= len(told) - 3
                assert recovery.verify(records, mark).problem
        path.write_bytes(content)


def test_disorder(golden: tuple, suite: Suite) -> None:
    """Lines dropped, repeated, swapped and moved between segments, in all segments at once."""
    records, told, files, _ = golden
    lines = [line for name in sorted(files) for line in files[name].splitlines(keepends=True)]
    for _ in suite.times(4000):
        changed = list(lines)
        for _ in range(suite.random.randint(1, 3)):
            at, to = suite.random.randrange(len(changed)), suite.random.randrange(len(changed))
            match suite.random.randrange(4):
                case 0:
                    del changed[at]
                case 1:
                    changed.insert(to, changed[at])
                case 2:
                    changed[at], changed[to] = changed[to], changed[at]
                case _:
                    changed[at] = b"\0" * suite.random.randint(1, 4000)
        if changed == lines:
            continue
        split = sorted(suite.random.sample(range(1, len(changed)), 2)) if suite.random.random() < 0.2 else None
        sizes = [files[name].count(b"\n") for name in sorted(files)]
        one, two = split or (sizes[0], sizes[0] + sizes[1])
        parts = (changed[:one], changed[one:two], changed[two:])
        journals.restore(records, {name: b"".join(part) for name, part in zip(sorted(files), parts, strict=True)})
        with suite.attempt():
            seen = read(records)
            assert seen is None or (seen == told[: len(seen)] and len(seen) >= len(told) - 3)
    journals.restore(records, files)


def test_anything_done_to_a_journal(suite: Suite) -> None:
    steps = machine.Machine
    seed(SEED)(steps)
    steps.TestCase.settings = settings(
        max_examples=suite.times(150).stop,
        stateful_step_count=40,
        deadline=None,
        database=None,
        phases=(Phase.generate,),
        suppress_health_check=list(HealthCheck),
    )
    suite.tries = 40 * suite.times(150).stop
    steps.TestCase("runTest").runTest()


@settings(max_examples=max(1, int(3000 * SCALE)), deadline=None, database=None, suppress_health_check=list(HealthCheck))
@seed(SEED)
@given(data=st.data())
def test_garbage(golden: tuple, data: st.DataObject) -> None:
    records, told, files, _ = golden
    name = data.draw(st.sampled_from(sorted(files)))
    content = bytearray(files[name])
    for _ in range(data.draw(st.integers(1, 5))):
        start = data.draw(st.integers(0, len(content)))
        length = data.draw(st.integers(0, 2000))
        content[start : start + length] = data.draw(st.one_of(st.binary(max_size=900), st.just(b"\0" * length)))
    journals.restore(records, files | {name: bytes(content)})
    seen = read(records)
    journals.restore(records, files)
    assert seen is None or seen == told[: len(seen)]
