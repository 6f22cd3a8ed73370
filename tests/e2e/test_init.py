"""``headrace init``: a daemon started on what it wrote runs every flow of it."""

import json
import subprocess
import sys

import pytest

from headrace.daemon import scaffold
from tests.support.daemons import until


@pytest.fixture
def daemon(make_daemon, tmp_path):
    folder = tmp_path / "flows"
    made = subprocess.run([sys.executable, "-m", "headrace", "init", str(folder)], capture_output=True, text=True)
    assert made.returncode == 0, made.stderr
    return make_daemon(folder).start()


def test_every_flow_of_a_new_repository_runs(daemon):
    flows = daemon.client.flows()
    assert [(flow["name"], flow["broken"]) for flow in flows] == [("ask", None), ("hello", None)]
    assert all(flow["description"] for flow in flows)
    assert daemon.run("hello", name="Ada")["output_value"]["greeting"] == "Hello Ada"
    asked = daemon.client.run("ask")["id"]
    message = until(lambda: daemon.client.messages(pending=True), "it asks")[0]
    daemon.client.answer(message["id"], {"reason": "a test", "deploy": True})
    ended = daemon.client.wait(asked, 20)
    assert (ended["status"], ended["message"]) == ("ENDED_SUCCESS", "would deploy to test: a test")
    asked = daemon.client.run("ask")["id"]
    message = until(lambda: daemon.client.messages(pending=True), "it asks again")[0]
    daemon.client.answer(message["id"], {"stop": True})
    assert daemon.client.wait(asked, 20)["message"] == "not now"


def test_its_setting_is_there_and_its_editors_stubs_are_those_of_the_daemon(daemon):
    setting = daemon.client.kept_one("settings", "example")
    assert (setting["value"], setting["is_declared"]) == ({"greeting": "Hello"}, True)
    command = [sys.executable, "-m", "headrace", "--state", str(daemon.state), "sync", "--status", "--json"]
    status = json.loads(subprocess.run(command, capture_output=True, check=True).stdout)
    assert (status["broken"], status["warnings"]) == ([], {})
    assert {path for path in scaffold.files() if path.startswith("typings/")}
