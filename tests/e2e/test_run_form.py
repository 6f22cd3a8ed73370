"""Runs of a flow that declares its inputs, from its page by a browser without script, and by the API."""

import json

import pytest

from headrace.engine import errors
from tests.support.browser import Browser, Forms

DECLARED = """
# /// script
# [tool.headrace.input_schema]
# required = ["volume"]
# [tool.headrace.input_schema.properties]
# volume = {type = "string", title = "Volume", minLength = 2}
# gigabytes = {type = "integer", minimum = 1, default = 10}
# tier = {enum = ["fast", "cheap"]}
# key = {type = "boolean"}
# hosts = {type = "array", items = {type = "string"}}
# pin = {element = "password"}
# ///
def handler(system, this, inputs):
    return inputs
"""

CALLS_IT = """
import flow_api
def handler(system, this, inputs):
    if 'wrong' not in inputs:
        return this.flow('declared', inputs).get('output_value')
    try:
        this.flow('declared', inputs['wrong'], run=False)
    except flow_api.SchemaValidationError as error:
        mine = {'field': 'parent_execution_id', 'op': 'eq', 'value': this.get('id')}
        return {'told': repr(error), 'children': len(list(system.executions(filter=mine)))}
"""


@pytest.fixture(scope="module")
def daemon(workshop):
    workshop.flow("declared", DECLARED)
    workshop.flow("calls it", CALLS_IT)
    return workshop.daemon


@pytest.fixture
def browser(daemon):
    return Browser(daemon.url).logged_in(daemon.token())


def latest(daemon):
    found = daemon.client.executions(flow="declared", limit=1)["items"][0]
    return daemon.client.execution(found["id"], 20)


def form_of(browser):
    action, fields, _ = next(f for f in Forms(browser.get("/flows/declared")).found if "run:key" in f[1])
    return action, fields


def test_the_form_runs_the_flow_with_what_was_typed(daemon, browser):
    action, fields = form_of(browser)
    assert fields["gigabytes"] == "10"
    typed = {"volume": "v1", "gigabytes": "3", "tier": "1", "key": "true", "hosts": '["a", "b"]', "pin": "9876"}
    browser.get(action, fields | typed)
    execution = latest(daemon)
    shown = {"volume": "v1", "gigabytes": 3, "tier": "cheap", "key": True, "hosts": ["a", "b"]}
    assert {key: execution["input_value"][key] for key in shown} == shown
    assert "9876" not in json.dumps(execution)


def test_what_is_wrong_stands_beside_its_field_and_what_was_typed_stays(browser):
    action, fields = form_of(browser)
    status, text = browser.send(action, fields | {"volume": "v", "gigabytes": "many", "hosts": "[1"})
    assert status == 422
    assert "Is not valid JSON" in text and 'value="many"' in text
    status, text = browser.send(action, fields | {"volume": "v", "gigabytes": "0"})
    assert status == 422
    assert "less than the minimum of 1" in text and "shorter than 2" in text and text.count('aria-invalid="true"') == 2


def test_the_api_refuses_what_does_not_fit_and_tells_the_schema(daemon):
    with pytest.raises(errors.HeadraceError, match="'volume' is missing"):
        daemon.client.run("declared", {"gigabytes": 1})
    assert daemon.client.flow("declared")["input_schema"]["required"] == ["volume"]


def test_inputs_that_do_not_fit_come_back_as_json_too(browser):
    action, fields, _ = next(f for f in Forms(browser.get("/flows/declared")).found if "inputs" in f[1])
    status, text = browser.send(action, fields | {"inputs": '{"volume": 3}'})
    assert status == 422
    assert "must be a text" in text


def test_a_commit_that_is_kept_can_be_run(daemon, browser, workshop):
    before = daemon.client.flow("declared")["commit"]
    workshop.flow("declared", DECLARED.replace("return inputs", "return 'the newer one'"))
    action, fields = form_of(browser)
    assert f'value="{before}"' in browser.get("/flows/declared")
    browser.get(action, fields | {"volume": "v1", "run:ref": before})
    assert daemon.client.execution(latest(daemon)["id"], 20)["output_value"]["volume"] == "v1"


def test_a_flow_that_calls_it_with_what_does_not_fit_meets_an_exception_before_there_is_a_child(daemon):
    told = daemon.run("calls it", wrong={"gigabytes": 0})["output_value"]
    assert told["told"].startswith("SchemaValidationError(\"the inputs do not fit: 'volume' is missing; 'gigabytes'")
    assert told["children"] == 0


def test_what_a_flow_declares_secret_is_masked_when_a_flow_calls_it_too(daemon):
    caller = daemon.run("calls it", volume="v1", pin="sesame 4711")
    assert caller["status"] == "ENDED_SUCCESS"
    (child,) = daemon.client.executions(parent=caller["id"])["items"]
    shown = daemon.client.execution(child["id"])["input_value"]
    assert shown["volume"] == "v1" and "4711" not in json.dumps(shown)
