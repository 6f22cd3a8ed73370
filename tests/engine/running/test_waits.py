"""Deadlines: never early, each rings once, and what setting the clock means to them."""

import asyncio

import pytest

from headrace.engine.running import waits


class Clock:
    """A wall clock that can be set, beside one that cannot."""

    def __init__(self):
        self.ahead_s = 0.0

    def time(self):
        return self.monotonic() + self.ahead_s + 1_800_000_000.0

    def monotonic(self):
        return asyncio.get_running_loop().time()


def hold():
    return asyncio.get_running_loop().create_future()


async def test_each_rings_when_it_is_time_and_none_before():
    clock, rung = Clock(), []
    deadlines = waits.Deadlines(clock)
    began = clock.monotonic()
    for n in (3, 1, 2):
        one = hold()
        one.add_done_callback(lambda done, n=n: rung.append((n, done.result(), clock.monotonic() - began >= n / 50)))
        deadlines.add(clock.time() + n / 50, one)
    await asyncio.sleep(0.15)
    assert rung == [(1, True, True), (2, True, True), (3, True, True)]


async def test_a_moment_that_has_passed_rings_at_once_and_what_is_over_is_left_alone():
    clock = Clock()
    deadlines = waits.Deadlines(clock)
    past, done = hold(), hold()
    deadlines.add(clock.time() - 5, past)
    assert past.result() is True
    deadlines.add(clock.time() + 0.01, done)
    waits.finish(done)
    await asyncio.sleep(0.05)
    assert done.result() is False


@pytest.mark.parametrize("step_s", [3600.0, -3600.0, 366 * 86400.0, -50 * 365 * 86400.0])
async def test_a_short_wait_is_not_disturbed_when_the_clock_is_set(step_s):
    clock, one = Clock(), hold()
    waits.Deadlines(clock).add(clock.time() + 0.6, one)
    clock.ahead_s += step_s
    await asyncio.sleep(0.05)
    assert not one.done()
    await asyncio.wait_for(one, 10)
    assert one.result() is True


async def test_a_long_wait_ends_at_its_moment_of_the_wall_clock_wherever_that_is_set(monkeypatch):
    monkeypatch.setattr(waits, "_LOOK_AGAIN_S", 0.02)
    clock, forward, back = Clock(), hold(), hold()
    deadlines = waits.Deadlines(clock)
    deadlines.add(clock.time() + 86400, forward)
    clock.ahead_s += 90000
    await asyncio.sleep(0.1)
    assert forward.result() is True
    deadlines.add(clock.time() + 0.1, back)
    clock.ahead_s -= 3600
    await asyncio.sleep(0.3)
    assert not back.done(), "it would be an hour early"
    clock.ahead_s += 3600
    await asyncio.sleep(0.1)
    assert back.result() is True


async def test_ten_thousand_share_one_timer():
    clock = Clock()
    deadlines = waits.Deadlines(clock)
    holds = [hold() for _ in range(10_000)]
    for n, one in enumerate(holds):
        deadlines.add(clock.time() + 0.05 + (n % 100) / 1000, one)
    await asyncio.wait(holds, timeout=10)
    assert all(one.result() for one in holds)
