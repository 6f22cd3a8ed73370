import collections

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, invariant, rule

from headrace.engine import errors, events
from headrace.engine.state.locks import Holder, Locks, Waiter

AT = "2026-11-24T10:00:00.000000+00:00"


@pytest.fixture
def locks():
    return Locks()


def take(locks, name, execution, *, owned=True):
    locks.apply(events.LockTaken(name=name, execution=execution, owned=owned), AT)


def release(locks, name):
    locks.apply(events.LockReleased(name=name), AT)


def wait(locks, name, execution, *, owned=True, deadline=False):
    waiter = Waiter(name, execution, owned, deadline)
    locks.enqueue(waiter)
    return waiter


def children(**waits):
    return lambda execution: waits.get(execution, ())


def test_a_lock_that_is_free_is_taken_at_once(locks):
    waiter = wait(locks, "a", "e1")
    assert locks.next_for("a") is waiter
    take(locks, "a", "e1")
    locks.leave(waiter)
    assert locks.holder("a") == Holder("a", "e1", True, AT)
    assert locks.held_by("e1") == ["a"] and locks.all() == [locks.holder("a")]


def test_a_lock_that_is_held_is_nobodys_turn(locks):
    take(locks, "a", "e1")
    wait(locks, "a", "e2")
    assert locks.next_for("a") is None


def test_who_came_first_is_served_first_whoever_else_gave_up(locks):
    take(locks, "a", "e1")
    first, second, third = (wait(locks, "a", f"e{n}") for n in (2, 3, 4))
    release(locks, "a")
    assert locks.next_for("a") is first
    locks.leave(first)
    locks.leave(first)
    assert locks.next_for("a") is second and locks.waiting("a") == [second, third]


def test_two_waits_with_the_same_words_are_two(locks):
    first, second = wait(locks, "a", "e1"), wait(locks, "a", "e1")
    locks.leave(second)
    assert locks.waiting("a") == [first]


def test_an_owned_lock_is_given_back_by_its_execution_alone(locks):
    take(locks, "a", "e1")
    assert locks.releasable("a", "e1")
    with pytest.raises(errors.NotAllowed, match="lock 'a' belongs to execution e1"):
        locks.releasable("a", "e2")


def test_a_lock_without_an_owner_is_released_by_anybody_and_outlives_who_took_it(locks):
    take(locks, "a", "e1", owned=False)
    assert locks.releasable("a", "e2")
    assert locks.held_by("e1") == []
    release(locks, "a")
    assert not locks.releasable("a", "e2"), "releasing a free one is harmless"
    release(locks, "a")


def test_the_locks_of_an_execution_are_given_back_in_the_opposite_order(locks):
    for name in ("b", "a", "c"):
        take(locks, name, "e1")
    release(locks, "a")
    assert locks.held_by("e1") == ["c", "b"]
    assert [holder.name for holder in locks.all()] == ["b", "c"]


def test_a_lock_is_not_taken_from_its_holder(locks):
    take(locks, "a", "e1")
    with pytest.raises(ValueError, match="taken twice"):
        take(locks, "a", "e2")


# -- waits without end ----------------------------------------------------------------------------------------------


def test_taking_ones_own_lock_again_would_never_end(locks):
    take(locks, "a", "e1")
    assert locks.deadlock(Waiter("a", "e1", True, False), children()) == [
        "execution e1 waits for lock 'a', which execution e1 has"
    ]


def test_a_circle_of_executions_is_told_step_by_step(locks):
    take(locks, "a", "e1")
    take(locks, "b", "e2")
    wait(locks, "a", "e2")
    assert locks.deadlock(Waiter("b", "e1", True, False), children()) == [
        "execution e1 waits for lock 'b', which execution e2 has",
        "execution e2 waits for lock 'a', which execution e1 has",
    ]


def test_a_child_that_wants_what_its_waiting_parent_has_would_never_get_it(locks):
    take(locks, "a", "parent")
    wants = Waiter("a", "grandchild", False, False)
    waits = children(parent=["other", "child"], child=["grandchild"])
    assert locks.deadlock(wants, waits) == [
        "execution grandchild waits for lock 'a', which execution parent has",
        "execution parent waits for execution child",
        "execution child waits for execution grandchild",
    ]
    locks.enqueue(wants)
    assert locks.circle("parent", waits) == [
        "execution parent waits for execution child",
        "execution child waits for execution grandchild",
        "execution grandchild waits for lock 'a', which execution parent has",
    ]


