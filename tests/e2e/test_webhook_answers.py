"""What a webhook's flow answers its caller, where webhooks are published, and what reaches the flow."""

import http.client
import json
import urllib.parse

import pytest

ANSWERS = """
# /// script
# [tool.headrace]
# webhook = {name = "%s", auth = "none", methods = ["GET", "POST", "PUT", "PATCH", "DELETE"]}
# ///
import json
def handler(system, this, inputs):
%s
"""
PAGE = "    return this.webhook_html_response('<h1>grüß</h1>')"
TEAPOT = """
    this.webhook_response(418, headers={'X-Own': '1', 'Set-Cookie': 'headrace-1=stolen', 'Content-Length': '3',
                                        'X-Evil': 'a\\r\\nSet-Cookie: x=1'}, json={'path': inputs['path']})
    return this.success('short and stout')
"""
BYTES = "    this.webhook_response(body=bytes(range(256)), headers={'Content-Type': 'image/png'})"
FAILS = """
    this.webhook_response(400, json={'error': 'no number'})
    return this.error('refused')
"""
LARGE = "    this.webhook_response(body='x' * 300_000)"
MOVES = "    this.webhook_response(303, headers={'Location': '/elsewhere'})"
SEEN = "    this.set_output('seen', inputs)"


@pytest.fixture(scope="module")
def hooks(workshop):
    bodies = {"page": PAGE, "teapot": TEAPOT, "bytes": BYTES, "fails": FAILS, "large": LARGE, "moves": MOVES}
    for name, body in (bodies | {"seen": SEEN, "in/a/folder": SEEN}).items():
        workshop.write(f"{name}.py", ANSWERS % (name, body))
    workshop.write("plain.py", "def handler(system, this, inputs):\n    return {'seen': inputs}\n")
    workshop.daemon.client.sync()
    return workshop.daemon


def call(daemon, method, path, body=None, headers=None):
    """One raw request: redirects are not followed, and nothing is decoded."""
    connection = http.client.HTTPConnection(urllib.parse.urlsplit(daemon.url).netloc, timeout=30)
    connection.request(method, path, body, headers or {})
    answer = connection.getresponse()
    found = answer.status, answer.read(), answer.headers
    connection.close()
    return found


def seen(daemon, method="POST", path="/webhook/seen", body=None, headers=None):
    status, text, _ = call(daemon, method, path, body, headers)
    assert status == 200, text
    return json.loads(text)["output_value"]["seen"]


def test_a_page_is_shown_and_kept_apart_from_the_pages_of_the_daemon(hooks):
    status, body, headers = call(hooks, "GET", "/webhook/page")
    assert (status, body.decode(), headers["Content-Type"]) == (200, "<h1>grüß</h1>", "text/html; charset=utf-8")
    assert headers["Content-Security-Policy"] == "sandbox allow-forms allow-scripts allow-popups"
    assert headers["X-Content-Type-Options"] == "nosniff"


def test_status_headers_and_json_are_what_the_flow_says_and_dangerous_headers_are_dropped(hooks):
    status, body, headers = call(hooks, "POST", "/webhook/teapot/a/b", b"")
    assert (status, json.loads(body), headers["X-Own"]) == (418, {"path": "a/b"}, "1")
    assert headers["Content-Type"] == "application/json"
    assert "Set-Cookie" not in headers and "X-Evil" not in headers
    assert headers.get_all("Content-Length") == [str(len(body))]
    assert '"webhook.headers_dropped"' in hooks.log.read_text()


def test_bytes_large_texts_redirects_and_failures_arrive(hooks):
    assert call(hooks, "GET", "/webhook/bytes")[1] == bytes(range(256))
    assert call(hooks, "GET", "/webhook/large")[1] == b"x" * 300_000
    status, _, headers = call(hooks, "GET", "/webhook/moves")
    assert (status, headers["Location"]) == (303, "/elsewhere")
    assert call(hooks, "GET", "/webhook/fails")[:2] == (400, b'{"error":"no number"}') or json.loads(
        call(hooks, "GET", "/webhook/fails")[1]
    ) == {"error": "no number"}


def test_a_repeated_delivery_gets_the_same_answer(hooks):
    delivery = {"X-GitHub-Delivery": "answered-1"}
    first, second = (call(hooks, "POST", "/webhook/teapot/x", b"", delivery) for _ in range(2))
    assert first[:2] == second[:2]


def test_head_is_answered_like_get_without_a_body(hooks):
    status, body, headers = call(hooks, "HEAD", "/webhook/page")
    assert (status, body, headers["Content-Type"]) == (200, b"", "text/html; charset=utf-8")
    assert call(hooks, "OPTIONS", "/webhook/page")[0] == 405


@pytest.mark.parametrize(
    ("address", "path"),
    [
        ("/webhook/seen", ""),
        ("/webhook/seen/call", "call"),
        ("/api/v1/webhook/seen/a/b%20c", "a/b c"),
        ("/api/latest/webhook/seen", ""),
        ("/api/latest/webhook/seen/call", ""),
        ("/api/latest/webhook/seen/call/sub/path", "sub/path"),
        ("/webhook/in%2Fa%2Ffolder/x", "x"),
        ("/webhook/in/a/folder", ""),
        ("/webhook/in/a/folder/x/y", "x/y"),
        ("/api/latest/webhook/in/a/folder/call", ""),
    ],
)
def test_every_address_leads_to_the_webhook_and_the_rest_is_the_path(hooks, address, path):
    assert seen(hooks, path=address)["path"] == path


