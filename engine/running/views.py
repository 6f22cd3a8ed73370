"""What an execution looks like: to flows, by the names of the flow contract, and to people, by those of the API.

Both come from the same state and differ in a few fields only. Values pass through unopened; only those kept in files
are read here.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, Protocol

import msgspec

from .. import errors, events, model, moments, traces, values
from ..lifecycle import Status
from ..records import listing

Opened = Callable[[model.Value], Awaitable[msgspec.Raw]]


class Opening(Protocol):
    """The two ways to read a value; see ``contents``."""

    async def shown(self, value: model.Value) -> msgspec.Raw:
        """Return a value as people see it."""

    async def true(self, value: model.Value) -> msgspec.Raw:
        """Return a value as it truly is."""


class Reading(Protocol):
    """What a view is made from: the ledger of a daemon, or an exported record."""

    @property
    def contents(self) -> Opening:
        """Where values are read."""

    async def events_of(self, execution: str) -> list[events.Recorded]:
        """Return the record of an execution, in order."""


class Showing(Reading, Protocol):
    """What a view for people is made from: the ledger of a daemon."""

    @property
    def tracing(self) -> traces.Tracing:
        """Where traces are seen."""


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
    "description": "description",
    "protect_inputs": "protect_inputs",
    "protect_outputs": "protect_outputs",
    "retention_time": "retention_time_s",
}
#: What a flow may ask of an execution.
FIELDS = (*_PLAIN, "parent_execution_id", "input_value", "output_value", "is_paused", "modified_at", "modified_by")
#: What a handle gets of an execution that has ended: everything, for it will not change any more.
_ENDED_FIELDS = tuple(field for field in FIELDS if field != "input_value")


async def for_flow(
    reading: Reading, state: model.Execution, fields: tuple[str, ...], *, for_people: bool = False
) -> dict[str, Any]:
    """Return the ``fields`` of an execution; raises ``InvalidRequest`` for a name that is not one.

    ``for_people``: the same without what people may not see."""
    shown: dict[str, Any] = {}
    opened = reading.contents.shown if for_people else reading.contents.true
    for field in fields:
        match field:
            case _ if field in _PLAIN:
                shown[field] = getattr(state, _PLAIN[field])
            case "parent_execution_id":
                shown[field] = state.parent or None
            case "input_value":
                shown[field] = await opened(state.inputs)
            case "output_value":
                shown[field] = await _output_with_logging(reading, state, opened)
            case "is_paused":
                shown[field] = state.status is Status.PAUSED
            case "modified_at":
                shown[field] = state.ended_at or state.started_at or state.created_at
            case "modified_by":
                shown[field] = state.created_by
            case _:
                raise errors.InvalidRequest(
                    f"an execution has no field {field!r}", hint=f"there are {', '.join(FIELDS)}"
                )
    return shown


async def true_output(reading: Reading, state: model.Execution) -> Any:
    """Return the output as it truly is, the members of an object unopened."""
    return await _output(state, reading.contents.true)


async def _output_with_logging(reading: Reading, state: model.Execution, opened: Opened) -> Any:
    """The output with what ``this.log`` recorded, as flows read it; an output that is no object stays what it is."""
    whole = await _output(state, opened)
    if not state.logged_bytes or not isinstance(whole, dict):
        return whole
    logged = state.logged
    if state.logged_bytes > model.LOGGED_BYTES_MAX:
        logged = [raw for line in await reading.events_of(state.id) for raw in await _logged(reading, line.event)]
    listed: list[Any] = []
    for raw in logged:
        said = values.decode(raw)
        if isinstance(said, list):
            listed += said
        elif said:
            listed.append(said)
    return {**whole, "logging": listed}


async def _logged(reading: Reading, event: events.AnyEvent) -> list[msgspec.Raw]:
    if not isinstance(event, events.LogWritten) or event.stream:
        return []
    pair = (event.args_blob or event.args, event.kwargs_blob or event.kwargs)
    return [await reading.contents.shown(value) for value in pair]


async def ended_for_flow(reading: Reading, state: model.Execution) -> bytes:
    """Return what a flow learns of an ended child with the answer to its call, as JSON text."""
    return values.encode(await for_flow(reading, state, _ENDED_FIELDS))


def handle(state: model.Execution) -> bytes:
    """Return what a flow learns of a child that has not ended, as JSON text."""
    return values.encode({"id": state.id, "name": state.name, "type": state.type})


def mark(state: model.Execution) -> bytes:
    """Return what stands in a record for an ended execution that was handed to a flow whole, as JSON text."""
    return values.encode({"id": state.id, "name": state.name, "type": state.type, "status": state.status})


async def start(reading: Reading, state: model.Execution) -> bytes:
    """Return what ``this`` knows from the beginning, as JSON text."""
    return values.encode(
        {
            "id": state.id,
            "name": state.name,
            "type": state.type,
            "created_at": state.created_at,
            "created_by": state.created_by,
            "flow_id": state.flow_id,
            "flow_name": state.flow_name,
            "commit": state.commit,
            "parent_execution_id": state.parent or None,
            "input_value": await reading.contents.true(state.inputs),
        }
    )


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


async def for_people(reading: Showing, state: model.Execution) -> dict[str, Any]:
    """Return everything people see of one execution."""
    return summary(state) | {
        "description": state.description,
        "input_value": await reading.contents.shown(state.inputs),
        "output_value": await output(reading, state),
        "attempt": state.attempt,
        "node": state.node or None,
        "generation": state.generation,
        "divergence": state.divergence,
        "cancel_requested": state.cancel_requested,
        "pause_requested": state.pause_requested,
        "is_paused": state.status is Status.PAUSED,
        "error": state.failure,
        "effect": _effect(state),
        "waiting_for": [
            {"call": call.number, "kind": call.kind, "target": call.target, "children": call.children}
            for call in state.pending.values()
            if call.waits
        ],
        "traceparent": state.traceparent,
        "trace_url": reading.tracing.page(state.traceparent, state.id),
        **_terms(state),
    }


def _terms(state: model.Execution) -> dict[str, Any]:
    """What was decided about it when it was made, as people see it."""
    said = state.terms
    return {
        "schedule": said.schedule,
        "due": said.due,
        "retry": said.retry,
        "retry_of": said.retry_of,
        "rerun_of": said.rerun_of,
        "not_before": moments.timestamp(said.not_before) if said.not_before is not None else None,
        "follows": said.follows,
        "priority": said.priority,
        "tags": said.tags,
        "acknowledged": state.acknowledged,
    }


def _effect(state: model.Execution) -> dict[str, Any] | None:
    """The first effect of its own, as people see it; None if it had none."""
    found = state.effect
    if found is None:
        return None
    where = {"file": found.file, "line": found.line}
    return {"event": found.effect, "detail": found.detail, **where, "call": found.call, "at": state.effect_at}


async def output(reading: Reading, state: model.Execution) -> Any:
    """Return the output as people see it, every part of it in place; an empty object if there is none."""
    return await _output(state, reading.contents.shown)


async def _output(state: model.Execution, opened: Opened) -> Any:
    if state.output is None:
        return {}
    if isinstance(state.output, dict):
        return {key: await opened(value) for key, value in state.output.items()}
    whole = await opened(state.output)
    members = values.members(whole)
    return whole if members is None else members
