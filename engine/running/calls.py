"""What a handler may ask for, one method a kind of call, and how each is recorded.

Every call carries its number. One that is answered at once is a single ``call.ended``; one that takes time is a
``call.started`` and later a ``call.ended``, so that a restart sees what was under way.

An answer does not wait for the disk where only the engine is concerned: whatever the flow does next goes through the
same journal, behind what it saw, so nothing it caused can be durable while its cause is not. What touches the world (a
task, a child's start) waits for durability itself before it begins, and so does a task's result before it is handed on.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, Protocol

import msgspec
import structlog

from .. import errors, events, lifecycle, model, ports, values
from ..workers import protocol
from . import arguments, live, views
from .flow_run import Cancelled, FlowRun
from .waiting import ReturnWhen, Verdict, judge

log = structlog.get_logger()

#: Deeper chains of children than this are taken for a flow that calls itself without end.
DEPTH_MAX = 200
_TARGET_CHARACTERS_MAX = 1024
#: Output keys set by one call stand in its line up to this size together.
_KEYS_BYTES_MAX = 4 * values.INLINE_BYTES_MAX
_CREATE_ONLY, _START = "create", "start"


class DependencyFailed(Exception):
    """An execution that was waited for did not succeed."""

    def __init__(self, state: model.Execution) -> None:
        super().__init__(f"{state.type.lower()} {state.name!r} ended {state.status}: {state.message}".rstrip(": "))
        self.state = state


class TooLate(Exception):
    """What was waited for did not happen in time."""


class Executions(Protocol):
    """What calls need of the dispatcher."""

    async def load(self, execution: str) -> model.Execution:
        """Return an execution's state, live or ended; raises ``NotFound``."""

    def start_child(self, event: events.ExecutionCreated, prepared: ports.PreparedTask | None) -> live.Live:
        """Record a new execution and, if it is queued, let it run when there is room."""

    def start_created(self, subject: live.Live) -> None:
        """Let an execution run that was only created."""

    def request_cancel(self, execution: str, by: str) -> None:
        """Ask a live execution to end; nothing happens if it has."""

    def new_id(self) -> str:
        """Return an id for a new execution."""


