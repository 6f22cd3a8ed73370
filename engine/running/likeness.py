"""Whether a replayed handler gives its calls what the record says it gave, as far as the record tells.

A record does not keep everything (the inputs of a child are in the child's own), and what was masked in it is like
anything. Offline, differing arguments are noted and count only if asked for; after a crash they are passed over, but
for flows that ask for it (``strict``).
"""

from __future__ import annotations

from typing import Any

import msgspec

from .. import events, values
from ..state import masks, protection
from ..workers import protocol
from .given import Given

#: Both sides, as JSON values; None where nothing is known to differ.
Difference = tuple[Any, Any] | None
_CHARACTERS_MAX = 2_000


def has_mark(text: str) -> bool:
    """Return whether something in a recorded text is hidden."""
    return masks.MARKER in text or protection.MARKER in text


def like(recorded: Any, attempted: Any) -> bool:
    """Return whether a value can be the recorded one; what is masked in that can stand for any."""
    match recorded:
        case str():
            return has_mark(recorded) or (isinstance(attempted, str) and recorded == attempted)
        case dict():
            same = isinstance(attempted, dict) and recorded.keys() == attempted.keys()
            return same and all(like(value, attempted[key]) for key, value in recorded.items())
        case list():
            same = isinstance(attempted, list) and len(recorded) == len(attempted)
            return same and all(like(one, other) for one, other in zip(recorded, attempted, strict=True))
    return bool(recorded == attempted) and isinstance(recorded, bool) == isinstance(attempted, bool)


async def of_log(record: Given, said: protocol.Log) -> Difference:
    """Compare what is logged."""
    event = record.said.get(said.call)
    if not isinstance(event, events.LogWritten):
        return None
    recorded = [
        await record.value(event.args, event.args_blob),
        await record.value(event.kwargs, event.kwargs_blob),
    ]
    return _difference(recorded, [values.decode(said.args), values.decode(said.kwargs)])


async def of_call(record: Given, call: protocol.Call) -> Difference:
    """Compare what a call is given."""
    event = record.said.get(call.call)
    attempted = values.decode(call.args)
    if event is None or not isinstance(attempted, dict):
        return None
    if call.kind == "continue_as_new" and isinstance(event, events.CallEnded):
        return _difference(await record.value(event.result, event.result_blob), attempted.get("inputs"))
    if (child := await record.child(call.call)) is not None:
        return _difference(await record.value(child.inputs, child.inputs_blob), attempted.get("inputs"))
    match event:
        case events.CallStarted() | events.CallEnded():
            return _of_arguments(await record.value(event.args, event.args_blob), attempted)
        case events.ExecutionSaved():
            return await _of_saved(record, event, call.kind, attempted)
        case events.WebhookAnswered():
            recorded = [event.status, event.headers, await record.value(event.body, event.body_blob)]
            return _difference(recorded, [attempted.get(field) for field in ("status", "headers", "body")])
    return None


def _of_arguments(recorded: Any, attempted: dict[str, Any]) -> Difference:
    """Some calls record the whole of what they were given, some a part of it or only names of fields."""
    if isinstance(recorded, list):
        return _difference(recorded, attempted.get("fields"))
    if not isinstance(recorded, dict):
        return None
    known = {name: value for name, value in recorded.items() if name in attempted}
    given = {name: attempted[name] for name in known}
    for name, value in known.items():
        if isinstance(value, list) and isinstance(given[name], dict):
            given[name] = list(given[name])
    return _difference(known, given)


async def _of_saved(record: Given, event: events.ExecutionSaved, kind: str, attempted: dict[str, Any]) -> Difference:
    keys: dict[str, Any] = {key: values.decode(raw) for key, raw in event.output_keys.items()}
    keys |= {key: await record.value(msgspec.UNSET, blob) for key, blob in event.output_key_blobs.items()}
    if kind == "set_output":
        return _difference(keys, attempted.get("keys"))
    if kind == "append_output":
        last = {key: value[-1] if isinstance(value, list) and value else value for key, value in keys.items()}
        return _difference(last, {attempted.get("key"): attempted.get("value")})
    fields = attempted.get("fields", {})
    told = {"message": event.message, "name": event.name, "description": event.description}
    recorded: dict[str, Any] = {name: text for name, text in told.items() if text is not None and name in fields}
    given: dict[str, Any] = {name: _text(fields[name]) for name in recorded}
    if "output_value" in fields and (event.output is not msgspec.UNSET or event.output_blob is not None):
        recorded["output_value"] = await record.value(event.output, event.output_blob)
        output = fields["output_value"]
        given["output_value"] = (
            {key: value for key, value in output.items() if key != "logging"} if isinstance(output, dict) else output
        )
    return _difference(recorded, given)


def _text(value: Any) -> str:
    text = value if isinstance(value, str) else values.encode(value).decode()
    return values.shortened(text, values.TEXT_CHARACTERS_MAX)


def _difference(recorded: Any, attempted: Any) -> Difference:
    return None if like(recorded, attempted) else (recorded, attempted)


def shown(value: Any) -> str:
    """Return one side of a difference as text of bounded length."""
    return values.shortened(values.encode(value).decode(), _CHARACTERS_MAX)