@pytest.mark.parametrize("method", ["GET", "POST", "PUT", "PATCH", "DELETE", "HEAD"])
def test_the_flow_learns_the_method(hooks, method):
    assert call(hooks, method, "/webhook/seen")[0] == 200
    latest = hooks.client.executions(flow="seen", limit=1)["items"][0]["id"]
    assert hooks.client.execution(latest)["input_value"]["method"] == method


def test_bodies_of_every_kind_reach_the_flow(hooks):
    json_type = {"Content-Type": "application/json"}
    assert seen(hooks, body=b"[1, 2]", headers=json_type)["json"] == [1, 2]
    assert seen(hooks, body=b'"text"', headers=json_type)["json"] == "text"
    form = {"Content-Type": "application/x-www-form-urlencoded"}
    assert seen(hooks, body=b"a=1&a=2&b=", headers=form)["json"] == {"a": ["1", "2"], "b": ""}
    assert seen(hooks, body=b'{"curl": 1}', headers=form)["json"] == {"curl": 1}
    parts = (
        b'--B\r\nContent-Disposition: form-data; name="a"\r\n\r\n1\r\n'
        b'--B\r\nContent-Disposition: form-data; name="f"; filename="x.txt"\r\n\r\nhi\r\n--B--\r\n'
    )
    found = seen(hooks, body=parts, headers={"Content-Type": "multipart/form-data; boundary=B"})["json"]
    assert (found["a"], found["f"]["filename"], found["f"]["content"]) == ("1", "x.txt", "aGk=")
    assert seen(hooks, path="/webhook/seen?q=1&q=2&r=3", headers={"X-Own": "y"})["query"] == {"q": ["1", "2"], "r": "3"}


def test_header_names_are_looked_up_in_any_spelling(workshop, hooks):
    body = "    this.set_output('seen', [inputs['headers']['X-Own'], inputs['headers'].get('x-OWN')])"
    workshop.flow("spelling", ANSWERS % ("spelling", body))
    assert seen(hooks, path="/webhook/spelling", headers={"x-own": "y"}) == ["y", "y"]


def test_records_and_settings_publish_webhooks_at_once(hooks):
    client = hooks.client
    client.keep("webhooks", "recorded", {"flow_name": "plain", "secret": "hush-7", "methods": ["GET", "POST"]})
    assert call(hooks, "GET", "/webhook/recorded?key=hush-7")[0] == 200
    assert call(hooks, "GET", "/webhook/recorded?key=wrong")[0] == 401
    client.keep("settings", "client.webhook.by setting", {"value": {"flow_name": "plain", "key": "hush-8"}})
    status, body, _ = call(hooks, "POST", "/webhook/by%20setting", b'{"key": "hush-8", "n": 1}')
    assert (status, json.loads(body)["output_value"]["seen"]["json"]) == (200, {"n": 1})
    assert "hush-8" not in body.decode()
    client.keep("webhooks", "recorded", {"is_enabled": False})
    disabled = call(hooks, "GET", "/webhook/recorded?key=hush-7")
    unknown = call(hooks, "GET", "/webhook/nothing?key=hush-7")
    assert disabled[0] == unknown[0] == 401
    said = [json.loads(body) | {"request": ""} for _, body, _ in (disabled, unknown)]
    assert said[0] == said[1]
    client.drop("settings", "client.webhook.by setting")
    assert call(hooks, "POST", "/webhook/by%20setting?key=hush-8")[0] == 401


def test_the_key_is_in_no_record_wherever_it_came(hooks):
    hooks.client.keep("webhooks", "keyed", {"flow_name": "plain", "secret": "hush-9"})
    form = {"Content-Type": "application/x-www-form-urlencoded"}
    for path, body, headers in (
        ("?key=hush-9", b"", {}),
        ("", b'{"key": "hush-9", "a": {"b": 1}}', {}),
        ("", b"key=hush-9&a=1", form),
        ("", b"", {"X-API-Key": "hush-9"}),
        ("", b"", {"Authorization": "bearer hush-9"}),
        ("", b'--B\r\nContent-Disposition: form-data; name="key"\r\n\r\nhush-9\r\n--B--\r\n',
         {"Content-Type": "multipart/form-data; boundary=B"}),
    ):  # fmt: skip
        status, text, _ = call(hooks, "POST", f"/webhook/keyed{path}", body, headers)
        assert status == 200, (path, body, headers)
        assert b"hush-9" not in text
    assert "hush-9" not in json.dumps(hooks.lines())


def test_a_broken_body_does_not_tell_that_a_webhook_exists(hooks):
    hooks.client.keep("webhooks", "hidden", {"flow_name": "plain", "secret": "hush-10"})
    json_type = {"Content-Type": "application/json"}
    assert call(hooks, "POST", "/webhook/hidden", b"{", json_type)[0] == 401
    assert call(hooks, "POST", "/webhook/hidden?key=hush-10", b"{", json_type)[0] == 400
    assert call(hooks, "DELETE", "/webhook/hidden")[0] == 401
    assert call(hooks, "DELETE", "/webhook/hidden?key=hush-10")[0] == 405
