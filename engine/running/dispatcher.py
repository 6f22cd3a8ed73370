"""The dispatcher: takes requests, lets executions in when there is room, and knows all that have not ended.

Requests from outside are durable before they are acknowledged. Each admitted execution is supervised by one
asyncio.Task in the daemon's task group; whatever goes wrong inside one of them ends that execution and no other.
"""

from __future__ import annotations

import asyncio
import dataclasses
from collections import deque
from collections.abc import Callable, Coroutine, Iterable, Sequence

import structlog

from .. import errors, events, model, ports
from ..lifecycle import Status
from ..records import index, listing
from ..workers import processes
from . import (
    asking,
    calls,
    child_calls,
    files,
    flow_run,
    keeper,
    kept,
    live,
    locking,
    own_calls,
    reception,
    record_calls,
    shared_calls,
    slots,
    task_run,
)

log = structlog.get_logger()

#: Tasks run in the daemon; more than this at once wait for one to end.
TASKS_RUNNING_MAX = 256
#: Requests that were acknowledged and have not begun; beyond it new ones are refused for the moment.
QUEUE_MAX = 1_000_000
#: An end that has happened is durable within this time, unless the disk is full.
_DURABLE_SOON_S = 5.0
#: How long interrupted executions may take to record their end when the daemon stops.
_INTERRUPTED_S = 30.0


@dataclasses.dataclass(frozen=True, slots=True)
class Options:
    """How executions are run here."""

    max_running: int = 32
    cancel_grace_s: float = 10.0
    allow_local_files: bool = False
    workspace: str = "headrace"
    environment: str = ""


@dataclasses.dataclass(frozen=True, slots=True)
class Outside:
    """What lies beyond the engine, as far as executions need it."""

    flows: ports.Flows
    tasks: ports.Tasks
    authoring: ports.Authoring
    vaults: ports.Vaults


