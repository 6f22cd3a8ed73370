"""Asking people and getting an answer."""

from __future__ import annotations

import concurrent.futures
import os
import subprocess
import sys
import time

import pytest

ASK = "return this.message('Deploy', request='Which version?').get('response')"


@pytest.mark.contract("5.message.this", "5.message.request", "5.answer.api", "2.status.path")
def test_a_flow_asks_waits_and_gets_the_answer(workshop):
    execution = workshop.start(ASK)
    message = workshop.asked(execution)
    assert workshop.execution(execution)["status"] == "WAITING"
    assert (message["subject"], message["message_type"], message["response"]) == ("Deploy", "INFO", None)
    assert [each["label"] for each in message["body"]["properties"].values() if each.get("element") == "string"] == [
        "Which version?"
    ]
    status, _ = workshop.answer(message["id"], {"string": "1.2"})
    assert status == 200
    assert workshop.ended(execution)["output_value"]["string"] == "1.2"
    answered = workshop.api("GET", f"/messages/{message['id']}")
    assert answered["response"]["string"] == "1.2"
    assert message["id"] not in [each["id"] for each in workshop.api("GET", "/messages?pending=true")["items"]]


@pytest.mark.contract("5.message.text")
def test_a_text_is_shown_with_a_button(workshop):
    execution = workshop.start("return this.message('Look', message='**bold**').get('response')")
    message = workshop.asked(execution)
    elements = {key: each["element"] for key, each in message["body"]["properties"].items()}
    assert sorted(elements.values()) == ["markdown", "submit"]
    assert "**bold**" in str(message["body"])
    (button,) = [key for key, element in elements.items() if element == "submit"]
    assert button == "OK"
    assert workshop.answer(message["id"], {"OK": True})[0] == 200
    assert workshop.ended(execution)["output_value"] == {"OK": True}


@pytest.mark.contract("5.message.system", "5.message.response")
def test_a_message_can_be_made_first_and_waited_for_later(workshop):
    execution = workshop.start("""
question = system.message(subject='Lunch', request='Pizza or pasta?')
this.set_output('before', question.get('response'))
this.set_output('asked', question.id)
question.wait()
this.set_output('after', question.get('response')['string'])
this.set_output('again', question.wait().get('response', 'subject'))
""")
    message = workshop.until_output(execution, "asked")
    assert workshop.answer(message, {"string": "pasta"})[0] == 200
    output = workshop.ended(execution)["output_value"]
    assert (output["before"], output["after"], output["again"][1]) == (None, "pasta", "Lunch")


@pytest.mark.contract("5.message.wait-false", "5.message.response")
def test_a_flow_can_ask_and_go_on(workshop, value):
    asked = value("""
question = this.message('Later', request='When?', wait=False)
return [question.get('response'), question.id]
""")
    assert asked[0] is None
    assert workshop.api("GET", f"/messages/{asked[1]}")["subject"] == "Later"


@pytest.mark.contract("5.wait.answered")
def test_waiting_for_an_answered_message_returns_at_once_in_any_execution(workshop, value):
    message = value("return system.message(subject='Once', request='?').id")
    assert workshop.answer(message, {"string": "there"})[0] == 200
    assert value("return system.message(inputs['id']).wait(timeout=0).get('response')['string']", id=message) == "there"
    assert value("return system.message(inputs['id']).wait().get('response')['string']", id=message) == "there"


@pytest.mark.contract("5.wait.answered")
def test_several_executions_can_wait_for_the_same_message(workshop, value):
    message = value("return system.message(subject='Many wait', request='?').id")
    waiters = [workshop.start("return system.message(inputs['id']).wait().get('response')", id=message) for _ in "abc"]
    for waiter in waiters:
        workshop.until_status(waiter, "WAITING")
    assert workshop.answer(message, {"string": "for all"})[0] == 200
    assert {workshop.ended(waiter)["output_value"]["string"] for waiter in waiters} == {"for all"}


@pytest.mark.contract("5.message.timeout", "4.raised.MessageResponseTimeoutError", "4.timeouts")
def test_waiting_too_long_for_an_answer_raises_and_the_message_stays_open(workshop, value):
    kind, message = value("""
question = system.message(subject='Anyone?', request='?')
try:
    question.wait(timeout=0.1)
except flow_api.TimeoutExceededError as error:
    return [type(error).__name__, question.id]
""")
    assert kind == "MessageResponseTimeoutError"
    assert workshop.answer(message, {"string": "late"})[0] == 200


@pytest.mark.contract("5.message.timeout", "4.raised.MessageResponseTimeoutError")
def test_asking_takes_a_timeout_too(refused):
    refused("this.message('Anyone?', request='?', timeout=0.1)", "MessageResponseTimeoutError")


