"""SNMP: with Net-SNMP's daemon, and with devices that are no good."""

from __future__ import annotations

import asyncio
import contextlib
import json
import sys

import pytest
from pyasn1.codec.ber import decoder, encoder
from pysnmp.proto import api

from headrace.engine import errors
from headrace.tasks import definition, egress, registry
from tests.support import services
from tests.support.task_context import Context

SECRET = services.PASSWORD
NAME, PLACE, UPTIME, NOTHING = (f"1.3.6.1.2.1.1.{last}.0" for last in (5, 6, 3, 99))
SYSTEM = "1.3.6.1.2.1.1"
#: A user whose questions are encrypted.
APP = {"username": "app", "password": SECRET, "privacy_password": f"{SECRET}-too", "authentication_protocol": "sha256"}
QUICK = {"read_timeout": 0.15, "tries": 2, "retry_backoff": False}
V2 = api.PROTOCOL_MODULES[api.SNMP_VERSION_2C]


@pytest.fixture(scope="module")
def device():
    with services.snmpd() as service:
        yield service


@pytest.fixture
def snmp(call, device):
    """Ask the device and return the entries."""

    async def run(**inputs) -> list[dict]:
        access = {} if "username" in inputs else {"community": "public"}
        return (await call("SNMP", **{"hostname": "127.0.0.1", "port": device.port, **access, **inputs}))["entries"]

    return run


@pytest.fixture
def failure(snmp, context: Context):
    """Ask what has to fail and return what is said, which never holds a secret."""

    async def run(**inputs) -> str:
        with pytest.raises(errors.TaskFailed) as failed:
            await snmp(**{**QUICK, **inputs})
        said = failed.value.message
        assert SECRET not in said + failed.value.output.decode() + context.text and "\n" not in said
        return said.partition(": ")[2]

    return run


each_way_in = pytest.mark.parametrize(
    "access",
    [
        {"version": "1", "community": "private"},
        {"community": "private"},
        {"username": "plain", "password": SECRET},
        APP,
    ],
    ids=["1", "2c", "3 authenticated", "3 encrypted"],
)


@each_way_in
async def test_a_walk_finds_all_that_is_below_and_nothing_else(snmp, access):
    found = await snmp(**access, command="walk", oids=f".{SYSTEM}", max_repetitions=7)
    oids = [entry["oid"] for entry in found]
    assert len(oids) == len(set(oids)) > 20 and all(oid.startswith(f"{SYSTEM}.") for oid in oids)
    assert oids[0] == f"{SYSTEM}.1.0" and {"oid", "string", "timeticks"} <= {entry["type"] for entry in found}


async def test_values_are_read(snmp):
    name, uptime = await snmp(oids=[NAME, f".{UPTIME}"])
    assert name["oid"] == NAME and name["type"] == "string" and name["value"]
    assert uptime["oid"] == UPTIME and uptime["type"] == "timeticks" and uptime["value"] > 0


async def test_a_walk_from_a_value_finds_it(snmp):
    assert [entry["oid"] for entry in await snmp(command="walk", oids=NAME)] == [NAME]
    assert await snmp(command="walk", oids="1.3.6.1.9.9") == []


async def test_the_next_value_and_the_next_many(snmp):
    assert [entry["oid"] for entry in await snmp(command="next", oids=[SYSTEM, NAME])] == [f"{SYSTEM}.1.0", PLACE]
    many = await snmp(command="bulk", oids=[NAME, SYSTEM], non_repeaters=1, max_repetitions=3)
    assert [entry["oid"] for entry in many] == [PLACE, *(f"{SYSTEM}.{one}.0" for one in (1, 2, 3))]


@pytest.mark.parametrize(
    "access",
    [{"version": "1", "community": "private"}, APP],
    ids=["1", "3"],
)
async def test_values_are_set(snmp, access):
    for value, there in ((f"shelf {len(access)}", f"shelf {len(access)}"), ({"base64": "YWJj"}, "abc")):
        (changed,) = await snmp(**access, command="set", values={PLACE: {"type": "string", "value": value}})
        assert changed["value"] == there
    assert await snmp(oids=PLACE) == [changed]


