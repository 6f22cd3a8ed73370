"""What an operator says about a flow comes about: how many run at a time, what follows an end, when it runs itself."""

import json
import subprocess
import sys
import textwrap
import time

import pytest

from headrace.daemon import client as clients
from tests.e2e.conftest import Workshop
from tests.support.daemons import Daemon, until

HANDLER = """
    def handler(system, this, inputs):
        if inputs.get('fails'):
            raise ValueError('no')
        if inputs.get('hold'):
            this.message('go on?')
        return inputs
"""
#: The daemon's wall clock goes as a file says; what runs flows is left alone.
SHIFTED = """
    import sys, time

    if "up" in sys.orig_argv:
        real = time.time
        time.time = lambda: real() + float(open({path!r}).read())
"""


def shift_clock(daemon, folder, seconds):
    """Have the daemon's wall clock ahead by so much, from its next start on, and whenever this is called again."""
    (folder / "next").write_text(str(seconds))
    (folder / "next").replace(folder / "shift")  # whole at any moment: the daemon asks its clock all the time
    (folder / "sitecustomize.py").write_text(textwrap.dedent(SHIFTED.format(path=str(folder / "shift"))))
    daemon.environment["PYTHONPATH"] = str(folder)


@pytest.fixture(scope="module")
def workshop(tmp_path_factory):
    home = tmp_path_factory.mktemp("p")
    for folder in ("flows", "clock"):
        (home / folder).mkdir()
    (home / "flows" / "told.py").write_text("def handler(system, this, inputs):\n    return inputs\n")
    daemon = Daemon(home / "s", home / "flows")
    daemon.environment["HEADRACE_RUN__CANCEL_GRACE"] = "1s"
    shift_clock(daemon, home / "clock", 0)
    daemon.start()
    workshop = Workshop(daemon, home / "flows")
    workshop.clock = home / "clock"
    yield workshop
    assert daemon.stop() == 0


@pytest.fixture
def flow(workshop, request):
    """Write a flow with policies; its name is the test's."""
    numbers = iter(range(100))

    def write(policies, handler=HANDLER):
        block = "".join(f"    # {line}\n" for line in ["/// script", "[tool.headrace]", *policies.splitlines(), "///"])
        return workshop.flow(f"{request.node.name} {next(numbers)}", block + handler)

    return write


def status(daemon, execution):
    return daemon.client.execution(execution["id"])["status"]


def release(daemon, execution):
    """Answer the question that an execution asks."""

    def asked():
        return [one for one in daemon.client.messages(pending=True) if one["execution_id"] == execution["id"]]

    daemon.client.answer(until(asked, "it asks")[0]["id"], {})


def of(daemon, name, **filters):
    return daemon.client.executions(flow=name, **filters)["items"]


# -- how many at a time ----------------------------------------------------------------------------------------------


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


def test_a_full_lane_holds_up_no_other(workshop, flow):
    daemon, name = workshop.daemon, flow('concurrency = {limit = 1, key = "inputs.customer"}')
    first, second, other = (daemon.client.run(name, {"hold": True, "customer": who}) for who in ("a", "a", "b"))
    until(lambda: status(daemon, other) == "WAITING", "the other customer's runs")
    assert status(daemon, second) == "QUEUED"
    daemon.client.pause(first["id"])  # the head is stuck
    assert daemon.run("told")["status"] == "ENDED_SUCCESS"
    daemon.client.cancel(other["id"])
    assert daemon.run(name, customer="b")["status"] == "ENDED_SUCCESS"
    for one in (second, first):
        daemon.client.cancel(one["id"])


def test_skip_reject_and_replace(workshop, flow):
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
    with pytest.raises(clients.errors.HeadraceError, match="runs already") as refused:
        daemon.client.run(reject)
    assert refused.value.status == 429
    release(daemon, first)
    until(lambda: status(daemon, first) == "ENDED_SUCCESS", "it ends")
    assert daemon.run(reject)["status"] == "ENDED_SUCCESS"
    assert len(of(daemon, reject)) == 2, "what was rejected is no execution"

    replace = flow('concurrency = {limit = 1, when_full = "replace"}')
    first = daemon.client.run(replace, {"hold": True})
    until(lambda: status(daemon, first) == "WAITING", "it runs")
    assert daemon.run(replace)["status"] == "ENDED_SUCCESS"
    assert status(daemon, first) == "ENDED_CANCELLED"


