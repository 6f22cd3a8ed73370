"""The clock is information only: whatever it does, the order is that of the numbers."""

from __future__ import annotations

from pathlib import Path

import pytest

from headrace.engine import moments
from headrace.engine.records import journal, recovery
from tests.engine.records import journals

DAY, YEAR = 86400.0, 365.25 * 86400
NOW = 1_790_000_000.0
STEPS: dict[str, list[float]] = {
    "an hour back and forth": [NOW, NOW - 3600, NOW + 3600, NOW],
    "a year back and forth": [NOW, NOW - YEAR, NOW + YEAR, NOW],
    "1970": [NOW, 0.0, 0.000001, NOW],
    "2038": [2**31 - 1.5, 2**31 - 0.5, 2**31 + 0.5, NOW],
    "a leap second": [1_483_228_799.999_999_9, 1_483_228_799.999_999_9, 1_483_228_800.0, 1_483_228_799.5],
    "daylight saving ends": [1_793_487_599.0, 1_793_487_600.0, 1_793_487_601.0, 1_793_484_000.0],
    "standing still": [NOW] * 4,
    "the year 9999": [253_402_300_799.0, NOW, 253_402_300_799.5, NOW],
}


class Odd(journals.Clock):
    def __init__(self, times: list[float]) -> None:
        self._times = list(times)
        self._reading = 0

    def time(self) -> float:
        self._reading += 1
        return self._times[self._reading % len(self._times)]


@pytest.mark.parametrize("steps", STEPS.values(), ids=STEPS.keys())
async def test_whatever_the_clock_does_the_order_is_kept(tmp_path: Path, steps: list[float]) -> None:
    written = 0
    for _ in range(2):
        lines = await journal.Journal.open(tmp_path / "records", Odd(steps), segment_bytes_max=900)
        for _ in range(12):
            written += 1
            await lines.submit(journals.log(written))
        await lines.close()
    _, seen = journals.recovered(tmp_path / "records")
    assert [r.event for r in seen] == [journals.log(number) for number in range(1, written + 1)]
    assert {r.at for r in seen} <= {moments.timestamp(time) for time in steps}
    assert recovery.verify(tmp_path / "records").problem == ""