async def test_what_is_not_there(snmp, failure):
    assert [entry["value"] for entry in await snmp(oids=[NOTHING])] == [None]
    assert (await snmp(oids=NOTHING))[0]["type"] == "no such object"
    assert (await snmp(command="next", oids="2.1"))[0]["type"] == "end"
    assert await failure(version="1", oids=[NAME, NOTHING]) == f"the device answers noSuchName about {NOTHING}"


@pytest.mark.parametrize(
    ("inputs", "message"),
    [
        ({"values": {PLACE: "x"}}, f"the device answers noAccess about {PLACE}"),
        ({"community": "private", "values": {UPTIME: 3}}, f"the device answers notWritable about {UPTIME}"),
        ({"community": "private", "values": {PLACE: 3}}, f"the device answers wrongType about {PLACE}"),
    ],
    ids=["reader", "read-only", "type"],
)
async def test_a_change_that_is_refused(failure, inputs, message):
    assert await failure(command="set", **inputs) == message


@pytest.mark.parametrize(
    ("access", "message"),
    [
        ({"community": "nobody-knows"}, "2 × 0.15 s: there may be nobody, or it does not know the community"),
        ({**APP, "username": "nobody"}, "the device does not know the user nobody"),
        ({**APP, "password": "wrong-pass-word"}, "the device refused the password of app, or its protocol"),
        ({**APP, "authentication_protocol": "md5"}, "the device refused the password of app, or its protocol"),
        ({**APP, "privacy_password": "wrong-pass-word"}, "it cannot read what 'privacy_password' encrypted"),
        ({**APP, "privacy_password": None}, "the device answers authorizationError"),
        ({"username": "plain"}, "the device answers authorizationError"),
    ],
    ids=["community", "user", "password", "protocol", "privacy", "level", "no password"],
)
async def test_who_is_not_let_in(failure, access, message):
    assert message in await failure(oids=NAME, **access)


async def test_more_entries_than_are_wanted(failure):
    assert (await failure(command="walk", oids=SYSTEM, max_entries=10)).startswith("there are more than 10 entries")


# --- devices that are no good


class _Device(asyncio.DatagramProtocol):
    """Answers each question with what ``answer`` makes of it, and counts them."""

    def __init__(self, answer) -> None:
        self._answer = answer
        self.asked = 0
        self.came = asyncio.Event()

    def connection_made(self, transport) -> None:
        self._transport = transport

    def datagram_received(self, data, address) -> None:
        self.asked += 1
        self.came.set()
        for said in self._answer(data):
            self._transport.sendto(said, address)


@contextlib.asynccontextmanager
async def strange(answer):
    transport, device = await asyncio.get_running_loop().create_datagram_endpoint(
        lambda: _Device(answer), local_addr=("127.0.0.1", 0)
    )
    device.port = transport.get_extra_info("sockname")[1]
    try:
        yield device
    finally:
        transport.close()


def _answering(entries, *, status=0):
    """Answer as a device of version 2c with the entries that ``entries`` makes of the identifiers asked for."""

    def answer(data):
        message, _ = decoder.decode(data, asn1Spec=V2.Message())
        asked = V2.apiMessage.get_pdu(message)
        said = V2.apiMessage.get_response(message)
        pdu = V2.apiMessage.get_pdu(said)
        V2.apiPDU.set_error_status(pdu, status)
        oids = [str(oid) for oid, _ in V2.apiPDU.get_varbinds(asked)]
        V2.apiPDU.set_varbinds(pdu, [(V2.ObjectIdentifier(oid), value) for oid, value in entries(oids)])
        yield encoder.encode(said)

    return answer


async def test_nobody_answers(failure):
    async with strange(lambda data: ()) as device:
        said = await failure(port=device.port, oids=NAME)
        assert said.startswith(f"no answer from 127.0.0.1:{device.port} to 2 × 0.15 s: there may be nobody, or it ")
        assert device.asked == 2


async def test_a_change_is_sent_once(failure):
    async with strange(lambda data: ()) as device:
        assert "to 1 × 0.15 s" in await failure(port=device.port, command="set", values={NAME: "x"}, tries=5)
        assert device.asked == 1


async def test_silence_is_tried_again_if_the_call_says_so(failure, pacing):
    async with strange(lambda data: ()) as device:
        backoff = {"initial": 1, "deadline": 4}
        said = await failure(port=device.port, oids=NAME, tries=1, retry_backoff=backoff)
        assert pacing.pauses == [1.0, 2.0] and "tried 3 times" in said and device.asked == 3


