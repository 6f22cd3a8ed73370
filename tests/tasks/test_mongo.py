"""MONGO, with a server that speaks its protocol (SecantusDB), and hosts that are none."""

from __future__ import annotations

import asyncio
import json
import pathlib
import re
import struct
import uuid

import bson
import pytest

from headrace.engine import errors
from headrace.tasks import definition, egress, mongo, registry, retry
from tests.support import services
from tests.support.services import PASSWORD
from tests.support.task_context import Context, FolderFiles
from tests.tasks.test_hosts import host


@pytest.fixture(scope="module")
def server(certs):
    with services.secantus(certs.folder) as running:
        yield running


@pytest.fixture
async def collection() -> str:
    return f"c{uuid.uuid4().hex}"


@pytest.fixture
def run(call, server, collection):
    async def ran(command, **inputs):
        own = {**server.access, "database": "shop", "command": command, "retry_backoff": False}
        if command != "command":
            own["collection"] = collection
        return await call("MONGO", **{**own, **inputs})

    return ran


@pytest.fixture
def failure(run, context):
    async def failed(command, **inputs) -> str:
        with pytest.raises(errors.TaskFailed) as raised:
            await run(command, **inputs)
        assert PASSWORD not in raised.value.message + raised.value.output.decode() + context.text
        return raised.value.message

    return failed


async def test_documents_are_inserted_found_changed_and_deleted(run):
    made = await run("insert", documents=[{"_id": 1, "a": "ü", "n": 3}, {"_id": 2, "n": 1}, {"n": 2}])
    assert made["ids"][:2] == [1, 2] and re.fullmatch("[0-9a-f]{24}", made["ids"][2])
    found = await run("find", filter={"n": {"$gt": 1}}, sort={"n": -1}, projection={"_id": 0, "n": 1})
    assert found == {"documents": [{"n": 3}, {"n": 2}]}
    assert (await run("find", sort={"n": 1}, skip=1, limit=1))["documents"] == [{"_id": made["ids"][2], "n": 2}]
    told = await run("update", filter={"n": {"$lt": 3}}, update={"$inc": {"n": 10}}, many=True)
    assert told == {"matched": 2, "modified": 2, "upserted_id": None}
    assert (await run("update", filter={"_id": 9}, update={"$set": {"n": 0}}, upsert=True))["upserted_id"] == 9
    assert (await run("update", filter={"_id": 1}, update=[{"$set": {"m": {"$add": ["$n", 1]}}}]))["modified"] == 1
    total = await run("aggregate", pipeline=[{"$group": {"_id": None, "sum": {"$sum": "$n"}, "m": {"$max": "$m"}}}])
    assert total == {"documents": [{"_id": None, "sum": 26, "m": 4}]}
    assert await run("delete", filter={"_id": {"$in": [1, 2]}}) == {"deleted": 1}
    assert await run("delete", filter={}, many=True) == {"deleted": 3}
    assert await run("find") == {"documents": []}


async def test_types_that_json_does_not_have(run):
    given = {
        "_id": {"$oid": "0123456789abcdef01234567"}, "when": {"$date": "2026-01-02T03:04:05.678Z"},
        "price": {"$numberDecimal": "1.10"}, "raw": {"$binary": {"base64": "/wA=", "subType": "00"}},
        "id": {"$uuid": "00112233-4455-6677-8899-aabbccddeeff"}, "large": 2**60, "deep": [{"x": [None, True, 1.5]}],
    }  # fmt: skip
    await run("insert", documents=[given])
    told = {
        "_id": "0123456789abcdef01234567", "when": "2026-01-02T03:04:05.678000Z", "price": "1.10", "raw": "/wA=",
        "id": "00112233-4455-6677-8899-aabbccddeeff", "large": 2**60, "deep": [{"x": [None, True, 1.5]}],
    }  # fmt: skip
    for name in ("_id", "when", "price", "id"):
        assert (await run("find", filter={name: given[name]}))["documents"] == [told]
    assert (await run("find", filter={"_id": told["_id"]}))["documents"] == []


async def test_commands_of_the_database(run, failure, collection):
    await run("insert", documents=[{}])
    assert (await run("command", run={"count": collection, "query": {}}))["result"]["n"] == 1
    assert "(59)" in await failure("command", run={"nonsense": 1})
    assert re.search(r"not authorized .*\(13\)", await failure("command", run={"dropDatabase": 1}, database="other"))


async def test_a_mistake_is_told_in_the_words_of_the_server(run, failure):
    await run("insert", documents=[{"_id": 1}])
    assert "1 were inserted, then: E11000 duplicate key" in await failure("insert", documents=[{"_id": 2}, {"_id": 1}])
    assert "$nonsense" in await failure("find", filter={"a": {"$nonsense": 1}})
    said = await failure("find", filter={"a": {"$oid": "x"}})
    assert "'filter' is not what Extended JSON allows: " in said


