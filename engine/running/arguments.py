"""The arguments of each call a handler may make, as its process sends them.

They come from other people's code: a shape that does not fit is an ``InvalidRequest``, which the flow meets as
``InvalidInputError``.
"""

from __future__ import annotations

from typing import TypeVar

import msgspec

from .. import errors
from ..workers import protocol
from .waiting import ReturnWhen

_Args = TypeVar("_Args", bound=msgspec.Struct)


class Child(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Arguments of ``flow`` and ``task``. ``mode``: create, start, or a ``ReturnWhen`` to start and wait."""

    inputs: msgspec.Raw
    mode: str
    name: str | None = None


class Run(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Arguments of ``run``: start an execution that was only created."""

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


class Cancel(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Arguments of ``cancel``."""

    execution: str


def decoded(call: protocol.Call, shape: type[_Args]) -> _Args:
    """Return the arguments of a call; raises ``InvalidRequest`` naming what is wrong with them."""
    try:
        return msgspec.json.decode(call.args, type=shape)
    except (msgspec.MsgspecError, UnicodeError, RecursionError) as error:
        raise errors.InvalidRequest(f"the arguments of {call.kind!r} are wrong: {error}") from None
