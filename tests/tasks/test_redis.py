"""REDIS, with a server that runs, and answers no server gives."""

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
    with services.redis(certs.folder) as running:
        yield running


@pytest.fixture
def redis(call, server: Service):
    async def run(command, *args, **inputs):
        given = {**server.access, "command": command, "args": list(args), "retry_backoff": False, **inputs}
        return (await call("REDIS", **given))["result"]

    return run


@pytest.fixture
def key() -> str:
    return uuid.uuid4().hex


async def _failure(coroutine) -> str:
    with pytest.raises(errors.TaskFailed) as failed:
        await coroutine
    return failed.value.message


async def test_what_was_set_is_read(redis, key):
    assert await redis("SET", key, "ü\r\n$5") == "OK"
    assert await redis("get", key) == "ü\r\n$5"
    assert await redis("GET", "nothing") is None
    assert await redis("INCRBY", key + "n", 5) == 5
    assert await redis("INCRBYFLOAT", key + "n", 0.5) == "5.5"


async def test_answers_have_their_shape(redis, key):
    await redis("HSET", key, "a", "1", "b", "2")
    assert await redis("HGETALL", key) == {"a": "1", "b": "2"}
    await redis("RPUSH", key + "l", "x", "y")
    assert await redis("LRANGE", key + "l", 0, -1) == ["x", "y"]
    await redis("ZADD", key + "z", "1.5", "m")
    assert await redis("ZSCORE", key + "z", "m") == 1.5
    assert await redis("ZRANGE", key + "z", 0, -1, "WITHSCORES") == [["m", 1.5]]
    assert await redis("EVAL", "return {1, {err='WHAT happened'}, false}", 0) == [1, {"error": "WHAT happened"}, None]


async def test_databases_are_apart_and_bytes_come_as_base64(redis, key):
    await redis("SET", key, "x", database=3)
    assert await redis("EXISTS", key) == 0
    assert await redis("GET", key, db=3, binary=True) == "eA=="
    await redis("SETBIT", key, 0, 1)
    assert "binary=True gives bytes in base64" in await _failure(redis("GET", key))
    assert await redis("GET", key, binary=True) == "gA=="


async def test_errors_are_told_in_the_servers_words(redis, key):
    await redis("SET", key, "x")
    assert (await _failure(redis("INCR", key))).endswith(": ERR value is not an integer or out of range")
    assert "unknown command" in await _failure(redis("NONSENSE"))
    assert "DB index is out of range" in await _failure(redis("GET", key, database=99))


async def test_wrong_credentials_are_refused_and_not_shown(redis, context):
    said = await _failure(redis("PING", password="not-the-password"))
    assert "WRONGPASS" in said and "not-the-password" not in said + context.text
    assert "NOAUTH" in await _failure(redis("PING", password=None, username=None))
    assert await redis("PING", username=None) == "PONG"
    assert "NOPERM" in await _failure(redis("SET", "a", "b", username="app"))


async def test_tls_is_checked_for_its_name(redis, certs, server):
    own = {"port": server.tls_port, "cacert": certs.text("ca.crt")}
    assert await redis("PING", **own) == "PONG"
    pair = {"client_cert": certs.text("client.crt"), "client_key": certs.text("client.key")}
    assert await redis("PING", **own, **pair) == "PONG"
    assert "is not trusted" in await _failure(redis("PING", port=server.tls_port, use_tls=True))
    assert "Hostname mismatch" in await _failure(redis("PING", **own, hostname="localhost"))
    assert await redis("PING", port=server.tls_port, use_tls=True, verify_ssl=False) == "PONG"
    assert "no connection to" in await _failure(redis("PING", use_tls=True, connect_timeout=0.2))


async def test_cancelled_the_server_waits_for_nothing_any_more(redis, key):
    work = asyncio.create_task(redis("BLPOP", key, 0))

    async def waiting() -> bool:
        return "cmd=blpop" in await redis("CLIENT LIST")

    while not await waiting():
        await asyncio.sleep(0.01)
    work.cancel()
    with pytest.raises(asyncio.CancelledError):
        await work
    while await waiting():
        await asyncio.sleep(0.01)


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (b"$99999999999\r\n", "larger than 64 MiB"),
        (b"*99999999999\r\n", "larger than 64 MiB"),
        (b"%99999999999\r\n", "larger than 64 MiB"),
        (b"*1\r\n" * 50, "nested deeper than 32 levels"),
        (b"+" + b"x" * 200_000, "a line of more than 64 KiB"),
        (b"$-5\r\n", "is not understood"),
        (b"*x\r\n", "is not understood"),
        (b"HTTP/1.1 400 Bad Request\r\n", "is not understood"),
        (b"-LOADING Redis is loading the dataset in memory\r\n", "LOADING"),
        (b"-MOVED 3999 10.0.0.1:6379\r\n", "MOVED 3999"),
        (b"$10\r\nabc", "closed the connection"),
    ],
    ids=range(11),
)
async def test_a_server_that_answers_what_it_likes(call, answer, words):
    async def behaviour(reader, writer):
        writer.write(b"+OK\r\n+OK\r\n" + answer)  # HELLO, CLIENT SETNAME and the command
        writer.write_eof()
        await reader.read()

    async with host(behaviour) as strange:
        said = await _failure(
            call("REDIS", hostname="127.0.0.1", port=strange.port, command="GET", retry_backoff=False)
        )
    assert words in said


@pytest.mark.parametrize(
    ("answer", "result"),
    [(b"%1\r\n+k\r\n~2\r\n#t\r\n_\r\n", {"k": [True, None]}), (b",inf\r\n", None), (b"=7\r\ntxt:abc\r\n", "abc"),
     (b">2\r\n+a\r\n+b\r\n|1\r\n+a\r\n+b\r\n(12345678901234567890\r\n", 12345678901234567890)],
    ids=range(4),
)  # fmt: skip
async def test_every_kind_of_answer_is_understood(call, answer, result):
    async def behaviour(reader, writer):
        writer.write(b"-ERR unknown command HELLO\r\n+OK\r\n" + answer)
        await reader.read()

    async with host(behaviour) as strange:
        output = await call("REDIS", hostname="127.0.0.1", port=strange.port, command="GET")
    assert output["result"] == result


@pytest.mark.parametrize(
    ("inputs", "message"),
    [
        ({}, "REDIS needs the input 'command': The command, such as GET or CLIENT LIST."),
        ({"command": " "}, "REDIS cannot use the input 'command': expected a command such as GET"),
        ({"command": "monitor"}, "REDIS cannot use the input 'command': MONITOR does not answer once and be done"),
        (
            {"command": "SET", "args": ["k", {}]},
            "REDIS cannot use the input 'args[1]': expected a whole number or a number or a text, got an object",
        ),
    ],
)
def test_inputs_that_cannot_be_used(tasks, inputs, message):
    with pytest.raises(errors.InputRefused) as refused:
        tasks.prepare("REDIS", json.dumps({"hostname": "x", **inputs}).encode())
    assert refused.value.message == message


def test_only_what_reads_is_repeated(tasks):
    def idempotent(command: str) -> bool:
        return tasks.prepare("VALKEY", json.dumps({"hostname": "x", "command": command}).encode()).idempotent

    assert idempotent("hgetall") and not idempotent("INCR") and not idempotent("CONFIG GET")
