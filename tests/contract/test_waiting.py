"""Waiting for one execution and for several."""

from __future__ import annotations

import pytest

THREE = """
slow = this.flow('child', sleep=inputs['slow'], name='slow', wait=False)
bad = this.flow('child', sleep=inputs['bad'], fail='no luck', name='bad', wait=False)
quick = this.flow('child', sleep=inputs['quick'], name='quick', wait=False)
try:
    ended = this.wait_for(slow, bad, quick, return_when=inputs['how'])
except flow_api.DependencyFailedError as error:
    return {'raised': error.execution.get('name'), 'slow': slow.get('status')}
return {'ended': sorted(e.get('name') for e in ended), 'slow': slow.get('status')}
"""


@pytest.mark.contract("2.wait.one")
def test_a_child_is_waited_for_and_gives_itself_back(value):
    assert value("""
child = this.flow('child', sleep=0.2, wait=False)
return [child.wait() is child, child.get('status')]
""") == [True, "ENDED_SUCCESS"]


@pytest.mark.contract("2.wait.one")
def test_waiting_for_a_child_that_fails_raises(refused):
    body = "child = this.flow('child', fail='no luck', wait=False)\nchild.wait()"
    assert "no luck" in refused(body, "DependencyFailedError")


@pytest.mark.contract("2.wait.one")
def test_waiting_for_a_child_that_failed_already_raises_again(value):
    assert (
        value("""
child = this.flow('child', fail='x', wait='ALL_ENDED')
raised = 0
for _ in range(2):
    try:
        child.wait()
    except flow_api.DependencyFailedError:
        raised += 1
return raised
""")
        == 2
    )


@pytest.mark.contract("2.wait.return-when")
def test_a_single_wait_takes_a_way_of_waiting(value):
    assert value("""
child = this.flow('child', fail='x', sleep=0.1, wait=False)
return [child.wait(system.return_when.ALL_ENDED) is child, child.wait(return_when='FIRST_ENDED').get('status')]
""") == [True, "ENDED_ERROR"]


@pytest.mark.contract("2.wait.timeout", "4.raised.DependencyTimeoutError")
@pytest.mark.parametrize("wait", ["child.wait(timeout=0.1)", "this.wait_for(child, timeout=0.1)"])
def test_waiting_too_long_raises_and_the_child_goes_on(workshop, value, wait):
    kind, child = value(f"""
child = this.flow('child', sleep=0.6, wait=False)
try:
    {wait}
except flow_api.TimeoutExceededError as error:
    return [type(error).__name__, child.id]
""")
    assert kind == "DependencyTimeoutError"
    assert workshop.ended(child)["status"] == "ENDED_SUCCESS"


@pytest.mark.contract("2.wait.timeout")
def test_what_has_ended_already_is_no_timeout(value):
    assert value("return this.flow('child').wait(timeout=0).get('status')") == "ENDED_SUCCESS"


@pytest.mark.contract("2.wait-for.several")
def test_several_are_waited_for_one_by_one_or_as_a_list(value):
    assert value("""
a, b, c = (this.flow('child', n=n, wait=False) for n in range(3))
names = [[e.id for e in this.wait_for(a, b, c)], [e.id for e in this.wait_for([a, b], c)]]
return [found == [a.id, b.id, c.id] for found in names]
""") == [True, True]


@pytest.mark.contract("2.wait-for.several")
def test_children_that_are_not_waited_for_run_at_the_same_time(value):
    took, numbers = value("""
import time
began = time.monotonic()
children = [this.flow('child', sleep=0.5, n=n, wait=False) for n in range(5)]
this.wait_for(children)
return [time.monotonic() - began, [child.get('output_value')['got']['n'] for child in children]]
""")
    assert numbers == [0, 1, 2, 3, 4]
    assert 0.5 <= took < 2


@pytest.mark.contract("2.wait-for.several")
def test_the_same_execution_twice_is_waited_for_once(value):
    body = "child = this.flow('child', wait=False)\nreturn len(this.wait_for(child, system.execution(child.id), child))"
    assert value(body) == 1


@pytest.mark.contract("2.wait-for.several")
def test_executions_of_others_can_be_waited_for(workshop, value):
    other = workshop.start("this.sleep(0.3)\nthis.set_output('by', 'another')")
    body = "return system.execution(inputs['other']).wait().get('output_value')"
    assert value(body, other=other) == {"by": "another"}


@pytest.mark.contract("2.wait-for.several")
def test_an_execution_cannot_wait_for_itself(refused):
    assert "itself" in refused("this.wait()", "InvalidInputError")


@pytest.mark.contract("2.wait-for.empty")
def test_nothing_is_waited_for_at_once(value):
    assert value("return [this.wait_for(), this.wait_for([]), this.wait_for([], return_when='FIRST_SUCCEEDED')]") == [
        [],
        [],
        [],
    ]


@pytest.mark.contract("2.wait-for.all-succeeded")
def test_all_succeeded_raises_as_soon_as_one_fails(value):
    seen = value(THREE, slow=3, bad=0.1, quick=0.1, how="ALL_SUCCEEDED")
    assert seen["raised"] == "bad"
    assert not seen["slow"].startswith("ENDED")


@pytest.mark.contract("2.wait-for.all-ended")
def test_all_ended_waits_for_all_and_never_raises(value):
    seen = value(THREE, slow=0.5, bad=0.1, quick=0.1, how="ALL_ENDED")
    assert seen == {"ended": ["bad", "quick", "slow"], "slow": "ENDED_SUCCESS"}


@pytest.mark.contract("2.wait-for.first-ended")
@pytest.mark.parametrize(("bad", "quick", "first"), [(2, 0.1, "quick"), (0.1, 2, "bad")])
def test_first_ended_waits_for_one_however_it_ends(value, bad, quick, first):
    seen = value(THREE, slow=2, bad=bad, quick=quick, how="FIRST_ENDED")
    assert seen["ended"] == [first]


@pytest.mark.contract("2.wait-for.first-succeeded")
def test_first_succeeded_waits_past_those_that_fail(value):
    seen = value(THREE, slow=3, bad=0.05, quick=0.5, how="FIRST_SUCCEEDED")
    assert seen["ended"] == ["bad", "quick"]
    assert not seen["slow"].startswith("ENDED")


@pytest.mark.contract("2.wait-for.first-succeeded")
def test_first_succeeded_raises_if_none_does(refused):
    refused(
        "a, b = (this.flow('child', fail='x', wait=False) for _ in 'ab')\n"
        "this.wait_for(a, b, return_when=system.return_when.FIRST_SUCCEEDED)",
        "DependencyFailedError",
    )


@pytest.mark.contract("3.own.return-when")
def test_system_holds_the_ways_of_waiting(value):
    assert value("""
ways = system.return_when
return [ways.ALL_SUCCEEDED, ways.ALL_ENDED, ways.FIRST_ENDED, ways.FIRST_SUCCEEDED]
""") == ["ALL_SUCCEEDED", "ALL_ENDED", "FIRST_ENDED", "FIRST_SUCCEEDED"]


@pytest.mark.contract("3.own.return-when")
def test_another_way_of_waiting_is_refused_with_those_there_are(refused):
    assert "FIRST_SUCCEEDED" in refused("this.flow('child', wait='SOON')", "InvalidInputError")
