"""Who gets in, and where: every route with every kind of sender, revoking, forged requests, wrong paths, guessing."""

import contextlib
import html
import http.client
import json
import os
import random
import re
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from headrace.daemon import limits, reach, routes
from headrace.engine import errors
from tests.support import front_door
from tests.support.browser import Browser, Forms
from tests.support.daemons import until
from tests.support.front_door import a_new_address, ask

FLOWS = {
    "mine/one": "def handler(system, this):\n    this.log('mine')\n    this.flow('other/two')\n",
    "other/two": "def handler(system, this):\n    this.log('other')\n",
    "mine/asks": "def handler(system, this):\n    this.message('Well?', request='reason')\n",
    "mine/slow": "def handler(system, this):\n    this.log('begun')\n    this.sleep(600)\n",
}


@pytest.fixture(scope="module")
def daemon(workshop):
    for name, text in FLOWS.items():
        workshop.write(f"{name}.py", text)
    workshop.daemon.client.sync()
    return workshop.daemon


@pytest.fixture(scope="module")
def tokens(daemon):
    """Name → secret: one for each role and kind of limit, an expired one, a revoked one, one that was made up."""
    client = daemon.client
    given = {
        "viewer": (["viewer"], []),
        "operator": (["operator"], []),
        "editor": (["editor"], []),
        "administrator": (["admin"], []),
        "runner": (["run"], []),
        "mine": (["admin"], ["mine/*"]),
        "stranger": (["admin"], ["nobody/*"]),
        "revoked": (["admin"], []),
    }
    made = {name: client.create_token(name, scopes, flows=flows)["token"] for name, (scopes, flows) in given.items()}
    client.revoke_token("revoked")
    made["expired"] = client.create_token("expired", ["admin"], valid="1ms")["token"]
    return made | {"made up": "hr_" + "x" * 43, "nobody": ""}


SCOPES = {
    "viewer": {"read"},
    "operator": {"read", "run"},
    "editor": {"read", "run", "edit"},
    "administrator": {"read", "run", "edit", "admin"},
    "runner": {"run"},
    "stranger": {"read", "run", "edit", "admin"},
}


def expected(route, sender):
    """The statuses that are right for a route and somebody who names nothing that exists."""
    if sender not in SCOPES:
        return {303} if route.page and route.method == "GET" else {401}
    if route.scope not in SCOPES[sender]:
        return {403}
    if sender == "stranger" and route.touches is reach.Reach.EVERYTHING:
        return {403}
    if sender == "stranger" and route.touches in (reach.Reach.FLOW, reach.Reach.EXECUTION, reach.Reach.MESSAGE):
        return {404}
    return {200, 201, 202, 204, 303, 400, 404, 409, 415, 422}


def test_every_route_lets_in_exactly_those_who_have_its_scope(daemon, tokens, tmp_path):
    table = [route for route in front_door.table(tmp_path) if route.scope != "public"]
    assert len(table) > 60
    cells = 0
    for route in table:
        path = re.sub(r"\{\w+(:[^}]*)?\}", "nothing-there", route.path)
        for sender, token in tokens.items():
            if sender == "mine":
                continue
            for method in [route.method] + (["HEAD"] if route.method == "GET" else []):
                for accept in ("*/*", "text/event-stream") if path.endswith(("/log", "/events")) else ("*/*",):
                    answer = ask(daemon, method, path, token, headers={"Accept": accept}, origin=a_new_address())
                    assert answer.status in expected(route, sender), (sender, method, path, answer)
                    cells += 1
    assert cells > 700


def test_what_only_looks_like_a_route_lets_nobody_in(daemon, tmp_path):
    table = [route for route in front_door.table(tmp_path) if route.scope != "public"]
    paths = {re.sub(r"\{\w+(:[^}]*)?\}", "x", route.path) for route in table}
    variants = ["{}/", "/{}", "{}/healthz", "{}/readyz", "{}%2Fhealthz", "{};/healthz", "/healthz/..{}",
                "/healthz/..;{}", "{}?/healthz", "{}%00", "{}.json", "/login/..{}", "{}#/healthz"]  # fmt: skip
    origin = a_new_address()
    for path in sorted(paths):
        for variant in [v.format(path) for v in variants] + [path.upper(), path.replace("/", "%2F")]:
            for method in ("GET", "OPTIONS"):
                answer = ask(daemon, method, variant, origin=origin)
                assert answer.status in (400, 401, 404, 405, 303), (method, variant, answer)
                assert answer.status != 303 or answer.headers["location"].startswith("/login")


