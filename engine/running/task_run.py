"""The supervision of one task execution: it runs in the daemon, as an asyncio.Task that can really be stopped."""

from __future__ import annotations

import asyncio
from typing import Any

import msgspec

from .. import errors, events, ports, traces
from ..lifecycle import Status
from . import asking, live, slots


class Context(msgspec.Struct, frozen=True):
    """What a running task may use; see ``ports.TaskContext``."""

    subject: live.Live
    ledger: live.Ledger
    files: ports.Files
    allow_local_files: bool
    people: asking.Asking
    room: slots.Slots

    @property
    def execution_id(self) -> str:
        """The id of the task's own execution."""
        return self.subject.state.id

    @property
    def traceparent(self) -> str:
        """The trace for what the task asks of others."""
        return traces.onward(self.subject.state.traceparent, self.execution_id)

    def log(self, level: str, text: str) -> None:
        """Write a line into the task's record."""
        event = events.LogWritten(execution=self.execution_id, level=level, text=text)
        self.ledger.record(self.subject, event)

    def hide(self, secret: Any) -> None:
        """Mask a secret in all records from now on."""
        self.ledger.contents.masks.learn(secret)

    async def ask(self, subject: str, form: bytes) -> bytes:
        """Ask a person, or go on waiting for who was asked before the task was cut off; return the answer."""
        state = self.subject.state
        again = self.people.question_of(state.id) if state.attempt > 1 else None
        asked = again or await self.people.create(
            subject, "INFO", form, execution=state.id, created_by=state.created_by or state.name, bound=True
        )
        self.room.leave(state.id)  # people take days, and others want to run
        message = await self.people.settled(asked.id)
        if message.response is None:
            raise errors.TaskFailed(f"there will be no answer: {message.withdrawn}", kind="MessageResponseTimeoutError")
        return await self.people.response(message)


class TaskRun:
    """One task under way."""

    def __init__(self, context: Context, prepared: ports.PreparedTask) -> None:
        self._context = context
        self._ledger = context.ledger
        self._live = context.subject
        self._prepared = prepared
        self._work: asyncio.Task[bytes] | None = None
        self._interrupted = False
        self.interrupted = ""  # it has not ended and may be repeated: why

    def cancel(self) -> None:
        """Stop the work now."""
        if self._work is not None:
            self._work.cancel()

    def pause(self) -> None:
        """A task cannot stand still; nobody may ask it to."""

    def resume(self) -> None:
        """It never stood still."""

    def interrupt(self) -> None:
        """The daemon stops: stop the work. It is repeated at the next start, or its end says that nobody knows."""
        self._interrupted = True
        self.cancel()

    async def abandon(self) -> None:
        """Something went wrong on our side: leave nothing of it behind."""
        if self._work is not None and not self._work.done():
            self._work.cancel()
            await asyncio.wait({self._work})

    async def run(self) -> None:
        """Run it to its end, which is recorded on return."""
        execution = self._live.state.id
        attempt = self._live.state.attempt + 1
        self._ledger.record(self._live, events.ExecutionStarted(execution=execution, attempt=attempt))
        await self._ledger.journal.durable()  # the world must not be touched for something that could be forgotten
        self._work = asyncio.create_task(self._prepared.run(self._context), name=f"task {execution}")
        if self._live.state.cancel_requested or self._interrupted:
            self._work.cancel()
        done, _ = await asyncio.wait({self._work}, timeout=self._prepared.timeout_s)
        timed_out = not done
        if timed_out:
            self._work.cancel()
            await asyncio.wait({self._work})
        if self._interrupted and self._work.cancelled() and not timed_out and self._prepared.idempotent:
            self.interrupted = "the daemon stopped"
            return
        self._ledger.record(self._live, await self._described(self._work, timed_out=timed_out))

    async def _described(self, work: asyncio.Task[bytes], *, timed_out: bool) -> events.ExecutionEnded:
        """How it ended, from how the work did."""
        execution = self._live.state.id
        if work.cancelled():
            if timed_out:
                text = f"timed out after {self._prepared.timeout_s:g} s"
                return _failed(execution, "TimeoutExceededError", text, reason="timeout")
            if self._interrupted:
                text = "interrupted: the daemon stopped; whether it took effect is not known"
                return _failed(execution, "OutcomeUnknownError", text, reason="interrupted")
            return events.ExecutionEnded(execution=execution, status=Status.ENDED_CANCELLED, message="cancelled")
        error = work.exception()
        if error is None:
            twins = await self._output(work.result())
            return events.ExecutionEnded(execution=execution, status=Status.ENDED_SUCCESS, **twins)
        if not isinstance(error, errors.HeadraceError):
            raise error  # a defect of the task's code: the dispatcher's seam records and reports it
        twins = await self._output(error.output if isinstance(error, errors.TaskFailed) else b"{}")
        kind = error.kind if isinstance(error, errors.TaskFailed) else type(error).__name__
        return events.ExecutionEnded(
            execution=execution,
            status=Status.ENDED_ERROR,
            message=error.message,
            failure=events.Failure(type=kind, message=error.message),
            **twins,
        )

    async def _output(self, output: bytes) -> dict[str, Any]:
        held = await self._ledger.contents.store(output, protect=self._live.state.protect_outputs)
        return held.twins("output")


def _failed(execution: str, kind: str, text: str, *, reason: str) -> events.ExecutionEnded:
    return events.ExecutionEnded(
        execution=execution,
        status=Status.ENDED_ERROR,
        message=text,
        reason=reason,
        failure=events.Failure(type=kind, message=text),
    )
