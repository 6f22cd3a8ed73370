"""SSH from a daemon that is killed: what was running there, what is recorded, and what is not."""

from __future__ import annotations

import uuid
from pathlib import Path

from tests.support import machines
from tests.support.daemons import Daemon, until

FLOW = """
import flow_api

def handler(system, this, inputs):
    try:
        task = this.task('SSH', key=inputs.get('key', 'secret.env(KEY)'), **inputs['call'])
        return this.success(task.get('output_value')['report'])
    except flow_api.DependencyFailedError as error:
        return this.success(error.execution.get('message'))
    except flow_api.OutcomeUnknownError as error:
        return this.success('unknown')
"""


def test_a_daemon_that_is_killed_takes_its_scripts_along_and_repeats_none(tmp_path: Path):
    (tmp_path / "flows").mkdir()
    (tmp_path / "flows" / "far.py").write_text(FLOW)
    daemon = Daemon(tmp_path / "state", tmp_path / "flows")
    with machines.sshd(tmp_path / "sshd") as machine:
        mark, count = uuid.uuid4().hex, tmp_path / "count"
        call = {name: value for name, value in machine.access.items() if name != "key"}
        script = f"echo once >>{count}; sh -c 'sleep 300; echo {mark}'; true"
        daemon.environment |= {"KEY": machine.key, "OTHER": machine.other_key}
        try:
            daemon.start()
            started = daemon.client.run("far", {"call": {**call, "script": script, "script_timeout": 300}})["id"]
            until(lambda: machines.processes_with(mark), "the script runs")
            daemon.kill()
            until(lambda: not machines.processes_with(mark), "the machine ended it")
            assert list(machine.home.iterdir()) == []
            daemon.start()
            assert daemon.client.wait(started, 30)["message"] == "unknown"
            assert count.read_text() == "once\n"
            assert daemon.run("far", call={**call, "script": "echo in"})["message"] == "in\n"
            refused = daemon.run("far", call={**call, "script": "true"}, key="secret.env(OTHER)")["message"]
            assert refused.endswith(f"the server refused the key of {call['username']}")
            assert daemon.stop() == 0
        finally:
            daemon.kill()
        secrets = [*machine.key.splitlines()[1:-1], *machine.other_key.splitlines()[1:-1]]
    everything = b"".join(path.read_bytes() for path in daemon.state.rglob("*") if path.is_file())
    everything += daemon.log.read_bytes()
    assert b"echo once" in everything and not [one for one in secrets if one.encode() in everything]
