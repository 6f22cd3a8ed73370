"""Which addresses tasks may connect to."""

from __future__ import annotations

import ipaddress
import json
import sys

import pytest

from headrace.tasks import definition, registry
from headrace.tasks.egress import Egress
from headrace.tasks.retry import Pacing
from tests.support.task_context import Context


@pytest.mark.parametrize(
    "address",
    [
        "127.0.0.1", "10.1.2.3", "172.16.0.1", "192.168.1.1", "169.254.169.254", "0.0.0.0", "100.64.0.1", "224.0.0.1",
        "::1", "fe80::1", "fe80::1%eth0", "fc00::1", "::ffff:127.0.0.1", "64:ff9b::7f00:1", "64:ff9b:1::a00:1",
        "2002:7f00:1::", "::", "[::1]", "127.1", "2130706433", "0x7f000001", "0177.0.0.1",
        "::127.0.0.1", "fec0::1", "::ffff:0:10.0.0.1", "3fff::1", "5f00::1", "100::1", "ff02::1", "2001:db8::1",
        "2a00::5efe:10.0.0.1", "2a00::200:5efe:a9fe:a9fe", "2002:a9fe:a9fe::1", "fd00:ec2::254", "240.0.0.1",
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


# --- no spelling leads there: every connection that is really tried is seen by an audit hook of the interpreter

_CONNECTS: list[str] = []
_WATCHING = [False]


def _watch(event: str, arguments: tuple[object, ...]) -> None:
    if _WATCHING[0] and event == "socket.connect":
        _CONNECTS.append(str(arguments[1]))


sys.addaudithook(_watch)


def spellings(address: str) -> set[str]:
    """An IPv4 address as URLs may spell it: as a number, in other bases, shortened, mapped, encoded, with a user."""
    number = int(ipaddress.IPv4Address(address))
    a, b, c, d = (int(part) for part in address.split("."))
    mapped = [f"[::ffff:{address}]", f"[::ffff:{number >> 16:x}:{number & 0xFFFF:x}]", f"[64:ff9b::{address}]"]
    mapped += [f"[2002:{number >> 16:x}:{number & 0xFFFF:x}::1]", f"[::{address}]", f"[::ffff:0:{address}]"]
    return {
        *(address, str(number), hex(number), oct(number).replace("o", ""), f"{address}.", f"{a}.{number & 0xFFFFFF}"),
        *(f"{a}.{b}.{number & 0xFFFF}", f"0{a:o}.0{b:o}.0{c:o}.0{d:o}", f"{a:#x}.{b:#x}.{c:#x}.{d:#x}"),
        *(f"0x{number:016x}", f"example.com@{address}", f"%{ord(address[0]):x}{address[1:]}", *mapped),
        "".join(chr(0xFF10 + int(ch)) if ch.isdecimal() else ch for ch in address),  # full-width digits
    }


async def test_no_spelling_of_a_private_address_is_connected_to(context: Context, pacing: Pacing) -> None:
    tasks = registry.installed(definition.Settings(egress=Egress(deny_private=True), pacing=pacing))
    private = ["127.0.0.1", "10.0.0.1", "172.16.5.4", "192.168.1.1", "169.254.169.254", "100.64.0.1", "0.0.0.0"]
    hosts = sorted({spelt for address in private for spelt in spellings(address)} | {"localhost", "LOCALHOST."})
    assert len(hosts) > 120
    _WATCHING[0] = True
    try:
        for host in hosts:
            with pytest.raises(Exception):  # noqa: B017 - refused in one way or another
                await tasks.prepare("REST", json.dumps({"url": f"http://{host}:9/"}).encode()).run(context)
    finally:
        _WATCHING[0] = False
        await tasks.aclose()
    assert [tried for tried in _CONNECTS if ", 9" in tried] == []
