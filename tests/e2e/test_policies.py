"""What an operator says about a flow comes about: how many run at a time, what follows an end, when it runs by itself."""

import time

import pytest

from tests.support.daemons import until

WAITS = """
    # /// script
    # [tool.headrace]
    # {policies}
    # ///
    def handler(system, this, inputs):
        this.log(inputs.get('n'))
        if inputs.get('hold'):
            this.message('go on?')
        return inputs
"""
FAILS = """
    # /// script
    # [tool.headrace]
    # {policies}
    # ///
    def handler(system, this, inputs):
        raise ValueError('no')
"""
NOTES = """
    def handler(system, this, inputs):
        return inputs
"""


@pytest.fixture
def flow(workshop, request):
    """Write a flow with policies; its name is the test's."""
    numbers = iter(range(100))

    def write(policies, text=WAITS):
        name = f"{request.node.name.replace('[', ' ').replace(']', '')} {next(numbers)}"
        return workshop.flow(name, text.replace("{policies}", "\n    # ".join(policies.splitlines())))

    return write


def status(daemon, execution):
    return daemon.client.execution(execution["id"])["status"]


def release(daemon, execution):
    """Answer the question that an execution asks."""

    def asked():
        return [one for one in daemon.client.messages(pending=True) if one["execution_id"] == execution["id"]]

    until(asked, "it asks")
    daemon.client.answer(asked()[0]["id"], {})


def test_a_queue_lets_one_in_at_a_time_in_their_order(workshop, flow):
    daemon, name = workshop.daemon, flow("concurrency = {limit = 1}")
    first, second, third = (daemon.client.run(name, {"hold": True, "n": n}) for n in range(3))
    until(lambda: status(daemon, first) == "WAITING", "the first runs")
    assert [status(daemon, one) for one in (second, third)] == ["QUEUED", "QUEUED"]
    release(daemon, first)
    until(lambda: status(daemon, second) == "WAITING", "the second runs")
    assert status(daemon, third) == "QUEUED"
    daemon.client.cancel(second["id"])
    until(lambda: status(daemon, third) == "WAITING", "the third runs")
    release(daemon, third)


def test_others_do_not_wait_for_a_full_lane(workshop, flow):
    daemon, name = workshop.daemon, flow('concurrency = {limit = 1, key = "inputs.customer"}')
    first, second, other = (daemon.client.run(name, {"hold": True, "customer": who}) for who in ("a", "a", "b"))
    until(lambda: status(daemon, other) == "WAITING", "the other customer's runs")
    assert status(daemon, second) == "QUEUED"
    assert daemon.run("idle")["status"] == "ENDED_SUCCESS"
    for one in (first, second, other):
        daemon.client.cancel(one["id"])


def test_skip_reject_and_replace(workshop, flow):
    from headrace.daemon.client import Refused

    daemon = workshop.daemon
    skip = flow('concurrency = {limit = 1, when_full = "skip"}')
    first = daemon.client.run(skip, {"hold": True})
    skipped = daemon.run(skip)
    assert (skipped["status"], skipped["reason"]) == ("ENDED_CANCELLED", "skipped") and first["id"] in skipped[
        "message"
    ]
    release(daemon, first)

    reject = flow('concurrency = {limit = 1, when_full = "reject"}')
    first = daemon.client.run(reject, {"hold": True})
    with pytest.raises(Exception) as refused:
        daemon.client.run(reject, {})
    assert refused.value.http_status == 429 or refused.value.status == 429
    release(daemon, first)
    until(lambda: status(daemon, first) == "ENDED_SUCCESS", "it ends")
    assert daemon.run(reject)["status"] == "ENDED_SUCCESS"

    replace = flow('concurrency = {limit = 1, when_full = "replace"}')
    first = daemon.client.run(replace, {"hold": True})
    until(lambda: status(daemon, first) == "WAITING", "it runs")
    assert daemon.run(replace)["status"] == "ENDED_SUCCESS"
    assert status(daemon, first) == "ENDED_CANCELLED"


def test_a_failure_is_tried_again_and_only_the_last_one_is_told(workshop, flow):
    daemon = workshop.daemon
    told = workshop.flow("told of failures", NOTES)
    name = flow(f'retry = {{attempts = 3, delay = "10ms", factor = 1}}\non_failure = "{told}"', FAILS)
    first = daemon.run(name)
    assert first["status"] == "ENDED_ERROR"
    until(lambda: daemon.client.executions(flow=told)["items"], "somebody is told")
    attempts = daemon.client.executions(flow=name)["items"]
    assert len(attempts) == 3 and {one["status"] for one in attempts} == {"ENDED_ERROR"}
    (notice,) = daemon.client.executions(flow=told)["items"]
    notice = daemon.client.wait(notice["id"], 20)
    said = notice["output_value"]
    assert (said["execution_id"], said["attempts"], said["flow"]) == (attempts[0]["id"], 3, name)
    assert (said["message"], said["error"]) == ("ValueError: no", "ValueError")


def test_a_schedule_runs_its_flow(workshop, flow):
    daemon = workshop.daemon
    name = flow('schedule = ["* * * * *", {cron = "@yearly", name = "new year", timezone = "Europe/Vienna"}]')
    wait_s = 62 - time.time() % 60
    deadline = time.monotonic() + wait_s + 10
    while not (found := daemon.client.executions(flow=name)["items"]) and time.monotonic() < deadline:
        time.sleep(0.5)
    assert found and found[0]["created_by"].startswith("schedule ")
