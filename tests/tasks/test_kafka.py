"""KAFKA, with the broker that librdkafka brings for tests, and a login before it."""

from __future__ import annotations

import asyncio
import base64
import json
import pathlib
import uuid

import confluent_kafka
import pytest

from headrace.engine import errors
from headrace.tasks import definition, egress, kafka, registry, retry
from tests.support import kafka_front
from tests.support.services import PASSWORD
from tests.support.task_context import Context, FolderFiles


@pytest.fixture(scope="module")
def broker():
    with kafka_front.broker() as port:
        yield port


@pytest.fixture
def run(call, broker):
    async def ran(command, **inputs):
        return await call(
            "KAFKA", **{"hostname": "127.0.0.1", "port": broker, "command": command, "retry_backoff": False, **inputs}
        )

    return ran


@pytest.fixture
def failure(run, context):
    async def failed(command, **inputs) -> str:
        with pytest.raises(errors.TaskFailed) as raised:
            await run(command, **inputs)
        assert PASSWORD not in raised.value.message + context.text
        return raised.value.message

    return failed


@pytest.fixture
async def topic() -> str:
    return f"t.{uuid.uuid4().hex}"


async def test_what_is_published_is_taken(run, topic):
    told = await run("publish", topic=topic, text="hällo", message_key="k", headers={"a": "ü"}, partition=2)
    assert told == {"partition": 2, "offset": 0}
    await run("publish", topic=topic, json={"k": "x" * 300_000}, partition=2)
    await run("publish", topic=topic, content="/wA=", partition=1)
    taken = await run("receive", topic=topic, count=3)
    first, second = (one for one in taken["messages"] if one["partition"] == 2)
    assert first.pop("timestamp") > 1_700_000_000_000
    assert first == {"text": "hällo", "partition": 2, "offset": 0, "message_key": "k", "headers": {"a": "ü"}}
    assert len(second["text"]) == 300_008 and second["message_key"] is None
    assert [one["content"] for one in taken["messages"] if one["partition"] == 1] == ["/wA="]
    assert taken["offsets"] == {"0": 0, "1": 1, "2": 2, "3": 0}


async def test_an_earlier_one_says_where_the_next_begins(run, failure, topic):
    for number in range(4):
        await run("publish", topic=topic, text=str(number), partition=0)
    first = await run("receive", topic=topic, count=3, partition=0)
    rest = await run("receive", topic=topic, count=9, wait=0.3, offsets=first["offsets"])
    assert [one["text"] for one in first["messages"] + rest["messages"]] == ["0", "1", "2", "3"]
    again = await run("receive", topic=topic, offsets={"0": 1}, partition=0)
    assert [one["text"] for one in again["messages"]] == ["1"]
    late = await run("receive", topic=topic, start="latest", wait=0.3)
    assert late["messages"] == [] and late["offsets"]["0"] == 4
    assert "partition 0 has no offset 9: it has 0 to 4" in await failure("receive", topic=topic, offsets={"0": 9})
    assert "has no partition 7, which 'offsets' names" in await failure("receive", topic=topic, offsets={"7": 0})
    assert "the topic has no partition 9" in await failure("publish", topic=topic, text="x", partition=9)


async def test_a_group_goes_on_where_it_was(run, broker, topic):
    for number in range(3):
        await run("publish", topic=topic, text=str(number), partition=0)
    place = confluent_kafka.TopicPartition(topic, 0, 1)
    other = confluent_kafka.Consumer({"bootstrap.servers": f"127.0.0.1:{broker}", "group.id": f"g {topic}"})
    other.commit(offsets=[place], asynchronous=False)
    taken = await run("receive", topic=topic, group=f"g {topic}", count=2)
    assert [one["text"] for one in taken["messages"]] == ["1", "2"]
    assert [one.offset for one in other.committed([place])] == [3]
    other.close()


