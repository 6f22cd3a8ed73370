"""One flow process: takes executions of one flow at one commit, one at a time, and runs their handler.

The flow's own module is executed anew for each execution, so its globals start fresh; modules it imports stay loaded,
which is what makes a warm process quick. After a handler that ended well the process says whether it is clean (no
thread, child process, changed directory or environment left behind). Only then does it take the next execution, which
may lie in its queue already; else it waits for its end.
"""

from __future__ import annotations

import _socket
import fcntl
import linecache
import os
import random
import resource
import sys
import termios
import threading
import time
import traceback
import types
from typing import Any

from . import cgroups, channel, exceptions, flow_api, frames, imports, logs, running, streams

_GUEST_FOLDER = os.path.dirname(os.path.abspath(__file__))
_MODULE_NAME = "__flow__"
_CO_VARARGS = 0x04  # ``inspect.CO_VARARGS``
_FIONREAD, _NONE = termios.FIONREAD, bytes(4)  # how many bytes lie there, as an int of C
_READ_BYTES = 64 * 1024
_HEADER_BYTES = frames.HEADER.size
_MESSAGE_BYTES_MAX = _HEADER_BYTES + frames.START_BYTES_MAX
#: What tracebacks call a flow that came as text.
_SCRIPT_NAME = "script.py"
#: A process that grew by more than this while running one execution does not stay.
_GROWTH_KB_MAX = 64 * 1024

_REHEARSAL = """
def handler(system, this, inputs):
    this.log('rehearsal')
    return inputs
"""


#: The descriptors of a flow process above the three that every process has.
CHANNEL, QUEUE = 3, 4
#: What ``_descriptors`` finds in a new process that has all of them, the listing's own included.
_ALL_OPEN = {str(number) for number in range(QUEUE + 2)}


def rehearsed(times: int = 10) -> FlowProcess:
    """Return what a flow process needs, made in the fork server before anything is forked, after it has run an
    execution of nothing several times.

    The interpreter adapts code while it runs. Done here it is done once; done in every child it would cost each of them
    the time, and a copy of the pages that the code and these objects lie in.

    It speaks on the descriptor ``CHANNEL`` and is told on ``QUEUE`` what to run: whatever a child puts there.
    """
    ours, theirs = _socket.socketpair()
    queue, starts = _socket.socketpair(_socket.AF_UNIX, _socket.SOCK_SEQPACKET)
    os.dup2(ours.fileno(), CHANNEL, inheritable=False)
    os.dup2(queue.fileno(), QUEUE, inheritable=False)
    connection = frames.BlockingFrames(_socket.socket(_socket.AF_UNIX, _socket.SOCK_STREAM, fileno=CHANNEL))
    taken = _socket.socket(_socket.AF_UNIX, _socket.SOCK_SEQPACKET, fileno=QUEUE)
    process = FlowProcess(connection, starts=taken)
    process.prepare()
    process.stand_on(os.sep, compile(_REHEARSAL, "rehearsal", "exec"))
    start = frames.HEADER.pack(0) + b'{"path":"rehearsal","execution":{"id":"0","input_value":{}}}'
    for _ in range(times):
        starts.send(start)
        frame = process._next()
        process._starts = None  # nobody would settle what lies in the daemon's own pipes
        process.run(frame)
        process._starts = taken
        _lies_in_pipes()
        theirs.recv(65536)
    for end in (ours, theirs, queue, starts):
        end.close()
    sys.modules.pop(_MODULE_NAME)
    process.renew()
    return process


