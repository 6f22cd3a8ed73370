"""A daemon that was given its part of the tree of cgroups: each flow process has one, and nothing leaves it alive."""

import contextlib
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from headrace.daemon.cli import main
from headrace.engine.guest import cgroups
from tests.support.daemons import Daemon, until

WHERE = """
def handler(system, this):
    return next(line[3:].strip() for line in open('/proc/self/cgroup') if line.startswith('0::'))
"""
#: A process of another session whose parent is gone, and which adopts: nobody finds its children by their parents.
LEAVES = """
import subprocess, sys
HIDES = '''
import ctypes, os, sys, time
if os.fork(): os._exit(0)
os.setsid()
ctypes.CDLL(None).prctl(36, 1, 0, 0, 0)
if os.fork() == 0 and os.fork() == 0:
    time.sleep(600)
print(os.getpid(), flush=True)
time.sleep(600)
'''
def handler(system, this):
    process = subprocess.Popen([sys.executable, '-c', HIDES], stdout=subprocess.PIPE, text=True)
    this.log(f'left {process.stdout.readline()}')
    if this.get('input_value').get('wait'):
        this.message('Go on?').get('response')
    return open('/proc/self/cgroup').read()
"""
#: Each process has less than the flow may have, all together have more.
HOG = """
# /// script
# [tool.headrace]
# max_memory = "96M"
# ///
import subprocess, sys
TAKES = "import sys, time; held = b'1' * 40 * 2**20; print(flush=True); time.sleep(60)"
def handler(system, this):
    children = [subprocess.Popen([sys.executable, '-c', TAKES], stdout=subprocess.PIPE) for _ in range(4)]
    for child in children:
        child.stdout.readline()
    return 'all of them have it'
"""


@pytest.fixture
def tree():
    """A cgroup as systemd would give it, made anew."""
    mounts = [line.split() for line in Path("/proc/mounts").read_text().splitlines()]
    mount = next((words[1] for words in mounts if words[2] == "cgroup2"), "")
    path = Path(mount) / f"headrace-test-{os.getpid()}"
    try:
        if not mount:
            raise OSError("no cgroups of version 2 are mounted")
        path.mkdir()
        for name in {"memory", "pids"} & set((Path(mount) / "cgroup.controllers").read_text().split()):
            (Path(mount) / "cgroup.subtree_control").write_text(f"+{name}")
        os.setxattr(path, "user.delegate", b"1")
    except OSError as error:
        with contextlib.suppress(OSError):
            path.rmdir()
        pytest.skip(f"no cgroup can be had here: {error}")
    yield path
    cgroups.clear([str(path)])


@pytest.fixture
def daemon(tmp_path):
    flows = tmp_path / "flows"
    flows.mkdir()
    for name, text in {"where": WHERE, "leaves": LEAVES, "hog": HOG}.items():
        (flows / f"{name}.py").write_text(text)
    daemon = Daemon(tmp_path / "s", flows)
    yield daemon
    daemon.kill()


def within(tree):
    """The words that start a program in ``tree``."""
    return ["sh", "-c", 'echo $$ > "$0/cgroup.procs" && exec "$@"', str(tree)]


def sharing(tree):
    """The same, with a shell beside it."""
    return ["sh", "-c", 'echo $$ > "$0/cgroup.procs" && "$@"; exit', str(tree)]


def members(cgroup):
    return [int(line) for line in (cgroup / "cgroup.procs").read_text().split()]


def cells(tree):
    return sorted(path.name for path in tree.glob("flow-*"))


def test_each_flow_process_has_a_cgroup_which_a_warm_one_keeps_and_none_is_left(tree, daemon, capsys):
    daemon.start(*within(tree))
    first, again = daemon.run("where"), daemon.run("where")
    assert first["output_value"] == again["output_value"] == f"/{tree.name}/flow-1"
    assert members(tree) == [] and daemon.pid in members(tree / "daemon")
    told = daemon.client.status()["cgroups"]
    assert (told["path"], told["reason"]) == (str(tree), "")
    assert set(told["controllers"]) <= {"memory", "pids"}
    assert main.main(["doctor", "--state", str(daemon.state)]) == 0
    assert "good    flow processes: a cgroup for each" in capsys.readouterr().out
    daemon.process.send_signal(signal.SIGTERM)
    assert daemon.process.wait(60) == 0
    assert cells(tree) == []


