"""PROMETHEUS, with a server that watches itself."""

from __future__ import annotations

import asyncio
import json
import time

import pytest
from aiohttp import web

from headrace.engine import errors
from headrace.tasks import definition, egress, registry
from tests.support import services

TOKEN = "hush-hush-token"


@pytest.fixture(scope="module")
def server():
    with services.prometheus() as address:
        yield address


@pytest.fixture
def ask(call, server):
    async def run(query, **inputs):
        return await call("PROMETHEUS", **{"url": server, "query": query, "retry_backoff": False, **inputs})

    return run


async def _failure(coroutine) -> str:
    with pytest.raises(errors.TaskFailed) as failed:
        await coroutine
    assert TOKEN not in failed.value.message
    return failed.value.message


async def test_values_come_back_at_a_moment_and_over_a_time(ask):
    while (await ask("up"))["value"] != 1.0:
        await asyncio.sleep(0.02)
    vector = await ask('up{job="itself"}')
    assert vector["type"] == "vector" and vector["result"][0]["metric"]["job"] == "itself"
    assert (await ask("1 + 2"))["value"] == 3.0
    assert (await ask("up", time=1000))["result"] == []
    assert (await ask('"ü"'))["result"][1] == "ü"
    now = time.time()
    matrix = await ask("vector(2)", start=now - 20, end=now, step="10s")
    assert matrix["type"] == "matrix" and [value for _, value in matrix["result"][0]["values"]] == ["2"] * 3


async def test_errors_are_told_in_the_servers_words(ask):
    assert (await _failure(ask("up{"))).startswith("bad_data: ")
    port = services.free_port()
    assert f"connection refused by 127.0.0.1:{port}" in await _failure(ask("up", url=f"http://127.0.0.1:{port}"))


async def test_credentials_are_sent_and_not_shown(call, serve, context):
    seen = []

    async def handler(request):
        seen.append(request.headers.get("Authorization"))
        return web.Response(status=401, text=f"who is {seen[-1]}?")

    given = {"url": await serve(handler), "query": "up", "retry_backoff": False}
    assert "status 401" in await _failure(call("PROMETHEUS", **given, token=TOKEN))
    assert "status 401" in await _failure(call("PROMETHEUS", **given, username="u", password=TOKEN))
    assert seen[0] == f"Bearer {TOKEN}" and seen[1].startswith("Basic ")
    assert TOKEN not in context.text
    assert context.hidden == [TOKEN, TOKEN]  # what the server repeats of it is masked in records


@pytest.mark.parametrize(
    "answer", ["[]", "hello", '{"status": "success"}', '{"status": "success", "data": {"resultType": 1}}']
)
async def test_another_service_is_told_from_prometheus(call, serve, answer):
    async def handler(request):
        return web.Response(text=answer)

    given = {"url": await serve(handler), "query": "up"}
    assert await _failure(call("PROMETHEUS", **given)) == "the answer is not one of Prometheus"


async def test_an_address_the_operator_forbids(server, context):
    tasks = registry.installed(definition.Settings(egress=egress.Egress(deny_private=True)))
    with pytest.raises(errors.TaskFailed, match="127.0.0.1 is not a public address"):
        await tasks.prepare("PROMETHEUS", json.dumps({"url": server, "query": "up"}).encode()).run(context)
    await tasks.aclose()


@pytest.mark.parametrize(
    ("inputs", "message"),
    [
        ({"query": " "}, "cannot use the input 'query': expected an expression, got an empty text"),
        ({"start": 1, "step": 5}, "needs the input 'end': start, end and step belong together"),
        (
            {"start": 1, "end": 2, "step": 5, "time": 1},
            "cannot use the input 'time': 'start' asks for values over a time; give one of them",
        ),
        (
            {"token": "t", "username": "u"},
            "cannot use the input 'token': there is a 'username' already; give one of them",
        ),
        ({"url": "prometheus:9090"}, "cannot use the input 'url': expected an address with http or https"),
        ({"cacert": "x"}, "cannot use the input 'cacert': expected certificates as PEM text"),
    ],
)
def test_inputs_that_cannot_be_used(tasks, inputs, message):
    with pytest.raises(errors.InputRefused) as refused:
        tasks.prepare("PROMETHEUS", json.dumps({"url": "http://x", "query": "up", **inputs}).encode())
    assert refused.value.message == f"PROMETHEUS {message}"
