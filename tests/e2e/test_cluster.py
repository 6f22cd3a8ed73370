"""Flows on a real Ray cluster of two nodes: where they run, what they bring, and everything that can be lost."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import ssl
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from headrace.engine.guest import link
from tests.support import wheels
from tests.support.daemons import Daemon, processes_matching, until
from tests.support.ray_cluster import RayCluster
from tests.support.replays import headrace

pytest.importorskip("ray")
pytestmark = pytest.mark.timeout(300)  # Ray takes its time to start and to notice what is lost

LEASE_S = 4

FLOWS = {
    "where": """
def handler(system, this, inputs):
    import os
    this.log('logged')
    print('printed')
    os.write(2, b'written raw\\n')
    return {'pid': os.getpid(), 'here': os.getcwd(), 'read': open('data/text').read(), 'inputs': inputs}
""",
    "count": """
def handler(system, this, inputs):
    for number in range(inputs['times']):
        this.flow('step', number=number, who=inputs['who'])
        this.sleep(inputs.get('pause', 0))
    return this.success('counted')
""",
    "step": """
def handler(system, this, inputs):
    return this.success(f"{inputs['who']} {inputs['number']}")
""",
    "busy": """
# a process that goes on until it is killed
def handler(system, this, inputs):
    import os, time
    this.set_output('pid', os.getpid())
    while not system.setting(inputs['until']).exists():
        time.sleep(0.05)
    return this.success('freed')
""",
    "dmz": """
# /// script
# [tool.headrace]
# worker = "dmz"
# ///
def handler(system, this, inputs):
    while not system.setting('dmz may end').exists():
        this.sleep(0.05)
""",
    "fpga": """
# /// script
# [tool.headrace]
# resources = {fpga = 1, cpu = 0.5}
# ///
def handler(system, this, inputs):
    while not system.setting('fpga may end').exists():
        this.sleep(0.05)
""",
    "gpu": """
# /// script
# [tool.headrace]
# resources = {gpu = 1, cpu = 0.5}
# ///
def handler(system, this):
    import os, time
    this.set_output('devices', os.environ.get('CUDA_VISIBLE_DEVICES'))
    while not system.setting('gpus may end').exists():
        time.sleep(0.05)  # keeps its place, as a sleep of ``this`` would not
""",
    "mars": """
# /// script
# [tool.headrace]
# worker = "mars"
# ///
def handler(system, this):
    pass
""",
    "here": """
# /// script
# [tool.headrace]
# worker = "local"
# ///
def handler(system, this):
    import os
    return os.getcwd()
""",
    "packages": """
# /// script
# dependencies = ["alpha"]
# ///
import alpha, sys
def handler(system, this):
    return [alpha.VERSION, sys.prefix]
""",
    "vanish": """
# /// script
# [tool.headrace]
# on_interrupt = "fail"
# ///
def handler(system, this, inputs):
    import os, threading
    threading.Timer(inputs['after'], os._exit, (3,)).start()
    while True:
        system.setting('nobody sets this').exists()
""",
    "parent": """
def handler(system, this, inputs):
    depth = inputs['depth']
    if depth:
        this.flow('parent', depth=depth - 1)
    return this.success(f'depth {depth}')