def test_whoever_a_flow_left_ends_with_it_also_when_the_fork_server_dies(tree, daemon):
    daemon.start(*within(tree))
    assert daemon.run("leaves")["status"] == "ENDED_SUCCESS"
    cell = "flow-2"  # of the process that waits for the next execution
    until(lambda: cells(tree) == [cell], "everything it started is gone")
    waiting = daemon.client.run("leaves", {"wait": True})["id"]
    until(lambda: daemon.client.execution(waiting)["status"] == "WAITING", "it waits")
    left = members(tree / cell)
    assert len(left) >= 4
    (server,) = [pid for pid in members(tree / "daemon") if b"guest" in Path(f"/proc/{pid}/cmdline").read_bytes()]
    os.kill(server, signal.SIGKILL)
    until(lambda: cell not in cells(tree), "its cgroup is gone")
    assert not [pid for pid in left if is_alive(pid)]


def test_a_daemon_that_died_with_its_fork_server_leaves_what_the_next_one_ends(tree, daemon):
    daemon.start(*within(tree))
    daemon.run("where")
    (tree / "flow-1" / "inner").mkdir()
    stray = os.fork()
    if stray == 0:
        (tree / "flow-1" / "inner" / "cgroup.procs").write_text("0")
        time.sleep(600)
        os._exit(0)
    until(lambda: members(tree / "flow-1" / "inner") == [stray], "it is inside")
    for pid in (*members(tree / "daemon"), daemon.pid):
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    os.kill(stray, 0)
    daemon.process.wait(10)
    until(lambda: members(tree / "daemon") == [], "all of it is dead")
    daemon.start(*within(tree))
    assert os.waitpid(stray, 0)[1] == signal.SIGKILL
    assert daemon.run("where")["output_value"] == f"/{tree.name}/flow-1"


def test_a_tree_that_is_not_given_or_shared_is_left_alone(tree):
    code = "from headrace.engine.guest import cgroups; print(cgroups.claim())"
    shared = subprocess.run([*sharing(tree), sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert f"the daemon shares {tree} with other processes" in shared.stdout
    os.removexattr(tree, "user.delegate")
    told = subprocess.run([*within(tree), sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert f"{tree} is not delegated" in told.stdout
    assert not (tree / "daemon").exists()


def test_all_processes_of_a_flow_together_have_no_more_memory_than_it_may_have(tree, daemon):
    daemon.start(*within(tree))
    if "memory" not in daemon.client.status()["cgroups"]["controllers"]:
        pytest.skip("memory is no controller of version 2 here")
    ended = daemon.run("hog")
    assert (ended["status"], ended["reason"]) == ("ENDED_ERROR", "memory")
    assert ended["message"] == "killed: used more than 96 MiB of memory"
    assert daemon.run("where")["status"] == "ENDED_SUCCESS"
    assert len(cells(tree)) == 1


def test_what_the_kernel_says_of_memory_and_what_it_is_told(tmp_path):
    for name in ("memory.max", "memory.oom.group", "memory.swap.max"):
        (tmp_path / name).touch()
    cgroups.limit_memory(str(tmp_path), 64 * 2**20)
    assert (tmp_path / "memory.max").read_text() == str(64 * 2**20)
    assert ((tmp_path / "memory.oom.group").read_text(), (tmp_path / "memory.swap.max").read_text()) == ("1", "0")
    assert cgroups.why_killed(str(tmp_path)) == "", "there is no such controller"
    for oom, killed, why in ((0, 0, ""), (3, 0, ""), (3, 2, "limit"), (0, 1, "machine")):
        (tmp_path / "memory.events").write_text(f"low 0\nhigh 0\nmax 9\noom {oom}\noom_kill {killed}\n")
        assert cgroups.why_killed(str(tmp_path)) == why


def is_alive(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False
