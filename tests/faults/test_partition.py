"""A node that the network cuts off while it works and gives back late; hosts are network namespaces with a real bridge.

The execution goes on elsewhere, nothing runs twice, and what comes back changes nothing.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from headrace.engine import errors
from tests.e2e.test_cluster import LEASE_S, Site, gone
from tests.faults.conftest import SCALE, Suite
from tests.support.daemons import until

pytest.importorskip("ray")
pytestmark = pytest.mark.skipif(
    os.geteuid() != 0 or shutil.which("ip") is None, reason="namespaces need root and the program ip (iproute2)"
)

_NODES = 2
_RAY = str(Path(sys.executable).with_name("ray"))


class Hosts:
    """The daemon's host with the head of a cluster, and hosts of nodes, on one bridge. Stands in for ``RayCluster``."""

    def __init__(self, folder: Path) -> None:
        self._names = [f"hr{os.getpid()}-{number}" for number in range(_NODES + 1)]
        self._folder = folder
        for number, name in enumerate(self._names):
            _do("ip", "netns", "add", name)
            self.run(number, "ip", "link", "set", "lo", "up")
        self.run(0, "ip", "link", "add", "bridge", "type", "bridge")
        self.run(0, "ip", "addr", "add", "10.77.0.1/24", "dev", "bridge")
        self.run(0, "ip", "link", "set", "bridge", "up")
        for number in range(1, _NODES + 1):
            self.run(0, "ip", "link", "add", f"to{number}", "type", "veth", "peer", "name", "home")
            self.run(0, "ip", "link", "set", "home", "netns", self._names[number])
            self.run(0, "ip", "link", "set", f"to{number}", "master", "bridge", "up")
            self.run(number, "ip", "addr", "add", f"10.77.0.{number + 1}/24", "dev", "home")
            self.run(number, "ip", "link", "set", "home", "up")
        self.address = "10.77.0.1:6379"
        memory = f"--object-store-memory={80 * 1024 * 1024}"
        self.run(0, _RAY, "start", "--head", "--node-ip-address=10.77.0.1", "--port=6379", "--num-cpus=0", memory,
                 "--include-dashboard=false", f"--temp-dir={folder}/0")  # fmt: skip
        for number in range(1, _NODES + 1):
            self.run(number, _RAY, "start", f"--address={self.address}", f"--node-ip-address=10.77.0.{number + 1}",
                     "--num-cpus=2", memory, f"--labels=host={number}")  # fmt: skip

    def run(self, number: int, *words: str) -> None:
        """Run a program on a host."""
        _do("ip", "netns", "exec", self._names[number], *words)

    @property
    def daemon_runs(self) -> tuple[str, ...]:
        """What starts a program on the daemon's host."""
        return ("ip", "netns", "exec", self._names[0])

    @contextlib.contextmanager
    def cut_off(self, number: int) -> Iterator[None]:
        """Let nothing through to a host or from it."""
        self.run(0, "ip", "link", "set", f"to{number}", "down")
        try:
            yield
        finally:
            self.run(0, "ip", "link", "set", f"to{number}", "up")

    def stop(self) -> None:
        """End everything on all hosts."""
        for name in self._names:
            pids = subprocess.run(["ip", "netns", "pids", name], capture_output=True, text=True, check=False)
            for pid in pids.stdout.split():
                with contextlib.suppress(ProcessLookupError):
                    os.kill(int(pid), 9)
            subprocess.run(["ip", "netns", "delete", name], check=False)


def _do(*words: str) -> None:
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{' '.join(words)}: {done.stdout[-2000:]}{done.stderr[-2000:]}"


@pytest.fixture
def hosts() -> Iterator[Hosts]:
    folder = Path(f"/tmp/hr{os.getpid()}")  # the paths of Ray's sockets have to be short
    folder.mkdir()
    made: Hosts | None = None
    try:
        made = Hosts(folder)
        yield made
    finally:
        if made is not None:
            made.stop()
        shutil.rmtree(folder, ignore_errors=True)


@pytest.mark.timeout(300 + 120 * int(SCALE))
def test_a_node_that_is_cut_off_and_comes_back(tmp_path: Path, hosts: Hosts, suite: Suite) -> None:
    site = Site(tmp_path / "c", hosts)
    try:
        site.daemon.start(*hosts.daemon_runs, wait=False)
        until(lambda: _reached(site), "the daemon has its cluster", 60)
        for turn in suite.times(2):
            with suite.attempt(turn):
                name = f"healed {turn}"
                execution, pid = site.busy(name)
                number = int(site.node_of(execution)["labels"]["host"])
                with hosts.cut_off(number):
                    until(lambda: gone(pid), "the node has killed it by itself", 3 * LEASE_S)  # noqa: B023
                    until(lambda: _attempts(site, execution) == 2, "it runs elsewhere", 60)  # noqa: B023
                    assert int(site.node_of(execution)["labels"]["host"]) != number
                    time.sleep(suite.random.uniform(0, 10))
                site.set(name)
                assert site.ended(execution)["status"] == "ENDED_SUCCESS"
                told = [line["event"] for line in site.daemon.client.record(execution)]
                assert (told.count("execution.started"), told.count("execution.ended")) == (2, 1)
                until(
                    lambda: len([one for one in site.workers()["items"] if one["alive"]]) == _NODES + 2, "healed", 120
                )
    finally:
        site.daemon.kill()


def _reached(site: Site) -> bool:
    """Over the unix socket: its own loopback is not ours."""
    with contextlib.suppress(OSError, errors.HeadraceError):
        return not site.workers()["cluster"]["reason"] and bool(site.daemon.client.flows())
    return False


def _attempts(site: Site, execution: str) -> int:
    return int(site.daemon.client.execution(execution)["attempt"])
