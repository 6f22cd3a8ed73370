"""The fork server: a small single-threaded process that makes flow processes and buries them.

It is exec'd by the daemon, so it holds none of the daemon's sockets, locks, threads or journal; its hash seed is fixed,
so sets and dicts iterate the same way when a flow is run again. It runs no flow code itself.

    daemon -> server   ``NUMBER CELL``, the cgroup or nothing, with descriptors: stdout, stderr, the channel, and a
                       queue of starts, unless these come over the channel
    server -> daemon   {"spawned": N, "pid": P} with one descriptor: a pidfd of the child
                       {"exited": N, "status": S, "orphans": K, "memory": W}

Nothing outlives its execution. A flow process leads its own session and collects its orphans (it is a subreaper). When
it ends, what it left behind comes to this server: first its process group is killed while its zombie still holds the
number, then everybody in its cgroup, if it has one (``cell``), then every child nobody knows. When the daemon dies,
end-of-file on the control socket kills everything.

What counts here, and in a flow process until its flow begins, is how many pages are written to: after a fork each of
them is copied, on both sides, and with the reference counts of Python a call or a look at an attribute writes. For a
short execution that was a third of what all of it cost. So few objects are made and few functions are called, and what
can be made before a fork is (``run.rehearsed``). Few modules are loaded, too: each page there is has its entry copied
at each fork and taken apart at each end. ``_socket`` and ``_signal`` are what ``socket`` and ``signal`` are made of,
without their enumerations.
"""

from __future__ import annotations

import _signal  # type: ignore[import-not-found]
import _socket
import contextlib
import ctypes
import fcntl
import functools
import os
import resource
import select
import struct
import sys
import threading
from typing import NoReturn

from . import cgroups, frames, run
from .run import CHANNEL, QUEUE

MESSAGE_BYTES_MAX = 64 * 1024
_REQUEST_BYTES_MAX = 8 * 1024  # the name of a cgroup may be 4 KiB
_READ_BYTES = 64 * 1024
_PR_SET_PDEATHSIG = 1
_PR_SET_CHILD_SUBREAPER = 36
_KILL = _signal.SIGKILL
_RIGHTS = struct.Struct("i")
#: ``os.fork`` would call what modules want done after it: new locks, a new seed. There is one thread here, which holds
#: no lock, and each execution is given its seed.
_fork = ctypes.PyDLL(None, use_errno=True).fork
_prctl = ctypes.CDLL(None, use_errno=True).prctl
_main_thread = threading.main_thread()
# What a child calls before its flow begins. A name of this module is one look, one of another module's five.
_setsid, _getpid, _getppid, _dup2, _closerange = os.setsid, os.getpid, os.getppid, os.dup2, os.closerange
_setrlimit = resource.setrlimit
_unblock_signals = functools.partial(_signal.pthread_sigmask, _signal.SIG_SETMASK, ())
#: What ``setrlimit`` is told: which one, soft and hard.
Limits = list[tuple[int, tuple[int, int]]]
#: No descriptor is above that.
_DESCRIPTORS_MAX = os.sysconf("SC_OPEN_MAX")
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
    _prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def children(pid: int) -> list[int]:
    """Return the children of process ``pid``, as the kernel lists them (Linux with CONFIG_PROC_CHILDREN)."""
    found: list[int] = []
    try:
        for thread in os.listdir(f"/proc/{pid}/task"):
            found += [int(child) for child in run.read(f"/proc/{pid}/task/{thread}/children").split()]
    except OSError:
        return found
    return found


