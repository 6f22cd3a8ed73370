"""A short soak: everything at once, with a fault each minute, loses nothing and does nothing twice."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.faults.conftest import SCALE, SEED, Suite

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
