"""The arguments of each call a handler may make, as its process sends them.

They come from other people's code: a shape that does not fit is an ``InvalidRequest``, which the flow meets as
``InvalidInputError``.
"""

from __future__ import annotations

from typing import Any, TypeVar

import msgspec

from .. import errors
from ..workers import protocol
from .waiting import ReturnWhen

_Args = TypeVar("_Args", bound=msgspec.Struct)


class Init(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How a child is made beside its inputs; ``retention_time`` in seconds."""

    orphan: bool | msgspec.UnsetType = msgspec.UNSET
    protect_inputs: tuple[str, ...] = ()
    protect_outputs: tuple[str, ...] = ()
    retention_time: float | msgspec.UnsetType | None = msgspec.UNSET


class Child(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Arguments of ``flow``, ``task`` and ``clone``. ``mode``: create, start, or a ``ReturnWhen`` to start and wait."""

    inputs: msgspec.Raw
    mode: str
    name: str | None = None
    init: Init = Init()


class Connect(Child, frozen=True, forbid_unknown_fields=True):
    """Arguments of ``connect``."""

    connection_type: str | None = None


class Script(Child, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Arguments of ``script``."""

    text: str


class Run(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Arguments of ``run``: start an execution that was only created, or resume one that is paused."""

    execution: str
    mode: str


class Wait(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Arguments of ``wait``; ``timeout`` in seconds."""

    executions: tuple[str, ...]
    return_when: ReturnWhen
    timeout: float | None = None


class Sleep(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Arguments of ``sleep``: so many seconds, or until a moment (seconds since the epoch)."""

    seconds: float | None = None
    until: float | None = None


class Get(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Arguments of ``get``."""

    execution: str
    fields: tuple[str, ...]


class Save(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Arguments of ``save``."""

    execution: str
    fields: dict[str, msgspec.Raw]


class SetOutput(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Arguments of ``set_output``."""

    execution: str
    keys: dict[str, msgspec.Raw]


class AppendOutput(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Arguments of ``append_output``."""

    execution: str
    key: str
    value: msgspec.Raw


class Of(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Arguments of ``cancel`` and ``pause``."""

    execution: str


class Patience(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Arguments of calls that wait, at most ``timeout`` seconds."""

    timeout: float | None = None


class Message(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Arguments of ``message``."""

    message_type: str
    body: msgspec.Raw
    wait: bool
    timeout: float | None = None


class Step(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Arguments of ``step``: what it came to."""

    result: msgspec.Raw


class Continue(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Arguments of ``continue_as_new``."""

    inputs: msgspec.Raw


class Answer(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Arguments of ``webhook_response``."""

    status: int
    headers: dict[str, str]
    body: str
    binary: bool


class Select(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Arguments of calls about one record: whether the target is a name or an id, if that was said."""

    by: str | None = None


class Fields(Select, frozen=True, forbid_unknown_fields=True):
    """Arguments of ``….get``."""

    fields: tuple[str, ...] = ()


class Written(Select, frozen=True, forbid_unknown_fields=True):
    """Arguments of ``….save`` and ``….clone``."""

    fields: dict[str, msgspec.Raw] = {}


class Chosen(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Arguments of ``….list``; ``dir`` and ``glob`` choose files."""

    filter: Any = None
    dir: str | None = None
    glob: str | None = None


class Append(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Arguments of ``setting.append``."""

    item: msgspec.Raw


class Content(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Arguments of ``file.write``: base64."""

    content: bytes


class Secret(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Arguments of ``vault.read`` and ``vault.write``."""

    path: str
    data: dict[str, Any] = {}


class Nothing(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """No arguments; ``by`` is said all the same by calls that come from a record."""

    by: str | None = None


def decoded(call: protocol.Call, shape: type[_Args]) -> _Args:
    """Return the arguments of a call; raises ``InvalidRequest`` naming what is wrong with them."""
    try:
        return msgspec.json.decode(call.args, type=shape)
    except (msgspec.MsgspecError, UnicodeError, RecursionError) as error:
        raise errors.InvalidRequest(f"the arguments of {call.kind!r} are wrong: {error}") from None