@pytest.mark.contract("5.message.types")
@pytest.mark.parametrize("kind", ["INFO", "SUCCESS", "WARNING", "ERROR", "POPUP"])
def test_a_message_is_of_a_type(workshop, value, kind):
    body = "return system.message(subject='Typed', message='text', message_type=inputs['kind']).id"
    message = workshop.api("GET", f"/messages/{value(body, kind=kind)}")
    assert message["message_type"] == kind


@pytest.mark.contract("5.message.response", "3.record.fields")
def test_a_message_tells_who_asked_and_when(workshop, run):
    ended = run("""
question = system.message(subject='Told', request='?')
return [question.id, question.get('subject', 'message_type', 'response'), question.get('body')['required'],
        question.get('execution_id') == this.id, question.get('created_at') >= this.get('created_at')]
""")
    message, fields, required, mine, later = ended["output_value"]
    assert (fields, required, mine, later) == (["Told", "INFO", None], ["string"], True, True)
    shown = workshop.api("GET", f"/messages/{message}")
    assert shown["execution_id"] == ended["id"]


@pytest.mark.contract("5.answer.once")
def test_the_second_answer_is_refused(workshop, value):
    message = value("return system.message(subject='Once only', request='?').id")
    assert workshop.answer(message, {"string": "first"})[0] == 200
    status, problem = workshop.answer(message, {"string": "second"})
    assert status == 409
    assert "answered" in problem["detail"]
    assert workshop.api("GET", f"/messages/{message}")["response"]["string"] == "first"


@pytest.mark.contract("5.answer.once")
def test_of_many_answers_at_once_exactly_one_wins(workshop):
    execution = workshop.start(ASK)
    message = workshop.asked(execution)["id"]
    with concurrent.futures.ThreadPoolExecutor(8) as people:
        answers = list(people.map(lambda n: workshop.answer(message, {"string": f"from {n}"})[0], range(8)))
    assert sorted(answers) == [200] + [409] * 7
    assert workshop.ended(execution)["output_value"]["string"] == f"from {answers.index(200)}"


@pytest.mark.contract("5.answer.refused")
def test_a_wrong_answer_is_refused_with_the_reason_and_the_message_stays_open(workshop):
    execution = workshop.start(ASK)
    message = workshop.asked(execution)["id"]
    for wrong in ({}, {"string": 7}, {"string": "x", "no such key": 1}):
        status, problem = workshop.answer(message, wrong)
        assert status == 422, wrong
        assert "string" in str(problem) or "no such key" in str(problem)
    assert workshop.http("POST", f"/api/v1/messages/{message}/response", b"not json")[0] == 400
    assert workshop.asked(execution)["id"] == message
    assert workshop.answer(message, {"string": "right"})[0] == 200
    assert workshop.ended(execution)["output_value"]["string"] == "right"


@pytest.mark.contract("5.answer.refused")
def test_a_message_that_does_not_exist_cannot_be_answered(workshop):
    assert workshop.answer("nosuchmessage", {})[0] == 404


@pytest.mark.contract("5.answer.cli")
def test_a_message_is_answered_on_the_command_line(workshop):
    execution = workshop.start(ASK)
    message = workshop.asked(execution)["id"]
    done = subprocess.run(
        [sys.executable, "-m", "headrace", "answer", message, "string=from the terminal"],
        env={**os.environ, "STATE_DIRECTORY": str(workshop.daemon.state)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert workshop.ended(execution)["output_value"]["string"] == "from the terminal"


@pytest.mark.contract("5.answer.ui")
def test_a_message_is_answered_in_the_browser(workshop, browser):
    execution = workshop.start("return this.message('Lunch', request='Pizza or pasta?').get('response')")
    message = workshop.asked(execution)["id"]
    page = browser.get(f"/messages/{message}")
    assert "Lunch" in page and "Pizza or pasta?" in page
    browser.submit(page, {"string": "pasta"})
    output = workshop.ended(execution)["output_value"]
    assert output["string"] == "pasta"


@pytest.mark.contract("2.cancel.execution", "5.message.this")
def test_a_question_is_withdrawn_with_the_execution_that_waits_for_it(workshop):
    execution = workshop.start(ASK)
    message = workshop.asked(execution)["id"]
    workshop.daemon.client.cancel(execution)
    assert workshop.ended(execution)["status"] == "ENDED_CANCELLED"
    assert workshop.answer(message, {"string": "too late"})[0] == 409
    assert message not in [each["id"] for each in workshop.api("GET", "/messages?pending=true")["items"]]


@pytest.mark.contract("5.message.system")
def test_a_question_that_nobody_waited_for_stays_open_after_its_execution(workshop, value):
    message = value("return system.message(subject='Open end', request='?').id")
    time.sleep(0.05)
    assert workshop.answer(message, {"string": "still good"})[0] == 200
    assert value("return system.message(inputs['id']).get('response')['string']", id=message) == "still good"
