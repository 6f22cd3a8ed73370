"""Webhooks: addresses, credentials, what the flow gets, and what the caller gets."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import time
import urllib.parse

import pytest

from tests.contract.conftest import KEY, SHARED_SECRET

GIVES_BACK = "def handler(system, this, inputs):\n    this.save(output_value=inputs)\n"


def meta(webhook):
    return f"# /// script\n# [tool.headrace]\n# webhook = {webhook}\n# ///\n"


@pytest.fixture(scope="module")
def hooks(workshop):
    """Flows with webhooks of every kind: one that gives back its inputs for each way of saying who calls."""
    secret = 'secret = "secret.env(CONTRACT_SECRET)"'
    workshop.write("hooks/open.py", meta('{name = "open", auth = "none"}') + GIVES_BACK)
    workshop.write(
        "hooks/keyed.py", meta('{name = "keyed", auth = "key", secret = "secret.env(CONTRACT_KEY)"}') + GIVES_BACK
    )
    for method in ("GET", "POST", "PUT", "PATCH", "DELETE", "HEAD"):
        text = f'{{name = "takes {method}", auth = "none", methods = ["{method}"]}}'
        workshop.write(f"hooks/takes {method}.py", meta(text) + GIVES_BACK)
    for auth in ("github", "gitlab", "gitea", "bitbucket", "slack", "stripe", "standard-webhooks", "hmac"):
        workshop.write(f"hooks/{auth}.py", meta(f'{{name = "{auth}", auth = "{auth}", {secret}}}') + GIVES_BACK)
    workshop.daemon.client.sync()
    return workshop


def inputs_of(answer):
    """What the flow got, from what the caller got."""
    status, shown, _ = answer
    assert status == 200, answer
    return shown["output_value"]


def count(workshop, flow):
    return len(workshop.daemon.client.executions(flow=flow, limit=200)["items"])


@pytest.mark.contract("6.address.plain", "6.answer.execution", "6.input.method", "6.input.json")
def test_a_call_runs_the_flow_and_gets_the_ended_execution(hooks):
    status, shown, _ = hooks.hook("open", {"a": [1, None]})
    assert status == 200
    assert (shown["flow_name"], shown["status"]) == ("hooks/open", "ENDED_SUCCESS")
    got = shown["output_value"]
    assert (got["method"], got["path"], got["query"], got["json"]) == ("POST", "", {}, {"a": [1, None]})
    assert hooks.execution(shown["id"])["id"] == shown["id"]


@pytest.mark.contract("6.address.tail", "6.input.method")
def test_what_follows_the_name_is_the_path_and_the_query_is_kept(hooks):
    got = inputs_of(hooks.hook("open", {}, tail="/some/deep%20path?a=1&b=two&a=3"))
    assert got["path"] == "some/deep path"
    assert got["query"] == {"a": ["1", "3"], "b": "two"}


@pytest.mark.contract("6.address.aliases")
@pytest.mark.parametrize(
    ("address", "path"),
    [
        ("/api/latest/webhook/open/call", ""),
        ("/api/latest/webhook/open/call/x", "x"),
        ("/webhook/open", ""),
        ("/webhook/open/y", "y"),
    ],
)
def test_other_addresses_are_the_same(hooks, address, path):
    got = inputs_of(hooks.http("POST", address, {"a": 1}, known=False))
    assert (got["json"], got["path"]) == ({"a": 1}, path)


@pytest.mark.contract("6.methods")
@pytest.mark.parametrize("method", ["GET", "POST", "PUT", "PATCH", "DELETE"])
def test_a_method_is_taken_if_the_webhook_allows_it(hooks, method):
    assert inputs_of(hooks.hook(f"takes%20{method}", method=method))["method"] == method
    for other in {"GET", "POST", "PUT", "PATCH", "DELETE"} - {method}:
        status, _, headers = hooks.hook(f"takes%20{method}", method=other)
        assert status == 405
        assert headers["allow"] == method


@pytest.mark.contract("6.methods")
@pytest.mark.parametrize("name", ["takes%20HEAD", "takes%20GET"])
def test_head_is_taken_where_it_or_get_is(hooks, name):
    flow = "hooks/" + name.replace("%20", " ")
    before = count(hooks, flow)
    status, body, _ = hooks.hook(name, method="HEAD")
    assert (status, body) == (200, "")
    assert count(hooks, flow) == before + 1


@pytest.mark.contract("6.input.headers")
def test_headers_are_in_lower_case_and_looked_up_in_any_case(workshop):
    workshop.flow(
        "hooks/headers",
        meta('{name = "headers", auth = "none"}') + "def handler(system, this, inputs):\n"
        "    headers = inputs['headers']\n"
        "    seen = this.get('input_value')['headers']\n"
        "    return [headers['X-Who'], headers.get('x-WHO'), 'X-wHo' in headers, headers.get('no such', 7),\n"
        "            sorted(headers) == sorted(h.lower() for h in headers), seen['X-WHO'], headers == dict(headers)]\n",
    )
    assert inputs_of(workshop.hook("headers", {}, headers={"X-Who": "me"})) == ["me", "me", True, 7, True, "me", True]


@pytest.mark.contract("6.input.form")
def test_the_fields_of_a_form_are_json_too(hooks):
    form = urllib.parse.urlencode([("a", "1"), ("b", "zwei ä"), ("a", "3"), ("empty", "")]).encode()
    got = inputs_of(hooks.hook("open", form, headers={"Content-Type": "application/x-www-form-urlencoded"}))
    assert got["json"] == {"a": ["1", "3"], "b": "zwei ä", "empty": ""}
    assert got["body"] == form.decode()


@pytest.mark.contract("6.input.empty")
@pytest.mark.parametrize("headers", [{}, {"Content-Type": "application/json"}])
def test_an_empty_body_is_an_empty_object(hooks, headers):
    got = inputs_of(hooks.hook("open", b"", headers=headers))
    assert (got["json"], got["body"]) == ({}, "")
    assert "body_encoding" not in got


@pytest.mark.contract("6.input.json")
@pytest.mark.parametrize("sent", [[1, 2], "text", 7, None])
def test_json_that_is_no_object_is_given_as_it_is(hooks, sent):
    body = json.dumps(sent).encode()
    assert inputs_of(hooks.hook("open", body, headers={"Content-Type": "application/json"}))["json"] == sent


@pytest.mark.contract("6.input.json")
def test_a_body_that_says_it_is_json_and_is_not_is_refused(hooks):
    assert hooks.hook("open", b"{not json", headers={"Content-Type": "application/json"})[0] == 400


@pytest.mark.contract("6.input.body", "6.input.binary")
def test_a_body_is_text_or_base64(hooks):
    text = "plain ä\n"
    got = inputs_of(hooks.hook("open", text.encode(), headers={"Content-Type": "text/plain"}))
    assert (got["body"], got["json"]) == (text, {})
    assert "body_encoding" not in got
    got = inputs_of(hooks.hook("open", b"\x00\xff\xfe", headers={"Content-Type": "application/octet-stream"}))
    assert (base64.b64decode(got["body"]), got["body_encoding"]) == (b"\x00\xff\xfe", "base64")


# -- credentials ------------------------------------------------------------------------------------------------------


@pytest.mark.contract("6.auth.key-query", "6.auth.key-header", "6.auth.key-bearer", "6.auth.key-json", "6.input.key")
@pytest.mark.parametrize(
    ("tail", "headers", "body"),
    [
        (f"?key={urllib.parse.quote(KEY)}&a=1", {}, {"b": 2}),
        ("?a=1", {"X-Api-Key": KEY}, {"b": 2}),
        ("?a=1", {"Authorization": f"Bearer {KEY}"}, {"b": 2}),
        ("?a=1", {}, {"b": 2, "key": KEY}),
    ],
)
def test_a_key_is_taken_where_senders_put_it_and_never_given_on(hooks, tail, headers, body):
    status, shown, _ = hooks.hook("keyed", body, tail=tail, headers=headers)
    assert status == 200
    got = shown["output_value"]
    assert (got["query"], got["json"], json.loads(got["body"])) == ({"a": "1"}, {"b": 2}, {"b": 2})
    assert KEY not in hooks.seen_by_people(shown["id"])


@pytest.mark.contract("6.auth.key-json", "6.input.key")
def test_a_key_may_be_a_field_of_a_form_too(hooks):
    form = urllib.parse.urlencode({"b": "2", "key": KEY}).encode()
    got = inputs_of(hooks.hook("keyed", form, headers={"Content-Type": "application/x-www-form-urlencoded"}))
    assert (got["json"], got["body"]) == ({"b": "2"}, "b=2")


@pytest.mark.contract("6.auth.refused")
def test_a_wrong_key_and_an_unknown_webhook_look_the_same_and_run_nothing(hooks):
    before = count(hooks, "hooks/keyed")
    unknown = hooks.hook("unknown", {}, headers={"X-Api-Key": KEY})
    for headers in ({}, {"X-Api-Key": KEY + "x"}, {"X-Api-Key": ""}, {"Authorization": "Bearer x"}):
        status, problem, _ = hooks.hook("keyed", {}, headers=headers)
        assert (status, problem["detail"]) == (unknown[0], unknown[1]["detail"]) == (401, problem["detail"])
    assert count(hooks, "hooks/keyed") == before


def signed(text, encode=hmac.HMAC.hexdigest):
    return encode(hmac.new(SHARED_SECRET.encode(), text, hashlib.sha256))


def github(body):
    return {"X-Hub-Signature-256": "sha256=" + signed(body)}


def gitlab(body):
    return {"X-Gitlab-Token": SHARED_SECRET}


def gitea(body):
    return {"X-Gitea-Signature": signed(body)}


def bitbucket(body):
    return {"X-Hub-Signature": "sha256=" + signed(body)}


def slack(body, at=None):
    at = str(int(at or time.time()))
    return {"X-Slack-Request-Timestamp": at, "X-Slack-Signature": "v0=" + signed(f"v0:{at}:".encode() + body)}


def stripe(body, at=None):
    at = str(int(at or time.time()))
    return {"Stripe-Signature": f"t={at},v1={signed(f'{at}.'.encode() + body)}"}


def standard(body, at=None):
    at, id_ = str(int(at or time.time())), f"msg_{time.monotonic_ns()}"
    digest = signed(f"{id_}.{at}.".encode() + body, hmac.HMAC.digest)
    return {"webhook-id": id_, "webhook-timestamp": at, "webhook-signature": "v1," + base64.b64encode(digest).decode()}


def plain_hmac(body):
    return {"X-Signature": "sha256=" + signed(body)}


def is_taken_if_it_is_signed(hooks, name, sign):
    """A signed delivery is taken; without a signature, with that of another body, and tampered with it is not."""
    body = b'{"a": 1}'
    json_type = {"Content-Type": "application/json"}
    assert inputs_of(hooks.hook(name, body, headers=json_type | sign(body)))["json"] == {"a": 1}
    assert hooks.hook(name, body, headers=json_type)[0] == 401
    if sign is not gitlab:
        assert hooks.hook(name, body, headers=json_type | sign(b'{"a": 2}'))[0] == 401
    broken = {header: text[:-1] + ("0" if text[-1] != "0" else "1") for header, text in sign(body).items()}
    assert hooks.hook(name, body, headers=json_type | broken)[0] == 401


@pytest.mark.contract("6.auth.github")
def test_github_signs_the_body(hooks):
    is_taken_if_it_is_signed(hooks, "github", github)


@pytest.mark.contract("6.auth.gitlab")
def test_gitlab_sends_a_token(hooks):
    is_taken_if_it_is_signed(hooks, "gitlab", gitlab)


@pytest.mark.contract("6.auth.gitea")
def test_gitea_signs_the_body(hooks):
    is_taken_if_it_is_signed(hooks, "gitea", gitea)


@pytest.mark.contract("6.auth.bitbucket")
def test_bitbucket_signs_the_body(hooks):
    is_taken_if_it_is_signed(hooks, "bitbucket", bitbucket)


@pytest.mark.contract("6.auth.slack")
def test_slack_signs_body_and_time(hooks):
    is_taken_if_it_is_signed(hooks, "slack", slack)
    assert hooks.hook("slack", b"{}", headers=slack(b"{}", at=time.time() - 3600))[0] == 401


@pytest.mark.contract("6.auth.stripe")
def test_stripe_signs_body_and_time(hooks):
    is_taken_if_it_is_signed(hooks, "stripe", stripe)
    assert hooks.hook("stripe", b"{}", headers=stripe(b"{}", at=time.time() - 3600))[0] == 401


@pytest.mark.contract("6.auth.standard-webhooks")
def test_standard_webhooks_sign_id_time_and_body(hooks):
    is_taken_if_it_is_signed(hooks, "standard-webhooks", standard)
    assert hooks.hook("standard-webhooks", b"{}", headers=standard(b"{}", at=time.time() - 3600))[0] == 401


@pytest.mark.contract("6.auth.hmac")
def test_a_plain_hmac_signs_the_body(hooks):
    is_taken_if_it_is_signed(hooks, "hmac", plain_hmac)


@pytest.mark.contract("6.auth.none")
def test_a_webhook_without_credentials_takes_everybody(hooks):
    assert hooks.hook("open", {})[0] == 200


# -- answers ----------------------------------------------------------------------------------------------------------


@pytest.mark.contract("6.answer.async")
def test_an_asynchronous_call_is_answered_at_once_with_the_id(workshop):
    workshop.flow(
        "hooks/slow", meta('{name = "slow", auth = "none"}') + "def handler(system, this):\n    this.sleep(0.5)\n"
    )
    began = time.monotonic()
    status, answer, headers = workshop.hook("slow", {}, tail="?async=1")
    assert (status, time.monotonic() - began < 0.4) == (202, True)
    assert headers["location"].endswith(answer["id"])
    assert workshop.ended(answer["id"])["status"] == "ENDED_SUCCESS"


@pytest.mark.contract("6.answer.execution")
def test_a_failed_execution_is_answered_as_such(workshop):
    workshop.flow(
        "hooks/fails",
        meta('{name = "fails", auth = "none"}') + "def handler(system, this):\n    raise ValueError('no')\n",
    )
    status, shown, _ = workshop.hook("fails", {})
    assert (status, shown["status"], shown["message"]) == (500, "ENDED_ERROR", "ValueError: no")


@pytest.mark.contract("6.answer.html")
def test_a_flow_answers_with_a_page(workshop):
    workshop.flow(
        "hooks/page",
        meta('{name = "page", auth = "none", methods = ["GET"]}')
        + "def handler(system, this):\n    this.error('wrong so far')\n"
        "    return this.webhook_html_response('<h1>Grüß Gott</h1>')\n",
    )
    status, text, headers = workshop.hook("page", method="GET")
    assert (status, text) == (200, "<h1>Grüß Gott</h1>")
    assert headers["content-type"].startswith("text/html")
    (execution,) = workshop.daemon.client.executions(flow="hooks/page")["items"]
    assert execution["status"] == "ENDED_SUCCESS"


@pytest.mark.contract("6.answer.response")
@pytest.mark.parametrize(
    ("call", "status", "body", "type_"),
    [
        (
            "this.webhook_response(202, json={'accepted': [True, None]})",
            202,
            {"accepted": [True, None]},
            "application/json",
        ),
        ("this.webhook_response(status=404, body='nothing here')", 404, "nothing here", "text/plain"),
        ("this.webhook_response()", 200, "", ""),
        ("this.webhook_response(204)", 204, "", ""),
        ("this.webhook_response(302, headers={'Location': 'https://example.org/'})", 302, "", ""),
        (
            "this.webhook_response(body=b'\\x00\\x01', headers={'Content-Type': 'image/png'})",
            200,
            "\x00\x01",
            "image/png",
        ),
        ("this.webhook_response(headers={'content-type': 'text/csv'}, body='a;b')", 200, "a;b", "text/csv"),
    ],
)
def test_a_flow_answers_as_it_likes(workshop, call, status, body, type_):
    name = f"answers {hashlib.sha256(call.encode()).hexdigest()[:8]}"
    workshop.flow(
        f"hooks/{name}", meta(f'{{name = "{name}", auth = "none"}}') + f"def handler(system, this):\n    {call}\n"
    )
    found, text, headers = workshop.hook(urllib.parse.quote(name), {})
    assert (found, text) == (status, body)
    assert headers.get("content-type", "").startswith(type_)
    if status == 302:
        assert headers["location"] == "https://example.org/"


@pytest.mark.contract("6.answer.response")
def test_the_answer_is_sent_also_if_the_flow_fails_afterwards(workshop):
    workshop.flow(
        "hooks/answers then fails",
        meta('{name = "answers then fails", auth = "none"}') + "def handler(system, this):\n"
        "    this.webhook_response(418, headers={'X-Mine': 'yes'}, body='teapot')\n    1 / 0\n",
    )
    status, text, headers = workshop.hook("answers%20then%20fails", {})
    assert (status, text, headers["x-mine"]) == (418, "teapot", "yes")


@pytest.mark.contract("6.delivery.once")
@pytest.mark.parametrize("header", ["X-GitHub-Delivery", "webhook-id", "Idempotency-Key"])
def test_a_known_delivery_is_answered_with_the_first_execution(hooks, header):
    sent = {header: f"delivery {header} {time.monotonic_ns()}"}
    before = count(hooks, "hooks/open")
    _, first, _ = hooks.hook("open", {"n": 1}, headers=sent)
    status, again, headers = hooks.hook("open", {"n": 1}, headers=sent)
    assert (status, again["id"]) == (200, first["id"])
    assert headers["idempotency-replayed"] == "true"
    assert count(hooks, "hooks/open") == before + 1
    assert hooks.hook("open", {"n": 2}, headers=sent)[0] == 409


# -- where webhooks come from -----------------------------------------------------------------------------------------


@pytest.mark.contract("3.type.webhook", "6.auth.key-header")
def test_a_webhook_is_a_record_that_counts_at_once(workshop, value):
    value("""
