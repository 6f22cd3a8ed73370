"""Locks that end with their execution, and those of settings, which do not."""

from __future__ import annotations

import itertools
import time

import pytest

#: Goes in, stays a while, comes out, and says when.
GUEST = """
import time
with this.lock(inputs['lock'], timeout=inputs.get('timeout')):
    entered = time.time()
    this.set_output('inside', True)
    this.sleep(inputs.get('stay', 0.05))
    left = time.time()
this.save(output_value={'entered': entered, 'left': left})
"""
STAYS = """
with this.lock(inputs['lock']):
    this.set_output('inside', True)
    END
"""


def spans(ended):
    return sorted((each["output_value"]["entered"], each["output_value"]["left"]) for each in ended)


@pytest.mark.contract("2.lock.exclusive")
def test_a_lock_that_is_free_is_taken_at_once(value):
    assert (
        value("""
import time
began = time.monotonic()
with this.lock('free'):
    pass
with this.lock('free') as lock:
    this.log('again')
return time.monotonic() - began < 1
""")
        is True
    )


@pytest.mark.contract("2.lock.exclusive")
def test_many_that_want_the_same_lock_go_in_one_after_the_other(workshop):
    guests = [workshop.start(GUEST, lock="the one door") for _ in range(6)]
    stays = spans([workshop.ended(guest) for guest in guests])
    assert len(stays) == 6
    assert all(left <= entered for (_, left), (entered, _) in itertools.pairwise(stays))


@pytest.mark.contract("2.lock.exclusive")
def test_locks_of_different_names_do_not_hinder_each_other(value):
    assert (
        value("""
text = '''
def handler(system, this, inputs):
    with this.lock(inputs['door']):
        this.sleep(0.4)
'''
import time
began = time.monotonic()
this.wait_for([this.script(text, door=f'door {n}', wait=False) for n in range(4)])
return time.monotonic() - began < 1.5
""")
        is True
    )


@pytest.mark.contract("2.lock.timeout", "4.raised.LockTimeoutError")
def test_a_lock_that_is_not_free_in_time_is_told(workshop, value):
    holder = workshop.start(STAYS.replace("END", "this.sleep(60)"), lock="taken for long")
    workshop.until_output(holder, "inside")
    assert value("""
import time
told = []
for timeout in (0, 0.2):
    began = time.monotonic()
    try:
        with this.lock('taken for long', timeout=timeout):
            told.append('inside')
    except flow_api.LockTimeoutError as error:
        told.append([isinstance(error, flow_api.TimeoutExceededError), time.monotonic() - began >= timeout])
return told
""") == [[True, True], [True, True]]
    workshop.daemon.client.cancel(holder)
    workshop.ended(holder)
    assert value("with this.lock('taken for long', timeout=5):\n    return 'inside'") == "inside"


@pytest.mark.contract("2.lock.block")
def test_a_lock_is_free_after_its_block_however_that_ends(value):
    assert (
        value("""
try:
    with this.lock('a block'):
        raise ValueError('inside')
except ValueError:
    pass
child = this.script('''
def handler(system, this, inputs):
    with this.lock('a block', timeout=1):
        this.set_output('inside', True)
''')
return child.get('output_value')['inside']
""")
        is True
    )


@pytest.mark.contract("2.lock.end")
@pytest.mark.parametrize(
    ("end", "act"),
    [
        ("raise SystemExit(1)", None),
        ("import os\n    os._exit(7)", "cancel"),
        ("import os, signal\n    os.kill(os.getpid(), signal.SIGKILL)", None),  # an effect: it is not run again
        ("this.sleep(60)", "cancel"),
        ("while True:\n        try:\n            this.sleep(60)\n        except:\n            pass", "cancel"),
        ("this.lock('another').__enter__()", None),
    ],
)
def test_a_lock_is_free_after_its_execution_however_that_ends(workshop, value, end, act):
    name = f"ends by {end[:20]} {act}"
    holder = workshop.start(STAYS.replace("END", end), lock=name)
    if act:
        workshop.until_output(holder, "inside")
        workshop.daemon.client.cancel(holder)
    guest = workshop.start(GUEST, lock=name, timeout=20)
    workshop.ended(holder)
    assert workshop.ended(guest)["status"] == "ENDED_SUCCESS"
    assert value("return [system.lock(name).exists() for name in (inputs['n'], 'another')]", n=name) == [False, False]


@pytest.mark.contract("2.lock.end")
def test_who_waits_and_is_cancelled_does_not_take_the_lock_later(workshop, value):
    holder = workshop.start(STAYS.replace("END", "this.sleep(60)"), lock="waited for")
    workshop.until_output(holder, "inside")
    waiter = workshop.start("with this.lock('waited for'):\n    this.set_output('inside', True)")
    workshop.until_status(waiter, "WAITING")
    workshop.daemon.client.cancel(waiter)
    ended = workshop.ended(waiter)
    assert (ended["status"], ended["output_value"]) == ("ENDED_CANCELLED", {})
    workshop.daemon.client.cancel(holder)
    workshop.ended(holder)
    assert value("with this.lock('waited for', timeout=5):\n    return 1") == 1


