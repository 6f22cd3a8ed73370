"""A real Ray cluster of several raylets on this machine, for tests: kept running, and told who to lose.

``python -m tests.support.ray_cluster FOLDER NODES`` is a supervisor like the operators of a cluster have one: it starts
a head and nodes, starts nodes again that die, and everything again when the head does, at the same port. What runs
stands in ``FOLDER/cluster.json``. ``RayCluster`` is a test's handle of that process.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import traceback
from pathlib import Path
from typing import Any

_MEMORY_BYTES = 80 * 1024 * 1024
_STARTED_S = 180


class RayCluster:
    """The supervisor as a process of its own, so that a test can lose any part of the cluster and none of itself."""

    def __init__(self, nodes: list[dict[str, Any]]) -> None:
        self._folder = Path(tempfile.mkdtemp(prefix="r"))  # the paths of Ray's sockets have to be short
        command = [sys.executable, "-m", "tests.support.ray_cluster", str(self._folder), json.dumps(nodes)]
        with (self._folder / "log").open("wb") as log:
            self._process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True, cwd=_root()
            )
        try:
            self.state()
        except BaseException:
            self.stop()
            raise

    @property
    def address(self) -> str:
        """Of the head."""
        return str(self.state()["address"])

    def state(self) -> dict[str, Any]:
        """Return what runs: ``address``, ``head`` (a pid) and ``raylets`` (pids, of the head's node first)."""
        deadline = time.monotonic() + _STARTED_S
        while time.monotonic() < deadline:
            assert self._process.poll() is None, (self._folder / "log").read_text()[-3000:]
            with contextlib.suppress(OSError, ValueError):
                return dict(json.loads((self._folder / "cluster.json").read_text()))
            time.sleep(0.1)
        raise AssertionError(f"no Ray cluster within {_STARTED_S} s:\n{(self._folder / 'log').read_text()[-3000:]}")

    def workers(self) -> list[int]:
        """Return the processes that host executions now."""
        found = []
        for entry in Path("/proc").iterdir():
            with contextlib.suppress(OSError, ValueError):
                if entry.name.isdigit() and (entry / "cmdline").read_bytes().startswith(b"ray::headrace"):
                    session = (entry / "environ").read_bytes()
                    if str(self._folder).encode() in session or str(self._folder).encode() in _ancestors(entry):
                        found.append(int(entry.name))
        return found

    def stop(self) -> None:
        """End all of it."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
        subprocess.run(["pkill", "-9", "-f", str(self._folder)], check=False)
        shutil.rmtree(self._folder, ignore_errors=True)


def _ancestors(entry: Path) -> bytes:
    """Return the command lines of a process and of those above it."""
    told = b""
    while entry.name not in ("0", "1"):
        told += (entry / "cmdline").read_bytes()
        entry = entry.with_name((entry / "stat").read_text().rpartition(")")[2].split()[1])
    return told


def _root() -> Path:
    return Path(__file__).resolve().parents[2]


class _Supervisor:
    """The other side: Ray itself, by its own class for clusters of one machine."""

    def __init__(self, folder: Path, nodes: list[dict[str, Any]]) -> None:
        self._folder = folder
        self._nodes = nodes
        self._port = _free_port()
        self._cluster: Any = None
        self._started: list[Any] = []
        self._lives = 0

    def keep(self) -> None:
        """Keep it running for good."""
        while True:
            try:
                self._begin()
                while self._see_to():
                    time.sleep(0.2)
            except Exception:  # Ray could not be started: the operator tries again
                traceback.print_exc()
            self._end()
            time.sleep(1)

    def _begin(self) -> None:
        from ray._common.utils import get_default_ray_temp_dir
        from ray.cluster_utils import Cluster

        # It notes the address of the newest cluster here, wherever that has its files, and makes no folder for it.
        Path(get_default_ray_temp_dir()).mkdir(exist_ok=True)
        head = {"include_dashboard": False, "object_store_memory": _MEMORY_BYTES, "num_cpus": 0}
        self._lives += 1
        head |= {"gcs_server_port": self._port, "temp_dir": str(self._folder / f"t{self._lives}")}
        self._cluster = Cluster(initialize_head=True, head_node_args=head)
        self._started = [self._add(one) for one in self._nodes]
        self._tell()

    def _add(self, one: dict[str, Any]) -> Any:
        return self._cluster.add_node(object_store_memory=_MEMORY_BYTES, wait=False, **one)

    def _see_to(self) -> bool:
        """Start dead nodes again; False when the head is dead."""
        head = self._cluster.head_node
        if not _lives(_pid(head, "gcs_server")) or not _lives(_pid(head, "raylet")):
            return False
        for number, node in enumerate(self._started):
            if not _lives(_pid(node, "raylet")):
                with contextlib.suppress(Exception):
                    self._cluster.remove_node(node, allow_graceful=False)
                self._started[number] = self._add(self._nodes[number])
                self._tell()
        return True

    def _tell(self) -> None:
        told = {
            "address": self._cluster.address,
            "head": _pid(self._cluster.head_node, "gcs_server"),
            "raylets": [_pid(node, "raylet") for node in (self._cluster.head_node, *self._started)],
        }
        beside = self._folder / "beside"
        beside.write_text(json.dumps(told))
        beside.rename(self._folder / "cluster.json")

    def _end(self) -> None:
        (self._folder / "cluster.json").unlink(missing_ok=True)
        subprocess.run(["pkill", "-9", "-f", f"{self._folder}/t"], check=False)
        self._started = []


def _pid(node: Any, kind: str) -> int:
    return int(node.all_processes[kind][0].process.pid) if kind in node.all_processes else 0


def _lives(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])


def main() -> None:
    """Be the supervisor, or ``--for`` a command have a cluster that it finds in ``HEADRACE_TEST_CLUSTER``."""
    if sys.argv[1] != "--for":
        _Supervisor(Path(sys.argv[1]), json.loads(sys.argv[2])).keep()
    cluster = RayCluster([{"num_cpus": 2}, {"num_cpus": 2}])
    try:
        environment = {**os.environ, "HEADRACE_TEST_CLUSTER": cluster.address}
        sys.exit(subprocess.run(sys.argv[2:], env=environment, check=False).returncode)
    finally:
        cluster.stop()


if __name__ == "__main__":
    main()