class ForkServer:
    """The loop: requests from the daemon, deaths of children. These go on as ``process``."""

    def __init__(self, control: _socket.socket, limits: dict[str, int], process: run.FlowProcess) -> None:
        self._control = control
        self._limits, self._tasks_max = _soft_limits(limits), limits.get("tasks", 0)
        self._process = process
        self._pid = os.getpid()
        self._flows: dict[int, tuple[int, str, int]] = {}  # by pid: number, cgroup, pidfd
        self._pids: dict[int, int] = {}  # by pidfd
        self._rights_bytes = _socket.CMSG_SPACE(QUEUE * _RIGHTS.size)
        try:
            self._children = os.open(f"/proc/self/task/{self._pid}/children", os.O_RDONLY)
        except OSError:  # a Linux without CONFIG_PROC_CHILDREN
            self._children = -1

    def serve(self) -> None:
        """Work until the daemon is gone, then leave nothing behind."""
        epoll = self._epoll = select.epoll()
        control = self._control.fileno()
        epoll.register(control, select.EPOLLIN)
        try:
            while True:
                for descriptor, _ in epoll.poll(None, 8):
                    if descriptor != control:
                        self._bury(self._pids[descriptor])
                    elif not self._take_request():
                        return
        finally:
            for pid in self._flows:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, _KILL)
            for pid in list(self._flows):
                os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
                self._bury(pid)

    def _take_request(self) -> bool:
        """Serve one request; False when the daemon is gone."""
        try:
            message, rights, _, _ = self._control.recvmsg(_REQUEST_BYTES_MAX, self._rights_bytes)
        except ConnectionResetError:  # it died with something of ours unread
            return False
        if not message:
            return False
        number, _, cell = message.partition(b" ")
        descriptors = memoryview(rights[0][2]).cast("i").tolist() if rights else []
        try:
            self._spawn(int(number), cell.decode(), descriptors)
        except OSError as error:  # no more processes or memory: the daemon must know, and nothing else is lost
            print(f"the fork server cannot make a process: {error}", file=sys.stderr, flush=True)
            self._tell(b'{"exited":%b,"status":-1,"orphans":0}' % number)
        finally:
            for descriptor in descriptors:
                os.close(descriptor)
        return True

    def _spawn(self, number: int, cell: str, descriptors: list[int]) -> None:
        """Make a process. If not all its descriptors came, none was left, and there is none for a pidfd either."""
        pid = _fork()
        if pid == 0:
            _become_flow_process(self._process, self._pid, self._limits, cell, self._tasks_max, descriptors)
        if pid < 0:
            raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
        try:
            pidfd = os.pidfd_open(pid)
            self._epoll.register(pidfd, select.EPOLLIN)
        except OSError:
            os.kill(pid, _KILL)
            os.waitpid(pid, 0)
            raise
        self._flows[pid] = (number, cell, pidfd)
        self._pids[pidfd] = pid
        self._tell(b'{"spawned":%d,"pid":%d}' % (number, pid), pidfd)

    def _bury(self, pid: int) -> None:
        """Collect a dead flow process. It takes its group, and whatever else it left, with it."""
        # The zombie still holds the number of its group, so this cannot hit a stranger.
        try:  # noqa: SIM105 - what suppresses would be made each time
            os.killpg(pid, _KILL)
        except (ProcessLookupError, PermissionError):
            pass
        number, cell, pidfd = self._flows.pop(pid)
        why = ""
        if cell:
            why = cgroups.why_killed(cell)
            cgroups.clear([cell])
        _, status = os.waitpid(pid, 0)
        del self._pids[pidfd]
        self._epoll.unregister(pidfd)  # others hold it as well, so closing it would not
        os.close(pidfd)
        said = (number, status, self._kill_strangers(), why.encode())
        self._tell(b'{"exited":%d,"status":%d,"orphans":%d,"memory":"%b"}' % said)

    def _kill_strangers(self) -> int:
        """Kill the children nobody knows: orphans of flow processes. Their own orphans come here in turn."""
        killed: set[int] = set()
        while strangers := self._strangers() - killed:
            for pid in strangers:
                killed.add(pid)
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, _KILL)
                    os.waitpid(pid, 0)
        return len(killed)

    def _strangers(self) -> set[int]:
        text = b""
        if self._children >= 0:
            while chunk := os.pread(self._children, _READ_BYTES, len(text)):
                text += chunk
        return set(map(int, text.split())) - self._flows.keys()

    def _tell(self, message: bytes, descriptor: int = -1) -> None:
        """Send a JSON object, with a descriptor if there is one."""
        try:
            if descriptor < 0:
                self._control.send(message)
            else:
                rights = _RIGHTS.pack(descriptor)
                self._control.sendmsg([message], [(_socket.SOL_SOCKET, _socket.SCM_RIGHTS, rights)])
        except (BrokenPipeError, ConnectionResetError):
            pass  # the daemon is gone: the loop will see it


