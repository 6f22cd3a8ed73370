"""The fork servers and the warm processes: where flow processes come from and where they rest.

One fork server of the daemon's own Python, exec'd and kept for the daemon's life; when it dies its flow processes die
with it, it is started again, and if that happens too often in a short time the daemon gives up rather than spin. One
more for each environment of packages that flows run in, started when it is needed and ended when it was idle for a
while; what becomes of it concerns its flows alone. A process that ended an execution well waits here for the next one
of the same flow, commit and environment; the longest idle one is dismissed first.

While a flow's executions are soon over, no more of its processes work beside each other than there are cores: who comes
then is handed to one of them and follows there, see ``flow_process``. More of them would push each other out of the
caches.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import os
import signal
from collections import deque
from collections.abc import Iterable
from pathlib import Path

import structlog

from .. import errors, model, ports
from ..guest import cgroups, fork_server
from . import flow_process, nursery

log = structlog.get_logger()

#: Which flow and commit a process is good for.
Kind = tuple[str, str]

#: A flow whose executions are expected to be over within that is a quick one.
_QUICK_S = 0.002
#: What is expected of one that nothing is known of, and the most of any: it takes some ten quick executions to be one.
_UNKNOWN_S = 0.005
#: How much of what is expected comes from the last execution. On a busy machine one in ten waits that long for a core:
#: it must not count more than what the nine others took.
_WEIGHT = 0.1
#: So many a process has at once, the one it runs included.
TURNS_MAX = 16

#: More deaths of the fork server than this within a minute, and the daemon leaves it to its own supervisor.
_DEATHS_MAX = 5
_DEATHS_WITHIN_S = 60.0


class _Kept:
    """The processes of one kind that take another execution if one ends well."""

    def __init__(self) -> None:
        self.idle: dict[flow_process.FlowProcess, None] = {}  # the longest idle one first
        self._expected_s = _UNKNOWN_S  # of the next execution, from what the last ones took
        self._busy: set[flow_process.FlowProcess] = set()

    @property
    def quick(self) -> bool:
        """Whether the next execution can be expected to be over soon."""
        return self._expected_s < _QUICK_S

    def held_up(self) -> None:
        """Somebody was: nothing is known any more of how long they take."""
        self._expected_s = _UNKNOWN_S

    def any_lives(self) -> bool:
        """Whether there are any; forgets the dead."""
        self._busy = {each for each in self._busy if each.alive}
        return bool(self.idle or self._busy)

    def add(self, process: flow_process.FlowProcess) -> flow_process.FlowProcess:
        """Here is a new one, for an execution; it is forgotten when it is dead."""
        process.exited.add_done_callback(lambda _: self._busy.discard(process))
        self._busy.add(process)
        return process

    def take(self, cores: int) -> flow_process.FlowProcess | None:
        """Return one for the next execution: one that runs another, or one that is idle, or none."""
        if self.quick and len(self._busy) >= cores:
            able = (each for each in self._busy if each.alive and not each.stalled)
            following = min(able, key=_turns, default=None)
            if following is not None and following.turns < TURNS_MAX:
                return following
        while self.idle:
            process, _ = self.idle.popitem()
            if process.alive:
                self._busy.add(process)
                return process
        return None

    def rest(self, process: flow_process.FlowProcess) -> None:
        """An execution ended well there; unless there are others, it is idle."""
        learnt = self._expected_s + _WEIGHT * (process.last_took_s - self._expected_s)
        self._expected_s = min(learnt, _UNKNOWN_S)
        if not process.turns:
            self._busy.discard(process)
            self.idle.pop(process, None)
            self.idle[process] = None

    @property
    def idle_since(self) -> float:
        """Since when the longest idle one is idle, monotonic."""
        return next(iter(self.idle)).idle_since

    def dismiss_first(self) -> None:
        """Let the longest idle one go."""
        process = next(iter(self.idle))
        del self.idle[process]
        process.dismiss()


class Processes:
    """Makes, keeps and ends flow processes."""

    def __init__(
        self,
        clock: ports.Clock,
        *,
        idle_max: int,
        idle_s: float = 60.0,
        cores: int = 1,
        limits: dict[str, int] | None = None,
        subtree: cgroups.Subtree | None = None,
    ) -> None:
        self.failed: asyncio.Future[errors.HeadraceError] = asyncio.get_running_loop().create_future()
        self._clock = clock
        self.idle_max = idle_max
        self._idle_s = idle_s
        self._cores = cores
        self.subtree = subtree or cgroups.Subtree()
        self._limits = {**(limits or {}), "tasks": self.subtree.tasks_max}
        self._numbers = itertools.count(1)
        self._main = nursery.Nursery("", self._limits, self._numbers, self.subtree)
        self._others: dict[str, nursery.Nursery] = {}  # by interpreter
        self._keepers: dict[nursery.Nursery, asyncio.Task[None]] = {}  # of the others, those that leave included
        self._kept: dict[tuple[Kind, str], _Kept] = {}
        self._deaths: deque[float] = deque()
        self._births = asyncio.Lock()  # no fork server begins while orphans are looked for
        self._watcher: asyncio.Task[None] | None = None
        self._sweeper: asyncio.Task[None] | None = None

    # -- start and stop ---------------------------------------------------------------------------------------------

    async def start(self) -> None:
        """Start the fork server of the daemon's own Python."""
        fork_server.become_subreaper()
        await self._main.start()
        self._watcher = asyncio.create_task(self._watch(), name="fork server")
        self._sweeper = asyncio.create_task(self._dismiss_idle(), name="idle flow processes")

    async def stop(self) -> None:
        """Kill every flow process with all it started, and the fork servers."""
        helpers = [self._sweeper, self._watcher, *self._keepers.values()]
        for helper in helpers:
            if helper is not None:
                helper.cancel()
                with contextlib.suppress(asyncio.CancelledError):
                    await helper
        for each in (self._main, *self._keepers):
            await each.stop()
            each.give_up()
        self._kept.clear()

    # -- processes --------------------------------------------------------------------------------------------------

    def take(self, kind: Kind, *, python: str = "", fresh: bool = False, alone: bool = False) -> flow_process.Turn:
        """Return a turn in a process for ``kind``, which may be spoken to at once: in a warm one if there is one, else,
        or for a ``fresh`` one, in a new one. Whoever was taken back goes ``alone`` and follows nobody.

        ``python`` is the interpreter of an environment, which need not be there: then it soon says that it died."""
        now = self._clock.monotonic()
        if fresh:
            return self._nursery(python).spawn(now).turn()
        kept = self._kept.setdefault((kind, python), _Kept())
        if alone:
            kept.held_up()
        process = kept.take(self._cores) or kept.add(self._nursery(python).spawn(now))
        return process.turn()

    def expects_quick(self, state: model.Execution) -> bool:
        """Whether an execution can be expected to be over soon, in a process that it shares with others; false for
        those with an environment."""
        if not state.reuse or state.attempt or state.venv:
            return False
        kept = self._kept.get(((state.flow_id, state.commit), ""))
        return kept is not None and kept.quick

    def give_back(self, kind: Kind, turn: flow_process.Turn) -> None:
        """Keep a clean process, whose turn is over, for the next execution of ``kind``."""
        process = turn.process
        process.idle_since = self._clock.monotonic()
        self._kept.setdefault((kind, process.python), _Kept()).rest(process)
        if sum(len(each.idle) for each in self._kept.values()) > self.idle_max:
            idle = [each for each in self._kept.values() if each.idle]
            min(idle, key=_idle_since).dismiss_first()

    @property
    def count(self) -> int:
        """How many flow processes there are, idle ones included."""
        return sum(each.count for each in (self._main, *self._others.values()))

    @property
    def environments(self) -> int:
        """How many fork servers of environments there are."""
        return len(self._others)

    # -- the fork servers -------------------------------------------------------------------------------------------

    def _nursery(self, python: str) -> nursery.Nursery:
        if not python:
            return self._main
        if python not in self._others:
            made = self._others[python] = nursery.Nursery(python, self._limits, self._numbers, self.subtree)
            self._keepers[made] = asyncio.create_task(self._keep(made), name=f"fork server of {python}")
        return self._others[python]

    async def _watch(self) -> None:
        """Start the fork server again when it dies, a few times."""
        while True:
            status = await self._main.wait()
            self._forget_idle("")
            orphans = await self._kill_orphans()
            now = self._clock.monotonic()
            self._deaths.append(now)
            while self._deaths[0] < now - _DEATHS_WITHIN_S:
                self._deaths.popleft()
            log.error("fork_server.died", status=status, deaths=len(self._deaths), orphans=orphans)
            if len(self._deaths) > _DEATHS_MAX:
                self.failed.set_result(
                    errors.HeadraceError(f"the fork server died {len(self._deaths)} times within a minute")
                )
                return
            async with self._births:
                await self._main.start()

    async def _keep(self, one: nursery.Nursery) -> None:
        """See the fork server of an environment through its life. The next process wanted there gets another one."""
        try:
            async with self._births:
                await one.start()
            status = await one.wait()
        except OSError as error:
            log.error("fork_server.not_started", python=one.python, reason=str(error))
        else:
            if self._others.get(one.python) is one:
                log.error("fork_server.died", status=status, python=one.python, orphans=await self._kill_orphans())
        if self._others.get(one.python) is one:
            del self._others[one.python]
            self._forget_idle(one.python)
        one.give_up()
        del self._keepers[one]

    async def _kill_orphans(self) -> int:
        async with self._births:
            servers = [each.pid for each in (self._main, *self._keepers)]
            return await asyncio.to_thread(kill_orphans, servers)

    def _forget_idle(self, python: str) -> None:
        """The idle processes of a dead fork server are dead."""
        for key in [key for key in self._kept if key[1] == python]:
            del self._kept[key]

    # -- idle processes ---------------------------------------------------------------------------------------------

    async def _dismiss_idle(self) -> None:
        zombies: set[int] = set()
        while True:
            await asyncio.sleep(self._idle_s / 4)
            zombies = reap_zombies(zombies)
            now = self._clock.monotonic()
            for key, kept in list(self._kept.items()):
                while kept.idle and kept.idle_since < now - self._idle_s:
                    kept.dismiss_first()
                if not kept.any_lives():
                    del self._kept[key]
            for one in (self._main, *self._others.values()):
                one.dismiss_next(now - self._idle_s)
            for one in list(self._others.values()):
                if one.count:
                    one.idle_since = None
                elif one.idle_since is None:
                    one.idle_since = now
                elif one.idle_since < now - self._idle_s:
                    del self._others[one.python]
                    one.dismiss()


