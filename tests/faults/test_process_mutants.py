"""The negative controls of flow processes: each of these defects, of how they are made and buried, is noticed.

As in ``test_mutants``: one change of the text of a module, in a copy of the tree, and the real tests on the copy.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.faults.conftest import Suite
from tests.faults.test_mutants import Mutant, copied, notice

pytestmark = pytest.mark.timeout(900)

_NEED = (("engine", "daemon", "sync", "tasks"), ("tests/engine/workers", "tests/engine/guest", "tests/support"))
_SERVER, _RUN, _NURSERY = "engine/guest/fork_server", "engine/guest/run", "engine/workers/nursery"

#: What is wrong, the change, and the words of the tests that notice.
MUTANTS = {
    "what a dead process left goes on": Mutant(
        _SERVER, "self._strangers() - killed:", "set():", "leaves_is_killed"
    ),
    "processes outlive their fork server": Mutant(
        _SERVER, "        _prctl(_PR_SET_PDEATHSIG, _KILL, 0, 0, 0)\n", "", "outlive"
    ),
    "they hold what the fork server has open": Mutant(
        _SERVER, "        _closerange(QUEUE + 1 if queue else QUEUE, _DESCRIPTORS_MAX)\n", "", "holds_nothing"
    ),
    "signals stay blocked": Mutant(_SERVER, "        _unblock_signals()\n", "", "meets_signals"),
    "the limits are not theirs": Mutant(
        _SERVER, "        for kind, pair in limits:\n            _setrlimit(kind, pair)\n", "", "memory_limits"
    ),
    "they lead no session of their own": Mutant(_SERVER, "        _setsid()\n", "", "leads_a_session"),
    "deaths are not told where they are ignored by inheritance": Mutant(
        _SERVER, "    _signal.signal(_signal.SIGCHLD, _signal.SIG_DFL)", "    pass", "by_inheritance"
    ),
    "the number of the main thread is its fork server's": Mutant(
        _SERVER, "        _main_thread._native_id = _getpid()", "        pass", "main_thread"
    ),
    "one that cannot be watched lives": Mutant(
        _SERVER,
        "            os.kill(pid, _KILL)\n            os.waitpid(pid, 0)\n            raise\n",
        "            raise\n",
        "without_descriptors",
    ),
    "the dead stay open": Mutant(
        _SERVER, "        os.close(pidfd)\n        said", "        said", "any_moment"
    ),
    "what was sent with a request stays open": Mutant(
        _SERVER,
        "            for descriptor in descriptors:\n                os.close(descriptor)\n",
        "            pass\n",
        "any_moment",
    ),
    "the next one counts while it leaves": Mutant(
        _NURSERY, "not self._next.exited.done()", "self._next.alive", "counted"
    ),
    "a flow's own fork speaks on the channel": Mutant(
        _RUN, "            os.register_at_fork(after_in_child=streams.plain)\n", "            pass\n", "forked"
    ),
    "a flow's modules are not found": Mutant(
        _RUN, '                    self._finder.root = frame["snapshot"]\n', "", "module"
    ),
    "nobody watches what a flow does": Mutant(
        _RUN, "        self._channel.watch.install(self._before_child)\n", "", "warm_process"
    ),
    "what native code left open is not looked for": Mutant(
        "engine/guest/purity", "happened = self._lasting is not None", "happened = False", "native_code_leaves"
    ),
    "a child that stayed is not seen": Mutant(
        _RUN, "            if _has_children():\n", "            if False:\n", "leaves_behind or orphan"
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", MUTANTS)
def test_the_suites_notice(tmp_path: Path, suite: Suite, name: str) -> None:
    mutant = MUTANTS[name]
    (tmp_path / "headrace").mkdir()
    copied(tmp_path, mutant, _NEED)
    files = ["tests/engine/workers/test_processes.py", "tests/engine/workers/test_turns.py", "tests/engine/guest"]
    assert "FAILED" in notice(tmp_path, suite, name, mutant, [*files, "-k", mutant.tests], 60)
