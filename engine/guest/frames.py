"""Frames between the daemon and a flow process: four bytes of length, big-endian, then one JSON object in UTF-8.

Both ends of the socket use this module. What a flow process sends is outside data to the daemon: lengths are bounded
here, shapes are checked there. No pickle, ever.
"""

from __future__ import annotations

import _socket
import collections
import json
import struct
import threading
from typing import Any

HEADER = struct.Struct(">I")
_VALUE_BYTES_MAX = 64 * 1024 * 1024
#: A value and what stands around it.
FRAME_BYTES_MAX = _VALUE_BYTES_MAX + 1024 * 1024
#: Made once: ``json.dumps`` would make one for each frame.
_ENCODER = json.JSONEncoder(ensure_ascii=False, allow_nan=False, separators=(",", ":"))
#: And this: ``json.loads`` looks for other encodings and for white space first.
_scan = json.JSONDecoder().scan_once  # type: ignore[attr-defined] # json/decoder.py makes it
_RECEIVE_BYTES = 256 * 1024
#: The frame that acknowledges a notice; no other one is written so.
NOTICED = b'{"noticed":true}'
#: A start that lies in the queue of a process is one message of a SOCK_SEQPACKET socket: a number, as ``HEADER`` has
#: it, and the start, of so many bytes at most. By default the kernel keeps more than 16 such for a socket.
START_BYTES_MAX = 4 * 1024
#: What lies there in place of a longer one, which comes over the channel when the process asks for it.
OVER_THE_CHANNEL = b'{"over":"channel"}'


class ChannelClosed(Exception):
    """The other side is gone."""


class FrameTooLarge(Exception):
    """A frame over the limit; the message says how large."""


def encode(frame: dict[str, Any]) -> bytes:
    """Return the bytes of ``frame``; raises ``FrameTooLarge``, ``TypeError`` or ``ValueError`` for what is not JSON.

    Text that UTF-8 cannot hold (lone surrogates) is replaced by question marks rather than refused: it comes from file
    names and broken input, and the record should show the rest.
    """
    return pack(_text(frame))


def encode_value(value: Any) -> bytes:
    """Return the JSON text of a value that is to stand in a frame; raises as ``encode`` does."""
    text = _text(value)
    if len(text) > _VALUE_BYTES_MAX:
        raise FrameTooLarge(f"{len(text):,} bytes, the limit is {_VALUE_BYTES_MAX:,}")
    return text


def encode_with(frame: dict[str, Any], name: str, text: bytes) -> bytes:
    """Return the bytes of ``frame`` with one more member, a value that was encoded before."""
    return pack(b'%b,"%b":%b}' % (_text(frame)[:-1], name.encode(), text))


def _text(value: Any) -> bytes:
    return _ENCODER.encode(value).encode("utf-8", "replace")


def decode(text: bytes) -> dict[str, Any]:
    """Return what the daemon wrote."""
    frame: dict[str, Any] = _scan(text.decode(), 0)[0]
    return frame


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
    """The flow process's end: plain blocking reads and writes on its one socket.

    The handler's thread reads; any thread may send, and wait for the acknowledgement of what it sent. One thread at a
    time reads from the socket, and hands to the others what came for them.
    """

    def __init__(self, connection: _socket.socket) -> None:
        self._connection = connection
        self._sending = threading.Lock()  # a flow's threads may print while its handler calls
        self._buffer = bytearray()
        self._ready: collections.deque[bytes] = collections.deque()
        self._turn = threading.Condition()  # over all below
        self._reader = 0  # the thread that reads from the socket now
        self._asked = 0  # acknowledgements that were asked for
        self._confirmed = 0  # and those that came

    def send(self, frame: dict[str, Any]) -> None:
        """Send ``frame``; raises as ``encode`` does, and ``ChannelClosed``."""
        self.send_encoded(encode(frame))

    def send_encoded(self, data: bytes) -> None:
        """Send the bytes of a frame; raises ``ChannelClosed``."""
        try:
            with self._sending:
                self._connection.sendall(data)
        except OSError as error:
            raise ChannelClosed(str(error)) from None

    def poll(self) -> dict[str, Any] | None:
        """Return the next frame if it is there; raises ``ChannelClosed``."""
        with self._turn:
            while not self._ready:
                if self._reader or not self._read(_socket.MSG_DONTWAIT):
                    return None
            return self._first()

    def receive(self) -> dict[str, Any]:
        """Return the next frame, waiting for it; raises ``ChannelClosed``."""
        with self._turn:
            while not self._ready:
                self._read_or_wait()
            return self._first()

    def confirm(self, frame: dict[str, Any]) -> None:
        """Send ``frame`` and return when the daemon has acknowledged it; from any thread. Raises ``ChannelClosed``.

        Only a signal's handler that interrupted this thread while it was reading does not wait: it would take away what
        the interrupted read is waiting for.
        """
        with self._turn:
            self._asked += 1
            mine = self._asked
        self.send(frame)
        with self._turn:
            while self._confirmed < mine and self._reader != threading.get_ident():
                self._read_or_wait()

    def _read_or_wait(self) -> None:
        """Read, or wait for what another thread reads."""
        if self._reader in (0, threading.get_ident()):
            self._read()
        else:
            self._turn.wait()

    def _read(self, flags: int = 0) -> bool:
        """Take in what the socket has next, the turn given up meanwhile; False if there is nothing for now."""
        interrupted, self._reader = self._reader, threading.get_ident()
        self._turn.release()
        try:
            chunk = self._connection.recv(_RECEIVE_BYTES, flags)
        except BlockingIOError:
            return False
        except OSError as error:
            raise ChannelClosed(str(error)) from None
        finally:
            self._turn.acquire()
            self._reader = interrupted
            self._turn.notify_all()
        if not chunk:
            raise ChannelClosed("the daemon closed the channel")
        self._buffer += chunk
        for text in split(self._buffer):
            if text == NOTICED:
                self._confirmed += 1
            else:
                self._ready.append(text)
        return True

    def _first(self) -> dict[str, Any]:
        return decode(self._ready.popleft())
