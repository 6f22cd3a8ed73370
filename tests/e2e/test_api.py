"""The HTTP API on the real daemon: who may, waiting, keys, listings, streams without a gap."""

import concurrent.futures
import json
import socket
import struct
import threading

import pytest

from tests.support.daemons import until

STEPS = """
def handler(system, this, inputs):
    for n in range(inputs.get('steps', 3)):
        this.log('step', n)
        this.sleep(0.05)
    return this.success('done')
"""


@pytest.fixture(scope="module")
def daemon(workshop):
    workshop.flow("steps", STEPS)
    workshop.flow("asks", "def handler(system, this, inputs):\n    system.message(subject='Well?', request='word')\n")
    workshop.flow("sub dir/my flow", "def handler(system, this, inputs):\n    return inputs\n")
    return workshop.daemon


@pytest.fixture
def bearer(daemon):
    return {"Authorization": f"Bearer {daemon.token()}"}


@pytest.mark.parametrize("headers", [{}, {"Authorization": "Bearer hr_wrong"}, {"Authorization": "Basic aHJf"}])
@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/api/v1/flows"),
        ("POST", "/api/v1/flows/steps/run"),
        ("POST", "/api/v1/executions"),
        ("GET", "/api/v1/executions"),
        ("GET", "/api/v1/executions/x/log"),
        ("POST", "/api/v1/executions/x/cancel"),
        ("POST", "/api/v1/sync"),
        ("HEAD", "/api/v1/flows"),
    ],
)
def test_without_the_right_token_everything_is_refused(daemon, method, path, headers):
    assert daemon.raw(method, path, headers=headers)[0] == 401


def test_health_is_public_and_nothing_that_only_looks_like_it(daemon):
    assert daemon.raw("GET", "/healthz")[1]["status"] == "ok"
    assert daemon.raw("GET", "/readyz")[1].items() >= {"status": "ready", "reasons": []}.items()
    assert daemon.notices() == []
    assert daemon.raw("GET", "/api/v1/flows/healthz")[0] == 401
    status, body, headers = daemon.raw("GET", "/x/healthz")
    assert (status, body["status"], headers["Content-Type"]) == (404, 404, "application/problem+json")


def test_the_socket_can_be_opened_by_its_owner_alone(daemon):
    assert (daemon.state / "daemon.sock").stat().st_mode & 0o777 == 0o600
    assert (daemon.state / "client.json").stat().st_mode & 0o777 == 0o600
    assert daemon.state.stat().st_mode & 0o777 == 0o700


def test_a_run_is_acknowledged_with_its_address_and_can_be_waited_for(daemon, bearer):
    status, body, headers = daemon.raw("POST", "/api/v1/flows/steps/run", {"inputs": {}, "name": "mine"}, bearer)
    assert (status, headers["Location"], body["name"]) == (202, f"/api/v1/executions/{body['id']}", "mine")
    status, body, _ = daemon.raw("GET", headers["Location"] + "?wait=20", headers=bearer)
    assert (status, body["status"], body["created_by"]) == (200, "ENDED_SUCCESS", "admin")
    status, body, _ = daemon.raw("POST", "/api/v1/executions", {"flow": "steps"}, bearer | {"Prefer": "wait=20"})
    assert (status, body["status"]) == (200, "ENDED_SUCCESS")
    status, body, _ = daemon.raw("POST", "/api/v1/flows/steps/run?wait=0.01", {"inputs": {"steps": 20}}, bearer)
    assert (status, body["ended_at"]) == (202, None)


def test_a_flow_in_a_folder_is_one_encoded_segment(daemon, bearer):
    path = "/api/v1/flows/sub%20dir%2Fmy%20flow"
    assert daemon.raw("GET", path, headers=bearer)[1]["name"] == "sub dir/my flow"
    _, body, _ = daemon.raw("POST", path + "/run?wait=20", {"inputs": {"ä": ["\n"]}}, bearer)
    assert body["output_value"] == {"ä": ["\n"]}


def test_the_same_key_means_the_same_execution_and_another_body_is_a_conflict(daemon, bearer):
    header = bearer | {"Idempotency-Key": "k1"}

    def ask(_):
        return daemon.raw("POST", "/api/v1/flows/steps/run", {"inputs": {"steps": 1}}, header)

    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(ask, range(16)))
    assert {status for status, _, _ in answers} == {202} and len({body["id"] for _, body, _ in answers}) == 1
    assert sum("Idempotency-Replayed" in headers for _, _, headers in answers) == 15
    assert daemon.raw("POST", "/api/v1/flows/steps/run", {"inputs": {"steps": 2}}, header)[0] == 409