@pytest.mark.parametrize("method", ["PUT", "PATCH", "DELETE", "POST", "OPTIONS", "TRACE", "M-SEARCH"])
def test_a_method_that_no_row_names_does_nothing(daemon, tokens, method):
    answer = ask(daemon, method, "/api/v1/tasks", tokens["administrator"])
    assert answer.status == 405 and answer.headers["allow"] == "GET, HEAD"
    overridden = {"X-HTTP-Method-Override": "DELETE", "X-HTTP-Method": "DELETE", "X-Method-Override": "DELETE"}
    assert ask(daemon, "GET", "/api/v1/flows/mine%2Fone", tokens["administrator"], headers=overridden).status == 200
    assert daemon.client.flow("mine/one")["runnable"]


def test_a_route_without_a_scope_that_exists_cannot_be_made():
    for scope in ("", "root", "READ"):
        with pytest.raises(errors.ConfigurationInvalid):
            routes.Route("GET", "/x", scope, None, "x")


def test_somebody_limited_to_flows_sees_what_those_flows_did_and_nothing_else(daemon, tokens):
    parent = daemon.run("mine/one")["id"]
    alone = daemon.run("other/two")["id"]
    (child,) = [one["id"] for one in daemon.client.executions(parent=parent)["items"]]
    mine = tokens["mine"]
    for id_, seen in ((parent, True), (child, True), (alone, False)):
        for tail in ("", "/log", "/events"):
            status = ask(daemon, "GET", f"/api/v1/executions/{id_}{tail}", mine).status
            assert status == (200 if seen else 404)
    listed = {one["id"] for one in ask(daemon, "GET", "/api/v1/executions?limit=200", mine).json["items"]}
    assert {parent, child} <= listed and alone not in listed
    assert ask(daemon, "GET", "/api/v1/executions", tokens["stranger"]).json["items"] == []
    flows = ask(daemon, "GET", "/api/v1/flows", mine).json["items"]
    assert {flow["name"] for flow in flows} == {name for name in FLOWS if name.startswith("mine/")}
    unknown, theirs = (ask(daemon, "GET", f"/api/v1/flows/{name}", mine) for name in ("nope", "other%2Ftwo"))
    assert (theirs.status, theirs.json["detail"]) == (404, unknown.json["detail"].replace("nope", "other/two"))


def test_somebody_limited_to_flows_sees_the_same_in_a_browser(daemon, tokens):
    parent, alone = daemon.run("mine/one")["id"], daemon.run("other/two")["id"]
    asks = daemon.client.run("mine/asks")["id"]
    (message,) = until(lambda: daemon.client.messages(pending=True), "it asks")
    mine, stranger = (Browser(daemon.url).logged_in(tokens[name]) for name in ("mine", "stranger"))
    for page in ("/", "/executions"):
        assert parent in mine.get(page) and alone not in mine.get(page)
        assert "mine/one" not in stranger.get(page)
    assert mine.send(f"/executions/{parent}")[0] == mine.send("/flows/mine%2Fone")[0] == 200
    assert mine.send(f"/executions/{alone}")[0] == mine.send("/flows/other%2Ftwo")[0] == 404
    assert message["id"] in mine.get("/messages") and message["id"] not in stranger.get("/messages")
    assert mine.send(f"/messages/{message['id']}")[0] == 200
    assert stranger.send(f"/messages/{message['id']}")[0] == 404
    assert mine.send("/sync")[0] == 403
    daemon.client.answer(message["id"], {"string": "over"})
    assert daemon.client.wait(asks, 20)["status"] == "ENDED_SUCCESS"


def test_somebody_limited_to_flows_can_follow_every_link_and_reads_of_nothing_else(daemon, tokens):
    alone = daemon.run("other/two")["id"]
    daemon.run("mine/one")
    mine = Browser(daemon.url).logged_in(tokens["mine"])
    waiting, seen = ["/"], {}
    while waiting:
        path = waiting.pop()
        status, text = mine.send(path)
        seen[path] = status
        assert alone not in text and "/flows/other" not in text, path
        links = {html.unescape(link).partition("#")[0] for link in re.findall(r'href="(/[^"]*)"', text)}
        waiting += sorted(link for link in links - seen.keys() - {*waiting} if not link.startswith(("/api/", "/style")))
        assert len(seen) < 400
    wrong = {path: status for path, status in seen.items() if status != 200}
    assert wrong == {} and {"/flows", "/executions", "/messages", "/tasks"} <= seen.keys()


