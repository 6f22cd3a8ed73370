"""The fork server and the warm processes: where flow processes come from and where they rest.

One fork server, exec'd and kept for the daemon's life; when it dies its flow processes die with it, it is started
again, and if that happens too often in a short time the daemon gives up rather than spin. A process that ended an
execution well waits here for the next one of the same flow and commit; the longest idle one is dismissed first.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import os
import signal
import socket
import sys
from collections import deque
from pathlib import Path

import structlog

from .. import errors, ports
from ..guest import fork_server
from . import flow_process

log = structlog.get_logger()

#: Which flow and commit a process is good for.
Kind = tuple[str, str]

#: Of the daemon's environment, what flow processes get. Secrets never travel this way.
_ENVIRONMENT = (
    *("PATH", "HOME", "USER", "LOGNAME", "LANG", "LC_ALL", "TZ", "TMPDIR"),
    *("SSL_CERT_FILE", "SSL_CERT_DIR", "REQUESTS_CA_BUNDLE"),
    *("http_proxy", "https_proxy", "no_proxy", "HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY"),
)
#: More deaths of the fork server than this within a minute, and the daemon leaves it to its own supervisor.
_DEATHS_MAX = 5
_DEATHS_WITHIN_S = 60.0


def environment() -> dict[str, str]:
    """Return the environment of flow processes.

    A fixed hash seed makes sets iterate alike when a flow is run again after a crash, or offline."""
    given = {name: os.environ[name] for name in _ENVIRONMENT if name in os.environ}
    return given | {"PYTHONHASHSEED": "0", "PYTHONUTF8": "1", "PYTHONDONTWRITEBYTECODE": "1"}


class Processes:
    """Makes, keeps and ends flow processes."""

    def __init__(
        self, clock: ports.Clock, *, idle_max: int, idle_s: float = 60.0, limits: dict[str, int] | None = None
    ) -> None:
        self.failed: asyncio.Future[errors.HeadraceError] = asyncio.get_running_loop().create_future()
        self._clock = clock
        self._idle_max = idle_max
        self._idle_s = idle_s
        self._limits = limits or {}
        self._numbers = itertools.count(1)
        self._living: dict[int, flow_process.FlowProcess] = {}
        self._idle: dict[Kind, deque[flow_process.FlowProcess]] = {}
        self._server: asyncio.subprocess.Process | None = None
        self._control: socket.socket | None = None
        self._deaths: deque[float] = deque()
        self._watcher: asyncio.Task[None] | None = None
        self._sweeper: asyncio.Task[None] | None = None
        self._unsent: deque[tuple[bytes, list[int]]] = deque()

    # -- start and stop ---------------------------------------------------------------------------------------------

    async def start(self) -> None:
        """Start the fork server."""
        fork_server.become_subreaper()
        await self._start_server()
        self._watcher = asyncio.create_task(self._watch(), name="fork server")
        self._sweeper = asyncio.create_task(self._dismiss_idle(), name="idle flow processes")

    async def stop(self) -> None:
        """Kill every flow process with all it started, and the fork server."""
        for helper in (self._sweeper, self._watcher):
            if helper is not None:
                helper.cancel()
                with contextlib.suppress(asyncio.CancelledError):
                    await helper
        if self._server is None:
            return
        self._lose_control()
        try:
            await asyncio.wait_for(self._server.wait(), 10)
        except TimeoutError:
            self._server.kill()
            await self._server.wait()
        self._forget_all()

    # -- processes --------------------------------------------------------------------------------------------------

    def take(self, kind: Kind, *, fresh: bool = False) -> flow_process.FlowProcess:
        """Return a process for ``kind``: a warm one if there is one, else a new one that may be spoken to at once."""
        idle = self._idle.get(kind)
        while idle and not fresh:
            process = idle.pop()
            if not idle:
                del self._idle[kind]
            if process.alive:
                return process
        return self._spawn()

    def give_back(self, kind: Kind, process: flow_process.FlowProcess) -> None:
        """Keep a clean process for the next execution of ``kind``."""
        process.listen(None)
        process.idle_since = self._clock.monotonic()
        self._idle.setdefault(kind, deque()).append(process)
        if sum(map(len, self._idle.values())) > self._idle_max:
            oldest = min(self._idle, key=lambda k: self._idle[k][0].idle_since)
            self._dismiss_first(oldest)

    @property
    def count(self) -> int:
        """How many flow processes there are, idle ones included."""
        return len(self._living)

    def _spawn(self) -> flow_process.FlowProcess:
        ours, theirs, out, err = flow_process.make_pipes()
        process = flow_process.FlowProcess(asyncio.get_running_loop(), ours, out[0], err[0])
        number = next(self._numbers)
        self._living[number] = process
        message = json.dumps({"spawn": number, "limits": self._limits}).encode()
        self._unsent.append((message, [theirs.detach(), out[1], err[1]]))
        self._send_requests()
        return process

    def _send_requests(self) -> None:
        """Hand waiting requests to the fork server; what does not fit now goes when it has read some."""
        while self._unsent and self._control is not None:
            message, descriptors = self._unsent[0]
            try:
                socket.send_fds(self._control, [message], descriptors)
            except BlockingIOError:
                asyncio.get_running_loop().add_writer(self._control.fileno(), self._send_requests)
                return
            except OSError:
                return  # the fork server died; the watcher starts another one, which gets them
            self._unsent.popleft()
            for descriptor in descriptors:
                os.close(descriptor)
        if self._control is not None:
            asyncio.get_running_loop().remove_writer(self._control.fileno())

    # -- the fork server --------------------------------------------------------------------------------------------

    async def _start_server(self) -> None:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        entry = Path(fork_server.__file__).with_name("__main__.py")
        self._server = await asyncio.create_subprocess_exec(
            sys.executable,
            "-P",
            str(entry),
            str(theirs.fileno()),
            stdin=asyncio.subprocess.DEVNULL,
            pass_fds=[theirs.fileno()],
            env=environment(),
            start_new_session=True,
        )
        theirs.close()
        ours.setblocking(False)
        self._control = ours
        asyncio.get_running_loop().add_reader(ours.fileno(), self._hear)
        self._send_requests()
        log.debug("fork_server.started", pid=self._server.pid)

    def _hear(self) -> None:
        """Take one message of the fork server."""
        assert self._control is not None
        try:
            message, descriptors, _flags, _address = socket.recv_fds(self._control, fork_server.MESSAGE_BYTES_MAX, 1)
        except BlockingIOError:
            return
        except OSError:
            message, descriptors = b"", []
        if not message:
            asyncio.get_running_loop().remove_reader(self._control.fileno())
            return
        news = json.loads(message)
        if "spawned" in news:
            process = self._living.get(news["spawned"])
            if process is None:
                os.close(descriptors[0])
            else:
                process.spawned(news["pid"], descriptors[0])
            return
        process = self._living.pop(news["exited"], None)
        if process is not None:
            process.gone(news["status"])
        if news["orphans"]:
            log.info("orphans.killed", count=news["orphans"])

    async def _watch(self) -> None:
        """Start the fork server again when it dies, a few times."""
        while True:
            assert self._server is not None
            status = await self._server.wait()
            self._lose_control()
            self._forget_all()
            orphans = await asyncio.to_thread(kill_orphans)
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
            await self._start_server()

    def _lose_control(self) -> None:
        if self._control is not None:
            loop = asyncio.get_running_loop()
            loop.remove_reader(self._control.fileno())
            loop.remove_writer(self._control.fileno())
            self._control.close()
            self._control = None

    def _forget_all(self) -> None:
        """Every process of a dead fork server is dead: the kernel killed it with its parent."""
        waiting = len(self._unsent)
        unborn = list(self._living)[len(self._living) - waiting :] if waiting else []
        for number in [n for n in self._living if n not in unborn]:
            self._living.pop(number).gone(signal.SIGKILL)
        self._idle.clear()

    # -- idle processes ---------------------------------------------------------------------------------------------

    async def _dismiss_idle(self) -> None:
        zombies: set[int] = set()
        while True:
            await asyncio.sleep(self._idle_s / 4)
            zombies = reap_zombies(zombies)
            limit = self._clock.monotonic() - self._idle_s
            for kind in list(self._idle):
                while kind in self._idle and self._idle[kind][0].idle_since < limit:
                    self._dismiss_first(kind)

    def _dismiss_first(self, kind: Kind) -> None:
        idle = self._idle[kind]
        idle.popleft().dismiss()
        if not idle:
            del self._idle[kind]


def kill_orphans() -> int:
    """Kill the children of this process that lead or belong to other sessions: what a dead fork server left.

    This daemon's own children (git, checks) live in its session and are not touched. Blocking; returns how many.
    """
    session, killed = os.getsid(0), 0
    while True:
        orphans = [pid for pid in fork_server.children(os.getpid()) if _session(pid) not in (session, -1)]
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
