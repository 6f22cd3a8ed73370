"""Messages: forms made from few words, and waiting for answers."""

import pytest

from headrace.engine.guest import flow_api
from tests.engine.guest.conftest import Failure

OK = {"element": "submit", "type": "boolean", "label": "OK", "order": 3}


def text(words):
    return {"element": "markdown", "description": words, "order": 1}


def question(words):
    return {"element": "string", "type": "string", "label": words, "order": 2}


@pytest.fixture(autouse=True)
def made(daemon):
    daemon.answers("message", {"id": "m1", "response": {"string": "yes"}})


@pytest.mark.parametrize(
    ("said", "form"),
    [
        ({"message": "*hi*"}, {"type": "object", "properties": {"message": text("*hi*"), "OK": OK}}),
        ({}, {"type": "object", "properties": {"message": text("subject"), "OK": OK}}),
        (
            {"request": "sure?"},
            {"type": "object", "properties": {"string": question("sure?"), "OK": OK}, "required": ["string"]},
        ),
        (
            {"message": "*hi*", "request": "sure?"},
            {
                "type": "object",
                "properties": {"message": text("*hi*"), "string": question("sure?"), "OK": OK},
                "required": ["string"],
            },
        ),
        ({"body": {"properties": {}}}, {"properties": {}}),
    ],
)
def test_few_words_become_a_form(this, system, daemon, said, form):
    message = this.message("subject", timeout=5, message_type="popup", **said)
    assert message.get("response") == {"string": "yes"}
    asked = {"message_type": "POPUP", "body": form, "wait": True, "timeout": 5}
    assert daemon.call == ("message", "subject", asked)
    system.message(subject="subject", message_type="POPUP", **said)
    assert daemon.calls[1] == ("message", "subject", asked | {"wait": False, "timeout": None})


def test_an_answered_message_is_not_waited_for_again(this, daemon):
    message = this.message("s", request="q")
    assert message.wait() is message
    assert len(daemon.calls) == 1


def test_waiting_later_and_from_another_execution(system, daemon):
    daemon.answers("message", {"id": "m1"}).answers("message.wait", {"response": {"OK": True}})
    daemon.answers("message.get", {"response": None})
    message = system.message(subject="s", message="m")
    assert message.get("response") is None  # and is asked for again
    assert message.get("response") is None
    assert message.wait(timeout=2).get("response") == {"OK": True}
    assert system.message("m1").wait().get("response") == {"OK": True}
    assert [call[:2] for call in daemon.calls] == [
        ("message", "s"),
        ("message.get", "m1"),
        ("message.get", "m1"),
        ("message.wait", "m1"),
        ("message.wait", "m1"),
    ]
    assert daemon.calls[3][2] == {"timeout": 2}


def test_nobody_answering_is_an_exception(this, daemon):
    daemon.answers("message", Failure("MessageResponseTimeoutError", "nobody answered within 5 s"))
    with pytest.raises(flow_api.TimeoutExceededError, match="nobody"):
        this.message("s", request="q", timeout=5)


def test_a_message_is_found_by_its_id_and_deleted(system, daemon):
    system.message("m1").delete()
    assert daemon.call == ("message.delete", "m1", {"by": "id"})