def test_what_was_changed_stands_in_the_audit_log_as_hashes(daemon, tokens):
    admin, path = tokens["administrator"], "/api/v1/settings/hashed"
    tags = [ask(daemon, "PUT", path, admin, body={"value": n}).headers["etag"].strip('"') for n in (1, 2)]
    assert ask(daemon, "DELETE", path, admin).status == 204
    lines = [one for one in daemon.client.audit(limit=20) if one["target"] == path]
    assert [(one["before"], one["after"]) for one in reversed(lines)] == [("", tags[0]), tuple(tags), (tags[1], "")]
    made = daemon.client.create_token("hashed", ["viewer"])
    daemon.client.revoke_token("hashed")
    gone, created = (one for one in daemon.client.audit(limit=2))
    assert created["after"] and gone["before"] and not created["before"] and not gone["after"]
    assert made["token"] not in str((gone, created))
    before = daemon.client.flow_with_tag("mine/one")[1]
    daemon.client.save_flow("mine/one", "def handler(system, this):\n    this.flow('other/two')\n    # more\n")
    after = daemon.client.flow_with_tag("mine/one")[1]
    (line,) = daemon.client.audit(limit=1)
    assert (line["before"], line["after"]) == (before.strip('"'), after.strip('"'))


def test_what_was_changed_from_a_page_stands_in_the_audit_log_likewise(daemon, tokens):
    browser = Browser(daemon.url).logged_in(tokens["administrator"])
    browser.submit(browser.get("/settings"), {"name": "paged", "value": "1"})
    browser.submit(browser.get("/settings/paged"), {"value": "2"})
    tag = daemon.client._answer("GET", "/settings/paged")
    with tag as answer:
        newest = answer.headers["ETag"].strip('"')
    changed, made = [one for one in daemon.client.audit(limit=10) if one["what"].startswith("POST /settings")][:2]
    assert made["before"] == "" and made["after"] == changed["before"] and changed["after"] == newest
    page = browser.get("/edit?flow=mine/one")
    browser.submit(page, {"script": "def handler(system, this):\n    this.flow('other/two')\n    # from a page\n"})
    line = next(one for one in daemon.client.audit(limit=5) if one["what"] == "POST /edit")
    assert line["before"] != line["after"] == daemon.client.flow_with_tag("mine/one")[1].strip('"')


def test_somebody_limited_to_flows_runs_those_and_no_others_by_whatever_name(daemon, tokens):
    mine = tokens["mine"]
    other = daemon.client.flow("other/two")["id"]
    assert ask(daemon, "POST", "/api/v1/flows/mine%2Fone/run?wait=20", mine).json["status"] == "ENDED_SUCCESS"
    assert ask(daemon, "POST", "/api/v1/executions?wait=20", mine, body={"flow": "mine/one"}).status == 200
    before = daemon.client.executions(limit=1)["items"][0]["id"]
    for name in ("other%2Ftwo", other):
        assert ask(daemon, "POST", f"/api/v1/flows/{name}/run", mine).status == 404
    for body in ({"flow": "other/two"}, {"flow": other}):
        assert ask(daemon, "POST", "/api/v1/executions", mine, body=body).status == 404
    script = {"script": "def handler(system, this):\n    this.flow('other/two')\n"}
    assert ask(daemon, "POST", "/api/v1/executions", mine, body=script).status == 403
    assert ask(daemon, "PUT", "/api/v1/flows/other%2Ftwo", mine, body={"script": "x = 1\n"}).status == 404
    assert ask(daemon, "PUT", "/api/v1/flows/other%2Fnew", mine, body={"script": "x = 1\n"}).status == 404
    assert daemon.client.executions(limit=1)["items"][0]["id"] == before


