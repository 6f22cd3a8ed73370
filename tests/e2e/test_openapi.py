"""The served description of the API is what the API does: fuzzed from its own words, whatever comes back fits it.

``HEADRACE_FUZZ`` says how many examples each operation gets.
"""

import os

import hypothesis
import pytest
import schemathesis
import schemathesis.checks
from schemathesis.specs.openapi import checks as openapi_checks

from headrace.daemon import runs, shapes
from tests.support import front_door
from tests.support.front_door import ask

EXAMPLES = int(os.environ.get("HEADRACE_FUZZ", "3"))
#: What an answer must be. Schemathesis also tries wrong credentials, which are tried elsewhere, and slow it down.
CHECKS = [
    schemathesis.checks.not_a_server_error,
    openapi_checks.response_schema_conformance,
    openapi_checks.content_type_conformance,
    openapi_checks.response_headers_conformance,
]
QUICK = "def handler(system, this, inputs):\n    return inputs\n"


@pytest.fixture(scope="module")
def daemon(workshop):
    workshop.flow("quick", QUICK)
    workshop.daemon.client.keep("settings", "one", {"value": {"a": 1}})
    workshop.daemon.client.save_file("a file", b"content")
    workshop.daemon.run("quick", n=1)
    return workshop.daemon


@pytest.fixture(scope="module")
def document(daemon):
    answer = ask(daemon, "GET", "/openapi.json")
    assert (answer.status, answer.headers["content-type"].partition(";")[0]) == (200, "application/json")
    return answer.json


def test_every_route_for_programs_is_described_and_no_page_is(document, tmp_path):
    described = {(m.upper(), path) for path, methods in document["paths"].items() for m in methods}
    table = [row for row in front_door.table(tmp_path) if row.method != "*"]
    served = {(row.method, row.path.replace(":.+}", "}")) for row in table}
    for_programs = {(m, p) for m, p in served if p.startswith(("/api/", "/healthz", "/readyz", "/metrics", "/openapi"))}
    assert described == for_programs
    ids = [operation["operationId"] for methods in document["paths"].values() for operation in methods.values()]
    assert len(set(ids)) == len(ids) > 50


def test_the_bodies_of_runs_are_described_as_they_are_read():
    for described, read in (
        (shapes.RunBody, runs.RunRequest),
        (shapes.ExecutionBody, runs.ExecutionRequest),
        (shapes.RerunBody, runs.RerunRequest),
    ):
        assert set(described.__struct_fields__) == set(read.__struct_fields__)


def test_whatever_is_sent_is_answered_as_described_and_nothing_is_a_defect(daemon, document, record_property):
    schema = schemathesis.openapi.from_dict(document)
    schema.config.base_url = daemon.url
    headers = {"Authorization": f"Bearer {daemon.token()}"}
    tried = 0

    def examine(operation):
        @hypothesis.given(case=operation.as_strategy())
        @hypothesis.settings(
            max_examples=EXAMPLES,
            deadline=None,
            database=None,
            derandomize=True,
            suppress_health_check=list(hypothesis.HealthCheck),
            phases=[hypothesis.Phase.generate],
        )
        def one(case):
            nonlocal tried
            if case.query and "wait" in case.query:
                case.query["wait"] = "0"  # it is about shapes here, not about patience
            case.headers = {n: v for n, v in (case.headers or {}).items() if n.lower() != "prefer"}
            tried += 1
            case.call_and_validate(headers=headers, checks=CHECKS)

        one()

    for result in schema.get_all_operations():
        examine(result.ok())
    record_property("tries", tried)
    assert tried >= 50 * min(EXAMPLES, 2)
    assert '"request.failed"' not in daemon.log.read_text()


def test_what_really_is_there_fits_its_description(daemon, document):
    """Fuzzing finds little that exists: here each shape is met with real content."""
    schema = schemathesis.openapi.from_dict(document)
    schema.config.base_url = daemon.url
    headers = {"Authorization": f"Bearer {daemon.token()}"}
    execution = daemon.run("quick", n=2)["id"]
    daemon.client.create_token("shape", ["viewer"])
    named = {
        "/api/v1/flows/{name}": {"name": "quick"},
        "/api/v1/executions/{id}": {"id": execution},
        "/api/v1/executions/{id}/log": {"id": execution},
        "/api/v1/executions/{id}/events": {"id": execution},
        "/api/v1/settings/{name}": {"name": "one"},
        "/api/v1/files/{path}": {"path": "a file"},
        "/api/v1/tasks/{type}": {"type": "REST"},
    }
    met = 0
    for path, methods in document["paths"].items():
        if "get" in methods and ("{" not in path or path in named):
            case = schema[path]["GET"].Case(path_parameters=named.get(path, {}), headers=headers)
            assert case.call_and_validate(headers=headers, checks=CHECKS).status_code == 200, path
            met += 1
    assert met > 25
