"""SLACK and MSTEAMS: a message into a channel, through the address that the channel gave out for that.

Whoever knows such an address may write there, so it is a secret: no record shows it, and no message. Mattermost and
Rocket.Chat take what Slack takes.
"""

from __future__ import annotations

import functools
import urllib.parse
from collections.abc import Callable
from typing import Annotated, Any

import msgspec

from ..engine import errors, ports
from . import definition as definitions
from . import web_service
from .host import about

#: The largest message the services take, roughly (Teams: 28 KB; Slack: 40,000 characters).
BYTES_MAX = {"SLACK": 160_000, "MSTEAMS": 28_000}


class ChatInputs(web_service.ServiceInputs, kw_only=True):
    """What both take."""

    url: Annotated[str, about("(or webhook_url) The address the channel gave out: a secret.")]
    text: Annotated[str | None, about("The message, in the service's own markup.")] = None


class SlackInputs(ChatInputs, kw_only=True):
    """The inputs of SLACK."""

    blocks: Annotated[list[dict[str, Any]] | None, about("Slack's Block Kit, as it is.")] = None
    channel: Annotated[str | None, about("Another channel, where the server allows it (Mattermost).")] = None
    username: Annotated[str | None, about("Another name, where the server allows it.")] = None


class MsteamsInputs(ChatInputs, kw_only=True):
    """The inputs of MSTEAMS."""

    title: Annotated[str | None, about("A heading above the text.")] = None
    facts: Annotated[dict[str, str] | None, about("Names and values, shown as a table.")] = None
    card: Annotated[dict[str, Any] | None, about("An Adaptive Card, as it is, instead of text.")] = None


class ChatOutput(msgspec.Struct, kw_only=True):
    """The output of both."""

    status_code: int
    text: str


def _slack(inputs: SlackInputs) -> dict[str, Any]:
    names = ("text", "blocks", "channel", "username")
    return {name: getattr(inputs, name) for name in names if getattr(inputs, name) is not None}


def _msteams(inputs: MsteamsInputs) -> dict[str, Any]:
    """Return a message with an Adaptive Card: what workflows take, and connectors before them took."""
    body: list[dict[str, Any]] = []
    if inputs.title is not None:
        body.append({"type": "TextBlock", "text": inputs.title, "weight": "Bolder", "size": "Medium", "wrap": True})
    if inputs.text is not None:
        body.append({"type": "TextBlock", "text": inputs.text, "wrap": True})
    if inputs.facts:
        facts = [{"title": name, "value": value} for name, value in inputs.facts.items()]
        body.append({"type": "FactSet", "facts": facts})
    card = inputs.card or {
        "$schema": "http://adaptivecards.io/schemas/adaptive-card.json",
        "type": "AdaptiveCard",
        "version": "1.4",
        "body": body,
    }
    attachment = {"contentType": "application/vnd.microsoft.card.adaptive", "contentUrl": None, "content": card}
    return {"type": "message", "attachments": [attachment]}


def _check(task: str, shaped: Callable[[Any], dict[str, Any]], rich: str, inputs: Any) -> None:
    web_service.check(task, inputs, inputs.url)
    if inputs.text is None and getattr(inputs, rich) is None:
        raise definitions.missing(task, "text", f"the message, or '{rich}'")
    if len(msgspec.json.encode(shaped(inputs))) > BYTES_MAX[task]:
        raise definitions.invalid(task, "text", f"a message may have {BYTES_MAX[task]:,} bytes")


async def _run(
    task: str,
    service: web_service.Service,
    shaped: Callable[[Any], dict[str, Any]],
    inputs: Any,
    context: ports.TaskContext,
) -> ChatOutput:
    context.hide(inputs.url)
    context.hide(urllib.parse.urlsplit(inputs.url).path)  # what tells one address from another, however it is spelled
    try:
        output = await service.call(inputs, context, inputs.url, method="post", json=shaped(inputs))
    except errors.TaskFailed as failed:
        words = failed.message.replace(inputs.url, "***")
        # REST shows the address as it parsed it, which may be spelled otherwise: what is left after it is enough.
        _, _, said = words.partition(": ")
        raise errors.TaskFailed(f"{task}: {said or words}") from None
    return ChatOutput(status_code=output.status_code, text=str(output.text or "")[:1000])


def _definition(
    task: str, settings: definitions.Settings, inputs: type[Any], shaped: Callable[[Any], dict[str, Any]], rich: str
) -> definitions.TaskDefinition[Any]:
    service = web_service.service(settings)
    called = {"SLACK": "Slack, Mattermost or Rocket.Chat", "MSTEAMS": "Microsoft Teams"}[task]
    return definitions.TaskDefinition(
        name=task,
        summary=f"Write into a channel of {called}",
        description="Posts one message to the address that a channel gave out. The address is a secret.",
        inputs=inputs,
        output=ChatOutput,
        run=functools.partial(_run, task, service, shaped),
        idempotent=lambda _: False,
        check=functools.partial(_check, task, shaped, rich),
        secret_inputs=frozenset({"url"}),
        input_aliases={"webhook_url": "url"},
        close=service.connections.aclose,
    )


def slack(settings: definitions.Settings) -> definitions.TaskDefinition[Any]:
    """Return the task type SLACK."""
    return _definition("SLACK", settings, SlackInputs, _slack, "blocks")


def msteams(settings: definitions.Settings) -> definitions.TaskDefinition[Any]:
    """Return the task type MSTEAMS."""
    return _definition("MSTEAMS", settings, MsteamsInputs, _msteams, "card")