def test_somebody_limited_to_flows_answers_what_those_ask(daemon, tokens):
    execution = daemon.client.run("mine/asks")["id"]
    (message,) = until(lambda: daemon.client.messages(pending=True), "it asks")
    path = f"/api/v1/messages/{message['id']}"
    assert ask(daemon, "GET", path, tokens["stranger"]).status == 404
    assert ask(daemon, "GET", "/api/v1/messages", tokens["stranger"]).json["items"] == []
    assert ask(daemon, "POST", path + "/response", tokens["stranger"], body={"reason": "x"}).status == 404
    assert [one["id"] for one in ask(daemon, "GET", "/api/v1/messages?pending=true", tokens["mine"]).json["items"]] == [
        message["id"]
    ]
    assert ask(daemon, "POST", path + "/response", tokens["mine"], body={"string": "x"}).status == 200
    assert daemon.client.wait(execution)["status"] == "ENDED_SUCCESS"


# -- being sent away --------------------------------------------------------------------------------------------------


def open_stream(daemon, path, token):
    """Begin to read an event stream; returns its socket when the first event has come."""
    host, port = daemon.url.removeprefix("http://").split(":")
    connection = socket.create_connection((host, int(port)), 20)
    head = (
        f"GET {path} HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {token}\r\nAccept: text/event-stream\r\n\r\n"
    )
    connection.sendall(head.encode())
    seen = b""
    while b"id: " not in seen:
        seen += connection.recv(65536)
    return connection


def seconds_until_closed(connection):
    began = time.monotonic()
    with contextlib.suppress(ConnectionResetError):
        while connection.recv(65536):
            pass
    return time.monotonic() - began


def test_a_revoked_token_loses_its_streams_and_its_waiting_requests_at_once(daemon):
    execution = daemon.client.run("mine/slow")["id"]
    token = daemon.client.create_token("leaving", ["operator"])["token"]
    streams = [open_stream(daemon, f"/api/v1/executions/{execution}/{tail}", token) for tail in ("log", "events")]
    waited = []

    def wait():
        try:
            waited.append(ask(daemon, "GET", f"/api/v1/executions/{execution}?wait=60", token).status)
        except (OSError, http.client.HTTPException) as error:
            waited.append(type(error).__name__)

    waiting = threading.Thread(target=wait)
    waiting.start()
    stays = open_stream(daemon, f"/api/v1/executions/{execution}/log", daemon.token())
    until(lambda: daemon.client.tokens(), "there are tokens")
    time.sleep(0.2)  # so that the waiting request has surely arrived
    daemon.client.revoke_token("leaving")
    for stream in streams:
        with stream:
            stream.settimeout(20)
            seconds_until_closed(stream)
    waiting.join(20)
    assert not waiting.is_alive() and waited[0] != 200
    assert ask(daemon, "GET", "/api/v1/flows", token, origin=a_new_address()).status == 401
    daemon.client.cancel(execution)
    rest = b""
    with stays:
        while b"ENDED_CANCELLED" not in rest:
            rest += received(stays)
    assert daemon.client.wait(execution)["status"] == "ENDED_CANCELLED"


def test_a_token_that_runs_out_loses_its_stream(daemon):
    execution = daemon.client.run("mine/slow")["id"]
    token = daemon.client.create_token("short", ["viewer"], valid="2s")["token"]
    with open_stream(daemon, f"/api/v1/executions/{execution}/log", token) as stream:
        stream.settimeout(20)
        seconds_until_closed(stream)
    daemon.client.cancel(execution)


def test_a_session_ends_with_the_token_that_began_it(daemon):
    token = daemon.client.create_token("visitor", ["viewer"])["token"]
    browser = Browser(daemon.url).logged_in(token)
    assert browser.send("/executions")[0] == 200
    assert browser.send("/sync", {})[0] == 403  # a viewer
    daemon.client.revoke_token("visitor")
    assert "Log in" in browser.send("/executions")[1]


# -- forged requests --------------------------------------------------------------------------------------------------


def session_of(daemon):
    """Log in as a browser does; returns cookie and form token."""
    answer = ask(
        daemon,
        "POST",
        "/login",
        body=f"token={daemon.token()}".encode(),
        headers={"Content-Type": "application/x-www-form-urlencoded", "Origin": daemon.url},
    )
    assert answer.status == 303
    cookie = answer.headers["set-cookie"].partition(";")[0]
    assert {"HttpOnly", "SameSite=Strict", "Path=/"} <= {
        part.strip() for part in answer.headers["set-cookie"].split(";")
    }
    page = ask(daemon, "GET", "/sync", headers={"Cookie": cookie}).body.decode()
    return cookie, next(fields["form_token"] for _, fields, _ in Forms(page).found if "form_token" in fields)


