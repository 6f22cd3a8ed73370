"""The power of the disk is cut under a whole daemon at work: what it acknowledged is there when the power is back, and
so are the ends that it told.

Everything the daemon keeps lies on a file system whose power can be cut; who was acknowledged what, and what happened
in the world, is remembered outside of it. Half of the cuts are followed by another one, while the daemon that was
started again recovers, or just when it goes on.

Only what was acknowledged before a cut began counts. A sync that is under way when the file system is shut down may
return success and be lost (16 of 300 cuts of a bare writer; none of the 2,180 syncs that had returned before): a
machine without power would not get to tell anybody.
"""

import collections
import contextlib
import datetime
import os
import random
import shutil
import signal
import time
import urllib.parse

import pytest

from headrace.engine.records import head, recovery
from tests.faults import powered
from tests.support import callers
from tests.support.daemons import Daemon, processes_matching, until
from tests.support.world import World

ROUNDS = int(os.environ.get("HEADRACE_CUTS", "3"))
ENDS = {"quick": "ENDED_SUCCESS", "acts": "ENDED_SUCCESS", "parent": "ENDED_SUCCESS", "hook": "ENDED_SUCCESS"}
FLOWS = {
    "quick": "def handler(system, this, inputs):\n    this.set_output('n', inputs['n'])\n",
    "hook": (
        "# /// script\n# [tool.headrace]\n# webhook = true\n# ///\n"
        "def handler(system, this, inputs):\n    this.set_output('n', inputs['json']['n'])\n"
    ),
    "acts": (
        "def handler(system, this, inputs):\n    url = system.setting('world').get('value')\n"
        "    this.task('REST', url=f'{url}/get?of={this.id}')\n    this.sleep(0.1)\n"
        "    this.set_output('n', inputs['n'])\n"
    ),
    "parent": (
        "def handler(system, this, inputs):\n    n = inputs['n']\n"
        "    this.wait_for([this.flow('quick', n=n, wait=False) for _ in range(3)])\n    this.set_output('n', n)\n"
    ),
}


def ask(chance, n, key):
    flow, waits = chance.choice(["quick", "acts", "parent", "hook"]), chance.random() < 0.5
    if flow == "hook":
        path = "/webhook/hook" + ("" if waits else "?async=1")
        return callers.Request(flow, path, {"n": n}, {"X-GitHub-Delivery": key})
    path = f"/api/v1/flows/{flow}/run" + ("?wait=20" if waits else "")
    return callers.Request(flow, path, {"inputs": {"n": n}}, {"Idempotency-Key": key})


@pytest.fixture
def disk(tmp_path):
    try:
        disk = powered.Disk(tmp_path, 256)
    except RuntimeError as reason:
        pytest.skip(f"a loop file system cannot be mounted: {reason}")
    yield disk
    disk.close()


def on_disk(disk, tmp_path):
    """A daemon whose state is on the disk, and nothing else."""
    flows = tmp_path / "flows"
    flows.mkdir()
    for name, text in FLOWS.items():
        (flows / f"{name}.py").write_text(text)
    daemon = Daemon(disk.path / "s", flows)
    daemon.log = tmp_path / "log"
    return daemon


@pytest.mark.timeout(300 + 20 * ROUNDS)
def test_power_cuts_lose_nothing_that_was_acknowledged(disk, tmp_path, record_property):
    seed = int(os.environ.get("HEADRACE_SEED", str(random.randrange(10**6))))
    print(f"seed {seed}, {ROUNDS} power cuts")
    record_property("seed", seed)
    chance = random.Random(seed)
    daemon, flows = on_disk(disk, tmp_path).start(), tmp_path / "flows"
    acknowledged, acted, cuts = {}, set(), 0
    try:
        with World() as world:
            daemon.client.keep("settings", "world", {"value": world.url})
            for number in range(ROUNDS):
                with callers.calling(daemon, chance, ask) as more:
                    (flows / "quick.py").write_text(f"{FLOWS['quick']}# {number}\n")  # a commit may be cut off, too
                    time.sleep(chance.uniform(0.2, 1.0))
                    acted |= effects(world)
                    acknowledged |= more
                    cut(disk, daemon, chance)
                cuts += 1
                if chance.random() < 0.5:
                    daemon.start(wait=False)
                    time.sleep(chance.uniform(0, 1.5))
                    acted |= effects(world)
                    cut(disk, daemon, chance)
                    cuts += 1
                daemon.start()
            until(lambda: all_over(daemon, acknowledged), "everything has ended", 120)
            acted |= effects(world)
        assert daemon.stop() == 0
        check(daemon, acknowledged, acted)
        record_property("tries", cuts)
        told = sum(request.told_s is not None for request in acknowledged.values())
        print(f"{cuts} cuts, {len(acknowledged)} acknowledged, {told} ends told, {len(acted)} effects in the world")
    finally:
        end(daemon, disk)