async def test_what_is_not_acknowledged_is_not_committed(run, broker, topic):
    await run("publish", topic=topic, text="x", partition=0)
    await run("receive", topic=topic, group=f"g {topic}", acknowledge=False)
    other = confluent_kafka.Consumer({"bootstrap.servers": f"127.0.0.1:{broker}", "group.id": f"g {topic}"})
    assert other.committed([confluent_kafka.TopicPartition(topic, 0)])[0].offset == confluent_kafka.OFFSET_INVALID
    other.close()


async def test_a_login_is_needed_and_a_wrong_one_not_shown(run, failure, context, broker, topic):
    async with kafka_front.front(broker) as before:
        own = {"port": before.port, "topic": topic, "username": "app", "password": PASSWORD}
        await run("publish", **own, text="x")
        assert len((await run("receive", **own))["messages"]) == 1
        said = await failure("publish", **{**own, "password": "not-the-password"}, text="x")
        assert f"127.0.0.1:{before.port} refused the password of app: " in said
        assert "not-the-password" not in said + context.text
        said = await failure("publish", port=before.port, topic=topic, text="x")
        assert "closed the connection: it may expect TLS or a login" in said
        said = await failure("publish", **own, text="x", mechanism="SCRAM-SHA-256")
        assert "UnsupportedSaslMechanismError" in said


@pytest.mark.parametrize("mechanism", ["SCRAM-SHA-256", "SCRAM-SHA-512"])
async def test_the_password_is_proved_and_not_sent_by_scram(run, failure, context, broker, topic, mechanism):
    own = {"topic": topic, "username": "app", "password": PASSWORD, "mechanism": mechanism}
    async with kafka_front.front(broker, mechanism=mechanism) as before:
        own["port"] = before.port
        await run("publish", **own, text="x")
        assert len((await run("receive", **own))["messages"]) == 1
        said = await failure("publish", **{**own, "password": "not-the-password"}, text="x")
        assert f"127.0.0.1:{before.port} refused the password of app: " in said
        assert "not-the-password" not in said + context.text
        assert "UnsupportedSaslMechanismError" in await failure("publish", **{**own, "mechanism": "PLAIN"}, text="x")


class _Impostor(kafka_front.Front):
    """Lets in whoever comes, without knowing the password."""

    def _proof(self, proof: str) -> str:
        return "v=" + base64.b64encode(bytes(32)).decode()


async def test_a_broker_that_does_not_know_the_password_is_not_believed(failure, broker, topic):
    own = {"topic": topic, "username": "app", "password": PASSWORD, "mechanism": "SCRAM-SHA-256", "text": "x"}
    async with kafka_front.front(broker, kind=_Impostor, mechanism="SCRAM-SHA-256") as before:
        said = await failure("publish", **own, port=before.port)
        assert said.endswith(f"what 127.0.0.1:{before.port} says cannot be used: Server sent wrong signature!")


@pytest.mark.parametrize("iterations", [1, 2**31 - 1])
async def test_a_broker_cannot_have_the_password_hashed_for_hours_or_hardly(failure, broker, topic, iterations):
    own = {"topic": topic, "username": "app", "password": PASSWORD, "mechanism": "SCRAM-SHA-512", "text": "x"}
    async with kafka_front.front(broker, mechanism="SCRAM-SHA-512", iterations=iterations) as before:
        said = await failure("publish", **own, port=before.port)
        assert said.endswith(f"hashed {iterations:,} times, where 4,096 to 1,000,000 are fine")


async def test_tls_is_checked_for_its_name(run, failure, broker, certs, topic):
    async with kafka_front.front(broker, certs.server_context()) as before:
        own = {"port": before.port, "topic": topic, "username": "app", "password": PASSWORD, "text": "x"}
        await run("publish", **own, cacert=certs.text("ca.crt"))
        await run("publish", **own, use_tls=True, verify_ssl=False)
        assert "is not trusted" in await failure("publish", **own, use_tls=True)
        said = await failure("publish", **own, cacert=certs.text("ca.crt"), hostname="localhost")
        assert "Hostname mismatch" in said
        assert "closed the connection" in await failure("publish", **own, connect_timeout=2)


