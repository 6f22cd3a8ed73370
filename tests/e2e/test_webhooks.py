"""Webhooks: who may call, what the flow gets, what the caller gets."""

import concurrent.futures
import json
import os
import subprocess
import sys
import time

import pytest

from headrace.daemon import signatures
from tests.support.daemons import until

HOOK = """
# /// script
# [tool.headrace]
# webhook = {name = "%s", auth = "%s"%s}
# ///
def handler(system, this, inputs):
    this.set_output('seen', inputs)
    if inputs['json'].get('fail'):
        raise ValueError('as asked')
    this.sleep(inputs['json'].get('sleep', 0))
    return this.success('answered')
"""


@pytest.fixture(scope="module")
def hooks(workshop):
    workshop.daemon.environment["HOOK_SECRET"] = "only-for-this-test"
    workshop.daemon.environment["TWO_SECRETS"] = "the new one\nthe old one"
    workshop.daemon.kill()
    workshop.write("open.py", HOOK % ("open", "none", ""))
    workshop.write("keyed.py", HOOK % ("keyed", "key", ', secret = "secret.env(HOOK_SECRET)"'))
    workshop.write("github.py", HOOK % ("github", "github", ', secret = "secret.env(HOOK_SECRET)"'))
    workshop.write("slack.py", HOOK % ("slack", "slack", ', secret = "secret.env(HOOK_SECRET)"'))
    workshop.write("stripe.py", HOOK % ("stripe", "stripe", ', secret = "secret.env(TWO_SECRETS)"'))
    workshop.write("nosecret.py", HOOK % ("nosecret", "key", ', secret = "secret.env(NOT_THERE)"'))
    workshop.daemon.start()
    workshop.daemon.client.sync()
    return workshop.daemon


JSON = {"Content-Type": "application/json"}


def test_a_caller_waits_for_the_end_and_gets_the_execution(hooks):
    status, body, headers = hooks.raw("POST", "/webhook/open/some/path?a=1", {"x": 2}, JSON)
    assert (status, body["status"], body["message"]) == (200, "ENDED_SUCCESS", "answered")
    seen = body["output_value"]["seen"]
    assert (seen["method"], seen["path"], seen["query"], seen["json"]) == ("POST", "some/path", {"a": "1"}, {"x": 2})
    assert seen["headers"]["content-type"] == "application/json" and seen["body"] == '{"x": 2}'
    assert headers["Location"] == f"/api/v1/executions/{body['id']}"


def test_a_failing_flow_is_a_server_error_with_the_reason(hooks):
    status, body, _ = hooks.raw("POST", "/api/v1/webhook/open", {"fail": True}, JSON)
    assert (status, body["status"], body["error"]["message"]) == (500, "ENDED_ERROR", "ValueError: as asked")


@pytest.mark.parametrize("how", ["?async=1", "prefer"])
def test_a_caller_who_does_not_want_to_wait_gets_the_id_at_once(hooks, how):
    headers = JSON | ({"Prefer": "wait=0"} if how == "prefer" else {})
    path = "/webhook/open" + (how if how != "prefer" else "")
    status, body, _ = hooks.raw("POST", path, {"sleep": 0.5}, headers)
    assert status == 202 and hooks.client.wait(body["id"])["status"] == "ENDED_SUCCESS"


def test_a_repeated_delivery_runs_once_also_when_it_comes_many_times_at_once_and_after_a_restart(hooks):
    delivery = JSON | {"X-GitHub-Delivery": "d-1"}

    def deliver(_):
        return hooks.raw("POST", "/webhook/open?async=1", {"n": 1}, delivery)

    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(deliver, range(16)))
    assert {status for status, _, _ in answers} == {202}
    assert len({body["id"] for _, body, _ in answers}) == 1
    hooks.kill()
    hooks.start()
    assert hooks.raw("POST", "/webhook/open?async=1", {"n": 1}, delivery)[1]["id"] == answers[0][1]["id"]


def test_the_same_delivery_id_with_another_body_is_a_conflict(hooks):
    delivery = JSON | {"X-GitHub-Delivery": "d-2"}
    assert hooks.raw("POST", "/webhook/open", {"n": 1}, delivery)[0] == 200
    status, body, _ = hooks.raw("POST", "/webhook/open", {"n": 2}, delivery)
    assert status == 409 and "another body" in body["detail"]


@pytest.mark.parametrize(
    ("query", "headers", "body"),
    [
        ("?key=only-for-this-test", {}, {}),
        ("", {"x-api-key": "only-for-this-test"}, {}),
        ("", {"Authorization": "Bearer only-for-this-test"}, {}),
        ("", {}, {"key": "only-for-this-test"}),
    ],
)
def test_a_key_is_found_where_senders_put_it_and_never_reaches_the_record(hooks, query, headers, body):
    status, answer, _ = hooks.raw("POST", f"/webhook/keyed{query}", body, JSON | headers)
    assert status == 200
    assert "only-for-this-test" not in json.dumps(answer)
    assert "only-for-this-test" not in json.dumps(hooks.record(answer["id"]))


