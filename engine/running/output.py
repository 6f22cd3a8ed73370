"""What a flow process writes to its standard streams: taken in pieces, masked, cut at a limit, recorded line by line.

A flood is slowed by its own pipe and cut with a marker, never the daemon.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from .. import events
from ..state import masks

#: What one execution may write to its standard streams before the rest is dropped.
OUTPUT_BYTES_MAX = 10 * 1024 * 1024
#: A line is recorded in pieces of this size if it is longer.
_LINE_BYTES_MAX = 64 * 1024
#: So many bytes of log may be under way to the disk for one execution before it is made to wait.
_UNWRITTEN_BYTES_MAX = 256 * 1024


class Output:
    """The standard streams of one execution. ``record`` writes an event down, ``durable`` waits for the disk."""

    def __init__(
        self,
        execution: str,
        known: masks.Masks,
        record: Callable[[events.LogWritten], None],
        durable: Callable[[], Awaitable[None]],
        resume: Callable[[str], None],
    ) -> None:
        self._execution = execution
        self._record = record
        self._durable = durable
        self._resume_reading = resume
        self._known = known
        self._said: dict[str, tuple[masks.Stream, bytearray]] = {}  # by stream; most never say anything
        self._bytes = 0
        self._unwritten_bytes = 0
        self._resuming: set[asyncio.Task[None]] = set()

    async def written(self, bytes_: int = 0) -> None:
        """Count ``bytes_`` more on their way to the disk, and wait for it if that is too much."""
        self._unwritten_bytes += bytes_
        if self._unwritten_bytes > _UNWRITTEN_BYTES_MAX:
            await self._all_written()

    async def _all_written(self) -> None:
        self._unwritten_bytes = 0
        await self._durable()

    def take(self, stream: str, chunk: bytes) -> bool:
        """Record what came through a pipe; False makes that pipe wait for the disk."""
        self.add(stream, chunk)
        if self._unwritten_bytes <= _UNWRITTEN_BYTES_MAX:
            return True
        loop = asyncio.get_running_loop()
        task = loop.create_task(self._resume(stream), name=f"output of {self._execution}")
        self._resuming.add(task)
        task.add_done_callback(self._resuming.discard)
        return False

    def add(self, stream: str, chunk: bytes) -> None:
        """Record whole lines of what was written."""
        room = OUTPUT_BYTES_MAX - self._bytes
        self._bytes += len(chunk)
        if room <= 0:
            return  # dropped; the marker stands in the record
        if stream not in self._said:
            self._said[stream] = masks.Stream(self._known, _LINE_BYTES_MAX), bytearray()
        clean, pending = self._said[stream]
        full = room <= len(chunk)
        pending += clean.feed(chunk[:room]) + (clean.flush() if full else b"")
        whole = len(pending) if full or len(pending) >= _LINE_BYTES_MAX else pending.rfind(b"\n") + 1
        self._lines(stream, pending, whole)
        if full:
            text = f"output is cut here: an execution may write {OUTPUT_BYTES_MAX:,} bytes"
            self._text(stream, text, level="WARNING")
        self._unwritten_bytes += len(chunk)

    async def _resume(self, stream: str) -> None:
        await self._all_written()
        self._resume_reading(stream)

    def _lines(self, stream: str, pending: bytearray, end: int) -> None:
        for start in range(0, end, _LINE_BYTES_MAX):
            piece = bytes(pending[start : min(start + _LINE_BYTES_MAX, end)])
            self._text(stream, piece.decode("utf-8", "backslashreplace").removesuffix("\n"))
        del pending[:end]

    def _text(self, stream: str, text: str, *, level: str = "") -> None:
        level = level or ("INFO" if stream == "stdout" else "WARNING")
        self._record(events.LogWritten(execution=self._execution, level=level, stream=stream, text=text))

    def end(self) -> None:
        """Record what is left. Whose it was is forgotten, so that both are freed at once."""
        for stream, (clean, pending) in self._said.items():
            pending += clean.flush()
            self._lines(stream, pending, len(pending))
        self._record = self._resume_reading = _nobody


def _nobody(_: object) -> None:
    pass
