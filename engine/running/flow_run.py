"""The supervision of one flow execution: from the moment there is room to its end.

It finds a process, tells it what to run, records what it says and answers its calls; it ends it when it is cancelled,
takes too long or breaks the protocol. What the process writes to its standard streams becomes log events, bounded: a
flood is cut with a marker and slowed by its own pipe, never the daemon.
"""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import Awaitable, Callable, Iterable

import msgspec
import structlog

from .. import errors, events, ports, values
from ..lifecycle import Status
from ..state import masks
from ..workers import flow_process, processes, protocol
from . import failures, live, slots, views

log = structlog.get_logger()

#: What one execution may write to its standard streams before the rest is dropped.
OUTPUT_BYTES_MAX = 10 * 1024 * 1024
#: A line is recorded in pieces of this size if it is longer.
_LINE_BYTES_MAX = 64 * 1024
#: So many bytes of log may be under way to the disk for one execution before it is made to wait.
_UNWRITTEN_BYTES_MAX = 256 * 1024
#: Of what an effect was, and of the file it is in, this much is kept.
_DETAIL_CHARACTERS_MAX = 1000
#: How long a killed process may take to vanish before its end is recorded all the same.
_BURIAL_S = 10.0


AnswerCall = Callable[["FlowRun", protocol.Call], Awaitable[bytes]]


@dataclasses.dataclass(frozen=True, slots=True)
class Surroundings:
    """What every supervision needs."""

    ledger: live.Ledger
    flows: ports.Flows
    processes: processes.Processes
    slots: slots.Slots
    answer: AnswerCall
    cancel: Callable[[str, str], None]  # execution id, who
    cancel_grace_s: float
    system: dict[str, str]  # workspace, environment