class Dispatcher:
    """All executions of this daemon, from request to end."""

    def __init__(
        self,
        ledger: live.Ledger,
        archive: index.Index,
        state: kept.Kept,
        outside: Outside,
        pool: processes.Processes,
        *,
        clock: ports.Clock,
        new_id: Callable[[], str],
        options: Options,
    ) -> None:
        self.ledger = ledger
        self.new_id = new_id
        self._archive = archive
        self._options = options
        self._clock = clock
        self._flow_queue: deque[live.Live] = deque()
        self._task_queue: deque[live.Live] = deque()
        self._flow_slots = slots.Slots(options.max_running, self._admit_flows)
        self._task_slots = slots.Slots(TASKS_RUNNING_MAX, self._admit_tasks)
        self._reception = reception.Reception(ledger, archive, outside.flows, new_id, self._enqueue)
        self._group: asyncio.TaskGroup | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._stopping = False
        journal, contents = ledger.journal, ledger.contents
        self.keeper = keeper.Keeper(state.store, journal, contents, outside.flows, clock=clock, new_id=new_id)
        self.asking = asking.Asking(state.messages, journal, contents, new_id)
        self.locking = locking.Locking(state.locks, journal, contents, self._waits_for)
        self._around = flow_run.Surroundings(
            ledger=ledger,
            flows=outside.flows,
            processes=pool,
            slots=self._flow_slots,
            answer=self._calls(outside).answer,
            cancel=self.request_cancel,
            cancel_grace_s=options.cancel_grace_s,
            system={"workspace": options.workspace, "environment": options.environment or options.workspace},
        )

    def _calls(self, outside: Outside) -> calls.Calls:
        """Bring together who answers what."""
        ledger, flows = self.ledger, outside.flows
        children = child_calls.ChildCalls(ledger, self, flows, outside.tasks, self.keeper, self.locking.circle)
        own = own_calls.OwnCalls(ledger, self, self._clock)
        shared = shared_calls.SharedCalls(ledger, self.asking, self.locking)
        records = record_calls.RecordCalls(
            ledger, self.keeper, self.asking, self.locking, self, flows, outside.authoring, outside.vaults
        )
        return calls.Calls(ledger, children.table(), own.table(), shared.table(), records.table())

    def _waits_for(self, execution: str) -> Iterable[str]:
        subject = self.ledger.find(execution)
        return subject.supervision.waits_for() if subject is not None and subject.supervision is not None else ()

    # -- start and stop ---------------------------------------------------------------------------------------------

    def start(self, group: asyncio.TaskGroup, unfinished: Sequence[model.Execution]) -> None:
        """Begin to work in ``group``; first settle what an earlier daemon left unfinished."""
        self._group = group
        for state in unfinished:
            subject = self.ledger.add(state)
            if state.cancel_requested:
                self._end_unrun(subject, Status.ENDED_CANCELLED, "cancelled; the daemon ended while it was unfinished")
            elif state.type != "TASK" and state.status is Status.QUEUED:
                self._flow_queue.append(subject)
            elif not (state.status is Status.NEW and not state.parent):
                self._end_unrun(subject, Status.ENDED_ERROR, "interrupted: the daemon ended while it was unfinished")
        self.locking.settle(self._is_live)
        self.asking.settle(self._is_live)
        self._admit_flows()

    def _is_live(self, execution: str) -> bool:
        subject = self.ledger.find(execution)
        return subject is not None and not subject.state.status.ended

    async def stop(self, grace_s: float) -> None:
        """Take nothing more, let running executions end for ``grace_s`` seconds, then interrupt the rest.

        Those that have not begun stay queued in the record and run after the next start.
        """
        self._stopping = True
        self._flow_queue.clear()
        self._task_queue.clear()
        deadline = self._clock.monotonic() + grace_s
        while (running := self._running()) and self._clock.monotonic() < deadline:
            await asyncio.wait(
                [subject.ended for subject in running],
                timeout=deadline - self._clock.monotonic(),
                return_when=asyncio.FIRST_COMPLETED,
            )
        for subject in self._running():
            if subject.supervision is not None:
                subject.supervision.interrupt()
        if running := self._running():
            await asyncio.wait([subject.ended for subject in running], timeout=_INTERRUPTED_S)
        for task in self._tasks:
            task.cancel()  # on a full disk their end cannot be recorded: the next start finds them unfinished

    def _running(self) -> list[live.Live]:
        return [subject for subject in self.ledger if subject.supervision is not None]

    @property
    def refusals(self) -> list[str]:
        """Why requests are not taken now; empty if they are."""
        reasons = ["the daemon is stopping"] if self._stopping else []
        return [*reasons, self.ledger.journal.stalled] if self.ledger.journal.stalled else reasons

    @property
    def unfinished(self) -> int:
        """How many executions have not ended."""
        return len(self.ledger)

    async def commits_in_use(self) -> frozenset[str]:
        """The commits that unfinished executions are pinned to."""
        return frozenset(subject.state.commit for subject in self.ledger if subject.state.commit)

    # -- requests from outside --------------------------------------------------------------------------------------

    async def submit(self, request: model.Submission) -> reception.Accepted:
        """Take a request to run a flow; on return it is durable.

        Raises ``NotFound``, ``Conflict`` (a flow without a version that runs; a key used with another body), and
        ``NotAccepting`` (stopping, disk full, queue full).
        """
        if self._stopping:
            raise errors.NotAccepting("the daemon is stopping")
        if len(self._flow_queue) >= QUEUE_MAX:
            raise errors.NotAccepting(f"{QUEUE_MAX:,} executions are waiting already")
        return await self._reception.take(request)

    def cancel(self, execution: str, by: str) -> None:
        """Ask an execution to end; raises ``NotFound`` and, if it has ended, ``Conflict``."""
        subject = self.ledger.find(execution)
        if subject is None or subject.state.status.ended:
            raise errors.Conflict(f"execution {execution} has ended already")
        self.request_cancel(execution, by)

    def pause(self, execution: str, by: str) -> None:
        """Ask an execution to stand still; raises ``Conflict`` if it has ended or is a task."""
        subject = self.ledger.find(execution)
        if subject is None or subject.state.status.ended:
            raise errors.Conflict(f"execution {execution} has ended already")
        if subject.state.type == "TASK":
            raise errors.Conflict("a task cannot be paused", hint="cancel it, or pause the flow that waits for it")
        self.request_pause(execution, by)

    def resume(self, execution: str, by: str) -> None:
        """Let an execution go on; raises ``Conflict`` if it has ended or was not asked to pause."""
        subject = self.ledger.find(execution)
        if subject is None or not (subject.state.pause_requested or subject.state.status is Status.PAUSED):
            raise errors.Conflict(f"execution {execution} is not paused")
        self.request_resume(execution, by)

    async def delete_execution(self, execution: str, by: str) -> None:
        """Show an ended execution no more; raises ``NotFound``, and ``Conflict`` if it has not ended."""
        state = await self.wait(execution, 0)
        if not state.status.ended:
            raise errors.Conflict(f"execution {execution} has not ended", hint="cancel it first")
        self.ledger.forget(state)
        self.ledger.journal.append(events.ExecutionDeleted(execution=state.id, by=by))
        await self.ledger.journal.durable()

    async def page(self, query: listing.Query) -> listing.Page:
        """List executions, newest first, as they are now: for flows, which may ask for what they did a moment ago."""
        if not self.ledger.journal.stalled:
            await self.ledger.journal.durable()
        return await self._archive.query(query)

    async def load(self, execution: str) -> model.Execution:
        """Return an execution's state, live or from the records; raises ``NotFound``."""
        subject = self.ledger.find(execution)
        known = subject.state if subject is not None else self.ledger.recent(execution)
        if known is not None:
            return known
        recorded = await self._archive.events_of(execution)
        state: model.Execution | None = None
        for line in recorded:
            if isinstance(line.event, events.ExecutionCreated):
                state = model.Execution.created(line.event, line.at)
            elif state is not None and isinstance(line.event, events.ExecutionEvent):
                state.apply(line.event, line.at)
        if state is None or state.deleted:
            raise errors.NotFound(f"there is no execution {execution!r}", hint="`headrace executions` lists them")
        return state

    async def wait(self, execution: str, timeout_s: float) -> model.Execution:
        """Wait until it has ended, durably, or ``timeout_s`` have passed, and return its state.

        Raises ``NotFound``, and ``NotAccepting`` while its end cannot be made durable: nobody is told of that yet.
        """
        subject = self.ledger.find(execution)
        if subject is None:
            return await self.load(execution)
        if not subject.state.status.ended and timeout_s > 0:
            await asyncio.wait({subject.ended}, timeout=timeout_s)
        if subject.state.status.ended and not subject.ended.done():
            await asyncio.wait({subject.ended}, timeout=_DURABLE_SOON_S)
        if subject.state.status.ended and not subject.ended.done():
            raise errors.NotAccepting("it has ended, but its end cannot be recorded now", hint="free disk space")
        return subject.state

    # -- what calls need --------------------------------------------------------------------------------------------

    def start_child(self, event: events.ExecutionCreated, prepared: ports.PreparedTask | None) -> live.Live:
        """Record a new execution and, if it is queued, let it run when there is room."""
        subject = self.ledger.create(event)
        subject.prepared = prepared
        if event.queued:
            self._enqueue(subject)
        elif (parent := self.ledger.find(event.parent)) is not None:
            parent.unrun.append(event.execution)
        if not event.orphan and (parent := self.ledger.find(event.parent)) is not None:
            parent.dependents.append(event.execution)
        return subject

    def start_created(self, subject: live.Live) -> None:
        """Let an execution run that was only created."""
        self.ledger.record(subject, events.ExecutionQueued(execution=subject.state.id))
        self._enqueue(subject)

    def request_cancel(self, execution: str, by: str) -> None:
        """Ask a live execution to end; nothing happens if it has, or was asked before."""
        subject = self.ledger.find(execution)
        if subject is None or subject.state.status.ended or subject.state.cancel_requested:
            return
        self.ledger.record(subject, events.CancelRequested(execution=execution, by=by))
        if subject.state.pause_requested:
            self.ledger.record(subject, events.ExecutionResumed(execution=execution, by=by))
        if subject.supervision is not None:
            subject.supervision.cancel()
        else:
            self._end_unrun(subject, Status.ENDED_CANCELLED, "cancelled before it ran")
        for child in subject.dependents:
            self.request_cancel(child, execution)

    def request_pause(self, execution: str, by: str) -> None:
        """Ask a live flow execution to stand still; nothing happens if it has ended or was asked before."""
        subject = self.ledger.find(execution)
        if subject is None or subject.state.status.ended or subject.state.pause_requested:
            return
        if subject.state.type == "TASK":  # it has no calls at which it could stand still
            return
        self.ledger.record(subject, events.PauseRequested(execution=execution, by=by))
        if subject.supervision is not None:
            subject.supervision.pause()

    def request_resume(self, execution: str, by: str) -> None:
        """Let an execution go on; nothing happens if it does."""
        subject = self.ledger.find(execution)
        if subject is None or subject.state.status.ended or not subject.state.pause_requested:
            return
        self.ledger.record(subject, events.ExecutionResumed(execution=execution, by=by))
        if subject.supervision is not None:
            subject.supervision.resume()

    # -- admission --------------------------------------------------------------------------------------------------

    def _enqueue(self, subject: live.Live) -> None:
        if subject.prepared is not None:
            self._task_queue.append(subject)
            self._admit_tasks()
        else:
            self._flow_queue.append(subject)
            self._admit_flows()

    def _admit_flows(self) -> None:
        while self._flow_queue and self._flow_slots.free:
            subject = self._flow_queue.popleft()
            if not subject.state.status.ended:
                self._supervise(subject, flow_run.FlowRun(subject, self._around), self._flow_slots)

    def _admit_tasks(self) -> None:
        while self._task_queue and self._task_slots.free:
            subject = self._task_queue.popleft()
            if not subject.state.status.ended:
                assert subject.prepared is not None
                actor = keeper.Actor(subject.state.created_by, subject.state.id)
                stored = files.TaskFiles(self.keeper, self.ledger.contents.blobs, actor)
                context = task_run.Context(subject, self.ledger, stored, self._options.allow_local_files)
                self._supervise(subject, task_run.TaskRun(context, subject.prepared), self._task_slots)

    def _supervise(self, subject: live.Live, run: flow_run.FlowRun | task_run.TaskRun, room: slots.Slots) -> None:
        subject.supervision = run
        room.enter(subject.state.id)
        self._spawn(self._see_to(subject, run, room), f"execution {subject.state.id}")

    def _spawn(self, work: Coroutine[None, None, None], name: str) -> None:
        assert self._group is not None
        task = self._group.create_task(work, name=name)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _see_to(self, subject: live.Live, run: flow_run.FlowRun | task_run.TaskRun, room: slots.Slots) -> None:
        """Run one execution. A defect of ours ends this one, with a reason, and no other."""
        try:
            await run.run()
        except errors.JournalFailed:
            raise  # nothing can be recorded any more: the daemon must go
        except Exception as error:  # the seam: see the sentence above
            ours = isinstance(error, errors.HeadraceError)
            log.error("execution.failed_internally", execution=subject.state.id, reason=repr(error), exc_info=not ours)
            await run.abandon()
            if not subject.state.status.ended:
                text = str(error) if ours else f"internal error: {error!r}"
                self._end_unrun(subject, Status.ENDED_ERROR, text, reason="internal")
        finally:
            room.leave(subject.state.id)
        await self._conclude(subject)

    def _end_unrun(self, subject: live.Live, status: Status, message: str, *, reason: str = "interrupted") -> None:
        """End an execution that nobody supervises (any more)."""
        if status is Status.ENDED_CANCELLED:
            reason = ""
        event = events.ExecutionEnded(execution=subject.state.id, status=status, message=message, reason=reason)
        self.ledger.record(subject, event)
        if subject.supervision is None:
            self._spawn(self._conclude(subject), f"end of {subject.state.id}")

    async def _conclude(self, subject: live.Live) -> None:
        """Say once, in the log, how it ended; then let it go when that is durable."""
        state = subject.state
        self.locking.ended(state.id)
        self.asking.ended(state.id)
        for execution in subject.unrun:
            child = self.ledger.find(execution)
            if child is not None and child.state.status is Status.NEW:
                self.request_cancel(execution, state.id)  # with its parent gone, nobody could run it any more
        # Not before the batch with the end is on its way to the disk: the log would keep everybody waiting.
        loop = asyncio.get_running_loop()
        loop.call_soon(loop.call_soon, _tell_end, state)
        await self.ledger.settle(subject)


def _tell_end(state: model.Execution) -> None:
    log.info(
        "execution.ended",
        execution=state.id,
        flow=state.flow_name or state.task,
        status=state.status,
        reason=state.reason or None,
    )
