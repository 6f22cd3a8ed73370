"""SLACK and MSTEAMS, with servers that stand for them: neither product can be had here."""

from __future__ import annotations

import pytest
from aiohttp import web

from headrace.engine import errors
from tests.support import services

SECRET = "T000-B000-hush-hush"


@pytest.fixture
async def channel(serve):
    """A server that keeps what it is given; gives the address and what came."""
    came: list = []

    async def answer(request):
        came.append(await request.json())
        return web.Response(text="ok")

    return f"{await serve(answer)}/services/{SECRET}", came


async def test_slack_gets_its_shape(call, channel, context):
    address, came = channel
    output = await call("SLACK", webhook_url=address, text="*done*", blocks=[{"type": "divider"}])
    assert output == {"status_code": 200, "text": "ok"}
    assert came == [{"text": "*done*", "blocks": [{"type": "divider"}]}] and context.hidden == [
        address,
        f"/services/{SECRET}",
    ]


async def test_teams_gets_a_card(call, channel):
    address, came = channel
    await call("MSTEAMS", url=address, title="Deploy", text="done", facts={"version": "1.4"})
    [attachment] = came[0]["attachments"]
    assert came[0]["type"] == "message" and attachment["contentType"].endswith("card.adaptive")
    kinds = [one["type"] for one in attachment["content"]["body"]]
    assert kinds == ["TextBlock", "TextBlock", "FactSet"]
    await call("MSTEAMS", url=address, card={"type": "AdaptiveCard", "body": []})
    assert came[1]["attachments"][0]["content"] == {"type": "AdaptiveCard", "body": []}


@pytest.mark.parametrize("type_", ["SLACK", "MSTEAMS"])
async def test_no_failure_tells_the_address(call, serve, context, type_):
    async def refuse(request):
        return web.Response(status=403, text="invalid_token")

    said = []
    for address in (await serve(refuse), f"http://127.0.0.1:{services.free_port()}", "http://nowhere.invalid"):
        with pytest.raises(errors.TaskFailed) as failed:
            await call(type_, url=f"{address}/services/{SECRET}?sig={SECRET}", text="x", retry_backoff=False)
        assert SECRET not in failed.value.message + failed.value.output.decode() + context.text
        said.append(failed.value.message)
    assert said[0] == f"{type_}: status 403, expected 200 or 201 or 202 or 204: invalid_token"
    assert "connection refused" in said[1] and "cannot be resolved" in said[2]


@pytest.mark.parametrize(
    ("type_", "inputs", "message"),
    [
        ("SLACK", {}, "SLACK needs the input 'text': the message, or 'blocks'"),
        ("MSTEAMS", {}, "MSTEAMS needs the input 'text': the message, or 'card'"),
        ("MSTEAMS", {"text": "x" * 30000}, "MSTEAMS cannot use the input 'text': a message may have 28,000 bytes"),
        ("SLACK", {"url": "hooks.example"}, "SLACK cannot use the input 'url': expected an address with http or https"),
    ],
    ids=range(4),
)
async def test_inputs_that_cannot_be_used(call, type_, inputs, message):
    with pytest.raises(errors.InputRefused) as refused:
        await call(type_, **{"url": "http://x", **inputs})
    assert refused.value.message == message


def test_a_message_is_not_repeated_and_its_address_is_not_shown(tasks):
    prepared = tasks.prepare("SLACK", b'{"url":"http://x","text":"x"}')
    assert not prepared.idempotent and prepared.secret_inputs == {"url"}
