"""Lanes: never more inside than the limit, nobody left waiting before a free place, whatever happens in which order."""

import asyncio
import contextlib

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from headrace.engine import events, model, policy
from headrace.engine.lifecycle import Status
from headrace.engine.running import admission, contents, lanes, live, terms
from headrace.engine.state import masks

WAYS = policy.WHEN_FULL


class Lines:
    """A journal that keeps its lines to itself."""

    def append(self, event):
        return "2026-01-01T00:00:00.000000+00:00"

    together = staticmethod(contextlib.nullcontext)


class Office:
    """Executions that live as long as a test says, in lanes of one flow."""

    def __init__(self, limit=1):
        self.ledger = live.Ledger(Lines(), contents.Contents(None, None, masks.Masks()), None)
        self.running: list[str] = []
        self.count = 0
        self.reject_all = False
        self.set_limit(limit)
        self.lanes = lanes.Lanes(self.ledger, self, self)

    # what a dispatcher, its influence and the catalogue are to the lanes

    @property
    def influence(self):
        return self

    def admit(self, subject):
        self.running.append(subject.state.id)
        self.ledger.record(subject, events.ExecutionStarted(execution=subject.state.id))
        limit = self.limit
        if limit is not None and not subject.state.parent:  # who was inside before a limit was lowered may stay
            assert self.inside(subject.state.terms.lane) <= limit, "above the limit"

    def end(self, subject, status, message, reason):
        self.ledger.record(
            subject,
            events.ExecutionEnded(execution=subject.state.id, status=status, message=message, reason=reason),
        )
        self.running = [one for one in self.running if one != subject.state.id]

    def request_cancel(self, execution, by):
        """One that runs takes its time to end; one that waits ends at once."""
        subject = self.ledger.find(execution)
        if subject.state.status.ended or subject.state.cancel_requested:
            return
        self.ledger.record(subject, events.CancelRequested(execution=execution, by=by))
        if execution not in self.running:
            self.end(subject, Status.ENDED_CANCELLED, "cancelled", "")

    def current(self):
        said = policy.Policies(concurrency=policy.Concurrency(limit=self.limit, key="inputs.k") if self.limit else None)
        metadata = model.Metadata(policies=said)
        return model.Catalogue(
            flows={"f": model.Flow(id="F", name="f", path="", commit="", blob="", metadata=metadata)}
        )

    # what happens

    def set_limit(self, limit):
        self.limit = limit

    def create(self, lane="a", when_full="queue", parent=""):
        self.count += 1
        said = policy.Terms(lane=lane, when_full=when_full)
        event = events.ExecutionCreated(
            execution=f"e{self.count}", flow_id="F", flow_name="f", parent=parent, terms=said
        )
        return self.ledger.create(event)

    def arrive(self, *args, **fields):
        subject = self.create(*args, **fields)
        self.lanes.arrive(subject)
        return subject

    def finish(self, execution):
        self.end(self.ledger.find(execution), Status.ENDED_SUCCESS, "", "")

    def restart(self):
        """A daemon dies, and the next one makes of its records what they say."""
        unfinished = [one for one in self.ledger if not one.state.status.ended]
        self.running = [one.state.id for one in unfinished if one.state.attempt]
        for subject in unfinished:
            subject.watchers.clear()
        self.lanes = lanes.Lanes(self.ledger, self, self)
        for subject in unfinished:
            self.lanes.take_up(subject)
        for subject in unfinished:
            if subject.state.status is Status.QUEUED:
                self.lanes.arrive(subject)

    # what is

    def of(self, lane):
        return [one for one in self.ledger if one.state.terms.lane == lane and not one.state.status.ended]

    def inside(self, lane):
        """How many have a place of their own: those below another one of their lane are on that one's."""
        return sum(one.state.id in self.running and not one.state.parent for one in self.of(lane))

    def check(self):
        for lane in ("a", "b"):
            waiting = [one for one in self.of(lane) if one.state.id not in self.running]
            assert not waiting or (self.limit is not None and self.inside(lane) >= self.limit), "somebody is stuck"


happenings = st.one_of(
    st.tuples(st.just("arrive"), st.sampled_from("ab"), st.sampled_from(WAYS)),
    st.tuples(st.just("finish"), st.integers(0, 30)),
    st.tuples(st.just("cancel"), st.integers(0, 30)),
    st.tuples(st.just("child"), st.integers(0, 30)),
    st.tuples(st.just("limit"), st.sampled_from([1, 1, 2, 3, None])),
    st.tuples(st.just("restart")),
)


