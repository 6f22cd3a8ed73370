"""One daemon after another over one disk, as a seed has it: what they are asked, when they die, what is checked.

The journal, its recovery, the ledger and the dispatcher with all its parts are the real ones. Played are the clock and
the loop (``loop``), the disk below the journal (``disk``), the processes (``handlers``), tasks, clients, and the index,
which here is a list of what is durable.
"""

from __future__ import annotations

import asyncio
import collections
import contextlib
import dataclasses
import hashlib
import random
import shutil
import tempfile
import types
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any
from unittest import mock

import msgspec
import structlog

from headrace.daemon import unfinished
from headrace.engine import durable, errors, events, lifecycle, model
from headrace.engine.records import blobs, journal, recovery, tail
from headrace.engine.running import contents, dispatcher, history, live, outside, own_calls
from headrace.engine.state import masks, sealed
from tests.engine.running import archives
from tests.faults.simulation import beyond, disk, handlers, laws
from tests.faults.simulation.laws import Broken
from tests.faults.simulation.loop import Loop, Stuck, bury

#: From this seed on worlds begin with lives that end after a few operations of the disk, when hardly anything is there;
#: and executions have to wait for their turn in a process.
HASTY = 1 << 32
_STEPS_MAX = 60_000
_PATIENCE_S = 40_000.0  # of the last life, until everything has ended
_SEGMENT_BYTES = 9_000


@dataclasses.dataclass
class Life:
    """How one life of the daemon goes."""

    last: bool
    steps: int = 0  # it dies after so many; 0: not because of that
    operations: int = -1  # or in the middle of this one of the disk
    stops: bool = False  # or it is asked to stop
    power: bool = False  # when it dies, the power does
    faults: float = 0.0
    full: bool = False  # the disk is full for a while
    people: bool = True  # somebody lets those go on that stand still