def test_a_limit_that_a_commit_lifts_lets_those_in_that_wait(workshop, flow):
    daemon, name = workshop.daemon, flow("concurrency = {limit = 1}")
    started = [daemon.client.run(name, {"hold": True}) for _ in range(3)]
    workshop.flow(name, HANDLER)
    until(lambda: all(status(daemon, one) == "WAITING" for one in started), "they all run")
    for one in started:
        release(daemon, one)


def test_a_flow_that_calls_itself_does_not_wait_for_itself(workshop, flow):
    handler = """
    def handler(system, this, inputs):
        if inputs.get('depth', 0) < 2:
            this.flow(this.get('flow_name'), depth=inputs.get('depth', 0) + 1)
        return inputs
    """
    assert workshop.daemon.run(flow("concurrency = {limit = 1}", handler))["status"] == "ENDED_SUCCESS"


def test_a_flow_that_takes_too_much_memory_fails_alone(workshop, flow):
    handler = """
    def handler(system, this, inputs):
        return len(bytearray(inputs['size']))
    """
    name = flow('max_memory = "128M"', handler)
    assert workshop.daemon.run(name, size=1 << 20)["status"] == "ENDED_SUCCESS"
    failed = workshop.daemon.run(name, size=1 << 28)
    assert (failed["status"], failed["error"]["type"]) == ("ENDED_ERROR", "MemoryError")


# -- what follows ----------------------------------------------------------------------------------------------------


def notices(daemon, name):
    found = [daemon.client.wait(one["id"], 20) for one in of(daemon, "told")]
    return [one["output_value"] for one in found if one["output_value"].get("flow") == name]


def test_a_failure_is_tried_again_and_only_the_last_one_is_told(workshop, flow):
    daemon = workshop.daemon
    name = flow('retry = {attempts = 3, delay = "10ms", factor = 1}\non_failure = "told"')
    first = daemon.run(name, fails=True)
    (said,) = until(lambda: notices(daemon, name), "somebody is told")
    attempts = [daemon.client.execution(one["id"]) for one in of(daemon, name)]
    assert [(one["retry"], one["retry_of"]) for one in attempts] == [(2, first["id"]), (1, first["id"]), (0, "")]
    assert (said["execution_id"], said["attempts"], said["message"]) == (attempts[0]["id"], 3, "ValueError: no")


def test_only_failures_that_are_named_are_tried_again_and_a_cancel_is_final(workshop, flow):
    daemon = workshop.daemon
    name = flow('retry = {attempts = 2, delay = "1s", on = ["OSError"]}\non_failure = "told"')
    daemon.run(name, fails=True)
    until(lambda: notices(daemon, name), "somebody is told")
    assert len(of(daemon, name)) == 1
    name = flow('retry = {attempts = 3, delay = "1h"}\non_failure = "told"')
    daemon.run(name, fails=True)
    again = until(lambda: of(daemon, name, status="QUEUED"), "it waits for its turn")[0]
    daemon.client.cancel(again["id"])
    until(lambda: status(daemon, again) == "ENDED_CANCELLED", "it is over")
    assert len(of(daemon, name)) == 2 and notices(daemon, name) == []


def test_a_timeout_is_a_failure_with_a_reason_of_its_own(workshop, flow):
    daemon, name = workshop.daemon, flow('timeout = "200ms"\non_failure = "told"\non_success = "told"')
    ended = daemon.run(name, hold=True)
    assert (ended["status"], ended["reason"]) == ("ENDED_ERROR", "timeout")
    assert until(lambda: notices(daemon, name), "somebody is told")[0]["reason"] == "timeout"
    daemon.run(name)
    assert until(lambda: len(notices(daemon, name)) == 2, "of the success, too")