async def test_more_documents_than_anybody_wants_are_a_failure(run, failure, monkeypatch):
    await run("insert", documents=[{"x": "y" * 100_000} for _ in range(4)])
    assert "there are more than 2 documents: ask for fewer" in await failure("find", max_documents=2)
    monkeypatch.setattr(mongo, "_BYTES_MAX", 200_000)
    assert "more came in than 200,000 bytes" in await failure("find")


async def test_wrong_credentials_are_refused_and_not_shown(failure, context, server):
    said = await failure("find", password="not-the-password")
    assert f"127.0.0.1:{server.port} refused the password of app: " in said
    assert "not-the-password" not in said + context.text
    assert "requires authentication" in await failure("find", username=None, password=None)
    assert "refused the password of app" in await failure("find", auth_source="shop")


async def test_tls_is_checked_for_its_name(run, failure, certs, server):
    own, ca = {"port": server.tls_port}, {"cacert": certs.text("ca.crt")}
    await run("insert", **own, **ca, documents=[{}])
    await run("find", **own, use_tls=True, verify_ssl=False)
    pair = {"client_cert": certs.text("client.crt"), "client_key": certs.text("client.key")}
    await run("find", **own, **ca, **pair)
    assert "is not trusted" in await failure("find", **own, use_tls=True)
    assert "Hostname mismatch" in await failure("find", **own, **ca, hostname="localhost")
    assert "within 0.5 s" in await failure("find", **own, connect_timeout=0.5)


async def test_a_certificate_logs_in_instead_of_a_password(run, failure, certs, server):
    pair = {"client_cert": certs.text("client.crt"), "client_key": certs.text("client.key")}
    own = {"port": server.tls_port, "mechanism": "MONGODB-X509", "username": None, "password": None}
    own["cacert"] = certs.text("ca.crt")
    await run("insert", **own, **pair, documents=[{"_id": 1}])
    assert (await run("find", **{**own, "username": "CN=client"}, **pair))["documents"] == [{"_id": 1}]
    said = await failure("find", **{**own, "username": "CN=other"}, **pair)
    assert f"127.0.0.1:{server.tls_port} refused the certificate: " in said
    other = {"client_cert": certs.text("server.crt"), "client_key": certs.text("server.key")}
    assert f"127.0.0.1:{server.tls_port} refused the certificate: " in await failure("find", **own, **other)
    stranger = {"client_cert": certs.text("stranger.crt"), "client_key": certs.text("stranger.key")}
    assert await failure("find", **own, **stranger, connect_timeout=2)


async def test_the_primary_of_a_replica_set_is_found(run, failure):
    await run("insert", documents=[{"_id": 1}], replica_set="secantus")
    said = await failure("find", replica_set="other", connect_timeout=0.5)
    assert re.search("no primary of other through 127.0.0.1:[0-9]+ within 0.5 s: ", said)


class _Member:
    """Says of itself whatever it is told to say; then answers nothing."""

    def __init__(self, **hello) -> None:
        self._hello = hello

    async def __call__(self, reader, writer) -> None:
        while True:
            length, number, _, _ = struct.unpack("<iiii", await reader.readexactly(16))
            asked = await reader.readexactly(length - 16)
            if b"hello" not in asked and b"ismaster" not in asked.lower():
                continue
            said = bson.encode({"ok": 1, "maxWireVersion": 21, "minWireVersion": 0, "helloOk": True, **self._hello})
            head = struct.pack("<iiii", 16 + 5 + len(said), 1, number, 2013)
            writer.write(head + bytes(5) + said)


class _Greedy(_Member):
    """Wants the password hashed so often, as soon as somebody logs in."""

    def __init__(self, iterations: int) -> None:
        super().__init__(isWritablePrimary=True)
        self._iterations = iterations

    async def __call__(self, reader, writer) -> None:
        while True:
            length, number, _, _ = struct.unpack("<iiii", await reader.readexactly(16))
            asked = await reader.readexactly(length - 16)
            told = {"ok": 1, "maxWireVersion": 21, "minWireVersion": 0, "helloOk": True, "isWritablePrimary": True}
            if found := re.search(rb"[nr]=u,r=([A-Za-z0-9+/=]+)", asked):
                first = b"r=%sx,s=c2FsdHNhbHQ=,i=%d" % (found[1], self._iterations)
                begun = {"conversationId": 1, "done": False, "payload": first, "ok": 1}
                told |= begun | {"speculativeAuthenticate": begun, "saslSupportedMechs": ["SCRAM-SHA-256"]}
            said = bson.encode(told)
            if asked[4:8] == bytes(4) and b"$cmd" in asked[:64]:  # the first word of all is in the oldest form
                head = struct.pack("<iiiiiqii", 36 + len(said), 1, number, 1, 8, 0, 0, 1)
            else:
                head = struct.pack("<iiii", 16 + 5 + len(said), 1, number, 2013) + bytes(5)
            writer.write(head + said)


