"""Whether it lives, whether it can take work and why not, and figures that count what really happened."""

import json
import re
import subprocess
from pathlib import Path

import pytest
import yaml

from tests.support import services
from tests.support.daemons import until
from tests.support.front_door import ask

FLOWS = {
    "good": "# /// script\n# [tool.headrace]\n# webhook = {name = 'good', auth = 'none'}\n# ///\n"
    "def handler(system, this):\n    return this.success()\n",
    "waits": "def handler(system, this):\n    this.sleep(600)\n",
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


def test_a_status_that_nothing_is_in_any_more_counts_none(daemon):
    waiting = daemon.client.run("waits")["id"]
    until(lambda: figures(daemon)['headrace_executions{status="WAITING"}'] == "1.0", "it waits")
    daemon.client.cancel(waiting)
    daemon.client.wait(waiting)
    assert figures(daemon)['headrace_executions{status="WAITING"}'] == "0.0"


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


# -- what docs/observe/ makes of the figures ----------------------------------------------------------------------

OBSERVE = Path(__file__).parents[2] / "docs" / "observe"
#: Labels that Prometheus adds, and those of Python's histogram.
_ADDED = {"job", "instance", "le"}
_ONE = re.compile(r'(\w+)\s*(=~|!~|!=|=)\s*"([^"]*)"')


def dashboard():
    return json.loads((OBSERVE / "grafana.json").read_text())


def queries():
    """Every expression of the dashboard and the alerts, with what shows its labels."""
    for panel in dashboard()["panels"]:
        yield from ((target["expr"], target["legendFormat"]) for target in panel.get("targets", ()))
    yield from ((one["expr"], "") for one in dashboard()["annotations"]["list"])
    for rule in yaml.safe_load((OBSERVE / "alerts.yml").read_text())["groups"][0]["rules"]:
        yield rule["expr"], rule["annotations"]["summary"].replace("$labels.", "")


def test_the_dashboard_and_the_alerts_ask_for_figures_that_there_are_by_labels_that_they_have(daemon):
    daemon.run("bad")
    ask(daemon, "POST", "/webhook/good")
    served: dict[str, dict[str, set[str]]] = {}
    for sample in figures(daemon):
        name, _, labels = sample.partition("{")
        for label, _, value in _ONE.findall(labels):
            served.setdefault(name, {}).setdefault(label, set()).add(value)
        served.setdefault(name, {})
    found = set()
    for query, shown in queries():
        names = set(re.findall(r"\b(?:headrace|process)_\w+", query))
        assert names <= served.keys(), query
        found |= names
        labels = {label for name in names for label in served[name]} | _ADDED
        by = {one.strip() for listed in re.findall(r"\bby \(([^)]*)\)", query) for one in listed.split(",")}
        assert by <= labels and set(re.findall(r"\{\{ ?(\w+) ?\}\}", shown)) - {"job"} <= labels | {"$value"}, query
        for name, chosen in re.findall(r"(headrace_\w+)\{([^}]*)\}", query):
            for label, how, value in _ONE.findall(chosen):
                assert label in labels, query
                there = served[name].get(label, set())
                if how in ("=", "=~") and label in ("result", "event", "status") and value != "500":
                    assert all(any(re.fullmatch(one, it) for it in there) for one in value.split("|")), query
    assert len(found) > 15


def test_promtool_finds_the_queries_and_the_alerts_sound(tmp_path):
    promtool = services.program("promtool")
    variables = {"$__rate_interval": "5m", "$__range": "6h", "$__interval": "1m", "$job": "headrace"}
    rules = []
    for n, (query, _) in enumerate(queries()):
        for name, value in variables.items():
            query = query.replace(name, value)
        rules.append({"record": f"asked:{n}", "expr": query})
    (tmp_path / "queries.yml").write_text(json.dumps({"groups": [{"name": "dashboard", "rules": rules}]}))
    for told in (
        ["check", "rules", "--lint-fatal", str(OBSERVE / "alerts.yml"), str(tmp_path / "queries.yml")],
        ["test", "rules", str(OBSERVE / "alerts.test.yml")],
    ):
        done = subprocess.run([promtool, *told], capture_output=True, text=True)
        assert done.returncode == 0, done.stdout + done.stderr


def test_the_dashboard_is_laid_out_without_overlaps():
    taken = set()
    for panel in dashboard()["panels"]:
        place = panel["gridPos"]
        cells = {
            (x, y)
            for x in range(place["x"], place["x"] + place["w"])
            for y in range(place["y"], place["y"] + place["h"])
        }
        assert not cells & taken and max(x for x, _ in cells) < 24, panel["title"]
        taken |= cells
    assert len({panel["id"] for panel in dashboard()["panels"]}) == len(dashboard()["panels"])