""",
}


class Site:
    """A cluster, a daemon that uses it, and its flows."""

    def __init__(self, home: Path, cluster: RayCluster) -> None:
        self.cluster = cluster
        folder = home / "flows"
        folder.mkdir(parents=True)
        for name, text in FLOWS.items():
            (folder / f"{name}.py").write_text(text)
        (folder / "data").mkdir()
        (folder / "data" / "text").write_text("of this commit")
        wheels.wheel(home / "wheels", "alpha", "2.0")
        self.folder = folder
        self.daemon = Daemon(home / "s", folder)
        self.stock = home / "stock"
        self.daemon.environment = {
            "HEADRACE_RUN__EXECUTOR": json.dumps(
                {"address": cluster.address, "lease_s": LEASE_S, "folder": str(self.stock)}
            ),
            "HEADRACE_RUN__ENVIRONMENTS": json.dumps({"find_links": [str(home / "wheels")], "no_index": True}),
            "HEADRACE_RUN__HIBERNATE_AFTER": "1s",
            "HEADRACE_RUN__CANCEL_GRACE": "1s",
            "HEADRACE_RUN__STOP_GRACE": "1s",
        }

    def value(self, flow: str, **inputs: Any) -> Any:
        ended = self.daemon.run(flow, **inputs)
        assert ended["status"] == "ENDED_SUCCESS", (ended, self.daemon.log.read_text()[-2000:])
        return ended["output_value"]

    def start(self, flow: str, **inputs: Any) -> str:
        return str(self.daemon.client.run(flow, inputs)["id"])

    def ended(self, execution: str, wait_s: float = 90) -> dict[str, Any]:
        found = self.daemon.client.wait(execution, wait_s)
        assert found["status"].startswith("ENDED_"), (found, self.daemon.log.read_text()[-3000:])
        return found

    def set(self, name: str) -> None:
        self.daemon.client.keep("settings", name, {"value": True})

    def workers(self) -> dict[str, Any]:
        return dict(self.daemon.client.workers())

    def node_of(self, execution: str) -> dict[str, Any]:
        """Return the machine that an execution runs on, when it does."""

        def look() -> dict[str, Any] | None:
            for one in self.workers()["items"]:
                if execution in [run["execution_id"] for run in one["running"]]:
                    return dict(one)
            return None

        return until(look, f"{execution} runs somewhere", 60)

    def busy(self, name: str) -> tuple[str, int]:
        """Start an execution that keeps its process until a setting of that name is there; returns it and its pid."""
        execution = self.start("busy", until=name)

        def look() -> int | None:
            return self.daemon.client.execution(execution)["output_value"].get("pid")

        return execution, until(look, "it has a process", 60)

    def flow_processes(self) -> list[int]:
        """Return the flow processes on nodes; their fork servers look the same but for their parents."""
        pids = processes_matching(f"{self.stock}/guest-")
        return [pid for pid in pids if _parent(pid) in pids]

    def steps(self, who: str) -> list[str]:
        """Return what the children of a count said, in order."""
        found = self.daemon.client.all_executions(limit=200, flow="step")
        return [one["message"] for one in reversed(found) if one["message"].startswith(f"{who} ")]


@pytest.fixture(scope="module")
def cluster() -> Iterator[RayCluster]:
    made = RayCluster(
        [{"num_cpus": 2, "labels": {"worker": "dmz"}}, {"num_cpus": 2, "num_gpus": 2, "resources": {"fpga": 1}}]
    )
    try:
        yield made
    finally:
        made.stop()


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory, cluster: RayCluster) -> Iterator[Site]:
    made = Site(tmp_path_factory.mktemp("c"), cluster)
    try:
        made.daemon.start()
        yield made
        if made.daemon.process is not None and made.daemon.process.poll() is None:
            assert made.daemon.stop() == 0
    finally:
        made.daemon.kill()


def _parent(pid: int) -> int:
    try:
        return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
    except OSError:
        return 0


def gone(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except OSError:
        return True


# -- where -------------------------------------------------------------------------------------------------------------


def test_a_flow_runs_on_a_node_and_says_and_brings_everything(site):
    ended = site.daemon.run("where", a=1)
    assert ended["status"] == "ENDED_SUCCESS", ended
    value = ended["output_value"]
    assert value["here"].startswith(str(site.stock)) and value["read"] == "of this commit"
    assert value["inputs"] == {"a": 1} and ended["node"] == socket.gethostname()
    lines = [(line["stream"], line["text"]) for line in site.daemon.client.log(ended["id"])]
    assert sorted(lines) == [("", "logged"), ("stderr", "written raw"), ("stdout", "printed")]


def test_the_next_execution_of_a_flow_finds_a_warm_process(site):
    found = {site.value("where")["pid"] for _ in range(8)}
    assert len(found) < 8


def test_a_flow_goes_where_its_label_and_resources_are(site):
    labelled, with_resource = site.start("dmz"), site.start("fpga")
    assert site.node_of(labelled)["labels"]["worker"] == "dmz"
    assert site.node_of(with_resource)["resources"]["fpga"] == 1
    site.set("dmz may end")
    site.set("fpga may end")
    assert site.ended(labelled)["status"] == site.ended(with_resource)["status"] == "ENDED_SUCCESS"
    assert site.daemon.client.sync_state()["warnings"] == {}


def test_a_flow_sees_the_devices_that_ray_gave_it_and_no_others(site):
    """Ray counts devices, whether there are any or not."""
    executions = [site.start("gpu") for _ in range(2)]

    def seen() -> list[str]:
        found = [site.daemon.client.execution(one)["output_value"] or {} for one in executions]
        return sorted(one["devices"] for one in found if "devices" in one)

    until(lambda: len(seen()) == 2, "both run", 60)
    assert seen() == ["0", "1"]
    site.set("gpus may end")
    for execution in executions:
        assert site.ended(execution)["status"] == "ENDED_SUCCESS"


def test_an_execution_without_a_place_says_why_and_can_be_cancelled(site):
    execution = site.start("mars")

    until(lambda: site.daemon.client.execution(execution)["held"], "it says why", 20)
    found = site.daemon.client.execution(execution)
    assert (found["status"], found["held"]) == ("QUEUED", "no node has the label worker=mars")
    site.daemon.client.cancel(execution)
    assert site.ended(execution)["status"] == "ENDED_CANCELLED"


def test_a_flow_may_insist_on_this_machine(site):
    ended = site.daemon.run("here")
    assert ended["node"] is None and str(site.daemon.state) in ended["output_value"]


def test_packages_come_along(site):
    version, prefix = site.value("packages")
    assert version == "2.0" and prefix.startswith(str(site.stock))


def test_parents_that_wait_make_room_for_their_children(site):
    """Four cores, and seven generations that each wait for the next."""
    assert site.ended(site.start("parent", depth=7))["message"] == "depth 7"


def test_the_command_line_tells_what_runs_where(site):
    execution, _ = site.busy("shown")
    told = site.workers()
    assert told["cluster"]["reason"] == "" and told["cluster"]["address"] == site.cluster.address
    assert site.node_of(execution)["id"] != "local"
    _, shown, _ = headrace("workers", "--state", site.daemon.state)
    assert execution in shown and "worker=dmz" in shown and "1 fpga" in shown
    site.set("shown")
    site.ended(execution)


def test_one_worker_serves_many_executions_and_those_that_fail_harm_no_other(site):
    """A process may be gone while the daemon still speaks to it; what comes late for it is nobody else's."""
    good = [site.start("where", n=number) for number in range(30)]
    bad = [site.start("vanish", after=0.02 * number) for number in range(8)]
    good += [site.start("where", n=number) for number in range(30)]
    for number, execution in enumerate(good):
        ended = site.ended(execution)
        assert ended["status"] == "ENDED_SUCCESS" and ended["output_value"]["inputs"] == {"n": number % 30}
        assert ended["attempt"] == 1
    for execution in bad:
        ended = site.ended(execution)
        assert (ended["status"], ended["attempt"]) == ("ENDED_ERROR", 1), ended
    assert "was lost" not in site.daemon.log.read_text()


