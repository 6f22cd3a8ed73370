"""Ending and stopping executions from outside, and what becomes of their children."""

from __future__ import annotations

import os
import time

import pytest

from tests.support.daemons import until

FAMILY = """
waiting = dict(sleep=60, name='waited for')
free = this.flow('child', sleep=60, name='free', wait=False)
bound = this.flow('child', sleep=60, name='bound', wait=False, init={'orphan': False})
told = this.flow('child', sleep=60, name='told to be an orphan', wait=False, orphan=True)
this.flow('child', **waiting)
"""


def gone(pid: int) -> bool:
    """Whether a process has ended."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    with open(f"/proc/{pid}/stat") as stat:
        return stat.read().rpartition(")")[2].split()[0] == "Z"


@pytest.mark.contract("2.cancel.execution")
def test_a_child_can_be_cancelled(value):
    assert value("""
child = this.flow('child', sleep=60, wait=False)
same = child.cancel() is child
child.wait(return_when=system.return_when.ALL_ENDED)
return [same, child.get('status')]
""") == [True, "ENDED_CANCELLED"]


@pytest.mark.contract("2.cancel.execution")
def test_a_child_that_never_ran_can_be_cancelled(value):
    body = "child = this.flow('child', run=False)\nreturn child.cancel().wait('ALL_ENDED').get('status', 'started_at')"
    assert value(body) == ["ENDED_CANCELLED", None]


@pytest.mark.contract("2.cancel.execution")
def test_a_task_can_be_cancelled(value, loopback):
    assert value(
        """
task = this.task('REST', url=inputs['url'], wait=False)
this.sleep(0.2)
return task.cancel().wait('ALL_ENDED').get('status')
""",
        url=f"{loopback.url}/slow/20",
    ) == "ENDED_CANCELLED"  # fmt: skip


@pytest.mark.contract("2.cancel.execution")
def test_cancelling_what_has_ended_does_nothing(value):
    assert value("return this.flow('child').cancel().get('status')") == "ENDED_SUCCESS"


@pytest.mark.contract("2.cancel.execution")
def test_a_flow_can_cancel_itself(run):
    ended = run("this.cancel()\nthis.log('not reached')\nthis.sleep(5)")
    assert ended["status"] == "ENDED_CANCELLED"


@pytest.mark.contract("2.cancel.waited", "2.cancel.not-waited", "2.cancel.orphan-false")
def test_a_cancelled_parent_takes_those_it_waits_for_and_those_bound_to_it_along(workshop):
    parent = workshop.start(FAMILY)
    workshop.child(parent, 3)
    workshop.until_status(parent, "WAITING")
    workshop.daemon.client.cancel(parent)
    assert workshop.ended(parent)["status"] == "ENDED_CANCELLED"
    children = {child["name"]: child["id"] for child in workshop.children(parent)}
    assert workshop.ended(children["waited for"])["status"] == "ENDED_CANCELLED"
    assert workshop.ended(children["bound"])["status"] == "ENDED_CANCELLED"
    for name in ("free", "told to be an orphan"):
        assert not workshop.execution(children[name])["status"].startswith("ENDED"), name
        workshop.daemon.client.cancel(children[name])
        assert workshop.ended(children[name])["status"] == "ENDED_CANCELLED"


@pytest.mark.contract("2.cancel.waited")
@pytest.mark.parametrize(
    "wait",
    ["this.wait_for(*children)", "this.wait_for(children, return_when='ALL_ENDED')", "children[1].wait()"],
)
def test_children_that_are_waited_for_later_are_cancelled_too(workshop, wait):
    parent = workshop.start(f"children = [this.flow('child', sleep=60, n=n, wait=False) for n in range(2)]\n{wait}")
    workshop.child(parent, 1)
    workshop.until_status(parent, "WAITING")
    workshop.daemon.client.cancel(parent)
    assert workshop.ended(parent)["status"] == "ENDED_CANCELLED"
    waited = workshop.children(parent)[-1:] if wait.startswith("children") else workshop.children(parent)
    assert {workshop.ended(child["id"])["status"] for child in waited} == {"ENDED_CANCELLED"}
    for child in workshop.children(parent):
        if not child["status"].startswith("ENDED"):
            workshop.daemon.client.cancel(child["id"])


@pytest.mark.contract("2.cancel.waited")
def test_a_cancel_goes_down_all_generations(workshop):
    top = workshop.start("""
if inputs.get('depth', 0) == 2:
    this.sleep(60)