class Calls:
    """Answers the calls of all handlers."""

    def __init__(
        self,
        ledger: live.Ledger,
        executions: Executions,
        flows: ports.Flows,
        tasks: ports.Tasks,
        clock: ports.Clock,
    ) -> None:
        self._ledger = ledger
        self._executions = executions
        self._flows = flows
        self._tasks = tasks
        self._clock = clock
        self._kinds: dict[str, Callable[[FlowRun, protocol.Call], Awaitable[bytes]]] = {
            "flow": self._flow,
            "task": self._task,
            "run": self._run,
            "wait": self._wait,
            "sleep": self._sleep,
            "get": self._get,
            "save": self._save,
            "set_output": self._set_output,
            "cancel": self._cancel,
        }

    async def answer(self, run: FlowRun, call: protocol.Call) -> bytes:
        """Do what the handler asks and return the frame that answers it."""
        if run.state.cancel_requested:
            run.met_cancel = True
            return protocol.refusal(call.call, "ExecutionCancel", "the execution was cancelled")
        kind = self._kinds.get(call.kind)
        try:
            if kind is None:
                raise errors.InvalidRequest(f"there is no call {call.kind[:100]!r}")
            if len(call.target) > _TARGET_CHARACTERS_MAX:
                raise errors.InvalidRequest(f"a name may have {_TARGET_CHARACTERS_MAX:,} characters")
            return protocol.answer(call.call, await kind(run, call))
        except Cancelled:
            run.met_cancel = True
            return self._refused(run, call, "ExecutionCancel", "the execution was cancelled")
        except DependencyFailed as error:
            shown = await views.ended_for_flow(self._ledger, error.state)
            return self._refused(run, call, "DependencyFailedError", str(error), shown, error.state.id)
        except TooLate as error:
            return self._refused(run, call, "DependencyTimeoutError", str(error))
        except errors.HeadraceError as error:
            text = f"{error.message} ({error.hint})" if error.hint else error.message
            return self._refused(run, call, _flow_side(error), text)

    def _refused(
        self,
        run: FlowRun,
        call: protocol.Call,
        kind: str,
        message: str,
        shown: bytes | None = None,
        execution: str = "",
    ) -> bytes:
        """Record that the call failed and return the frame that raises it."""
        failure = events.Failure(type=kind, message=message, execution=execution)
        told = call.call in run.state.pending
        self._ledger.record(
            run.live,
            events.CallEnded(
                execution=run.state.id,
                call=call.call,
                kind="" if told else call.kind[:100],
                target="" if told else call.target[:_TARGET_CHARACTERS_MAX],
                failure=failure,
            ),
        )
        return protocol.refusal(call.call, kind, message, shown)

    # -- children ---------------------------------------------------------------------------------------------------

    async def _flow(self, run: FlowRun, call: protocol.Call) -> bytes:
        args = arguments.decoded(call, arguments.Child)
        flow = self._flows.find(call.target, run.state.commit)
        if not flow.runnable:
            raise errors.Conflict(f"flow {flow.name!r} has no version that runs: {_why_broken(flow)}")
        inputs, blob = await self._ledger.stored(values.checked(bytes(args.inputs), "inputs"))
        created = events.ExecutionCreated(
            execution=self._executions.new_id(),
            name=(args.name or flow.name)[:_TARGET_CHARACTERS_MAX],
            flow_id=flow.id,
            flow_name=flow.name,
            commit=flow.commit,
            path=flow.path,
            inputs=inputs or events.EMPTY_OBJECT,
            inputs_blob=blob,
            timeout_s=flow.metadata.timeout_s,
            reuse=flow.metadata.reuse,
            **_descent(run, call, args.mode),
        )
        return await self._child(run, call, args.mode, created, None)

    async def _task(self, run: FlowRun, call: protocol.Call) -> bytes:
        args = arguments.decoded(call, arguments.Child)
        prepared = self._tasks.prepare(call.target, bytes(args.inputs))
        inputs, blob = await self._ledger.stored(values.checked(bytes(args.inputs), "inputs"))
        created = events.ExecutionCreated(
            execution=self._executions.new_id(),
            type="TASK",
            name=(args.name or prepared.type)[:_TARGET_CHARACTERS_MAX],
            task=prepared.type,
            inputs=inputs or events.EMPTY_OBJECT,
            inputs_blob=blob,
            **_descent(run, call, args.mode),
        )
        return await self._child(run, call, args.mode, created, prepared)

    async def _child(
        self,
        run: FlowRun,
        call: protocol.Call,
        mode: str,
        created: events.ExecutionCreated,
        prepared: ports.PreparedTask | None,
    ) -> bytes:
        """Record the call before the child it makes: a child that is not in its parent's record could come twice."""
        waits = mode not in (_CREATE_ONLY, _START)
        self._started(run, call, (created.execution,), waits=waits)
        child = self._executions.start_child(created, prepared)
        if not waits:
            return self._ended(run, call, views.handle(child.state))
        return await self._see_through(run, call, child.state, ReturnWhen(mode))

    async def _run(self, run: FlowRun, call: protocol.Call) -> bytes:
        args = arguments.decoded(call, arguments.Run)
        waits = args.mode in ReturnWhen.__members__
        state = await self._executions.load(args.execution)
        self._started(run, call, (state.id,), waits=waits)
        subject = self._ledger.find(state.id)
        if subject is not None and state.status is lifecycle.Status.NEW:
            self._executions.start_created(subject)
        if not waits:
            return self._ended(run, call, views.handle(state))
        return await self._see_through(run, call, state, ReturnWhen(args.mode))

    async def _see_through(
        self, run: FlowRun, call: protocol.Call, state: model.Execution, return_when: ReturnWhen
    ) -> bytes:
        """Wait for one child and return what its handle learns."""
        ended = await self._until(run, [state], return_when, None)
        if state.type == "TASK":
            await self._ledger.journal.durable()
        result = await views.ended_for_flow(self._ledger, ended[0])
        self._ended(run, call, views.handle(ended[0]))
        return result

    async def _wait(self, run: FlowRun, call: protocol.Call) -> bytes:
        args = arguments.decoded(call, arguments.Wait)
        states = [await self._executions.load(execution) for execution in args.executions]
        self._started(run, call, args.executions, waits=True)
        ended = await self._until(run, states, args.return_when, args.timeout)
        shown = [msgspec.Raw(await views.ended_for_flow(self._ledger, state)) for state in ended]
        self._ended(run, call, values.encode([state.id for state in ended]))
        return values.encode(shown)

    async def _until(
        self, run: FlowRun, states: list[model.Execution], return_when: ReturnWhen, timeout_s: float | None
    ) -> list[model.Execution]:
        """Wait as asked and return those that have ended; raises ``DependencyFailed`` and ``TooLate``."""
        hold = run.future()

        def look() -> None:
            if not hold.done() and judge(return_when, [state.status for state in states]) is not Verdict.WAIT:
                hold.set_result(None)

        look()
        if not hold.done():
            unfinished = tuple(state.id for state in states if not state.status.ended)
            if run.state.id in unfinished:
                raise errors.InvalidRequest("an execution cannot wait for itself")
            watched = [subject for subject in map(self._ledger.find, unfinished) if subject is not None]
            for subject in watched:
                subject.watchers.append(look)
            timer = _deadline(hold, timeout_s)
            try:
                await run.hold(hold, unfinished)
            finally:
                if timer is not None:
                    timer.cancel()
                for subject in watched:
                    if look in subject.watchers:  # one that has ended has told and forgotten its watchers
                        subject.watchers.remove(look)
        if judge(return_when, [state.status for state in states]) is Verdict.FAILED:
            raise DependencyFailed(
                next(s for s in states if s.status.ended and s.status is not lifecycle.Status.ENDED_SUCCESS)
            )
        return [state for state in states if state.status.ended]

    async def _cancel(self, run: FlowRun, call: protocol.Call) -> bytes:
        args = arguments.decoded(call, arguments.Cancel)
        self._ended(run, call, b"null", told=False)
        self._executions.request_cancel((await self._executions.load(args.execution)).id, run.state.id)
        return b"null"

    # -- time -------------------------------------------------------------------------------------------------------

    async def _sleep(self, run: FlowRun, call: protocol.Call) -> bytes:
        args = arguments.decoded(call, arguments.Sleep)
        now = self._clock.time()
        until = args.until if args.until is not None else now + (args.seconds or 0)
        self._started(run, call, waits=True, args=values.encode({"until": until}))
        hold = run.future()
        timer = run.live.ended.get_loop().call_later(max(0.0, until - now), _let_go, hold)
        try:
            await run.hold(hold)
        finally:
            timer.cancel()
        return self._ended(run, call, b"null")

    # -- reading and writing ----------------------------------------------------------------------------------------

    async def _get(self, run: FlowRun, call: protocol.Call) -> bytes:
        args = arguments.decoded(call, arguments.Get)
        state = await self._executions.load(args.execution)
        text = values.encode(await views.for_flow(self._ledger, state, args.fields))
        result, blob = await self._ledger.stored(text)
        self._ledger.record(
            run.live,
            events.CallEnded(
                execution=run.state.id,
                call=call.call,
                kind=call.kind,
                target=args.execution,
                args=msgspec.Raw(values.encode(args.fields)),
                result=result,
                result_blob=blob,
            ),
        )
        return text

    async def _save(self, run: FlowRun, call: protocol.Call) -> bytes:
        args = arguments.decoded(call, arguments.Save)
        unknown = args.fields.keys() - {"message", "name", "output_value"}
        if unknown:
            raise errors.InvalidRequest(
                f"{', '.join(sorted(unknown))} cannot be saved", hint="message, name and output_value can"
            )
        output: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET
        blob: events.Blob | None = None
        if "output_value" in args.fields:
            output, blob = await self._ledger.stored(values.checked(bytes(args.fields["output_value"]), "output_value"))
        self._write(
            run,
            call,
            args.execution,
            message=_text(args.fields, "message"),
            name=_text(args.fields, "name"),
            output=output,
            output_blob=blob,
        )
        return b"null"

    async def _set_output(self, run: FlowRun, call: protocol.Call) -> bytes:
        args = arguments.decoded(call, arguments.SetOutput)
        kept: dict[str, msgspec.Raw] = {}
        blobs: dict[str, events.Blob] = {}
        room = _KEYS_BYTES_MAX
        for key, value in args.keys.items():
            text = values.checked(bytes(value), f"output {key!r}")
            room -= len(key) + len(text)
            raw, blob = await self._ledger.stored(text, inline=room > 0)
            if blob is not None:
                blobs[key] = blob
            elif raw is not msgspec.UNSET:
                kept[key] = raw
        self._write(run, call, args.execution, output_keys=kept, output_key_blobs=blobs)
        return b"null"

    def _write(self, run: FlowRun, call: protocol.Call, execution: str, **what: Any) -> None:
        """Record a write to this execution or to another one, which then names the writer."""
        subject = self._ledger.find(execution)
        if subject is None or subject.state.status.ended:
            raise errors.Conflict(f"execution {execution} has ended; what it left cannot be changed")
        by = "" if subject is run.live else run.state.id
        event = events.ExecutionSaved(execution=execution, call=call.call, by=by, **what)
        if by:
            self._ended(run, call, b"null", told=False)
        self._ledger.record(subject, event)

    # -- recording --------------------------------------------------------------------------------------------------

    def _started(
        self,
        run: FlowRun,
        call: protocol.Call,
        children: tuple[str, ...] = (),
        *,
        waits: bool,
        args: bytes | None = None,
    ) -> None:
        self._ledger.record(
            run.live,
            events.CallStarted(
                execution=run.state.id,
                call=call.call,
                kind=call.kind,
                target=call.target,
                args=msgspec.UNSET if args is None else msgspec.Raw(args),
                children=children,
                waits=waits,
            ),
        )

    def _ended(self, run: FlowRun, call: protocol.Call, result: bytes, *, told: bool = True) -> bytes:
        """Record the result and return it; ``told``: a ``call.started`` stands in the record already."""
        self._ledger.record(
            run.live,
            events.CallEnded(
                execution=run.state.id,
                call=call.call,
                kind="" if told else call.kind,
                target="" if told else call.target,
                args=msgspec.UNSET if told else call.args,
                result=msgspec.Raw(result),
            ),
        )
        return result


