"""A flow process on a node, as supervision sees it: the same as one of this machine (``flow_process``).

What it writes comes before what it says, because the node sends it so. It is gone when the node says that it is buried,
or when the node is lost and nothing can go on there any more; until then ``exited`` waits.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import Protocol

import msgspec
import structlog

from ..guest import frames, link
from . import flow_process, protocol

log = structlog.get_logger()

_UNREAD_FRAMES_MAX = 1_000
_STREAMS = {link.OUT: "stdout", link.ERR: "stderr"}


class NodeLost(EOFError):
    """The node is gone, or cannot be reached: that says nothing about the flow."""


class Ready(msgspec.Struct, frozen=True):
    """A process there, and where it finds the snapshot."""

    pid: int
    snapshot: str


class Exited(msgspec.Struct, frozen=True):
    """How it died, as from ``waitpid``."""

    status: int


class Sender(Protocol):
    """The link, as far as this needs it."""

    def pass_on(self, process: RemoteProcess, kind: bytes, content: bytes = b"") -> None:
        """Send a message to a process; nothing if it is not there any more."""


class RemoteProcess:
    """A process that runs one execution on a node."""

    #: Memory there is limited for each process alone: none is killed for what all of them take.
    overdrawn = False

    def __init__(self, sender: Sender, ready: Ready, burial_s: float) -> None:
        self.exited: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        self.pid = ready.pid
        self.snapshot = ready.snapshot
        self.burial_s = burial_s
        self._link = sender
        self._buffer = bytearray()
        self._frames: deque[bytes] = deque()
        self._arrived = asyncio.Event()
        self._room = asyncio.Event()  # there is room for more frames, and nobody asked to wait
        self._room.set()
        self._closed: EOFError | None = None
        self._listener: Callable[[str, bytes], bool] | None = None

    # -- what the link tells it -------------------------------------------------------------------------------------

    async def take(self, kind: bytes, content: bytes) -> None:
        """Take a message; the link waits meanwhile, and so does the node."""
        if kind in _STREAMS:
            if self._listener is not None and not self._listener(_STREAMS[kind], content):
                self._room.clear()
        elif kind == link.CHANNEL and self._closed is None:
            self._buffer += content
            try:
                self._frames.extend(frames.split(self._buffer))
            except frames.FrameTooLarge as error:
                self.kill()
                self._close(EOFError(f"the flow process broke the protocol: {error}"))
            self._arrived.set()
            if len(self._frames) > _UNREAD_FRAMES_MAX:
                self._room.clear()
        await self._room.wait()

    def gone(self, status: int) -> None:
        """It is dead and buried."""
        if not self.exited.done():
            self.exited.set_result(status)
        self._close(EOFError(f"the flow process {flow_process.how_it_died(status)}"))

    def lose(self, why: NodeLost) -> None:
        """The node is lost; ``exited`` follows when nothing can go on there."""
        self._close(why)

    @property
    def is_stopped(self) -> bool:
        """Whether nothing is read from the node because we are behind."""
        return not self._room.is_set()

    # -- what supervision uses --------------------------------------------------------------------------------------

    def listen(self, listener: Callable[[str, bytes], bool] | None) -> None:
        """Give what it writes to ``listener(stream, bytes)``. Returning False pauses until ``resume``."""
        self._listener = listener
        if listener is None:
            self._room.set()

    def resume(self, stream: str) -> None:
        """Go on."""
        self._room.set()

    def start(self, text: bytes) -> None:
        """Have it run what ``protocol.start`` made."""
        self.send(frames.pack(text))

    def send(self, frame: bytes) -> None:
        """Send a frame; silently nothing if the process is gone, which ``receive`` tells."""
        if self._closed is None:
            self._link.pass_on(self, link.CHANNEL, frame)

    async def receive(self) -> protocol.Said:
        """Return what it says next; raises ``EOFError`` when it is gone, with how in words, and ``InvalidRequest`` for
        what it may not say."""
        while not self._frames:
            if self._closed is not None:
                raise self._closed
            self._arrived.clear()
            await self._arrived.wait()
        if len(self._frames) < _UNREAD_FRAMES_MAX / 10:
            self._room.set()
        return protocol.decode(self._frames.popleft())

    def kill(self) -> None:
        """Kill it with all it started. ``exited`` tells when it is done."""
        self._link.pass_on(self, link.KILL)

    def dismiss(self) -> None:
        """It is not needed any more."""
        self.kill()

    def locate(self, snapshot: Path) -> str:
        """Return where it finds the snapshot."""
        return self.snapshot

    def _close(self, why: EOFError) -> None:
        if self._closed is None:
            self._closed = why
        self._arrived.set()
        self._room.set()