class World(beyond.World):
    """Everything that outlives a daemon."""

    def __init__(self, seed: int, directory: Path) -> None:
        self.seed = seed
        self.pick = random.Random(f"world {seed}")
        self.records = directory / "records"
        self.disk = disk.Disk(self.records, random.Random(f"disk {seed}"))
        self.trace = hashlib.sha256()
        self.lives = 0
        self.crashes = 0
        self.executions = 0
        self.lines: journal.Journal | None = None
        self.ways = handlers.Ways(self.pick, 0.0, 0.0)
        self._directory = directory
        self._flows = beyond.Flows(self.pick)
        self._now = 1000.0
        self._ids = 0
        self._loop: Loop | None = None
        self._problem: Exception | None = None
        self._requests = self.pick.randint(1, 6)
        self._durable: list[events.Recorded] = []  # as listeners were told, or recovery read
        self._begun: set[str] = set()  # of those, executions that started
        self._in_line: list[events.AnyEvent] = []  # what was not durable yet when it died
        self._promised: set[str] = set()  # executions that somebody outside knows of
        self._keys: dict[str, str] = {}
        self._ends: dict[str, str] = {}  # that somebody outside was told
        self._answers: dict[tuple[str, int, int], bytes] = {}
        self._once: set[str] = set()  # tasks that have begun and may not again
        self._processes: list[handlers.Process] = []
        self._ledger: live.Ledger | None = None

    # -- what is asked of it ----------------------------------------------------------------------------------------

    def run(self) -> str:
        """Live through it all and return what stands for everything that happened; raises ``Broken``."""
        hasty = self.pick.randint(1, 3) if self.seed >= HASTY else 0
        with self._played():
            for number in range(hasty + self.pick.randint(1, 5)):
                life = self._drawn()
                if number < hasty:
                    life.operations, life.steps, life.stops = self.pick.randrange(1, 15), 3000, False
                self._live(life)
            self._live(Life(last=True))
        states = self._checked()
        for execution in self._promised:
            if not states[execution].status.ended:
                raise Broken(f"{execution} was acknowledged and never ended")
        return self.trace.hexdigest()

    def go_on_after(self, told: Sequence[events.AnyEvent]) -> dict[str, model.Execution]:
        """Take up what a daemon told its journal, until all of it has ended, and return that; raises ``Broken``."""
        self._requests, self._in_line = 0, list(told)
        with self._played():
            self._live(Life(last=True, people=False))
        return self._checked()

    def _drawn(self) -> Life:
        pick = self.pick
        life = Life(last=False, power=pick.random() < 0.6, faults=pick.choice((0.0, 0.0, 0.02)))
        life.full = pick.random() < 0.1
        way = pick.randrange(5)
        if way < 2:
            life.steps = int(10 ** pick.uniform(0.5, 3.5))
        elif way < 4:
            life.operations = int(10 ** pick.uniform(0, 2))
            life.steps = 3000
        else:
            life.stops, life.steps = True, 20_000
        return life

    def _live(self, life: Life) -> None:
        self.lives += 1
        pick = random.Random(f"life {self.seed} {self.lives}")
        harm = (0.0, 0.0) if life.last else (pick.choice((0, 0.02, 0.15)), 0.05)
        self.ways = handlers.Ways(pick, *harm, crowded=self.seed >= HASTY)
        self.disk.cut_after, self.disk.faults = life.operations, life.faults
        loop = self._loop = Loop(self._now, pick, life.steps or _STEPS_MAX)
        loop.set_exception_handler(self._on_error)
        self._processes, self._ledger, self.lines, self._problem = [], None, None, None
        main = loop.create_task(self._daemon(life))
        main.add_done_callback(lambda _: self.die())
        try:
            try:
                loop.run()
            except Stuck as stuck:
                if not life.steps:
                    raise Broken(f"{stuck}: {self._left()}") from stuck
            if main.done() and not main.cancelled():
                self._judge(main.exception())
            if life.last and (not main.done() or main.exception() is not None):
                raise Broken(f"the last life ended early: {main}")
            if self._problem is not None:
                raise self._problem
            self._compare()
        finally:
            loop.dead = True
            loop.set_exception_handler(lambda *_: None)
            bury(asyncio.all_tasks(loop))
            loop.close()
            self.disk.full = False
            self._now = loop.time() + 1
            if self.lines is not None:
                self._in_line = list(self.lines.in_line())
                self.lines._tail.close()
            self.disk.close_all()
        self.crashes += not life.stops
        self.trace.update(f"{loop.steps} {loop.time():.9f}\n".encode())
        if life.power and self.records.exists():
            self.disk.cut_power()

    def die(self) -> None:
        """The daemon is gone at this moment."""
        assert self._loop is not None
        self._loop.dead = True

    def _judge(self, error: BaseException | None) -> None:
        match error:
            case None | disk.PowerCut() | errors.JournalFailed() | OSError():
                return
            case BaseExceptionGroup():
                for one in error.exceptions:
                    self._judge(one)
            case Exception():
                self._problem = self._problem or error

    def _on_error(self, _: object, context: dict[str, Any]) -> None:
        error = context.get("exception")
        self.die()
        if isinstance(error, errors.JournalFailed):
            return
        self._problem = self._problem or (error if isinstance(error, Exception) else Broken(str(context)))

    def new_id(self) -> str:
        self._ids += 1
        return f"e{self._ids:05}"

    # -- one life ---------------------------------------------------------------------------------------------------

    async def _daemon(self, life: Life) -> None:
        found = unfinished.Unfinished()
        read: list[events.Recorded] = []

        def visit(recorded: events.Recorded) -> None:
            read.append(recorded)
            found.visit(recorded)

        recovered = recovery.recover(self.records, visit)
        self._recognise(read)
        self._forget_answers(found)
        lines = self.lines = await journal.Journal.open(
            self.records, beyond.Clock(), recovered=recovered, segment_bytes_max=_SEGMENT_BYTES
        )
        lines.failed.add_done_callback(lambda _: self.die())
        archive = beyond.Archive(self._durable)
        lines.subscribe(archive.absorb)
        lines.subscribe(self._heard)
        known = masks.Masks()
        stores = contents.Contents(
            blobs.Blobs(self._directory / "blobs"), sealed.Sealed(self._directory / "sealed", known), known
        )
        ledger = live.Ledger(lines, stores, archive)
        nothing: Any = beyond.Beyond()
        everything = outside.Outside(self._flows, beyond.Tasks(self), nothing, nothing, nothing)  # type: ignore[arg-type]
        pool: Any = handlers.Pool(self.ways, self)
        index: Any = archive
        options = outside.Options(
            max_running=self.ways.pick.choice((1, 2, 8)),
            new_max=1 if self.seed % 4 == 1 else 8,
            cancel_grace_s=self.ways.pick.choice((0.05, 10.0)),
            hibernate_after_s=self.ways.pick.choice((0.0, 0.01, 2.0, 15.0)),
        )
        work = dispatcher.Dispatcher(
            ledger, index, found.kept, everything, pool, clock=beyond.Clock(), new_id=self.new_id, options=options
        )
        work.keeper.use(nothing)
        self._ledger = ledger
        self._work, self._state = work, found.kept
        async with asyncio.TaskGroup() as group:
            work.start(group, list(found.executions.values()), found.loose, frozenset())
            clients = [group.create_task(self._client(work)) for _ in range(2 * life.people)]
            if life.full:
                group.create_task(self._fill_disk())
            if life.last:
                await self._until_all_ended(work, resumes=life.people)
            elif life.stops:
                await asyncio.sleep(self.ways.pick.choice((0.1, 3, 60)))
            else:
                await asyncio.sleep(1e6)
            for client in clients:
                client.cancel()
            await work.stop(self.ways.pick.choice((0.0, 1.0, 100.0)))
        await lines.close()

    async def _fill_disk(self) -> None:
        await asyncio.sleep(self.ways.pick.choice((0.01, 1, 10)))
        self.disk.full = True
        await asyncio.sleep(self.ways.pick.choice((0.6, 20)))
        self.disk.full = False

    async def _until_all_ended(self, work: dispatcher.Dispatcher, *, resumes: bool) -> None:
        loop = asyncio.get_running_loop()
        began = loop.time()
        while self._requests or work.unfinished:
            await asyncio.sleep(7)
            for subject in work.ledger if resumes else ():
                if subject.state.status is lifecycle.Status.PAUSED or subject.state.pause_requested:
                    work.influence.request_resume(subject.state.id, "somebody")
            if loop.time() > began + _PATIENCE_S:
                raise Broken(f"after {_PATIENCE_S:g} s there is no end: {self._left()}")

    def _left(self) -> list[tuple[object, ...]]:
        return [(s.state.id, s.state.status, s.state.pending, s.supervision) for s in self._ledger or ()]

    # -- people -----------------------------------------------------------------------------------------------------

    async def _client(self, work: dispatcher.Dispatcher) -> None:
        pick = self.ways.pick
        while True:
            await asyncio.sleep(pick.choice((0, 0, 0.001, 0.1, 2)))
            with contextlib.suppress(errors.NotAccepting):
                if self._requests:
                    await self._ask(work)
                else:
                    await self._meddle(work)

    async def _ask(self, work: dispatcher.Dispatcher) -> None:
        pick = self.ways.pick
        key = f"k{self._requests}" if pick.random() < 0.6 else ""
        said = model.Submission(
            flow=pick.choice(handlers.FLOWS), inputs=b'{"depth":0,"generation":0}', key=key, key_digest="d"
        )
        accepted = await work.submit(said)
        self._requests = max(0, self._requests - 1)
        self._promised.add(accepted.execution)
        if key and self._keys.setdefault(key, accepted.execution) != accepted.execution:
            raise Broken(f"key {key} stood for {self._keys[key]}, and now for {accepted.execution}")
        if pick.random() < 0.5:
            await self._await(work, accepted.execution)

    async def _await(self, work: dispatcher.Dispatcher, execution: str) -> None:
        state = await work.ends.wait(execution, self.ways.pick.choice((0, 1, 1000)))
        if state.status.ended:
            self._ends[execution] = state.status

    async def _meddle(self, work: dispatcher.Dispatcher) -> None:
        pick = self.ways.pick
        await asyncio.sleep(pick.choice((0.003, 1, 20, 500)))
        alive = [subject.state.id for subject in work.ledger]
        if not alive:
            await asyncio.sleep(1000)
            return
        one, influence = pick.choice(alive), work.influence
        match pick.randrange(6):
            case 0:
                influence.request_cancel(one, "somebody")
            case 1:
                influence.request_pause(one, "somebody")
            case 2:
                influence.request_resume(one, "somebody")
            case 3 if influence.can_restart(one):
                influence.restart(one, "somebody")
            case 4:
                for message in work.asking.all(pending=True)[:1]:
                    with contextlib.suppress(errors.Conflict, errors.NotFound):
                        await work.asking.answer(message.id, b"{}", "somebody")
            case _:
                await self._await(work, one)

    # -- what is noticed --------------------------------------------------------------------------------------------

    def _heard(self, lines: Sequence[events.Recorded]) -> None:
        self._durable.extend(lines)
        for line in lines:
            self._note(line)

    def _note(self, line: events.Recorded) -> None:
        self.trace.update(b"%d %b %b\n" % (line.seq, line.at.encode(), msgspec.json.encode(line.event)))
        if isinstance(line.event, events.ExecutionStarted):
            self._begun.add(line.event.execution)
        self.executions += isinstance(line.event, events.ExecutionCreated)

    def process_begins(self, process: handlers.Process, execution: str) -> None:
        others = [one for one in self._processes if one is not process and one.execution == execution and one.alive]
        if others:
            raise Broken(f"{execution} runs in two processes")
        if process not in self._processes:
            self._processes.append(process)
        known = any(
            isinstance(line.event, events.ExecutionCreated) and line.event.execution == execution
            for line in self._durable
        )
        if not known:
            raise Broken(f"{execution} runs, and its creation is not durable")

    def process_told(self, execution: str, call: int, answer: bytes, *, replayed: bool) -> None:
        assert self._ledger is not None
        subject = self._ledger.find(execution)
        if subject is None:
            raise Broken(f"{execution} is told something, and nobody knows it")
        if b"has the lock" in answer and b"already" in answer:
            raise Broken(f"call {call} of {execution} waits for a lock of its own")
        before = self._answers.setdefault((execution, subject.state.generation, call), answer)
        if before != answer:
            raise Broken(f"call {call} of {execution} was answered {before!r}, then {answer!r}")

    def task_begins(self, task: beyond.Task, execution: str) -> None:
        if execution not in self._begun:
            raise Broken(f"task {execution} touches the world, and that it started is not durable")
        if not task.idempotent and execution in self._once:
            raise Broken(f"task {execution} is done a second time")
        self._once.add(execution)

    # -- what must be so --------------------------------------------------------------------------------------------

    def _recognise(self, read: list[events.Recorded]) -> None:
        """What recovery finds is all that was durable, and then what stood in line, as far as it goes."""
        known = len(self._durable)
        for before, now in zip(self._durable, read, strict=False):
            if (before.seq, before.at) != (now.seq, now.at) or not laws.same(before.event, now.event):
                raise Broken(f"{before} was durable, and is {now} now")
        if len(read) < known:
            raise Broken(
                f"{known} events were durable, {len(read)} are left; the first lost: {self._durable[len(read)]}"
            )
        for said, now in zip(self._in_line, read[known:], strict=False):
            if not laws.same(said, now.event):
                raise Broken(f"{said} was in line, and {now} was read")
        if len(read) > known + len(self._in_line):
            raise Broken(f"nobody wrote {read[-1]}")
        for line in read[known:]:
            self._note(line)
        self._durable, self._in_line = read, []
        self._checked()

    def _checked(self) -> dict[str, model.Execution]:
        states = laws.check(self._durable)
        for execution in self._promised:
            if execution not in states:
                raise Broken(f"{execution} was acknowledged, and is lost")
        for execution, status in self._ends.items():
            if states[execution].status != status:
                raise Broken(f"{execution} was said to have {status}, and is {states[execution].status}")
        again = {state.terms.retry_of for state in states.values()}
        for state in states.values():
            retry = self._flows.find(state.flow_name).metadata.policies.retry if state.type == "FLOW" else None
            if retry is not None and laws.is_due_again(state, retry) and state.id not in again:
                raise Broken(f"{state.id} failed, and is not tried again")
        return states

    def _forget_answers(self, found: unfinished.Unfinished) -> None:
        """What a handler was told and nobody recorded may be otherwise the next time."""
        of: dict[str, list[events.Recorded]] = collections.defaultdict(list)
        for line in self._durable:
            of[getattr(line.event, "execution", "")].append(line)
        told = {one: history.of(of[one], found.loose.get(one, ())) for one in found.executions}

        def recorded(execution: str, generation: int, call: int, answer: bytes) -> bool:
            state = found.executions.get(execution)
            entry = told[execution].find(call) if state is not None else None
            if entry is None or state is None or state.generation != generation:
                return False
            # A change without its call's line says that it happened; that a cancel came then, the next call hears.
            return entry.ended and not (entry.loose and b'"failure"' in answer)

        self._answers = {key: answer for key, answer in self._answers.items() if recorded(*key, answer)}

    def _compare(self) -> None:
        """What is in memory is what the journal tells, what stands in line included."""
        lines, ledger = self.lines, self._ledger
        if lines is None or ledger is None:
            return
        found = unfinished.Unfinished()
        waiting = [events.Recorded(0, entry.at, entry.event, 0, 0, 0) for entry in (*lines._flying, *lines._pending)]
        for line in (*self._durable, *waiting):
            found.visit(line)
        for subject in ledger:
            if subject.state.status.ended:
                continue
            told = found.executions.get(subject.state.id)
            if told is None or archives.shown(told) != archives.shown(subject.state):
                raise Broken(f"in memory {subject.state}, in the journal {told}")
        holders = found.kept.locks.all()
        if holders != self._state.locks.all():
            raise Broken(f"locks in memory {self._state.locks.all()}, in the journal {holders}")

    @contextlib.contextmanager
    def _played(self) -> Iterator[None]:
        """Put what is played in place of what is real."""
        threads = types.SimpleNamespace(Thread=beyond.Thread)
        queues = types.SimpleNamespace(SimpleQueue=lambda: beyond.Jobs(self))
        names = types.SimpleNamespace(token_hex=lambda size: "0" * 2 * size)
        chance = types.SimpleNamespace(random=self._random)
        logged = structlog.get_config()
        with contextlib.ExitStack() as stack:
            for module, name, played in (
                (journal, "threading", threads),
                (journal, "queue", queues),
                (tail, "os", self.disk),
                (durable, "os", self.disk),
                (recovery, "os", self.disk),
                (recovery, "secrets", names),
                (own_calls, "random", chance),
            ):
                stack.enter_context(mock.patch.object(module, name, played))
            structlog.configure(processors=[self._logged], cache_logger_on_first_use=False)
            stack.callback(lambda: structlog.configure(**logged))
            yield

    def _random(self) -> float:
        return self.ways.pick.random()

    def _logged(self, _: object, method: str, said: Any) -> Any:
        if said["event"] == "execution.failed_internally" and "NotAccepting" not in said["reason"]:
            self._problem = self._problem or Broken(str(said))
        raise structlog.DropEvent


def read(directory: Path) -> list[events.Recorded]:
    """Return all lines of a journal."""
    lines: list[events.Recorded] = []
    recovery.recover(directory, lines.append)
    return lines


def run(seed: int) -> World:
    """Live through the world of a seed; raises ``Broken`` with the seed in its text."""
    directory = Path(tempfile.mkdtemp(prefix="headrace-world-", dir="/dev/shm"))
    world = World(seed, directory)
    try:
        world.run()
    except Exception as error:
        raise Broken(f"seed {seed}, life {world.lives}: {error}") from error
    finally:
        shutil.rmtree(directory)
    return world
