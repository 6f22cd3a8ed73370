"""How a handler's calls are written down: begun, ended, refused, and the same read again and again."""

from __future__ import annotations

from collections.abc import Collection

import msgspec

from .. import events, model, values
from ..workers import protocol
from . import contents, flow_run, live

TARGET_CHARACTERS_MAX = 1024
#: Calls that only read: one that repeats the call before it, with the same answer, is counted and not written down.
_READS = ("get", "exists", "list")


class Recorder:
    """Writes calls into the record of their execution."""

    def __init__(self, ledger: live.Ledger) -> None:
        self._ledger = ledger

    def started(
        self,
        run: flow_run.FlowRun,
        call: protocol.Call,
        children: tuple[str, ...] = (),
        *,
        waits: bool,
        args: bytes | None = None,
        return_when: str = "",
        message: str = "",
        until: float | None = None,
    ) -> model.PendingCall:
        """Record a call that takes time, unless it is recorded already: a handler comes to it again when replayed."""
        known = run.state.pending.get(call.call)
        if known is None:
            run.record(
                events.CallStarted(
                    execution=run.state.id,
                    call=call.call,
                    kind=call.kind,
                    target=call.target,
                    args=msgspec.UNSET if args is None else msgspec.Raw(args),
                    children=children,
                    waits=waits,
                    return_when=return_when,
                    message=message,
                    until=until,
                    where=call.where,
                )
            )
        return run.state.pending[call.call]

    def ended(
        self,
        run: flow_run.FlowRun,
        call: protocol.Call,
        result: bytes | contents.Held = b"null",
        *,
        args: bytes | None = None,
    ) -> None:
        """Record the result of a call; ``args`` if that is the first that is told of it."""
        twins = {"result": msgspec.Raw(result)} if isinstance(result, bytes) else result.twins("result")
        if call.kind.rpartition(".")[2] in _READS and run.reads.again(call, twins):
            return
        told = call.call in run.state.pending
        run.record(
            events.CallEnded(
                execution=run.state.id,
                call=call.call,
                kind="" if told else call.kind,
                target="" if told else call.target,
                args=msgspec.UNSET if args is None or told else msgspec.Raw(args),
                where="" if told else call.where,
                **twins,
            )
        )

    async def ended_with(
        self,
        run: flow_run.FlowRun,
        call: protocol.Call,
        result: bytes,
        *,
        args: bytes | None = None,
        protect: Collection[str] = (),
    ) -> bytes:
        """The same for a result of any size, which may hold a secret; returns it."""
        self.ended(run, call, await self._ledger.contents.store(result, protect=protect), args=args)
        return result

    def refused(
        self,
        run: flow_run.FlowRun,
        call: protocol.Call,
        kind: str,
        message: str,
        shown: bytes | None = None,
        execution: str = "",
    ) -> bytes:
        """Record that a call failed and return the frame that raises it."""
        failure = events.Failure(type=kind, message=message, execution=execution)
        told = call.call in run.state.pending
        run.record(
            events.CallEnded(
                execution=run.state.id,
                call=call.call,
                kind="" if told else call.kind[:100],
                target="" if told else call.target[:TARGET_CHARACTERS_MAX],
                where="" if told else call.where,
                failure=failure,
            )
        )
        return protocol.refusal(call.call, kind, message, shown)


def text(fields: dict[str, msgspec.Raw], name: str) -> str | None:
    """Return a field as text, whatever it is; None if it was not given."""
    if name not in fields:
        return None
    value = values.decode(fields[name])
    return values.shortened(
        value if isinstance(value, str) else bytes(fields[name]).decode(), values.TEXT_CHARACTERS_MAX
    )