def _descent(run: FlowRun, call: protocol.Call, mode: str) -> dict[str, Any]:
    """What a child has of its parent; raises ``InvalidRequest`` where the chain is too long."""
    depth = run.state.depth + 1
    if depth > DEPTH_MAX:
        raise errors.InvalidRequest(f"this would be the {depth}th child of a child in a row, the limit is {DEPTH_MAX}")
    if mode not in (_CREATE_ONLY, _START, *ReturnWhen):
        raise errors.InvalidRequest(f"a child cannot be started in mode {mode!r}")
    return {
        "parent": run.state.id,
        "parent_call": call.call,
        "depth": depth,
        "created_by": run.state.created_by,
        "queued": mode != _CREATE_ONLY,
    }


def _text(fields: dict[str, msgspec.Raw], name: str) -> str | None:
    if name not in fields:
        return None
    value = values.decode(fields[name])
    text = value if isinstance(value, str) else bytes(fields[name]).decode()
    return values.shortened(text, values.TEXT_CHARACTERS_MAX)


def _flow_side(error: errors.HeadraceError) -> str:
    """The name of the exception a flow meets for an error of ours."""
    match error:
        case errors.InputRefused():
            return error.kind
        case errors.NotFound():
            return "ResourceNotFoundError"
        case errors.NotAllowed():
            return "PermissionDenied"
        case errors.InvalidRequest() | errors.TooLarge() | errors.Conflict():
            return "InvalidInputError"
    return "InternalError"


def _why_broken(flow: model.Flow) -> str:
    return f"{flow.broken.file}:{flow.broken.line}: {flow.broken.reason}" if flow.broken else "it never had one"


def _let_go(hold: Any) -> None:
    if not hold.done():
        hold.set_result(None)


def _deadline(hold: Any, timeout_s: float | None) -> Any:
    """Make the waiting fail after ``timeout_s``; returns the timer, or None without a limit."""
    if timeout_s is None:
        return None

    def give_up() -> None:
        if not hold.done():
            hold.set_exception(TooLate(f"not ended within {timeout_s:g} s"))

    return hold.get_loop().call_later(max(0.0, timeout_s), give_up)
