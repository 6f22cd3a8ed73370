"""The two pipes of a flow process: what it, and the programs it starts, write to descriptors 1 and 2 themselves.

Driven by the event loop; nothing blocks. Whose the bytes are is told by who listens at the moment they are read, so a
pipe may be held: it is not read until that is known again.
"""

from __future__ import annotations

import asyncio
import os
import select
from collections.abc import Callable

#: Takes what a stream brought; returning False has it wait until ``resume``.
Listener = Callable[[str, bytes], bool]

_READ_BYTES = 64 * 1024
#: What lies in a pipe is not more than this, unless somebody writes all the time.
_READS_MAX = 32


class Pipes:
    """Reads both; ``hear`` gets the bytes."""

    def __init__(self, loop: asyncio.AbstractEventLoop, out: int, err: int, hear: Listener) -> None:
        self._loop = loop
        self._hear = hear
        self._held = False
        self._open = {"stdout": out, "stderr": err}
        self._unwatched: set[str] = set()
        self._written = select.poll()  # asking it costs a quarter of trying to read from empty pipes
        for stream, descriptor in self._open.items():
            loop.add_reader(descriptor, self._readable, stream)
            self._written.register(descriptor, select.POLLIN)

    def hold(self, held: bool) -> None:
        """Read nothing, but for ``drain``; or, with False, all again."""
        self._held = held
        if not held and self._unwatched:
            for stream in list(self._unwatched):
                self.resume(stream)

    def resume(self, stream: str) -> None:
        """Go on reading a stream that waits."""
        if stream in self._unwatched and stream in self._open:
            self._unwatched.discard(stream)
            self._loop.add_reader(self._open[stream], self._readable, stream)

    def drain(self, *, whole: bool = False) -> None:
        """Take what lies in both now; ``whole`` also what was asked to wait."""
        if self._written.poll(0):
            for stream in ("stdout", "stderr"):
                for _ in range(_READS_MAX):
                    if not self._read(stream) or (stream in self._unwatched and not whole):
                        break

    def close(self) -> None:
        """Take what is left, and close them."""
        self.drain(whole=True)
        for descriptor in self._open.values():
            self._loop.remove_reader(descriptor)
            os.close(descriptor)
        self._open.clear()

    def _readable(self, stream: str) -> None:
        if self._held:
            self._unwatch(stream)
        else:
            self._read(stream)

    def _read(self, stream: str) -> bool:
        """Read once; False when there is nothing more for now."""
        descriptor = self._open.get(stream, -1)
        if descriptor < 0:
            return False
        try:
            chunk = os.read(descriptor, _READ_BYTES)
        except BlockingIOError:
            return False
        if not chunk:
            self._loop.remove_reader(descriptor)
            self._written.unregister(descriptor)
            os.close(self._open.pop(stream))
            return False
        if not self._hear(stream, chunk):
            self._unwatch(stream)
        return len(chunk) == _READ_BYTES

    def _unwatch(self, stream: str) -> None:
        self._unwatched.add(stream)
        self._loop.remove_reader(self._open[stream])