FORGED = [
    {},
    {"Origin": "null"},
    {"Origin": "https://evil.example"},
    {"Sec-Fetch-Site": "cross-site"},
    {"Sec-Fetch-Site": "same-site", "Origin": "http://other.localhost"},
    {"Sec-Fetch-Site": "none"},
    {"Origin": "http://127.0.0.1:1"},
]
TYPES = ["application/json", "text/plain", "application/x-www-form-urlencoded", "multipart/form-data; boundary=x"]


def test_a_cookie_alone_changes_nothing_whatever_another_site_makes_a_browser_send(daemon):
    cookie, form_token = session_of(daemon)
    before = daemon.client.executions(limit=1)["items"]
    for sent in FORGED:
        for type_ in TYPES:
            for extra in ({}, {"X-Form-Token": form_token}, {"X-HTTP-Method-Override": "GET"}):
                headers = {"Cookie": cookie, "Content-Type": type_} | sent | extra
                for path in ("/api/v1/flows/mine%2Fone/run", "/flows/mine%2Fone/run", "/api/v1/executions"):
                    answer = ask(daemon, "POST", path, body={"flow": "mine/one"}, headers=headers)
                    assert answer.status == 403, (headers, path, answer)
                assert ask(daemon, "DELETE", "/api/v1/flows/mine%2Fone", headers=headers).status == 403
    ours = {"Cookie": cookie, "Origin": daemon.url}
    assert ask(daemon, "POST", "/api/v1/sync", headers=ours).status == 403  # our origin, but no form token
    assert ask(daemon, "POST", "/api/v1/sync", headers=ours | {"X-Form-Token": "x"}).status == 403
    assert daemon.client.executions(limit=1)["items"] == before
    assert ask(daemon, "POST", "/api/v1/sync", headers=ours | {"X-Form-Token": form_token}).status == 200


def test_no_answer_invites_other_sites(daemon, tokens):
    for method in ("GET", "OPTIONS"):
        headers = {"Origin": "https://evil.example", "Access-Control-Request-Method": "POST"}
        for path in ("/api/v1/flows", "/", "/healthz", "/login"):
            answer = ask(daemon, method, path, tokens["viewer"], headers=headers)
            assert not [name for name in answer.headers if name.startswith("access-control-")]


def test_a_wrong_bearer_is_not_saved_by_a_good_cookie(daemon):
    cookie, _ = session_of(daemon)
    assert ask(daemon, "GET", "/api/v1/flows", headers={"Cookie": cookie}).status == 200
    answer = ask(daemon, "GET", "/api/v1/flows", "hr_wrong", headers={"Cookie": cookie}, origin=a_new_address())
    assert answer.status == 401


# -- paths ------------------------------------------------------------------------------------------------------------

UPWARDS = [
    "..",
    "../",
    "..\\",
    "%2e%2e",
    "%2e%2e%2f",
    "..%2f",
    "%2e%2e%5c",
    "..%c0%af",
    "%252e%252e%252f",
    "....//",
    "..;/",
]
TARGETS = ["client.json", "tokens.json", "audit.jsonl", "login-link", "etc/passwd", "records/00000001.jsonl"]
ROUTES = ["/api/v1/files/{}", "/api/v1/executions/{}", "/api/v1/executions/{}/log", "/api/v1/flows/{}", "/flows/{}",
          "/api/v1/settings/{}", "/api/v1/messages/{}", "/api/v1/tokens/{}", "/api/v1/tasks/{}",
          "/webhook/{}"]  # fmt: skip


@pytest.fixture
def _closed_afterwards():
    yield
    while _OPEN:
        _OPEN.popitem()[1].close()


@pytest.mark.usefixtures("_closed_afterwards")
def test_no_name_and_no_path_leads_out_of_where_it_belongs(daemon, record_property):
    secret = daemon.token()
    names = [
        prefix + upward * depth + target
        for upward in UPWARDS
        for depth in (1, 3, 8)
        for target in TARGETS
        for prefix in ("", "x/", "/", "%2f", "file:", "\\\\")
    ]
    cases = [(route, name) for route in ROUTES for name in names]
    assert len(cases) > 10_000
    tried = random.Random(0).sample(cases, int(os.environ.get("HEADRACE_PATHS", "200")))
    record_property("tries", len(tried))
    for route, name in tried:
        answer = ask_raw(daemon, route.format(name), secret)
        assert secret.encode() not in answer and b"root:x:" not in answer, (route, name)
        assert not answer.startswith(b"HTTP/1.1 5"), (route, name, answer[:300])


