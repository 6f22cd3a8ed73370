"""One flow process as the daemon sees it: a channel, two pipes, a pidfd.

Everything here is driven by the event loop and nothing blocks. A process is spoken to before it exists: the channel's
buffer holds the first frame until the fork server has made the child. It is killed through its pidfd only, never by
number; its group and its orphans are the fork server's to clear away.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import select
import signal
import socket
from collections import deque
from collections.abc import Callable
from pathlib import Path

from .. import errors
from ..guest import frames

_READ_BYTES = 64 * 1024
#: Frames not yet taken up, after which reading pauses: log lines come without waiting for an answer.
_UNREAD_FRAMES_MAX = 1_000

OutputListener = Callable[[str, bytes], bool]


class FlowProcess:
    """A process that runs executions of one flow at one commit, one at a time."""

    #: How long a killed one may take to vanish before its end is recorded all the same.
    burial_s = 10.0

    def __init__(self, loop: asyncio.AbstractEventLoop, channel: socket.socket, out: int, err: int) -> None:
        self.exited: asyncio.Future[int] = loop.create_future()
        self.pid = 0
        self.python = ""  # of the environment it belongs to
        self.overdrawn = False  # it was killed because it took more memory than it may have
        self.idle_since = 0.0
        self._loop = loop
        self._channel = channel
        self._buffer = bytearray()
        self._frames: deque[bytes] = deque()
        self._outgoing = bytearray()
        self._waiter: asyncio.Future[None] | None = None
        self._closed = ""
        self._behind = False  # frames wait from before the latest ones
        self._pidfd = -1
        self._kill_wanted = False
        self._paused = False
        self._pipes = {"stdout": out, "stderr": err}
        self._written = select.poll()  # asking it costs a quarter of trying to read from empty pipes
        self._listener: OutputListener | None = None
        loop.add_reader(channel.fileno(), self._readable)
        for stream, descriptor in self._pipes.items():
            loop.add_reader(descriptor, self._drain_once, stream)
            self._written.register(descriptor, select.POLLIN)

    # -- what the pool tells it -------------------------------------------------------------------------------------

    def spawned(self, pid: int, pidfd: int) -> None:
        """The child exists."""
        self.pid = pid
        self._pidfd = pidfd
        if self._kill_wanted:
            self.kill()

    def gone(self, status: int, memory: str = "") -> None:
        """The child is dead and buried: ``status`` as from ``waitpid``, ``memory`` as of ``cgroups.why_killed``."""
        self.overdrawn = memory == "limit"
        if not self.exited.done():
            self.exited.set_result(status)
        if self._pidfd >= 0:
            os.close(self._pidfd)
            self._pidfd = -1
        while self._read_channel():
            pass  # its last words, sent before it died
        how = "was killed: no memory was left" if memory == "machine" else how_it_died(status)
        self._close(f"the flow process {how}")

    # -- what supervision uses --------------------------------------------------------------------------------------

    @property
    def alive(self) -> bool:
        """Whether it can take work."""
        return not self._closed and not self._kill_wanted

    def listen(self, listener: OutputListener | None) -> None:
        """Give what it writes to ``listener(stream, bytes)``. Returning False pauses that stream until ``resume``."""
        self._listener = listener

    def resume(self, stream: str) -> None:
        """Go on reading a paused stream."""
        if stream in self._pipes:
            self._loop.add_reader(self._pipes[stream], self._drain_once, stream)

    def drain(self) -> None:
        """Take what was written to both pipes before the latest frame, unless that was done when it came."""
        if self._behind:
            self._drain()

    def send(self, frame: bytes) -> None:
        """Send a frame; silently nothing if the process is gone, which ``receive`` tells."""
        if self._closed:
            return
        if not self._outgoing:
            try:
                sent = self._channel.send(frame)
            except BlockingIOError:
                sent = 0
            except OSError:
                return  # it died: end-of-file on the channel says so
            if sent == len(frame):
                return
            frame = frame[sent:]
            self._loop.add_writer(self._channel.fileno(), self._writable)
        self._outgoing += frame

    async def receive(self) -> bytes:
        """Return the next frame it sent; raises ``EOFError`` when it is gone, with how it died in words."""
        while not self._frames:
            if self._closed:
                raise EOFError(self._closed)
            self._waiter = self._loop.create_future()
            try:
                await self._waiter
            finally:
                self._waiter = None
        if self._paused and len(self._frames) < _UNREAD_FRAMES_MAX / 10 and not self._closed:
            self._paused = False
            self._loop.add_reader(self._channel.fileno(), self._readable)
        return self._frames.popleft()

    def kill(self) -> None:
        """Kill it with all it started. ``exited`` tells when it is done."""
        self._kill_wanted = True
        if self._pidfd >= 0:
            with contextlib.suppress(ProcessLookupError):
                signal.pidfd_send_signal(self._pidfd, signal.SIGKILL)

    def dismiss(self) -> None:
        """Let an idle process leave by itself: it sees the end of its channel."""
        self._kill_wanted = True
        self._close("the flow process was dismissed")

    def locate(self, snapshot: Path) -> str:
        """Return where it finds a snapshot."""
        return str(snapshot)

    # -- the event loop's side --------------------------------------------------------------------------------------

    def _readable(self) -> None:
        """Take what has arrived.

        How the process died comes from the fork server in a moment, so end-of-file alone only stops the reading;
        without a word from there it is all we will ever know.
        """
        received = self._read_channel()
        if received == 0:
            self._loop.remove_reader(self._channel.fileno())
            self._loop.call_later(5, self._close, "the flow process closed its channel")
        elif len(self._frames) > _UNREAD_FRAMES_MAX:
            self._loop.remove_reader(self._channel.fileno())
            self._paused = True

    def _read_channel(self) -> int | None:
        """Read once and return how many bytes; 0 at the end, None if there is nothing for now.

        What lies in the pipes was written by subprocesses before the frames that came now, so it is taken first; unless
        we are behind: then nobody can tell."""
        if self._closed:
            return None
        try:
            chunk = self._channel.recv(_READ_BYTES)
        except BlockingIOError:
            return None
        except OSError:
            return 0
        self._behind = bool(self._frames)
        if not self._behind:
            self._drain()
        self._buffer += chunk
        try:
            self._frames.extend(frames.split(self._buffer))
        except frames.FrameTooLarge as error:
            self.kill()
            self._close(f"the flow process broke the protocol: {error}")
            return None
        self._wake()
        return len(chunk)

    def _writable(self) -> None:
        try:
            sent = self._channel.send(self._outgoing)
        except BlockingIOError:
            return
        except OSError:
            sent = len(self._outgoing)
        del self._outgoing[:sent]
        if not self._outgoing:
            self._loop.remove_writer(self._channel.fileno())

    def _drain(self) -> None:
        """Take what lies in both pipes now."""
        if self._written.poll(0):
            for stream in ("stdout", "stderr"):
                while self._drain_once(stream):
                    pass

    def _drain_once(self, stream: str) -> bool:
        """Read once from a pipe; False when there is nothing more for now."""
        descriptor = self._pipes.get(stream, -1)
        if descriptor < 0:
            return False
        try:
            chunk = os.read(descriptor, _READ_BYTES)
        except BlockingIOError:
            return False
        if not chunk:
            self._loop.remove_reader(descriptor)
            self._written.unregister(descriptor)
            os.close(self._pipes.pop(stream))
            return False
        if self._listener is not None and not self._listener(stream, chunk):
            self._loop.remove_reader(descriptor)
            return False
        return len(chunk) == _READ_BYTES

    def _close(self, reason: str) -> None:
        if self._closed:
            return
        self._closed = reason
        descriptor = self._channel.fileno()
        self._loop.remove_reader(descriptor)
        self._loop.remove_writer(descriptor)
        self._channel.close()
        self._drain()
        for pipe in self._pipes.values():
            self._loop.remove_reader(pipe)
            os.close(pipe)
        self._pipes.clear()
        self._wake()

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)


def make_pipes() -> tuple[socket.socket, socket.socket, tuple[int, int], tuple[int, int]]:
    """Return our channel, the child's channel, and (ours, the child's) for stdout and for stderr.

    Raises ``NotAccepting`` when this host has no descriptors left.
    """
    try:
        ours, theirs = socket.socketpair()
        out, err = os.pipe(), os.pipe()
    except OSError as error:
        raise errors.NotAccepting(f"no flow process can be made: {error}", hint="raise LimitNOFILE") from error
    ours.setblocking(False)
    os.set_blocking(out[0], False)
    os.set_blocking(err[0], False)
    return ours, theirs, out, err


def how_it_died(status: int) -> str:
    """Say what a wait status means."""
    if status < 0:
        return "could not be started"
    if os.WIFSIGNALED(status):
        return f"was killed by {signal.Signals(os.WTERMSIG(status)).name}"
    return f"exited by itself with status {os.WEXITSTATUS(status)}"
