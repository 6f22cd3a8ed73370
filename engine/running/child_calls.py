"""Calls about other executions: making children, starting, resuming and waiting for them, pausing and cancelling.

A child runs its parent's commit; a flow that is not in it, or that the parent itself saved meanwhile, is taken from
what is published now. What a task gets in place of references to secrets is in no record: that shows the references.
"""

from __future__ import annotations

import asyncio
import re
import textwrap
from collections.abc import Collection, Mapping
from typing import Any, Protocol

import msgspec

from .. import errors, events, lifecycle, model, ports, traces, values
from ..state import inputs as declared_inputs
from ..state import protection
from ..workers import protocol
from . import arguments, calls, contents, failures, flow_run, influence, keeper, live, recorder, terms, views
from .waiting import ReturnWhen, Verdict, judge

#: Deeper chains of children than this are taken for a flow that calls itself without end.
DEPTH_MAX = 200
_ON_LOOP_BYTES = 64 * 1024  # a millisecond's worth of checking
_CREATE_ONLY, _START = "create", "start"
_KEY_ALONE = re.compile(r"vault\.secret\(([^():\n]+)\)")
_PROTECTIONS = ("protect_inputs", "protect_outputs")


class Executions(Protocol):
    """What these calls need of the dispatcher."""

    async def load(self, execution: str) -> model.Execution:
        """Return an execution's state, live or ended; raises ``NotFound``."""

    def start_child(self, event: events.ExecutionCreated, prepared: ports.PreparedTask | None) -> live.Live:
        """Record a new execution and, if it is queued, let it run when there is room."""

    async def start_created(self, subject: live.Live, by: str) -> None:
        """Let an execution run that was only created; ``by`` is the execution that says so."""

    @property
    def influence(self) -> influence.Influence:
        """What may be done to others."""

    def new_id(self) -> str:
        """Return an id for a new execution."""


