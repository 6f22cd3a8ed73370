"""AMQP, with a RabbitMQ that runs, and frames no broker sends."""

from __future__ import annotations

import asyncio
import json
import uuid

import pytest

from headrace.engine import errors
from tests.support import services
from tests.support.services import Service
from tests.tasks.test_hosts import host


@pytest.fixture(scope="module")
def server(certs):
    with services.rabbitmq(certs.folder) as running:
        yield running


@pytest.fixture
def amqp(call, server: Service):
    async def run(command, **inputs):
        return await call("AMQP", **{**server.access, "command": command, "retry_backoff": False, **inputs})

    return run


@pytest.fixture
async def queue() -> str:
    return f"q:{uuid.uuid4().hex}"


async def _failure(coroutine) -> str:
    with pytest.raises(errors.TaskFailed) as failed:
        await coroutine
    return failed.value.message


async def test_what_is_published_is_taken_once(amqp, queue):
    await amqp("publish", queue=queue, declare=True, text="hällo", headers={"a": 1, "b": [True, None, "x"]})
    await amqp("publish", queue=queue, json={"k": "x" * 300_000})
    await amqp("publish", queue=queue, content="/wA=", content_type="x/y", persistent=False)
    peeked = await amqp("receive", queue=queue, count=3, acknowledge=False)
    first, second, third = (await amqp("receive", queue=queue, count=3))["messages"]
    assert [one["redelivered"] for one in peeked["messages"]] == [False] * 3
    assert first == {
        "text": "hällo", "exchange": "", "routing_key": queue, "redelivered": True,
        "content_type": "text/plain; charset=utf-8", "headers": {"a": 1, "b": [True, None, "x"]},
    }  # fmt: skip
    assert len(second["text"]) == 300_008 and second["content_type"] == "application/json"
    assert (third["content"], third["content_type"]) == ("/wA=", "x/y")
    assert (await amqp("receive", queue=queue, wait=0.1))["messages"] == []


async def test_more_is_left_in_the_queue(amqp, queue):
    for number in range(5):
        await amqp("publish", queue=queue, declare=True, text=str(number))
    taken = [(await amqp("receive", queue=queue, count=2))["messages"] for _ in range(2)]
    assert [[one["text"] for one in part] for part in taken] == [["0", "1"], ["2", "3"]]
    assert len((await amqp("receive", queue=queue, count=9, wait=0.1))["messages"]) == 1


async def test_a_message_that_nobody_gets_is_a_failure(amqp):
    assert "no queue takes it: NO_ROUTE (312)" in await _failure(amqp("publish", queue="nowhere", text="x"))
    assert "NOT_FOUND" in await _failure(amqp("publish", exchange="nowhere", routing_key="x", text="x"))
    assert "NOT_FOUND" in await _failure(amqp("receive", queue="nowhere"))


async def test_wrong_credentials_are_refused_and_not_shown(amqp, context):
    said = await _failure(amqp("receive", queue="x", password="not-the-password"))
    assert "ACCESS_REFUSED" in said and "not-the-password" not in said + context.text
    assert "nowhere" in await _failure(amqp("receive", queue="x", virtual_host="nowhere"))


async def test_tls_is_checked_for_its_name(amqp, certs, server, queue):
    own = {"port": server.tls_port, "queue": queue, "declare": True, "text": "x"}
    ca = {"cacert": certs.text("ca.crt")}
    await amqp("publish", **own, **ca)
    assert "is not trusted" in await _failure(amqp("publish", **own, use_tls=True))
    assert "Hostname mismatch" in await _failure(amqp("publish", **own, **ca, hostname="localhost"))
    await amqp("publish", **own, use_tls=True, verify_ssl=False)


async def test_cancelled_what_was_delivered_stays_in_the_queue(amqp, queue):
    await amqp("publish", queue=queue, declare=True, text="a")
    work = asyncio.create_task(amqp("receive", queue=queue, count=2))
    while (await amqp("receive", queue=queue, wait=0.05, acknowledge=False))["messages"]:
        pass  # until the other has it
    work.cancel()
    with pytest.raises(asyncio.CancelledError):
        await work
    (message,) = (await amqp("receive", queue=queue))["messages"]  # which the broker gives only once the other has left
    assert message["text"] == "a" and message["redelivered"]


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (b"AMQP\0\0\x09\x01", "is not understood"),
        (b"\x01\0\0\xff\xff\xff\xff", "a frame of more than 128 KiB"),
        (b"\x01\0\0\0\0\0\4\xff\xff\xff\xff\xce", "is not understood"),
        (b"\x01\0\0\0\0\0\4\0\x0a\0\x0a\xce", "is not understood"),
        (b"\x08\0\0\0\0\0\0\xce" * 9, "closed the connection"),
        (b"HTTP/1.1 400 Bad Request\r\n\r\n", "is not understood"),
    ],
    ids=range(6),
)
async def test_a_broker_that_says_what_it_likes(call, answer, words):
    async def behaviour(reader, writer):
        writer.write(answer)
        writer.write_eof()
        await reader.read()

    async with host(behaviour) as strange:
        given = {"hostname": "127.0.0.1", "port": strange.port, "command": "receive", "queue": "x"}
        assert words in await _failure(call("AMQP", **given, retry_backoff=False, connect_timeout=2))


@pytest.mark.parametrize(
    ("inputs", "message"),
    [
        ({"text": "a"}, "needs the input 'queue': the queue (or 'routing_key' for an exchange)"),
        ({"queue": "q"}, "needs the input 'text': the message (or 'json' or 'content')"),
        (
            {"queue": "q", "text": "a", "json": 1},
            "cannot use the input 'json': there is a message already in 'text'; give one of them",
        ),
        ({"queue": "q", "content": "?"}, "cannot use the input 'content': expected base64"),
        (
            {"queue": "ü", "text": "a"},
            "cannot use the input 'queue': expected a name of letters, digits, blanks and -_.:@#,/+ of 127 at most",
        ),
        ({"command": "receive", "queue": "q", "text": "a"}, "cannot use the input 'text': receive sends nothing"),
    ],
    ids=range(6),
)
def test_inputs_that_cannot_be_used(tasks, inputs, message):
    with pytest.raises(errors.InputRefused) as refused:
        tasks.prepare("RABBITMQ", json.dumps({"hostname": "x", **inputs}).encode())
    assert refused.value.message == f"AMQP {message}"
