"""Running again, guarded changes of records, and traces that go through."""

import http.server
import json
import subprocess
import sys
import threading

import pytest

from headrace.engine import traces
from tests.support.front_door import ask

TRACE = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
FLOWS = {
    "says": "def handler(system, this, inputs):\n    return {'version': 1, **inputs}\n",
    "outer": "def handler(system, this, inputs):\n    this.flow('inner', url=inputs['url'])\n",
    "inner": "def handler(system, this, inputs):\n    this.task('REST', url=inputs['url'])\n",
    "hooked": "# /// script\n# [tool.headrace]\n# webhook = {name = 'hooked', auth = 'none'}\n# ///\n"
    "def handler(system, this, inputs):\n    return {'method': inputs['method']}\n",
}


@pytest.fixture(scope="module")
def daemon(workshop):
    for name, text in FLOWS.items():
        workshop.write(f"{name}.py", text)
    workshop.daemon.client.sync()
    return workshop.daemon


@pytest.fixture
def bearer(daemon):
    return daemon.token()


def rerun(daemon, execution, token, body=None):
    return ask(daemon, "POST", f"/api/v1/executions/{execution}/rerun?wait=20", token, body=body or {})


def test_an_execution_is_run_again_with_its_inputs_or_others(daemon, bearer):
    first = daemon.run("says", a=1, b=2)
    again = rerun(daemon, first["id"], bearer)
    assert (again.status, again.json["output_value"]) == (200, {"version": 1, "a": 1, "b": 2})
    assert again.json["id"] != first["id"] and again.headers["location"].endswith(again.json["id"])
    changed = rerun(daemon, first["id"], bearer, {"inputs": {"b": 3}, "name": "otherwise"}).json
    assert (changed["name"], changed["input_value"]) == ("otherwise", {"a": 1, "b": 3})
    assert rerun(daemon, "nope", bearer).status == 404
    assert rerun(daemon, first["id"], bearer, {"version": "older"}).status == 400


def test_it_runs_the_latest_version_or_the_one_that_it_ran(workshop, daemon, bearer):
    workshop.flow("changes", "def handler(system, this):\n    return {'version': 1}\n")
    first = daemon.run("changes")
    keeps = daemon.client.run("changes")["id"]
    workshop.flow("changes", "def handler(system, this):\n    return {'version': 2}\n")
    assert rerun(daemon, keeps, bearer).json["output_value"] == {"version": 2}
    assert rerun(daemon, first["id"], bearer, {"version": "same"}).json["output_value"] == {"version": 1}
    run = ask(daemon, "POST", "/api/v1/flows/changes/run?wait=20", bearer, body={"ref": first["commit"]})
    assert run.json["output_value"] == {"version": 1}
    gone = ask(daemon, "POST", "/api/v1/flows/changes/run", bearer, body={"ref": "0" * 40})
    assert gone.status == 409 and "not kept any more" in gone.json["detail"]


def test_what_came_from_a_webhook_stays_untrusted_and_a_script_needs_what_a_script_needs(daemon, bearer):
    first = ask(daemon, "POST", "/webhook/hooked").headers["location"].rpartition("/")[2]
    again = rerun(daemon, first, bearer).json
    created = daemon.record(again["id"])[0]
    assert again["output_value"] == {"method": "POST"} and created["outside"] and created["webhook"]
    script = ask(daemon, "POST", "/api/v1/executions?wait=20", bearer, body={"script": FLOWS["says"]}).json["id"]
    assert rerun(daemon, script, bearer).json["output_value"] == {"version": 1}
    operator = daemon.client.create_token("op", ["operator"])["token"]
    assert rerun(daemon, script, operator).status == 403


def test_a_key_makes_running_again_safe_to_ask_for_twice(daemon, bearer):
    first = daemon.run("says", a=1)["id"]
    key = {"Idempotency-Key": "again-1"}
    path = f"/api/v1/executions/{first}/rerun"
    one, two = (ask(daemon, "POST", path, bearer, body={}, headers=key) for _ in range(2))
    assert one.json["id"] == two.json["id"] and two.headers["idempotency-replayed"] == "true"
    assert ask(daemon, "POST", path, bearer, body={"inputs": {"a": 2}}, headers=key).status == 409


def test_people_rerun_from_the_command_line(daemon):
    command = [sys.executable, "-m", "headrace", "--state", str(daemon.state)]
    daemon.run("says", a=1)
    done = subprocess.run([*command, "rerun", "latest", "a:=5", "--same-commit"], capture_output=True, text=True)
    assert (done.returncode, json.loads(done.stdout)) == (0, {"version": 1, "a": 5})
    described = subprocess.run([*command, "openapi"], capture_output=True, text=True, check=True)
    assert json.loads(described.stdout)["openapi"] == "3.1.0"


