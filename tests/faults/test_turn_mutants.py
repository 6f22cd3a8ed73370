# ruff: noqa: E501 - texts of code
"""The negative controls of turns: each of these defects, of one execution that follows another in a process, is noticed.

As in ``test_mutants``: one change of the text of a module, in a copy of the tree, and the real tests on the copy.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.faults.conftest import Suite
from tests.faults.test_mutants import Mutant, copied, notice

pytestmark = pytest.mark.timeout(900)

_NEED = (("engine", "daemon", "sync", "tasks"), ("tests/engine/workers", "tests/support"))
_PROCESS, _POOL, _GUEST = "engine/workers/flow_process", "engine/workers/processes", "engine/guest/run"

#: What is wrong, the change, and the words of the tests that notice.
MUTANTS = {
    "a process leaves in its pipes what it wrote": Mutant(
        _GUEST, "        if self._starts is not None and _lies_in_pipes():\n", "        if False:\n", "pipes or lost"
    ),
    "pipes are read though several have their turns": Mutant(
        "engine/workers/pipes", "        if self._held:\n", "        if False:\n", "pipe"
    ),
    "pipes are drained though several have their turns": Mutant(
        _PROCESS, "        if len(self._turns) == 1 and not self._turns[0].said:\n", "        if True:\n", "pipe"
    ),
    "a process that is not as good as new goes on": Mutant(
        _GUEST,
        "                if not self.run(frame):\n",
        "                if not self.run(frame) and False:\n",
        "good_as_new",
    ),
    "who waits in such a process waits for ever": Mutant(
        _PROCESS,
        '            self._take_back("an execution before it left something behind")\n',
        "",
        "good_as_new",
    ),
    "one that is over is killed, and so the next one": Mutant(
        _PROCESS,
        '            self._take_back("an execution before it was killed")\n            self._read_all()\n',
        '            self._take_back("an execution before it was killed")\n',
        "takes_nobody_along",
    ),
    "what was said is read before the queue is emptied": Mutant(
        _PROCESS,
        '            self._take_back("an execution before it was killed")\n            self._read_all()\n',
        '            self._read_all()\n            self._take_back("an execution before it was killed")\n',
        "takes_nobody_along",
    ),
    "those taken back are taken for the last ones": Mutant(
        _PROCESS,
        "in [each for each in self._turns if each.number in numbers]:",
        "in list(self._turns)[len(self._turns) - len(numbers) :]:",
        "none_of_them",
    ),
    "nobody who is held up is taken back": Mutant(_PROCESS, "_HELD_UP_S = 0.01\n", "_HELD_UP_S = 3600.0\n", "held_up"),
    "what is said to one that waits is lost": Mutant(
        _PROCESS, "            self.told.append(frame)\n", "            pass\n", "reaches_it"
    ),
    "a start too long for the queue is sent at once": Mutant(
        _PROCESS,
        "        self._turns.append(turn)\n        return True\n",
        "        self._turns.append(turn)\n        if text is not turn.text:\n"
        "            self.send(frames.pack(turn.text))\n        return True\n",
        "too_long",
    ),
    "each of a burst gets a process": Mutant(
        _POOL, "        self._busy.add(process)\n        return process\n", "        return process\n", "burst"
    ),
    "the slow are taken for quick": Mutant(
        _POOL,
        "        self._expected_s = min(learnt, _UNKNOWN_S)\n",
        "        self._expected_s *= 1 - _WEIGHT\n",
        "on_the_whole",
    ),
}


@pytest.mark.parametrize("name", MUTANTS)
def test_the_suites_notice(tmp_path: Path, suite: Suite, name: str) -> None:
    mutant = MUTANTS[name]
    (tmp_path / "headrace").mkdir()
    copied(tmp_path, mutant, _NEED)
    assert "FAILED" in notice(
        tmp_path, suite, name, mutant, ["tests/engine/workers/test_turns.py", "-k", mutant.tests], 60
    )
