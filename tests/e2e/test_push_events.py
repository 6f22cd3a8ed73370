"""A forge's push event has the source looked at; nobody else's has."""

import json
import subprocess
import time

import pytest

from headrace.daemon import signatures
from tests.support.daemons import Daemon, until
from tests.support.front_door import ask

SECRET = "the secret shared with the forge"
PATH = "/api/v1/sync/push"
JSON = {"Content-Type": "application/json"}
PUSHES = {
    "github": ({"X-GitHub-Event": "push"}, {"ref": "refs/heads/main", "after": "0" * 40}),
    "gitlab": ({"X-Gitlab-Event": "Push Hook"}, {"ref": "refs/heads/main", "object_kind": "push"}),
    "gitea": ({"X-Gitea-Event": "push", "X-GitHub-Event": "push"}, {"ref": "refs/heads/main"}),
    "bitbucket": ({"X-Event-Key": "repo:push"}, {"push": {"changes": [{"new": {"type": "branch", "name": "main"}}]}}),
}


def git(folder, *words):
    subprocess.run(
        ["git", "-C", folder, "-c", "user.name=a", "-c", "user.email=a@b", *words], check=True, capture_output=True
    )


@pytest.fixture(scope="module")
def upstream(tmp_path_factory):
    folder = tmp_path_factory.mktemp("upstream")
    git(folder, "init", "-q", "-b", "main")
    (folder / "first.py").write_text("def handler(system, this):\n    pass\n")
    git(folder, "add", ".")
    git(folder, "commit", "-qm", "first")
    return folder


@pytest.fixture(scope="module")
def daemon(tmp_path_factory, upstream):
    home = tmp_path_factory.mktemp("pushed")
    (home / "secret").write_text(SECRET + "\n")
    daemon = Daemon(home / "s", f"file://{upstream}")
    daemon.environment |= {
        "HEADRACE_SOURCE__PUSH": json.dumps({"secret_file": str(home / "secret")}),
        "HEADRACE_SOURCE__POLL": "0",
        "HEADRACE_SOURCE__REF": "main",
    }
    daemon.start()
    yield daemon
    assert daemon.stop() == 0


def sent(daemon, scheme, event=None, headers=None, secret=SECRET):
    named, usual = PUSHES[scheme]
    body = json.dumps(usual if event is None else event).encode()
    signed = signatures.signed(scheme, body, secret, time.time(), "d1")
    return ask(daemon, "POST", PATH, body=body, headers=JSON | named | signed | (headers or {}))


@pytest.mark.parametrize("scheme", PUSHES)
def test_a_push_is_there_without_a_poll(daemon, upstream, scheme):
    name = f"pushed by {scheme}"
    (upstream / f"{name}.py").write_text("def handler(system, this):\n    pass\n")
    git(upstream, "add", ".")
    git(upstream, "commit", "-qm", name)
    answer = sent(daemon, scheme)
    assert (answer.status, answer.json["status"]) == (202, "accepted")
    until(lambda: name in {flow["name"] for flow in daemon.client.flows()}, "it is published")


@pytest.mark.parametrize("scheme", PUSHES)
def test_what_is_not_signed_with_the_secret_is_refused_alike(daemon, scheme):
    before = daemon.client.sync()["last_attempt_at"]
    bodies = [sent(daemon, scheme, secret="another"), ask(daemon, "POST", PATH, body={}, headers=PUSHES[scheme][0])]
    bodies += [ask(daemon, "POST", PATH, daemon.token(), body={}), ask(daemon, "POST", PATH, body=b"")]
    assert {answer.status for answer in bodies} == {401}
    assert len({answer.json["detail"] for answer in bodies}) == 1
    assert daemon.client.sync_state()["last_attempt_at"] == before


def test_events_about_something_else_are_ignored_and_say_so(daemon):
    other = {"ref": "refs/heads/feature"}
    before = daemon.client.sync()["last_attempt_at"]
    for answer in (
        sent(daemon, "github", other),
        sent(daemon, "gitea", other),
        sent(daemon, "gitlab", other),
        sent(daemon, "bitbucket", {"push": {"changes": [{"new": {"name": "feature"}, "old": None}]}}),
    ):
        assert (answer.status, answer.json["status"]) == (202, "ignored") and "feature" in answer.json["reason"]
    ping = sent(daemon, "github", {"zen": "Speak like a human."}, {"X-GitHub-Event": "ping"})
    assert (ping.status, ping.json["status"]) == (200, "ignored")
    assert daemon.client.sync_state()["last_attempt_at"] == before


@pytest.mark.parametrize("event", [[], "x", {"ref": 7}, {"push": []}, {"push": {"changes": [None, {"new": 3}]}}, {}])
def test_a_signed_event_of_an_odd_form_has_the_source_looked_at(daemon, event):
    assert sent(daemon, "github", event).json == {"status": "accepted", "reason": ""}


def test_where_no_secret_is_set_no_event_is_taken(workshop):
    for secret in ("", SECRET):
        body = b'{"ref": "refs/heads/main"}'
        signed = {"X-Hub-Signature-256": "sha256=" + signatures.github_signature(body, secret)}
        headers = JSON | signed | {"X-GitHub-Event": "push"}
        assert ask(workshop.daemon, "POST", PATH, body=body, headers=headers).status == 401


def test_whoever_asks_before_sending_events_is_told_they_may_whatever_there_is(workshop):
    headers = {"WebHook-Request-Origin": "eventgrid.example", "WebHook-Request-Rate": "120"}
    for name in ("idle", "unknown"):
        answer = ask(workshop.daemon, "OPTIONS", f"/webhook/{name}", headers=headers)
        assert (answer.status, answer.headers["webhook-allowed-origin"]) == (200, "eventgrid.example")
        assert int(answer.headers["webhook-allowed-rate"]) > 0
    assert ask(workshop.daemon, "OPTIONS", "/webhook/idle").status == 401
    odd = {"WebHook-Request-Origin": "a b"}
    assert ask(workshop.daemon, "OPTIONS", "/webhook/idle", headers=odd).status == 401
