"""A state directory that an earlier version left behind: its executions go on, and what flows kept is there.

``tests/golden/state/write.py`` packed them. If one of these tests fails, mend the code, not the packs.
"""

import subprocess
from pathlib import Path

import pytest

from headrace.engine.records import head, recovery
from tests.golden.state.write import FLOWS, WAITING
from tests.support.daemons import until

PACKS = sorted((Path(__file__).parents[1] / "golden" / "state").glob("*.tar.gz"))


@pytest.mark.parametrize("pack", PACKS, ids=lambda pack: pack.name.removesuffix(".tar.gz"))
def test_executions_of_an_earlier_version_go_on(tmp_path, make_daemon, pack):
    (tmp_path / "flows").mkdir()
    for flow in FLOWS:  # other ones by now: what waits goes on with the commit it began with
        (tmp_path / "flows" / f"{flow}.py").write_text("def handler(system, this):\n    return 'new'\n")
    (tmp_path / "s").mkdir()
    subprocess.run(["tar", "-xzf", str(pack), "-C", str(tmp_path / "s"), "--no-same-owner"], check=True)
    daemon = make_daemon(tmp_path / "flows")
    daemon.environment["HEADRACE_RECORDS__KEEP"] = "36500d"  # whenever this test is run
    before = (daemon.state / "records" / "00000001.jsonl").read_bytes()
    daemon.start()
    found = {one["name"]: one for one in daemon.client.executions(limit=100)["items"] if not one.get("parent")}
    assert set(found) == {*WAITING, "quick"}
    for message in until(lambda: daemon.client.messages(pending=True), "questions are open"):
        daemon.client.answer(message["id"], {"string": "go"})
    outputs = {}
    for flow in WAITING:
        ended = daemon.client.wait(found[flow]["id"], 30)
        assert (ended["status"], ended["attempt"]) == ("ENDED_SUCCESS", 2), ended
        outputs[flow] = ended["output_value"]
    told = {line["output"] for line in daemon.record(found["naps"]["id"]) if line["event"] == "execution.ended"}
    assert told == {outputs.pop("naps")}
    assert outputs == {"asks": "go", "holds": 1, "wants": 2, "parent": ["go", 3], "steps": {"made": {"a": 1}}}
    assert daemon.client.kept_one("settings", "last")["value"] == 9
    assert daemon.client.kept_one("settings", "all")["value"] == [3, *range(10)]
    assert daemon.client.locks() == []
    assert daemon.run("quick")["output_value"] == "new"
    assert daemon.stop() == 0
    assert (daemon.state / "records" / "00000001.jsonl").read_bytes().startswith(before), "old lines stay as they are"
    assert recovery.verify(daemon.state / "records", head.read(daemon.state / head.FILE_NAME)).problem == ""
