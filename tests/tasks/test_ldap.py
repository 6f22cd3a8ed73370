"""LDAP, with a directory that runs, and messages no server sends."""

from __future__ import annotations

import asyncio
import json

import pytest

from headrace.engine import errors
from headrace.tasks import ldap_messages as messages
from tests.support import services
from tests.support.services import Service
from tests.tasks.test_hosts import host

ROOT = "dc=example"


@pytest.fixture(scope="module")
def server(certs):
    with services.slapd(certs.folder) as running:
        lines = [f"dn: {ROOT}\nobjectClass: domain\ndc: example\n"]
        lines += [f"dn: ou=people,{ROOT}\nobjectClass: organizationalUnit\n"]
        person = "dn: cn=p{0},ou=people,dc=example\nobjectClass: inetOrgPerson\nsn: s{1}\nuid: {0}\n"
        lines += [person.format(number, number % 10) for number in range(1200)]
        arguments = ["-x", "-H", f"ldap://127.0.0.1:{running.port}", "-D", running.username, "-w", services.PASSWORD]
        services.run(services.program("ldapadd"), *arguments, text="\n".join(lines))
        yield running


@pytest.fixture
def ldap(call, server: Service):
    async def run(command="search", **inputs):
        return await call("LDAP", **{**server.access, "command": command, "retry_backoff": False, **inputs})

    return run


async def _failure(coroutine) -> str:
    with pytest.raises(errors.TaskFailed) as failed:
        await coroutine
    return failed.value.message


async def _names(ldap, written: str, **inputs) -> list[str]:
    return [one["dn"].partition(",")[0] for one in (await ldap(dn=ROOT, filter=written, **inputs))["entries"]]


async def test_an_entry_is_added_changed_renamed_and_deleted(ldap):
    name = f"cn=Ada (1),{ROOT}"
    photo = {"base64": "/9j/AA=="}
    attributes = {"objectClass": ["inetOrgPerson"], "sn": "Lovelace", "mail": ["a@x", "b@x"], "jpegPhoto": photo}
    await ldap("add", dn=name, attributes=attributes)
    (entry,) = (await ldap(dn=name, scope="base"))["entries"]
    assert entry["dn"] == name and entry["attributes"]["mail"] == ["a@x", "b@x"]
    assert entry["attributes"]["jpegPhoto"] == [photo] and entry["attributes"]["cn"] == ["Ada (1)"]
    changes = {"mail": {"delete": "a@x", "add": ["c@x"]}, "sn": {"replace": "Küng"}, "jpegPhoto": {"delete": None}}
    await ldap("modify", dn=name, changes=changes)
    (entry,) = (await ldap(dn=name, scope="base", attributes=["mail", "sn", "jpegPhoto"]))["entries"]
    assert entry["attributes"] == {"mail": ["b@x", "c@x"], "sn": ["Küng"]}
    await ldap("rename", dn=name, new_rdn="cn=Ada", new_parent=f"ou=people,{ROOT}")
    assert await _names(ldap, "(cn=Ada)") == ["cn=Ada"]
    await ldap("delete", dn=f"cn=Ada,ou=people,{ROOT}")
    assert await _names(ldap, "(cn=Ada)") == []


@pytest.mark.parametrize(
    ("written", "found"),
    [
        ("cn=p7", ["cn=p7"]),
        ("(&(cn=p1*)(uid=*1)(!(sn=s9))(|(uid=11)(uid=101)))", ["cn=p11", "cn=p101"]),
        ("(cn=p*99)", [f"cn=p{n}99" for n in ("", *range(1, 12))]),
        ("(cn=*19*7)", ["cn=p197", "cn=p1197"]),
        ("(&(objectClass=domain)(dc=*))", ["dc=example"]),
        ("(cn:caseIgnoreMatch:=P7)", ["cn=p7"]),
        ("(&(ou:dn:=people)(uid=7))", ["cn=p7"]),
        (r"(cn=\70\37)", ["cn=p7"]),
        ("(&(cn~=p7)(uid>=0))", []),
    ],
)
async def test_filters_are_those_of_the_standard(ldap, written, found):
    assert await _names(ldap, written) == found


async def test_more_is_found_than_a_server_gives_at_once(ldap):
    assert len(await _names(ldap, "(objectClass=inetOrgPerson)")) == 1200
    assert "more than 700 entries" in await _failure(ldap(dn=ROOT, max_entries=700))
    assert len(await _names(ldap, "(cn=p*)", scope="one")) == 0


async def test_who_we_are(ldap):
    assert (await ldap("whoami"))["result"] == "dn:cn=admin,dc=example"
    assert (await ldap("whoami", username=None, password=None))["result"] == ""


async def test_wrong_credentials_are_refused_and_not_shown(ldap, context):
    said = await _failure(ldap("whoami", password="not-the-password"))
    assert "invalidCredentials (49)" in said and "not-the-password" not in said + context.text
    added = ldap(
        "add", username=None, password=None, dn=f"cn=x,{ROOT}", attributes={"objectClass": "person", "sn": "x"}
    )
    assert "strongerAuthRequired (8)" in await _failure(added)


async def test_errors_are_told_in_the_servers_words(ldap):
    assert "noSuchObject (32)" in await _failure(ldap("delete", dn=f"cn=nobody,{ROOT}"))
    assert "invalidDNSyntax (34)" in await _failure(ldap("delete", dn="nonsense"))
    assert "objectClassViolation (65)" in await _failure(
        ldap("add", dn=f"cn=x,{ROOT}", attributes={"objectClass": "inetOrgPerson"})
    )


