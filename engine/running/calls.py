"""The calls a handler may make, brought together: who answers which kind, and what a refusal becomes.

Every call carries its number. One that is answered at once is a single ``call.ended``; one that takes time is a
``call.started`` and later a ``call.ended``, so that a restart sees what was under way. A handler that is replayed gets
the recorded answers; from the first call without one on it lives. A call that was begun before is answered by the same
function as a new one: each knows its own ``call.started`` and does nothing twice.

An answer does not wait for the disk where only the engine is concerned: whatever the flow does next goes through the
same journal, behind what it saw, so nothing it caused can be durable while its cause is not. What touches the world (a
task, a child's start, a vault) waits for durability itself before it begins, and so does a task's result before it is
handed on.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import Protocol

from .. import errors, events, model, values
from ..workers import protocol
from . import contents, failures, flow_run, history, live, recall, recorder, views

#: Answers a call; None if it has begun and waits now for what its pending call says.
Kind = Callable[["flow_run.FlowRun", protocol.Call], Awaitable[bytes | None]]
#: Answers a call whose waiting is over; the last argument: because its time was up.
Conclusion = Callable[["flow_run.FlowRun", protocol.Call, model.PendingCall, bool], Awaitable[bytes]]

#: A longer history could not be replayed in good time.
CALLS_MAX = 100_000
HISTORY_BYTES_MAX = 100 * 1024 * 1024
_CALLS_MANY, _BYTES_MANY = 10_000, 10 * 1024 * 1024
#: What a handler may still call when its history is full.
_LAST_WORDS = ("continue_as_new", "webhook_response", "set_output", "save", "unlock", "setting.release")
_LAST_WORDS_MAX = 1_000


class Loading(Protocol):
    """What this needs of the dispatcher."""

    async def load(self, execution: str) -> model.Execution:
        """Return an execution's state, live or ended; raises ``NotFound``."""


class Calls:
    """Answers the calls of all handlers."""

    def __init__(
        self,
        ledger: live.Ledger,
        executions: Loading,
        kinds: Mapping[str, Kind],
        conclusions: Mapping[str, Conclusion],
    ) -> None:
        self._ledger = ledger
        self._executions = executions
        self._recorder = recorder.Recorder(ledger)
        self._kinds = kinds
        self._conclusions = conclusions

    async def answer(self, run: flow_run.FlowRun, call: protocol.Call) -> bytes:
        """Do what the handler asks and return the frame that answers it.

        Raises ``Diverged`` for a replayed call that is not the recorded one, ``Hibernated`` and ``Interrupted`` when
        nobody is to be answered any more."""
        recorded = run.recorded(call.call, call.kind, call.target, call.where)
        if recorded is not None and run.strict is not None:
            await run.strict.compare(call, recorded)
        if recorded is not None and recorded.ended:
            answer = await self._recalled(run, call, recorded)
        else:
            answer = await self._live(run, call)
        run.history_bytes += len(answer) + len(bytes(call.args))
        return answer

    async def _live(self, run: flow_run.FlowRun, call: protocol.Call) -> bytes:
        refused = self._recorder.refused
        if run.state.cancel_requested:
            run.met_cancel = True
            if call.call in run.state.pending:
                return refused(run, call, "ExecutionCancel", "the execution was cancelled")
            return protocol.refusal(call.call, "ExecutionCancel", "the execution was cancelled")
        try:
            return protocol.answer(call.call, await self._done(run, call))
        except failures.Cancelled:
            run.met_cancel = True
            return refused(run, call, "ExecutionCancel", "the execution was cancelled")
        except failures.DependencyFailed as error:
            shown = await views.ended_for_flow(self._ledger, error.state)
            return refused(run, call, "DependencyFailedError", str(error), shown, error.state.id)
        except failures.Refused as error:
            return refused(run, call, error.kind, str(error))
        except errors.HeadraceError as error:
            text = f"{error.message} ({error.hint})" if error.hint else error.message
            return refused(run, call, failures.flow_side(error), text)

    async def _done(self, run: flow_run.FlowRun, call: protocol.Call) -> bytes:
        kind = self._kinds.get(call.kind)
        if kind is None:
            raise errors.InvalidRequest(f"there is no call {call.kind[:100]!r}")
        if len(call.target) > recorder.TARGET_CHARACTERS_MAX:
            raise errors.InvalidRequest(f"a name may have {recorder.TARGET_CHARACTERS_MAX:,} characters")
        self._refuse_too_long(run, call)
        await run.stand_still()
        await run.breathe(run.reads.delay_s(call))
        answer = await kind(run, call)
        if answer is not None:
            return answer
        pending = run.state.pending[call.call]
        late = await run.wait(pending)
        return await self._conclusions[call.kind](run, call, pending, late)

    def _refuse_too_long(self, run: flow_run.FlowRun, call: protocol.Call) -> None:
        """Raise ``Refused`` for a handler that did too much to be replayed; tell it, once, well before that."""
        many, large = call.call >= _CALLS_MANY, run.history_bytes >= _BYTES_MANY
        if (many or large) and not run.warned:
            run.warned = True
            size = f"{call.call:,} calls" if many else f"{run.history_bytes:,} bytes"
            text = f"the history of this execution has {size}; long loops should this.continue_as_new(…)"
            run.record(events.LogWritten(execution=run.state.id, level="WARNING", stream="headrace", text=text))
        room = _LAST_WORDS_MAX if call.kind in _LAST_WORDS else 0
        if call.call >= CALLS_MAX + room or run.history_bytes >= HISTORY_BYTES_MAX + room * values.INLINE_BYTES_MAX:
            raise failures.Refused(
                "HistoryFull",
                f"this execution has made {call.call - 1:,} calls with {run.history_bytes:,} bytes, the limit is "
                f"{CALLS_MAX:,} calls and {HISTORY_BYTES_MAX:,} bytes: call this.continue_as_new(inputs)",
            )

    # -- answers from the record ------------------------------------------------------------------------------------

    async def _recalled(self, run: flow_run.FlowRun, call: protocol.Call, entry: history.Entry) -> bytes:
        """Return the frame that answers a call as it was answered before."""
        if entry.loose:  # the next replay will find an end of its own
            self._recorder.ended(run, call, contents.held(entry.result))
        if (failure := entry.failure) is not None:
            run.met_cancel = run.met_cancel or failure.type == "ExecutionCancel"
            return await recall.refusal(call.call, failure, self._ledger, self._executions.load)
        result = await recall.result(entry, self._ledger, self._executions.load)
        if call.kind == "flow.save":
            run.saved_flows.add(values.decode(result)["name"])
        if call.kind == "continue_as_new":
            run.continuation = entry.result
        return protocol.answer(call.call, result)