this.clone(depth=inputs.get('depth', 0) + 1)
""")
    middle = workshop.child(top)["id"]
    bottom = workshop.child(middle)["id"]
    workshop.until_status(bottom, "WAITING")
    workshop.daemon.client.cancel(top)
    assert [workshop.ended(each)["status"] for each in (top, middle, bottom)] == ["ENDED_CANCELLED"] * 3


@pytest.mark.contract("2.cancel.waited")
def test_who_waits_for_a_stranger_does_not_take_it_along(workshop):
    """Only children end with who waits for them: what others started is theirs."""
    stranger = workshop.start("this.sleep(60)")
    waiter = workshop.start("system.execution(inputs['id']).wait()", id=stranger)
    workshop.until_status(waiter, "WAITING")
    workshop.daemon.client.cancel(waiter)
    assert workshop.ended(waiter)["status"] == "ENDED_CANCELLED"
    assert workshop.execution(stranger)["cancel_requested"] is False
    workshop.daemon.client.cancel(stranger)
    assert workshop.ended(stranger)["status"] == "ENDED_CANCELLED"


@pytest.mark.contract("2.cancel.waited", "2.using.wraps")
def test_a_cancel_goes_through_a_wrapper_to_the_child_in_it(workshop):
    workshop.flow(
        "wraps and waits", "def handler(system, this, inputs):\n    system.execution(inputs['child_id']).run()\n"
    )
    parent = workshop.start("this.using('wraps and waits').flow('child', sleep=60, name='wrapped')")
    workshop.child(parent, 1)
    wrapped, wrapper = (each["id"] for each in workshop.children(parent))
    workshop.until_status(wrapped, "WAITING")
    workshop.daemon.client.cancel(parent)
    assert [workshop.ended(each)["status"] for each in (parent, wrapper, wrapped)] == ["ENDED_CANCELLED"] * 3


@pytest.mark.contract("2.cancel.orphan-false")
def test_a_bound_child_ends_too_when_its_parent_is_killed_in_a_cancel(workshop):
    """A parent that swallows the cancel does not save its children."""
    parent = workshop.start("""
this.flow('child', sleep=60, wait=False, init={'orphan': False})
this.set_output('ready', True)
while True:
    try:
        this.sleep(60)
    except BaseException:
        pass
""")
    workshop.until_output(parent, "ready")
    workshop.daemon.client.cancel(parent)
    assert workshop.ended(parent)["status"] == "ENDED_CANCELLED"
    assert workshop.ended(workshop.child(parent)["id"])["status"] == "ENDED_CANCELLED"


# -- inside the handler -----------------------------------------------------------------------------------------------


@pytest.mark.contract("4.cancel.in-the-call", "4.cancel.cleans-up")
def test_a_cancel_is_raised_in_the_current_call_past_except_exception(workshop):
    execution = workshop.start("""
try:
    this.set_output('ready', True)
    this.sleep(60)
except Exception:
    print('caught as an exception')
except BaseException as signal:
    print(type(signal).__name__, isinstance(signal, flow_api.LifecycleSignal))
    raise
finally:
    print('cleaned up')
""")
    workshop.until_status(execution, "WAITING")
    workshop.daemon.client.cancel(execution)
    assert workshop.ended(execution)["status"] == "ENDED_CANCELLED"
    assert [line["text"] for line in workshop.log(execution)] == ["ExecutionCancel True", "cleaned up"]


@pytest.mark.contract("4.cancel.in-the-call")
@pytest.mark.parametrize(
    "call",
    [
        "this.flow('child', sleep=60)",
        "this.message('Anyone?', request='Anyone?')",
        "this.flow('child', sleep=60, wait=False).wait()",
        "system.setting('a lock that is taken').acquire()",
        "[this.get('status') for _ in iter(int, 1)]",
        "[this.log('busy') for _ in iter(int, 1)]",
    ],
)
def test_a_cancel_is_raised_in_whatever_call_there_is(workshop, value, call):
    value("system.setting('a lock that is taken').release().acquire()")
    execution = workshop.start(f"""
this.set_output('ready', True)
try:
    {call}
except flow_api.ExecutionCancel:
    print('told')
    raise
