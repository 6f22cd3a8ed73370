"""Webhooks: who may call, what the flow gets, what the caller gets."""

import concurrent.futures
import json

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
    workshop.daemon.kill()
    workshop.write("open.py", HOOK % ("open", "none", ""))
    workshop.write("keyed.py", HOOK % ("keyed", "key", ', secret = "secret.env(HOOK_SECRET)"'))
    workshop.write("github.py", HOOK % ("github", "github", ', secret = "secret.env(HOOK_SECRET)"'))
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
    assert len({json.dumps(body) for _, body, _ in answers}) == 1


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
