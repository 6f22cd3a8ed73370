"""OPENAI: ask a language model, at OpenAI or wherever its chat API is spoken.

The answer is data: whoever wrote what the model read may have written into it.
"""

from __future__ import annotations

import functools
from typing import Annotated, Any

import msgspec

from ..engine import errors, ports, values
from . import definition as definitions
from . import web_service
from .definition import invalid, missing
from .host import about

TASK = "OPENAI"
URL = "https://api.openai.com/v1"


class OpenaiInputs(web_service.ServiceInputs, kw_only=True):
    """The inputs of OPENAI."""

    url: Annotated[str, about("The address of the API. Default: https://api.openai.com/v1.")] = URL
    key: Annotated[str | None, about("The API key.")] = None
    model: Annotated[str, about("The model's name.")]
    prompt: Annotated[str | None, about("What to ask.")] = None
    system: Annotated[str | None, about("What the model shall keep in mind, with prompt.")] = None
    messages: Annotated[
        list[dict[str, Any]] | None, about("A whole conversation instead of prompt: {role, content} each.")
    ] = None
    schema: Annotated[
        dict[str, Any] | None, about("A JSON Schema that the answer has to fit; it is then parsed into json.")
    ] = None
    temperature: Annotated[
        Annotated[float, msgspec.Meta(ge=0, le=2)] | None,
        about("How free the answer is, 0 to 2. Default: the model's."),
    ] = None
    max_tokens: Annotated[
        Annotated[int, msgspec.Meta(ge=1)] | None, about("How long the answer may be. Default: the model's.")
    ] = None
    options: Annotated[dict[str, Any] | None, about("More fields of the request, such as tools.")] = None


class OpenaiOutput(msgspec.Struct, kw_only=True):
    """The output of OPENAI."""

    text: str | None = None  #: the answer
    json: Any = None  #: the answer, parsed, with a schema
    message: Any = None  #: all of the answer's message, such as calls of tools
    finish_reason: str | None = None
    model: str | None = None  #: which model answered
    usage: Any = None  #: tokens, as the service counts them


def _check(inputs: OpenaiInputs) -> None:
    web_service.check(TASK, inputs, inputs.url)
    if inputs.prompt is None and not inputs.messages:
        raise missing(TASK, "prompt", "what to ask (or 'messages')")
    if inputs.messages is not None:
        for name in ("prompt", "system"):
            if getattr(inputs, name) is not None:
                raise invalid(TASK, name, "there are 'messages' already; give one of them")
    taken = {"model", "messages", "stream", "temperature", "response_format"} & (inputs.options or {}).keys()
    if taken:
        raise invalid(TASK, f"options.{min(taken)}", "there is an input for it, or it cannot be used")


def _body(inputs: OpenaiInputs) -> dict[str, Any]:
    messages = inputs.messages
    if messages is None:
        system = [{"role": "system", "content": inputs.system}] if inputs.system is not None else []
        messages = [*system, {"role": "user", "content": inputs.prompt}]
    body = {**(inputs.options or {}), "model": inputs.model, "messages": messages}
    if inputs.temperature is not None:
        body["temperature"] = inputs.temperature
    if inputs.max_tokens is not None:
        body["max_completion_tokens" if inputs.url == URL else "max_tokens"] = inputs.max_tokens
    if inputs.schema is not None:
        described = {"name": "answer", "schema": inputs.schema, "strict": True}
        body["response_format"] = {"type": "json_schema", "json_schema": described}
    return body


async def _run(service: web_service.Service, inputs: OpenaiInputs, context: ports.TaskContext) -> OpenaiOutput:
    answer = await service.call(
        inputs,
        context,
        f"{inputs.url.rstrip('/')}/chat/completions",
        method="post",
        json=_body(inputs),
        headers={"Authorization": f"Bearer {inputs.key}"} if inputs.key is not None else None,
        expected_status_code=200,
        # Asking again costs again and changes nothing.
        retry_backoff=True if inputs.retry_backoff is None else inputs.retry_backoff,
    )
    try:
        choice = answer.json["choices"][0]
        message = choice["message"]
        output = OpenaiOutput(
            text=message.get("content"),
            message=message,
            finish_reason=choice.get("finish_reason"),
            model=answer.json.get("model"),
            usage=answer.json.get("usage"),
        )
    except (LookupError, TypeError, AttributeError):
        raise web_service.unexpected("a chat API", answer) from None
    if inputs.schema is not None:
        try:
            output.json = msgspec.json.decode(output.text or "")
        except (msgspec.DecodeError, TypeError, RecursionError):
            shown = values.encode(output, "the answer")
            raise errors.TaskFailed("the answer is not JSON, though a schema was given", output=shown) from None
    return output


def definition(settings: definitions.Settings) -> definitions.TaskDefinition[OpenaiInputs]:
    """Return the task type OPENAI."""
    service = web_service.service(settings)
    return definitions.TaskDefinition(
        name=TASK,
        summary="Ask a language model",
        description="One answer of a model, at OpenAI or wherever its chat API is spoken.",
        inputs=OpenaiInputs,
        output=OpenaiOutput,
        run=functools.partial(_run, service),
        idempotent=lambda _: True,
        check=_check,
        aliases=("CHAT",),
        input_aliases={"api_key": "key", "base_url": "url"},
        close=service.connections.aclose,
    )
