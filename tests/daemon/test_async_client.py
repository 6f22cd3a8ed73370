"""The asyncio client: as the synchronous one, awaited."""

import asyncio
import inspect

import pytest

from headrace.daemon import async_client, client, endpoint
from tests.support.contract_server import TOKEN


@pytest.fixture(params=["near", "far"])
async def either(request, server):
    """The same daemon over the unix socket and over TCP."""
    found = {"near": {"state": str(server.state)}, "far": {"url": server.url, "token": TOKEN}}[request.param]
    async with async_client.AsyncClient.find(**found, environ={}) as one:
        yield one


def test_every_method_is_one_of_the_synchronous_client_with_its_arguments():
    for name, method in vars(async_client.AsyncClient).items():
        if name.startswith("_") or name in ("aclose", "find"):
            continue
        theirs = inspect.signature(getattr(client.Client, name)).parameters
        ours = inspect.signature(method).parameters
        assert set(ours) <= set(theirs), name
        assert all(ours[one].default == theirs[one].default for one in ours), name


async def test_a_flow_is_run_and_waited_for(either):
    assert [flow["name"] for flow in await either.flows()][:2] == ["hello", "reports/daily"]
    assert "def handler" in (await either.flow("reports/daily"))["script"]
    ended = await either.wait((await either.run("reports/daily", {"name": "Ada"}))["id"])
    assert (ended["status"], ended["output_value"]) == ("ENDED_SUCCESS", {"greeting": "hello Ada"})


async def test_many_are_waited_for_together(either, server):
    ids = [(await either.run("slow"))["id"] for _ in range(5)]
    waiting = [asyncio.create_task(either.wait(one)) for one in ids]
    for number, one in enumerate(ids):
        server.finish(one, output_value=number)
    assert [(await one)["output_value"] for one in waiting] == [0, 1, 2, 3, 4]
    assert (await either.wait((await either.run("slow"))["id"], timeout_s=0.05))["status"] == "RUNNING"


async def test_a_stream_that_breaks_is_resumed_without_gap_or_repetition(either, server):
    server.drop_after = [1, 1]
    id_ = (await either.run("hello"))["id"]
    seen = [event async for event in either.follow_log(id_)]
    numbers = [int(event.id) for event in seen if event.event == "log"]
    assert numbers == sorted(set(numbers)) and len(numbers) >= 2 and seen[-1].event == "end"


async def test_refusals_are_raised_as_the_synchronous_client_does(either, server, tmp_path):
    with pytest.raises(endpoint.NotFound):
        await either.flow("nope")
    async with async_client.AsyncClient.find(server.url, "hr_wrong", environ={}) as stranger:
        with pytest.raises(endpoint.NotAllowed):
            await stranger.flows()
    async with async_client.AsyncClient.find("http://127.0.0.1:1", environ={}) as nobody:
        with pytest.raises(endpoint.Unreachable):
            await nobody.flows()