# -- when it runs by itself ------------------------------------------------------------------------------------------


def test_a_schedule_runs_its_flow_once_across_a_kill_at_the_tick_and_a_sleep_through_others(workshop, flow):
    daemon = workshop.daemon
    name = flow('schedule = {cron = "* * * * *", catchup = "none", inputs = {n = 1}}\ntags = ["nightly"]')
    (known,) = [one for one in daemon.client.timetable() if one["flow_name"] == name]
    assert (known["source"], known["explained"], len(known["next"])) == ("flow", "Every minute", 5)
    daemon.kill()
    shift_clock(daemon, workshop.clock, 58.5 - time.time() % 60)
    daemon.start()
    ran = until(lambda: of(daemon, name), "it runs", 10)
    daemon.kill()
    daemon.start()
    assert daemon.client.wait(ran[0]["id"], 20)["output_value"] == {"n": 1}
    assert [one["id"] for one in of(daemon, name)] == [ran[0]["id"]]
    shown = daemon.client.execution(ran[0]["id"])
    assert (shown["created_by"], shown["tags"], shown["due"][16:]) == (
        f"schedule {name}",
        ["nightly"],
        ":00.000000+00:00",
    )
    shift_clock(daemon, workshop.clock, float((workshop.clock / "shift").read_text()) + 3600)
    workshop.flow(name, HANDLER)
    until(lambda: [one for one in daemon.lines() if one["event"] == "schedule.disarmed"], "it is off now")


def test_what_was_missed_is_made_up_for_and_stands_in_the_record(workshop, flow):
    daemon = workshop.daemon
    name = flow('schedule = {cron = "*/10 * * * *", catchup = {policy = "all", max = 2}}')
    until(lambda: [one for one in daemon.client.timetable() if one["flow_name"] == name], "it is known")
    daemon.stop()
    shift_clock(daemon, workshop.clock, float((workshop.clock / "shift").read_text()) + 3600)
    daemon.start()
    until(lambda: len(of(daemon, name, status="ENDED_SUCCESS")) >= 2, "the latest ones run")
    until(lambda: not of(daemon, name, status="QUEUED"), "all have run")
    (missed,) = [one for one in daemon.lines() if one["event"] == "ticks.missed" and one["name"] == name]
    assert 6 <= missed["count"] + len(of(daemon, name)) <= 7, "all ticks of an hour are one or the other"
    workshop.flow(name, HANDLER)


# -- tags, and many at once ------------------------------------------------------------------------------------------


def test_flows_and_executions_are_found_by_tag(workshop, flow):
    daemon, name = workshop.daemon, flow('tags = ["billing", "eu"]')
    daemon.run(name)
    assert [one["name"] for one in daemon.client.flows("billing")] == [name]
    assert [one["flow_name"] for one in daemon.client.executions(tag="eu")["items"]] == [name]
    assert daemon.client.executions(tag="none")["items"] == daemon.client.flows("none") == []
    assert daemon.client.executions(tag="eu", q=name[:8])["items"] and daemon.client.flow(name)["policies"]["tags"]


def test_failures_are_acknowledged_run_again_and_cancelled_by_a_filter(workshop, flow):
    daemon, name = workshop.daemon, flow("concurrency = {limit = 1}")
    failed = [daemon.run(name, fails=True)["id"] for _ in range(3)]
    bulk, wanted = daemon.client.bulk, {"flow": name}
    assert {one["id"] for one in bulk("acknowledge", filter=wanted, dry_run=True)["items"]} == set(failed)
    daemon.client.acknowledge(failed[0])
    unseen = {"acknowledged": "false"}
    assert {one["id"] for one in of(daemon, name, **unseen)} == set(failed[1:])
    assert failed[0] not in [one["id"] for one in daemon.client.executions(**unseen)["items"]]
    assert [one["id"] for one in of(daemon, name, acknowledged="true")] == failed[:1]

    done = bulk("rerun", filter={**wanted, "acknowledged": False}, inputs={"fails": False, "hold": True})
    again = [one["rerun"] for one in done["items"]]
    assert len(again) == 2 and not done["more"]
    done = bulk("cancel", executions=[*again, failed[0], "nobody"])
    assert ["error" in one for one in done["items"]] == [False, False, True, True]
    until(lambda: len(of(daemon, name, status="ENDED_CANCELLED")) == 2, "they are cancelled")
    assert bulk("acknowledge", filter=wanted)["items"] and of(daemon, name, **unseen) == []
    with pytest.raises(clients.errors.HeadraceError, match="has not failed"):
        daemon.client.acknowledge(again[0])
    with pytest.raises(clients.errors.HeadraceError, match="either"):
        bulk("cancel")


