"""INPUT: a task that asks a person, as flows did before there were messages with forms."""

import json

import pytest

from headrace.engine import errors
from headrace.tasks import registry
from tests.support.daemons import until

ASKS = """
def handler(system, this, inputs):
    task = this.task('INPUT', **inputs).run()
    said = task.get('output_value')
    this.set_output('got', len(said['response']) if inputs.get('type') == 'password' else said)
"""
MANY = """
def handler(system, this):
    for n in range(257):
        this.task('INPUT', request=f'question {n}', wait=False, init={'orphan': False})
    this.task('SLEEP', seconds=0)
    return 'slept'
"""


@pytest.fixture(scope="module")
def daemon(workshop):
    workshop.flow("asks", ASKS)
    workshop.flow("many", MANY)
    return workshop.daemon


def ask(daemon, request, **inputs):
    """Run the flow; returns its execution and the question it asks."""
    execution = daemon.client.run("asks", {"request": request, **inputs})["id"]
    subject = " ".join(request.split())

    def found():
        return [one for one in daemon.client.messages(pending=True) if one["subject"] == subject]

    return execution, until(found, "it asks")[0]


def test_the_answer_is_the_output_and_the_reference_comes_back(daemon):
    execution, message = ask(daemon, "How many?\nPlease say.", type="number", reference="r1")
    assert message["subject"] == "How many? Please say."
    element = message["body"]["properties"]["response"]
    assert (element["element"], element["label"]) == ("number", "How many?\nPlease say.")
    daemon.client.answer(message["id"], {"response": 7})
    assert daemon.client.wait(execution, 20)["output_value"]["got"] == {"response": 7, "reference": "r1"}


def test_a_password_is_in_no_record(daemon):
    execution, message = ask(daemon, "Password?", type="password")
    daemon.client.answer(message["id"], {"response": "hush-hush-pass-word"})
    assert daemon.client.wait(execution, 20)["output_value"]["got"] == 19
    kept = [path for path in daemon.state.rglob("*") if path.is_file() and "sealed" not in str(path)]
    assert kept and not [path for path in kept if b"hush-hush-pass-word" in path.read_bytes()]


def test_out_of_time_the_question_is_withdrawn(daemon):
    execution, message = ask(daemon, "Quick?", timeout=0.2)
    ended = daemon.client.wait(execution, 20)
    assert ended["status"] == "ENDED_ERROR" and "timed out after 0.2 s" in ended["message"]
    assert daemon.client.message(message["id"])["withdrawn"] == "its execution ended"


def test_0_is_without_limit_and_cancelled_the_question_is_withdrawn(daemon):
    execution, message = ask(daemon, "Ever?", timeout=0)
    daemon.client.cancel(message["execution_id"])
    assert daemon.client.wait(execution, 20)["status"] == "ENDED_ERROR"
    until(lambda: daemon.client.message(message["id"])["withdrawn"], "it is withdrawn")


@pytest.mark.parametrize("end", ["kill", "stop"])
def test_the_same_question_waits_over_a_restart(tmp_path, make_daemon, end):
    flows = tmp_path / "flows"
    flows.mkdir()
    (flows / "asks.py").write_text(ASKS)
    daemon = make_daemon(flows)
    daemon.environment["HEADRACE_RUN__STOP_GRACE"] = "0s"
    daemon.start()
    execution, message = ask(daemon, "Still there?")
    daemon.kill() if end == "kill" else daemon.stop()
    daemon.start()
    task = message["execution_id"]
    until(lambda: daemon.client.execution(task)["attempt"] == 2, "it waits again")
    assert [one["id"] for one in daemon.client.messages(pending=False)] == [message["id"]]
    daemon.client.answer(message["id"], {"response": "yes"})
    assert daemon.client.wait(execution, 20)["output_value"]["got"]["response"] == "yes"


def test_questions_keep_no_other_task_from_running(daemon):
    assert daemon.run("many")["output_value"] == "slept"


@pytest.mark.parametrize(
    ("inputs", "message"),
    [
        ({}, "INPUT needs the input 'request': The question."),
        ({"request": " "}, "INPUT cannot use the input 'request': expected a question"),
        ({"request": "x", "type": "colour"}, "INPUT cannot use the input 'type': it is not one of the values that are"),
        ({"request": "x", "timeout": -1}, "INPUT cannot use the input 'timeout': expected a number >= 0.0"),
    ],
    ids=range(4),
)
def test_inputs_that_cannot_be_used(inputs, message):
    with pytest.raises(errors.InputRefused) as refused:
        registry.installed().prepare("INPUT", json.dumps(inputs).encode())
    assert refused.value.message.startswith(message)