class ChildCalls:
    """Answers them."""

    def __init__(
        self,
        ledger: live.Ledger,
        executions: Executions,
        flows: ports.Flows,
        tasks: ports.Tasks,
        records: keeper.Keeper,
        clock: ports.Clock,
    ) -> None:
        self._ledger = ledger
        self._contents = ledger.contents
        self._executions = executions
        self._flows = flows
        self._tasks = tasks
        self._keeper = records
        self._clock = clock
        self._recorder = recorder.Recorder(ledger)

    def table(self) -> Mapping[str, calls.Kind]:
        """Return who answers which kind."""
        return {
            "flow": self._unless_there(self._flow),
            "task": self._unless_there(self._task),
            "connect": self._unless_there(self._connect),
            "script": self._unless_there(self._script),
            "clone": self._unless_there(self._clone),
            "run": self._run,
            "wait": self._wait,
            "cancel": self._cancel,
            "pause": self._pause,
        }

    def conclusions(self) -> Mapping[str, calls.Conclusion]:
        """Return who answers which kind after waiting."""
        makers = ("flow", "task", "connect", "script", "clone", "run")
        return {**dict.fromkeys(makers, self._child_ended), "wait": self._waited}

    async def prepared(self, state: model.Execution) -> ports.PreparedTask:
        """Return a task's execution, made by an earlier daemon, ready to run; raises as making it did."""
        given = bytes(await self._contents.true(state.inputs))
        untrusted = b""
        if state.outside:
            untrusted = bytes(await self._contents.true((await self._executions.load(state.parent)).inputs))
        await self._tasks.ready(state.task)
        return self._tasks.prepare(state.task, await self._keeper.resolved(given, untrusted))

    # -- making -----------------------------------------------------------------------------------------------------

    async def _flow(self, run: flow_run.FlowRun, call: protocol.Call) -> bytes | None:
        return await self._make_flow(run, call, call.target, arguments.decoded(call, arguments.Child))

    async def _make_flow(
        self, run: flow_run.FlowRun, call: protocol.Call, name: str, args: arguments.Child
    ) -> bytes | None:
        flow = self._flows.find(name, "" if name in run.saved_flows else run.state.commit)
        if not flow.runnable:
            raise errors.Conflict(f"flow {flow.name!r} has no version that runs: {_why_broken(flow)}")
        args = _protecting(args, await _declared_secrets(flow, bytes(args.inputs)))
        held = await self._held_inputs(args.inputs, args.init.protect_inputs)
        created = events.ExecutionCreated(
            execution=self._child_id(run, call),
            name=(args.name or flow.name)[: recorder.TARGET_CHARACTERS_MAX],
            **held.twins("inputs"),
            **(terms.of_flow(flow, lambda: values.decode(args.inputs)) | _descent(run, call, args)),
        )
        return await self._child(run, call, args.mode, created, None)

    async def _script(self, run: flow_run.FlowRun, call: protocol.Call) -> bytes | None:
        args = arguments.decoded(call, arguments.Script)
        return await self._make_script(run, call, await script(self._contents, args.text, patient=True), args)

    async def _make_script(
        self, run: flow_run.FlowRun, call: protocol.Call, blob: events.Blob, args: arguments.Child
    ) -> bytes | None:
        held = await self._held_inputs(args.inputs, args.init.protect_inputs)
        created = events.ExecutionCreated(
            execution=self._child_id(run, call),
            type="SCRIPT",
            name=(args.name or "script")[: recorder.TARGET_CHARACTERS_MAX],
            flow_id=f"script {blob.sha256}",
            commit=run.state.commit,
            venv=run.state.venv,
            script_blob=blob,
            **held.twins("inputs"),
            **_descent(run, call, args),
        )
        return await self._child(run, call, args.mode, created, None)

    async def _task(self, run: flow_run.FlowRun, call: protocol.Call) -> bytes | None:
        args = arguments.decoded(call, arguments.Child)
        return await self._make_task(run, call, call.target, args, args.name)

    async def _connect(self, run: flow_run.FlowRun, call: protocol.Call) -> bytes | None:
        args = arguments.decoded(call, arguments.Connect)
        stored: dict[str, Any] = {}
        kind = args.connection_type
        if call.target:
            record = await self._keeper.fields("connection", call.target)
            stored = _with_references(values.decode(record["value"]), values.decode(record["vault_secrets"]))
            kind = kind or values.decode(record["connection_type"])
        if not kind:
            raise errors.InputRefused(
                "MissingInputError", f"connection {call.target!r} says no connection_type: give one"
            )
        merged = stored | values.decode(args.inputs)
        changed = msgspec.structs.replace(args, inputs=msgspec.Raw(values.encode(merged)))
        return await self._make_task(run, call, kind, changed, args.name or call.target or None)

    async def _make_task(
        self, run: flow_run.FlowRun, call: protocol.Call, kind: str, args: arguments.Child, name: str | None
    ) -> bytes | None:
        args = _with_protections(args)
        given = values.checked(bytes(args.inputs), "inputs")
        untrusted = bytes(await self._contents.true(run.state.inputs)) if run.state.outside else b""
        resolved = await self._keeper.resolved(given, untrusted)
        await self._tasks.ready(kind)
        prepared = self._tasks.prepare(kind, resolved)
        protect = {*args.init.protect_inputs, *prepared.secret_inputs}
        held = await self._held_inputs(args.inputs, protect, credentials=True)
        created = events.ExecutionCreated(
            execution=self._child_id(run, call),
            type="TASK",
            name=(name or prepared.type)[: recorder.TARGET_CHARACTERS_MAX],
            task=prepared.type,
            **held.twins("inputs"),
            **_descent(run, call, args),
        )
        return await self._child(run, call, args.mode, created, prepared)

    async def _clone(self, run: flow_run.FlowRun, call: protocol.Call) -> bytes | None:
        """Make an execution like another one, with some inputs otherwise."""
        args = arguments.decoded(call, arguments.Child)
        state = await self._executions.load(call.target)
        inputs = values.decode(await self._contents.true(state.inputs)) | values.decode(args.inputs)
        args = msgspec.structs.replace(
            args,
            inputs=msgspec.Raw(values.encode(inputs)),
            name=args.name or state.name,
            init=_merged(state, args.init),
        )
        match state.type:
            case "TASK":
                return await self._make_task(run, call, state.task, args, args.name)
            case "SCRIPT" if state.script is not None:
                return await self._make_script(run, call, state.script, args)
        return await self._make_flow(run, call, state.flow_id, args)

    async def _held_inputs(
        self, inputs: msgspec.Raw, protect: Collection[str], *, credentials: bool = False
    ) -> contents.Held:
        """Inputs as their event holds them. What a task calls a password is nobody's business, asked for or not."""
        text = values.checked(bytes(inputs), "inputs")
        shown = protection.without_credentials(text) if credentials else None
        return await self._contents.store(text, protect=protect, shown=shown)

    async def _child(
        self,
        run: flow_run.FlowRun,
        call: protocol.Call,
        mode: str,
        created: events.ExecutionCreated,
        prepared: ports.PreparedTask | None,
    ) -> bytes | None:
        """Record the call before the child it makes, so that the child of a call that was cut off can be found."""
        waits = mode not in (_CREATE_ONLY, _START)
        self._recorder.started(
            run, call, (created.execution,), waits=waits, return_when=mode if waits else "", args=None
        )
        child = self._executions.start_child(created, prepared)
        return None if waits else self._is_there(run, call, child.state)

    def _child_id(self, run: flow_run.FlowRun, call: protocol.Call) -> str:
        """Return the id of the child this call makes: the recorded one if it was begun before."""
        pending = run.state.pending.get(call.call)
        return pending.children[0] if pending is not None and pending.children else self._executions.new_id()

    def _unless_there(self, make: calls.Kind) -> calls.Kind:
        """Answer a call that makes a child; one that was begun before may have made it."""

        async def answer(run: flow_run.FlowRun, call: protocol.Call) -> bytes | None:
            pending = run.state.pending.get(call.call)
            if pending is None or not pending.children:
                return await make(run, call)
            try:
                state = await self._executions.load(pending.children[0])
            except errors.NotFound:
                return await make(run, call)
            return None if pending.waits else self._is_there(run, call, state)

        return answer

    # -- starting and waiting ---------------------------------------------------------------------------------------

    async def _run(self, run: flow_run.FlowRun, call: protocol.Call) -> bytes | None:
        args = arguments.decoded(call, arguments.Run)
        state = await self._executions.load(args.execution)
        if state.status.ended and call.call not in run.state.pending:
            # Nothing to start, and how it ended is no news.
            self._recorder.started(run, call, (state.id,), waits=False)
            return await self._seen_through(run, call, state)
        waits = args.mode in ReturnWhen.__members__
        pending = self._recorder.started(run, call, (state.id,), waits=waits, return_when=args.mode if waits else "")
        subject = self._ledger.find(state.id)
        if subject is not None and state.status is lifecycle.Status.NEW:
            await self._executions.start_created(subject, run.state.id)
        elif subject is not None and state.pause_requested:
            self._executions.influence.request_resume(state.id, run.state.id)
        return None if pending.waits else self._is_there(run, call, state)

    def _is_there(self, run: flow_run.FlowRun, call: protocol.Call, state: model.Execution) -> bytes:
        shown = views.handle(state)
        self._recorder.ended(run, call, shown)
        return shown

    async def _seen_through(self, run: flow_run.FlowRun, call: protocol.Call, state: model.Execution) -> bytes:
        """Return what the handle of an ended child learns."""
        if state.type == "TASK":
            await self._ledger.journal.durable()
        result = await views.ended_for_flow(self._ledger, state)
        self._recorder.ended(run, call, views.mark(state))
        return result

    async def _child_ended(
        self, run: flow_run.FlowRun, call: protocol.Call, pending: model.PendingCall, late: bool
    ) -> bytes:
        (state,) = await self._judged(pending, late=late)
        return await self._seen_through(run, call, state)

    async def _wait(self, run: flow_run.FlowRun, call: protocol.Call) -> None:
        args = arguments.decoded(call, arguments.Wait)
        for execution in args.executions:
            if execution == run.state.id:
                raise errors.InvalidRequest("an execution cannot wait for itself")
            await self._executions.load(execution)
        until = None if args.timeout is None else self._clock.time() + args.timeout
        self._recorder.started(run, call, args.executions, waits=True, return_when=args.return_when, until=until)

    async def _waited(
        self, run: flow_run.FlowRun, call: protocol.Call, pending: model.PendingCall, late: bool
    ) -> bytes:
        ended = await self._judged(pending, late=late, timeout_s=arguments.decoded(call, arguments.Wait).timeout)
        if any(state.type == "TASK" for state in ended):
            await self._ledger.journal.durable()
        shown = [msgspec.Raw(await views.ended_for_flow(self._ledger, state)) for state in ended]
        self._recorder.ended(run, call, values.encode([msgspec.Raw(views.mark(state)) for state in ended]))
        return values.encode(shown)

    async def _judged(
        self, pending: model.PendingCall, *, late: bool, timeout_s: float | None = None
    ) -> list[model.Execution]:
        """Return those that have ended by now; raises ``DependencyFailed``, and ``Refused`` when late."""
        states = [await self._executions.load(execution) for execution in pending.children]
        verdict = judge(ReturnWhen(pending.return_when), [state.status for state in states])
        if verdict is Verdict.FAILED:
            raise _failed(next(s for s in states if s.status.ended and s.status is not lifecycle.Status.ENDED_SUCCESS))
        if verdict is Verdict.WAIT and late:
            raise failures.Refused("DependencyTimeoutError", f"not ended within {timeout_s or 0:g} s")
        return [state for state in states if state.status.ended]

    # -- influence --------------------------------------------------------------------------------------------------

    async def _cancel(self, run: flow_run.FlowRun, call: protocol.Call) -> bytes:
        execution = (await self._executions.load(arguments.decoded(call, arguments.Of).execution)).id
        # First: to ask twice does no harm, to be recorded as having asked, and not to have, would.
        self._executions.influence.request_cancel(execution, run.state.id)
        self._recorder.ended(run, call, args=bytes(call.args))
        return b"null"

    async def _pause(self, run: flow_run.FlowRun, call: protocol.Call) -> bytes:
        state = await self._executions.load(arguments.decoded(call, arguments.Of).execution)
        if state.type == "TASK" and not state.status.ended:
            raise errors.InvalidRequest(
                "a task cannot be paused", hint="cancel it, or pause the flow that waits for it"
            )
        self._recorder.ended(run, call, args=bytes(call.args))
        self._executions.influence.request_pause(state.id, run.state.id)
        await run.stand_still()
        return b"null"


