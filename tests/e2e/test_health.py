"""Whether it lives, whether it can take work and why not, and figures that count what really happened."""

import re

import pytest

from tests.support.front_door import ask

FLOWS = {
    "good": "# /// script\n# [tool.headrace]\n# webhook = {name = 'good', auth = 'none'}\n# ///\n"
    "def handler(system, this):\n    return this.success()\n",
    "bad": "def handler(system, this):\n    raise ValueError('as asked')\n",
}


def figures(daemon):
    answer = ask(daemon, "GET", "/metrics", daemon.token())
    assert answer.status == 200 and answer.headers["content-type"].startswith("text/plain")
    return dict(re.findall(r"^(\w+(?:\{[^\n]*\})?) (\S+)$", answer.body.decode(), re.MULTILINE))


@pytest.fixture(scope="module")
def daemon(workshop):
    for name, text in FLOWS.items():
        workshop.write(f"{name}.py", text)
    workshop.daemon.client.sync()
    return workshop.daemon


def test_figures_count_what_happened(daemon):
    before = figures(daemon)
    for _ in range(3):
        daemon.run("good")
    daemon.run("bad")
    ask(daemon, "POST", "/webhook/good", headers={"X-GitHub-Delivery": "m-1"})
    ask(daemon, "POST", "/webhook/good", headers={"X-GitHub-Delivery": "m-1"})
    ask(daemon, "POST", "/webhook/nothing")
    after = figures(daemon)

    def grown(name):
        return float(after[name]) - float(before.get(name, 0))

    assert grown('headrace_executions_ended_total{status="ENDED_SUCCESS"}') == 4
    assert grown('headrace_executions_ended_total{status="ENDED_ERROR"}') == 1
    assert grown('headrace_executions_created_total{type="FLOW"}') == 5
    assert grown('headrace_journal_events_total{event="execution.created"}') == 5
    for result in ("accepted", "repeated", "refused"):
        assert grown(f'headrace_webhook_deliveries_total{{result="{result}"}}') == 1
    route = 'method="POST",route="/webhook/{name}"'
    assert grown(f'headrace_http_requests_total{{{route},status="200"}}') == 2
    assert grown(f'headrace_http_requests_total{{{route},status="401"}}') == 1
    assert grown('headrace_http_request_duration_seconds_count{route="/webhook/{name}"}') == 3
    assert float(after['headrace_executions{status="ENDED_ERROR"}']) >= 1
    assert (after["headrace_ready"], after["headrace_executions_unfinished"]) == ("1.0", "0.0")
    assert float(after["headrace_sync_last_success_timestamp_seconds"]) > 1.7e9 and after["headrace_flows"] != "0.0"


def test_no_label_is_made_of_what_strangers_send(daemon):
    for n in range(20):
        ask(daemon, "GET", f"/made-up-{n}")
        ask(daemon, "POST", f"/webhook/made-up-{n}")
        ask(daemon, "BREW", "/webhook/good")
    text = "\n".join(figures(daemon))
    assert "made-up" not in text and "BREW" not in text


def test_figures_are_not_for_everybody(daemon):
    assert ask(daemon, "GET", "/metrics").status == 401
    runner = daemon.client.create_token("runner", ["run"])["token"]
    assert ask(daemon, "GET", "/metrics", runner).status == 403
