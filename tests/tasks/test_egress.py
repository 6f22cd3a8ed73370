"""Which addresses tasks may connect to."""

from __future__ import annotations

import pytest

from headrace.tasks.egress import Egress


@pytest.mark.parametrize(
    "address",
    [
        "127.0.0.1", "10.1.2.3", "172.16.0.1", "192.168.1.1", "169.254.169.254", "0.0.0.0", "100.64.0.1", "224.0.0.1",
        "::1", "fe80::1", "fe80::1%eth0", "fc00::1", "::ffff:127.0.0.1", "64:ff9b::7f00:1", "64:ff9b:1::a00:1",
        "2002:7f00:1::", "::", "[::1]", "127.1", "2130706433", "0x7f000001", "0177.0.0.1",
    ],
)  # fmt: skip
def test_private_addresses_are_refused_in_every_spelling(address: str) -> None:
    assert Egress(deny_private=True).refusal(address) == (
        f"{address} is not a public address, and this daemon lets tasks connect to public addresses only"
    )


@pytest.mark.parametrize("address", ["93.184.216.34", "2606:4700::1111", "64:ff9b::5db8:d822", "example.com"])
def test_public_addresses_and_names_pass(address: str) -> None:
    assert Egress(deny_private=True).refusal(address) is None


def test_without_the_policy_everything_passes() -> None:
    assert Egress().refusal("127.0.0.1") is None
