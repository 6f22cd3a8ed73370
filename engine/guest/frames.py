"""Frames between the daemon and a flow process: four bytes of length, big-endian, then one JSON object in UTF-8.

Both ends of the socket use this module. What a flow process sends is outside data to the daemon: lengths are bounded
here, shapes are checked there. No pickle, ever.
"""

from __future__ import annotations

import json
import socket
import struct
import threading
from typing import Any

HEADER = struct.Struct(">I")
#: A value of 64 MiB and what stands around it.
FRAME_BYTES_MAX = 65 * 1024 * 1024
_RECEIVE_BYTES = 256 * 1024


class ChannelClosed(Exception):
    """The other side is gone."""


class FrameTooLarge(Exception):
    """A frame over the limit; the message says how large."""


def encode(frame: dict[str, Any]) -> bytes:
    """Return the bytes of ``frame``; raises ``FrameTooLarge``, ``TypeError`` or ``ValueError`` for what is not JSON.

    Text that UTF-8 cannot hold (lone surrogates) is replaced by question marks rather than refused: it comes from file
    names and broken input, and the record should show the rest.
    """
    text = json.dumps(frame, ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode("utf-8", "replace")
    return pack(text)


def pack(text: bytes) -> bytes:
    """Return ``text`` with its length before it."""
    if len(text) > FRAME_BYTES_MAX:
        raise FrameTooLarge(f"{len(text):,} bytes, the limit is {FRAME_BYTES_MAX:,}")
    return HEADER.pack(len(text)) + text


def split(buffer: bytearray) -> list[bytes]:
    """Take the complete frames off the front of ``buffer`` and return their texts; raises ``FrameTooLarge``."""
    found: list[bytes] = []
    start = 0
    while len(buffer) - start >= HEADER.size:
        (length,) = HEADER.unpack_from(buffer, start)
        if length > FRAME_BYTES_MAX:
            raise FrameTooLarge(f"{length:,} bytes announced, the limit is {FRAME_BYTES_MAX:,}")
        end = start + HEADER.size + length
        if len(buffer) < end:
            break
        found.append(bytes(memoryview(buffer)[start + HEADER.size : end]))
        start = end
    if start:
        del buffer[:start]
    return found


class BlockingFrames:
    """The flow process's end: plain blocking reads and writes on its one socket."""

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection
        self._sending = threading.Lock()  # a flow's threads may print while its handler calls
        self._buffer = bytearray()
        self._ready: list[bytes] = []

    def send(self, frame: dict[str, Any]) -> None:
        """Send ``frame``; raises as ``encode`` does, and ``ChannelClosed``."""
        data = encode(frame)
        try:
            with self._sending:
                self._connection.sendall(data)
        except OSError as error:
            raise ChannelClosed(str(error)) from None

    def poll(self) -> dict[str, Any] | None:
        """Return the next frame if it is there; raises ``ChannelClosed``."""
        while not self._ready:
            try:
                self._take(self._connection.recv(_RECEIVE_BYTES, socket.MSG_DONTWAIT))
            except BlockingIOError:
                return None
            except OSError as error:
                raise ChannelClosed(str(error)) from None
        return self.receive()

    def _take(self, chunk: bytes) -> None:
        if not chunk:
            raise ChannelClosed("the daemon closed the channel")
        self._buffer += chunk
        self._ready = split(self._buffer)

    def receive(self) -> dict[str, Any]:
        """Return the next frame, waiting for it; raises ``ChannelClosed``."""
        while not self._ready:
            try:
                self._take(self._connection.recv(_RECEIVE_BYTES))
            except OSError as error:
                raise ChannelClosed(str(error)) from None
        frame: dict[str, Any] = json.loads(self._ready.pop(0))
        return frame