_OPEN: dict[str, socket.socket] = {}


def ask_raw(daemon, path, token):
    """One request over a connection that is kept; returns the whole answer."""
    host, port = daemon.url.removeprefix("http://").split(":")
    connection = _OPEN.get(daemon.url)
    if connection is None:
        connection = _OPEN[daemon.url] = socket.create_connection((host, int(port)), 20)
    connection.sendall(f"GET {path} HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {token}\r\n\r\n".encode())
    answer = b""
    while b"\r\n\r\n" not in answer:
        answer += received(connection)
    head, _, body = answer.partition(b"\r\n\r\n")
    length = int(re.search(rb"(?i)content-length: (\d+)", head)[1])
    while len(body) < length:
        body += received(connection)
    if b"connection: close" in head.lower() or head.startswith(b"HTTP/1.1 400"):
        _OPEN.pop(daemon.url).close()
    return head + b"\r\n\r\n" + body


def received(connection):
    chunk = connection.recv(65536)
    assert chunk, "the connection was closed in the middle of an answer"
    return chunk


# -- guessing ---------------------------------------------------------------------------------------------------------


def test_whoever_guesses_is_soon_not_listened_to_and_others_are(daemon, tokens, record_property):
    origin, count = a_new_address(), int(os.environ.get("HEADRACE_GUESSES", "200"))
    record_property("tries", count)
    statuses = [ask(daemon, "GET", "/api/v1/flows", f"hr_{n:043}", origin=origin).status for n in range(count)]
    assert statuses == [401] * limits.FAILURES_MAX + [429] * (count - limits.FAILURES_MAX)
    refused = ask(daemon, "GET", "/api/v1/flows", "hr_x", origin=origin)
    assert 0 < int(refused.headers["retry-after"]) <= limits.WITHIN_S
    form = {"Content-Type": "application/x-www-form-urlencoded", "Origin": daemon.url}
    assert ask(daemon, "POST", "/login", body=b"token=x", headers=form, origin=origin).status == 429
    assert ask(daemon, "GET", "/api/v1/flows", tokens["viewer"], origin=origin).status == 200  # who knows, knows
    assert ask(daemon, "GET", "/healthz", origin=origin).status == 200
    assert ask(daemon, "GET", "/api/v1/flows", "hr_x", origin=a_new_address()).status == 401


def test_a_forwarded_address_is_believed_behind_a_proxy_only(daemon):
    origin = a_new_address()
    for n in range(limits.FAILURES_MAX + 1):
        answer = ask(daemon, "GET", "/api/v1/me", "hr_x", headers={"X-Forwarded-For": f"10.0.0.{n}"}, origin=origin)
    assert answer.status == 429


# -- the socket -------------------------------------------------------------------------------------------------------

AS_NOBODY = """
import os, socket, sys
os.setgroups([]); os.setgid(65534); os.setuid(65534)
s = socket.socket(socket.AF_UNIX); s.connect(sys.argv[1])
s.sendall(b"GET /api/v1/me HTTP/1.1\\r\\nHost: x\\r\\nConnection: close\\r\\n" + sys.argv[2].encode() + b"\\r\\n")
print(b"".join(iter(lambda: s.recv(65536), b"")).decode())
"""


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become somebody else")
def test_over_the_socket_only_the_own_user_needs_no_token(daemon, tokens):
    assert daemon.client.me() == {"name": "admin", "scopes": ["read", "run", "edit", "admin"], "flows": []}
    path = daemon.state / "daemon.sock"
    folders = [folder for folder in path.parents if folder.stat().st_mode & 0o077 == 0 and folder.stat().st_uid == 0]
    try:
        for each in [*folders, path]:  # an operator who opened it up
            each.chmod(each.stat().st_mode | 0o077)

        def said(header):
            return subprocess.check_output([sys.executable, "-c", AS_NOBODY, str(path), header], text=True)

        assert said("").startswith("HTTP/1.1 401")
        assert '"name":"viewer"' in said(f"Authorization: Bearer {tokens['viewer']}\r\n")
    finally:
        for each in [*folders, path]:
            each.chmod(each.stat().st_mode & ~0o077)


# -- the audit log ----------------------------------------------------------------------------------------------------


