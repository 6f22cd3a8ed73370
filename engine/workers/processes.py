"""The fork servers and the warm processes: where flow processes come from and where they rest.

One fork server of the daemon's own Python, exec'd and kept for the daemon's life; when it dies its flow processes die
with it, it is started again, and if that happens too often in a short time the daemon gives up rather than spin. One
more for each environment of packages that flows run in, started when it is needed and ended when it was idle for a
while; what becomes of it concerns its flows alone. A process that ended an execution well waits here for the next one
of the same flow, commit and environment; the longest idle one is dismissed first.
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

from .. import errors, ports
from ..guest import cgroups, fork_server
from . import flow_process, nursery

log = structlog.get_logger()

#: Which flow and commit a process is good for.
Kind = tuple[str, str]

#: More deaths of the fork server than this within a minute, and the daemon leaves it to its own supervisor.
_DEATHS_MAX = 5
_DEATHS_WITHIN_S = 60.0


class Processes:
    """Makes, keeps and ends flow processes."""

    def __init__(
        self,
        clock: ports.Clock,
        *,
        idle_max: int,
        idle_s: float = 60.0,
        limits: dict[str, int] | None = None,
        subtree: cgroups.Subtree | None = None,
    ) -> None:
        self.failed: asyncio.Future[errors.HeadraceError] = asyncio.get_running_loop().create_future()
        self._clock = clock
        self.idle_max = idle_max
        self._idle_s = idle_s
        self.subtree = subtree or cgroups.Subtree()
        self._limits = {**(limits or {}), "tasks": self.subtree.tasks_max}
        self._numbers = itertools.count(1)
        self._main = nursery.Nursery("", self._limits, self._numbers, self.subtree)
        self._others: dict[str, nursery.Nursery] = {}  # by interpreter
        self._keepers: dict[nursery.Nursery, asyncio.Task[None]] = {}  # of the others, those that leave included
        self._idle: dict[tuple[Kind, str], deque[flow_process.FlowProcess]] = {}
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
        self._idle.clear()

    # -- processes --------------------------------------------------------------------------------------------------

    def take(self, kind: Kind, *, python: str = "", fresh: bool = False) -> flow_process.FlowProcess:
        """Return a process for ``kind``: a warm one if there is one, else a new one that may be spoken to at once.

        ``python`` is the interpreter of an environment, which need not be there: then it soon says that it died."""
        idle = self._idle.get((kind, python))
        while idle and not fresh:
            process = idle.pop()
            if not idle:
                del self._idle[kind, python]
            if process.alive:
                return process
        return self._nursery(python).spawn(self._clock.monotonic())

    def give_back(self, kind: Kind, process: flow_process.FlowProcess) -> None:
        """Keep a clean process for the next execution of ``kind``."""
        process.listen(None)
        process.idle_since = self._clock.monotonic()
        self._idle.setdefault((kind, process.python), deque()).append(process)
        if sum(map(len, self._idle.values())) > self.idle_max:
            oldest = min(self._idle, key=lambda k: self._idle[k][0].idle_since)
            self._dismiss_first(oldest)

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
        for key in [key for key in self._idle if key[1] == python]:
            del self._idle[key]

    # -- idle processes ---------------------------------------------------------------------------------------------

    async def _dismiss_idle(self) -> None:
        zombies: set[int] = set()
        while True:
            await asyncio.sleep(self._idle_s / 4)
            zombies = reap_zombies(zombies)
            now = self._clock.monotonic()
            for kind in list(self._idle):
                while kind in self._idle and self._idle[kind][0].idle_since < now - self._idle_s:
                    self._dismiss_first(kind)
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

    def _dismiss_first(self, kind: tuple[Kind, str]) -> None:
        idle = self._idle[kind]
        idle.popleft().dismiss()
        if not idle:
            del self._idle[kind]


class Here:
    """This machine as the place of one execution; elsewhere that is a ``cluster.Place``."""

    node = ""

    def __init__(self, pool: Processes) -> None:
        self._pool = pool
        self._kind: Kind = ("", "")
        self._process: flow_process.FlowProcess | None = None

    async def take(self, kind: Kind, *, snapshot: Path, python: str, fresh: bool) -> flow_process.FlowProcess:
        """Return a process for ``kind``."""
        self._kind = kind
        self._process = self._pool.take(kind, python=python, fresh=fresh)
        return self._process

    def give_back(self) -> None:
        """Keep the process, which is as good as new, for the next execution of its kind."""
        assert self._process is not None
        self._pool.give_back(self._kind, self._process)

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
