"""The open end of the journal on disk: one file that grows, is sealed, and is followed by the next.

Blocking; used by one thread at a time (the journal's writer). It keeps the promise that a line is either whole and
durable or not there: what could not be written whole is cut off again. ``DiskRefused`` means that nothing has changed
and trying again later can help; ``JournalFailed`` means that nobody knows what is on disk, and that this object must
not be used again: after a failed fsync the kernel forgets which pages were bad, so a second one proves nothing.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
from pathlib import Path

import msgspec
import structlog

from .. import durable, errors
from . import segments
from .segments import Position

log = structlog.get_logger()

#: Answers of a write that leave the file as it was once the rest is cut off: no room, or a bad block.
_REFUSALS = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.EFBIG})
#: The same for making a file; running out of descriptors passes, too.
_REFUSALS_OPENING = _REFUSALS | {errno.EMFILE, errno.ENFILE}
#: So much is hashed at a time: the interpreter is let go for that, and to get it back from a busy event loop costs
#: more than to hash a batch.
_HASHED_BYTES = 256 * 1024


class DiskRefused(Exception):
    """The disk did not take it; the journal is as it was before."""


def write_all(fd: int, data: bytes) -> None:
    """Write every byte of ``data``. A disk that fills up says so by a short write first, an error only then."""
    rest = memoryview(data)
    while rest:
        rest = rest[os.write(fd, rest) :]


class Tail:
    """The segment at the end of the journal. ``fd`` is -1 while there is none to append to."""

    def __init__(self, directory: Path, instance: str) -> None:
        self._directory = directory
        self._instance = instance
        self._fd = -1
        self._offset = 0
        self._first_seq = 1
        self._sha256 = hashlib.sha256()
        self._unhashed = bytearray()  # what is durable and not in there yet
        #: Of the segment before the open one, as its seal says: the head of the chain. Any thread may read it.
        self.sealed_sha256 = segments.NO_SHA256

    def resume(self, position: Position, first_seq: int, sha256: hashlib._Hash, previous_sha256: str) -> None:
        """Go on at the end of a segment that recovery left whole and unsealed."""
        self.sealed_sha256 = previous_sha256
        self._fd = os.open(self._directory / segments.file_name(position.segment), os.O_WRONLY | os.O_APPEND)
        self._offset = position.offset
        self._first_seq = first_seq
        self._sha256 = sha256

    def resume_sealed(self, sha256: str) -> None:
        """Go on after a sealed segment that has no follower yet; ``sha256`` is what its seal says."""
        self.sealed_sha256 = sha256

    @property
    def is_open(self) -> bool:
        """Whether lines can be appended; if not, ``open_next`` comes first."""
        return self._fd >= 0

    def write(self, data: bytes) -> None:
        """Append whole lines; they are durable on return. If we die before, some or all of them may be there.

        Call ``digest`` with the same bytes before anything else."""
        try:
            write_all(self._fd, data)
        except OSError as error:
            self._cut_back(error)
        self._sync()
        self._offset += len(data)

    def digest(self, data: bytes) -> None:
        """Take ``data``, now durable, into the segment's hash, which is complete when that is sealed: apart from
        ``write``, as somebody waits for that."""
        self._unhashed += data
        if len(self._unhashed) >= _HASHED_BYTES:
            self._hash()

    def _hash(self) -> None:
        self._sha256.update(self._unhashed)
        self._unhashed.clear()

    def _cut_back(self, error: OSError) -> None:
        if error.errno not in _REFUSALS:
            raise _failed("write to", error) from error
        try:
            os.ftruncate(self._fd, self._offset)
        except OSError as second:
            raise _failed("cut a half-written batch off", second) from error
        self._sync()
        raise DiskRefused(os.strerror(error.errno)) from error

    def _sync(self) -> None:
        try:
            os.fdatasync(self._fd)
        except OSError as error:
            raise _failed("fdatasync", error) from error

    def seal(self, position: Position, at: bytes) -> Position:
        """Finish the segment for good and return the new end. If we die after, recovery finds it sealed."""
        self._hash()
        sha256 = self._sha256.hexdigest()
        seal = segments.SegmentSealed(count=position.seq - self._first_seq + 1, sha256=sha256)
        seq = position.seq + 1
        line, crc = segments.compose(seq, seq, at, msgspec.json.encode(seal), position.crc)
        self.write(line)
        with contextlib.suppress(OSError):  # a courtesy to people; the seal is what counts
            os.fchmod(self._fd, 0o400)
        self.close()
        self.sealed_sha256 = sha256
        log.info("segment.sealed", segment=position.segment, seq=seq, count=seal.count, sha256=sha256)
        return Position(position.segment, position.offset + len(line), seq, crc)

    def open_next(self, position: Position, at: bytes) -> Position:
        """Begin the segment after ``position`` and return the new end.

        The file gets its name when its first line is durable: if we die before, only a ``.tmp`` is left."""
        segment = position.segment + 1
        opened = segments.SegmentOpened(
            format=segments.FORMAT,
            instance=self._instance,
            segment=segment,
            previous_crc=f"{position.crc:08x}",
            previous_sha256=self.sealed_sha256,
        )
        seq = position.seq + 1
        line, crc = segments.compose(seq, seq, at, msgspec.json.encode(opened), position.crc)
        path = self._directory / segments.file_name(segment)
        temporary = path.with_suffix(".tmp")
        try:
            fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_APPEND, 0o600)
        except OSError as error:
            raise _refused_or_failed(error) from error
        try:
            write_all(fd, line)
        except OSError as error:
            os.close(fd)
            with contextlib.suppress(OSError):
                temporary.unlink()
            raise _refused_or_failed(error) from error
        try:
            os.fdatasync(fd)
            temporary.rename(path)
            durable.names(self._directory)
        except OSError as error:
            os.close(fd)
            raise _failed("open a new segment in", error) from error
        self._fd = fd
        self._offset = len(line)
        self._first_seq = seq
        self._sha256 = hashlib.sha256(line)
        return Position(segment, len(line), seq, crc)

    def close(self) -> None:
        """Let go of the file. Everything written was durable before."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1


def _refused_or_failed(error: OSError) -> Exception:
    if error.errno in _REFUSALS_OPENING:
        return DiskRefused(os.strerror(error.errno or 0))
    return _failed("open a new segment in", error)


def _failed(verb: str, error: OSError) -> errors.JournalFailed:
    return errors.JournalFailed(
        f"the journal could not {verb} its file: {error.strerror}",
        hint="look at the disk and the kernel's log; a restart recovers what was durable",
    )