async def test_cancelled_it_stops(snmp):
    async with strange(lambda data: ()) as device:
        work = asyncio.create_task(snmp(port=device.port, oids=NAME, read_timeout=3600))
        await device.came.wait()
        work.cancel()
        with pytest.raises(asyncio.CancelledError):
            await work


async def test_noise_is_no_answer(failure):
    noise = [b"", b"\0" * 1400, bytes(range(256)) * 5, b"\x30\x84\xff\xff\xff\xff", b"\x30\x80" * 700, b"0" * 60000]
    async with strange(lambda data: [*noise, data]) as device:  # and an echo
        assert "no answer from" in await failure(port=device.port, oids=NAME)
        assert "no answer from" in await failure(port=device.port, oids=NAME, **APP)


async def test_a_walk_in_circles_ends(failure):
    there = f"{SYSTEM}.7"
    async with strange(_answering(lambda oids: [(there, V2.Integer(1)), (there, V2.Integer(1))])) as device:
        said = await failure(port=device.port, command="walk", oids=SYSTEM)
    assert said == f"the device does not go on: after {there} it names {there}"


async def test_a_walk_without_end_ends(failure):
    def more(oids):
        at = int(oids[0].rpartition(".")[2])
        return [(f"{SYSTEM}.{at + step}", V2.OctetString("x" * 50)) for step in range(1, 26)]

    async with strange(_answering(more)) as device:
        said = await failure(port=device.port, command="walk", oids=SYSTEM, max_entries=500)
    assert said.startswith("there are more than 500 entries")


async def test_a_device_that_answers_nothing_or_something_else(snmp, failure):
    async with strange(_answering(lambda oids: [])) as device:
        assert await failure(port=device.port, oids=NAME) == "the device answered 0 of 1 questions"
        assert "Empty SNMP response" in await failure(port=device.port, command="walk", oids=SYSTEM)
    async with strange(_answering(lambda oids: [], status=5)) as device:
        assert await failure(port=device.port, oids=NAME) == "the device answers genErr"
    kinds = [V2.Integer(-1), V2.Counter64(2**64 - 1), V2.IpAddress("10.1.2.3"), V2.OctetString(b"\xff\0"), V2.Null("")]
    async with strange(_answering(lambda oids: [(NAME, kind) for kind in kinds])) as device:
        found = await snmp(port=device.port, command="bulk", oids=NAME)
    assert [entry["value"] for entry in found] == [-1, 2**64 - 1, "10.1.2.3", {"base64": "/wA="}, None]


async def test_a_name_nobody_has(failure):
    assert "the name nowhere.invalid cannot be resolved: " in await failure(hostname="nowhere.invalid", oids=NAME)


async def test_every_address_of_a_name_is_asked(snmp):
    assert (await snmp(hostname="localhost", oids=NAME, read_timeout=0.3, tries=1))[0]["value"]


async def test_an_address_the_operator_forbids(context):
    tasks = registry.installed(definition.Settings(egress=egress.Egress(deny_private=True)))
    async with strange(lambda data: ()) as device:
        inputs = {"hostname": "localhost", "port": device.port, "community": "public", "oids": NAME}
        with pytest.raises(errors.TaskFailed, match="is not a public address, and this daemon lets tasks connect"):
            await tasks.prepare("SNMP", json.dumps(inputs).encode()).run(context)
        assert not device.asked
    await tasks.aclose()


@pytest.mark.parametrize("library", ["pysnmp", "cryptography"])
async def test_without_the_library_the_task_says_what_to_install(snmp, monkeypatch, library):
    for loaded in [one for one in sys.modules if one == library or one.startswith(f"{library}.")]:
        monkeypatch.delitem(sys.modules, loaded)
    monkeypatch.setitem(sys.modules, library, None)
    with pytest.raises(errors.TaskFailed, match=rf"^SNMP needs the library {library}, .*pip install 'headrace\[snmp"):
        await snmp(oids=NAME)


