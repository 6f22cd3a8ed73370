"""OPENAI, with a chat API made from its public description."""

from __future__ import annotations

import asyncio
import json

import pytest
from aiohttp import web

from headrace.engine import errors

KEY = "sk-hush-hush-key"


class Api:
    """Answers what ``content`` says, and keeps what it was asked."""

    def __init__(self) -> None:
        self.asked: list[dict] = []
        self.content = "hello"
        self.failures: list[int] = []
        self.url = ""

    async def handler(self, request: web.Request) -> web.Response:
        if request.headers.get("Authorization") != f"Bearer {KEY}":
            said = {"message": f"Incorrect API key provided: {request.headers.get('Authorization')}"}
            return web.json_response({"error": said}, status=401)
        if self.failures:
            return web.json_response({"error": {"message": "later"}}, status=self.failures.pop(0))
        self.asked.append({"path": request.path, **await request.json()})
        choice = {"index": 0, "message": {"role": "assistant", "content": self.content}, "finish_reason": "stop"}
        usage = {"prompt_tokens": 5, "completion_tokens": 1, "total_tokens": 6}
        return web.json_response({"id": "x", "model": "small-1", "choices": [choice], "usage": usage})


@pytest.fixture
async def api(serve):
    made = Api()
    made.url = f"{await serve(made.handler)}/v1"
    return made


@pytest.fixture
def ask(call, api):
    async def run(prompt=None, **inputs):
        return await call("OPENAI", **{"url": api.url, "key": KEY, "model": "small", "prompt": prompt, **inputs})

    return run


async def _failure(coroutine) -> str:
    with pytest.raises(errors.TaskFailed) as failed:
        await coroutine
    return failed.value.message


async def test_a_prompt_is_answered(ask, api):
    output = await ask("hi", system="be short", temperature=0, max_tokens=9, options={"seed": 7})
    assert (output["text"], output["finish_reason"], output["model"]) == ("hello", "stop", "small-1")
    assert output["usage"]["total_tokens"] == 6
    assert api.asked == [
        {
            "path": "/v1/chat/completions",
            "model": "small",
            "messages": [{"role": "system", "content": "be short"}, {"role": "user", "content": "hi"}],
            "temperature": 0,
            "max_tokens": 9,
            "seed": 7,
        }
    ]
    conversation = [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]
    await ask(messages=conversation)
    assert api.asked[-1]["messages"] == conversation


async def test_an_answer_that_fits_a_schema_is_parsed(ask, api):
    schema = {"type": "object", "properties": {"n": {"type": "integer"}}}
    api.content = '{"n": 3}'
    assert (await ask("count", schema=schema))["json"] == {"n": 3}
    assert api.asked[0]["response_format"]["json_schema"]["schema"] == schema
    api.content = "three"
    assert "is not JSON, though a schema was given" in await _failure(ask("count", schema=schema))


async def test_a_busy_service_is_asked_again(ask, api, pacing):
    api.failures = [429, 503]
    assert (await ask("hi"))["text"] == "hello"
    assert len(pacing.pauses) == 2
    api.failures = [429]
    assert "status 429" in await _failure(ask("hi", retry_backoff=False))


async def test_a_wrong_key_is_refused_and_not_shown(ask, context):
    said = await _failure(ask("hi", key="sk-wrong-key-of-mine"))
    assert "status 401" in said and "sk-wrong-key-of-mine" not in said + context.text
    assert "sk-wrong-key-of-mine" in context.hidden


async def test_another_service_is_told_from_a_chat_api(call, serve):
    for answer in ({"choices": []}, [], {"choices": [{"message": "x"}]}):

        async def handler(request, answer=answer):
            return web.json_response(answer)

        given = {"url": await serve(handler), "model": "m", "prompt": "hi"}
        assert await _failure(call("CHAT", **given)) == "the answer is not one of a chat API"


async def test_cancelled_the_request_ends(call, serve):
    came, gone = asyncio.Event(), asyncio.Event()

    async def never(request):
        came.set()
        try:
            await asyncio.sleep(60)
        finally:
            gone.set()

    work = asyncio.create_task(call("OPENAI", url=await serve(never), model="m", prompt="hi"))
    await came.wait()
    work.cancel()
    with pytest.raises(asyncio.CancelledError):
        await work
    await gone.wait()


@pytest.mark.parametrize(
    ("inputs", "message"),
    [
        ({}, "needs the input 'prompt': what to ask (or 'messages')"),
        (
            {"messages": [{"role": "user"}], "system": "x"},
            "cannot use the input 'system': there are 'messages' already; give one of them",
        ),
        (
            {"prompt": "x", "options": {"stream": True}},
            "cannot use the input 'options.stream': there is an input for it, or it cannot be used",
        ),
        ({"prompt": "x", "url": "openai"}, "cannot use the input 'url': expected an address with http or https"),
    ],
)
def test_inputs_that_cannot_be_used(tasks, inputs, message):
    with pytest.raises(errors.InputRefused) as refused:
        tasks.prepare("OPENAI", json.dumps({"model": "m", **inputs}).encode())
    assert refused.value.message == f"OPENAI {message}"