@pytest.mark.parametrize(
    ("owned", "first", "second"), [(True, True, False), (True, False, True), (False, False, False)]
)
def test_what_ends_by_itself_or_by_anybody_makes_no_circle(locks, owned, first, second):
    take(locks, "a", "e1", owned=owned)
    take(locks, "b", "e2", owned=owned)
    wait(locks, "a", "e2", deadline=second)
    assert locks.deadlock(Waiter("b", "e1", True, first), children()) == []


def test_others_that_wait_in_a_circle_are_not_ones_own(locks):
    take(locks, "a", "e1")
    take(locks, "b", "e2")
    wait(locks, "a", "e2")
    wait(locks, "b", "e1")
    assert locks.deadlock(Waiter("a", "e3", True, False), children()) == []
    assert locks.circle("e3", children()) == []


def test_a_long_line_of_waits_is_followed_to_its_end(locks):
    for n in range(3000):
        take(locks, f"l{n}", f"e{n}")
        wait(locks, f"l{n}", f"e{n + 1}")
    assert len(locks.deadlock(Waiter("l3000", "e0", True, False), children())) == 0
    take(locks, "l3000", "e3000")
    assert len(locks.deadlock(Waiter("l3000", "e0", True, False), children())) == 3001


# -- any order ------------------------------------------------------------------------------------------------------

NAMES, EXECUTIONS = st.sampled_from("ab"), st.sampled_from(["e1", "e2", "e3"])


class Locking(RuleBasedStateMachine):
    """The locks as the keeper uses them, beside a line of waits and one holder for each name."""

    waiters = Bundle("waiters")

    def __init__(self):
        super().__init__()
        self.locks = Locks()
        self.holders = {}  # name → (execution, owned)
        self.lines = collections.defaultdict(list)

    def grant(self, name):
        """What the keeper does after each change: nobody who could have the lock is left waiting."""
        if (waiter := self.locks.next_for(name)) is not None:
            assert name not in self.holders, "one at a time"
            assert self.lines[name].pop(0) is waiter, "first come, first served"
            take(self.locks, name, waiter.execution, owned=waiter.owned)
            self.locks.leave(waiter)
            self.holders[name] = (waiter.execution, waiter.owned)

    @rule(target=waiters, name=NAMES, execution=EXECUTIONS, owned=st.booleans())
    def ask(self, name, execution, owned):
        waiter = wait(self.locks, name, execution, owned=owned)
        self.lines[name].append(waiter)
        self.grant(name)
        return waiter

    @rule(waiter=consumes(waiters))
    def give_up(self, waiter):
        self.locks.leave(waiter)
        if waiter in self.lines[waiter.name]:
            self.lines[waiter.name].remove(waiter)
        self.grant(waiter.name)

    @rule(name=NAMES, execution=EXECUTIONS)
    def release(self, name, execution):
        holder, owned = self.holders.get(name, (None, False))
        if owned and holder != execution:
            with pytest.raises(errors.NotAllowed):
                self.locks.releasable(name, execution)
        elif self.locks.releasable(name, execution):
            release(self.locks, name)
            del self.holders[name]
            self.grant(name)

    @rule(execution=EXECUTIONS)
    def end(self, execution):
        for waiter in self.locks.wanted_by(execution):
            self.locks.leave(waiter)
            self.lines[waiter.name].remove(waiter)
        for name in self.locks.held_by(execution):
            release(self.locks, name)
            del self.holders[name]
        for name in "ab":
            self.grant(name)
        assert (execution, True) not in self.holders.values()

    @invariant()
    def holds(self):
        assert {h.name: (h.execution, h.owned) for h in self.locks.all()} == self.holders
        for name in "ab":
            assert self.locks.waiting(name) == self.lines[name]
            assert not self.lines[name] or name in self.holders, "no wake-up is lost"


TestLocking = Locking.TestCase