class FlowProcess:
    """The state of this process: what it serves and what it looked like when it was fresh.

    It speaks over ``connection`` (a replay has its own ``way`` of that); what to run lies in the queue ``starts``, or
    comes over the connection as well. What its flows print goes there too, unless it does not ``capture`` that."""

    def __init__(
        self,
        connection: frames.BlockingFrames,
        way: channel.Channel | None = None,
        *,
        starts: _socket.socket | None = None,
        capture: bool = True,
    ) -> None:
        self._connection = connection
        self._starts = starts
        self._channel = way or channel.Channel(connection)
        self._logs = logs.Logs(self._channel)
        self._streams = streams.made(connection) if capture else {}
        self._finder = imports.SnapshotFinder()
        self._snapshot = ""
        self._settling = False
        self._code: types.CodeType | None = None
        self._environment = _environment().copy()
        self._peak_kb = 0
        self._descriptors: set[str] = set()

    def prepare(self) -> None:
        """Do what need not be done in each process. Only a fork by a flow itself calls what is registered for it."""
        self._finder.install()
        if self._streams:
            os.register_at_fork(after_in_child=streams.plain)
        os.register_at_fork(after_in_child=self._forget_channel)

    def renew(self) -> None:
        """Be as it was made."""
        self._snapshot, self._code = "", None
        self._logs.renew()

    def serve(self, cell: str = "", *, queued: bool = False) -> None:
        """Run executions until the daemon closes the channel; ``cell`` is the cgroup of this process, if it has one,
        and without being ``queued`` they come over the channel."""
        if not queued:
            self._starts = None
        streams.install(self._streams)
        self._peak_kb = _peak_kb()  # not in the fork server: a program inherits that of what started it
        self._descriptors = _ALL_OPEN if queued else _descriptors()
        self._channel.watch.install(self._before_child)
        try:
            while True:
                frame = self._next()
                if not self._snapshot:
                    self._finder.root = frame["snapshot"]
                    self.stand_on(frame["snapshot"])
                    _limit_memory(frame.get("max_memory", 0), cell)
                if not self.run(frame):
                    self._starts = None  # whoever waits there goes to another process; here comes only the end
        except frames.ChannelClosed:
            return

    def _next(self) -> dict[str, Any]:
        """Return what to run next, waiting for it; raises ``ChannelClosed``.

        Whoever takes a start out of the queue, this process or the daemon, has it alone: the daemon may take it back
        until then."""
        if self._starts is not None:
            message = self._starts.recv(_MESSAGE_BYTES_MAX)
            if not message:
                raise frames.ChannelClosed("the daemon closed the queue")
            text = message[_HEADER_BYTES:]
            if text != frames.OVER_THE_CHANNEL:
                return frames.decode(text)
            self._connection.send({"op": "begin"})
        while "cancel" in (frame := self._connection.receive()):
            pass  # too late: that execution has ended
        return frame

    def _before_child(self) -> None:
        """Let what was printed before a child process starts be taken up before what that writes."""
        if not self._settling:
            self._settling = True  # flushing may start one in turn
            try:
                streams.flush()
                self._channel.settle()
            except frames.ChannelClosed:
                pass  # the daemon is gone: the next call says so
            finally:
                self._settling = False

    def _forget_channel(self) -> None:
        """In a process that the flow forked by itself: the channel is its parent's."""
        self._settling = True
        self._channel.watch.forget()

    def stand_on(self, snapshot: str, code: types.CodeType | None = None) -> None:
        """Serve the flow of one snapshot from now on; its code is read there unless it is given."""
        self._snapshot = snapshot
        self._code = code
        self._channel.stand_on(snapshot)

    def run(self, frame: dict[str, Any]) -> bool:
        """Run one execution, tell how it ended, and return whether there may be another one here."""
        began_s = time.monotonic()
        os.chdir(self._snapshot)
        self._channel.begin(frame["execution"]["id"], frame.get("replayed", 0))
        self._logs.begin()
        outcome = running.Outcome()
        this = flow_api.Execution(self._channel, frame["execution"], outcome, webhook=frame.get("webhook", False))
        system = flow_api.System(self._channel, this, frame.get("system"))
        random.seed(int(this.id, 36))  # an id's letters are digits of that base
        self._channel.watch.begin(self._snapshot, _SCRIPT_NAME)
        ended, returned = self._handle(frame, system, this, outcome)
        self._channel.watch.end()
        streams.flush()
        if self._starts is not None and _lies_in_pipes():
            self._channel.settle()  # the next one may begin before the daemon hears of this one's end
        dirty, met_cancel = self._dirt(), self._channel.met_cancel
        again = ended["outcome"] == "success" and not dirty and not met_cancel
        ended |= {"dirty": dirty, "met_cancel": met_cancel, "again": again, "took_s": time.monotonic() - began_s}
        whole = frames.encode(ended) if returned is None else frames.encode_with(ended, "returned", returned)
        self._connection.send_encoded(whole)
        return again

    def _handle(
        self, frame: dict[str, Any], system: flow_api.System, this: flow_api.Execution, outcome: running.Outcome
    ) -> tuple[dict[str, Any], bytes | None]:
        """Run the handler and say how it ended, and the JSON text of what it returned, if that is to be kept."""
        try:
            handler = self._load(frame["path"], frame.get("script"))
            inputs = (this.get("input_value"),) if _takes_inputs(handler) else ()
            returned = self._call(handler, (system, this, *inputs))
            if isinstance(returned, types.CoroutineType):
                returned.close()
                raise exceptions.InternalError("a handler is a plain function: take away its async, waiting is free")
        except exceptions.ExecutionCancel:
            return {"op": "ended", "outcome": "cancelled"}, None
        except exceptions.ContinueAsNew:
            return {"op": "ended", "outcome": "continued"}, None
        except BaseException as error:  # whatever leaves the handler is how it ended: SystemExit and its kin too
            return {"op": "ended", "outcome": "error", "failure": self._failure(error)}, None
        ended: dict[str, Any] = {"op": "ended", "outcome": outcome.marked or "success"}
        if outcome.message is not None:
            ended["message"] = outcome.message
        if returned is None or isinstance(returned, flow_api.Handle):
            return ended, None
        try:
            return ended, frames.encode_value(returned)
        except (TypeError, ValueError, RecursionError, frames.FrameTooLarge) as error:
            text = f"the return value was not kept as output, it cannot be written as JSON: {error}"
            self._channel.log("WARNING", [text], {})
            return ended, None

    def _call(self, handler: Any, arguments: tuple[Any, ...]) -> Any:
        """Call the handler and return what it returns."""
        return handler(*arguments)

    def _load(self, path: str, script: str | None) -> Any:
        """Execute the flow's module afresh and return its handler; ``script`` is its text if it lies in no file."""
        filename = self._snapshot + os.sep + path if script is None else _SCRIPT_NAME
        module = types.ModuleType(_MODULE_NAME)
        module.__file__ = filename
        sys.modules[_MODULE_NAME] = module
        code = self._compiled(filename) if script is None else _compiled_script(script)
        exec(code, module.__dict__)  # noqa: S102 - running flows is what this process is for
        handler = module.__dict__.get("handler")
        if not callable(handler):
            raise exceptions.InternalError(f"{path or 'the script'} has no function called handler")
        return handler

    def _compiled(self, filename: str) -> types.CodeType:
        """Return the code of this process's flow, compiled once."""
        if self._code is None:
            self._code = compile(read(filename), filename, "exec", dont_inherit=True)
        return self._code

    def _failure(self, error: BaseException) -> dict[str, Any]:
        """Describe ``error`` as a flow author wants to see it: their frames only, paths relative to the repository."""
        report = traceback.TracebackException.from_exception(error)
        self._cut(report)
        own = [frame for frame in report.stack if not os.path.isabs(frame.filename)]
        last = own[-1] if own else None
        line = "".join(report.format_exception_only()).strip().splitlines()[-1:] or [type(error).__name__]
        failure = {"type": type(error).__name__, "message": line[0], "traceback": "".join(report.format())}
        if isinstance(error, SyntaxError) and error.filename:
            return {**failure, "file": self._relative(error.filename), "line": error.lineno or 0}
        return {**failure, "file": last.filename, "line": last.lineno or 0} if last else failure

    def _cut(self, report: traceback.TracebackException, depth: int = 0) -> None:
        """Drop this engine's frames, shorten paths; the same for the exceptions it came from."""
        kept = [frame for frame in report.stack if not frame.filename.startswith(_GUEST_FOLDER)]
        for frame in kept:
            _ = frame.line  # read the source line while the file name is still a real one
            frame.filename = self._relative(frame.filename)
        report.stack[:] = kept
        for cause in (report.__cause__, report.__context__):
            if cause is not None and depth < 20:  # a chain longer than that tells nobody more
                self._cut(cause, depth + 1)

    def _relative(self, filename: str) -> str:
        return filename.removeprefix(self._snapshot + os.sep)

    def _dirt(self) -> str:
        """Return what the handler left behind, as words, or nothing if this process is as good as new."""
        if threading.active_count() > 1:
            return "a thread is still running"
        if os.getcwd() != self._snapshot:
            return "the working directory was changed"
        if _environment() != self._environment:
            return "the environment was changed"
        if self._channel.watch.happened:
            if _has_children():
                return "a child process is still there"
            if _descriptors() != self._descriptors:
                return "a file or a connection is still open"
        peak_kb = _peak_kb()
        grown_kb = peak_kb - self._peak_kb
        self._peak_kb = peak_kb
        return "memory grew" if grown_kb > _GROWTH_KB_MAX else ""