system.webhook('made by a flow', flow_name='child', auth='key', secret='a text that nobody guesses', methods=['POST'])
""")
    status, shown, _ = workshop.hook("made%20by%20a%20flow", {}, headers={"X-Api-Key": "a text that nobody guesses"})
    assert (status, shown["flow_name"]) == (200, "child")
    assert workshop.hook("made%20by%20a%20flow", {})[0] == 401
    assert "a text that nobody guesses" not in str(workshop.api("GET", "/webhooks/made%20by%20a%20flow"))
    value("system.webhook('made by a flow', is_enabled=False)")
    assert workshop.hook("made%20by%20a%20flow", {}, headers={"X-Api-Key": "a text that nobody guesses"})[0] == 401


@pytest.mark.contract("3.setting.webhook")
def test_a_setting_publishes_a_webhook_at_once(workshop, value):
    name = "client.webhook.by setting"
    value("system.setting(inputs['name'], value={'flow_name': 'child', 'key': 'the key of a setting'})", name=name)
    status, shown, _ = workshop.hook("by%20setting", {}, headers={"X-Api-Key": "the key of a setting"})
    assert (status, shown["flow_name"]) == (200, "child")
    assert workshop.hook("by%20setting", {})[0] == 401
    value("system.setting(inputs['name']).delete()", name=name)
    assert workshop.hook("by%20setting", {}, headers={"X-Api-Key": "the key of a setting"})[0] == 401


@pytest.mark.contract("3.declared.webhooks", "3.declared.client-webhook")
def test_webhooks_are_declared_in_the_repository(workshop, value):
    workshop.write(
        "webhooks/declared.yaml", "flow_name: child\nauth: key\nsecret: secret.env(CONTRACT_KEY)\nmethods: [PUT]\n"
    )
    workshop.write("client.webhook.at the top.yaml", "flow_name: child\nkey: secret.env(CONTRACT_KEY)\n")
    workshop.write("webhooks/client.webhook.beside.yaml", "flow_name: child\nkey: secret.env(CONTRACT_KEY)\n")
    workshop.daemon.client.sync()
    for name, method in (("declared", "PUT"), ("at%20the%20top", "POST"), ("beside", "POST")):
        status, shown, _ = workshop.hook(name, {}, method=method, headers={"X-Api-Key": KEY})
        assert (status, shown["flow_name"]) == (200, "child"), (name, shown)
    assert value("return system.webhook('declared').get('flow_name', 'methods', 'created_by')") == [
        "child",
        ["PUT"],
        "repository",
    ]


@pytest.mark.contract("3.declared.schedules", "3.type.schedule")
def test_schedules_are_declared_in_the_repository(workshop, value):
    workshop.write(
        "schedules/nightly.yaml",
        'flow_name: child\ncron: "30 2 * * *"\ntimezone: Europe/Vienna\ninput_value: {a: 1}\nis_enabled: false\n',
    )
    workshop.daemon.client.sync()
    body = "return system.schedule('nightly').get('flow_name', 'cron', 'timezone', 'input_value', 'is_enabled')"
    assert value(body) == ["child", "30 2 * * *", "Europe/Vienna", {"a": 1}, False]
