"""What depends on how a daemon is set up: its names, the folders of its repository, and how much runs at a time."""

from __future__ import annotations

import json

import pytest

from tests.support.daemons import Daemon, until

TELLS = """
def handler(system, this):
    return {
        'names': [system.get_own_client().get('name'), system.get_own_workspace().get('name'), system.get_env_name()],
        'setting': system.setting('limit').get('value'),
        'file': system.file('note.txt').get_text_content(),
        'not declared': system.setting('not declared').exists(),
    }
"""
NESTED = """
def handler(system, this, inputs):
    depth = inputs.get('depth', 0)
    if depth < 3:
        return this.flow('nested', depth=depth + 1).get("status")
    this.save(output_value={'depth': depth})
"""


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    """A daemon with other names for everything, in which one flow runs at a time."""
    home = tmp_path_factory.mktemp("i")
    for path, text in {
        "tells.py": TELLS,
        "nested.py": NESTED,
        "sleeps.py": "def handler(system, this):\n    import time\n    time.sleep(0.3)\n",
        "config/limit.yaml": "5",
        "attachments/note.txt": "found",
        "settings/not declared.yaml": "1",
    }.items():
        (home / "flows" / path).parent.mkdir(parents=True, exist_ok=True)
        (home / "flows" / path).write_text(text)
    daemon = Daemon(home / "s", home / "flows")
    daemon.environment |= {
        "HEADRACE_IDENTITY__WORKSPACE": "the shop",
        "HEADRACE_IDENTITY__ENVIRONMENT": "staging",
        "HEADRACE_SOURCE__FOLDERS": "settings=config, files=attachments",
        "HEADRACE_RUN__MAX_RUNNING": "1",
    }
    try:
        daemon.start()
        yield daemon
        assert daemon.stop() == 0
    finally:
        daemon.kill()


@pytest.mark.contract("3.own.client", "3.own.environment", "3.declared.folders")
def test_names_and_folders_are_those_of_the_installation(small):
    assert small.run("tells")["output_value"] == {
        "names": ["the shop", "the shop", "staging"],
        "setting": 5,
        "file": "found",
        "not declared": False,
    }


@pytest.mark.contract("2.status.queued")
def test_a_parent_that_waits_makes_room_for_its_child(small):
    assert small.run("nested")["status"] == "ENDED_SUCCESS"


@pytest.mark.contract("2.status.queued", "2.cancel.execution")
def test_executions_queue_where_there_is_no_room_and_can_be_cancelled_there(small):
    first, second, third = (small.client.run("sleeps")["id"] for _ in range(3))
    until(lambda: small.client.execution(first)["status"] == "RUNNING", "the first one runs")
    assert [small.client.execution(each)["status"] for each in (second, third)] == ["QUEUED", "QUEUED"]
    small.client.cancel(second)
    cancelled = small.client.wait(second, 10)
    assert (cancelled["status"], cancelled["started_at"]) == ("ENDED_CANCELLED", None)
    assert [small.client.wait(each, 10)["status"] for each in (first, third)] == ["ENDED_SUCCESS"] * 2
    assert json.dumps(small.record(second)).count("execution.started") == 0