async def script(store: contents.Contents, text: str, *, patient: bool) -> events.Blob:
    """Keep the text of a script; one that stands indented in the flow it is written in may stay so."""
    return await store.store_file(values.encode(textwrap.dedent(text)), patient=patient)


def _with_references(stored: dict[str, Any], vault_secrets: dict[str, str] | str) -> dict[str, Any]:
    """Return a connection's inputs with whole references to its secrets.

    ``vault_secrets`` names a reference for each input, or one secret of which ``vault.secret(key)`` in the inputs means
    a key."""
    if isinstance(vault_secrets, dict):
        named = {name: said.removeprefix("vault.secret(").removesuffix(")") for name, said in vault_secrets.items()}
        return stored | {name: f"vault.secret({reference})" for name, reference in named.items()}

    def whole(value: Any) -> Any:
        match value:
            case str():
                return _KEY_ALONE.sub(lambda key: f"vault.secret({vault_secrets}.{key[1].strip()})", value)
            case dict():
                return {name: whole(member) for name, member in value.items()}
            case list():
                return [whole(item) for item in value]
        return value

    return {name: whole(value) for name, value in stored.items()} if vault_secrets else stored


def _descent(run: flow_run.FlowRun, call: protocol.Call, args: arguments.Child) -> dict[str, Any]:
    """What a child has of its parent; raises ``InvalidRequest`` where the chain is too long."""
    depth = run.state.depth + 1
    if depth > DEPTH_MAX:
        raise errors.InvalidRequest(f"this would be the {depth}th child of a child in a row, the limit is {DEPTH_MAX}")
    if args.mode not in (_CREATE_ONLY, _START, *ReturnWhen):
        raise errors.InvalidRequest(f"a child cannot be started in mode {args.mode!r}")
    retention = args.init.retention_time
    said = {} if retention is msgspec.UNSET else {"retention_time_s": retention}
    return said | {
        "parent": run.state.id,
        "parent_call": call.call,
        "depth": depth,
        "created_by": run.state.created_by,
        "queued": args.mode != _CREATE_ONLY,
        "outside": run.state.outside,
        "orphan": args.init.orphan is not False,
        "protect_inputs": args.init.protect_inputs,
        "protect_outputs": args.init.protect_outputs,
        "traceparent": traces.onward(run.state.traceparent, run.state.id),
    }


