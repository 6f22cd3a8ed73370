"""Seats: who waits gets a worker in his turn, workers serve on, and no more is asked of Ray than that takes."""

import asyncio

import pytest

from headrace.engine import policy
from headrace.engine.workers import seats

WANTS = policy.Placement(worker="dmz")


class Clock:
    def __init__(self):
        self.now_s = 100.0

    def monotonic(self):
        return self.now_s

    def time(self):
        return self.now_s


class Place:
    def __init__(self, name, wants=WANTS):
        self.name, self.wants, self.worker = name, wants, None

    def sit(self, worker):
        assert self.worker is None and worker.serves is None
        self.worker, worker.serves = worker, self.name


class Worker:
    """Comes for a seat and serves what it gets."""

    def __init__(self, office, token):
        self.seat = office.seats.claim(token)
        self.serves = None
        self.left = False
        if self.seat is not None:
            office.seats.free(self)

    def leave(self):
        assert not self.left
        self.left = True
        self.seat = None


class Office:
    def __init__(self):
        self.clock = Clock()
        self.asked = []
        self.called_off = []
        self.reachable = True
        self.seats = seats.Seats(self.clock, self._ask, lambda seat: self.called_off.append(seat.identity))

    def _ask(self, seat):
        if self.reachable:
            self.asked.append(seat)
        return self.reachable

    def wait(self, *names, wants=WANTS):
        places = [Place(name, wants) for name in names]
        for place in places:
            self.seats.wait(place)
        return places

    def come(self, number):
        return Worker(self, self.asked[number].token)

    def served(self, worker):
        """It has done with that, and is told what comes next."""
        worker.serves = None
        self.seats.free(worker)
        return worker.serves


@pytest.fixture
async def office():
    return Office()


async def test_one_worker_serves_all_who_wait_in_their_order(office):
    office.wait("a", "b", "c")
    assert len(office.asked) == 3 and office.seats.waiting == 3
    worker = office.come(0)
    assert [worker.serves, office.served(worker), office.served(worker)] == ["a", "b", "c"]
    assert office.seats.waiting == 0


async def test_no_more_is_asked_for_than_wait(office):
    office.wait("a", "b", "c")
    worker = office.come(0)
    for name in "defgh":
        office.served(worker)
        office.wait(name)
    assert len(office.asked) == 3 and worker.serves == "f"


async def test_after_its_stint_a_worker_leaves_although_others_wait(office):
    office.wait("a", "b")
    worker = office.come(0)
    office.clock.now_s += seats.STINT_S
    assert office.served(worker) is None and worker.left
    assert office.come(1).serves == "b"


async def test_who_comes_while_a_worker_lingers_is_served_at_once(office):
    office.wait("a")
    worker = office.come(0)
    office.served(worker)
    (b,) = office.wait("b")
    assert b.worker is worker and len(office.asked) == 1
    await asyncio.sleep(seats.LINGER_S * 3)
    assert not worker.left


async def test_a_worker_that_nobody_wants_leaves_soon(office):
    office.wait("a")
    worker = office.come(0)
    office.served(worker)
    await asyncio.sleep(seats.LINGER_S * 3)
    assert worker.left
    office.wait("b")
    assert len(office.asked) == 2


async def test_a_worker_that_died_while_it_lingered_gets_nothing(office):
    office.wait("a")
    worker = office.come(0)
    office.served(worker)
    office.seats.gone(worker)
    (b,) = office.wait("b")
    await asyncio.sleep(seats.LINGER_S * 3)
    assert b.worker is None and not worker.left and len(office.asked) == 2


async def test_other_wishes_are_another_line(office):
    office.wait("a", "b")
    office.wait("gpu", wants=policy.Placement(gpu=1.0))
    worker = office.come(0)
    assert [worker.serves, office.served(worker), office.served(worker)] == ["a", "b", None]
    assert office.asked[2].line.wants.gpu == 1.0 and office.come(2).serves == "gpu"


async def test_a_token_is_good_once_and_only_if_it_was_asked_for(office):
    office.wait("a", "b")
    assert office.come(0).serves == "a"
    assert office.come(0).seat is None and Worker(office, "0" * 64).seat is None


async def test_a_new_driver_is_asked_for_all_who_wait_and_old_tokens_are_good_no_more(office):
    office.reachable = False
    office.wait("a", "b")
    assert not office.asked
    office.reachable = True
    office.seats.ask_anew()
    assert len(office.asked) == 2
    office.seats.ask_anew()
    assert len(office.asked) == 4
    assert office.come(1).seat is None
    assert office.come(2).serves == "a"


async def test_what_is_too_many_for_two_looks_is_called_off_the_last_first(office):
    a, b, c = office.wait("a", "b", "c")
    office.seats.drop(b)
    office.seats.drop(b)
    office.seats.look()
    assert not office.called_off
    office.seats.look()
    assert office.called_off == [office.asked[2].identity]
    assert office.come(2).seat is None
    worker = office.come(0)
    assert [worker.serves, office.served(worker)] == ["a", "c"]
    assert a.worker is c.worker


async def test_a_seat_that_was_only_spare_for_a_moment_is_kept(office):
    a, _ = office.wait("a", "b")
    office.seats.drop(a)
    office.seats.look()
    office.wait("c")
    office.seats.look()
    office.seats.look()
    assert not office.called_off and len(office.asked) == 2


async def test_seats_that_ray_refuses_are_asked_for_again_later_and_later(office, monkeypatch):
    monkeypatch.setattr(seats, "_AGAIN_S", 0.02)
    (a,) = office.wait("a")
    line = office.asked[0].line
    for tries in range(1, 5):
        office.wait(f"b{tries}")
        now = asyncio.get_running_loop().time()
        for seat in list(line.asked.values()):
            office.seats.ended(seat.identity, "no room")
        assert office.seats.refusal(a) == "no room" and line.again.when() - now == pytest.approx(
            0.02 * 2 ** (tries - 1), abs=0.015
        )
        asked = len(office.asked)
        office.wait(f"c{tries}")
        assert len(office.asked) == asked, "nobody may hurry it"
        while line.again is not None:
            await asyncio.sleep(0.005)
        assert len(line.asked) == len(line.waiting) == 1 + 2 * tries
    office.come(-1)
    assert office.seats.refusal(a) == "" and line.tries == 0


async def test_the_end_of_a_seat_that_was_taken_says_nothing(office):
    office.wait("a", "b")
    office.come(0)
    office.seats.ended(office.asked[0].identity, "")
    office.seats.ended("unknown", "")
    assert len(office.asked) == 2


async def test_lines_without_anybody_are_forgotten(office):
    (a,) = office.wait("a")
    office.seats.drop(a)
    for _ in range(3):
        office.seats.look()
    assert not office.seats._lines and not office.seats._tokens
    office.seats.drop(a)
    assert office.seats.refusal(a) == ""