@pytest.mark.parametrize(
    ("path", "body", "status", "words"),
    [
        ("/flows/stepz/run", {}, 404, "there is no flow 'stepz'"),
        ("/flows/steps/run", b"{", 400, "the body cannot be used"),
        ("/flows/steps/run", {"inputs": [1]}, 400, "inputs must be an object"),
        ("/flows/steps/run", b'{"inputs": {"a": {"b": 1, "c": 2, "b": 3}}}', 400, "the key 'b' stands twice"),
        ("/executions/bulk", b'{"action": "cancel", "executions": ["x"], "executions": []}', 400, "stands twice"),
        ("/flows/steps/run", b'{"inputs": {}, "inputs": {"steps": 9}}', 400, "the key 'inputs' stands twice"),
        ("/flows/steps/run", b'{"inputs": {"a": ' + b"[" * 63 + b"]" * 63 + b"}}", 400, "more than 64 deep"),
        ("/flows/steps/run", b'{"inputs": ' + b'{"a": ' * 100_000, 400, "more than 64 deep"),
        ("/flows/steps/run", b'{"inputs": {"n": ' + b"9" * 5000 + b"}}", 400, "digits"),
        ("/flows/steps/run", {"input": {}}, 400, "unknown field `input`"),
        ("/flows/steps/run?wait=soon", {}, 400, "wait=soon"),
        ("/flows/steps/run?wait=-1", {}, 400, "wait=-1"),
        ("/executions", {}, 400, "`flow`"),
        ("/executions/nope/cancel", {}, 404, "no execution 'nope'"),
    ],
)
def test_bad_requests_are_problems_that_say_how_to_mend_them(daemon, bearer, path, body, status, words):
    found, problem, headers = daemon.raw("POST", "/api/v1" + path, body, bearer)
    assert (found, headers["Content-Type"]) == (status, "application/problem+json")
    assert problem["status"] == status and words in problem["detail"]
    assert problem["type"] == f"urn:headrace:{problem['title'].lower().replace(' ', '-')}"
    assert problem["request"] == headers["X-Request-Id"]


@pytest.mark.parametrize("name", ["with {braces}", "{}", "a/b", "100 %", "quoted \"'", "\u2603?#&=+"])
def test_whatever_a_name_has_it_is_found_under_it(daemon, name):
    daemon.client.keep("settings", name, {"value": 1})
    assert daemon.client.kept_one("settings", name)["name"] == name
    daemon.client.drop("settings", name)


def test_what_is_nested_as_deeply_as_it_may_be_is_taken(daemon, bearer):
    body = b'{"inputs": {"a": ' + b"[" * 62 + b"]" * 62 + b"}}"
    assert daemon.raw("POST", "/api/v1/flows/steps/run", body, bearer)[0] == 202


@pytest.mark.parametrize("plural", ["settings", "files", "messages", "flows"])
def test_pages_of_a_list_neither_repeat_nor_hide_what_comes_and_goes(daemon, workshop, bearer, plural):
    make = {
        "settings": lambda n: daemon.client.keep(plural, f"paged {n}", {"value": n}),
        "files": lambda n: daemon.client.save_file(f"paged {n}", b"x"),
        "messages": lambda n: daemon.run("asks"),
        "flows": lambda n: workshop.flow(f"paged {n}", "def handler(system, this, inputs):\n    pass\n"),
    }[plural]
    for n in range(5):
        make(n)
    whole = [one["id"] for one in daemon.raw("GET", f"/api/v1/{plural}", None, bearer)[1]["items"]]
    seen, cursor = [], ""
    while cursor is not None:
        _, page, headers = daemon.raw("GET", f"/api/v1/{plural}?limit=2&cursor={cursor}", None, bearer)
        assert len(page["items"]) == 2 or page["next"] is None
        assert ("Link" in headers) == (page["next"] is not None)
        if not seen:
            make(9)  # comes after all for names, before all for messages
        seen += [one["id"] for one in page["items"]]
        cursor = page["next"]
    assert len(seen) == len(set(seen))
    assert [one for one in seen if one in whole] == whole
    assert daemon.raw("GET", f"/api/v1/{plural}?limit=0", None, bearer)[0] == 400
    assert daemon.raw("GET", f"/api/v1/{plural}?cursor=nonsense", None, bearer)[0] == 400


@pytest.mark.parametrize("query", ["limit=0", "limit=x", "nonsense=1", "since=yesterday", "cursor=%00"])
def test_filters_that_make_no_sense_are_refused(daemon, bearer, query):
    assert daemon.raw("GET", f"/api/v1/executions?{query}", headers=bearer)[0] == 400