async def test_tls_is_checked_for_its_name(ldap, certs, server):
    ca = {"cacert": certs.text("ca.crt")}
    for own in ({"port": server.tls_port}, {"start_tls": True}):
        assert (await ldap("whoami", **own, **ca))["result"].startswith("dn:")
        assert "is not trusted" in await _failure(ldap("whoami", **own, use_tls=True))
        assert "Hostname mismatch" in await _failure(ldap("whoami", **own, **ca, hostname="localhost"))
        assert (await ldap("whoami", **own, use_tls=True, verify_ssl=False))["result"].startswith("dn:")


def _message(number: int, *parts: bytes) -> bytes:
    return messages.element(messages.SEQUENCE, messages.number(number), *parts)


def _result(tag: int, code: int = 0, said: str = "") -> bytes:
    return messages.element(tag, messages.number(code, messages.ENUMERATED), messages.text(""), messages.text(said))


async def test_a_cancelled_search_is_abandoned(call):
    heard = bytearray()

    async def behaviour(reader, writer):
        while piece := await reader.read(4096):
            heard.extend(piece)

    async with host(behaviour) as silent:
        work = asyncio.create_task(call("LDAP", hostname="127.0.0.1", port=silent.port))
        while not heard:
            await asyncio.sleep(0.01)
        work.cancel()
        with pytest.raises(asyncio.CancelledError):
            await work
        await silent.left_alone()
    assert heard.endswith(_message(2, messages.number(1, 0x50)))


ENTRY = messages.element(messages.ENTRY, messages.text("cn=x"), messages.element(messages.SEQUENCE))


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (b"\x30\x84\xff\xff\xff\xff", "a message of more than 16 MiB"),
        (b"\x30\x80", "is not understood"),
        (b"\x30\x03\x02\x01", "closed the connection"),
        (_message(1, messages.element(messages.ENTRY, b"\x04\x05x")), "is not understood"),
        (_message(7, _result(messages.DONE)), "is not understood"),
        (_message(0, _result(0x78, 52, "going down")), "ends the connection: unavailable (52): going down"),
        (_message(1, ENTRY) * 20, "more than 5 entries"),
        (_message(1, _result(messages.DONE, 51, "x" * 9000)), "busy (51): xxx"),
        (b"HTTP/1.1 400 Bad Request\r\n\r\n", "is not understood"),
    ],
    ids=range(9),
)
async def test_a_server_that_says_what_it_likes(call, answer, words):
    async def behaviour(reader, writer):
        writer.write(answer)
        writer.write_eof()
        await reader.read()

    async with host(behaviour) as strange:
        given = {"hostname": "127.0.0.1", "port": strange.port, "max_entries": 5, "retry_backoff": False}
        said = await _failure(call("LDAP", **given))
    assert words in said and len(said) < 1500


async def test_what_is_said_before_tls_is_not_taken_for_what_is_said_in_it(call):
    async def behaviour(reader, writer):
        writer.write(_message(1, _result(0x78)) + _message(2, _result(0x61)))
        await reader.read()

    async with host(behaviour) as strange:
        said = await _failure(
            call("LDAP", hostname="127.0.0.1", port=strange.port, start_tls=True, retry_backoff=False)
        )
    assert "between its yes to TLS and the beginning of it" in said


@pytest.mark.parametrize(
    ("inputs", "message"),
    [
        ({"command": "add", "dn": "x"}, "needs the input 'attributes': add needs it"),
        ({"command": "rename", "dn": "x"}, "needs the input 'new_rdn': rename needs it"),
        ({"username": "x", "password": ""}, "needs the input 'password': the password of 'username'"),
        ({"attributes": {"cn": "x"}}, "'attributes': expected a list of names for search, an object of values for add"),
        (
            {"command": "add", "dn": "x", "attributes": {"a": [{"base64": "?"}]}},
            "'attributes': expected texts, numbers, true or false, or {\"base64\": …}",
        ),
        (
            {"command": "modify", "dn": "x", "changes": {"a": {"set": 1}}},
            "'changes': expected add, delete or replace with each attribute",
        ),
        ({"filter": "(&(a=b)"}, "'filter': a parenthesis is missing, or one in a value is not written \\28 or \\29"),
        ({"filter": "(a=b)(c=d)"}, "'filter': there is more after its end"),
        ({"filter": "(nonsense)"}, "'filter': expected attribute=value in parentheses"),
        ({"filter": "(!(a=b)(c=d))"}, "'filter': '!' takes one filter"),
        ({"filter": "(a=\\x)"}, "'filter': a backslash is written \\5c"),
        ({"filter": "(!" * 999}, "'filter': it is nested too deeply"),
        ({"start_tls": True, "use_tls": False}, "'use_tls': 'start_tls' is true, so it cannot be false"),
    ],
    ids=range(13),
)
def test_inputs_that_cannot_be_used(tasks, inputs, message):
    with pytest.raises(errors.InputRefused) as refused:
        tasks.prepare("LDAP", json.dumps({"hostname": "x", **inputs}).encode())
    assert refused.value.message == f"LDAP {'' if message.startswith('needs') else 'cannot use the input '}{message}"


def test_only_what_reads_is_repeated(tasks):
    search = {"hostname": "x"}
    assert tasks.prepare("LDAP", json.dumps(search).encode()).idempotent
    assert not tasks.prepare("LDAP", json.dumps({**search, "command": "delete", "dn": "x"}).encode()).idempotent