def _become_flow_process(
    process: run.FlowProcess, server: int, limits: Limits, cell: str, tasks_max: int, descriptors: list[int]
) -> NoReturn:
    """Turn the forked child into a flow process and never return."""
    status = 1
    try:
        _setsid()
        _prctl(_PR_SET_PDEATHSIG, _KILL, 0, 0, 0)
        if _getppid() != server:  # it died before the line above: nobody would ever kill this process
            os._exit(1)
        _prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
        if cell:
            cgroups.enter(cell, tasks_max)
        out, err, channel, *queue = descriptors
        _dup2(out, 1)
        _dup2(err, 2)
        _dup2(channel, CHANNEL, False)
        if queue:
            _dup2(queue[0], QUEUE, False)
        _closerange(QUEUE + 1 if queue else QUEUE, _DESCRIPTORS_MAX)
        for kind, pair in limits:
            _setrlimit(kind, pair)
        _unblock_signals()
        _main_thread._native_id = _getpid()  # type: ignore[attr-defined] # who debugs it asks
        process.serve(cell, queued=bool(queue))
        status = 0
    except frames.ChannelClosed:
        status = 0
    finally:
        os._exit(status)


def _soft_limits(limits: dict[str, int]) -> Limits:
    """Return what ``setrlimit`` is to be told, so many as there may be."""
    found = []
    for name, kind in (("memory_bytes", resource.RLIMIT_AS), ("open_files", resource.RLIMIT_NOFILE)):
        if limits.get(name):
            _, hard = resource.getrlimit(kind)
            soft = limits[name] if hard == resource.RLIM_INFINITY else min(limits[name], hard)
            found.append((kind, (soft, hard)))
    return found


def prepare(descriptor: int) -> _socket.socket:
    """Return the control socket, and do what is the same for all flow processes and would have to be done by each.

    Its number is above those that a flow process has, where nothing stands yet."""
    become_subreaper()
    os.umask(0o077)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    # A terminal's Ctrl-C and a service's stop are the daemon's to handle; it closes the control socket.
    _signal.pthread_sigmask(_signal.SIG_BLOCK, (_signal.SIGINT, _signal.SIGTERM))
    _signal.signal(_signal.SIGINT, _signal.SIG_DFL)
    _signal.signal(_signal.SIGCHLD, _signal.SIG_DFL)  # who ignores it, which is inherited, has no zombies to look at
    control = fcntl.fcntl(descriptor, fcntl.F_DUPFD_CLOEXEC, QUEUE + 1)
    os.close(descriptor)
    null = os.open(os.devnull, os.O_RDONLY)
    for target in {0, CHANNEL, QUEUE} - {null}:
        os.dup2(null, target, inheritable=target == 0)
    if null not in (0, CHANNEL, QUEUE):
        os.close(null)
    sys.stdin = open(0, encoding="utf-8", closefd=False)  # noqa: SIM115 - lives as long as the process
    return _socket.socket(_socket.AF_UNIX, _socket.SOCK_SEQPACKET, fileno=control)


def main(control: _socket.socket, limits: dict[str, int], process: run.FlowProcess) -> None:
    """Serve the daemon at the other end of ``control``; children are ``process`` and live within ``limits``."""
    ForkServer(control, limits, process).serve()