class _NotThere(egress.Egress):
    def refusal(self, address: str) -> str | None:
        return f"{address} is not for you" if address == "127.0.0.2" else None


async def test_brokers_that_a_broker_names_must_be_allowed_too(broker, tmp_path: pathlib.Path, topic):
    tasks = registry.installed(definition.Settings(egress=_NotThere(), pacing=retry.Pacing()))
    async with kafka_front.front(broker, advertised="127.0.0.2") as before:
        for more in ({"command": "publish", "text": "x"}, {"command": "receive"}):
            own = {"hostname": "127.0.0.1", "port": before.port, "topic": topic, "retry_backoff": False, "timeout": 9}
            inputs = {**own, "username": "app", "password": PASSWORD, **more}
            with pytest.raises(errors.TaskFailed, match=r"127\.0\.0\.2 is not for you"):
                await tasks.prepare("KAFKA", json.dumps(inputs).encode()).run(Context(FolderFiles(tmp_path)))
    await tasks.aclose()


async def test_more_than_anybody_can_use_is_a_failure(run, failure, monkeypatch, topic):
    for _ in range(3):
        await run("publish", topic=topic, text="x" * 200_000, partition=0)
    monkeypatch.setattr(kafka, "_BYTES_MAX", 300_000)
    assert "more came in than 300,000 bytes" in await failure("receive", topic=topic, count=3)


@pytest.mark.parametrize("more", [{}, {"group": "g"}])
async def test_cancelled_the_task_leaves_the_broker(run, broker, topic, more):
    async with kafka_front.front(broker) as before:
        own = {"port": before.port, "topic": topic, "username": "app", "password": PASSWORD}
        await run("publish", **own, text="x")
        work = asyncio.create_task(run("receive", **own, count=2, **more))
        while not before.here:
            await asyncio.sleep(0.01)
        await asyncio.sleep(0.5)  # somewhere in the middle
        work.cancel()
        with pytest.raises(asyncio.CancelledError):
            await work
        while before.here:
            await asyncio.sleep(0.01)


def test_what_may_be_repeated(tasks):
    for more, repeatable in (
        ('"text":"x"', False),
        ('"command":"receive"', True),
        ('"command":"receive","group":"g"', False),
        ('"command":"receive","group":"g","acknowledge":false', True),
    ):
        assert tasks.prepare("KAFKA", f'{{"hostname":"x","topic":"t",{more}}}'.encode()).idempotent is repeatable


@pytest.mark.parametrize(
    ("inputs", "message"),
    [
        ({"topic": "a b"}, "cannot use the input 'topic': expected letters, digits, dots, - and _, 249 at most"),
        ({}, "needs the input 'text': the message (or 'json' or 'content')"),
        (
            {"text": "a", "json": 1},
            "cannot use the input 'json': there is a message already in 'text'; give one of them",
        ),
        ({"content": "?"}, "cannot use the input 'content': expected base64"),
        ({"text": "a", "group": "g"}, "cannot use the input 'group': publish takes nothing"),
        ({"text": "a", "username": "u"}, "needs the input 'password': the password of 'username'"),
        ({"command": "receive", "text": "a"}, "cannot use the input 'text': receive sends nothing"),
        (
            {"command": "receive", "group": "g", "offsets": {"0": 1}},
            "cannot use the input 'offsets': the group decides that",
        ),
        ({"command": "receive", "offsets": {"x": 1}}, "cannot use the input 'offsets': expected {partition: offset}"),
        (
            {"command": "receive", "offsets": {"0": -1}},
            "cannot use the input 'offsets[...]': expected a whole number >= 0",
        ),
    ],
    ids=range(10),
)
def test_inputs_that_cannot_be_used(tasks, inputs, message):
    with pytest.raises(errors.InputRefused) as refused:
        tasks.prepare("KAFKA", json.dumps({"hostname": "x", "topic": "t", **inputs}).encode())
    assert refused.value.message == f"KAFKA {message}"
