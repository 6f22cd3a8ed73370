"""The fork server: a small single-threaded process that makes flow processes and buries them.

It is exec'd by the daemon, so it holds none of the daemon's sockets, locks, threads or journal; its hash seed is fixed,
so sets and dicts iterate the same way when a flow is run again. It runs no flow code itself.

    daemon -> server   {"spawn": N, "limits": {…}, "cell": C} with descriptors: channel, stdout, stderr, and a queue of
                       starts, unless these come over the channel
    server -> daemon   {"spawned": N, "pid": P} with one descriptor: a pidfd of the child
                       {"exited": N, "status": S, "orphans": K, "memory": W}

Nothing outlives its execution. A flow process leads its own session and collects its orphans (it is a subreaper). When
it ends, what it left behind comes to this server: first its process group is killed while its zombie still holds the
number, then everybody in its cgroup, if it has one (``cell``), then every child nobody knows. When the daemon dies,
end-of-file on the control socket kills everything.
"""

from __future__ import annotations

import _signal  # type: ignore[import-not-found] # below ``signal``, which makes names of numbers: 20 pages to copy
import contextlib
import ctypes
import json
import os
import resource
import select
import signal
import socket
import sys
from typing import NoReturn

from . import cgroups, frames, run

MESSAGE_BYTES_MAX = 64 * 1024
_READ_BYTES = 64 * 1024
_PR_SET_PDEATHSIG = 1
_PR_SET_CHILD_SUBREAPER = 36
_libc = ctypes.CDLL(None, use_errno=True)
#: Of the environment of the daemon, or of a node's worker, what flow processes get. Secrets never travel this way.
_PASSED_ON = (
    *("PATH", "HOME", "USER", "LOGNAME", "LANG", "LC_ALL", "TZ", "TMPDIR"),
    *("SSL_CERT_FILE", "SSL_CERT_DIR", "REQUESTS_CA_BUNDLE"),
    *("http_proxy", "https_proxy", "no_proxy", "HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY"),
)


def environment(python: str = "") -> dict[str, str]:
    """Return the variables that flow processes see; with the ``python`` of a virtual environment its programs first.

    A fixed hash seed makes sets iterate alike when a flow is run again after a crash, or offline."""
    given = {name: os.environ[name] for name in _PASSED_ON if name in os.environ}
    if python:
        programs = os.path.dirname(python)
        given |= {"VIRTUAL_ENV": os.path.dirname(programs), "PATH": f"{programs}:{given.get('PATH', os.defpath)}"}
    return given | {"PYTHONHASHSEED": "0", "PYTHONUTF8": "1", "PYTHONDONTWRITEBYTECODE": "1"}


def become_subreaper() -> None:
    """Make orphaned descendants of this process its children, so that it can find and kill them."""
    _libc.prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def children(pid: int) -> list[int]:
    """Return the children of process ``pid``, as the kernel lists them (Linux with CONFIG_PROC_CHILDREN)."""
    found: list[int] = []
    try:
        for thread in os.listdir(f"/proc/{pid}/task"):
            found += [int(child) for child in _read(f"/proc/{pid}/task/{thread}/children").split()]
    except OSError:
        return found
    return found


