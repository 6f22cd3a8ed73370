"""Reading and writing executions, and what only the running one does."""

import datetime

import pytest

from headrace.engine.guest import flow_api
from tests.engine.guest.conftest import ENDED, Failure


@pytest.fixture
def child(system):
    return system.execution("c1")


def answered(status, headers, body="", binary=False):
    return ("webhook_response", "", {"status": status, "headers": headers, "body": body, "binary": binary})


def kind(content_type):
    return {"content-type": content_type}


def test_what_cannot_change_is_read_once_and_the_rest_each_time(child, daemon):
    daemon.answers("get", {"flow_name": "x"}, {"status": "RUNNING"}, {"status": "ENDED_SUCCESS", "name": "n"})
    assert child.get("flow_name") == child.get("flow_name") == "x"
    assert child.get("status") == "RUNNING"
    assert child.get("status", "flow_name", "name") == ("ENDED_SUCCESS", "x", "n")
    assert daemon.calls == [
        ("get", "", {"execution": "c1", "fields": ["flow_name"]}),
        ("get", "", {"execution": "c1", "fields": ["status"]}),
        ("get", "", {"execution": "c1", "fields": ["status", "name"]}),
    ]


def test_load_always_asks(child, daemon):
    daemon.answers("get", {"flow_name": "x"})
    assert child.load("flow_name") == child.load("flow_name") == "x"
    assert len(daemon.calls) == 2


def test_the_name_of_a_child_that_has_not_ended_may_still_change(this, daemon):
    daemon.answers("flow", {"id": "c1", "name": "before", "type": "FLOW"}).answers("get", {"name": "after"})
    assert this.flow("x", wait=False).get("name") == "after"


def test_everything_of_an_ended_child_is_known(this, daemon):
    daemon.answers("flow", ENDED)
    child = this.flow("x")
    assert child.get("status", "output_value", "name") == ("ENDED_SUCCESS", {"n": 1}, "child")
    assert len(daemon.calls) == 1


def test_a_handle_made_before_the_end_gives_the_value_afterwards(this, daemon):
    daemon.answers("flow", {"id": "c1", "name": "child", "type": "FLOW"})
    daemon.answers("get", {"output_value": {}}, {"output_value": {"n": 2}}).answers("wait", [ENDED])
    child = this.flow("x", wait=False)
    assert child.get("output_value") == {}
    assert child.get("output_value") == {"n": 2}
    assert child.wait().get("output_value") == {"n": 1}


def test_inputs_and_outputs_are_dicts_also_where_there_are_none(child, daemon):
    daemon.answers("get", {"input_value": None, "output_value": None})
    assert child.get("input_value", "output_value") == ({}, {})


def test_set_stays_here_until_it_is_saved_and_load_does_not_forget_it(this, daemon):
    daemon.answers("get", {"message": "old"})
    this.set(message="new")
    assert (this.get("message"), this.get("status_message"), this.load("message")) == ("new", "new", "old")
    assert this.get("message") == "new"
    this.save()
    assert daemon.calls[-1] == ("save", "", {"execution": "t1", "fields": {"message": "new"}})
    assert this.get("message") == "old"  # asked anew


def test_save_writes_what_was_set_with_what_is_given(this, daemon):
    this.set(message="a", name="b").save(status_message="c", output_value={"x": 1})
    fields = {"message": "c", "name": "b", "output_value": {"x": 1}}
    assert daemon.call == ("save", "", {"execution": "t1", "fields": fields})


def test_an_output_changed_in_place_is_saved_and_one_only_read_is_not(this, daemon):
    daemon.answers("get", {"output_value": {"list": [1]}})
    output = this.get("output_value")
    this.save()
    output = this.get("output_value")
    output["list"].append(2)
    this.save()
    assert [call for call in daemon.calls if call[0] == "save"] == [
        ("save", "", {"execution": "t1", "fields": {"output_value": {"list": [1, 2]}}})
    ]


def test_a_field_there_is_not_is_told_by_the_daemon(this, daemon):
    daemon.answers("get", Failure("InvalidInputError", "an execution has no field 'x'"))
    with pytest.raises(flow_api.InvalidInputError, match="no field"):
        this.get("x")