async def _declared_secrets(flow: model.Flow, given: bytes) -> tuple[str, ...]:
    """Return which inputs the flow declares secret; raises ``InputsUnfit`` for those that are not as it declares."""
    schema = flow.metadata.input_schema
    if len(given) <= _ON_LOOP_BYTES:
        return declared_inputs.check(schema, given)
    return await asyncio.to_thread(declared_inputs.check, schema, given)


def _protecting(args: arguments.Child, keys: Collection[str]) -> arguments.Child:
    init = msgspec.structs.replace(args.init, protect_inputs=tuple(dict.fromkeys((*args.init.protect_inputs, *keys))))
    return msgspec.structs.replace(args, init=init) if keys else args


def _with_protections(args: arguments.Child) -> arguments.Child:
    """Take the names of what to protect out of a task's inputs: a stored connection may hold them."""
    inputs = values.decode(args.inputs)
    found = {key: inputs.pop(key) for key in _PROTECTIONS if isinstance(inputs, dict) and key in inputs}
    if not found:
        return args
    names = {key: tuple(map(str, given or ())) for key, given in found.items()}
    init = msgspec.structs.replace(
        args.init, **{key: tuple({*getattr(args.init, key), *given}) for key, given in names.items()}
    )
    return msgspec.structs.replace(args, inputs=msgspec.Raw(values.encode(inputs)), init=init)


def _merged(state: model.Execution, init: arguments.Init) -> arguments.Init:
    return arguments.Init(
        orphan=state.orphan if init.orphan is msgspec.UNSET else init.orphan,
        protect_inputs=tuple({*state.protect_inputs, *init.protect_inputs}),
        protect_outputs=tuple({*state.protect_outputs, *init.protect_outputs}),
        retention_time=state.retention_time_s if init.retention_time is msgspec.UNSET else init.retention_time,
    )


def _failed(state: model.Execution) -> Exception:
    """Return what a handler meets for a child that did not succeed."""
    if state.failure is not None and state.failure.type == "OutcomeUnknownError":
        return failures.Refused("OutcomeUnknownError", f"{state.type.lower()} {state.name!r}: {state.message}")
    return failures.DependencyFailed(state)


def _why_broken(flow: model.Flow) -> str:
    return f"{flow.broken.file}:{flow.broken.line}: {flow.broken.reason}" if flow.broken else "it never had one"