@settings(max_examples=150, deadline=None)
@given(st.lists(happenings, max_size=40), st.sampled_from([1, 2, 3]))
def test_never_above_the_limit_and_never_stuck(history, limit):
    async def play():
        office = Office(limit)
        for what, *how in history:
            live_ones = [one for one in office.ledger if not one.state.status.ended]
            some = live_ones[how[0] % len(live_ones)] if live_ones and how and isinstance(how[0], int) else None
            match what:
                case "arrive":
                    office.arrive(*how)
                case "limit":
                    office.set_limit(*how)
                    office.lanes.reconsider()
                case "restart":
                    office.restart()
                case "cancel" if some is not None:
                    office.request_cancel(some.state.id, "Ada")
                case "finish" if some is not None and some.state.id in office.running:
                    office.finish(some.state.id)
                case "child" if some is not None and some.state.id in office.running:
                    child = office.arrive(some.state.terms.lane, "queue", some.state.id)
                    assert child.state.id in office.running, "it would wait for its parent, which waits for it"
                    office.finish(child.state.id)
            office.check()
        while office.running:
            office.finish(office.running[0])
            office.check()
        assert all(one.state.status.ended for one in office.ledger), "somebody never came in"

    asyncio.run(play())


async def test_they_come_in_in_their_order_also_after_a_restart():
    office = Office()
    first, *others = [office.arrive() for _ in range(5)]
    office.restart()
    came = []
    for _ in range(5):
        came.append(office.running[0])
        office.finish(office.running[0])
    assert came == [one.state.id for one in (first, *others)]


async def test_the_newest_replaces_what_runs_and_what_waits():
    office = Office()
    first, second, third = (office.arrive(when_full="replace") for _ in range(3))
    assert first.state.cancel_requested and second.state.status is Status.ENDED_CANCELLED
    assert office.running == [first.state.id]
    office.finish(first.state.id)
    assert office.running == [third.state.id]


async def test_one_is_skipped_with_the_reason_and_who_runs():
    office = Office()
    first, second = office.arrive(), office.arrive(when_full="skip")
    assert (second.state.status, second.state.reason) == (Status.ENDED_CANCELLED, "skipped")
    assert first.state.id in second.state.message


async def test_a_full_lane_refuses_before_anything_is_recorded_and_keeps_what_it_promised():
    office = Office()
    flow, said = office.current().flows["f"], policy.Terms(lane="a", when_full="reject")
    office.lanes.promise("x", said, flow)
    with pytest.raises(lanes.LaneFull):
        office.lanes.promise("y", said, flow)
    queued = office.arrive()
    assert office.running == [queued.state.id], "a promise holds back those that refuse, nobody who queues"
    office.lanes.forget("x", said)


async def test_a_limit_that_is_lifted_lets_everybody_in():
    office = Office()
    for _ in range(4):
        office.arrive()
    office.set_limit(3)
    office.lanes.reconsider()
    assert len(office.running) == 3
    office.set_limit(None)
    office.lanes.reconsider()
    assert len(office.running) == 4


async def test_who_waits_in_a_lane_holds_up_no_other():
    office = Office()
    stuck = [office.arrive("a") for _ in range(3)]
    for _ in range(3):
        other = office.arrive("b")
        assert other.state.id in office.running
        office.finish(other.state.id)
    assert office.running == [stuck[0].state.id]


async def test_higher_priorities_come_first_and_equals_in_their_order():
    office, line = Office(), admission.Line()
    for number, priority in enumerate([0, 5, 0, -1, 5]):
        event = events.ExecutionCreated(execution=f"p{number}", terms=policy.Terms(priority=priority))
        line.append(office.ledger.create(event))
    assert len(line) == 5
    assert [line.popleft().state.id for _ in range(5)] == ["p1", "p4", "p0", "p2", "p3"]
    assert not line
    line.append(office.create())
    line.clear()
    assert not line and len(line) == 0


def test_a_lane_is_what_the_key_finds_in_the_inputs():
    one = policy.Concurrency(key="inputs.json.customer")
    assert one.lane("f", {"json": {"customer": "a"}}) == one.lane("f", {"json": {"customer": "a"}, "x": 1})
    assert len({one.lane("f", {"json": {"customer": who}}) for who in ("a", "b", None, 1, "1")}) == 5
    assert one.lane("f", {"json": 7}) == one.lane("f", {}) != one.lane("g", {})
    assert policy.Concurrency().lane("f", None) == "f"


def test_what_a_schedule_says_of_overlaps_counts_before_what_the_flow_says():
    def decided(overlap, **concurrency):
        said = policy.Policies(concurrency=policy.Concurrency(**concurrency) if concurrency else None)
        flow = model.Flow(id="F", name="f", path="", commit="", blob="", metadata=model.Metadata(policies=said))
        found = terms.of_flow(flow, dict, policy.Terms(schedule="s", when_full=overlap))["terms"]
        return found.lane, found.when_full

    assert decided("skip") == ("schedule s", "skip")
    assert decided("allow") == ("", "")
    assert decided("queue", limit=2) == ("F", "queue")
    assert decided("allow", limit=2) == ("F", "queue")
    assert decided("allow", limit=2, when_full="replace") == ("F", "replace")
