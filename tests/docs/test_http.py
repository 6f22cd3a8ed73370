"""docs/http.md: every route stands there, and every example has the shape of a real answer."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from headrace.daemon import (
    access,
    answers,
    connections,
    deliveries,
    entrance,
    front,
    limits,
    preconditions,
    routes,
    webhooks,
)
from headrace.engine import errors
from headrace.engine.running import lanes
from headrace.engine.state import kinds
from tests.support import front_door
from tests.support.daemons import Daemon, until

ROOT = Path(__file__).parents[2]
DOCUMENT = (ROOT / "docs" / "http.md").read_text()
EXAMPLES = {
    name: json.loads(text)
    for name, text in re.findall(r"^<!-- (\w+) -->\n```json\n(.*?)^```$", DOCUMENT, re.MULTILINE | re.DOTALL)
}
PROGRAMS = re.findall(r"^```python\n(.*?)^```$", DOCUMENT, re.MULTILINE | re.DOTALL)
HOOK = next(text for text in PROGRAMS if "[tool.headrace]" in text)


@pytest.fixture(scope="module")
def daemon(tmp_path_factory):
    home = tmp_path_factory.mktemp("docs")
    shutil.copytree(ROOT / "flows.example", home / "flows")
    (home / "flows" / "deployed.py").write_text(HOOK)
    daemon = Daemon(home / "s", home / "flows")
    daemon.environment["DEPLOY_KEY"] = "only-for-this-test"
    daemon.start()
    yield daemon
    assert daemon.stop() == 0


@pytest.fixture
def ask(daemon):
    def ask(method, path, body=None):
        return daemon.raw(method, path, body, {"Authorization": f"Bearer {daemon.token()}"})

    return ask


def test_every_route_stands_in_a_table_with_what_it_needs(tmp_path):
    documented = set(re.findall(r"^\| (GET|POST|PUT|PATCH|DELETE) \| `([^`]+)` \| (\w+) \|", DOCUMENT, re.MULTILINE))
    table = [route for route in front_door.table(tmp_path) if route.method != "*"]
    served = {(r.method, r.path.replace(":.+}", "}"), "nothing" if r.scope == "public" else r.scope) for r in table}
    assert documented == served


def test_every_path_of_webhooks_is_named():
    for route in webhooks.Webhooks(None, None, allow_anonymous=True, rate=None, figures=None).table():
        prefix, _, tail = route.path.partition("{name}")
        assert prefix in DOCUMENT
        assert tail in ("", "/{tail:.*}")


def test_an_execution_a_list_and_a_log_look_as_shown(ask):
    status, execution, headers = ask("POST", "/api/v1/flows/square/run?wait=30", {"inputs": {"number": 7}})
    assert (status, headers["Location"]) == (200, f"/api/v1/executions/{execution['id']}")
    assert list(execution) == list(EXAMPLES["execution"])
    assert execution["output_value"] == EXAMPLES["execution"]["output_value"]
    page = ask("GET", "/api/v1/executions?flow=square&limit=1")[1]
    assert list(page) == list(EXAMPLES["executions"])
    assert list(page["items"][0]) == list(EXAMPLES["executions"]["items"][0])
    hello = ask("POST", "/api/v1/flows/hello/run?wait=30")[1]["id"]
    assert list(ask("GET", f"/api/v1/executions/{hello}/log")[1]) == list(EXAMPLES["log"])


def test_a_flow_the_sync_and_a_problem_look_as_shown(ask):
    flow = ask("GET", "/api/v1/flows/answers%20a%20webhook")[1]
    assert list(flow) == [*EXAMPLES["flow"], "script"]
    assert flow["webhook"] == EXAMPLES["flow"]["webhook"]
    assert list(ask("GET", "/api/v1/sync")[1]) == list(EXAMPLES["sync"])
    problem = ask("GET", "/api/v1/flows/nope")[1]
    assert problem | {"request": ""} == EXAMPLES["problem"] | {"request": ""}
    assert list(problem) == list(EXAMPLES["problem"])


def test_every_filter_of_a_list_is_described_and_works(ask):
    filters = DOCUMENT.partition("| parameter |")[2].partition("\n\n")[0]
    status, problem, _ = ask("GET", "/api/v1/executions?nonsense=1")
    assert status == 400
    assert set(re.findall(r"'(\w+)'", problem["hint"])) == {
        name for row in re.findall(r"^\| (`[^|]*) \|", filters, re.MULTILINE) for name in re.findall(r"`(\w+)`", row)
    }


def test_a_setting_a_lock_and_a_message_look_as_shown(daemon, ask):
    status, setting, _ = ask("PUT", "/api/v1/settings/limits", {"value": {"max": 3}, "description": "how much"})
    assert (status, list(setting)) == (201, list(EXAMPLES["setting"]))
    script = (
        "def handler(system, this):\n    with this.lock('deployment'):\n"
        "        this.message('Deploy?', request='reason')\n"
    )
    execution = ask("POST", "/api/v1/executions", {"script": script})[1]["id"]
    (message,) = until(lambda: ask("GET", "/api/v1/messages?pending=true")[1]["items"], "it asks")
    assert list(message) == list(EXAMPLES["message"])
    (lock,) = ask("GET", "/api/v1/locks")[1]["items"]
    assert (list(lock), lock["execution_id"]) == (list(EXAMPLES["lock"]), execution)
    daemon.client.cancel(execution)


def test_every_field_of_a_record_is_described():
    rows = dict(re.findall(r"^\| (\w+) \| (`.*) \|$", DOCUMENT.partition("| record | fields")[2], re.MULTILINE))
    for type_, kind in kinds.KINDS.items():
        if type_ != "file":
            described = {*re.findall(r"`(\w+)`", rows[type_]), "description"}
            assert kind.fields.keys() - described == set()


def test_a_delivery_and_its_answers_look_as_shown(daemon):
    path, headers = "/webhook/deployed?from=ci&key=only-for-this-test", {"Content-Type": "application/json"}
    status, answer, _ = daemon.raw("POST", path, {"version": "1.4"}, headers)
    assert status == 200
    assert "input_value" not in answer
    inputs = daemon.client.execution(answer["id"])["input_value"]
    assert list(inputs) == list(EXAMPLES["delivery"])
    for name in ("method", "path", "query", "json", "body"):
        assert inputs[name] == EXAMPLES["delivery"][name]
    assert inputs["headers"].keys() >= EXAMPLES["delivery"]["headers"].keys()
    status, accepted, _ = daemon.raw("POST", f"{path}&async=1", {"version": "1.5"}, headers)
    assert (status, list(accepted)) == (202, list(EXAMPLES["accepted"]))
    assert daemon.client.wait(accepted["id"])["status"] == "ENDED_SUCCESS"


def test_what_was_pruned_looks_as_shown(ask):
    status, done, _ = ask("POST", "/api/v1/records/prune", {"dry_run": True})
    assert (status, list(done)) == (200, list(EXAMPLES["pruned"]))
    assert ask("POST", "/api/v1/records/prune", {"keep_s": 0})[0] == 400


def test_the_daemon_and_its_reload_look_as_shown(ask):
    status, done, _ = ask("POST", "/api/v1/reload")
    assert (status, list(done)) == (200, list(EXAMPLES["reload"]))
    status, told, _ = ask("PUT", "/api/v1/maintenance", {"reason": "a new disk"})
    shown = EXAMPLES["status"]
    assert (status, list(told)) == (200, list(shown))
    assert list(told["maintenance"]) == list(shown["maintenance"]) and list(told["log"]) == list(shown["log"])
    assert told["notices"][0].partition(" (")[0] == shown["notices"][0].partition(" (")[0]
    assert ask("DELETE", "/api/v1/maintenance")[1]["maintenance"] is None


def test_titles_and_statuses_of_errors_are_those_of_the_code():
    rows = set(re.findall(r"^\| (\d{3}) \| ([\w ]+) \|", DOCUMENT, re.MULTILINE))
    kinds = (
        *(errors.InvalidRequest, errors.Unauthenticated, errors.NotAllowed, errors.NotFound, errors.Conflict),
        *(errors.TooLarge, errors.NotAccepting, errors.HeadraceError, errors.AnswerRefused, errors.InputsUnfit),
        preconditions.PreconditionFailed,
        access.TooManyAttempts,
        limits.TooManyRequests,
        answers.TooSlow,
        answers.UnsupportedBody,
        routes.MethodNotAllowed,
        front.Misdirected,
        lanes.LaneFull,
        errors.SourceUnavailable,
    )
    assert rows == {(str(kind.http_status), answers.title_of(kind)) for kind in kinds}
    assert f"{answers.WAIT_S_MAX:g} seconds at most" in DOCUMENT


def test_limits_are_those_of_the_code():
    patience = connections.Patience()
    told = DOCUMENT.partition("## Limits")[2].partition("## Webhooks")[0]
    for limit in (
        f"{routes._TARGET_BYTES_MAX:,} bytes",
        f"| {connections.HEADERS_MAX}, of {connections.LINE_BYTES_MAX:,} bytes",
        f"{routes._HEADERS_BYTES_MAX // 1024} KiB altogether",
        f"is there {patience.head_s:g} s after",
        f"begins with {answers.BODY_S:g} s",
        f"{answers._BODY_S_MAX / 60:g} minutes",
        f"{answers.BODIES_BYTES_MAX // 2**20} MiB altogether",
        f"{deliveries.FORM_BYTES_MAX // 2**20} MiB; files",
        f"{patience.write_s:g} s without progress",
        f"| {patience.idle_s:g} s |",
        f"| {patience.connections:,}; then",
        f"one address {patience.per_address},",
        f"{entrance._REQUESTS_PER_S:g} a second, {entrance._REQUESTS_AT_ONCE:,} at once",
        f"{webhooks.DELIVERIES_PER_S:g} a second, {webhooks.DELIVERIES_AT_ONCE:,} at once",
    ):
        assert limit in told, limit


def test_the_programs_in_python_work(daemon):
    said = []
    for text in PROGRAMS:
        if "find()" in text:
            environment = {**os.environ, "STATE_DIRECTORY": str(daemon.state)}
            done = subprocess.run([sys.executable, "-c", text], capture_output=True, text=True, env=environment)
            assert done.returncode == 0, done.stderr
            said.append(done.stdout)
    assert said[0].startswith("ENDED_SUCCESS {'number': 7, 'square': 49}") and said[1] == "[1, 4, 9]\n"
