"""The recorded answer to a call, given again: to a handler that is replayed after a crash, and to one replayed offline.

A record keeps marks where a call answered with ended executions (``views.mark``): what a handler learns of those is
rebuilt from their own records, and is the same each time, because what has ended does not change.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import msgspec

from .. import events, model, values
from ..workers import protocol
from . import history, views

#: Returns an execution's state; raises ``NotFound``.
Load = Callable[[str], Awaitable[model.Execution]]


async def result(entry: history.Entry, reading: views.Reading, load: Load) -> bytes:
    """Return the result of a call that ended well, as JSON text; raises ``NotFound`` if a record it needs is gone."""
    text = bytes(await reading.contents.true(entry.result))
    if not entry.children:
        return text
    said = values.decode(text)
    ended = [await views.ended_for_flow(reading, await load(execution)) for execution in ended_in(said)]
    if isinstance(said, list):
        return values.encode([msgspec.Raw(shown) for shown in ended])
    return ended[0] if ended else text


async def refusal(call: int, failure: events.Failure, reading: views.Reading, load: Load) -> bytes:
    """Return the frame that raises what a call raised; raises as ``result`` does."""
    shown = None
    if failure.execution:
        shown = await views.ended_for_flow(reading, await load(failure.execution))
    return protocol.refusal(call, failure.type, failure.message, shown)


def ended_in(said: Any) -> list[str]:
    """Return the ids of the ended executions that a result's marks stand for."""
    if isinstance(said, list):
        return [mark["id"] for mark in said]
    return [said["id"]] if isinstance(said, dict) and "status" in said else []
