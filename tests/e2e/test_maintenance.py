"""Maintenance: what is asked for is taken and waits, durably; what has begun goes on; a restart changes nothing."""

import subprocess
import sys

import pytest

from headrace.daemon.client import ENDED
from tests.support.daemons import until
from tests.support.front_door import ask

FLOWS = {
    "idle": "def handler(system, this, inputs):\n    return this.success()\n",
    "hooked": "# /// script\n# [tool.headrace]\n# webhook = {name = 'hook', auth = 'none'}\n# ///\n"
    "def handler(system, this):\n    return this.success()\n",
    # At its message it waits for the test, and runs a child afterwards.
    "parent": "def handler(system, this):\n    this.message('go on?').wait()\n    this.flow('idle')\n",
    "alone": "# /// script\n# [tool.headrace]\n# concurrency = {limit = 1, when_full = 'skip'}\n# ///\n"
    "def handler(system, this):\n    return this.success()\n",
}


@pytest.fixture
def daemon(make_daemon, tmp_path):
    folder = tmp_path / "flows"
    folder.mkdir()
    for name, text in FLOWS.items():
        (folder / f"{name}.py").write_text(text)
    return make_daemon(folder).start()


def status(daemon, id_):
    return daemon.client.execution(id_)["status"]


def headrace(daemon, *words):
    command = [sys.executable, "-m", "headrace", "--state", str(daemon.state), *words]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def started(daemon):
    return [line["execution"] for line in daemon.lines() if line["event"] == "execution.started"]


def test_what_is_asked_for_waits_over_a_crash_and_runs_in_its_order_when_it_is_over(daemon):
    parent = daemon.client.run("parent")["id"]
    (asked,) = until(lambda: daemon.client.messages(pending=True), "it asks")
    told = headrace(daemon, "maintenance", "on", "--reason", "a new disk")
    assert told.returncode == 0 and "a new disk" in told.stdout
    made = [daemon.client.run("idle") for _ in range(3)]
    assert all("a new disk" in one["held"] and one["status"] == "QUEUED" for one in made)
    ids = [one["id"] for one in made]
    hook = {"X-GitHub-Delivery": "d1"}
    first, again = (ask(daemon, "POST", "/webhook/hook", headers=hook) for _ in range(2))
    assert (first.status, again.status) == (202, 202) and first.json["id"] == again.json["id"]
    ids.append(first.json["id"])
    lane = [daemon.client.run("alone")["id"] for _ in range(3)]
    until(lambda: [status(daemon, one) for one in lane[1:]] == ["ENDED_CANCELLED"] * 2, "its lane is full")
    ids.append(lane[0])
    given_up = daemon.client.run("idle")["id"]
    daemon.client.cancel(given_up)
    assert daemon.client.wait(given_up, 20)["status"] == "ENDED_CANCELLED"

    daemon.kill()
    daemon.start()

    assert daemon.client.status()["maintenance"] | {"since": ""} == {
        "since": "", "reason": "a new disk", "by": "admin", "waiting": 5,
    }  # fmt: skip
    daemon.client.answer(asked["id"], {})
    ended = daemon.client.wait(parent, 30)
    assert ended["status"] == "ENDED_SUCCESS", "what has begun comes to its end, children and all"
    assert {status(daemon, one) for one in ids} == {"QUEUED"} and not set(ids) & set(started(daemon))
    seen_by_who_watches(daemon, ids[0])

    assert headrace(daemon, "maintenance", "off").stdout.strip() == "off"
    for one in ids:
        assert daemon.client.wait(one, 30)["status"] == "ENDED_SUCCESS"
    assert [one for one in started(daemon) if one in ids] == ids
    assert daemon.client.status()["maintenance"] is None and daemon.notices() == []
    daemon.kill()
    daemon.start()
    assert daemon.run("idle")["status"] in ENDED


def seen_by_who_watches(daemon, held):
    assert daemon.raw("GET", "/readyz")[0] == 200 and "a new disk" in daemon.notices()[0], "it goes on taking work"
    figures = ask(daemon, "GET", "/metrics", daemon.token()).body.decode()
    assert "headrace_maintenance 1.0" in figures and "headrace_executions_held 5.0" in figures
    headers = {"Accept": "text/html"}
    for page in ("/", f"/executions/{held}"):
        assert "a new disk" in ask(daemon, "GET", page, daemon.token(), headers=headers).body.decode()
    shown = headrace(daemon, "status").stdout
    assert "a new disk" in shown and "5 executions wait" in shown
    assert "a new disk" in headrace(daemon, "doctor").stdout
    audited = [line["what"] for line in daemon.client.audit()]
    assert "PUT /api/v1/maintenance" in audited


def test_the_log_says_more_for_a_while_and_goes_back_by_itself(daemon):
    def nudges():
        return daemon.log.read_text().count('"sync.nudged"')

    assert daemon.client.status()["log"] == {"level": "info", "until": ""}
    told = headrace(daemon, "log-level", "debug", "--for", "1h")
    assert told.returncode == 0 and told.stdout.startswith("debug, until ")
    daemon.client.sync()
    until(nudges, "debugging is on")
    daemon.client.reload()
    assert daemon.client.status()["log"]["level"] == "debug", "a reload does not end it"
    daemon.client.restore_log_level()
    before = nudges()
    daemon.client.sync()
    assert (nudges(), daemon.client.status()["log"]["level"]) == (before, "info")
    daemon.client.set_log_level("error", for_s=0.2)
    until(lambda: daemon.client.status()["log"] == {"level": "info", "until": ""}, "it goes back")
    audited = {one["what"] for one in daemon.client.audit()}
    assert audited >= {"PUT /api/v1/log-level", "DELETE /api/v1/log-level", "POST /api/v1/reload"}
    for body in ({"level": "loud"}, {"level": "debug", "for_s": 0}, {"level": "debug", "for_s": 1e9}, {}):
        assert ask(daemon, "PUT", "/api/v1/log-level", daemon.token(), body=body).status == 400


def test_only_administrators_steer(daemon):
    token = daemon.client.create_token("ops", ["read", "run", "edit"])["token"]
    for method, path in [("POST", "reload"), ("PUT", "log-level"), ("DELETE", "log-level"), ("PUT", "maintenance"),
                         ("DELETE", "maintenance")]:  # fmt: skip
        assert ask(daemon, method, f"/api/v1/{path}", token, body={}).status == 403
    assert ask(daemon, "GET", "/api/v1/status", token).json["status"] == "ready"
    assert ask(daemon, "PUT", "/api/v1/maintenance", daemon.token(), body={"reason": "x" * 501}).status == 400
