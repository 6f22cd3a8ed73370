import msgspec
import pytest

from headrace.engine import errors, events, model
from headrace.engine.state.messages import Messages

AT = "2026-11-24T10:00:00.000000+00:00"
LATER = "2026-11-24T11:00:00.000000+00:00"
BODY = msgspec.Raw(b'{"properties":{}}')


@pytest.fixture
def messages():
    return Messages()


def create(messages, id_="m1", *, execution="e1", bound=False, **fields):
    messages.apply(
        events.MessageCreated(
            message=id_, subject="Lunch", body=BODY, execution=execution, created_by="e1", bound=bound, **fields
        ),
        AT,
    )
    return messages.find(id_)


def answer(messages, id_="m1", **fields):
    messages.apply(events.MessageAnswered(message=id_, by="anna", **fields), LATER)


def test_a_message_waits_for_its_answer(messages):
    message = create(messages, message_type="WARNING")
    assert message.pending and messages.pending("m1") == message
    assert (message.subject, message.message_type, message.body, message.response) == ("Lunch", "WARNING", BODY, None)
    answer(messages, response=msgspec.Raw(b'{"string":"pizza"}'))
    message = messages.find("m1")
    assert not message.pending and bytes(message.response) == b'{"string":"pizza"}'
    assert (message.created_at, message.answered_at, message.answered_by) == (AT, LATER, "anna")


def test_a_message_gets_one_answer(messages):
    create(messages)
    answer(messages)
    with pytest.raises(errors.Conflict, match=f"message m1 was answered by anna at {LATER}".replace("+", r"\+")):
        messages.pending("m1")
    with pytest.raises(ValueError, match="m1 was answered though"):
        answer(messages)


def test_an_answer_with_a_secret_is_kept_sealed(messages):
    create(messages)
    answer(messages, response=msgspec.Raw(b'{"password":"[masked]"}'), response_sealed="s1")
    response = messages.find("m1").response
    assert isinstance(response, model.Sealed) and response.id == "s1"


def test_a_withdrawn_message_takes_no_answer(messages):
    create(messages)
    messages.apply(events.MessageWithdrawn(message="m1", reason="its execution ended"), LATER)
    assert not messages.find("m1").pending and messages.all(pending=True) == []
    with pytest.raises(errors.Conflict, match="needs no answer any more: its execution ended"):
        messages.pending("m1")
    with pytest.raises(ValueError):
        answer(messages)


def test_an_answer_stays_when_the_message_is_withdrawn_afterwards(messages):
    create(messages)
    answer(messages)
    messages.apply(events.MessageWithdrawn(message="m1"), LATER)
    assert messages.find("m1").withdrawn == ""


def test_a_deleted_message_is_not_there(messages):
    create(messages, bound=True)
    messages.apply(events.MessageDeleted(message="m1"), LATER)
    for look in (messages.find, messages.pending):
        with pytest.raises(errors.NotFound, match="no message 'm1'"):
            look("m1")
    assert messages.all() == [] and messages.all(pending=True) == [] and messages.bound_to("e1") == []
    answer(messages)
    messages.apply(events.MessageDeleted(message="m1"), LATER)


def test_messages_are_listed_newest_first(messages):
    for id_ in ("m1", "m2", "m3"):
        create(messages, id_)
    answer(messages, "m2")
    assert [m.id for m in messages.all()] == ["m3", "m2", "m1"]
    assert [m.id for m in messages.all(pending=True)] == ["m3", "m1"]


def test_what_is_bound_to_an_execution_is_what_it_still_waits_for(messages):
    create(messages, "m1", bound=True)
    create(messages, "m2", bound=True)
    create(messages, "m3", execution="e2", bound=True)
    create(messages, "m4")
    assert [m.id for m in messages.bound_to("e1")] == ["m1", "m2"]
    answer(messages, "m1")
    messages.apply(events.MessageWithdrawn(message="m2"), LATER)
    assert messages.bound_to("e1") == [] and [m.id for m in messages.bound_to("e2")] == ["m3"]


def test_a_message_is_not_made_twice(messages):
    create(messages)
    with pytest.raises(ValueError, match="created twice"):
        create(messages)
