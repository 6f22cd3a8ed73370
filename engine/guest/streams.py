"""``sys.stdout`` and ``sys.stderr`` of a flow: what is printed goes over the channel, in order with the calls.

Pipes alone could not tell what was printed before a call and what after it. They stay underneath, as descriptors 1 and
2, for subprocesses and for code that writes there directly. A process the flow forks by itself must not speak on the
channel: it gets plain streams on the pipes.
"""

from __future__ import annotations

import codecs
import io
import sys
from typing import Any

from . import frames

#: What is printed at once goes in pieces of this size.
_PIECE_BYTES = 64 * 1024
_DESCRIPTORS = {"stdout": 1, "stderr": 2}


class Printed(io.RawIOBase):
    """The bottom of a text stream: bytes in, frames out."""

    def __init__(self, connection: frames.BlockingFrames, stream: str) -> None:
        self._connection = connection
        self._stream = stream
        self._decoder = codecs.getincrementaldecoder("utf-8")("backslashreplace")

    def writable(self) -> bool:
        """Yes."""
        return True

    def fileno(self) -> int:
        """The pipe's descriptor, for subprocesses that inherit it."""
        return _DESCRIPTORS[self._stream]

    def write(self, data: Any) -> int:
        """Send what was printed; a daemon that is gone is noticed by the next call, not here."""
        view = memoryview(data).cast("B")
        for start in range(0, len(view), _PIECE_BYTES):
            text = self._decoder.decode(view[start : start + _PIECE_BYTES])
            try:
                self._connection.send({"op": "out", "stream": self._stream, "text": text})
            except frames.ChannelClosed:
                break
        return len(view)


Streams = dict[str, io.TextIOWrapper]
_replaced: list[Any] = []


def made(connection: frames.BlockingFrames) -> Streams:
    """Return the streams that speak on the channel, by the names they will have in ``sys``."""
    return _named({name: _text(io.BufferedWriter(Printed(connection, name))) for name in _DESCRIPTORS})


def install(streams: Streams) -> None:
    """Make these the streams of this process. What they replace lives on: its end would take as long as 50 calls."""
    _replaced.extend((sys.stdout, sys.stderr))
    vars(sys).update(streams)


def flush() -> None:
    """Send what is still buffered."""
    for name in _DESCRIPTORS:
        try:
            getattr(sys, name).flush()
        except (OSError, ValueError):
            continue  # the flow closed or replaced it


def plain() -> None:
    """In a process that a flow forked by itself: what is printed goes into the pipes."""
    pipes = {name: open(number, "wb", closefd=False) for name, number in _DESCRIPTORS.items()}  # noqa: SIM115 - for good
    vars(sys).update(_named({name: _text(pipe) for name, pipe in pipes.items()}))


def _text(bottom: io.BufferedWriter) -> io.TextIOWrapper:
    return io.TextIOWrapper(bottom, encoding="utf-8", errors="backslashreplace", line_buffering=True)


def _named(streams: Streams) -> Streams:
    return streams | {f"__{name}__": stream for name, stream in streams.items()}