# -- what can be lost --------------------------------------------------------------------------------------------------


def test_a_lost_worker_is_replayed_and_no_call_is_done_twice(site):
    execution = site.start("count", times=6, who="w", pause=0.3)
    until(lambda: len(site.steps("w")) > 1, "it has begun", 60)
    for pid in site.cluster.workers():
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    assert site.ended(execution)["status"] == "ENDED_SUCCESS"
    assert site.steps("w") == [f"w {number}" for number in range(6)]


def test_a_lost_node_is_replayed_and_no_call_is_done_twice(site):
    executions = [site.start("count", times=6, who=f"n{one}", pause=0.3) for one in range(3)]
    until(lambda: len(site.steps("n0")) > 1, "it has begun", 60)
    os.kill(site.cluster.state()["raylets"][1], signal.SIGKILL)
    for number, execution in enumerate(executions):
        assert site.ended(execution)["status"] == "ENDED_SUCCESS"
        assert site.steps(f"n{number}") == [f"n{number} {step}" for step in range(6)]


def test_a_node_that_slept_past_its_lease_changes_nothing_and_kills_what_it_ran(site):
    execution, pid = site.busy("woken")
    sleepers = site.cluster.workers()
    for one in [*sleepers, pid]:
        os.kill(one, signal.SIGSTOP)

    try:
        until(lambda: site.daemon.client.execution(execution)["attempt"] > 1, "it runs elsewhere", 60)
        assert site.node_of(execution)
    finally:
        for one in [*sleepers, pid]:
            with contextlib.suppress(ProcessLookupError):
                os.kill(one, signal.SIGCONT)
    until(lambda: gone(pid), "the late process is dead", 20)
    site.set("woken")
    assert site.ended(execution)["status"] == "ENDED_SUCCESS"
    kinds = [line["event"] for line in site.daemon.client.record(execution)]
    assert kinds.count("execution.started") == 2 and kinds.count("execution.interrupted") == 1


