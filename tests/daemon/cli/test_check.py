"""`headrace check`: what a push of a directory would come to, offline, with file and line."""

import json
import xml.etree.ElementTree as ET

import pytest

from tests.support.replays import COMMAND, elsewhere, headrace

GOOD = "def handler(system, this):\n    return 1\n"
BAD = {
    "syntax.py": ("def handler(system, this):\n    return (\n", "syntax.py:2: syntax error"),
    "async.py": ("async def handler(system, this):\n    pass\n", "async.py:1: handler is `async def`"),
    "block.py": (
        "# /// script\n# [tool.headrace]\n# timeout = 'soon'\n# ///\n" + GOOD,
        "block.py:3: ",
    ),
    "unknown.py": (
        "# /// script\n# [tool.headrace]\n# tags = []\n# timeot = '1m'\n# ///\n" + GOOD,
        "unknown.py:4: timeot is not a key",
    ),
    "webhooks/push.yaml": ("flow_name: good\nauth: [none\n", "webhooks/push.yaml:3: not YAML"),
    "schedules/odd.yaml": ("flow_name: good\ncron: '0 0 * * *'\ncolour: red\n", "schedules/odd.yaml:3: colour is not"),
    "settings/limits.yaml": ("value: [1\n", "settings/limits.yaml:2: "),
    "schedules/daily.yaml": ("flow_name: good\ncron: sometimes\n", "schedules/daily.yaml:2: "),
}


@pytest.fixture
def flows(tmp_path):
    folder = tmp_path / "flows"
    (folder / "lib").mkdir(parents=True)
    (folder / "good.py").write_text(GOOD)
    (folder / "lib" / "helper.py").write_text("raise SystemExit('nobody runs this')\n")
    return folder


def test_good_flows_are_good(flows):
    assert headrace("check", flows) == (0, "", "flows: 1, problems: 0, warnings: 0\n")
    found = json.loads(headrace("check", flows, "--format", "json")[1])
    assert found == {"flows": ["good"], "findings": []}


@pytest.mark.parametrize("name", BAD)
def test_each_mistake_is_told_with_file_and_line(flows, name):
    text, told = BAD[name]
    (flows / name).parent.mkdir(exist_ok=True)
    (flows / name).write_text(text)
    status, out, err = headrace("check", flows)
    assert status == 1
    assert out.startswith(told)
    assert "problems: 1" in err
    (finding,) = json.loads(headrace("check", flows, "--format", "json")[1])["findings"]
    assert out.startswith(f"{finding['file']}:{finding['line']}: {finding['reason']}")


def test_a_warning_breaks_nothing(flows):
    (flows / "later.py").write_text("# /// script\n# [tool.headrace]\n# on_success = 'nobody'\n# ///\n" + GOOD)
    status, out, err = headrace("check", flows)
    assert (status, "later.py:3: warning: " in out, "warnings: 1" in err) == (0, True, True)


def test_one_webhook_of_two_flows_is_told_with_file_and_line(flows):
    (flows / "webhooks").mkdir()
    block = "# /// script\n# [tool.headrace]\n# webhook = {name = 'push', auth = 'none'}\n# ///\n"
    for name in ("one.py", "two.py"):
        (flows / name).write_text(block + GOOD)
    (flows / "webhooks" / "push.yaml").write_text("flow_name: good\nauth: none\n")
    status, out, _ = headrace("check", flows)
    of_flow, of_file = out.splitlines()
    assert (status, of_flow) == (1, "two.py:3: the webhook 'push' belongs to the flow 'one' (webhook)")
    assert of_file.startswith("webhooks/push.yaml:1: the webhook 'push' belongs to the flow 'one'")


def test_flows_that_others_name_and_that_are_missing_are_told(flows):
    block = "# /// script\n# [tool.headrace]\n# on_success = '{}'\n# on_failure = '{}'\n# ///\n"
    (flows / "right.py").write_text(block.format("good", "good") + GOOD)
    (flows / "wrong.py").write_text(block.format("good", "god") + GOOD)
    (flows / "schedules").mkdir()
    (flows / "schedules" / "daily.yaml").write_text("cron: '0 0 * * *'\nflow_name: nobody\n")
    status, out, err = headrace("check", flows)
    assert out.splitlines() == [
        "schedules/daily.yaml:2: warning: there is no flow 'nobody' (flow_name)",
        "wrong.py:4: warning: there is no flow 'god' (on_failure)",
    ]
    assert (status, "problems: 0, warnings: 2" in err) == (0, True)


def test_results_for_ci_count_what_is_broken(flows):
    for name in ("syntax.py", "async.py"):
        (flows / name).write_text(BAD[name][0])
    status, out, _ = headrace("check", flows, "--format", "junit")
    (suite,) = ET.fromstring(out)
    assert (status, suite.get("tests"), suite.get("failures")) == (1, "3", "2")
    broken = {case.get("name"): case.find("failure").get("message") for case in suite if len(case)}
    assert broken["syntax.py"].startswith("syntax.py:2: syntax error")


def test_findings_for_forges_name_level_file_and_line(flows):
    (flows / "a flow.py").write_text(BAD["syntax.py"][0])
    (flows / "later.py").write_text("# /// script\n# [tool.headrace]\n# on_success = 'nobody'\n# ///\n" + GOOD)
    status, out, _ = headrace("check", flows, "--format", "sarif")
    told = json.loads(out)
    (run,) = told["runs"]
    broken, doubtful = run["results"]
    assert (status, told["version"], run["tool"]["driver"]["name"]) == (1, "2.1.0", "headrace")
    assert {one["ruleId"] for one in run["results"]} == {rule["id"] for rule in run["tool"]["driver"]["rules"]}
    assert (broken["level"], doubtful["level"]) == ("error", "warning")
    assert broken["message"]["text"].startswith("syntax error")
    assert broken["locations"] == [
        {"physicalLocation": {"artifactLocation": {"uri": "a%20flow.py"}, "region": {"startLine": 2}}}
    ]
    assert headrace("check", flows, "--records", "--format", "sarif")[0] == 2


def test_nothing_is_left_behind_and_nothing_of_a_daemon_is_needed(flows, tmp_path):
    done = elsewhere(tmp_path, *COMMAND, "check", flows)
    assert (done.returncode, done.stderr) == (0, "flows: 1, problems: 0, warnings: 0\n")
    assert [*(tmp_path / "home").iterdir(), *(tmp_path / "temporary").iterdir()] == []
    assert sorted(path.name for path in flows.rglob("*")) == ["good.py", "helper.py", "lib"]


def test_what_is_no_directory_is_a_mistake_of_whoever_types(tmp_path):
    assert headrace("check", tmp_path / "nope")[0] == 2
    (tmp_path / "file").write_text("")
    assert headrace("check", tmp_path / "file")[0] == 2
    assert headrace("replay", tmp_path / "file")[0] == 2
