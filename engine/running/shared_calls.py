"""Calls that wait for people and for locks."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from .. import model, values
from ..state import locks, messages
from ..workers import protocol
from . import arguments, asking, calls, failures, flow_run, live, locking, recorder


class SharedCalls:
    """Answers them."""

    def __init__(self, ledger: live.Ledger, asked: asking.Asking, held: locking.Locking) -> None:
        self._ledger = ledger
        self._asking = asked
        self._locking = held
        self._recorder = recorder.Recorder(ledger)

    def table(self) -> Mapping[str, calls.Kind]:
        """Return who answers which kind."""
        return {
            "message": self._message,
            "message.wait": self._wait,
            "lock": self._lock,
            "unlock": self._release,
            "setting.acquire": self._acquire,
            "setting.release": self._release,
        }

    # -- people -----------------------------------------------------------------------------------------------------

    async def _message(self, run: flow_run.FlowRun, call: protocol.Call) -> bytes:
        args = arguments.decoded(call, arguments.Message)
        message = await self._asking.create(
            call.target,
            args.message_type,
            bytes(args.body),
            execution=run.state.id,
            call=call.call,
            created_by=run.state.flow_name or run.state.name,
            bound=args.wait,
        )
        result: dict[str, Any] = {"id": message.id}
        if not args.wait:
            self._recorder.ended(run, call, values.encode(result))
            return values.encode(result)
        return await self._answered(run, call, message, args.timeout, result)

    async def _wait(self, run: flow_run.FlowRun, call: protocol.Call) -> bytes:
        args = arguments.decoded(call, arguments.Patience)
        return await self._answered(run, call, self._asking.find(call.target), args.timeout, {})

    async def _answered(
        self,
        run: flow_run.FlowRun,
        call: protocol.Call,
        message: messages.Message,
        timeout_s: float | None,
        result: dict[str, Any],
    ) -> bytes:
        """Wait for the answer and return it; raises ``Refused`` when nobody gave one in time, or ever will."""
        if message.pending:
            self._recorder.started(run, call, waits=True, args=values.encode({"message": message.id}))
            hold = run.future()
            self._asking.wait(message.id, hold)
            timer = recorder.deadline(hold, timeout_s, lambda: _unanswered(message, timeout_s))
            try:
                await run.hold(hold)
            finally:
                self._asking.give_up(message.id, hold)
                if timer is not None:
                    timer.cancel()
            message = self._asking.find(message.id)
        if message.response is None:
            why = f"message {message.subject!r} will get no answer: {message.withdrawn}"
            raise failures.Refused("MessageResponseTimeoutError", why)
        true = values.encode({**result, "response": msgspec.Raw(await self._asking.response(message))})
        shown = None
        if isinstance(message.response, model.Sealed):
            people = await self._ledger.contents.shown(message.response)
            shown = values.encode({**result, "response": people})
        self._recorder.ended(run, call, await self._ledger.contents.store(true, shown=shown))
        return true

    # -- locks ------------------------------------------------------------------------------------------------------

    async def _lock(self, run: flow_run.FlowRun, call: protocol.Call) -> bytes:
        return await self._take(run, call, owned=True)

    async def _acquire(self, run: flow_run.FlowRun, call: protocol.Call) -> bytes:
        return await self._take(run, call, owned=False)

    async def _take(self, run: flow_run.FlowRun, call: protocol.Call, *, owned: bool) -> bytes:
        timeout_s = arguments.decoded(call, arguments.Patience).timeout
        waiter = locks.Waiter(call.target, run.state.id, owned, timeout_s is not None)
        hold = run.future()
        wait = self._locking.take(waiter, call.call, hold)
        if wait is None:
            self._recorder.ended(run, call, args=bytes(call.args))
            return b"null"
        self._recorder.started(run, call, waits=True, args=bytes(call.args))
        timer = recorder.deadline(hold, timeout_s, lambda: _locked(call.target, timeout_s))
        try:
            await run.hold(hold)
        finally:
            if timer is not None:
                timer.cancel()
            self._locking.give_up(wait)
        self._recorder.ended(run, call)
        return b"null"

    async def _release(self, run: flow_run.FlowRun, call: protocol.Call) -> bytes:
        arguments.decoded(call, arguments.Patience if call.kind == "setting.release" else arguments.Nothing)
        self._locking.release(call.target, run.state.id, call.call)
        self._recorder.ended(run, call, args=b"{}")
        return b"null"


def _unanswered(message: messages.Message, timeout_s: float | None) -> failures.Refused:
    text = f"nobody answered message {message.subject!r} within {timeout_s or 0:g} s"
    return failures.Refused("MessageResponseTimeoutError", text)


def _locked(name: str, timeout_s: float | None) -> failures.Refused:
    return failures.Refused("LockTimeoutError", f"lock {name!r} was not free within {timeout_s or 0:g} s")
