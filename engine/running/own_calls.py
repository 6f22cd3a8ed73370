"""Calls about executions themselves: time, reading and writing fields and outputs, steps, the answer to a webhook."""

from __future__ import annotations

import random
import uuid
from collections.abc import Mapping
from typing import Any, Protocol

import msgspec

from .. import errors, events, model, ports, values
from ..workers import protocol
from . import arguments, calls, flow_run, live, recorder, views

#: Output keys set by one call stand in its line up to this size together.
_KEYS_BYTES_MAX = 4 * values.INLINE_BYTES_MAX
_SAVED = ("message", "status_message", "name", "description", "output_value", "retention_time")


class Loading(Protocol):
    """What these calls need of the dispatcher."""

    async def load(self, execution: str) -> model.Execution:
        """Return an execution's state, live or ended; raises ``NotFound``."""


class OwnCalls:
    """Answers them."""

    def __init__(self, ledger: live.Ledger, executions: Loading, clock: ports.Clock) -> None:
        self._ledger = ledger
        self._contents = ledger.contents
        self._executions = executions
        self._clock = clock
        self._recorder = recorder.Recorder(ledger)

    def table(self) -> Mapping[str, calls.Kind]:
        """Return who answers which kind."""
        return {
            "sleep": self._sleep,
            "get": self._get,
            "save": self._save,
            "set_output": self._set_output,
            "append_output": self._append_output,
            "step": self._step,
            "now": self._now,
            "uuid": self._uuid,
            "random": self._random,
            "webhook_response": self._webhook_response,
            "continue_as_new": self._continue_as_new,
        }

    def conclusions(self) -> Mapping[str, calls.Conclusion]:
        """Return who answers which kind after waiting."""
        return {"sleep": self._slept}

    # -- time and chance --------------------------------------------------------------------------------------------

    async def _sleep(self, run: flow_run.FlowRun, call: protocol.Call) -> None:
        args = arguments.decoded(call, arguments.Sleep)
        now = self._clock.time()
        until = args.until if args.until is not None else now + (args.seconds or 0)
        self._recorder.started(run, call, waits=True, until=until)

    async def _slept(self, run: flow_run.FlowRun, call: protocol.Call, pending: model.PendingCall, late: bool) -> bytes:
        self._recorder.ended(run, call)
        return b"null"

    async def _now(self, run: flow_run.FlowRun, call: protocol.Call) -> bytes:
        return await self._recorder.ended_with(run, call, values.encode(self._clock.time()))

    async def _uuid(self, run: flow_run.FlowRun, call: protocol.Call) -> bytes:
        return await self._recorder.ended_with(run, call, values.encode(str(uuid.uuid4())))

    async def _random(self, run: flow_run.FlowRun, call: protocol.Call) -> bytes:
        return await self._recorder.ended_with(run, call, values.encode(random.random()))  # noqa: S311 - no secret

    async def _step(self, run: flow_run.FlowRun, call: protocol.Call) -> bytes:
        """Keep what a step came to, durably: its effect has happened."""
        result = values.checked(bytes(arguments.decoded(call, arguments.Step).result), "the result of a step")
        await self._recorder.ended_with(run, call, result)
        await self._ledger.journal.durable()
        return result

    # -- reading and writing ----------------------------------------------------------------------------------------

    async def _get(self, run: flow_run.FlowRun, call: protocol.Call) -> bytes:
        args = arguments.decoded(call, arguments.Get)
        state = await self._executions.load(args.execution)
        shown = await views.for_flow(self._ledger, state, args.fields)
        protect = {*state.protect_inputs, *state.protect_outputs}
        text = values.encode(shown)
        if protect or isinstance(state.inputs, model.Sealed):  # what it holds must not come to light in this record
            seen = await views.for_flow(self._ledger, state, args.fields, for_people=True)
            held = await self._contents.store(text, shown=values.encode(seen))
        else:
            held = await self._contents.store(text)
        self._recorder.ended(run, call, held, args=values.encode(args.fields))
        return text

    async def _save(self, run: flow_run.FlowRun, call: protocol.Call) -> bytes:
        args = arguments.decoded(call, arguments.Save)
        unknown = args.fields.keys() - set(_SAVED)
        if unknown:
            raise errors.InvalidRequest(
                f"{', '.join(sorted(unknown))} cannot be saved", hint="message, name and output_value can"
            )
        subject = self._writable(args.execution)
        what: dict[str, Any] = {}
        for field in ("message", "name", "description"):
            if (given := recorder.text(args.fields, field)) is not None:
                what[field] = given
        if (given := recorder.text(args.fields, "status_message")) is not None:
            what["message"] = given
        if "retention_time" in args.fields:
            what["retention_time_s"] = _seconds(args.fields["retention_time"])
        if "output_value" in args.fields:
            output = values.checked(_without_logging(args.fields["output_value"]), "output_value")
            held = await self._contents.store(output, protect=subject.state.protect_outputs)
            what |= held.twins("output")
        self._write(run, call, args.execution, **what)
        return b"null"

    async def _set_output(self, run: flow_run.FlowRun, call: protocol.Call) -> bytes:
        args = arguments.decoded(call, arguments.SetOutput)
        self._write(run, call, args.execution, **await self._keys(args.execution, args.keys))
        return b"null"

    async def _append_output(self, run: flow_run.FlowRun, call: protocol.Call) -> bytes:
        args = arguments.decoded(call, arguments.AppendOutput)
        state = self._writable(args.execution).state
        whole = await views.true_output(self._ledger, state)
        before = values.decode(whole[args.key]) if isinstance(whole, dict) and args.key in whole else []
        listed = before if isinstance(before, list) else [before]
        extended = values.encode([*listed, args.value])
        self._write(run, call, args.execution, **await self._keys(args.execution, {args.key: msgspec.Raw(extended)}))
        return b"null"

    async def _keys(self, execution: str, keys: Mapping[str, msgspec.Raw]) -> dict[str, Any]:
        """Return single output keys as an event holds them."""
        protect = self._writable(execution).state.protect_outputs
        kept: dict[str, msgspec.Raw] = {}
        blobs: dict[str, events.Blob] = {}
        sealed: dict[str, str] = {}
        room = _KEYS_BYTES_MAX
        for key, value in keys.items():
            text = values.checked(bytes(value), f"output {key!r}")
            room -= len(key) + len(text)
            if key in protect:
                self._contents.learn_protected(msgspec.Raw(text))
                held = await self._contents.store_hidden(text)
            else:
                held = await self._contents.store(text, inline=room > 0)
            if held.blob is not None:
                blobs[key] = held.blob
            elif held.raw is not msgspec.UNSET:
                kept[key] = held.raw
            if held.sealed:
                sealed[key] = held.sealed
        return {"output_keys": kept, "output_key_blobs": blobs, "output_keys_sealed": sealed}

    def _writable(self, execution: str) -> live.Live:
        subject = self._ledger.find(execution)
        if subject is None or subject.state.status.ended:
            raise errors.Conflict(f"execution {execution} has ended; what it left cannot be changed")
        return subject

    def _write(self, run: flow_run.FlowRun, call: protocol.Call, execution: str, **what: Any) -> None:
        """Record a write to this execution or to another one, which then names the writer."""
        subject = self._writable(execution)
        by = "" if subject is run.live else run.state.id
        event = events.ExecutionSaved(
            execution=execution, call=call.call, kind=call.kind, where=call.where, by=by, **what
        )
        if not by:
            run.record(event)
            return
        self._ledger.record(subject, event)
        self._recorder.ended(run, call, args=values.encode({"execution": execution}))

    # -- webhooks ---------------------------------------------------------------------------------------------------

    async def _webhook_response(self, run: flow_run.FlowRun, call: protocol.Call) -> bytes:
        args = arguments.decoded(call, arguments.Answer)
        if not 100 <= args.status <= 599:
            raise errors.InvalidRequest(f"{args.status} is no status of HTTP")
        held = await self._contents.store(values.encode(args.body))
        run.record(
            events.WebhookAnswered(
                execution=run.state.id,
                call=call.call,
                where=call.where,
                status=args.status,
                headers=args.headers,
                binary=args.binary,
                **{key: value for key, value in held.twins("body").items() if key != "body_sealed"},
            ),
        )
        return b"null"

    # -- beginning anew ---------------------------------------------------------------------------------------------

    async def _continue_as_new(self, run: flow_run.FlowRun, call: protocol.Call) -> bytes:
        """Keep the inputs of the next generation; it begins when this handler has left."""
        inputs = values.checked(bytes(arguments.decoded(call, arguments.Continue).inputs), "inputs")
        held = await self._contents.store(inputs, protect=run.state.protect_inputs)
        self._recorder.ended(run, call, held)
        run.continuation = model.value(held.raw, held.blob, held.sealed)
        return b"null"


def _without_logging(output: msgspec.Raw) -> bytes:
    """An output as a flow read it carries what was logged; that is no part of it."""
    members = values.members(bytes(output).strip())
    if members is None or "logging" not in members:
        return bytes(output)
    return values.encode({key: raw for key, raw in members.items() if key != "logging"})


def _seconds(raw: msgspec.Raw) -> float | None:
    value = values.decode(raw)
    if value is None:
        return None
    if not isinstance(value, int | float) or isinstance(value, bool) or value < 0:
        raise errors.InvalidRequest("retention_time is a number of seconds, 0 or more")
    return float(value)