@pytest.mark.skipif(not shutil.which("strace"), reason="strace is not installed")
def test_on_a_disk_that_lies_this_would_be_seen(disk, tmp_path):
    """The negative control: nothing is synced, whatever the daemon asks for."""
    daemon = on_disk(disk, tmp_path)
    calls = ("fdatasync", "fsync")
    lies = [word for call in calls for word in ("-e", f"inject={call}:retval=0")]
    try:
        daemon.start("strace", "-f", "--seccomp-bpf", "-o", os.devnull, "-e", f"trace={','.join(calls)}", *lies)
        acknowledged = {daemon.client.run("quick", {"n": n})["id"] for n in range(5)}
        disk.cut("nologflush")
        end(daemon, disk)
        disk.again()
        assert not acknowledged & {line.get("execution") for line in daemon.lines()}
    finally:
        end(daemon, disk)


def cut(disk, daemon, chance):
    """Cut the power, see the daemon gone, and let the power come back."""
    disk.cut(chance.choice(list(powered.FLAGS)))
    if chance.random() < 0.5:
        time.sleep(chance.uniform(0, 0.1))  # it is not killed at once: it has to notice
    end(daemon, disk)
    disk.again()


def effects(world):
    """The executions whose effects the world saw."""
    return {urllib.parse.urlsplit(path).query.removeprefix("of=") for path in world.asked() if "?" in path}


def end(daemon, disk):
    """Kill it, with all it started, and what it was started by."""
    daemon.kill()
    for pid in processes_matching(str(disk.path)):
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    until(lambda: not processes_matching(str(disk.path)), "nothing of it is left")


def all_over(daemon, acknowledged):
    """Whether everything that was acknowledged has ended, and what that made as well."""
    assert acknowledged, "something was acknowledged"
    open_ = [one for status in ("QUEUED", "RUNNING", "WAITING", "NEW", "PAUSED") for one in listed(daemon, status)]
    return not open_


def listed(daemon, status):
    return daemon.client.executions(status=status)["items"]


def check(daemon, acknowledged, acted):
    lines = daemon.lines()
    created = {line["execution"]: line for line in lines if line["event"] == "execution.created"}
    ends, ended_s = collections.defaultdict(list), {}
    for line in lines:
        if line["event"] == "execution.ended":
            ends[line["execution"]].append(line["status"])
            ended_s[line["execution"]] = datetime.datetime.fromisoformat(line["at"]).timestamp()
    assert set(acknowledged) <= set(created), "an acknowledged execution is not in the records"
    for execution, request in acknowledged.items():
        assert ends[execution] == [ENDS[request.flow]], (execution, request, ends[execution])
        assert request.told_s is None or ended_s[execution] <= request.told_s, "a told end was lost, and came again"
        n = request.body["n"] if request.flow == "hook" else request.body["inputs"]["n"]
        outputs = [
            line["output_keys"]["n"] for line in lines if line.get("execution") == execution and "output_keys" in line
        ]
        assert outputs == [n]
    children = collections.Counter(line["parent"] for line in created.values() if line.get("parent"))
    for execution, line in created.items():
        assert len(ends[execution]) == 1, (execution, ends[execution])
        expected = {"parent": 3, "acts": 1}.get(line.get("flow_name", ""), 0)
        assert children[execution] == expected
    assert acted <= set(created), "the world saw an effect of an execution that the records do not have"
    keys = [line["key"] for line in created.values() if "key" in line]
    assert len(keys) == len(set(keys)), "one key made two executions"
    known = head.read(daemon.state / head.FILE_NAME)
    assert recovery.verify(daemon.state / "records", known).problem == ""
