"""The drill: a backup under load, more load, the machine is gone; what was acknowledged before is there elsewhere."""

import collections
import json
import random
import subprocess
import sys
import time

from headrace.engine.records import head, recovery
from tests.support import callers
from tests.support.daemons import until

FLOWS = {
    "quick": "def handler(system, this, inputs):\n    this.set_output('n', inputs['n'])\n",
    "hook": (
        "# /// script\n# [tool.headrace]\n# webhook = true\n# ///\n"
        "def handler(system, this, inputs):\n    this.set_output('n', inputs['json']['n'])\n"
    ),
    "naps": "def handler(system, this):\n    this.log('begins')\n    this.sleep(20)\n    return 'up'\n",
    "holds": (
        "def handler(system, this):\n    with this.lock('door'):\n"
        "        system.setting('kept', value={'by': this.id})\n"
        "        system.file('long.txt').save_text_content('x' * 100_000)\n"
        "        answer = this.message('go on?', request='how?')\n"
        "    return answer.get('response')['string']\n"
    ),
    "safe": (
        "def handler(system, this):\n"
        "    return this.flow('child', pin='hunter2', protect_inputs=['pin']).get('output_value')\n"
    ),
    "child": (
        "def handler(system, this, inputs):\n    this.message('still there?', request='sure?')\n"
        "    return inputs['pin'][::-1]\n"
    ),
}


def ask(chance, n, key):
    if chance.random() < 0.5:
        return callers.Request("hook", "/webhook/hook?async=1", {"n": n}, {"X-GitHub-Delivery": key})
    return callers.Request("quick", "/api/v1/flows/quick/run", {"inputs": {"n": n}}, {"Idempotency-Key": key})


def headrace(*words):
    command = [sys.executable, "-m", "headrace", *map(str, words), "--json"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_what_was_acknowledged_before_a_backup_under_load_is_there_elsewhere(tmp_path, make_daemon):
    (tmp_path / "flows").mkdir()
    for name, text in FLOWS.items():
        (tmp_path / "flows" / f"{name}.py").write_text(text)
    daemon = make_daemon(tmp_path / "flows")
    daemon.environment["HEADRACE_RUN__HIBERNATE_AFTER"] = "0.1s"
    daemon.start()
    token = daemon.client.create_token("of somebody", ["read"])["token"]
    waiting = {flow: daemon.client.run(flow)["id"] for flow in ("naps", "holds", "safe")}
    until(lambda: len(daemon.client.messages(pending=True)) == 2, "both ask")
    until(lambda: daemon.client.execution(waiting["naps"])["status"] == "WAITING", "it sleeps")
    with callers.calling(daemon, random.Random(1), ask, 3) as acknowledged:
        time.sleep(0.5)
        before = dict(acknowledged)
        made = headrace("backup", tmp_path / "b.tar", "--state", daemon.state)
        assert made["missing"] == []
        time.sleep(0.3)
        daemon.kill()
    assert len(acknowledged) > len(before) > 5

    done = headrace("restore", tmp_path / "b.tar", "--state", tmp_path / "elsewhere")
    assert {
        one["flow"]: one["held"] for one in done["in_flight"] if one["flow"] in (*waiting, "child")
    } == dict.fromkeys((*waiting, "child"), "paused")
    again = make_daemon(tmp_path / "flows", state="elsewhere").start()
    created = {line["execution"]: line for line in again.lines() if line["event"] == "execution.created"}
    assert set(before) <= set(created)
    assert again.raw("GET", "/api/v1/flows", headers={"Authorization": f"Bearer {token}"})[0] == 200
    assert again.client.kept_one("settings", "kept")["value"] == {"by": waiting["holds"]}
    assert again.client.file("long.txt") == b"x" * 100_000
    assert [lock["name"] for lock in again.client.locks()] == ["door"]
    held = again.client.executions(status="PAUSED", limit=200)["items"]
    assert set(waiting.values()) <= {one["id"] for one in held}
    assert not again.client.executions(status=["QUEUED", "RUNNING", "WAITING"])["items"], "nothing goes on by itself"
    assert all("held: restored from the backup" in one["reason"] for one in held)

    for one in held:
        again.client.resume(one["id"])
    for message in again.client.messages(pending=True):
        again.client.answer(message["id"], {"string": "well"})
    outputs = {flow: again.client.wait(one, 60)["output_value"] for flow, one in waiting.items()}
    assert outputs == {"naps": "up", "holds": "well", "safe": "2retnuh"}
    begun = [line for line in again.client.log(waiting["naps"]) if line["args"] == ["begins"]]
    assert len(begun) == 1, "it went on where it was"
    assert again.client.locks() == []
    until(lambda: not again.client.executions(status=["QUEUED", "RUNNING", "WAITING"])["items"], "everything has ended")
    assert again.client.executions(limit=1, q="hook")["items"], "the index was made anew"
    assert again.stop() == 0
    check(again, before)


def check(daemon, before):
    ends, outputs = collections.Counter(), collections.defaultdict(list)
    for line in daemon.lines():
        if line["event"] == "execution.ended":
            assert line["status"] == "ENDED_SUCCESS", line
            ends[line["execution"]] += 1
        if "output_keys" in line:
            outputs[line["execution"]].append(line["output_keys"]["n"])
    for execution, request in before.items():
        n = request.body["n"] if request.flow == "hook" else request.body["inputs"]["n"]
        assert (ends[execution], outputs[execution]) == (1, [n])
    known = head.read(daemon.state / head.FILE_NAME)
    assert recovery.verify(daemon.state / "records", known).problem == ""
