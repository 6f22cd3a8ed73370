# ruff: noqa: E501 - texts of code
"""The negative controls of replay: each of these defects makes the tests of durability fail.

As in ``test_mutants``: one change of the text of a module, in a copy of the tree, and the real tests on the copy.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.faults.conftest import Suite
from tests.faults.test_mutants import Mutant, copied, notice

pytestmark = pytest.mark.timeout(900)

_TESTS = ("tests/engine/running/test_history.py", "tests/e2e/test_durable.py", "tests/e2e/test_strict_replay.py")

_NEED = (("engine", "daemon", "sync", "tasks"), ("tests/engine/running", "tests/e2e", "tests/support"))

#: What is wrong, the change, and the words of the tests that notice.
MUTANTS = {
    "a replay is not compared with the record": Mutant(
        "engine/running/flow_run", "        if entry is None or not entry.is_like(", "        if entry is None and (", "stands_still_and_says"
    ),
    "what calls are given never counts": Mutant(
        "engine/running/strict", "        if differs is not None:\n", "        if False:\n", "given_counts"
    ),
    "what is hidden in the record is shown in what differs": Mutant(
        "engine/running/strict", "likeness.shown(_veiled(*differs))", "likeness.shown(differs[1])", "given_counts"
    ),
    "a handler that left early is believed": Mutant(
        "engine/running/history", "        return next((entry for n in range(number + 1, self.last + 1)", "        return next((entry for n in range(0)", "gap"
    ),
    "a change without its call's line counts for nothing": Mutant(
        "engine/running/history", "        entry.loose = True\n", "        return\n", "tells_of_its_call"
    ),
    "what came before a restart is replayed": Mutant(
        "engine/running/history", "                self._entries.clear()\n", "                pass\n", "before_a_restart"
    ),
    "a question is asked again": Mutant(
        "engine/running/shared_calls",
        '        id_ = before.message if before is not None else ""\n',
        '        id_ = ""\n',
        "gives_the_process_back",
    ),
    "a child that was begun is made anew": Mutant(
        "engine/running/child_calls",
        "            if pending is None or not pending.children:\n",
        "            if True:\n",
        "any_moment",
    ),
    "every task is repeated": Mutant(
        "engine/running/takeover", "            if not subject.prepared.idempotent:", "            if False:", "does_no_harm"
    ),
    "no task is repeated": Mutant(
        "engine/running/takeover", "            if not subject.prepared.idempotent:", "            if True:", "does_no_harm"
    ),
    "effects do not count": Mutant(
        "engine/running/resting", "    return Verdict.FAIL if state.effect is not None else Verdict.REPLAY", "    return Verdict.REPLAY", "touched or first_word"
    ),
    "nothing is parked": Mutant(
        "engine/running/resting", "    if state.fruitless >= FRUITLESS_MAX:", "    if False:", "first_word"
    ),
    "the end of the daemon is blamed on executions": Mutant(
        "engine/model", "        if not event.daemon:\n", "        if True:\n", "of_its_own"
    ),
    "what is printed is recorded again": Mutant(
        "engine/running/flow_run", "                    if not self.replaying:\n", "                    if True:\n", "printed"
    ),
    "a recorded step acts again": Mutant(
        "engine/guest/running", "result = None if self._channel.replays else action(*args, **kwargs)", "result = action(*args, **kwargs)", "not_done_again"
    ),
    "a sleep begins anew after a crash": Mutant(
        "engine/running/waits", "            self._deadlines.add(call.until, hold)", "            self._deadlines.add(call.until + 30, hold)", "ends_when_it_was_to"
    ),
    "the time limit stands still without a process": Mutant(
        "engine/running/resting", "        self._limit_time(subject)\n        if subject.state.cancel_requested:", "        if subject.state.cancel_requested:", "time_limit"
    ),
    "a cancel ends who has no process without telling its handler": Mutant(
        "engine/running/influence", "        elif subject.state.attempt and not stuck:", "        elif False:", "reaches_the_handler"
    ),
    "a poll is answered at once, however often": Mutant(
        "engine/running/reads", "        if over < 0 or", "        if True or", "ever_later"
    ),
    "a pause is acknowledged before it is on disk": Mutant(
        "daemon/api", "        await self._work.ledger.journal.durable()  # who asked may rely on it, whatever happens now\n", "", "pause_and_a_resume"
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", MUTANTS)
def test_the_tests_of_durability_notice(tmp_path: Path, suite: Suite, name: str) -> None:
    mutant = MUTANTS[name]
    (tmp_path / "headrace").mkdir()
    copied(tmp_path, mutant, _NEED)
    assert "FAILED" in notice(tmp_path, suite, name, mutant, [*_TESTS, "-k", mutant.tests], 100)
