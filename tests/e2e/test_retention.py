"""A daemon forgets what was kept long enough, gives its disk back, and goes on where it was after a restart."""

import json
import subprocess
import sys

from tests.support.daemons import until

CHATTY = """
# /// script
# [tool.headrace]
# retention = {keep = "1 ms", count = 5}
# ///
def handler(system, this):
    this.log('x' * 500)
    return this.success()
"""
KEEPS = """
def handler(system, this):
    system.setting('kept', value='for ever')
    system.file('report').save_text_content('y' * 100_000)
    system.message(subject='Well?', request='answer')
    this.sleep(600)
"""


def disk(daemon):
    return sum(path.stat().st_size for path in (daemon.state / "records").glob("*.jsonl"))


def headrace(daemon, *words):
    command = [sys.executable, "-m", "headrace", "--state", str(daemon.state), *words]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_what_flows_no_longer_need_goes_and_what_they_keep_stays(tmp_path, make_daemon):
    flows = tmp_path / "flows"
    flows.mkdir()
    (flows / "chatty.py").write_text(CHATTY)
    (flows / "keeps.py").write_text(KEEPS)
    (flows / "plain.py").write_text("def handler(system, this):\n    return this.success('plain')\n")
    daemon = make_daemon(flows)
    daemon.start()
    asking = daemon.client.run("keeps")["id"]
    (message,) = until(lambda: daemon.client.messages(pending=True), "it asks")
    plain = daemon.run("plain")["id"]
    for _ in range(80):
        chatty = daemon.run("chatty")["id"]
    record = daemon.client.record(plain), daemon.client.record(asking)
    before = disk(daemon)
    foreseen = daemon.client.prune(dry_run=True)
    assert foreseen["executions"] == 80
    assert disk(daemon) == before
    assert json.loads(headrace(daemon, "records", "prune", "--json"))["executions"] == 80
    assert disk(daemon) < before / 3
    daemon.kill()
    daemon.start()
    listed = {one["id"] for one in daemon.client.executions(limit=200)["items"]}
    assert {plain, asking} <= listed
    assert chatty not in listed
    assert daemon.client.record(plain) == record[0]
    assert daemon.client.record(asking)[: len(record[1])] == record[1]
    assert daemon.client.kept_one("settings", "kept")["value"] == "for ever"
    assert daemon.client.file("report") == b"y" * 100_000
    assert daemon.run("plain")["status"] == "ENDED_SUCCESS"
    assert daemon.client.messages(pending=True) == [message]
    headrace(daemon, "records", "prune", "--older-than", "1ms")
    assert plain not in {one["id"] for one in daemon.client.executions(limit=200)["items"]}
    assert daemon.stop() == 0