def test_the_command_line_shows_schedules_and_acts_on_what_a_filter_finds(workshop, flow):
    daemon, name = workshop.daemon, flow('schedule = {cron = "0 4 1 1 *", timezone = "Europe/Vienna"}')

    def headrace(*args):
        command = [sys.executable, "-m", "headrace", "--state", str(daemon.state), *args]
        done = subprocess.run(command, input=b"", capture_output=True)
        return done.returncode, done.stdout.decode(), done.stderr.decode()

    listed = headrace("schedules")[1]
    assert "Europe/Vienna" in listed and "-01-01 04:00+01:00" in listed and "-01-01 03:00" in listed
    failed = [daemon.run(name, fails=True)["id"] for _ in range(2)]
    chosen = ("--failed", "--since", "1h", "--flow", name)
    status_, out, err = headrace("acknowledge", *chosen)
    assert status_ == 2 and "--yes" in err, "nobody is there to be asked"
    assert all(one in headrace("acknowledge", *chosen, "--dry-run")[1] for one in failed)
    assert failed[0] in headrace("executions", "--unacknowledged")[1]
    assert headrace("acknowledge", *chosen, "--yes")[0] == 0
    assert failed[0] not in headrace("executions", "--unacknowledged")[1]
    status_, out, err = headrace("rerun", *chosen, "fails:=false", "--yes", "--json")
    again = [one["rerun"] for one in json.loads(out)["items"]]
    assert (status_, len(again)) == (0, 2)
    assert {daemon.client.wait(one, 20)["status"] for one in again} == {"ENDED_SUCCESS"}
    assert headrace("cancel", "--flow", name)[2].strip() == "no execution is like that"
    assert headrace("cancel")[0] == 2 and headrace("rerun")[0] == 2
    assert "acknowledged  yes" in headrace("show", failed[0])[1]


# -- across a kill ---------------------------------------------------------------------------------------------------


def test_a_retry_keeps_its_time_and_a_queue_its_order_through_a_kill(workshop, flow):
    daemon = workshop.daemon
    tried = flow('retry = {attempts = 2, delay = "2s"}\non_failure = "told"')
    queued = flow("concurrency = {limit = 1}")
    waiting = [daemon.client.run(queued, {"hold": n == 0, "n": n}) for n in range(4)]
    until(lambda: status(daemon, waiting[0]) == "WAITING", "the first runs")
    daemon.run(tried, fails=True)
    again = daemon.client.execution(until(lambda: of(daemon, tried, status="QUEUED"), "it waits")[0]["id"])
    daemon.kill()
    daemon.start()
    assert status(daemon, waiting[1]) == "QUEUED" and status(daemon, waiting[0]) == "WAITING"
    ended = daemon.client.wait(again["id"], 20)
    assert ended["started_at"] > again["not_before"] and ended["retry"] == 1
    until(lambda: len(notices(daemon, tried)) == 1, "somebody is told")
    release(daemon, waiting[0])
    last = [daemon.client.wait(one["id"], 20) for one in waiting]
    assert [one["started_at"] for one in last] == sorted(one["started_at"] for one in last)
    assert len(of(daemon, tried)) == 2 and len(notices(daemon, tried)) == 1
