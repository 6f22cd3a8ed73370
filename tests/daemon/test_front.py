"""What ``access.proxy`` may say; what it does is tried in ``tests/e2e/test_identity.py``."""

import msgspec
import pytest

from headrace.daemon import front


@pytest.mark.parametrize(
    ("given", "reason"),
    [
        ({"networks": []}, "names nobody"),
        ({"networks": ["0.0.0.0/0"]}, "is everybody"),
        ({"networks": ["10.0.0.0/8", "::/0"]}, "is everybody"),
        ({"networks": ["10.0.0.1/8"]}, "host bits set"),
        ({"networks": ["10.0.0.0/8"], "hosts": ["flows.example:443"]}, "without a port"),
        ({"networks": ["10.0.0.0/8"], "hosts": ["https://flows.example"]}, "without a port"),
    ],
)
def test_a_proxy_that_would_open_the_door_to_all_or_could_not_be_reached_is_refused(given, reason):
    with pytest.raises(msgspec.ValidationError, match=reason):
        msgspec.convert(given, front.Proxy)


def test_names_and_addresses_are_names():
    hosts = ("flows.example", "Flows.Example", "192.0.2.1", "2001:db8::1")
    assert msgspec.convert({"networks": ["10.0.0.0/8"], "hosts": hosts}, front.Proxy).hosts == hosts
