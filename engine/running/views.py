"""What an execution looks like: to flows, by the names of the flow contract, and to people, by those of the API.

Both come from the same state and differ in a few fields only. Values pass through unopened; only those kept in files
are read here.
"""

from __future__ import annotations

from typing import Any

import msgspec

from .. import errors, model, values
from ..records import listing
from . import live

_EMPTY = msgspec.Raw(b"{}")

#: Field of the flow contract -> attribute of ``model.Execution``.
_PLAIN = {
    "id": "id",
    "name": "name",
    "type": "type",
    "status": "status",
    "message": "message",
    "status_message": "message",
    "created_at": "created_at",
    "started_at": "started_at",
    "ended_at": "ended_at",
    "created_by": "created_by",
    "flow_id": "flow_id",
    "flow_name": "flow_name",
    "commit": "commit",
}
#: What a flow may ask of an execution.
FIELDS = (*_PLAIN, "parent_execution_id", "input_value", "output_value", "is_paused")
#: What a handle gets of an execution that has ended: everything, for it will not change any more.
_ENDED_FIELDS = tuple(field for field in FIELDS if field != "input_value")


async def for_flow(ledger: live.Ledger, state: model.Execution, fields: tuple[str, ...]) -> dict[str, Any]:
    """Return the ``fields`` of an execution; raises ``InvalidRequest`` for a name that is not one."""
    shown: dict[str, Any] = {}
    for field in fields:
        if field in _PLAIN:
            shown[field] = getattr(state, _PLAIN[field])
        elif field == "parent_execution_id":
            shown[field] = state.parent or None
        elif field == "input_value":
            shown[field] = await ledger.opened(state.inputs)
        elif field == "output_value":
            shown[field] = await output(ledger, state)
        elif field == "is_paused":
            shown[field] = False
        else:
            raise errors.InvalidRequest(f"an execution has no field {field!r}", hint=f"there are {', '.join(FIELDS)}")
    return shown


async def ended_for_flow(ledger: live.Ledger, state: model.Execution) -> bytes:
    """Return what a flow learns of an ended child with the answer to its call, as JSON text."""
    return values.encode(await for_flow(ledger, state, _ENDED_FIELDS))


def handle(state: model.Execution) -> bytes:
    """Return what a flow learns of a child that has not ended, as JSON text."""
    return values.encode({"id": state.id, "name": state.name, "type": state.type})


async def start(ledger: live.Ledger, state: model.Execution) -> bytes:
    """Return what ``this`` knows from the beginning, as JSON text."""
    fields = ("id", "name", "type", "created_at", "created_by", "flow_id", "flow_name", "commit")
    return values.encode(await for_flow(ledger, state, (*fields, "parent_execution_id", "input_value")))


def summary(state: model.Execution | listing.Summary) -> dict[str, Any]:
    """Return what people see of an execution in a list, whether it is live or a row of the index."""
    return {
        "id": state.id,
        "name": state.name,
        "type": state.type,
        "status": state.status,
        "message": state.message,
        "reason": state.reason,
        "flow_id": state.flow_id,
        "flow_name": state.flow_name,
        "task": state.task,
        "commit": state.commit,
        "parent_execution_id": state.parent or None,
        "created_by": state.created_by,
        "created_at": state.created_at,
        "started_at": state.started_at,
        "ended_at": state.ended_at,
    }


async def for_people(ledger: live.Ledger, state: model.Execution) -> dict[str, Any]:
    """Return everything people see of one execution."""
    return summary(state) | {
        "input_value": await ledger.opened(state.inputs),
        "output_value": await output(ledger, state),
        "attempt": state.attempt,
        "cancel_requested": state.cancel_requested,
        "is_paused": False,
        "error": state.failure,
        "waiting_for": [
            {"call": call.number, "kind": call.kind, "target": call.target, "children": call.children}
            for call in state.pending.values()
            if call.waits
        ],
    }


async def output(ledger: live.Ledger, state: model.Execution) -> Any:
    """Return the output with every part of it in place; an empty object if there is none."""
    if state.output is None:
        return _EMPTY
    if isinstance(state.output, dict):
        return {key: await ledger.opened(value) for key, value in state.output.items()}
    return await ledger.opened(state.output)
