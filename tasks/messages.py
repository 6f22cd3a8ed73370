"""Messages as the types that talk to brokers send and take them: their inputs, text or base64, within bounds."""

from __future__ import annotations

import base64
import binascii
from typing import Annotated, Any, Protocol

import msgspec

from ..engine import values
from . import host
from .definition import invalid, missing

Text = Annotated[str | None, host.about("For publish: the message as text.")]
Json = Annotated[Any, host.about("For publish: a message that is sent as JSON.")]
Content = Annotated[str | None, host.about("For publish: the message in base64.")]
Count = Annotated[
    int, msgspec.Meta(ge=1, le=10_000, description="For receive: how many messages to wait for. Default: 1.")
]
Wait = Annotated[
    Annotated[float, msgspec.Meta(gt=0)] | None,
    host.about("For receive: seconds after which fewer messages will do. Default: as long as it takes."),
]


class HasMessage(Protocol):
    """Inputs with a message to publish."""

    @property
    def text(self) -> str | None: ...
    @property
    def json(self) -> Any: ...
    @property
    def content(self) -> str | None: ...


def check_none(task: str, inputs: HasMessage) -> None:
    """Raise ``InputRefused`` for a message where one is received."""
    if given := _given(inputs):
        raise invalid(task, given[0], "receive sends nothing")


def check_one(task: str, inputs: HasMessage) -> None:
    """Raise ``InputRefused`` unless there is one message."""
    given = _given(inputs)
    if not given:
        raise missing(task, "text", "the message (or 'json' or 'content')")
    if len(given) > 1:
        raise invalid(task, given[1], f"there is a message already in '{given[0]}'; give one of them")
    try:
        payload(inputs)
    except binascii.Error:
        raise invalid(task, "content", "expected base64") from None


def _given(inputs: HasMessage) -> list[str]:
    return [name for name in ("text", "json", "content") if getattr(inputs, name) is not None]


def payload(inputs: HasMessage) -> bytes:
    """Return the message to publish."""
    if inputs.text is not None:
        return inputs.text.encode()
    return base64.b64decode(inputs.content, validate=True) if inputs.content is not None else values.encode(inputs.json)


def shown(body: bytes) -> dict[str, str]:
    """Return a message that came, as text, or in base64 where it is none."""
    try:
        return {"text": body.decode()}
    except UnicodeDecodeError:
        return {"content": base64.b64encode(body).decode()}


class Taken:
    """Messages that came, as JSON; all together within the bound of an output."""

    def __init__(self, advice: str) -> None:
        self._advice = advice
        self._bytes = 0
        self.kept: list[msgspec.Raw] = []

    @property
    def room(self) -> int:
        """How many bytes there is room for."""
        return values.VALUE_BYTES_MAX - self._bytes

    def add(self, message: dict[str, Any]) -> None:
        """Keep one more; raises ``host.Failed`` when they are too large together."""
        text = values.encode(message, "a message")
        self._bytes += len(text) + 1
        if self._bytes > values.VALUE_BYTES_MAX:
            raise self.too_much()
        self.kept.append(msgspec.Raw(text))

    def too_much(self) -> host.Failed:
        """Return what says that they are too large."""
        return host.Failed(f"the messages are larger than {values.VALUE_BYTES_MAX >> 20} MiB: {self._advice}")