def audited(daemon, request_id):
    lines = (daemon.state / "audit.jsonl").read_text().splitlines()
    return [json.loads(line) for line in lines if json.loads(line)["request"] == request_id]


def test_every_call_that_may_change_something_stands_in_the_audit_log_once_with_who_it_was(daemon, tokens, tmp_path):
    changing = [
        route
        for route in front_door.table(tmp_path)
        if route.method not in ("GET", "*")
        and route.scope != "public"
        and route.path not in ("/api/v1/flows", "/edit/check", "/edit/yaml")  # these change nothing
    ]
    assert len(changing) > 30
    for number, route in enumerate(changing):
        path = re.sub(r"\{\w+(:[^}]*)?\}", "nothing-there", route.path)
        for sender in ("administrator", "viewer", "nobody"):
            id_, origin = f"audit-{number}-{sender}", a_new_address()
            answer = ask(daemon, route.method, path, tokens[sender], headers={"X-Request-Id": id_}, origin=origin)
            assert answer.headers["x-request-id"] == id_
            (line,) = audited(daemon, id_)
            assert (line["who"], line["status"], line["origin"]) == (
                "" if sender == "nobody" else sender,
                answer.status,
                origin,
            )
            assert (line["what"], line["target"]) == (f"{route.method} {route.path}", path)
            assert bool(line["token"]) == (sender != "nobody")


def test_what_was_made_who_logged_in_and_who_was_refused_to_look_stand_there_too_and_no_secret_does(daemon, tokens):
    headers = {"X-Request-Id": "made-1"}
    made = ask(daemon, "POST", "/api/v1/flows/mine%2Fone/run?secret=in-the-query", tokens["operator"], headers=headers)
    (line,) = audited(daemon, "made-1")
    assert line["made"] == f"/api/v1/executions/{made.json['id']}" and line["target"] == "/api/v1/flows/mine/one/run"
    ask(daemon, "GET", "/api/v1/tokens", tokens["viewer"], headers={"X-Request-Id": "look-1"})
    (line,) = audited(daemon, "look-1")
    assert (line["who"], line["status"], line["reason"]) == ("viewer", 403, "this needs the scope 'admin'")
    ask(daemon, "GET", "/api/v1/flows", tokens["viewer"], headers={"X-Request-Id": "look-2"})
    assert audited(daemon, "look-2") == []
    form = {"Content-Type": "application/x-www-form-urlencoded", "Origin": daemon.url}
    for id_, token, who, status in (("in-1", tokens["viewer"], "viewer", 303), ("in-2", "wrong", "", 401)):
        origin = a_new_address()
        headers = form | {"X-Request-Id": id_}
        ask(daemon, "POST", "/login", body=f"token={token}".encode(), headers=headers, origin=origin)
        (line,) = audited(daemon, id_)
        assert (line["who"], line["status"]) == (who, status)
    text = (daemon.state / "audit.jsonl").read_text()
    assert "in-the-query" not in text and not [name for name, secret in tokens.items() if secret and secret in text]


def test_strangers_cannot_fill_the_disk_through_the_audit_log(daemon):
    origin = a_new_address()
    for _ in range(200):
        ask(daemon, "GET", "/api/v1/flows", origin=origin)
    text = (daemon.state / "audit.jsonl").read_text()
    assert 0 < text.count(f'"{origin}"') <= 30


def test_the_audit_log_is_shown_to_administrators_and_can_be_checked(daemon, tokens):
    (line,) = ask(daemon, "GET", "/api/v1/audit?limit=1", tokens["administrator"]).json["items"]
    assert line["what"]
    assert ask(daemon, "GET", "/api/v1/audit?limit=0", tokens["administrator"]).status == 400
    for method in ("DELETE", "PUT", "POST", "PATCH"):
        assert ask(daemon, method, "/api/v1/audit", tokens["administrator"]).status == 405
    command = [sys.executable, "-m", "headrace", "--state", str(daemon.state), "audit", "--verify"]
    path = daemon.state / "audit.jsonl"
    assert subprocess.run([*command, str(path)], capture_output=True).returncode == 0
    changed = Path(str(path) + ".changed")
    changed.write_bytes(path.read_bytes().replace(b'"status":403', b'"status":200', 1))
    done = subprocess.run([*command, str(changed)], capture_output=True, text=True)
    changed.unlink()
    assert done.returncode == 1 and "does not follow" in done.stderr