def _turns(process: flow_process.FlowProcess) -> int:
    return process.turns


def _idle_since(kept: _Kept) -> float:
    return kept.idle_since


class Here:
    """This machine as the place of one execution; elsewhere that is a ``cluster.Place``."""

    node = ""

    def __init__(self, pool: Processes) -> None:
        self._pool = pool
        self._kind: Kind = ("", "")
        self._turn: flow_process.Turn | None = None

    async def take(self, kind: Kind, *, snapshot: Path, python: str, fresh: bool, alone: bool) -> flow_process.Turn:
        """Return a turn in a process for ``kind``."""
        self._kind = kind
        self._turn = self._pool.take(kind, python=python, fresh=fresh, alone=alone)
        return self._turn

    def give_back(self) -> None:
        """Keep the process, which is as good as new, for the next execution of its kind."""
        assert self._turn is not None
        self._pool.give_back(self._kind, self._turn)

    def cancel(self) -> None:
        """No process is wanted: there is none before one was taken."""


def kill_orphans(spared: Iterable[int] = ()) -> int:
    """Kill the children of this process that lead or belong to other sessions: what a dead fork server left.

    ``spared`` are the other fork servers. This daemon's own children (checks, builds) live in its session and are not
    touched. Blocking; returns how many."""
    session, killed = os.getsid(0), 0
    kept = frozenset(spared)
    while True:
        found = [pid for pid in fork_server.children(os.getpid()) if pid not in kept]
        orphans = [pid for pid in found if _session(pid) not in (session, -1)]
        if not orphans:
            return killed
        for pid in orphans:
            with contextlib.suppress(ProcessLookupError, ChildProcessError):
                os.kill(pid, signal.SIGKILL)
                os.waitpid(pid, 0)
            killed += 1


def reap_zombies(before: set[int]) -> set[int]:
    """Bury dead children that were dead at the last look too, and return the dead of this one.

    As a subreaper this process inherits orphans of its helpers (git starts some); nobody else would wait for them.
    Children that somebody does wait for are buried long before the second look.
    """
    dead = {pid for pid in fork_server.children(os.getpid()) if _is_zombie(pid)}
    for pid in dead & before:
        with contextlib.suppress(ChildProcessError):
            os.waitpid(pid, os.WNOHANG)
    return dead - before


def _is_zombie(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except OSError:
        return False


def _session(pid: int) -> int:
    try:
        return os.getsid(pid)
    except ProcessLookupError:
        return -1
