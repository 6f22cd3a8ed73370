"""kill -9 of the daemon under load, again and again: whatever was acknowledged is in the records, with an end."""

import collections
import json
import os
import random
import sqlite3
import time

import pytest

from headrace.engine.records import recovery
from tests.support import callers
from tests.support.daemons import processes_matching, until

ROUNDS = int(os.environ.get("HEADRACE_KILLS", "5"))
FLOWS = {
    "quick.py": "def handler(system, this, inputs):\n    this.set_output('n', inputs['n'])\n",
    "waits.py": "def handler(system, this, inputs):\n    this.sleep(0.3)\n    return inputs['n']\n",
    "parent.py": (
        "def handler(system, this, inputs):\n"
        "    children = [this.flow('quick', n=n, wait=False) for n in range(3)]\n"
        "    this.wait_for(children)\n    this.flow('waits', n=1)\n"
        "    this.log('all', [c.get('status') for c in children])\n    return inputs['n']\n"
    ),
    "fails.py": "def handler(system, this):\n    raise ValueError('as it should')\n",
}


def ask(chance, n, key):
    """Some run of some flow."""
    flow = chance.choice(["quick", "quick", "waits", "parent", "fails"])
    inputs = {"n": n} if flow != "fails" else {}
    return callers.Request(flow, f"/api/v1/flows/{flow}/run", {"inputs": inputs}, {"Idempotency-Key": key})


@pytest.mark.timeout(600 + 10 * ROUNDS)
def test_kill_9_under_load_loses_nothing_that_was_acknowledged(tmp_path, make_daemon, record_property):
    seed = int(os.environ.get("HEADRACE_SEED", str(random.randrange(10**6))))
    print(f"seed {seed}, {ROUNDS} kills")
    record_property("seed", seed)
    record_property("tries", ROUNDS)
    chance = random.Random(seed)
    flows = tmp_path / "flows"
    flows.mkdir()
    for name, text in FLOWS.items():
        (flows / name).write_text(text)
    daemon = make_daemon(flows)
    daemon.start()
    with callers.calling(daemon, chance, ask) as acknowledged:
        for _ in range(ROUNDS):
            time.sleep(chance.uniform(0.05, 0.4))
            daemon.kill()
            daemon.start()
    for execution in chance.sample(sorted(acknowledged), min(20, len(acknowledged))):
        answer = callers.send(daemon, acknowledged[execution])[1]
        assert answer["id"] == execution, "the same key still means the same execution"

    until(lambda: not [e for e in unfinished(daemon) if e], "everything has ended", 90)
    assert daemon.stop() == 0

    lines = daemon.lines()
    ends = collections.Counter(line["execution"] for line in lines if line["event"] == "execution.ended")
    created = [line["execution"] for line in lines if line["event"] == "execution.created"]
    assert len(acknowledged) > ROUNDS
    assert set(acknowledged) <= set(created), "an acknowledged execution is not in the records"
    assert len(created) == len(set(created))
    assert {execution: ends[execution] for execution in created if ends[execution] != 1} == {}
    reasons = collections.Counter(
        (line["status"], line.get("reason", "")) for line in lines if line["event"] == "execution.ended"
    )
    print(f"{len(acknowledged)} acknowledged, {len(created)} created, ends: {dict(reasons)}")
    assert set(reasons) <= {("ENDED_SUCCESS", ""), ("ENDED_ERROR", ""), ("ENDED_ERROR", "interrupted")}
    assert recovery.verify(daemon.state / "records").problem == ""
    keys = [line["key"] for line in lines if line["event"] == "execution.created" and "key" in line]
    assert len(keys) == len(set(keys)), "one key made two executions"
    assert in_index(daemon.state) == dict.fromkeys(created, 1)
    assert [pid for pid in processes_matching(str(flows)) if pid != os.getpid()] == []


def unfinished(daemon):
    found = []
    for status in ("QUEUED", "RUNNING", "WAITING", "NEW"):
        found += daemon.client.executions(status=status)["items"]
    return found


def in_index(state):
    with sqlite3.connect(state / "index.db") as database:
        return dict(database.execute("SELECT id, count(*) FROM executions GROUP BY id").fetchall())


def test_the_record_of_every_kind_of_event_is_json_a_shipper_can_read(tmp_path, make_daemon):
    flows = tmp_path / "flows"
    flows.mkdir()
    for name, text in FLOWS.items():
        (flows / name).write_text(text)
    daemon = make_daemon(flows).start()
    daemon.run("parent", n=1)
    daemon.stop()
    (segment,) = (daemon.state / "records").glob("*.jsonl")
    for number, line in enumerate(segment.read_text().splitlines(), start=1):
        fields = json.loads(line)
        assert fields["seq"] == number
        assert {"batch", "at", "event", "crc"} <= fields.keys()
