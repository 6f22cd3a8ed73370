"""How often an address may be wrong."""

import pytest

from headrace.daemon import limits
from tests.support.clocks import Clock


def test_ten_wrong_ones_within_five_minutes_are_enough_and_only_for_their_address():
    clock = Clock()
    attempts = limits.Attempts(clock)
    for _ in range(limits.FAILURES_MAX):
        assert attempts.wait_s("a") == 0
        attempts.count("a")
        clock.now_s += 1
    assert attempts.wait_s("a") == limits.WITHIN_S - 10 and attempts.wait_s("b") == 0
    clock.now_s += limits.WITHIN_S - 10
    assert attempts.wait_s("a") == 0  # the oldest is old enough: one more
    attempts.count("a")
    assert 0 < attempts.wait_s("a") <= 1


def test_a_hundred_thousand_addresses_do_not_fill_the_memory():
    attempts = limits.Attempts(Clock())
    for n in range(100_000):
        attempts.count(str(n))
    assert len(attempts._at) == limits._ADDRESSES_MAX


@pytest.mark.parametrize(
    ("address", "counts_as"),
    [
        ("127.0.0.1", "127.0.0.1"),
        ("::ffff:10.1.2.3", "10.1.2.3"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"),
        ("fe80::1%eth0", "fe80::/64"),
        ("socket", "socket"),
    ],
)
def test_an_address_counts_with_those_its_sender_surely_has(address, counts_as):
    assert limits.network(address) == counts_as


def test_a_rate_lets_a_burst_through_and_then_so_many_a_second_for_each_name():
    clock = Clock(1000.0)
    rate = limits.Rate(clock, per_s=10, burst=5)
    assert [rate.wait_s("a") for _ in range(5)] == [0] * 5
    wait_s = rate.wait_s("a")
    assert wait_s == pytest.approx(0.1, abs=1e-3) and rate.wait_s("b") == 0
    clock.now_s += wait_s + 0.001
    assert rate.wait_s("a") == 0 and rate.wait_s("a") > 0
    clock.now_s += 60
    assert [rate.wait_s("a") for _ in range(5)] == [0] * 5 and rate.wait_s("a") > 0  # quiet does not add up
    passed = 0
    for _ in range(1000):
        clock.now_s += 0.01
        passed += rate.wait_s("a") == 0
    assert passed == pytest.approx(100, abs=2)


def test_names_without_end_do_not_fill_the_memory():
    rate = limits.Rate(Clock(), per_s=1, burst=2)
    for n in range(50_000):
        rate.wait_s(str(n))
    assert len(rate._free_at) == limits._ADDRESSES_MAX
