"""A Ray cluster that loses anything at any moment, under load: no execution is lost, no completed call is done again.

Killed are flow processes, workers of Ray, raylets (nodes), the head with all of it, and the daemon; and workers are put
to sleep past their lease and wake up late. The ledger is the journal, read at the end: whatever was acknowledged has
come to its end, and every call of every execution has one end.
"""

from __future__ import annotations

import collections
import contextlib
import os
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.test_cluster import LEASE_S, Site
from tests.faults.conftest import SCALE, Suite
from tests.support.daemons import until
from tests.support.ray_cluster import RayCluster

pytest.importorskip("ray")

_KILLS = 12
_CALLERS = 6
#: How often each is lost, of a hundred times.
_VICTIMS = {"worker": 52, "flow process": 18, "sleeper": 6, "raylet": 9, "daemon": 12, "head": 3}


class Load:
    """Callers that each have one execution under way, and remember what was acknowledged and what has ended."""

    def __init__(self, site: Site) -> None:
        self.acknowledged: list[str] = []
        self.ended: list[str] = []
        self._site = site
        self._over = threading.Event()
        self._threads = [threading.Thread(target=self._call, args=(number,)) for number in range(_CALLERS)]

    def __enter__(self) -> Load:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        for thread in self._threads:
            thread.join()

    def _call(self, number: int) -> None:
        turn = 0
        while not self._over.is_set():
            turn += 1
            with contextlib.suppress(Exception):  # a daemon that is dead or starts: nothing was acknowledged
                who = f"caller {number} turn {turn}"
                execution = self._site.start("count", times=4, who=who, pause=0.2)
                self.acknowledged.append(execution)
                self._await(execution)
            self._over.wait(0.1)

    def _await(self, execution: str) -> None:
        while not self._over.is_set():
            with contextlib.suppress(Exception):  # the same
                if self._site.daemon.client.wait(execution, 10)["status"].startswith("ENDED_"):
                    self.ended.append(execution)
                    return
            self._over.wait(0.1)


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    cluster = RayCluster([{"num_cpus": 2}, {"num_cpus": 2}])
    made = Site(tmp_path / "c", cluster)
    try:
        made.daemon.start()
        yield made
    finally:
        made.daemon.kill()
        cluster.stop()


@pytest.mark.timeout(1200 + 600 * int(SCALE))
def test_everything_that_can_be_lost_under_load(site: Site, suite: Suite) -> None:
    lost: collections.Counter[str] = collections.Counter()
    sleepers: list[int] = []
    with Load(site) as load:
        until(lambda: load.acknowledged, "the load has begun", 60)
        for _ in suite.times(_KILLS):
            victim = ""
            while not victim:
                time.sleep(suite.random.uniform(0.1, 1.0))
                (drawn,) = suite.random.choices(list(_VICTIMS), list(_VICTIMS.values()))
                victim = drawn if _lose(drawn, site, suite, sleepers) else ""
            lost[victim] += 1
            if victim in ("daemon", "head", "raylet"):
                before = len(load.ended)
                until(lambda: len(load.ended) > before, f"work goes on after the {victim}", 300)  # noqa: B023
        _wake(sleepers)
    print(f"\nlost: {dict(lost)}, {len(load.acknowledged)} acknowledged")
    until(lambda: _ended(site, load), "all are over", 300)
    calls: collections.Counter[tuple[str, int]] = collections.Counter()
    ends: dict[str, str] = {}
    for line in site.daemon.lines():
        if line["event"] == "call.ended":
            calls[line["execution"], line["call"]] += 1
        elif line["event"] == "execution.ended":
            assert line["execution"] not in ends
            ends[line["execution"]] = line["status"]
    for execution in load.acknowledged:
        with suite.attempt(execution):
            assert ends[execution] == "ENDED_SUCCESS"
    with suite.attempt("calls"):
        assert [one for one, times in calls.items() if times > 1] == []
    with suite.attempt("children"):
        children = site.daemon.client.all_executions(limit=1_000_000, flow="step")
        named = collections.Counter(one["message"] for one in children)
        assert [name for name, times in named.items() if times > 1] == []


def _lose(victim: str, site: Site, suite: Suite, sleepers: list[int]) -> bool:
    """Lose one of that kind; False if there is none."""
    if victim == "daemon":
        site.daemon.kill()
        site.daemon.start()
        return True
    if victim == "head":
        pids = [site.cluster.state()["head"]]
    elif victim == "raylet":
        pids = site.cluster.state()["raylets"][1:]
    elif victim == "flow process":
        pids = site.flow_processes()
    else:
        pids = [pid for pid in site.cluster.workers() if pid not in sleepers]
    if not pids:
        return False
    pid = suite.random.choice(pids)
    try:
        os.kill(pid, signal.SIGSTOP if victim == "sleeper" else signal.SIGKILL)
    except ProcessLookupError:
        return False
    if victim == "sleeper":
        sleepers.append(pid)
        timer = threading.Timer(LEASE_S * 2, _wake, [[pid]])
        timer.daemon = True
        timer.start()
    return True


def _wake(pids: list[int]) -> None:
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGCONT)


def _ended(site: Site, load: Load) -> bool:
    with contextlib.suppress(OSError):
        under_way = ["QUEUED", "RUNNING", "WAITING", "PAUSED"]
        return bool(load.acknowledged) and not site.daemon.client.executions(status=under_way)["items"]
    return False
