"""A flow with an effect of its own, on the real daemon: noticed on disk, and told wherever people look."""

import os
import re
import subprocess
import sys

import pytest

from tests.support.browser import Browser

WRITES = """
# /// script
# [tool.headrace]
# on_interrupt = "restart"
# ///
import pathlib
def handler(system, this, inputs):
    this.set_output('a', 1)
    this.step('sanctioned', lambda: pathlib.Path(inputs['folder'], 'step').write_text('x'))
    if inputs.get('pure'):
        return
    pathlib.Path(inputs['folder'], 'report').write_text('x')
    pathlib.Path(inputs['folder'], 'report').unlink()
"""
PARENT = """
def handler(system, this, inputs):
    this.flow('writes', folder=inputs['folder'], pure=True)
"""


@pytest.fixture(scope="module")
def daemon(workshop):
    workshop.flow("writes", WRITES)
    workshop.flow("parent", PARENT)
    return workshop.daemon


def headrace(daemon, *arguments):
    command = [sys.executable, "-m", "headrace", "--state", str(daemon.state), *arguments]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert ended.returncode == 0, ended.stderr
    return ended.stdout


def test_the_first_effect_is_recorded_and_shown_by_api_command_line_and_page(daemon, tmp_path):
    ended = daemon.run("writes", folder=str(tmp_path))
    assert ended["status"] == "ENDED_SUCCESS", ended["message"]
    report = str(tmp_path / "report")
    at = ended["effect"].pop("at")
    assert ended["effect"] == {"event": "open", "detail": report, "file": "writes.py", "line": 12, "call": 2}
    assert ended["started_at"] <= at <= ended["ended_at"]
    noticed = [line for line in daemon.client.record(ended["id"]) if line["event"] == "effect.noticed"]
    assert [(line["effect"], line["detail"], line["call"]) for line in noticed] == [("open", report, 2)]
    shown = headrace(daemon, "show", ended["id"])
    assert re.search(rf"^effect +open {re.escape(report)} at writes.py:12, after call 2$", shown, re.MULTILINE)
    page = Browser(daemon.url).logged_in(daemon.token()).get(f"/executions/{ended['id']}")
    assert f"it opened a file for writing (open {report}) at <code>writes.py:12</code>, after call 2" in page


def test_a_pure_one_has_none_also_in_the_process_of_one_that_had(daemon, tmp_path):
    daemon.run("writes", folder=str(tmp_path))
    ended = daemon.run("writes", folder=str(tmp_path), pure=True)
    assert (ended["status"], ended["effect"]) == ("ENDED_SUCCESS", None)
    assert not re.search("^effect ", headrace(daemon, "show", ended["id"]), re.MULTILINE)


def test_what_a_flow_says_of_interruption_stands_in_each_of_its_executions(daemon, tmp_path):
    parent = daemon.run("parent", folder=str(tmp_path))
    child = daemon.client.all_executions(limit=1, parent=parent["id"])[0]["id"]
    alone = daemon.run("writes", folder=str(tmp_path))["id"]
    said = [daemon.record(one)[0].get("on_interrupt") for one in (parent["id"], child, alone)]
    assert said == [None, "restart", "restart"]


def test_no_effect_happens_before_its_notice_is_on_disk(daemon, workshop, tmp_path):
    """The effect is a program that reads the journal: it has to find its own notice there."""
    workshop.flow(
        "greps",
        "import subprocess\ndef handler(system, this, inputs):\n"
        "    found = subprocess.run(['grep', '-rl', f'\"effect.noticed\".*{this.id}', inputs['records']])\n"
        "    return found.returncode\n",
    )
    ended = daemon.run("greps", records=os.fspath(daemon.state / "records"))
    assert (ended["output_value"], ended["effect"]["detail"]) == (0, "grep"), ended
