"""Larger trials of the same promises, for ``make faults``: they print tries, failures and the seed of each suite.

``SCALE`` multiplies the tries (``SCALE=10``; ``release`` is 10), ``SEED`` repeats a run.
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
import random
import traceback
from collections.abc import Iterator

import pytest

SCALES = {"release": 10.0}
SCALE = SCALES.get(os.environ.get("SCALE", ""), 0.0) or float(os.environ.get("SCALE") or 1)
SEED = int(os.environ.get("SEED") or random.SystemRandom().randrange(1 << 32))


@dataclasses.dataclass
class Suite:
    """Counts what a test tries. A failure is noted and the suite goes on; at its end the test fails."""

    name: str
    tries: int = 0
    failures: list[str] = dataclasses.field(default_factory=list)
    note: str = ""

    def __post_init__(self) -> None:
        self.random = random.Random(f"{SEED} {self.name}")

    def times(self, count: int) -> range:
        """So many rounds, by the scale."""
        return range(max(1, round(count * SCALE)))

    @contextlib.contextmanager
    def attempt(self, what: object = "") -> Iterator[None]:
        self.tries += 1
        try:
            yield
        except Exception:
            self.failures.append(f"{self.name} {what}:\n{traceback.format_exc()}")


SUITES = pytest.StashKey[list[Suite]]()


def pytest_configure(config: pytest.Config) -> None:
    config.stash[SUITES] = []


@pytest.fixture
def suite(request: pytest.FixtureRequest) -> Iterator[Suite]:
    suite = Suite(request.node.name)
    request.config.stash[SUITES].append(suite)
    yield suite
    said = {"tries": suite.tries, "failures": len(suite.failures), "seed": SEED, "scale": SCALE}
    request.node.user_properties += said.items()  # for whoever records it: see outcomes.py
    if suite.failures:
        pytest.fail(f"{len(suite.failures)} of {suite.tries} tries failed, the first: {suite.failures[0]}")
    assert suite.tries, "nothing was tried"


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    terminalreporter.section(f"faults, SCALE={SCALE:g} SEED={SEED}")
    for suite in config.stash[SUITES]:
        note = f"  {suite.note}" if suite.note else ""
        terminalreporter.write_line(f"{suite.name}: {suite.tries:,} tries, {len(suite.failures):,} failures{note}")
