"""Sleeping, steps, and what would be another thing each time."""

from __future__ import annotations

import datetime

import pytest


@pytest.mark.contract("2.sleep.seconds")
@pytest.mark.parametrize("seconds", [0, 0.3])
def test_a_flow_sleeps_for_seconds(value, seconds):
    took = value(
        "import time\nbegan = time.monotonic()\nthis.sleep(inputs['s'])\nreturn time.monotonic() - began", s=seconds
    )
    assert seconds <= took < seconds + 2


@pytest.mark.contract("2.sleep.seconds")
def test_a_sleeping_flow_is_waiting(workshop):
    execution = workshop.start("this.sleep(0.5)")
    workshop.until_status(execution, "WAITING")
    assert workshop.ended(execution)["status"] == "ENDED_SUCCESS"


@pytest.mark.contract("2.sleep.seconds")
@pytest.mark.parametrize("seconds", ["-1", "'soon'", "None", "float('nan')", "True"])
def test_what_is_no_time_is_refused(refused, seconds):
    refused(f"this.sleep({seconds})", "InvalidInputError")


@pytest.mark.contract("2.sleep.until")
@pytest.mark.parametrize(
    "moment",
    [
        "time.time() + 0.3",
        "datetime.datetime.now() + datetime.timedelta(seconds=0.3)",
        "datetime.datetime.now(datetime.timezone.utc) + datetime.timedelta(seconds=0.3)",
        "this.now() + datetime.timedelta(seconds=0.3)",
    ],
)
def test_a_flow_sleeps_until_a_moment(value, moment):
    took = value(f"""
import datetime, time
began = time.monotonic()
this.sleep_until({moment})
return time.monotonic() - began
""")
    assert 0.25 <= took < 2


@pytest.mark.contract("2.sleep.until")
def test_a_moment_that_has_passed_is_not_waited_for(value):
    assert (
        value("""
import time
began = time.monotonic()
this.sleep_until(0)
this.sleep_until(time.time() - 3600)
return time.monotonic() - began < 2
""")
        is True
    )


@pytest.mark.contract("2.step.result")
def test_a_step_happens_once_and_gives_its_result(workshop, run):
    ended = run("""
calls = []
def action(a, b=0):
    calls.append((a, b))
    return {'sum': a + b}
first = this.step('adding', action, 1, b=2)
return [first, calls]
""")
    assert ended["output_value"] == [{"sum": 3}, [[1, 2]]]
    (step,) = [line for line in workshop.record(ended["id"]) if line.get("kind") == "step"]
    assert (step["target"], step["result"]) == ("adding", {"sum": 3})


@pytest.mark.contract("2.step.result")
def test_a_step_gives_back_what_json_makes_of_the_result(value):
    assert value("result = this.step('a', lambda: (1, 2))\nreturn [type(result).__name__, result]") == ["list", [1, 2]]


@pytest.mark.contract("2.step.result")
def test_a_step_that_fails_raises_and_is_not_recorded(workshop, run):
    ended = run("""
try:
    this.step('a', lambda: 1 / 0)
except ZeroDivisionError:
    return this.step('a', lambda: 'again')
""")
    assert ended["output_value"] == "again"
    assert [line["result"] for line in workshop.record(ended["id"]) if line.get("kind") == "step"] == ["again"]


@pytest.mark.contract("2.step.result")
def test_a_step_whose_result_json_cannot_hold_is_refused(refused):
    assert "JSON" in refused("this.step('a', object)", "InvalidInputError")


@pytest.mark.contract("2.now.recorded")
def test_time_ids_and_chance_are_those_in_the_record(workshop, run):
    ended = run("""
import datetime, uuid
now = this.now()
assert isinstance(now, datetime.datetime) and now.tzinfo is not None
assert str(uuid.UUID(this.uuid()))
return [now.timestamp(), this.uuid(), this.random(), this.uuid()]
""")
    now, first, chance, second = ended["output_value"]
    created, end = (datetime.datetime.fromisoformat(ended[key]).timestamp() for key in ("created_at", "ended_at"))
    assert created - 1 <= now <= end + 1
    assert first != second and 0 <= chance < 1
    recorded = {line["call"]: line.get("result") for line in workshop.record(ended["id"]) if line.get("kind")}
    assert list(recorded.values()) == [pytest.approx(now, abs=1e-5), recorded[2], first, chance, second]
