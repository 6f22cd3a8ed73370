"""Calls about other executions: making children, starting, resuming and waiting for them, pausing and cancelling.

A child runs its parent's commit; a flow that is not in it, or that the parent itself saved meanwhile, is taken from
what is published now. What a task gets in place of references to secrets is in no record: that shows the references.
"""

from __future__ import annotations

import re
import textwrap
from collections.abc import Collection, Mapping
from typing import Any, Protocol

import msgspec

from .. import errors, events, lifecycle, model, ports, values
from ..state import protection
from ..workers import protocol
from . import arguments, calls, contents, failures, flow_run, keeper, live, recorder, views
from .waiting import ReturnWhen, Verdict, judge

#: Deeper chains of children than this are taken for a flow that calls itself without end.
DEPTH_MAX = 200
_CREATE_ONLY, _START = "create", "start"
_KEY_ALONE = re.compile(r"vault\.secret\(([^():\n]+)\)")
_PROTECTIONS = ("protect_inputs", "protect_outputs")


class Executions(Protocol):
    """What these calls need of the dispatcher."""

    async def load(self, execution: str) -> model.Execution:
        """Return an execution's state, live or ended; raises ``NotFound``."""

    def start_child(self, event: events.ExecutionCreated, prepared: ports.PreparedTask | None) -> live.Live:
        """Record a new execution and, if it is queued, let it run when there is room."""

    def start_created(self, subject: live.Live) -> None:
        """Let an execution run that was only created."""

    def request_cancel(self, execution: str, by: str) -> None:
        """Ask a live execution to end; nothing happens if it has."""

    def request_pause(self, execution: str, by: str) -> None:
        """Ask a live execution to stand still; nothing happens if it has ended or does already."""

    def request_resume(self, execution: str, by: str) -> None:
        """Let an execution go on; nothing happens if it does."""

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
        circle: Any,
    ) -> None:
        self._ledger = ledger
        self._contents = ledger.contents
        self._executions = executions
        self._flows = flows
        self._tasks = tasks
        self._keeper = records
        self._circle = circle
        self._recorder = recorder.Recorder(ledger)

    def table(self) -> Mapping[str, calls.Kind]:
        """Return who answers which kind."""
        return {
            "flow": self._flow,
            "task": self._task,
            "connect": self._connect,
            "script": self._script,
            "clone": self._clone,
            "run": self._run,
            "wait": self._wait,
            "cancel": self._cancel,
            "pause": self._pause,
        }

    # -- making -----------------------------------------------------------------------------------------------------

    async def _flow(self, run: flow_run.FlowRun, call: protocol.Call) -> bytes:
        return await self._make_flow(run, call, call.target, arguments.decoded(call, arguments.Child))

    async def _make_flow(self, run: flow_run.FlowRun, call: protocol.Call, name: str, args: arguments.Child) -> bytes:
        flow = self._flows.find(name, "" if name in run.saved_flows else run.state.commit)
        if not flow.runnable:
            raise errors.Conflict(f"flow {flow.name!r} has no version that runs: {_why_broken(flow)}")
        held = await self._held_inputs(args.inputs, args.init.protect_inputs)
        created = events.ExecutionCreated(
            execution=self._executions.new_id(),
            name=(args.name or flow.name)[: recorder.TARGET_CHARACTERS_MAX],
            flow_id=flow.id,
            flow_name=flow.name,
            commit=flow.commit,
            path=flow.path,
            timeout_s=flow.metadata.timeout_s,
            reuse=flow.metadata.reuse,
            on_interrupt=flow.metadata.on_interrupt,
            **held.twins("inputs"),
            **_descent(run, call, args),
        )
        return await self._child(run, call, args.mode, created, None)

    async def _script(self, run: flow_run.FlowRun, call: protocol.Call) -> bytes:
        args = arguments.decoded(call, arguments.Script)
        return await self._make_script(run, call, await script(self._contents, args.text), args)

    async def _make_script(
        self, run: flow_run.FlowRun, call: protocol.Call, blob: events.Blob, args: arguments.Child
    ) -> bytes:
        held = await self._held_inputs(args.inputs, args.init.protect_inputs)
        created = events.ExecutionCreated(
            execution=self._executions.new_id(),
            type="SCRIPT",
            name=(args.name or "script")[: recorder.TARGET_CHARACTERS_MAX],
            flow_id=f"script {blob.sha256}",
            commit=run.state.commit,
            script_blob=blob,
            **held.twins("inputs"),
            **_descent(run, call, args),
        )
        return await self._child(run, call, args.mode, created, None)

    async def _task(self, run: flow_run.FlowRun, call: protocol.Call) -> bytes:
        args = arguments.decoded(call, arguments.Child)
        return await self._make_task(run, call, call.target, args, args.name)

    async def _connect(self, run: flow_run.FlowRun, call: protocol.Call) -> bytes:
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
    ) -> bytes:
        args = _with_protections(args)
        given = values.checked(bytes(args.inputs), "inputs")
        untrusted = bytes(await self._contents.true(run.state.inputs)) if run.state.outside else b""
        resolved = await self._keeper.resolved(given, untrusted)
        prepared = self._tasks.prepare(kind, resolved)
        protect = {*args.init.protect_inputs, *prepared.secret_inputs}
        held = await self._held_inputs(args.inputs, protect, credentials=True)
        created = events.ExecutionCreated(
            execution=self._executions.new_id(),
            type="TASK",
            name=(name or prepared.type)[: recorder.TARGET_CHARACTERS_MAX],
            task=prepared.type,
            **held.twins("inputs"),
            **_descent(run, call, args),
        )
        return await self._child(run, call, args.mode, created, prepared)

    async def _clone(self, run: flow_run.FlowRun, call: protocol.Call) -> bytes:
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
    ) -> bytes:
        """Record the call before the child it makes: a child that is not in its parent's record could come twice."""
        waits = mode not in (_CREATE_ONLY, _START)
        self._recorder.started(run, call, (created.execution,), waits=waits)
        child = self._executions.start_child(created, prepared)
        if not waits:
            return self._is_there(run, call, child.state)
        return await self._see_through(run, call, child.state, ReturnWhen(mode))

    # -- starting and waiting ---------------------------------------------------------------------------------------

    async def _run(self, run: flow_run.FlowRun, call: protocol.Call) -> bytes:
        args = arguments.decoded(call, arguments.Run)
        waits = args.mode in ReturnWhen.__members__
        state = await self._executions.load(args.execution)
        self._recorder.started(run, call, (state.id,), waits=waits and not state.status.ended)
        subject = self._ledger.find(state.id)
        if subject is not None and state.status is lifecycle.Status.NEW:
            run.set_off.add(state.id)
            self._executions.start_created(subject)
        elif subject is not None and state.pause_requested:
            self._executions.request_resume(state.id, run.state.id)
        if state.status.ended:  # nothing to start, and how it ended is no news
            self._recorder.ended(run, call, views.handle(state))
            return await views.ended_for_flow(self._ledger, state)
        if not waits:
            return self._is_there(run, call, state)
        return await self._see_through(run, call, state, ReturnWhen(args.mode))

    def _is_there(self, run: flow_run.FlowRun, call: protocol.Call, state: model.Execution) -> bytes:
        shown = views.handle(state)
        self._recorder.ended(run, call, shown)
        return shown

    async def _see_through(
        self, run: flow_run.FlowRun, call: protocol.Call, state: model.Execution, return_when: ReturnWhen
    ) -> bytes:
        """Wait for one child and return what its handle learns."""
        ended = await self._until(run, [state], return_when, None)
        if state.type == "TASK":
            await self._ledger.journal.durable()
        result = await views.ended_for_flow(self._ledger, ended[0])
        self._recorder.ended(run, call, views.handle(ended[0]))
        return result

    async def _wait(self, run: flow_run.FlowRun, call: protocol.Call) -> bytes:
        args = arguments.decoded(call, arguments.Wait)
        states = [await self._executions.load(execution) for execution in args.executions]
        self._recorder.started(run, call, args.executions, waits=True)
        ended = await self._until(run, states, args.return_when, args.timeout)
        shown = [msgspec.Raw(await views.ended_for_flow(self._ledger, state)) for state in ended]
        self._recorder.ended(run, call, values.encode([state.id for state in ended]))
        return values.encode(shown)

    async def _until(
        self, run: flow_run.FlowRun, states: list[model.Execution], return_when: ReturnWhen, timeout_s: float | None
    ) -> list[model.Execution]:
        """Wait as asked and return those that have ended; raises ``DependencyFailed``, and ``Refused`` when late."""
        hold = run.future()

        def look() -> None:
            if not hold.done() and judge(return_when, [state.status for state in states]) is not Verdict.WAIT:
                hold.set_result(None)

        look()
        if not hold.done():
            unfinished = tuple(state.id for state in states if not state.status.ended)
            if run.state.id in unfinished:
                raise errors.InvalidRequest("an execution cannot wait for itself")
            every = len(unfinished) == 1 or return_when in (ReturnWhen.ALL_ENDED, ReturnWhen.ALL_SUCCEEDED)
            run.needs = unfinished if every and timeout_s is None else ()
            if circle := self._circle(run.state.id):
                run.needs = ()
                raise failures.Refused("DeadlockError", f"this could never end: {'; '.join(circle)}")
            watched = [subject for subject in map(self._ledger.find, unfinished) if subject is not None]
            for subject in watched:
                subject.watchers.append(look)
            timer = recorder.deadline(hold, timeout_s, lambda: _late(timeout_s))
            try:
                await run.hold(hold, unfinished)
            finally:
                run.needs = ()
                if timer is not None:
                    timer.cancel()
                for subject in watched:
                    if look in subject.watchers:  # one that has ended has told and forgotten its watchers
                        subject.watchers.remove(look)
        if judge(return_when, [state.status for state in states]) is Verdict.FAILED:
            raise failures.DependencyFailed(
                next(s for s in states if s.status.ended and s.status is not lifecycle.Status.ENDED_SUCCESS)
            )
        return [state for state in states if state.status.ended]

    # -- influence --------------------------------------------------------------------------------------------------

    async def _cancel(self, run: flow_run.FlowRun, call: protocol.Call) -> bytes:
        execution = (await self._executions.load(arguments.decoded(call, arguments.Of).execution)).id
        self._recorder.ended(run, call, args=bytes(call.args))
        self._executions.request_cancel(execution, run.state.id)
        return b"null"

    async def _pause(self, run: flow_run.FlowRun, call: protocol.Call) -> bytes:
        state = await self._executions.load(arguments.decoded(call, arguments.Of).execution)
        if state.type == "TASK" and not state.status.ended:
            raise errors.InvalidRequest(
                "a task cannot be paused", hint="cancel it, or pause the flow that waits for it"
            )
        self._recorder.ended(run, call, args=bytes(call.args))
        self._executions.request_pause(state.id, run.state.id)
        await run.stand_still()
        return b"null"


async def script(store: contents.Contents, text: str) -> events.Blob:
    """Keep the text of a script; one that stands indented in the flow it is written in may stay so."""
    return await store.store_file(values.encode(textwrap.dedent(text)))


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
    return {
        "parent": run.state.id,
        "parent_call": call.call,
        "depth": depth,
        "created_by": run.state.created_by,
        "queued": args.mode != _CREATE_ONLY,
        "outside": run.state.outside,
        "orphan": args.init.orphan is not False,
        "protect_inputs": args.init.protect_inputs,
        "protect_outputs": args.init.protect_outputs,
        "retention_time_s": None if retention is msgspec.UNSET else retention,
    }


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


def _late(timeout_s: float | None) -> failures.Refused:
    return failures.Refused("DependencyTimeoutError", f"not ended within {timeout_s or 0:g} s")


def _why_broken(flow: model.Flow) -> str:
    return f"{flow.broken.file}:{flow.broken.line}: {flow.broken.reason}" if flow.broken else "it never had one"
