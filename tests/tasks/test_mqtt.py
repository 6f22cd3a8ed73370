"""MQTT, with a broker that runs, and packets no broker sends."""

from __future__ import annotations

import asyncio
import json
import uuid

import pytest

from headrace.engine import errors
from headrace.tasks import mqtt as mqtt_task
from headrace.tasks.mqtt import CONNACK, PINGRESP, PUBLISH, SUBACK, packet
from tests.support import services
from tests.support.services import Service
from tests.tasks.test_hosts import host


@pytest.fixture(scope="module")
def server(certs):
    with services.mosquitto(certs.folder) as running:
        yield running


@pytest.fixture
def mqtt(call, server: Service):
    async def run(command, **inputs):
        return await call("MQTT", **{**server.access, "command": command, "retry_backoff": False, **inputs})

    return run


@pytest.fixture
def topic() -> str:
    return f"free/{uuid.uuid4().hex}/ü"


async def _failure(coroutine) -> str:
    with pytest.raises(errors.TaskFailed) as failed:
        await coroutine
    return failed.value.message


@pytest.mark.parametrize("qos", [0, 1, 2])
async def test_what_is_published_is_received(mqtt, server, topic, qos):
    receiving = asyncio.create_task(mqtt("receive", topic=topic.replace("ü", "+"), count=3, qos=qos, client_id="r"))
    log = server.folder / "log"
    while f"{topic.replace('ü', '+')} (QoS {qos})" not in log.read_text():
        await asyncio.sleep(0.01)
    await mqtt("publish", topic=topic, text="hällo", qos=qos)
    await mqtt("publish", topic=topic, json={"a": [1]}, qos=qos)
    await mqtt("publish", topic=topic, content="/wA=", qos=qos)
    common = {"topic": topic, "qos": qos, "retain": False}
    assert (await receiving)["messages"] == [
        {**common, "text": "hällo"},
        {**common, "text": '{"a":[1]}'},
        {**common, "content": "/wA="},
    ]


async def test_what_is_retained_is_there_for_those_who_come_later(mqtt, topic):
    await mqtt("publish", topic=topic, text="x" * 300_000, retain=True)
    (message,) = (await mqtt("receive", topic=topic))["messages"]
    assert len(message["text"]) == 300_000 and message["retain"]
    assert len((await mqtt("receive", topic=topic, count=5, wait=0.05))["messages"]) == 1


async def test_wrong_credentials_are_refused_and_not_shown(mqtt, context):
    said = await _failure(mqtt("publish", topic="free/x", text="x", password="not-the-password"))
    assert "not allowed" in said and "not-the-password" not in said + context.text
    assert "does not let us" in await _failure(mqtt("publish", topic="x", text="x", username=None, password=None))


async def test_tls_is_checked_for_its_name(mqtt, certs, server):
    own = {"port": server.tls_port, "topic": "free/x", "text": "x"}
    ca = {"cacert": certs.text("ca.crt")}
    await mqtt("publish", **own, **ca)
    assert "is not trusted" in await _failure(mqtt("publish", **own, use_tls=True))
    assert "Hostname mismatch" in await _failure(mqtt("publish", **own, **ca, hostname="localhost"))
    await mqtt("publish", **own, use_tls=True, verify_ssl=False)


async def test_cancelled_the_broker_sees_the_client_leave(mqtt, server, topic):
    work = asyncio.create_task(mqtt("receive", topic=topic, client_id="who-is-cancelled"))
    log = server.folder / "log"
    while topic not in log.read_text():
        await asyncio.sleep(0.01)
    work.cancel()
    with pytest.raises(asyncio.CancelledError):
        await work
    while "Client who-is-cancelled closed its connection" not in log.read_text():
        await asyncio.sleep(0.01)


async def test_a_long_wait_shows_the_broker_that_we_are_there(mqtt, server, topic, monkeypatch):
    monkeypatch.setattr(mqtt_task, "_PING_S", 0.01)
    work = asyncio.create_task(mqtt("receive", topic=topic, client_id="who-pings"))
    while "Received PINGREQ from who-pings" not in (server.folder / "log").read_text():
        await asyncio.sleep(0.01)
    await mqtt("publish", topic=topic, text="x", qos=2)
    assert len((await work)["messages"]) == 1


WELCOME = packet(CONNACK, b"\0\0") + packet(SUBACK, b"\0\1\0")


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (packet(CONNACK, b"\0\3"), "does not let us in: it is not available"),
        (packet(CONNACK, b"\0\x63"), "does not let us in: code 99"),
        (packet(CONNACK, b""), "is not understood"),
        (packet(SUBACK, b"\0\1\0"), "is not understood"),
        (b"\x20\xff\xff\xff\xff\xff", "is not understood"),
        (WELCOME + b"\x30\xff\xff\xff\x7f", "a message of more than 16 MiB"),
        (WELCOME + packet(PUBLISH, b"\0"), "is not understood"),
        (WELCOME + packet(0xF0), "is not understood"),
        (WELCOME + packet(PUBLISH, b"\0\1x")[:-1], "closed the connection"),
        (b"HTTP/1.1 400 Bad Request\r\n\r\n", "closed the connection"),
        (packet(CONNACK, b"\0\0") + packet(SUBACK, b"\0\1\x80"), "does not let us subscribe to x"),
    ],
    ids=range(11),
)
async def test_a_broker_that_says_what_it_likes(call, answer, words):
    async def behaviour(reader, writer):
        writer.write(answer)
        writer.write_eof()
        await reader.read()

    async with host(behaviour) as strange:
        given = {"hostname": "127.0.0.1", "port": strange.port, "command": "receive", "topic": "x"}
        assert words in await _failure(call("MQTT", **given, retry_backoff=False, connect_timeout=2))


async def test_a_broker_that_chatters_does_not_keep_others_from_their_turn(call):
    async def chatter(reader, writer):
        writer.write(WELCOME + packet(PINGRESP) * 20_000)
        writer.write_eof()
        await reader.read()

    turns = 0

    async def other():
        nonlocal turns
        while True:
            await asyncio.sleep(0)
            turns += 1

    async with host(chatter) as strange:
        work = asyncio.create_task(other())
        given = {"hostname": "127.0.0.1", "port": strange.port, "command": "receive", "topic": "x"}
        assert "closed the connection" in await _failure(call("MQTT", **given, retry_backoff=False))
        work.cancel()
    assert turns > 20_000


@pytest.mark.parametrize(
    ("inputs", "message"),
    [
        ({}, "needs the input 'text': the message (or 'json' or 'content')"),
        (
            {"text": "a", "json": 1},
            "cannot use the input 'json': there is a message already in 'text'; give one of them",
        ),
        ({"content": "?"}, "cannot use the input 'content': expected base64"),
        ({"text": "a", "topic": "a/#"}, "cannot use the input 'topic': + and # are for receive"),
        ({"text": "a", "topic": ""}, "cannot use the input 'topic': expected the name of a topic"),
        ({"command": "receive", "text": "a"}, "cannot use the input 'text': receive sends nothing"),
        ({"text": "a", "qos": 3}, "cannot use the input 'qos': it is not one of the values that are possible"),
    ],
)
def test_inputs_that_cannot_be_used(tasks, inputs, message):
    with pytest.raises(errors.InputRefused) as refused:
        tasks.prepare("MQTT", json.dumps({"hostname": "x", "topic": "t", **inputs}).encode())
    assert refused.value.message == f"MQTT {message}"