def read(path: str) -> bytes:
    """What ``open`` does, with fewer objects."""
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        return b"".join(iter(lambda: os.read(descriptor, _READ_BYTES), b""))
    finally:
        os.close(descriptor)


def _compiled_script(script: str) -> types.CodeType:
    """Compile a flow that came as text, and let tracebacks find its lines."""
    linecache.cache[_SCRIPT_NAME] = (len(script), None, script.splitlines(keepends=True), _SCRIPT_NAME)
    return compile(script, _SCRIPT_NAME, "exec", dont_inherit=True)


def _takes_inputs(handler: Any) -> bool:
    """The accepted forms of a handler are told apart by how many positional arguments it takes: two, or three."""
    if not isinstance(handler, types.FunctionType):
        import inspect  # large, and hardly ever needed

        parameters = inspect.signature(handler).parameters.values()
        return sum(p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD) for p in parameters) >= 3
    code = handler.__code__
    return code.co_argcount >= 3 or bool(code.co_flags & _CO_VARARGS)


def _environment() -> dict[bytes, bytes]:
    """The environment as it is kept under ``os.environ``: reading it through there decodes every value each time,
    which took half of a short execution's time in its process."""
    kept: dict[bytes, bytes] = os.environ._data  # type: ignore[attr-defined]
    return kept


