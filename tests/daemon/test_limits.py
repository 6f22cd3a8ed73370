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