def test_github_deliveries_are_verified_over_the_raw_body(hooks):
    body = b'{"ref":  "refs/heads/main"}'
    good = {"X-Hub-Signature-256": "sha256=" + signatures.github_signature(body, "only-for-this-test")}
    assert hooks.raw("POST", "/webhook/github", body, JSON | good)[0] == 200
    assert hooks.raw("POST", "/webhook/github", body.replace(b"  ", b" "), JSON | good)[0] == 401


def test_an_unknown_webhook_a_wrong_key_and_a_missing_secret_look_the_same(hooks):
    answers = [
        hooks.raw("POST", "/webhook/unknown", {}, JSON),
        hooks.raw("POST", "/webhook/keyed?key=wrong", {}, JSON),
        hooks.raw("POST", "/webhook/nosecret?key=x", {}, JSON),
        hooks.raw("POST", "/webhook/github", {}, JSON),
    ]
    assert {status for status, _, _ in answers} == {401}
    assert len({json.dumps(body | {"request": ""}) for _, body, _ in answers}) == 1


def test_other_methods_broken_json_and_large_bodies_are_refused(hooks):
    assert hooks.raw("PUT", "/webhook/open", {}, JSON)[0] == 405
    assert hooks.raw("POST", "/webhook/open", b"{", JSON)[0] == 400
    assert hooks.raw("POST", "/webhook/open", b"x" * (25 * 1024 * 1024 + 1))[0] == 413


def test_forms_and_bodies_that_are_not_text_arrive(hooks):
    form = {"Content-Type": "application/x-www-form-urlencoded"}
    seen = hooks.raw("POST", "/webhook/open", b"a=1&b=x%20y", form)[1]["output_value"]["seen"]
    assert seen["json"] == {"a": "1", "b": "x y"}
    seen = hooks.raw("POST", "/webhook/open", b"\xff\x00", {})[1]["output_value"]["seen"]
    assert (seen["body"], seen["body_encoding"]) == ("/wA=", "base64")


def test_a_webhook_that_appears_with_an_edit_is_served_without_a_restart(workshop):
    workshop.flow("late", HOOK % ("late", "none", ""))
    until(lambda: workshop.daemon.raw("POST", "/webhook/late", {}, JSON)[0] == 200, "the new webhook answers")


def test_slacks_challenge_is_answered_once_it_is_known_to_be_slack_and_runs_nothing(hooks):
    body = b'{"type":"url_verification","challenge":"3eZbrw1a","token":"x"}'
    before = hooks.client.executions(limit=1)["items"][:1]
    signed = signatures.signed("slack", body, "only-for-this-test", time.time(), "")
    assert hooks.raw("POST", "/webhook/slack", body, JSON | signed)[:2] == (200, "3eZbrw1a")
    assert hooks.raw("POST", "/webhook/slack", body, JSON)[0] == 401
    assert hooks.client.executions(limit=1)["items"][:1] == before


def test_an_event_that_is_named_inside_runs_once_with_either_secret_and_after_a_restart(hooks):
    ids = set()
    for number, secret in enumerate(("the new one", "the old one", "the new one")):
        body = b'{"id":"evt_1","pending_webhooks":%d}' % number
        signed = signatures.signed("stripe", body, secret, time.time(), "")
        status, answer, _ = hooks.raw("POST", "/webhook/stripe?async=1", body, JSON | signed)
        assert status == 202
        ids.add(answer["id"])
        if number == 1:
            hooks.kill()
            hooks.start()
    assert len(ids) == 1
    forged = signatures.signed("stripe", b'{"id":"evt_2"}', "another", time.time(), "")
    assert hooks.raw("POST", "/webhook/stripe", b'{"id":"evt_2"}', JSON | forged)[0] == 401


@pytest.mark.parametrize(
    ("name", "secret"), [("github", "only-for-this-test"), ("stripe", "the new one"), ("open", "")]
)
def test_a_delivery_is_tried_and_signed_from_the_command_line(hooks, tmp_path, name, secret):
    def headrace(*words, secret=secret):
        command = [sys.executable, "-m", "headrace", "--state", str(hooks.state), "webhooks", *words]
        environment = {**os.environ, "HEADRACE_WEBHOOK_SECRET": secret}
        return subprocess.run(command, capture_output=True, text=True, env=environment)

    done = headrace("test", name, "--body", '{"x": 1}')
    assert done.returncode == 0, done.stderr
    assert hooks.client.wait(done.stdout.strip())["input_value"]["json"] == {"x": 1}
    assert headrace("test", "nowhere").returncode == 3
    if not secret:
        return
    assert headrace("test", name, secret="wrong").returncode == 4
    assert headrace("test", name, secret="").returncode == 2
    (tmp_path / "secret").write_text(secret)
    printed = headrace("sign", name, "--secret-file", str(tmp_path / "secret"), "--body", '{"y": 2}', secret="")
    sent = dict(line.split(": ", 1) for line in printed.stdout.splitlines())
    assert hooks.raw("POST", f"/webhook/{name}", b'{"y": 2}', JSON | sent)[0] == 200