def _limit_memory(bytes_: int, cell: str) -> None:
    """Let an allocation beyond so many bytes fail, here and in each process started here: a ``MemoryError``.

    ``RLIMIT_DATA`` counts what a process has for itself alone, not the libraries it shares with all others. With a
    cgroup all of them together have no more either."""
    if bytes_:
        if cell:
            cgroups.limit_memory(cell, bytes_)
        _, hard = resource.getrlimit(resource.RLIMIT_DATA)
        bytes_ = bytes_ if hard == resource.RLIM_INFINITY else min(bytes_, hard)
        resource.setrlimit(resource.RLIMIT_DATA, (bytes_, bytes_))


def _lies_in_pipes() -> bool:
    """Whether what was written to the streams' pipes has not been read from there yet."""
    try:
        return (fcntl.ioctl(1, _FIONREAD, _NONE), fcntl.ioctl(2, _FIONREAD, _NONE)) != (_NONE, _NONE)
    except OSError:
        return True  # the flow closed one, or has something else there


def _peak_kb() -> int:
    """The most memory this process ever had."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def _descriptors() -> set[str]:
    """What is open. A connection that stayed could be written to in the next execution, and no event would tell."""
    try:
        return set(os.listdir("/proc/self/fd"))
    except OSError:
        return set()  # no /proc here, or no descriptor left to look with


def _has_children() -> bool:
    try:
        os.waitpid(-1, os.WNOHANG)
    except ChildProcessError:
        return False
    return True