def test_executions_are_listed_newest_first_page_by_page_and_by_filter(daemon, bearer):
    made = [daemon.run("sub dir/my flow", n=n)["id"] for n in range(5)]
    path, found = "/api/v1/executions?flow=sub%20dir%2Fmy%20flow&limit=2", []
    while path:
        status, page, headers = daemon.raw("GET", path, headers=bearer)
        assert status == 200
        found += [item["id"] for item in page["items"]]
        assert ('rel="next"' in headers.get("Link", "")) == (page["next"] is not None)
        path = headers["Link"][1:].partition(">")[0] if "Link" in headers else ""
    assert found[:5] == made[::-1]
    (one,) = daemon.client.executions(since=daemon.client.execution(made[4])["created_at"])["items"]
    assert one["id"] == made[4]


def test_a_live_stream_has_every_event_once_also_when_the_connection_breaks_in_between(daemon):
    execution = daemon.client.run("steps", {"steps": 12})["id"]
    seen, last = [], 0
    while True:
        chunk, over = read_stream(daemon, f"/api/v1/executions/{execution}/events", last, 4)
        seen += chunk
        last = seen[-1]["seq"]
        if over:
            break
    assert [event["seq"] for event in seen] == [line["seq"] for line in daemon.record(execution)]
    assert seen[-1]["event"] == "execution.ended"


def read_stream(daemon, path, after, count):
    """Read ``count`` events over a raw socket, then drop the connection."""
    host, port = daemon.url.removeprefix("http://").split(":")
    found = []
    with socket.create_connection((host, int(port)), 20) as connection:
        request = f"GET {path} HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {daemon.token()}\r\n"
        request += f"Accept: text/event-stream\r\nLast-Event-ID: {after}\r\nConnection: close\r\n\r\n"
        connection.sendall(request.encode())
        kind = ""
        for line in connection.makefile(encoding="utf-8"):
            if line.startswith("event: "):
                kind = line[7:].strip()
            if line.startswith("data: "):
                if kind == "end":
                    assert json.loads(line[6:]) == {"status": "ENDED_SUCCESS"}
                    return found, True
                found.append(json.loads(line[6:]))
                if len(found) == count:
                    return found, False
    return found, False


def test_many_followers_of_many_executions_see_their_own_events_only(daemon):
    executions = [daemon.client.run("steps")["id"] for _ in range(6)]
    logs = {}

    def follow(execution):
        logs[execution] = [e.data for e in daemon.client.follow_log(execution) if e.event == "log"]

    threads = [threading.Thread(target=follow, args=(execution,)) for execution in executions]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    for execution in executions:
        assert [line["text"] for line in map(as_json, logs[execution])] == ["step 0", "step 1", "step 2"]


def as_json(data):
    return json.loads(data) if isinstance(data, str) else data


def test_a_slow_reader_of_a_stream_does_not_hold_others_up(daemon):
    execution = daemon.client.run("steps", {"steps": 5})["id"]
    host, port = daemon.url.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port)), 20) as idle:
        request = (
            f"GET /api/v1/executions/{execution}/events HTTP/1.1\r\nHost: localhost\r\nAccept: text/event-stream\r\n"
        )
        idle.sendall(f"{request}Authorization: Bearer {daemon.token()}\r\n\r\n".encode())
        assert daemon.client.wait(execution)["status"] == "ENDED_SUCCESS"


def test_a_reader_of_a_stream_who_hangs_up_is_no_error_in_the_log(daemon):
    execution = daemon.client.run("steps", {"steps": 40})["id"]
    host, port = daemon.url.removeprefix("http://").split(":")
    told = len(daemon.log.read_text())
    with socket.create_connection((host, int(port)), 20) as reader:
        request = (
            f"GET /api/v1/executions/{execution}/events HTTP/1.1\r\nHost: localhost\r\nAccept: text/event-stream\r\n"
        )
        reader.sendall(f"{request}Authorization: Bearer {daemon.token()}\r\n\r\n".encode())
        assert b"200 OK" in reader.recv(100)
        reader.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))  # gone at once
    assert daemon.client.wait(execution)["status"] == "ENDED_SUCCESS"
    assert '"level":"error"' not in daemon.log.read_text()[told:]


def test_task_types_are_documented_with_schemas(daemon):
    types = {item["name"]: item for item in daemon.client.tasks()}
    assert {"REST", "GIT"} <= types.keys()
    assert "url" in json.dumps(types["REST"]["inputs"])


def test_sync_can_be_asked_for_and_tells_what_is_broken(workshop, daemon):
    workshop.write("broken.py", "def handler(system:\n")
    state = daemon.client.sync()
    assert [(b["file"], b["line"]) for b in state["broken"]] == [("broken.py", 1)]
    flow = daemon.client.flow("broken")
    assert not flow["runnable"]
    until(lambda: daemon.client.sync_state()["state"] == "ok", "sync is idle")
    status, problem, _ = daemon.raw(
        "POST", "/api/v1/flows/broken/run", {}, {"Authorization": f"Bearer {daemon.token()}"}
    )
    assert status == 409 and "broken.py:1" in problem["detail"]