""")
    workshop.until_output(execution, "ready")
    time.sleep(0.1)
    workshop.daemon.client.cancel(execution)
    assert workshop.ended(execution)["status"] == "ENDED_CANCELLED"
    assert "told" in [line["text"] for line in workshop.log(execution)]
    value("system.setting('a lock that is taken').release()")
    for child in workshop.children(execution):
        assert workshop.ended(child["id"])["status"] == "ENDED_CANCELLED"


@pytest.mark.contract("4.cancel.again")
def test_a_handler_that_swallows_a_cancel_meets_it_at_its_next_call(workshop):
    execution = workshop.start("""
met = 0
this.set_output('ready', True)
while met < 3:
    try:
        this.sleep(60)
    except:
        met += 1
print('met', met)
""")
    workshop.until_status(execution, "WAITING")
    workshop.daemon.client.cancel(execution)
    assert workshop.ended(execution)["status"] == "ENDED_CANCELLED"
    assert [line["text"] for line in workshop.log(execution)] == ["met 3"]


@pytest.mark.contract("4.cancel.killed")
@pytest.mark.parametrize(
    "loop",
    [
        "while True:\n    try:\n        this.sleep(60)\n    except:\n        pass",
        "import time\nwhile True:\n    try:\n        time.sleep(60)\n    except:\n        pass",
    ],
)
def test_a_handler_that_never_leaves_is_killed_with_its_process_group(workshop, loop):
    execution = workshop.start(f"""
import os, subprocess
child = subprocess.Popen(['sleep', '600'])
this.set_output('pids', [os.getpid(), child.pid])
{loop}
""")
    pids = workshop.until_output(execution, "pids")
    asked = time.monotonic()
    workshop.daemon.client.cancel(execution)
    ended = workshop.ended(execution)
    assert (ended["status"], ended["reason"]) == ("ENDED_CANCELLED", "killed")
    assert 0.9 <= time.monotonic() - asked < 10
    until(lambda: all(map(gone, pids)), "the process and its child are gone", 5)


# -- pause ------------------------------------------------------------------------------------------------------------


@pytest.mark.contract("2.pause.stops")
def test_a_paused_execution_stands_still_until_a_person_resumes_it(workshop):
    execution = workshop.start("""
for n in range(1000):
    this.set_output('n', n)
    this.sleep(0.02)
    if system.setting('enough of it').exists():
        return
""")
    workshop.until_output(execution, "n")
    assert workshop.http("POST", f"/api/v1/executions/{execution}/pause")[0] == 202
    paused = workshop.until_status(execution, "PAUSED")
    assert paused["is_paused"] is True
    time.sleep(0.2)
    assert workshop.execution(execution)["output_value"] == paused["output_value"]
    workshop.value("system.setting('enough of it', value=1)")
    assert workshop.http("POST", f"/api/v1/executions/{execution}/resume")[0] == 202
    ended = workshop.ended(execution)
    assert (ended["status"], ended["is_paused"]) == ("ENDED_SUCCESS", False)


@pytest.mark.contract("2.pause.stops")
def test_a_flow_can_pause_itself(workshop):
    execution = workshop.start("this.pause()\nthis.log('went on')\nreturn 1")
    workshop.until_status(execution, "PAUSED")
    workshop.api("POST", f"/executions/{execution}/resume")
    assert workshop.ended(execution)["output_value"] == 1


@pytest.mark.contract("2.pause.stops")
def test_a_paused_child_keeps_its_parent_waiting(workshop):
    parent = workshop.start("this.flow('child', sleep=0.3)")
    child = workshop.child(parent)["id"]
    workshop.api("POST", f"/executions/{child}/pause")
    workshop.until_status(child, "PAUSED")
    time.sleep(0.4)
    assert (workshop.execution(child)["status"], workshop.execution(parent)["status"]) == ("PAUSED", "WAITING")
    workshop.api("POST", f"/executions/{child}/resume")
    assert workshop.ended(parent)["status"] == "ENDED_SUCCESS"


@pytest.mark.contract("2.pause.stops", "2.cancel.execution")
def test_a_paused_execution_can_be_cancelled(workshop):
    execution = workshop.start("this.sleep(60)")
    workshop.until_status(execution, "WAITING")
    workshop.api("POST", f"/executions/{execution}/pause")
    workshop.until_status(execution, "PAUSED")
    workshop.daemon.client.cancel(execution)
    assert workshop.ended(execution)["status"] == "ENDED_CANCELLED"


@pytest.mark.contract("2.pause.stops")
def test_what_has_ended_cannot_be_paused_by_people(workshop, run):
    ended = run("return 1")
    for verb in ("pause", "resume"):
        assert workshop.http("POST", f"/api/v1/executions/{ended['id']}/{verb}")[0] == 409
