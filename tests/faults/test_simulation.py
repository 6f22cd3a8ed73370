"""Many worlds, each with another seed (see ``simulation``): none may break a promise, and all would notice who does."""

from __future__ import annotations

import pytest

from tests.faults.conftest import SCALE, Suite
from tests.faults.simulation import mutants, world

#: So many seeds of each sort of worlds are enough to notice any of the mutants. The rarest shows in one of a thousand
#: worlds, and in one of 300 hasty ones: a crash has to come between two lines that belong together.
SEEDS_MAX = 2000


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
        for seed in (one + sort for one in range(1, SEEDS_MAX + 1) for sort in (0, world.HASTY)):
            try:
                world.run(seed)
            except world.Broken:
                suite.note = f"noticed by seed {seed}"
                return
        raise AssertionError(f"{SEEDS_MAX} seeds of each sort did not notice: {name}")
