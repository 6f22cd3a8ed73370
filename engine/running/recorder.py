"""How a handler's calls are written down: begun, ended, refused, and waited in."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection

import msgspec

from .. import events, values
from ..workers import protocol
from . import contents, failures, flow_run, live

TARGET_CHARACTERS_MAX = 1024


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
    ) -> None:
        """Record a call that takes time."""
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

    def ended(
        self,
        run: flow_run.FlowRun,
        call: protocol.Call,
        result: bytes | contents.Held = b"null",
        *,
        args: bytes | None = None,
    ) -> None:
        """Record the result of a call; ``args`` if that is the first that is told of it."""
        told = call.call in run.state.pending
        twins = {"result": msgspec.Raw(result)} if isinstance(result, bytes) else result.twins("result")
        self._ledger.record(
            run.live,
            events.CallEnded(
                execution=run.state.id,
                call=call.call,
                kind="" if told else call.kind,
                target="" if told else call.target,
                args=msgspec.UNSET if args is None or told else msgspec.Raw(args),
                **twins,
            ),
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
        self._ledger.record(
            run.live,
            events.CallEnded(
                execution=run.state.id,
                call=call.call,
                kind="" if told else call.kind[:100],
                target="" if told else call.target[:TARGET_CHARACTERS_MAX],
                failure=failure,
            ),
        )
        return protocol.refusal(call.call, kind, message, shown)


def let_go(hold: asyncio.Future[None]) -> None:
    """What was waited for is there."""
    if not hold.done():
        hold.set_result(None)


def deadline(
    hold: asyncio.Future[None], timeout_s: float | None, late: Callable[[], failures.Refused]
) -> asyncio.TimerHandle | None:
    """Make the waiting fail with ``late`` after ``timeout_s``; returns the timer, or None without a limit."""
    if timeout_s is None:
        return None

    def give_up() -> None:
        if not hold.done():
            hold.set_exception(late())

    return hold.get_loop().call_later(max(0.0, timeout_s), give_up)


def text(fields: dict[str, msgspec.Raw], name: str) -> str | None:
    """Return a field as text, whatever it is; None if it was not given."""
    if name not in fields:
        return None
    value = values.decode(fields[name])
    return values.shortened(
        value if isinstance(value, str) else bytes(fields[name]).decode(), values.TEXT_CHARACTERS_MAX
    )
