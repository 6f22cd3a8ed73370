"""Calls that wait for people and for locks."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from .. import model, ports, values
from ..state import locks, messages
from ..workers import protocol
from . import arguments, asking, calls, failures, flow_run, live, locking, recorder, waits


class SharedCalls:
    """Answers them."""

    def __init__(self, ledger: live.Ledger, asked: asking.Asking, held: locking.Locking, clock: ports.Clock) -> None:
        self._ledger = ledger
        self._clock = clock
        self._asking = asked
        self._locking = held
        self._recorder = recorder.Recorder(ledger)

    def table(self) -> Mapping[str, calls.Kind]:
        """Return who answers which kind."""
        return {
            "message": self._message,
            "message.wait": self._wait,
            "lock": self._take,
            "unlock": self._release,
            "setting.acquire": self._take,
            "setting.release": self._release,
        }

    def conclusions(self) -> Mapping[str, calls.Conclusion]:
        """Return who answers which kind after waiting."""
        return {
            "message": self._created_and_answered,
            "message.wait": self._answered,
            "lock": self._taken,
            "setting.acquire": self._taken,
        }

    # -- people -----------------------------------------------------------------------------------------------------

    async def _message(self, run: flow_run.FlowRun, call: protocol.Call) -> bytes | None:
        args = arguments.decoded(call, arguments.Message)
        before = run.history.find(call.call)  # this very call, when it was cut off: it may have asked already
        id_ = before.message if before is not None else ""
        if not id_:
            message = await self._asking.create(
                call.target,
                args.message_type,
                bytes(args.body),
                execution=run.state.id,
                call=call.call,
                created_by=run.state.flow_name or run.state.name,
                bound=args.wait,
            )
            id_ = message.id
        if args.wait:
            self._wait_for(run, call, id_, args.timeout)
            return None
        result = values.encode({"id": id_})
        self._recorder.ended(run, call, result)
        return result

    async def _wait(self, run: flow_run.FlowRun, call: protocol.Call) -> bytes | None:
        args = arguments.decoded(call, arguments.Patience)
        message = self._asking.find(call.target)
        if not message.pending and call.call not in run.state.pending:
            return await self._told(run, call, message, {})
        self._wait_for(run, call, message.id, args.timeout)
        return None

    def _wait_for(self, run: flow_run.FlowRun, call: protocol.Call, message: str, timeout_s: float | None) -> None:
        until = None if timeout_s is None else self._clock.time() + timeout_s
        self._recorder.started(run, call, waits=True, message=message, until=until)

    async def _created_and_answered(
        self, run: flow_run.FlowRun, call: protocol.Call, pending: model.PendingCall, late: bool
    ) -> bytes:
        message = self._asking.find(pending.message)
        if message.pending:
            raise _unanswered(message, arguments.decoded(call, arguments.Message).timeout)
        return await self._told(run, call, message, {"id": message.id})

    async def _answered(
        self, run: flow_run.FlowRun, call: protocol.Call, pending: model.PendingCall, late: bool
    ) -> bytes:
        message = self._asking.find(pending.message)
        if message.pending:
            raise _unanswered(message, arguments.decoded(call, arguments.Patience).timeout)
        return await self._told(run, call, message, {})

    async def _told(
        self, run: flow_run.FlowRun, call: protocol.Call, message: messages.Message, result: dict[str, Any]
    ) -> bytes:
        """Return the answer; raises ``Refused`` when there will never be one."""
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

    async def _take(self, run: flow_run.FlowRun, call: protocol.Call) -> bytes | None:
        timeout_s = arguments.decoded(call, arguments.Patience).timeout
        if call.call not in run.state.pending:
            waiter = locks.Waiter(call.target, run.state.id, waits.LOCKS[call.kind], timeout_s is not None)
            if self._locking.take_if_free(waiter, call.call):
                self._recorder.ended(run, call, args=bytes(call.args))
                return b"null"
            until = None if timeout_s is None else self._clock.time() + timeout_s
            self._recorder.started(run, call, waits=True, args=bytes(call.args), until=until)
        return None

    async def _taken(self, run: flow_run.FlowRun, call: protocol.Call, pending: model.PendingCall, late: bool) -> bytes:
        if late:
            raise _locked(call.target, arguments.decoded(call, arguments.Patience).timeout)
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
