"""A short soak: everything at once, with a fault each minute, loses nothing and does nothing twice."""

from __future__ import annotations

import json
import random
import subprocess
import sys
from pathlib import Path

import pytest

from tests.faults.conftest import SCALE, SEED, Suite
from tests.faults.soak import samples

_MINUTES = 3


@pytest.mark.timeout(600 * int(max(1, SCALE)))
def test_a_short_life_with_all_of_it(tmp_path: Path, suite: Suite) -> None:
    words = ["--minutes", str(_MINUTES * SCALE), "--directory", str(tmp_path), "--pause", "0.3", "--seed", str(SEED)]
    with suite.attempt():
        done = subprocess.run([sys.executable, "-m", "tests.faults.soak", *words], capture_output=True, text=True)
        figures = json.loads((tmp_path / "figures.json").read_text())
        suite.tries = sum(figures["faults"].values())
        suite.note = f"{figures['executions']:,} executions in {figures['minutes']} minutes"
        assert (done.returncode, figures["verdict"]) == (0, "good"), f"{figures['problems']}\n{done.stderr[-2000:]}"


def test_what_grows_is_told_from_what_goes_up_and_down(suite: Suite) -> None:
    chance = random.Random(1)  # by chance alone something grows in one of 200 soaks

    def found(minutes: int, *, mb_an_hour: float, warms_up: float = 0.0, processes: float = 0.0) -> list[str]:
        looks, resting = [], 25.0
        for number in range(minutes * 6):
            if number % 6 == 0:
                resting = chance.choice((13.0, 19.0, 25.0, 31.0, 37.0))
            at_s = number * samples.EVERY_S
            mb = 70 + mb_an_hour * at_s / 3600 + warms_up * min(1, 2 * number / (minutes * 6))
            looks.append(samples.Sample(at_s, 1, {"daemon_rss_mb": mb, "processes": resting + processes * at_s / 3600}))
        return [problem.split()[0] for problem in samples.leaks(samples.growth(looks))]

    with suite.attempt():
        assert found(40, mb_an_hour=5, warms_up=16) == []
        assert found(40, mb_an_hour=30) == ["daemon_rss_mb"]
        assert found(40, mb_an_hour=0, processes=200) == ["processes"]
        assert found(10, mb_an_hour=300) == []
