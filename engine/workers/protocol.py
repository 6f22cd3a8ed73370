"""The daemon's half of the frames: what a flow process may say, typed and bounded, and what it is told.

A flow process runs other people's code, so its frames are outside data: an unknown shape is an ``InvalidRequest`` here
and the end of that process, never an exception deep in the engine. Values stay unopened (``msgspec.Raw``).
"""

from __future__ import annotations

from typing import Literal

import msgspec

from .. import errors, events, values
from ..guest import frames

_EMPTY = msgspec.Raw(b"{}")


class Call(msgspec.Struct, frozen=True, tag_field="op", tag="call"):
    """The handler calls and waits for the answer."""

    call: int
    kind: str
    target: str = ""
    args: msgspec.Raw = _EMPTY
    where: str = ""  # the line of the flow: file:line


class Log(msgspec.Struct, frozen=True, tag_field="op", tag="log"):
    """The handler logs and goes on."""

    call: int
    level: str
    args: msgspec.Raw
    kwargs: msgspec.Raw
    stream: Literal["", "logging"] = ""  # Python's logging, or this.log


class Output(msgspec.Struct, frozen=True, tag_field="op", tag="out"):
    """The flow printed ``text``, or wrote it to ``sys.stderr``."""

    stream: Literal["stdout", "stderr"]
    text: str


class Effect(msgspec.Struct, frozen=True, tag_field="op", tag="effect"):
    """The flow is about to have an effect of its own, and waits for ``noticed`` before it has it."""

    event: str  # Python's audit event
    detail: str = ""
    file: str = ""
    line: int = 0


class Begin(msgspec.Struct, frozen=True, tag_field="op", tag="begin"):
    """The process has taken a start out of its queue that is too long for that, and wants to have it."""


class Settle(msgspec.Struct, frozen=True, tag_field="op", tag="settle"):
    """The process wants to know that everything before this was taken up."""


class Ended(msgspec.Struct, frozen=True, tag_field="op", tag="ended"):
    """The handler left. ``dirty`` says in words why the process cannot be used again, if so; ``again`` that it takes
    the next execution, which it does after a success only."""

    outcome: str  # success | error | cancelled | continued
    message: str = ""
    returned: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET
    failure: events.Failure | None = None
    dirty: str = ""
    met_cancel: bool = False  # the handler was told that it is cancelled, whatever it made of that
    again: bool = False
    took_s: float = 0.0


Said = Call | Log | Output | Effect | Begin | Settle | Ended
_decoder: msgspec.json.Decoder[Said] = msgspec.json.Decoder(Said)


def decode(text: bytes) -> Said:
    """Return what a flow process said; raises ``InvalidRequest`` for anything it may not say."""
    try:
        return _decoder.decode(text)
    except (msgspec.MsgspecError, UnicodeError, RecursionError) as error:
        raise errors.InvalidRequest(f"the flow process sent something that is no frame: {error}") from None


def settled() -> bytes:
    """Return the frame that answers ``Settle``."""
    return frames.pack(b"{}")


def noticed() -> bytes:
    """Return the frame that answers ``Effect``: it is on disk, and may happen."""
    return frames.pack(frames.NOTICED)


def cancelled(execution: str) -> bytes:
    """Return the frame that tells a handler which makes no call that waits."""
    return frames.pack(values.encode({"cancel": execution}))


def answer(call: int, result: bytes | None) -> bytes:
    """Return the frame with the result of a call."""
    return frames.pack(b'{"call":%d,"result":%b}' % (call, b"null" if result is None else result))


def refusal(call: int, kind: str, message: str, execution: bytes | None = None) -> bytes:
    """Return the frame that raises the flow-side exception ``kind``; ``execution`` is the failed one's fields."""
    failure: dict[str, object] = {"type": kind, "message": message}
    if execution is not None:
        failure["execution"] = msgspec.Raw(execution)
    return frames.pack(values.encode({"call": call, "failure": failure}))


class Start(msgspec.Struct, frozen=True, kw_only=True):
    """What makes a flow process run an execution: its fields (an object's text) and its code."""

    execution: msgspec.Raw
    snapshot: str
    path: str = ""  # of the flow below the snapshot
    script: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET  # a JSON string, for an execution of type SCRIPT
    webhook: bool = False  # the inputs are a webhook's delivery
    replayed: int = 0  # calls up to this number are answered from the record
    system: dict[str, str]  # user, workspace, environment
    max_memory: int = 0  # bytes of its own that each process of it may have; 0: any number


def start(said: Start) -> bytes:
    """Return the text of ``said``, to be sent as a frame, or through the queue of a process."""
    return values.encode(said)