def test_a_node_that_cannot_serve_says_why_and_the_execution_waits_for_it(site):
    """Its disk is full: what the flow needs does not fit."""
    site.value("where")
    (site.folder / "large").write_bytes(os.urandom(3_000_000))
    with small_disk(site.stock):
        headrace("sync", "--state", site.daemon.state)
        execution = site.start("where")
        said = []

        def says_why():  # until it is tried again
            said.append(site.daemon.client.execution(execution)["reason"])
            return "No space left" in said[-1]

        until(says_why, "it says why", 60)
        assert said[-1].startswith(f"interrupted: node {socket.gethostname()} was lost: "), said[-1]
    assert site.ended(execution)["status"] == "ENDED_SUCCESS"
    (site.folder / "large").unlink()
    headrace("sync", "--state", site.daemon.state)


@contextlib.contextmanager
def small_disk(where: Path) -> Iterator[None]:
    """Lay one over a folder."""
    if subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=1m,mode=700", "tmpfs", where], capture_output=True
    ).returncode:
        pytest.skip("a small file system cannot be mounted")
    try:
        yield
    finally:
        subprocess.run(["umount", "-l", where], check=True)


def test_a_killed_daemon_leaves_nothing_on_nodes_and_goes_on(site):
    busy, pid = site.busy("returned")
    counting = site.start("count", times=6, who="d", pause=0.3)
    until(lambda: len(site.steps("d")) > 1, "it has begun", 60)
    site.daemon.kill()
    until(lambda: gone(pid), "nothing goes on", 20)
    site.daemon.start()
    site.set("returned")
    assert site.ended(busy)["attempt"] > 1
    assert site.ended(counting)["status"] == "ENDED_SUCCESS"
    assert site.steps("d") == [f"d {number}" for number in range(6)]


def test_without_a_cluster_executions_wait_and_those_of_this_machine_go_on(site):
    site.value("where")
    os.kill(site.cluster.state()["head"], signal.SIGKILL)
    until(lambda: site.workers()["cluster"]["reason"], "it is noticed", 90)
    execution = site.start("where")
    until(lambda: site.daemon.client.execution(execution)["held"], "it says why", 20)
    found = site.daemon.client.execution(execution)
    assert found["status"] == "QUEUED" and "Ray cluster" in found["held"]
    assert site.daemon.run("here")["status"] == "ENDED_SUCCESS"
    assert site.ended(execution, 150)["status"] == "ENDED_SUCCESS"


# -- strangers ---------------------------------------------------------------------------------------------------------


def listening(site: Site) -> tuple[str, int]:
    lines = [json.loads(line) for line in site.daemon.log.read_text().splitlines() if line.startswith("{")]
    found = [line for line in lines if line["event"] == "cluster.listening"][-1]
    return found["host"], found["port"]


@pytest.mark.parametrize(
    "first",
    [
        link.message(
            link.HELLO,
            json.dumps({"token": "0" * 64, "node": "n", "host": "h", "python": "3", "platform": ""}).encode(),
        ),
        link.message(link.HELLO, b"[]"),
        link.message(link.CHANNEL, b"anything"),
        b"GET / HTTP/1.1\r\n\r\n",
        link.HEAD.pack(link.HELLO, 0xFFFFFFFF),
    ],
    ids=["a wrong token", "no hello", "another message", "another protocol", "a huge message"],
)
def test_strangers_are_turned_away(site, first):
    until(lambda: not site.workers()["cluster"]["reason"], "the cluster is there", 90)
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    with socket.create_connection(listening(site), 10) as plain, context.wrap_socket(plain) as connection:
        connection.sendall(first)
        with contextlib.suppress(ConnectionError):
            assert connection.recv(100) == b""
    assert site.daemon.run("here")["status"] == "ENDED_SUCCESS"
