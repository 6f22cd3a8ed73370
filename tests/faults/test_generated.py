"""Flows nobody would write, killed at random again and again: none diverges, no call comes twice, no child is extra.

Afterwards every record is replayed offline, strictly, and comes to the same: a crash leaves no trace in what a handler
saw. Kills are of the daemon, or of a flow's own process.
"""

from __future__ import annotations

import collections
import contextlib
import os
import signal
import time
from pathlib import Path

import pytest

from tests.e2e.test_changed_flows import Author
from tests.faults.conftest import SCALE, Suite
from tests.support.daemons import Daemon, processes_matching, until
from tests.support.replays import checked

_LEAF = (
    "def handler(system, this, inputs):\n    this.log('leaf')\n    this.sleep(0.02)\n    return {'n': inputs['n']}\n"
)
_FAILS = "def handler(system, this):\n    raise ValueError('no luck')\n"
_STRICT = "# /// script\n# [tool.headrace]\n# strict_replay = true\n# ///\n"
_NUMBERED = ("call.started", "execution.saved", "log.written", "webhook.answered")


@pytest.mark.timeout(600 + 60 * int(SCALE))
def test_generated_flows_that_are_killed_at_random(tmp_path: Path, suite: Suite) -> None:
    flows = tmp_path / "flows"
    flows.mkdir()
    author = Author(suite.random.random())
    (flows / "leaf.py").write_text(_LEAF)
    (flows / "fails.py").write_text(_FAILS)
    count = len(suite.times(60))
    for number in range(count):
        (flows / f"generated {number}.py").write_text(_STRICT + author.flow())
    daemon = Daemon(tmp_path / "s", flows).start()
    try:
        executions = [daemon.client.run(f"generated {number}")["id"] for number in range(count)]
        for _ in suite.times(15):
            time.sleep(suite.random.uniform(0, 0.5))
            if suite.random.random() < 0.5:
                _kill_flow_processes(daemon)
            else:
                daemon.kill()
                daemon.start()
        until(lambda: all(daemon.client.execution(one)["status"] in _OVER for one in executions), "all are over", 300)
        lines = daemon.lines()
        for execution in executions:
            with suite.attempt(execution):
                _check(daemon, lines, execution)
        file = tmp_path / "all.jsonl"
        with file.open("wb") as all_:
            for execution in executions:
                all_.writelines(daemon.client.export(execution))
        with suite.attempt("offline"):
            found = checked(flows, "--from", file, "--limit", count, "--strict")
            assert found["same"] == count, found
    finally:
        daemon.kill()


_OVER = ("ENDED_SUCCESS", "ENDED_ERROR", "PAUSED")


def _kill_flow_processes(daemon: Daemon) -> None:
    """SIGKILL every flow process there is at this moment; they are replaced."""
    for server in processes_matching("engine/guest/__main__.py"):
        with contextlib.suppress(OSError):
            if int(Path(f"/proc/{server}/stat").read_text().rpartition(")")[2].split()[1]) == daemon.pid:
                for pid in Path(f"/proc/{server}/task/{server}/children").read_text().split():
                    os.kill(int(pid), signal.SIGKILL)


def _check(daemon: Daemon, lines: list[dict[str, object]], execution: str) -> None:
    ended = daemon.client.execution(execution)
    assert ended["status"] != "PAUSED", ended["reason"]
    assert ended["reason"] == "", ended
    own = [line for line in lines if line.get("execution") == execution]
    assert sum(line["event"] == "execution.ended" for line in own) == 1
    numbers = [
        line["call"]
        for line in own
        if line.get("call") and (line["event"] in _NUMBERED or (line["event"] == "call.ended" and "kind" in line))
    ]
    assert [n for n, times in collections.Counter(numbers).items() if times > 1] == [], "a call was recorded twice"
    children = collections.Counter(
        line["parent_call"]
        for line in lines
        if line["event"] == "execution.created" and line.get("parent") == execution
    )
    assert [n for n, times in children.items() if times > 1] == [], "a call made two children"
