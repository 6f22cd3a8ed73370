"""The disk is full to any degree: nothing acknowledged is lost, it goes on by itself, and a start needs no room."""

from __future__ import annotations

import asyncio
import contextlib
from pathlib import Path

import pytest

from headrace.engine import errors
from headrace.engine.records import recovery
from tests.engine.records import journals
from tests.engine.records.test_faults import fill_disk, small_disk  # noqa: F401 - a fixture
from tests.faults.conftest import Suite

pytestmark = pytest.mark.timeout(3600)


def test_every_level_of_fullness(small_disk: Path, suite: Suite, monkeypatch: pytest.MonkeyPatch) -> None:  # noqa: F811
    monkeypatch.setattr("headrace.engine.records.journal.RETRY_S", 0.005)
    records = small_disk / "records"
    step = max(512, round(2048 / suite.times(1).stop))

    async def level(leave: int) -> tuple[list[int], list[int]]:
        acknowledged, happened = [], []
        async with journals.opened(records, segment_bytes_max=9000) as writer:
            fill_disk(small_disk / "filler", leave=leave)
            for number in range(1, 25):
                writer.append(journals.log(1000 + number, "y" * 300))
                happened.append(1000 + number)
                with contextlib.suppress(errors.NotAccepting):
                    await writer.submit(journals.log(number, "x" * suite.random.randrange(3000)))
                    acknowledged.append(number)
            (small_disk / "filler").unlink()
            await asyncio.wait_for(writer.durable(), 10)
            await writer.submit(journals.log(99))
        return acknowledged, happened

    for leave in range(0, 64 * 1024, step):
        with suite.attempt(leave):
            acknowledged, happened = asyncio.run(level(leave))
            fill_disk(small_disk / "filler")
            last = records / journals.segment_names(records)[-1]
            last.write_bytes(last.read_bytes() + b'{"torn')
            _, seen = journals.recovered(records)
            (small_disk / "filler").unlink()
            numbers = [int(r.event.execution[1:]) for r in seen]
            assert [n for n in numbers if n < 1000] == [*acknowledged, 99]
            assert [n for n in numbers if n >= 1000] == happened
            assert recovery.verify(records).problem == ""
        journals.restore(records, {})
