"""The clock of the machine is set while flows sleep: none wakes up early, each once, and the records stay in order.

The daemon's own clock is off by what a file says (``clocked``); the clock that never steps is left alone.
"""

import calendar
import os
import random
import time
from pathlib import Path

import pytest

from headrace.engine.records import recovery
from tests.support.daemons import until

ROUNDS = int(os.environ.get("HEADRACE_STEPS", "6"))
ROOT = Path(__file__).parents[2]
HOUR, YEAR = 3600, 365 * 86400
#: Moments about which something turns over: two seconds before them, in UTC.
MOMENTS = {
    "the epoch": 2,
    "the end of 31 bits": 2**31 - 2,
    "summer time begins": calendar.timegm((2026, 3, 29, 0, 59, 58)),
    "summer time ends": calendar.timegm((2026, 10, 25, 0, 59, 58)),
    "a leap day": calendar.timegm((2028, 2, 28, 23, 59, 58)),
    "a leap second": calendar.timegm((2016, 12, 31, 23, 59, 58)),
}
NAPS = "def handler(system, this, inputs):\n    this.sleep(inputs['s'])\n    return this.now().isoformat()\n"


class Clock:
    """How far the daemon's clock is off."""

    def __init__(self, file, chance):
        self._file = file
        self._chance = chance
        self.off(0)

    def off(self, seconds):
        beside = self._file.with_suffix(".new")
        beside.write_text(f"{seconds:+.3f}")
        beside.replace(self._file)
        self.seconds = seconds

    def step(self):
        """Set it, somehow; returns what was done."""
        step = self._chance.choice([*MOMENTS, HOUR, -HOUR, YEAR, -YEAR, 1, -1])
        self.off(MOMENTS[step] - time.time() if step in MOMENTS else self.seconds + step)
        return step


@pytest.fixture
def daemon(tmp_path, make_daemon):
    (tmp_path / "flows").mkdir()
    (tmp_path / "flows" / "naps.py").write_text(NAPS)
    daemon = make_daemon(tmp_path / "flows")
    daemon.environment = {"TZ": "Europe/Berlin", "PYTHONPATH": str(ROOT)}
    daemon.program = ("-m", "tests.support.clocked", str(tmp_path / "clock"))
    return daemon


@pytest.mark.timeout(120 + 10 * ROUNDS)
def test_a_clock_that_is_set_wakes_nobody_early_and_nobody_twice(daemon, tmp_path, record_property):
    seed = int(os.environ.get("HEADRACE_SEED", str(random.randrange(10**6))))
    print(f"seed {seed}, {ROUNDS} steps")
    record_property("seed", seed)
    record_property("tries", ROUNDS)
    chance = random.Random(seed)
    clock = Clock(tmp_path / "clock", chance)
    daemon.start()
    executions = []
    for _ in range(ROUNDS):
        naps = [chance.uniform(0.3, 1.5) for _ in range(3)]
        began = time.monotonic()
        sleepers = [daemon.client.run("naps", {"s": s})["id"] for s in naps]
        until(lambda ids=sleepers: all(asleep(daemon, one) for one in ids), "they sleep or did")
        step = clock.step()
        for execution, s in sorted(zip(sleepers, naps, strict=True), key=lambda pair: pair[1]):
            ended = daemon.client.wait(execution, 20)
            assert ended["status"] == "ENDED_SUCCESS", (step, ended)
            assert time.monotonic() - began >= s, f"early after the step {step}"
        executions += sleepers
    assert daemon.stop() == 0
    lines = daemon.lines()
    assert [line["seq"] for line in lines] == list(range(1, len(lines) + 1))
    for execution in executions:
        own = [(line["event"], line.get("call")) for line in lines if line.get("execution") == execution]
        assert [own.count(once) for once in (("call.started", 1), ("call.ended", 1), ("execution.ended", None))] == [
            1
        ] * 3
    assert recovery.verify(daemon.state / "records").problem == ""


def asleep(daemon, execution):
    return daemon.client.execution(execution)["status"] in ("WAITING", "ENDED_SUCCESS")


def test_after_a_restart_the_clock_on_the_wall_counts(daemon, tmp_path):
    clock = Clock(tmp_path / "clock", random.Random())
    daemon.start()
    soon, later = (daemon.client.run("naps", {"s": s})["id"] for s in (HOUR / 2, 2 * HOUR))
    for execution in (soon, later):
        until(lambda one=execution: daemon.client.execution(one)["status"] == "WAITING", "it sleeps")
    daemon.kill()
    clock.off(-HOUR)
    daemon.start()
    assert [daemon.client.execution(one)["status"] for one in (soon, later)] == ["WAITING", "WAITING"]
    assert daemon.run("naps", s=0.1)["status"] == "ENDED_SUCCESS", "others run in the hour that comes again"
    daemon.kill()
    clock.off(HOUR)
    daemon.start()
    assert daemon.client.wait(soon, 20)["status"] == "ENDED_SUCCESS"
    assert daemon.client.execution(later)["status"] == "WAITING"
    daemon.kill()
    clock.off(3 * HOUR)
    daemon.start()
    assert daemon.client.wait(later, 20)["status"] == "ENDED_SUCCESS"
    ended = [line["execution"] for line in daemon.lines() if line["event"] == "execution.ended"]
    assert (ended.count(soon), ended.count(later)) == (1, 1)