@pytest.mark.parametrize("iterations", [1, 2**31 - 1])
async def test_a_server_cannot_have_the_password_hashed_for_hours_or_hardly(call, iterations):
    async with host(_Greedy(iterations)) as greedy:
        own = {"hostname": "127.0.0.1", "port": greedy.port, "database": "d", "collection": "c", "retry_backoff": False}
        with pytest.raises(errors.TaskFailed) as raised:
            await call("MONGO", **own, username="u", password=PASSWORD, connect_timeout=5)
        assert raised.value.message.endswith(f"hashed {iterations:,} times, where 4,096 to 1,000,000 are fine")
        await greedy.left_alone()


class _NotThere(egress.Egress):
    def refusal(self, address: str) -> str | None:
        return f"{address} is not for you" if address == "127.0.0.2" else None


async def test_members_that_a_server_names_must_be_allowed_too(tmp_path: pathlib.Path):
    tasks = registry.installed(definition.Settings(egress=_NotThere(), pacing=retry.Pacing()))
    hosts = ["127.0.0.2:27017"]
    async with host(_Member(setName="r", secondary=True, hosts=hosts, primary=hosts[0], me=hosts[0])) as member:
        inputs = {
            "hostname": "127.0.0.1", "port": member.port, "replica_set": "r", "database": "d", "collection": "c",
            "retry_backoff": False,
        }  # fmt: skip
        with pytest.raises(errors.TaskFailed, match=r"127\.0\.0\.2 is not for you"):
            await tasks.prepare("MONGO", json.dumps(inputs).encode()).run(Context(FolderFiles(tmp_path)))
        await member.left_alone()
    await tasks.aclose()


async def test_cancelled_in_the_middle_the_task_leaves_the_server(call):
    async with host(_Member(isWritablePrimary=True)) as silent:
        own = {"hostname": "127.0.0.1", "port": silent.port, "database": "d", "collection": "c"}
        work = asyncio.create_task(call("MONGO", **own))
        while silent.here < 2:  # one looks after it, one asks
            await asyncio.sleep(0.01)
        work.cancel()
        with pytest.raises(asyncio.CancelledError):
            await work
        await silent.left_alone()


def test_what_may_be_repeated(tasks):
    own = {"hostname": "x", "database": "d", "collection": "c"}
    for more, repeatable in (
        ({}, True),
        ({"command": "aggregate", "pipeline": [{"$match": {}}]}, True),
        ({"command": "aggregate", "pipeline": [{"$out": "other"}]}, False),
        ({"command": "insert", "documents": [{}]}, False),
        ({"command": "update", "update": {"$set": {"a": 1}}}, False),
        ({"command": "delete", "filter": {}}, False),
        ({"command": "command", "collection": None, "run": {"ping": 1}}, False),
    ):
        assert tasks.prepare("MONGODB", json.dumps({**own, **more}).encode()).idempotent is repeatable


@pytest.mark.parametrize(
    ("inputs", "message"),
    [
        ({"database": None}, "needs the input 'database': The database."),
        ({"database": "a b"}, "cannot use the input 'database': expected the name of a database"),
        ({"collection": None}, "needs the input 'collection': the command find is about it"),
        ({"collection": "$x"}, "cannot use the input 'collection': expected the name of a collection"),
        ({"username": "u"}, "needs the input 'password': the password of 'username'"),
        ({"documents": [{}]}, "cannot use the input 'documents': the command find does not use it"),
        ({"command": "insert"}, "needs the input 'documents': the command insert needs it"),
        ({"command": "insert", "documents": []}, "cannot use the input 'documents': it is empty"),
        ({"command": "delete"}, "needs the input 'filter': the command delete needs it"),
        ({"command": "update"}, "needs the input 'update': the command update needs it"),
        ({"command": "aggregate"}, "needs the input 'pipeline': the command aggregate needs it"),
        ({"command": "command"}, "needs the input 'run': the command command needs it"),
        (
            {"mechanism": "MONGODB-X509"},
            "needs the input 'client_cert': the certificate that 'mechanism' logs in with",
        ),
        ({"limit": -1}, "cannot use the input 'limit': expected a whole number >= 0"),
    ],
    ids=range(14),
)
def test_inputs_that_cannot_be_used(tasks, inputs, message):
    own = {"hostname": "x", "database": "d", "collection": "c"}
    with pytest.raises(errors.InputRefused) as refused:
        tasks.prepare("MONGO", json.dumps({**own, **inputs}).encode())
    assert refused.value.message == f"MONGO {message}"


def test_a_certificate_takes_the_place_of_a_password(tasks, certs):
    own = {"hostname": "x", "database": "d", "collection": "c", "mechanism": "MONGODB-X509", "username": "u"}
    pair = {"client_cert": certs.text("client.crt"), "client_key": certs.text("client.key"), "password": "p"}
    with pytest.raises(errors.InputRefused) as refused:
        tasks.prepare("MONGO", json.dumps({**own, **pair}).encode())
    assert refused.value.message == (
        "MONGO cannot use the input 'password': the certificate takes its place with 'mechanism'"
    )