# -- records ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("path", "first", "second"),
    [("/api/v1/settings/guarded", {"value": 1}, {"value": 2}), ("/api/v1/files/guarded.txt", b"one", b"two")],
)
def test_a_record_is_changed_only_as_it_was_seen(daemon, bearer, path, first, second):
    new = {"If-None-Match": "*"}
    assert ask(daemon, "PUT", path, bearer, body=first, headers={"If-Match": "*"}).status == 412
    made = ask(daemon, "PUT", path, bearer, body=first, headers=new)
    assert made.status == 201
    assert ask(daemon, "PUT", path, bearer, body=first, headers=new).status == 412
    tag = ask(daemon, "GET", path, bearer).headers["etag"]
    assert tag == made.headers["etag"]
    changed = ask(daemon, "PUT", path, bearer, body=second, headers={"If-Match": tag})
    assert changed.status == 200 and changed.headers["etag"] != tag
    for method in ("PUT", "DELETE"):
        assert ask(daemon, method, path, bearer, body=first, headers={"If-Match": tag}).status == 412
    assert ask(daemon, "DELETE", path, bearer, headers={"If-Match": changed.headers["etag"]}).status == 204


def test_of_many_who_saw_the_same_one_wins(daemon, bearer):
    path = "/api/v1/settings/contested"
    tag = ask(daemon, "PUT", path, bearer, body={"value": 0}).headers["etag"]
    statuses = []

    def change(n):
        statuses.append(ask(daemon, "PUT", path, bearer, body={"value": n}, headers={"If-Match": tag}).status)

    threads = [threading.Thread(target=change, args=(n,)) for n in range(1, 9)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert sorted(statuses) == [200] + [412] * 7


# -- traces -----------------------------------------------------------------------------------------------------


@pytest.fixture
def listener():
    """An HTTP server that remembers the headers it got."""
    seen = []

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            seen.append(dict(self.headers))
            self.send_response(200)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *args):
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}/", seen
    server.shutdown()
    thread.join()
    server.server_close()


def test_a_trace_goes_through_children_and_tasks_to_the_world(daemon, bearer, listener):
    url, seen = listener
    headers = {"traceparent": TRACE}
    outer = ask(
        daemon, "POST", "/api/v1/flows/outer/run?wait=20", bearer, body={"inputs": {"url": url}}, headers=headers
    ).json["id"]
    (inner,) = [one["id"] for one in daemon.client.executions(parent=outer)["items"]]
    (task,) = [one["id"] for one in daemon.client.executions(parent=inner)["items"]]
    recorded = [daemon.record(one)[0]["traceparent"] for one in (outer, inner, task)]
    trace = TRACE.split("-")[1]
    assert recorded == [TRACE, f"00-{trace}-{traces.span(outer)}-01", f"00-{trace}-{traces.span(inner)}-01"]
    assert [headers["traceparent"] for headers in seen] == [f"00-{trace}-{traces.span(task)}-01"]


def test_without_a_trace_or_with_a_bad_one_none_is_made_up(daemon, bearer, listener):
    url, seen = listener
    for headers in ({}, {"traceparent": "00-xyz"}):
        body = {"inputs": {"url": url}}
        assert ask(daemon, "POST", "/api/v1/flows/inner/run?wait=20", bearer, body=body, headers=headers).status == 200
    assert ["traceparent" in headers for headers in seen] == [False, False]


def test_a_webhook_brings_its_trace_along(daemon):
    answer = ask(daemon, "POST", "/webhook/hooked", headers={"traceparent": TRACE})
    assert daemon.record(answer.headers["location"].rpartition("/")[2])[0]["traceparent"] == TRACE


@pytest.mark.parametrize(
    ("header", "accepted"),
    [
        (TRACE, TRACE),
        (TRACE.replace("00-", "01-") + "-more", TRACE),
        (TRACE + "-more", ""),
        (TRACE.replace("00-", "ff-"), ""),
        (TRACE.upper(), ""),
        ("00-" + "0" * 32 + "-b7ad6b7169203331-01", ""),
        ("00-0af7651916cd43dd8448eb211c80319c-" + "0" * 16 + "-01", ""),
        ("", ""),
        ("x" * 10_000, ""),
    ],
)
def test_a_traceparent_is_taken_as_the_standard_says(header, accepted):
    assert traces.accepted(header) == accepted