@pytest.mark.parametrize(
    ("inputs", "message"),
    [
        ({"hostname": "a/b"}, "cannot use the input 'hostname': expected a host name or an address, without port or"),
        ({"community": None}, "needs the input 'community': the community, with version 1 or 2c, or 'username' with"),
        ({"version": "3"}, "needs the input 'username': the user, with version 3"),
        ({"version": "2"}, "cannot use the input 'version': it is not one of the values that are possible"),
        ({"password": SECRET}, "cannot use the input 'password': versions 1 and 2c have a community instead"),
        ({"username": "u"}, "cannot use the input 'community': version 3 has users instead"),
        ({"oids": None}, "needs the input 'oids': get needs it"),
        ({"oids": ["sysName.0"]}, "cannot use the input 'oids': expected object identifiers in numbers, such as 1.3."),
        ({"oids": ["1.3.99999999999"]}, "cannot use the input 'oids': expected object identifiers in numbers, such as"),
        ({"oids": f"1.3.{2**32}"}, "cannot use the input 'oids': expected object identifiers in numbers, such as 1.3."),
        ({"values": {NAME: 1}}, "cannot use the input 'values': it is for set"),
        ({"command": "set", "oids": None}, "needs the input 'values': what to set"),
        ({"command": "set", "values": {NAME: 1}}, "cannot use the input 'oids': what to set stands in 'values'"),
        ({"command": "bulk", "version": "1"}, "cannot use the input 'command': version 1 knows no bulk"),
        ({"read_timeout": 0}, "cannot use the input 'read_timeout': expected a number > 0.0"),
        ({"tries": 0}, "cannot use the input 'tries': expected a whole number >= 1"),
        ({"comunity": "x"}, "has no input 'comunity'; did you mean 'community'"),
    ],
    ids=range(17),
)
def test_inputs_that_cannot_be_used(tasks, inputs, message):
    with pytest.raises(errors.InputRefused) as refused:
        tasks.prepare("SNMP", json.dumps({"hostname": "x", "community": "c", "oids": NAME, **inputs}).encode())
    assert refused.value.message.startswith(f"SNMP {message}") and SECRET not in refused.value.message


@pytest.mark.parametrize(
    ("inputs", "message"),
    [
        ({"password": "short"}, "cannot use the input 'password': expected at least 8 characters"),
        ({"privacy_password": SECRET}, "needs the input 'password': there is no encryption without authentication"),
    ],
    ids=range(2),
)
def test_users_that_cannot_be(tasks, inputs, message):
    with pytest.raises(errors.InputRefused) as refused:
        tasks.prepare("SNMP", json.dumps({"hostname": "x", "username": "u", "oids": NAME, **inputs}).encode())
    assert refused.value.message == f"SNMP {message}"


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (2**31, "expected a whole number from -2147483648 to 2147483647 for integer"),
        (True, "expected a whole number from -2147483648 to 2147483647 for integer"),
        ([1], "expected a whole number, a text or {type, value}"),
        ({"type": "float", "value": 1}, "the type is one of integer, string, oid, ipaddress, counter32, counter64, "),
        ({"type": [], "value": 1}, "the type is one of integer, "),
        ({"type": "gauge32", "value": -1}, "expected a whole number from 0 to 4294967295 for gauge32"),
        ({"type": "ipaddress", "value": "1.2.3.256"}, "expected an IPv4 address for ipaddress"),
        ({"type": "oid", "value": "a.b"}, "expected object identifiers in numbers, such as 1.3.6.1.2.1.1.5.0"),
        ({"type": "string", "value": {"base64": "?"}}, 'there is a {"base64": …} that is not base64'),
    ],
    ids=range(9),
)
def test_values_that_cannot_be_set(tasks, value, message):
    inputs = {"hostname": "x", "community": "c", "command": "set", "values": {NAME: value}}
    with pytest.raises(errors.InputRefused) as refused:
        tasks.prepare("SNMP", json.dumps(inputs).encode())
    assert refused.value.message.startswith(f"SNMP cannot use the input 'values': {message}")


def test_what_may_be_repeated(tasks):
    inputs = {"hostname": "x", "community": "c", "oids": NAME}
    assert tasks.prepare("SNMP", json.dumps(inputs).encode()).idempotent
    inputs = {"hostname": "x", "community": "c", "command": "set", "values": {NAME: 1}}
    assert not tasks.prepare("SNMP", json.dumps(inputs).encode()).idempotent
    assert {"community", "privacy_password"} <= tasks.prepare("SNMP", json.dumps(inputs).encode()).secret_inputs