class FlowRun:
    """One execution under way."""

    def __init__(self, subject: live.Live, around: Surroundings) -> None:
        self.live = subject
        self.state = subject.state
        self.met_cancel = False  # the handler was told, in a call
        self.saved_flows: set[str] = set()  # by the handler: it means those it saved when it runs them
        self.set_off: set[str] = set()  # executions that others made and this one started
        self.needs: tuple[str, ...] = ()  # executions that must all end before its current call does
        self._around = around
        self._loop = asyncio.get_running_loop()
        self._process: flow_process.FlowProcess | None = None
        self._hold: asyncio.Future[None] | None = None  # what the handler's current call waits for
        self._held_children: tuple[str, ...] = ()
        self._killed_because = ""
        self._timers: list[asyncio.TimerHandle] = []
        self._limit: asyncio.TimerHandle | None = None  # of its whole time; it stands still while paused
        self._left_s = 0.0
        self._resumption: asyncio.Future[None] | None = None
        self._output = {"stdout": bytearray(), "stderr": bytearray()}
        self._clean = {name: masks.Stream(around.ledger.contents.masks, _LINE_BYTES_MAX) for name in self._output}
        self._output_bytes = 0
        self._unwritten_bytes = 0
        self._resuming: set[asyncio.Task[None]] = set()

    # -- the walk ---------------------------------------------------------------------------------------------------

    async def run(self) -> None:
        """Run it to its end, which is recorded on return."""
        self._around.ledger.record(
            self.live, events.ExecutionStarted(execution=self.state.id, attempt=self.state.attempt + 1)
        )
        if self.state.timeout_s is not None:
            self._limit = self._loop.call_later(self.state.timeout_s, self._expire)
        if self.state.parent:  # one from outside is durable already
            await self._around.ledger.journal.durable()
        frame = await self._frame()
        kind = (self.state.flow_id, self.state.commit)
        process = self._process = self._around.processes.take(kind, fresh=not self.state.reuse)
        process.listen(self._take_output)
        if self._killed_because:
            process.kill()  # its time was over, or the daemon stopped, before there was a process to kill
        process.send(frame)
        try:
            ended = await self._converse(process)
            event = await self._described(ended)
            reusable = event.status == Status.ENDED_SUCCESS and not ended.dirty and self.state.reuse
            if reusable:
                self._around.processes.give_back(kind, process)
            elif ended.dirty or event.status != Status.ENDED_SUCCESS:
                await self._bury(process)
            else:
                process.dismiss()
        except (EOFError, errors.InvalidRequest) as error:
            await self._bury(process)
            event = self._cut_off(str(error))
        finally:
            process.listen(None)
            for timer in (*self._timers, self._limit):
                if timer is not None:
                    timer.cancel()
        self._flush_output()
        self._around.ledger.record(self.live, event)

    async def _frame(self) -> bytes:
        """Return what makes a process run it."""
        contents = self._around.ledger.contents
        script = self.state.script
        return protocol.start(
            protocol.Start(
                execution=msgspec.Raw(await views.start(self._around.ledger, self.state)),
                path=self.state.path,
                snapshot=str(self._around.flows.snapshot(self.state.commit)),
                script=msgspec.UNSET if script is None else await contents.shown(script),
                webhook=self.state.webhook,
                system={"user": self.state.created_by, **self._around.system},
            )
        )

    async def _converse(self, process: flow_process.FlowProcess) -> protocol.Ended:
        """Answer the handler's calls until it has ended; raises ``EOFError`` when the process is gone."""
        while True:
            said = protocol.decode(await process.receive())
            match said:
                case protocol.Output():
                    if not self._record_written(said.stream, said.text.encode()):
                        await self._written()
                case protocol.Effect():
                    await self._notice_effect(said)
                    process.send(protocol.noticed())
                case protocol.Settle():
                    process.send(protocol.settled())
                case protocol.Log():
                    await self._take_log(said)
                case protocol.Call():
                    try:
                        process.send(await self._around.answer(self, said))
                    except failures.Interrupted:
                        continue
                case protocol.Ended():
                    process.drain()
                    return said

    async def _bury(self, process: flow_process.FlowProcess) -> None:
        """Kill the process with all it started and wait until it is gone: ended means nothing goes on."""
        process.kill()
        done, _ = await asyncio.wait({process.exited}, timeout=_BURIAL_S)
        if not done:
            log.error("process.stuck", execution=self.state.id, pid=process.pid)

    # -- waiting inside a call --------------------------------------------------------------------------------------

    async def hold(self, hold: asyncio.Future[None], children: tuple[str, ...] = ()) -> None:
        """Wait for ``hold`` on behalf of the handler's current call, without occupying a slot.

        Raises ``Cancelled`` when the execution is cancelled and ``Interrupted`` when its process is killed meanwhile.
        A pause that began meanwhile is waited for too: what came is handed on when the execution is resumed.
        """
        self._hold, self._held_children = hold, children
        self._around.slots.leave(self.state.id)
        try:
            if self.state.pause_requested:
                self._stop_here()
            await hold
            await self._until_resumed()
        finally:
            self._hold, self._held_children = None, ()
            if not self._killed_because:
                await self._around.slots.come_back(self.state.id)

    async def stand_still(self) -> None:
        """Between two calls: wait here if the execution was asked to pause. Raises as ``hold`` does."""
        if self.state.pause_requested:
            await self.hold(_done(self.future()))

    def _stop_here(self) -> None:
        """The pause begins."""
        if self.state.status is not Status.PAUSED:
            self._around.ledger.record(self.live, events.ExecutionPaused(execution=self.state.id))
            if self._limit is not None:
                self._left_s = max(0.0, self._limit.when() - self._loop.time())
                self._limit.cancel()

    async def _until_resumed(self) -> None:
        while self.state.pause_requested:
            self._hold = self._resumption = self.future()
            await self._resumption

    def future(self) -> asyncio.Future[None]:
        """Return something to ``hold`` on to."""
        return self._loop.create_future()

    # -- influence from outside -------------------------------------------------------------------------------------

    def cancel(self) -> None:
        """Let the handler meet ``ExecutionCancel`` now or at its next call, and kill it after its grace time."""
        self._timers.append(self._loop.call_later(self._around.cancel_grace_s, self._kill, "cancelled"))
        if self._process is not None:
            self._process.send(protocol.cancelled(self.state.id))
        self._release(failures.Cancelled())

    def pause(self) -> None:
        """Stand still now if it sits in a call, else at its next one."""
        if self._hold is not None and not self._hold.done():
            self._stop_here()

    def resume(self) -> None:
        """Go on."""
        if self._limit is not None and self._limit.cancelled():
            self._limit = self._loop.call_later(self._left_s, self._expire)
        if self._resumption is not None and not self._resumption.done():
            self._resumption.set_result(None)

    def waits_for(self) -> Iterable[str]:
        """See ``live.Supervision``."""
        return self.needs

    def interrupt(self) -> None:
        """The daemon stops: kill it; the end says so."""
        self._kill("interrupted")

    async def abandon(self) -> None:
        """Something went wrong on our side: leave nothing of it behind."""
        if self._process is not None:
            await self._bury(self._process)

    def _expire(self) -> None:
        self._kill("timeout")

    def _kill(self, because: str) -> None:
        self._killed_because = self._killed_because or because
        if self._process is not None:
            self._process.kill()
        self._release(failures.Interrupted())

    def _release(self, error: Exception) -> None:
        """End the waiting of the current call, and the children it waits for; others it waits for go on."""
        waited_for = [self._around.ledger.find(execution) for execution in self._held_children]
        if self._hold is not None and not self._hold.done():
            self._hold.set_exception(error)
        for subject in waited_for:
            if subject is not None and (subject.state.parent == self.state.id or subject.state.id in self.set_off):
                self._around.cancel(subject.state.id, self.state.id)

    # -- what it writes ---------------------------------------------------------------------------------------------

    async def _take_log(self, said: protocol.Log) -> None:
        contents = self._around.ledger.contents
        masked = contents.masks.json  # one way: nobody reads a log back but people
        args = await contents.store(masked(said.args))
        kwargs = await contents.store(masked(said.kwargs))
        self._around.ledger.record(
            self.live,
            events.LogWritten(
                execution=self.state.id,
                call=said.call,
                level=said.level[:16],
                stream=said.stream,
                **args.twins("args"),
                **kwargs.twins("kwargs"),
            ),
        )
        self._unwritten_bytes += 200 + len(bytes(said.args)) + len(bytes(said.kwargs))
        if self._unwritten_bytes > _UNWRITTEN_BYTES_MAX:
            await self._written()

    async def _notice_effect(self, said: protocol.Effect) -> None:
        """On return the first effect of this execution's own is on disk; it happens after that."""
        if self.state.effect is None:
            event = events.EffectNoticed(
                execution=self.state.id,
                effect=said.event[:100],
                detail=said.detail[:_DETAIL_CHARACTERS_MAX],
                file=said.file[:_DETAIL_CHARACTERS_MAX],
                line=said.line,
                call=self.state.calls,
            )
            self._around.ledger.record(self.live, event)
        await self._written()

    async def _written(self) -> None:
        self._unwritten_bytes = 0
        await self._around.ledger.journal.durable()

    def _take_output(self, stream: str, chunk: bytes) -> bool:
        """Record what came through a pipe; False makes that pipe wait for the disk."""
        if self._record_written(stream, chunk):
            return True
        task = self._loop.create_task(self._resume(stream), name=f"output of {self.state.id}")
        self._resuming.add(task)
        task.add_done_callback(self._resuming.discard)
        return False

    def _record_written(self, stream: str, chunk: bytes) -> bool:
        """Record whole lines of what was written; False when enough of it is under way to the disk."""
        room = OUTPUT_BYTES_MAX - self._output_bytes
        self._output_bytes += len(chunk)
        if room <= 0:
            return True  # dropped; the marker stands in the record
        pending = self._output[stream]
        full = room <= len(chunk)
        pending += self._clean[stream].feed(chunk[:room]) + (self._clean[stream].flush() if full else b"")
        self._record_output(stream, len(pending) if full or len(pending) >= _LINE_BYTES_MAX else _lines_end(pending))
        if full:
            text = f"output is cut here: an execution may write {OUTPUT_BYTES_MAX:,} bytes"
            self._record_text(stream, text, level="WARNING")
        self._unwritten_bytes += len(chunk)
        return self._unwritten_bytes <= _UNWRITTEN_BYTES_MAX

    async def _resume(self, stream: str) -> None:
        await self._written()
        if self._process is not None:
            self._process.resume(stream)

    def _record_output(self, stream: str, end: int) -> None:
        pending = self._output[stream]
        for start in range(0, end, _LINE_BYTES_MAX):
            piece = bytes(pending[start : min(start + _LINE_BYTES_MAX, end)])
            self._record_text(stream, piece.decode("utf-8", "backslashreplace").removesuffix("\n"))
        del pending[:end]

    def _record_text(self, stream: str, text: str, *, level: str = "") -> None:
        level = level or ("INFO" if stream == "stdout" else "WARNING")
        event = events.LogWritten(execution=self.state.id, level=level, stream=stream, text=text)
        self._around.ledger.record(self.live, event)

    def _flush_output(self) -> None:
        for stream, pending in self._output.items():
            pending += self._clean[stream].flush()
            self._record_output(stream, len(pending))

    # -- how it ended -----------------------------------------------------------------------------------------------

    async def _described(self, ended: protocol.Ended) -> events.ExecutionEnded:
        """The end of a handler that left by itself."""
        if (
            self.met_cancel or ended.met_cancel
        ):  # also when the handler swallowed it: what it was asked to do, it did not do to the end
            return self._end(Status.ENDED_CANCELLED, "cancelled")
        if ended.failure is not None:
            failure = msgspec.structs.replace(
                ended.failure,
                type=ended.failure.type[:200],
                message=values.shortened(ended.failure.message, values.TEXT_CHARACTERS_MAX),
                traceback=values.shortened(ended.failure.traceback, 4 * values.TEXT_CHARACTERS_MAX),
                file=ended.failure.file[:1000],
            )
            return self._end(Status.ENDED_ERROR, failure.message, failure=failure)
        if ended.outcome == "error":
            return self._end(Status.ENDED_ERROR, ended.message or "the flow marked itself as failed")
        twins = {}
        if ended.returned is not msgspec.UNSET and self.state.output is None:
            store = self._around.ledger.contents.store
            twins = (await store(ended.returned, protect=self.state.protect_outputs)).twins("output")
        return events.ExecutionEnded(
            execution=self.state.id,
            status=Status.ENDED_SUCCESS,
            message=values.shortened(ended.message, values.TEXT_CHARACTERS_MAX),
            **twins,
        )

    def _cut_off(self, how: str) -> events.ExecutionEnded:
        """The end of a handler whose process is gone."""
        match self._killed_because:
            case "cancelled":
                text = f"killed: it did not end within {self._around.cancel_grace_s:g} s of being cancelled"
                return self._end(Status.ENDED_CANCELLED, text, reason="killed")
            case "timeout":
                text = f"timed out after {self.state.timeout_s:g} s"
                return self._end(Status.ENDED_ERROR, text, reason="timeout")
            case "interrupted":
                return self._end(Status.ENDED_ERROR, "interrupted: the daemon stopped", reason="interrupted")
        return self._end(Status.ENDED_ERROR, how, reason="process")

    def _end(
        self, status: Status, message: str, *, reason: str = "", failure: events.Failure | None = None
    ) -> events.ExecutionEnded:
        text = values.shortened(message, values.TEXT_CHARACTERS_MAX)
        return events.ExecutionEnded(
            execution=self.state.id, status=status, message=text, reason=reason, failure=failure
        )


def _lines_end(pending: bytearray) -> int:
    return pending.rfind(b"\n") + 1


def _done(future: asyncio.Future[None]) -> asyncio.Future[None]:
    """Return ``future`` with nothing left to wait for."""
    future.set_result(None)
    return future