def _read(path: str) -> bytes:
    """What ``open`` does, by a few calls alone: after each fork every page that a process writes to is copied."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        return b"".join(iter(lambda: os.read(descriptor, _READ_BYTES), b""))
    finally:
        os.close(descriptor)


class ForkServer:
    """The loop: requests from the daemon, deaths of children. These go on as ``process``."""

    def __init__(self, control: socket.socket, process: run.FlowProcess) -> None:
        self._control = control
        self._process = process
        self._flows: dict[int, int] = {}  # pid -> number given by the daemon
        self._cells: dict[int, str] = {}  # of those that have a cgroup of their own
        self._wakeup, writer = socket.socketpair()
        self._wakeup.setblocking(False)
        writer.setblocking(False)
        self._writer = writer
        signal.set_wakeup_fd(writer.fileno(), warn_on_full_buffer=False)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        # A terminal's Ctrl-C and a service's stop are the daemon's to handle; it closes the control socket.
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        signal.signal(signal.SIGTERM, signal.SIG_IGN)

    def serve(self) -> None:
        """Work until the daemon is gone, then leave nothing behind."""
        poll = select.poll()
        poll.register(self._control, select.POLLIN)
        poll.register(self._wakeup, select.POLLIN)
        try:
            while True:
                ready = {descriptor for descriptor, _ in poll.poll()}
                if self._wakeup.fileno() in ready:
                    with contextlib.suppress(BlockingIOError):
                        self._wakeup.recv(4096)
                    self._bury()
                if self._control.fileno() in ready and not self._take_request():
                    return
        finally:
            for pid in self._flows:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            while self._flows:
                self._bury(block=True)

    def _take_request(self) -> bool:
        """Serve one request; False when the daemon is gone."""
        try:
            message, descriptors, _flags, _address = socket.recv_fds(self._control, MESSAGE_BYTES_MAX, 4)
        except ConnectionResetError:  # it died with something of ours unread
            return False
        if not message:
            return False
        request = json.loads(message)
        try:
            self._spawn(request["spawn"], request["limits"], request.get("cell", ""), descriptors)
        except OSError as error:  # no more processes or memory: the daemon must know, and nothing else is lost
            told = {"exited": request["spawn"], "status": -1, "orphans": 0, "error": str(error)}
            self._tell(json.dumps(told).encode())
        finally:
            for descriptor in descriptors:
                os.close(descriptor)
        return True

    def _spawn(self, number: int, limits: dict[str, int], cell: str, descriptors: list[int]) -> None:
        server = os.getpid()
        pid = os.fork()
        if pid == 0:
            _become_flow_process(self._process, server, limits, cell, descriptors)
        self._flows[pid] = number
        if cell:
            self._cells[pid] = cell
        pidfd = os.pidfd_open(pid)
        try:
            self._tell(b'{"spawned":%d,"pid":%d}' % (number, pid), pidfd)
        finally:
            os.close(pidfd)

    def _bury(self, *, block: bool = False) -> None:
        """Collect the dead. A flow process takes its group, and whatever else it left, with it."""
        while True:
            try:
                dead = os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOWAIT | (0 if block else os.WNOHANG))
            except ChildProcessError:
                self._flows.clear()
                return
            if dead is None:
                return
            pid = dead.si_pid
            number = self._flows.get(pid)
            if number is None:
                os.waitpid(pid, 0)
                continue
            # The zombie still holds the number of its group, so this cannot hit a stranger.
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(pid, signal.SIGKILL)
            why = ""
            if cell := self._cells.pop(pid, ""):
                why = cgroups.why_killed(cell)
                cgroups.clear([cell])
            _, status = os.waitpid(pid, 0)
            del self._flows[pid]
            said = (number, status, self._kill_strangers(), why.encode())
            self._tell(b'{"exited":%d,"status":%d,"orphans":%d,"memory":"%b"}' % said)
            if block:
                return

    def _kill_strangers(self) -> int:
        """Kill the children nobody knows: orphans of flow processes. Their own orphans come here in turn."""
        killed: set[int] = set()
        while strangers := [pid for pid in children(os.getpid()) if pid not in self._flows and pid not in killed]:
            for pid in strangers:
                killed.add(pid)
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
                    os.waitpid(pid, 0)
        return len(killed)

    def _tell(self, message: bytes, *descriptors: int) -> None:
        """Send a JSON object. Those of each process are not made by ``json``, for the pages that it writes to."""
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):  # the daemon is gone: the loop will see it
            socket.send_fds(self._control, [message], list(descriptors))


def _become_flow_process(
    process: run.FlowProcess, server: int, limits: dict[str, int], cell: str, descriptors: list[int]
) -> NoReturn:
    """Turn the forked child into a flow process and never return."""
    status = 1
    try:
        os.setsid()
        _libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
        if os.getppid() != server:  # it died before the line above: nobody would ever kill this process
            os._exit(1)
        become_subreaper()
        if cell:
            cgroups.enter(cell, limits.get("tasks", 0))
        connection, starts = _take_descriptors(descriptors)
        _set_limits(limits)
        signal.set_wakeup_fd(-1)
        for number in (_signal.SIGCHLD, _signal.SIGINT, _signal.SIGTERM):
            _signal.signal(number, _signal.SIG_DFL)
        process.connect(connection, starts)
        process.serve(cell)
        status = 0
    except frames.ChannelClosed:
        status = 0
    finally:
        os._exit(status)


def _take_descriptors(descriptors: list[int]) -> tuple[socket.socket, socket.socket | None]:
    """Put the pipes at 1 and 2, the channel at 3, the queue at 4 if there is one, and close everything else but 0."""
    channel, out, err, *queue = (os.dup(descriptor) for descriptor in descriptors)
    for target, source in enumerate((out, err, channel, *queue), 1):
        os.dup2(source, target, inheritable=target < 3)
    os.closerange(4 + len(queue), os.sysconf("SC_OPEN_MAX"))
    starts = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET, fileno=4) if queue else None
    return socket.socket(socket.AF_UNIX, socket.SOCK_STREAM, fileno=3), starts


def _set_limits(limits: dict[str, int]) -> None:
    for name, kind in (("memory_bytes", resource.RLIMIT_AS), ("open_files", resource.RLIMIT_NOFILE)):
        if limits.get(name):
            _, hard = resource.getrlimit(kind)
            soft = limits[name] if hard == resource.RLIM_INFINITY else min(limits[name], hard)
            resource.setrlimit(kind, (soft, hard))


def _share() -> None:
    """Do what is the same for all flow processes, which they would have to do one by one."""
    os.umask(0o077)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    null = os.open(os.devnull, os.O_RDONLY)
    os.dup2(null, 0)
    os.close(null)
    sys.stdin = open(0, encoding="utf-8", closefd=False)  # noqa: SIM115 - lives as long as the process


def main(descriptor: int, process: run.FlowProcess) -> None:
    """Serve the daemon at the other end of the inherited control socket ``descriptor``; children are ``process``."""
    become_subreaper()
    _share()
    ForkServer(socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET, fileno=descriptor), process).serve()
