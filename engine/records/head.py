"""How far the journal has come, written down outside of it: the file ``HEAD`` of the state directory.

A journal that lost its end at a record's boundary, that was restored from an older copy or that lies on the wrong
volume is sound in itself. Only something kept elsewhere can tell. ``HEAD`` holds the last known end, and only ends that
were durable: a journal that does not reach it went backwards, and ``check`` refuses it.

The file is two slots of one page each, written alternately: whatever a crash leaves of the one being written, the other
is whole. Blocking; ``marking`` calls it off the event loop, so that no acknowledgement ever waits for it.
"""

from __future__ import annotations

import contextlib
import os
import zlib
from pathlib import Path

import msgspec

from .. import durable, errors
from . import segments
from .segments import Position

FILE_NAME = "HEAD"
#: A page each: writing one slot never makes the disk touch the other.
SLOT_BYTES = 4096
_CHECK_BYTES = len(b',"check":"00000000"}\n')
_CRC_BYTES = len(b',"crc":"00000000"}\n')
_ACCEPT = "find out why; `headrace up --accept-loss` goes on with what is there, and what is missing is gone"


class Mark(msgspec.Struct, frozen=True):
    """An end of the journal ``instance`` that is durable; of two marks the one with the greater ``count`` is newer."""

    count: int
    instance: str
    segment: int
    offset: int
    seq: int
    crc: str  # of the line that ends at ``offset``


class Head:
    """The one writer of a ``HEAD`` file. Not for two threads at once."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._fd = -1
        self._count = 0

    def write(self, instance: str, position: Position) -> None:
        """Put ``position``, which is durable, into the older slot; durable on return. Raises ``OSError``.

        If we die before, the newer slot is as it was. After an error the file is made anew at the next call: what a
        failed fsync left in memory proves nothing, so it is not synced again."""
        self._count += 1
        mark = Mark(self._count, instance, position.segment, position.offset, position.seq, f"{position.crc:08x}")
        if self._fd < 0:
            self._begin(mark)
            return
        try:
            _put(self._fd, mark)
        except OSError:
            self.close()
            raise

    def _begin(self, mark: Mark) -> None:
        """Make the file with ``mark`` alone in it; under its name it is never half-made."""
        with contextlib.suppress(errors.HistoryLost):  # what cannot be read is replaced
            before = read(self._path)
            mark = msgspec.structs.replace(mark, count=max(mark.count, before.count + 1 if before else 1))
        self._count = mark.count
        temporary = self._path.with_name(f"{self._path.name}.tmp")
        fd = os.open(temporary, os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        try:
            _put(fd, mark)
            temporary.rename(self._path)
            durable.names(self._path.parent)
        except OSError:
            os.close(fd)
            with contextlib.suppress(OSError):
                temporary.unlink()
            raise
        self._fd = fd

    def close(self) -> None:
        """Let go of the file; harmless when it is done already."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1


def read(path: Path) -> Mark | None:
    """Return the newest mark, or None if there is no file. Raises ``HistoryLost`` if no slot of it is whole."""
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        return None
    except OSError as error:
        raise errors.HistoryLost(f"{path} cannot be read: {error.strerror}", hint=_ACCEPT) from error
    marks = [mark for start in (0, SLOT_BYTES) if (mark := _decode(data[start : start + SLOT_BYTES])) is not None]
    if not marks:
        raise errors.HistoryLost(
            f"{path} is damaged, so nobody knows how far the journal had come",
            hint="check the disk; `headrace up --accept-loss` goes on with the records that are there",
        )
    return max(marks, key=lambda mark: mark.count)


def check(directory: Path, instance: str, position: Position, mark: Mark) -> None:
    """Raise ``HistoryLost`` unless the sound journal in ``directory``, which ends at ``position``, holds ``mark``."""
    if not position.segment:
        raise _lost(f"{directory} holds no records, and the journal had {mark.seq:,} of them", "the records are gone")
    if instance != mark.instance:
        raise _lost(
            f"{directory} is of the journal {instance[:8]}, the records that were here were of {mark.instance[:8]}",
            "another volume, or another daemon's records",
        )
    if position.seq < mark.seq:
        raise _lost(
            f"the records in {directory} end with seq {position.seq:,}, and seq {mark.seq:,} was on disk",
            f"{mark.seq - position.seq:,} records are missing: an older copy, or a lost end",
        )
    path = directory / segments.file_name(mark.segment)
    if path.exists() and _crc_before(path, mark.offset) != mark.crc:
        raise _lost(
            f"the records in {directory} have another history from seq {mark.seq:,} on", "an older copy that went on"
        )


def _lost(found: str, meaning: str) -> errors.HistoryLost:
    return errors.HistoryLost(f"history went backwards: {found} ({meaning}); nothing was changed", hint=_ACCEPT)


def _crc_before(path: Path, offset: int) -> str:
    """Return the checksum of the line that ends at ``offset``, as it stands there."""
    with path.open("rb") as file:
        file.seek(max(0, offset - _CRC_BYTES))
        return file.read(_CRC_BYTES).decode("ascii", "replace")[len(',"crc":"') : -len('"}\n')]


def _put(fd: int, mark: Mark) -> None:
    slot = _encode(mark)
    start = mark.count % 2 * SLOT_BYTES
    while slot:
        written = os.pwrite(fd, slot, start)
        slot, start = slot[written:], start + written
    os.fdatasync(fd)


def _encode(mark: Mark) -> bytes:
    text = msgspec.json.encode(mark)[:-1]
    return (b'%b,"check":"%08x"}\n' % (text, zlib.crc32(text))).ljust(SLOT_BYTES)


def _decode(slot: bytes) -> Mark | None:
    text = slot.rstrip(b" ")
    body = text[:-_CHECK_BYTES]
    if text[-_CHECK_BYTES:] != b',"check":"%08x"}\n' % zlib.crc32(body):
        return None
    try:
        return msgspec.json.decode(body + b"}", type=Mark)
    except msgspec.MsgspecError:
        return None
