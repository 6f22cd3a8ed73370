"""The calls a handler may make, brought together: who answers which kind, and what a refusal becomes.

Every call carries its number. One that is answered at once is a single ``call.ended``; one that takes time is a
``call.started`` and later a ``call.ended``, so that a restart sees what was under way.

An answer does not wait for the disk where only the engine is concerned: whatever the flow does next goes through the
same journal, behind what it saw, so nothing it caused can be durable while its cause is not. What touches the world (a
task, a child's start, a vault) waits for durability itself before it begins, and so does a task's result before it is
handed on.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping

from .. import errors
from ..workers import protocol
from . import failures, flow_run, live, recorder, views

Kind = Callable[[flow_run.FlowRun, protocol.Call], Awaitable[bytes]]


class Calls:
    """Answers the calls of all handlers."""

    def __init__(self, ledger: live.Ledger, *tables: Mapping[str, Kind]) -> None:
        self._ledger = ledger
        self._recorder = recorder.Recorder(ledger)
        self._kinds: dict[str, Kind] = {kind: answer for table in tables for kind, answer in table.items()}

    async def answer(self, run: flow_run.FlowRun, call: protocol.Call) -> bytes:
        """Do what the handler asks and return the frame that answers it."""
        if run.state.cancel_requested:
            run.met_cancel = True
            return protocol.refusal(call.call, "ExecutionCancel", "the execution was cancelled")
        refused = self._recorder.refused
        try:
            kind = self._kinds.get(call.kind)
            if kind is None:
                raise errors.InvalidRequest(f"there is no call {call.kind[:100]!r}")
            if len(call.target) > recorder.TARGET_CHARACTERS_MAX:
                raise errors.InvalidRequest(f"a name may have {recorder.TARGET_CHARACTERS_MAX:,} characters")
            await run.stand_still()
            return protocol.answer(call.call, await kind(run, call))
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
