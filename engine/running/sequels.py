"""What follows the end of an execution: another attempt, or the flow that is to be told.

Both are recorded together with the end (``ports.Journal.together``): after a crash either all of it is there or
nothing, and nothing follows twice. A retry is a queued execution with the moment before
which it may not run, so its delay survives a restart. A cancelled execution has no sequel; one that is itself a sequel
sets off no further flow, or two could tell each other for ever.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import msgspec
import structlog

from .. import errors, events, model, policy, ports, values
from ..lifecycle import Status
from . import contents, live, terms

log = structlog.get_logger()

#: Of a message, a sequel learns so much; the record has the rest.
_MESSAGE_CHARACTERS_MAX = 4000


class Sequels:
    """Makes them. ``start`` records an execution and lets it run when its time has come."""

    def __init__(
        self,
        flows: ports.Flows,
        clock: ports.Clock,
        new_id: Callable[[], str],
        start: Callable[[events.ExecutionCreated], object],
        chance: Callable[[], float] = random.random,
    ) -> None:
        self._flows = flows
        self._clock = clock
        self._new_id = new_id
        self._start = start
        self._chance = chance

    def follow(self, subject: live.Live) -> None:
        """``subject`` has ended, this moment."""
        state = subject.state
        if state.type != "FLOW" or state.status is Status.ENDED_CANCELLED:
            return
        try:
            flow = self._flows.find(state.flow_id, state.commit)
        except errors.NotFound:  # deleted meanwhile: it says nothing any more
            return
        said = flow.metadata.policies
        failed = state.status is Status.ENDED_ERROR
        if failed and said.retry is not None and self._is_tried_again(state, said.retry):
            self._retry(state, said.retry)
        elif target := said.on_failure if failed else said.on_success:
            self._tell(state, target)

    def _is_tried_again(self, state: model.Execution, said: policy.Retry) -> bool:
        """Whether there is another attempt. One with a parent fails there: its parent waits for this execution."""
        failure = state.failure.type if state.failure is not None else ""
        more = state.terms.retry + 1 < said.attempts and said.covers(failure, state.reason)
        return more and not state.parent and not state.cancel_requested

    def _retry(self, state: model.Execution, said: policy.Retry) -> None:
        number = state.terms.retry + 1
        after_s = said.delay_before_s(number, self._chance())
        again = msgspec.structs.replace(
            state.terms,
            retry=number,
            retry_of=state.terms.retry_of or state.id,
            not_before=self._clock.time() + after_s,
            when_full="queue" if state.terms.lane else "",  # it was let in once
        )
        self._start(
            events.ExecutionCreated(
                execution=self._new_id(),
                name=state.name,
                flow_id=state.flow_id,
                flow_name=state.flow_name,
                commit=state.commit,
                path=state.path,
                venv=state.venv,
                webhook=state.webhook,
                outside=state.outside,
                created_by=state.created_by,
                timeout_s=state.timeout_s,
                reuse=state.reuse,
                protect_inputs=state.protect_inputs,
                protect_outputs=state.protect_outputs,
                retention_time_s=state.retention_time_s,
                on_interrupt=state.on_interrupt,
                strict_replay=state.strict_replay,
                traceparent=state.traceparent,
                terms=again,
                **contents.held(state.inputs).twins("inputs"),
            )
        )
        log.info("execution.retried", execution=state.id, flow=state.flow_name, retry=number, after_s=round(after_s, 3))

    def _tell(self, state: model.Execution, target: str) -> None:
        if state.terms.follows:
            return
        self._begin(
            target,
            told(state),
            policy.Terms(follows=state.id),
            commit=state.commit,
            about=state.flow_name,
            outside=state.outside,
            traceparent=state.traceparent,
        )

    def tell_late(self, flow: model.Flow, inputs: dict[str, Any], follows: str) -> None:
        """Tell the ``on_failure`` of ``flow``, if it has one, that something did not come about in time."""
        if target := flow.metadata.policies.on_failure:
            self._begin(target, inputs, policy.Terms(follows=follows), about=flow.name)

    def _begin(
        self,
        target: str,
        inputs: dict[str, Any],
        said: policy.Terms,
        *,
        about: str,
        commit: str = "",
        **more: Any,
    ) -> None:
        try:
            flow = self._flows.find(target, commit)
            if not flow.runnable:
                raise errors.NotFound(f"flow {target!r} has no version that runs")
        except errors.NotFound as error:
            log.error("sequel.missing", flow=about, reason=error.message)
            return
        self._start(
            events.ExecutionCreated(
                execution=self._new_id(),
                name=flow.name,
                created_by=f"flow {about}",
                inputs=msgspec.Raw(values.encode(inputs)),
                **terms.of_flow(flow, lambda: inputs, said),
                **more,
            )
        )


def told(state: model.Execution) -> dict[str, Any]:
    """Return what a flow learns that is told of an end."""
    failure = state.failure
    return {
        "execution_id": state.id,
        "name": state.name,
        "flow": state.flow_name,
        "commit": state.commit,
        "status": state.status,
        "message": values.shortened(state.message, _MESSAGE_CHARACTERS_MAX),
        "reason": state.reason,
        "error": failure.type if failure is not None else "",
        "where": f"{failure.file}:{failure.line}" if failure is not None and failure.file else "",
        "attempts": state.terms.retry + 1,
        "schedule": state.terms.schedule,
        "due": state.terms.due,
        "tags": list(state.terms.tags),
        "created_by": state.created_by,
        "created_at": state.created_at,
        "started_at": state.started_at,
        "ended_at": state.ended_at,
    }