@pytest.mark.parametrize(
    ("use", "expected"),
    [
        (lambda this: this.set_output("a", 1), ("set_output", "", {"execution": "t1", "keys": {"a": 1}})),
        (lambda this: this.set_output(a=1, key=2), ("set_output", "", {"execution": "t1", "keys": {"a": 1, "key": 2}})),
        (lambda this: this.append_output("a", 1), ("append_output", "", {"execution": "t1", "key": "a", "value": 1})),
        (lambda this: this.sleep(1.5), ("sleep", "", {"seconds": 1.5})),
        (lambda this: this.sleep_until(12), ("sleep", "", {"until": 12.0})),
        (
            lambda this: this.sleep_until(datetime.datetime(2030, 1, 1, tzinfo=datetime.UTC)),
            ("sleep", "", {"until": 1893456000.0}),
        ),
        (
            lambda this: this.sleep_until(datetime.datetime(2030, 1, 1)),
            ("sleep", "", {"until": datetime.datetime(2030, 1, 1).timestamp()}),
        ),
        (lambda this: this.exists(), ("execution.exists", "t1", {"by": "id"})),
        (lambda this: this.delete(), ("execution.delete", "t1", {"by": "id"})),
        (lambda this: this.webhook_response(202, {"X-A": "b"}), answered(202, {"X-A": "b"})),
        (lambda this: this.webhook_response(body="a"), answered(200, kind("text/plain; charset=utf-8"), "a")),
        (
            lambda this: this.webhook_response(body=b"\xff"),
            answered(200, kind("application/octet-stream"), "/w==", True),
        ),
        (lambda this: this.webhook_response(json={"ä": 1}), answered(200, kind("application/json"), '{"ä": 1}')),
        (
            lambda this: this.webhook_response(headers={"Content-Type": "application/x"}, body="a"),
            answered(200, {"Content-Type": "application/x"}, "a"),
        ),
        (lambda this: this.webhook_html_response("<p>"), answered(200, kind("text/html; charset=utf-8"), "<p>")),
    ],
)
def test_a_call_says_what_it_means(this, daemon, use, expected):
    use(this)
    assert daemon.call == expected


@pytest.mark.parametrize(
    "use",
    [
        lambda this: this.sleep(-1),
        lambda this: this.sleep("1"),
        lambda this: this.sleep(True),
        lambda this: this.sleep(float("nan")),
        lambda this: this.sleep_until("tomorrow"),
        lambda this: this.wait(timeout=-1),
        lambda this: this.lock("x", timeout="long"),
        lambda this: this.log("x", level="LOUD"),
        lambda this: this.webhook_response(body="a", json=1),
        lambda this: this.webhook_response(body=7),
        lambda this: this.webhook_response(json=object()),
        lambda this: this.message("s", message_type="SHOUT"),
        lambda this: this.message("s", "text", body={}),
        lambda this: this.message("s", body="text"),
    ],
)
def test_what_makes_no_sense_is_refused_here(this, daemon, use):
    with pytest.raises(flow_api.InvalidInputError):
        use(this)
    assert daemon.calls == []


def test_recorded_values_come_from_the_daemon(this, daemon):
    daemon.answers("now", 1893456000.25).answers("uuid", "u-1").answers("random", 0.5).answers("step", [1, 2])
    assert this.now() == datetime.datetime(2030, 1, 1, 0, 0, 0, 250000, tzinfo=datetime.UTC)
    assert (this.uuid(), this.random()) == ("u-1", 0.5)
    assert this.step("pair", lambda *args, **more: (*args, more["b"]), 1, b=2) == [1, 2]
    assert daemon.calls[-1] == ("step", "pair", {"result": [1, 2]})


def test_a_step_that_fails_records_nothing(this, daemon):
    with pytest.raises(ZeroDivisionError):
        this.step("divides", lambda: 1 / 0)
    assert daemon.calls == []


def test_a_lock_is_held_for_the_block_however_it_is_left(this, daemon):
    with pytest.raises(ValueError), this.lock("printer", timeout=2):
        raise ValueError("no paper")
    assert daemon.calls == [("lock", "printer", {"timeout": 2}), ("unlock", "printer", {})]


def test_a_lock_that_is_not_free_is_not_given_back(this, daemon):
    daemon.answers("lock", Failure("DeadlockError", "it holds what you wait for"))
    with pytest.raises(flow_api.LockTimeoutError) as caught, this.lock("printer"):
        raise AssertionError("never gets here")
    assert type(caught.value) is flow_api.DeadlockError and len(daemon.calls) == 1


def test_marks_return_nothing_and_the_last_one_wins(this):
    assert this.error("no") is None and this.success("yes") is None
    assert (this._outcome.marked, this._outcome.message) == ("success", "yes")


def test_a_page_for_the_webhooks_caller_marks_a_success(this, daemon):
    assert this.webhook_html_response("<p>") is None
    assert this._outcome.marked == "success"


def test_only_the_running_execution_marks_its_outcome(child):
    with pytest.raises(flow_api.PermissionDenied):
        child.success()


def test_values_are_logged_as_they_are_and_else_as_text(this, system, daemon):
    this.log("a", 1, None, [1], b"\xff", {"at": datetime.date(2030, 1, 1)}, {(1, 2): 3}, float("nan"), one=this)
    this.logln(level="warning")
    daemon.answers("now", 0)
    this.now()  # everything before it has arrived
    said = [frame for frame in daemon.said if frame["op"] == "log"]
    assert said[0]["args"] == ["a", 1, None, [1], "b'\\xff'", {"at": "2030-01-01"}, "{(1, 2): 3}", "nan"]
    assert said[0]["kwargs"] == {"one": "Execution('t1', name='me')"}
    assert [frame["level"] for frame in said] == ["INFO", "WARNING"]
    assert [frame["call"] for frame in daemon.said] == [1, 2, 3]
