"""Many worlds, each with another seed (see ``simulation``): none may break a promise, and all would notice who does."""

from __future__ import annotations

import pytest

from tests.faults.conftest import SCALE, Suite
from tests.faults.simulation import mutants, world

#: So many seeds are enough to notice any of the mutants.
SEEDS_MAX = 1000


@pytest.mark.timeout(3600 * int(max(1, SCALE)))
def test_no_world_breaks_a_promise(suite: Suite) -> None:
    lives = crashes = executions = 0
    for _ in suite.times(10_000):
        seed = suite.random.randrange(2 * world.HASTY)
        with suite.attempt(seed):
            lived = world.run(seed)
            lives, crashes, executions = lives + lived.lives, crashes + lived.crashes, executions + lived.executions
    suite.note = f"{lives:,} lives, {crashes:,} crashes, {executions:,} executions"


@pytest.mark.timeout(900)
@pytest.mark.parametrize("name", mutants.MUTANTS)
def test_a_mutant_is_noticed(suite: Suite, name: str) -> None:
    with suite.attempt(name), mutants.present(name):
        for tried in range(1, SEEDS_MAX + 1):
            try:
                world.run(tried)
            except world.Broken:
                suite.note = f"noticed by seed {tried}"
                return
        raise AssertionError(f"{SEEDS_MAX} seeds did not notice: {name}")
