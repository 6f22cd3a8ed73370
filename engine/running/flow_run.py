"""The supervision of one flow execution: from the moment there is room until it ends, or gives its process back.

It finds a process, tells it what to run, records what it says and answers its calls; it ends it when it is cancelled,
takes too long or breaks the protocol. A handler that was cut off is run again, and answered from its history until it
is where it was.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path

import msgspec
import structlog

from .. import errors, events, model, ports, values
from ..lifecycle import Status
from ..workers import cluster, flow_process, processes, protocol, remote_process
from . import contents, failures, history, live, output, reads, slots, strict, views, waits

log = structlog.get_logger()

#: Of what an effect was, and of the file it is in, this much is kept.
_DETAIL_CHARACTERS_MAX = 1000
#: A longer history keeps its process while it waits: replaying it would cost more than that.
HIBERNATED_CALLS_MAX = 5_000
HIBERNATED_BYTES_MAX = 16 * 1024 * 1024

Process = flow_process.Turn | remote_process.RemoteProcess
AnswerCall = Callable[["FlowRun", protocol.Call], Awaitable[bytes]]


class Surroundings(msgspec.Struct):
    """What every supervision needs. Changed by ``Dispatcher.adjust`` alone."""

    ledger: live.Ledger
    flows: ports.Flows
    environments: ports.Environments
    processes: processes.Processes
    slots: slots.Slots
    waits: waits.Waits
    clock: ports.Clock
    answer: AnswerCall
    cancel_children: Callable[[str, model.PendingCall], None]  # of this execution, those a call of it waits for
    cancel_grace_s: float
    hibernate_after_s: float
    waiting: dict[FlowRun, None]  # those that sit in a wait with their process, the longest first
    waiting_max: int
    system: dict[str, str]  # workspace, environment
    is_crowded: bool = False  # others have no room: who waits gives its process back at once


class FlowRun:
    """One execution under way."""

    def __init__(self, subject: live.Live, around: Surroundings, place: cluster.Place | None = None) -> None:
        self.live = subject
        self._place: processes.Here | cluster.Place = place or processes.Here(around.processes)
        self.state = subject.state
        self.met_cancel = False  # the handler was told, in a call
        self.saved_flows: set[str] = set()  # by the handler: it means those it saved when it runs them
        self.history = history.History()
        self.history_bytes = 0
        self.strict: strict.Strict | None = None  # compares what replayed calls are given, too
        self.warned = False  # that the history grows long
        self.reads = reads.Reads()
        self.continuation: model.Value | None = None  # the inputs of the next generation, if there is to be one
        self.interrupted = ""  # its process is gone and it has not ended: why
        self.blameless = False  # that says nothing about this execution
        self.hibernated = False
        self._returning = subject.state.attempt > 0  # its history is not known yet
        self._replayed = 0  # the highest number the handler came to
        self._around = around
        self._loop = asyncio.get_running_loop()
        self._process: Process | None = None
        self._hold: asyncio.Future[bool] | None = None  # what the handler's current call waits for
        self._waited_for: model.PendingCall | None = None
        self._killed_because = ""
        self._timers: list[asyncio.TimerHandle] = []
        self._limit: asyncio.TimerHandle | None = None  # of its whole time; it stands still while paused
        self._resumption: asyncio.Future[bool] | None = None
        ledger = around.ledger
        self._output = output.Output(
            self.state.id, ledger.contents.masks, self.record, ledger.journal.durable, self._read_on
        )

    # -- the walk ---------------------------------------------------------------------------------------------------

    def record(self, event: events.ExecutionEvent | None) -> None:
        """Write ``event`` down, if there is one, behind what was read again and again before it."""
        for line in (self.reads.unwritten(self.state.id), event):
            if line is not None:
                self._around.ledger.record(self.live, line)

    async def run(self) -> None:
        """Run it to its end, which is recorded on return; unless it hibernates, was interrupted, or is paused."""
        attempt = self.state.attempt + 1
        self.record(events.ExecutionStarted(execution=self.state.id, attempt=attempt, node=self._place.node))
        self._limit_time()
        if self.state.cancel_requested:
            self._timers.append(self._loop.call_later(self._around.cancel_grace_s, self._kill, "cancelled"))
        again = self.state.attempt > 1
        if self.state.parent or self.state.terms.retry_of or self.state.terms.follows or again:  # else it is durable
            await self._around.ledger.journal.durable()
        if again:
            recorded = await self._around.ledger.events_of(self.state.id)
            self.history = history.of(recorded, self.live.loose)
            if self.state.strict_replay:
                self.strict = strict.Strict(self.state.id, recorded, self.history, self._around.ledger)
        event: events.ExecutionEvent | None = None
        try:
            ended = await self._run_in_process(fresh=again or not self.state.reuse)
            if ended is not None:
                event = await self._described(ended)
                await self._let_go(ended, event)
        except failures.Diverged as error:
            await self._bury()
            event = events.ExecutionPaused(execution=self.state.id, reason=str(error), divergence=error.divergence)
            if self.state.cancel_requested:
                event = self._end(Status.ENDED_CANCELLED, f"cancelled; it could not clean up: {error}")
        except (EOFError, errors.InvalidRequest) as error:
            await self._bury()
            self.blameless = isinstance(error, remote_process.NodeLost)
            event = self._cut_off(str(error))
        finally:
            if self._process is not None:
                self._process.listen(None)
            for timer in (*self._timers, self._limit):
                if timer is not None:
                    timer.cancel()
        self._output.end()
        if not self.state.status.ended:
            self.record(event)

    async def _run_in_process(self, *, fresh: bool, alone: bool = False) -> protocol.Ended | None:
        """Do what ``_converse`` does, in a process. What does not begin in one that has other executions as well gets
        one ``alone``, and if that is dead a ``fresh`` one."""
        kind = (self.state.flow_id, self.state.commit)
        snapshot = self._around.flows.snapshot(self.state.commit)
        python = await self._around.environments.python(self.state.venv, self.state.commit)
        process = await self._place.take(kind, snapshot=snapshot, python=python, fresh=fresh, alone=alone)
        self._process = process
        process.listen(self._output.take)
        text = await self._start(process, snapshot)
        if self._killed_because:
            process.kill()  # its time was over, or the daemon stopped, before there was a process to kill
        process.start(text)
        self._returning = False
        try:
            return await self._converse(process)
        except flow_process.TakenBack as error:
            self._process = None
            if fresh or self._killed_because:
                raise EOFError(str(error)) from None
        return await self._run_in_process(fresh=alone, alone=True)

    async def _let_go(self, ended: protocol.Ended, event: events.ExecutionEvent) -> None:
        """A handler left by itself: keep its process if it is as good as new."""
        assert self._process is not None
        if ended.again and self.state.reuse:
            self._place.give_back()
        elif isinstance(event, events.ExecutionEnded) and event.status == Status.ENDED_SUCCESS and not ended.dirty:
            self._process.dismiss()
        else:
            await self._bury()

    async def _start(self, process: Process, snapshot: Path) -> bytes:
        """Return what makes ``process`` run it."""
        script = self.state.script
        return protocol.start(
            protocol.Start(
                execution=msgspec.Raw(await views.start(self._around.ledger, self.state)),
                path=self.state.path,
                snapshot=process.locate(snapshot),
                script=msgspec.UNSET if script is None else await self._around.ledger.contents.shown(script),
                webhook=self.state.webhook,
                replayed=self.history.last,
                system={"user": self.state.created_by, **self._around.system},
                max_memory=self.state.terms.max_memory,
            )
        )

    async def _converse(self, process: Process) -> protocol.Ended | None:
        """Answer the handler's calls until it has ended, or None when it gives its process back.

        Raises ``EOFError`` when the process is gone, ``InvalidRequest`` when it breaks the protocol, ``Diverged``."""
        while True:
            said = await process.receive()
            match said:
                case protocol.Output():
                    if not self.replaying:
                        self._output.add(said.stream, said.text.encode())
                        await self._output.written()
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
                    except failures.Hibernated:
                        self.hibernated = True
                        self.record(events.ExecutionHibernated(execution=self.state.id))
                        await self._bury()
                        return None
                    except failures.Interrupted:
                        continue
                    self._replayed = max(self._replayed, said.call)
                case protocol.Ended():
                    if (missing := self.history.next_after(self._replayed)) is not None:
                        raise failures.Diverged(history.divergence(missing.number, missing, *failures.left(said)))
                    return said

    # -- the replay -------------------------------------------------------------------------------------------------

    @property
    def replaying(self) -> bool:
        """Whether the handler does what it did before, or is about to."""
        return self._returning or self._replayed < self.history.last

    def recorded(self, number: int, kind: str, target: str = "", where: str = "") -> history.Entry | None:
        """Return what the record tells of the handler's next call, None for a new one; raises ``Diverged``."""
        if number > self.history.last:
            return None
        entry = self.history.find(number)
        if entry is None or not entry.is_like(kind[:100], target[:1024]):
            raise failures.Diverged(history.divergence(number, entry, kind, target, where))
        return entry

    async def _bury(self) -> None:
        """Kill the process with all it started and wait until it is gone: ended means nothing goes on."""
        process = self._process
        if process is None:
            return
        process.kill()
        done, _ = await asyncio.wait({process.exited}, timeout=process.burial_s)
        if not done:
            log.error("process.stuck", execution=self.state.id, pid=process.pid)

    # -- waiting inside a call --------------------------------------------------------------------------------------

    async def wait(self, call: model.PendingCall) -> bool:
        """Wait for what ``call`` says, on behalf of the handler, without occupying a slot; True if its time was up.

        Raises ``Cancelled`` when the execution is cancelled, ``Interrupted`` when its process is killed meanwhile and
        ``Hibernated`` when it is to be given back: then the wait goes on as ``live.rest``. A pause that began meanwhile
        is waited for too: what came is handed on when the execution is resumed."""
        rest, self.live.rest = self.live.rest, None
        if rest is None:
            outcome: waits.Hold = self._loop.create_future()
            rest = live.Rest(call.number, outcome, await self._around.waits.arm(self.state, call, outcome))
        hold: asyncio.Future[bool] = self._loop.create_future()

        def over(outcome: waits.Hold) -> None:
            if not outcome.cancelled():
                waits.finish(hold, late=outcome.result())

        rest.hold.add_done_callback(over)
        self._waited_for = call
        patience_s = waits.patience_s(call, self._around.hibernate_after_s, self._around.clock.time())
        timer = self._loop.call_later(0.0 if self._around.is_crowded else patience_s, self.hibernate)
        assert self._process is not None
        self._process.exited.add_done_callback(self._notice_death)
        self._around.waiting[self] = None
        if len(self._around.waiting) > self._around.waiting_max:
            next(iter(self._around.waiting)).hibernate()
        try:
            late = await self._held(hold)
        except failures.Hibernated:
            self.live.rest = rest
            raise
        finally:
            timer.cancel()
            self._around.waiting.pop(self, None)
            self._process.exited.remove_done_callback(self._notice_death)
            rest.hold.remove_done_callback(over)
            self._waited_for = None
            if self.live.rest is None:
                rest.disarm()
        return late

    def hibernate(self) -> None:
        """Give the process back if the handler sits in a wait and can be replayed in good time."""
        short = self.state.calls <= HIBERNATED_CALLS_MAX and self.history_bytes <= HIBERNATED_BYTES_MAX
        pure = self.state.effect is None
        if self._hold is None or self._hold.done() or self._killed_because or not (short and pure):
            self._around.waiting.pop(self, None)
            return
        self._hold.set_exception(failures.Hibernated())

    def _notice_death(self, _: asyncio.Future[int]) -> None:
        """The process died while its handler sat in a wait."""
        if self._hold is not None and not self._hold.done() and not self._killed_because:
            self._hold.set_exception(EOFError("the flow process died while its handler waited"))

    async def _held(self, hold: asyncio.Future[bool]) -> bool:
        """Wait for ``hold`` without a slot, and for the end of a pause; then come back."""
        self._hold = hold
        self._around.slots.leave(self.state.id)
        gone = False
        try:
            if self.state.pause_requested:
                self._stop_here()
            result = await hold
            while self.state.pause_requested:
                self._hold = self._resumption = self._loop.create_future()
                await self._resumption
        except (failures.Hibernated, EOFError):
            gone = True
            raise
        finally:
            self._hold = None
            if not self._killed_because and not gone:
                await self._around.slots.come_back(self.state.id)
        return result

    async def stand_still(self) -> None:
        """Between two calls: wait here if the execution was asked to pause. Raises as ``wait`` does."""
        if self.state.pause_requested:
            await self.breathe(0.0, always=True)

    async def breathe(self, seconds: float, *, always: bool = False) -> None:
        """Let others run for so long before the handler goes on. Raises as ``wait`` does."""
        if seconds or always:
            hold: asyncio.Future[bool] = self._loop.create_future()
            timer = self._loop.call_later(seconds, waits.finish, hold)
            try:
                await self._held(hold)
            finally:
                timer.cancel()

    def _stop_here(self) -> None:
        """The pause begins."""
        if self.state.status is not Status.PAUSED:
            self.record(events.ExecutionPaused(execution=self.state.id))
            if self._limit is not None:
                self._limit.cancel()

    def _limit_time(self) -> None:
        left_s = self.state.left_s(self._around.clock.time())
        if left_s is not None:
            self._limit = self._loop.call_later(max(0.0, left_s), self._expire)

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
            self._limit_time()
        if self._resumption is not None and not self._resumption.done():
            self._resumption.set_result(False)

    def interrupt(self) -> None:
        """The daemon stops: kill it; it goes on at the next start."""
        self._kill("interrupted")

    async def abandon(self) -> None:
        """Something went wrong on our side: leave nothing of it behind."""
        await self._bury()

    def _expire(self) -> None:
        self._kill("timeout")

    def _kill(self, because: str) -> None:
        self._killed_because = self._killed_because or because
        if self._process is not None:
            self._process.kill()
        else:
            self._place.cancel()
        self._release(failures.Interrupted())

    def _release(self, error: Exception) -> None:
        """End the waiting of the current call, and the children it waits for; others it waits for go on."""
        waited_for = self._waited_for
        if self._hold is not None and not self._hold.done():
            self._hold.set_exception(error)
        if waited_for is not None and self._killed_because != "interrupted":
            self._around.cancel_children(self.state.id, waited_for)

    # -- what it writes ---------------------------------------------------------------------------------------------

    async def _take_log(self, said: protocol.Log) -> None:
        if said.call and (recorded := self.recorded(said.call, history.LOG)) is not None:
            if self.strict is not None:
                await self.strict.compare(said, recorded)
            self._replayed = said.call
            return
        if not said.call and self.replaying:
            return
        self._replayed = max(self._replayed, said.call)
        store = self._around.ledger.contents
        masked = store.masks.json  # one way: nobody reads a log back but people
        args = await store.store(masked(said.args))
        kwargs = await store.store(masked(said.kwargs))
        self.record(
            events.LogWritten(
                execution=self.state.id,
                call=said.call,
                level=said.level[:16],
                stream=said.stream,
                **args.twins("args"),
                **kwargs.twins("kwargs"),
            ),
        )
        await self._output.written(200 + len(bytes(said.args)) + len(bytes(said.kwargs)))

    async def _notice_effect(self, said: protocol.Effect) -> None:
        """On return the first effect of this execution's own is on disk; it happens after that."""
        if self.state.effect is None:
            self.record(
                events.EffectNoticed(
                    execution=self.state.id,
                    effect=said.event[:100],
                    detail=said.detail[:_DETAIL_CHARACTERS_MAX],
                    file=said.file[:_DETAIL_CHARACTERS_MAX],
                    line=said.line,
                    call=self._replayed,
                )
            )
        await self._around.ledger.journal.durable()

    def _read_on(self, stream: str) -> None:
        if self._process is not None:
            self._process.resume(stream)

    # -- how it ended -----------------------------------------------------------------------------------------------

    async def _described(self, ended: protocol.Ended) -> events.ExecutionEnded | events.ExecutionRestarted:
        """The end of a handler that left by itself, or of its generation."""
        if (
            self.met_cancel or ended.met_cancel
        ):  # also when the handler swallowed it: what it was asked to do, it did not do to the end
            return self._end(Status.ENDED_CANCELLED, "cancelled")
        if self.continuation is not None and ended.failure is None:
            return events.ExecutionRestarted(
                execution=self.state.id, reason="continued as new", **contents.held(self.continuation).twins("inputs")
            )
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

    def _cut_off(self, how: str) -> events.ExecutionEvent | None:
        """What becomes of a handler whose process is gone: it goes on later, unless that was on purpose."""
        match self._killed_because:
            case "cancelled":
                text = f"killed: it did not end within {self._around.cancel_grace_s:g} s of being cancelled"
                return self._end(Status.ENDED_CANCELLED, text, reason="killed")
            case "timeout":
                text = f"timed out after {self.state.timeout_s:g} s"
                return self._end(Status.ENDED_ERROR, text, reason="timeout")
            case "interrupted":
                self.interrupted = "the daemon stopped"
            case _ if self._process is not None and self._process.overdrawn:
                text = f"killed: used more than {self.state.terms.max_memory / 2**20:g} MiB of memory"
                return self._end(Status.ENDED_ERROR, text, reason="memory")
            case _:
                self.interrupted = how
        return None

    def _end(
        self, status: Status, message: str, *, reason: str = "", failure: events.Failure | None = None
    ) -> events.ExecutionEnded:
        text = values.shortened(message, values.TEXT_CHARACTERS_MAX)
        return events.ExecutionEnded(
            execution=self.state.id, status=status, message=text, reason=reason, failure=failure
        )