@pytest.mark.contract("2.lock.exclusive")
def test_waiting_that_would_never_end_is_told(workshop):
    """Two executions, each with what the other one wants."""
    body = """
with this.lock(inputs['first']):
    this.set_output('inside', True)
    while not system.setting('both are inside').exists():
        this.sleep(0.02)
    with this.lock(inputs['second']):
        return 'both'
"""
    one = workshop.start(body, first="circle a", second="circle b")
    other = workshop.start(body, first="circle b", second="circle a")
    for each in (one, other):
        workshop.until_output(each, "inside")
    workshop.value("system.setting('both are inside', value=True)")
    ended = [workshop.ended(one), workshop.ended(other)]
    workshop.value("system.setting('both are inside').delete()")
    failed = [each for each in ended if each["status"] == "ENDED_ERROR"]
    assert [each["error"]["type"] for each in failed] == ["DeadlockError"]


@pytest.mark.contract("2.lock.exclusive")
def test_taking_one_s_own_lock_again_is_told_instead_of_hanging(refused):
    refused("with this.lock('mine'):\n    with this.lock('mine'):\n        pass", "DeadlockError")


# -- the locks of settings --------------------------------------------------------------------------------------------


@pytest.mark.contract("3.setting.acquire", "3.setting.release-free")
def test_every_setting_s_name_is_a_lock_even_without_the_setting(value):
    assert value("""
name = 'a machine that is no setting'
machine = system.setting(name)
seen = [machine.release() is machine, machine.acquire() is machine, machine.exists(), system.lock(name).exists()]
machine.release()
return seen + [system.lock(name).exists(), machine.release() is machine]
""") == [True, True, False, True, False, True]


@pytest.mark.contract("3.setting.acquire")
def test_a_setting_s_lock_is_a_block_too(value):
    assert value("""
with system.setting('in a block', value=1) as setting:
    inside = system.lock('in a block').exists()
return [inside, setting.get('value'), system.lock('in a block').exists()]
""") == [True, 1, False]


@pytest.mark.contract("3.setting.acquire-outlives", "3.setting.acquire-ownerless", "3.setting.acquire-timeout")
def test_a_setting_s_lock_outlives_its_execution_and_anybody_releases_it(value, run):
    took = run("system.setting('the only printer').acquire()\nraise ValueError('gone with it')")
    assert took["status"] == "ENDED_ERROR"
    assert (
        value("""
printer = system.setting('the only printer')
try:
    printer.acquire(timeout=0.1)
except flow_api.LockTimeoutError:
    held = system.lock('the only printer').exists()
printer.release()
printer.acquire(timeout=0)
printer.release()
return held
""")
        is True
    )


@pytest.mark.contract("3.setting.acquire-timeout", "4.timeouts")
def test_acquiring_what_is_taken_times_out(value):
    assert value("""
import time
system.setting('taken machine').acquire()
told = []
for timeout in (0, 0.2):
    began = time.monotonic()
    try:
        system.setting('taken machine').acquire(timeout=timeout)
    except flow_api.LockTimeoutError:
        told.append(time.monotonic() - began >= timeout)
system.setting('taken machine').release()
system.setting('taken machine').acquire(timeout=0)
system.setting('taken machine').release()
return told
""") == [True, True]


@pytest.mark.contract("3.setting.acquire-timeout", "3.setting.acquire-ownerless")
def test_acquiring_without_a_timeout_waits_until_somebody_releases(workshop, value):
    value("system.setting('waited machine').acquire()")
    waiter = workshop.start("system.setting('waited machine').acquire()\nthis.set_output('has', True)\nthis.sleep(60)")
    workshop.until_status(waiter, "WAITING")
    time.sleep(0.3)
    assert workshop.execution(waiter)["output_value"] == {}
    value("system.setting('waited machine').release()")
    workshop.until_output(waiter, "has")
    workshop.daemon.client.cancel(waiter)
    workshop.ended(waiter)
    released = "held = system.lock('waited machine').exists()\nsystem.setting('waited machine').release()\nreturn held"
    assert value(released) is True


@pytest.mark.contract("3.setting.acquire")
def test_those_who_wait_for_a_setting_go_one_after_the_other(value):
    assert (
        value("""
text = '''
def handler(system, this, inputs):
    counter = system.setting('contended')
    counter.acquire(timeout=60)
    value = counter.load('value')
    this.sleep(0.02)
    counter.save(value=value + 1)
    counter.release()
'''
system.setting('contended', value=0)
this.wait_for([this.script(text, wait=False) for _ in range(8)])
return system.setting('contended').load('value')
""")
        == 8
    )


@pytest.mark.contract("3.setting.acquire", "2.lock.exclusive")
def test_people_see_who_has_a_lock_and_may_break_it(workshop, value):
    value("system.setting('left behind').acquire()")
    (lock,) = [lock for lock in workshop.api("GET", "/locks")["items"] if lock["name"] == "left behind"]
    assert lock["name"] == "left behind"
    assert workshop.http("DELETE", "/api/v1/locks/left%20behind")[0] < 300
    assert value("return system.lock('left behind').exists()") is False
