"""The dispatcher: takes requests, lets executions in when there is room, and knows all that have not ended.

Requests from outside are durable before they are acknowledged. Each admitted execution is supervised by one
asyncio.Task in the daemon's task group; whatever goes wrong inside one of them ends that execution and no other.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Collection, Coroutine, Iterable, Mapping, Sequence

import structlog

from .. import errors, events, model, ports
from ..lifecycle import Status
from ..records import index, listing
from ..workers import cluster, processes
from . import (
    admission,
    asking,
    calls,
    child_calls,
    ends,
    files,
    flow_run,
    history,
    influence,
    keeper,
    kept,
    lanes,
    live,
    locking,
    maintaining,
    outside,
    own_calls,
    placing,
    reception,
    record_calls,
    resting,
    sequels,
    shared_calls,
    slots,
    takeover,
    task_run,
    waits,
)

log = structlog.get_logger()

#: Tasks run in the daemon; more than this at once wait for one to end.
TASKS_RUNNING_MAX = 256
#: So many processes may sit in a wait before the longest of them hibernates at once; twice the running ones if more.
WAITING_PROCESSES_MIN = 64
#: Requests that were acknowledged and have not begun; beyond it new ones are refused for the moment.
QUEUE_MAX = 1_000_000
#: How long to wait before an execution is replayed once more that could not be read back now.
_TRY_AGAIN_S = 2.0
#: How long interrupted executions may take to record their end when the daemon stops.
_INTERRUPTED_S = 30.0


class Dispatcher:
    """All executions of this daemon, from request to end."""

    def __init__(
        self,
        ledger: live.Ledger,
        archive: index.Index,
        state: kept.Kept,
        beyond: outside.Outside,
        pool: processes.Processes,
        remote: cluster.Cluster | None = None,
        *,
        clock: ports.Clock,
        new_id: Callable[[], str],
        options: outside.Options,
    ) -> None:
        self.ledger = ledger
        self.new_id = new_id
        self._archive = archive
        self._options = options
        self._clock = clock
        self._flow_queue = admission.Line()
        self._woken: deque[live.Live] = deque()  # to be replayed; before those that have not begun
        self._task_queue: deque[live.Live] = deque()
        self._flow_slots = slots.Slots(
            options.max_running, self._admit_flows, new_max=options.new_max, quick_max=options.quick_max
        )
        self._task_slots = slots.Slots(TASKS_RUNNING_MAX, self._admit_tasks)
        self.lanes = lanes.Lanes(ledger, beyond.flows, self)
        self._reception = reception.Reception(ledger, archive, beyond.flows, new_id, self._enqueue, self.lanes)
        self.sequels = sequels.Sequels(beyond.flows, clock, new_id, self._start_sequel)
        ledger.at_end = self.sequels.follow
        self._delayed = waits.Deadlines(clock)
        self._group: asyncio.TaskGroup | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._runs: dict[str, asyncio.Task[None]] = {}  # the supervision of each execution
        self._stopping = False
        self._refusing = False
        self.ends = ends.Ends(ledger, self.load)
        journal, contents = ledger.journal, ledger.contents
        self.keeper = keeper.Keeper(state.store, journal, contents, beyond.flows, clock=clock, new_id=new_id)
        self.asking = asking.Asking(state.messages, journal, contents, new_id)
        self.maintaining = maintaining.Maintaining(state.maintenance, journal, self.admit)
        self.locking = locking.Locking(state.locks, journal, contents, self._waits_for)
        self._waits = waits.Waits(ledger, self.load, self.asking, self.locking, clock)
        self._children = child_calls.ChildCalls(ledger, self, beyond.flows, beyond.tasks, self.keeper, clock)
        self.resting = resting.Resting(ledger, self._waits, self, clock)
        self.influence = influence.Influence(ledger, self.resting, self, self.asking, self.locking)
        self._takeover = takeover.Takeover(
            ledger, self.resting, self.influence, self, self._enqueue, self._children.prepared
        )
        self._around = flow_run.Surroundings(
            ledger=ledger,
            flows=beyond.flows,
            environments=beyond.environments,
            processes=pool,
            slots=self._flow_slots,
            waits=self._waits,
            clock=clock,
            answer=self._calls(beyond).answer,
            cancel_children=self.influence.cancel_children,
            cancel_grace_s=options.cancel_grace_s,
            hibernate_after_s=options.hibernate_after_s,
            waiting={},
            waiting_max=max(WAITING_PROCESSES_MIN, 2 * options.max_running),
            system={"workspace": options.workspace, "environment": options.environment or options.workspace},
        )
        self.placing = placing.Placing(remote, options.placing, self._around, self)

    def adjust(self, *, max_running: int, cancel_grace_s: float, hibernate_after_s: float) -> None:
        """Run executions so from now on. Nobody who runs has to leave."""
        around = self._around
        around.cancel_grace_s, around.hibernate_after_s = cancel_grace_s, hibernate_after_s
        around.waiting_max = max(WAITING_PROCESSES_MIN, 2 * max_running)
        around.processes.idle_max = max_running
        self._flow_slots.resize(max_running)
        self.placing.adjust(cancel_grace_s=cancel_grace_s, hibernate_after_s=hibernate_after_s)

    def why(self, state: model.Execution) -> str:
        """Return why an execution has no process although nothing of its own is in the way; empty if none is due."""
        return self.maintaining.why(state) or self.placing.why(state)

    def _calls(self, beyond: outside.Outside) -> calls.Calls:
        """Bring together who answers what."""
        ledger, flows = self.ledger, beyond.flows
        children = self._children
        own = own_calls.OwnCalls(ledger, self, self._clock)
        shared = shared_calls.SharedCalls(ledger, self.asking, self.locking, self._clock)
        records = record_calls.RecordCalls(
            ledger, self.keeper, self.asking, self.locking, self, flows, beyond.authoring, beyond.vaults
        )
        kinds = {**children.table(), **own.table(), **shared.table(), **records.table()}
        return calls.Calls(ledger, self, kinds, {**children.conclusions(), **own.conclusions(), **shared.conclusions()})

    def _waits_for(self, execution: str) -> Iterable[str]:
        subject = self.ledger.find(execution)
        return waits.needed(self.ledger, subject.state) if subject is not None else ()

    # -- start and stop ---------------------------------------------------------------------------------------------

    def start(
        self,
        group: asyncio.TaskGroup,
        unfinished: Sequence[model.Execution],
        loose: Mapping[str, Sequence[history.Loose]],
        unreadable: Collection[str],
    ) -> None:
        """Begin to work in ``group``, and go on with what an earlier daemon left unfinished.

        ``loose``: what calls changed that were cut off before their own line was durable, by execution. ``unreadable``:
        executions with records of a newer version, which are parked."""
        self._group = group
        self.placing.start()
        for state in unfinished:
            self.ledger.add(state).loose = tuple(loose.get(state.id, ()))
        for state in sorted(unfinished, key=lambda state: state.created_at):
            if (subject := self.ledger.find(state.id)) is not None:
                self._join_parent(subject)
                self.lanes.take_up(subject)
        self.locking.settle(self.ledger.is_live)
        self.asking.settle(self.ledger.is_live)
        self.spawn(self._takeover.take_up(unfinished, unreadable), "what was left unfinished")

    def _join_parent(self, subject: live.Live) -> None:
        """Let the parent know of a child whose fate depends on it."""
        if (parent := self.ledger.find(subject.state.parent)) is None:
            return
        if subject.state.status is Status.NEW:
            parent.unrun.append(subject.state.id)
        if not subject.state.orphan:
            parent.dependents.append(subject.state.id)

    async def stop(self, grace_s: float, *, refuse: bool = True) -> None:
        """Begin nothing more, let running executions end for ``grace_s`` seconds, then interrupt the rest.

        Those that have not begun, wait, or were interrupted go on after the next start; so does what is asked for from
        now on, unless that is to be refused.
        """
        self._stopping, self._refusing = True, refuse
        for queue in (self._flow_queue, self._task_queue, self._woken):
            queue.clear()
        self.placing.stop()
        deadline = self._clock.monotonic() + grace_s
        until = self._clock.time() + grace_s
        while (busy := self._busy(until)) and self._clock.monotonic() < deadline:
            left_s = deadline - self._clock.monotonic()
            await asyncio.wait(busy, timeout=left_s, return_when=asyncio.FIRST_COMPLETED)
        for subject in self.ledger:
            if subject.supervision is not None:
                subject.supervision.interrupt()
        if runs := set(self._runs.values()):
            await asyncio.wait(runs, timeout=_INTERRUPTED_S)
        ending = {subject.ended for subject in self.ledger if subject.state.status.ended}
        if ending and not self.ledger.journal.stalled:  # whoever waits for one of these is told
            await asyncio.wait(ending, timeout=ends.DURABLE_SOON_S)
        self.ends.dismiss()
        for task in self._tasks:
            task.cancel()  # timers, and on a full disk ends that cannot be recorded: the next start takes them up

    def _busy(self, until: float) -> set[asyncio.Task[None]]:
        """Those that may end within the grace time."""
        going = waits.going(self.ledger, until, asking=lambda task: task not in self._task_slots)
        return {run for execution, run in self._runs.items() if execution in going}

    @property
    def refusals(self) -> list[str]:
        """Why requests are not taken now; empty if they are."""
        journal = self.ledger.journal
        return [*filter(None, ("the daemon is stopping" if self._stopping else "", journal.stalled, journal.scarce))]

    @property
    def running(self) -> int:
        """How many flows run now."""
        return self._flow_slots.held

    @property
    def max_running(self) -> int:
        """How many flows may run on this machine."""
        return self._flow_slots.limit

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
        if self._refusing:
            raise errors.NotAccepting("the daemon is stopping")
        if len(self._flow_queue) + self.lanes.waiting + self.maintaining.waiting >= QUEUE_MAX:
            raise errors.NotAccepting(f"{QUEUE_MAX:,} executions are waiting already")
        return await self._reception.take(request)

    async def delete_execution(self, execution: str, by: str) -> None:
        """Show an ended execution no more; raises ``NotFound``, and ``Conflict`` if it has not ended."""
        state = await self.ends.wait(execution, 0)
        if not state.status.ended:
            raise errors.Conflict(f"execution {execution} has not ended", hint="cancel it first")
        self.ledger.forget(state)
        self.ledger.journal.append(events.ExecutionDeleted(execution=state.id, by=by))
        await self.ledger.journal.durable()

    async def acknowledge(self, execution: str, by: str) -> model.Execution:
        """Say that somebody saw that it failed, durably; raises ``NotFound``, and ``Conflict`` if it did not."""
        state = await self.ends.wait(execution, 0)
        if state.status is not Status.ENDED_ERROR:
            raise errors.Conflict(f"execution {execution} has not failed")
        if not state.acknowledged:
            event = events.ExecutionAcknowledged(execution=execution, by=by)
            state.apply(event, self.ledger.journal.append(event))
        await self.ledger.journal.durable()
        return state

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
        state = model.Execution.told(await self._archive.events_of(execution))
        if state is None or state.deleted:
            raise errors.NotFound(f"there is no execution {execution!r}", hint="`headrace executions` lists them")
        return state

    # -- what calls need --------------------------------------------------------------------------------------------

    def start_child(self, event: events.ExecutionCreated, prepared: ports.PreparedTask | None) -> live.Live:
        """Record a new execution and, if it is queued, let it run when there is room."""
        subject = self.ledger.create(event)
        subject.prepared = prepared
        if event.queued:
            self._enqueue(subject)
        self._join_parent(subject)
        return subject

    def _start_sequel(self, event: events.ExecutionCreated) -> None:
        """Record an execution that follows the end of another, and let it run when its time has come."""
        self._enqueue(self.ledger.create(event))

    async def start_created(self, subject: live.Live, by: str) -> None:
        """Let an execution run that was only created; ``by`` is the execution that says so."""
        if subject.state.type == "TASK" and subject.prepared is None:  # an earlier daemon made it
            subject.prepared = await self._children.prepared(subject.state)
        self.ledger.record(subject, events.ExecutionQueued(execution=subject.state.id, by=by))
        self._enqueue(subject)

    # -- admission --------------------------------------------------------------------------------------------------

    def _enqueue(self, subject: live.Live) -> None:
        if subject.prepared is not None:
            self._task_queue.append(subject)
            self._admit_tasks()
        elif (due := subject.state.terms.not_before) is not None and due > self._clock.time():
            turn: waits.Hold = asyncio.get_running_loop().create_future()
            self._delayed.add(due, turn)
            turn.add_done_callback(lambda _: self.lanes.arrive(subject))
        else:
            self.lanes.arrive(subject)

    def admit(self, subject: live.Live) -> None:
        """Let an execution that has a place in its lane, or needs none, begin when there is room."""
        if self.placing.takes(subject, woken=False):
            return
        self._flow_queue.append(subject)
        self._admit_flows()

    def again(self, subject: live.Live) -> None:
        """Let an execution that has no process be replayed when there is room, before those that have not begun."""
        if self._stopping:
            return
        if not self.lanes.holds(subject):  # it was set aside before it ever began
            self.lanes.arrive(subject)
            return
        if self.placing.takes(subject, woken=True):
            return
        self._woken.append(subject)
        self._admit_flows()

    def _admit_flows(self) -> None:
        room = self._flow_slots
        while (self._woken or self._flow_queue) and not self._stopping:
            first = self._woken[0] if self._woken else self._flow_queue.first
            quick = self._around.processes.expects_quick(first.state)
            if not room.has_room(quick=quick):
                return
            subject = self._woken.popleft() if self._woken else self._flow_queue.popleft()
            if self.maintaining.holds(subject):
                continue
            if subject.supervision is None and subject.state.status in (Status.QUEUED, Status.WAITING):
                self.resting.get_up(subject)
                room.enter(subject.state.id, quick=quick)
                self.supervise(subject, flow_run.FlowRun(subject, self._around), room)

    def _admit_tasks(self) -> None:
        while self._task_queue and self._task_slots.has_room():
            subject = self._task_queue.popleft()
            if not subject.state.status.ended:
                assert subject.prepared is not None
                actor = keeper.Actor(subject.state.created_by, subject.state.id)
                stored = files.TaskFiles(self.keeper, self.ledger.contents.blobs, actor)
                local = self._options.allow_local_files
                context = task_run.Context(subject, self.ledger, stored, local, self.asking, self._task_slots)
                self._task_slots.enter(subject.state.id)
                self.supervise(subject, task_run.TaskRun(context, subject.prepared), self._task_slots)

    def supervise(self, subject: live.Live, run: flow_run.FlowRun | task_run.TaskRun, room: slots.Slots) -> None:
        """Run an execution that has entered ``room``."""
        subject.supervision = run
        execution = subject.state.id
        self._runs[execution] = self.spawn(self._see_to(subject, run, room), f"execution {execution}")

    def spawn(self, work: Coroutine[None, None, None], name: str) -> asyncio.Task[None]:
        """Run ``work`` as an asyncio.Task of the daemon's group."""
        assert self._group is not None
        task = self._group.create_task(work, name=name)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

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
            if isinstance(run, flow_run.FlowRun) and run.replaying:
                # What was done is done: it may be possible to go on later, and is up to people if not.
                run.interrupted = f"it could not be replayed: {error if ours else repr(error)}"
                run.blameless = isinstance(error, errors.NotAccepting)  # a full disk, an index that is made anew
            elif not subject.state.status.ended:
                text = str(error) if ours else f"internal error: {error!r}"
                self.end(subject, Status.ENDED_ERROR, text, "internal")
        finally:
            room.leave(subject.state.id)
            self._runs.pop(subject.state.id, None)
        if subject.state.status.ended:
            await self._conclude(subject)
        else:
            await self._set_aside(subject, run)

    async def _set_aside(self, subject: live.Live, run: flow_run.FlowRun | task_run.TaskRun) -> None:
        """An execution has no process any more and has not ended: let it go on in its own time."""
        subject.supervision = None
        state = subject.state
        if run.interrupted and (self._stopping or state.type == "TASK"):
            reason = f"interrupted: {run.interrupted}"
            self.ledger.record(
                subject, events.ExecutionInterrupted(execution=state.id, reason=reason, daemon=self._stopping)
            )
        elif run.interrupted:
            assert isinstance(run, flow_run.FlowRun)
            if run.blameless:
                await asyncio.sleep(_TRY_AGAIN_S)
            await self.resting.interrupted(subject, run.interrupted, daemon=run.blameless)
        elif state.status is Status.QUEUED:  # it begins anew
            self.influence.give_back(subject)
            self.again(subject)
        else:
            if state.divergence is not None:
                log.error("execution.diverged", execution=state.id, reason=state.reason)
            await self.resting.lie_down(subject)

    def end(
        self, subject: live.Live, status: Status, message: str, reason: str, failure: events.Failure | None = None
    ) -> None:
        """End an execution that nobody supervises (any more)."""
        self.ledger.record(
            subject,
            events.ExecutionEnded(
                execution=subject.state.id, status=status, message=message, reason=reason, failure=failure
            ),
        )
        if subject.supervision is None:
            self.spawn(self._conclude(subject), f"end of {subject.state.id}")

    async def _conclude(self, subject: live.Live) -> None:
        """Let go of what it holds, then of itself."""
        state = subject.state
        self.resting.forget(subject)
        self.locking.ended(state.id)
        self.asking.ended(state.id)
        for execution in subject.unrun:
            child = self.ledger.find(execution)
            if child is not None and child.state.status is Status.NEW:
                self.influence.request_cancel(execution, state.id)  # with its parent gone, nobody could run it any more
        await self.ends.conclude(subject)
