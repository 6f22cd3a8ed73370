"""Values too large for a line of the journal: files named by the SHA-256 of what is in them.

A blob is durable before the event that names it is appended, and is never changed. Putting the same value again costs
a look at the disk, and makes it as young as a new one: what is old and named by no line is removed (``sweeping``).
Blocking; call it off the event loop.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import secrets
import threading
import time
from collections.abc import Iterator
from pathlib import Path

from .. import durable, errors, events
from . import tail

_NO_ROOM = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})


class Blobs:
    """The blobs below ``directory``: ``ab/cd/abcd…``."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._turn = threading.Lock()  # a blob is found again, or removed

    def put(self, text: bytes) -> events.Blob:
        """Keep ``text`` and return its reference; it is durable on return. Raises ``NotAccepting`` on a full disk.

        If we die before, nothing refers to what may be left: at most a file named ``*.tmp``."""
        blob = events.Blob(hashlib.sha256(text).hexdigest(), len(text))
        path = self._path(blob)
        try:
            if not self._holds(path, text):
                self._write(path, text)
        except OSError as error:
            if error.errno not in _NO_ROOM:
                raise
            raise errors.NotAccepting(f"no room to keep {len(text):,} bytes", hint="free disk space") from error
        # Also what was found: whoever put it may have died before it was durable.
        for directory in (path.parent, path.parent.parent, self._directory, self._directory.parent):
            durable.names(directory)
        return blob

    def writer(self) -> Writer:
        """Begin a value that comes in pieces."""
        self._directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        return Writer(self, self._directory / f"{secrets.token_hex(8)}.tmp")

    def take(self, temporary: Path, blob: events.Blob) -> None:
        """Move a file that is complete and durable to where ``blob`` says; durable on return."""
        path = self._path(blob)
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        with self._turn:
            temporary.replace(path)
        for directory in (path.parent, path.parent.parent, self._directory, self._directory.parent):
            durable.names(directory)

    def get(self, blob: events.Blob) -> bytes:
        """Return what was put. Raises ``NotFound`` if it is gone, ``JournalCorrupt`` if it has changed."""
        path = self._path(blob)
        try:
            text = path.read_bytes()
        except FileNotFoundError:
            raise errors.NotFound(
                f"the value {blob.sha256} ({blob.bytes:,} bytes) is not among the blobs",
                hint=f"restore {path} from a backup",
            ) from None
        if hashlib.sha256(text).hexdigest() != blob.sha256:
            raise errors.JournalCorrupt(
                f"{path} is damaged: its content does not have the hash in its name", hint="restore it from a backup"
            )
        return text

    def files(self) -> Iterator[tuple[str, Path]]:
        """Yield all blobs, by the hash in their names."""
        for path in self._directory.glob("[0-9a-f][0-9a-f]/[0-9a-f][0-9a-f]/" + "[0-9a-f]" * 64):
            yield path.name, path

    def left_over(self) -> Iterator[Path]:
        """Yield what a writer has not finished, or never will."""
        yield from self._directory.glob("*.tmp")
        yield from self._directory.glob("*/*/*.tmp")

    def discard(self, path: Path, mtime_ns: int) -> bool:
        """Remove a blob unless it was put again after ``mtime_ns``; returns whether it is gone."""
        with self._turn, contextlib.suppress(OSError):
            if path.stat().st_mtime_ns == mtime_ns:
                path.unlink()
                return True
        return False

    def _path(self, blob: events.Blob) -> Path:
        return self._directory / blob.sha256[:2] / blob.sha256[2:4] / blob.sha256

    def _holds(self, path: Path, text: bytes) -> bool:
        """Return whether the file is there and good, durable then: putting a value again also mends a damaged one."""
        with contextlib.suppress(FileNotFoundError), path.open("rb") as file:
            if file.read() == text:
                with self._turn:
                    now = time.time_ns()  # the kernel's own idea of now is 4 ms old
                    os.utime(path, ns=(now, now))  # not gone meanwhile, and young from now on
                os.fdatasync(file.fileno())
                return True
        return False

    def _write(self, path: Path, text: bytes) -> None:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        # A name of its own: two threads may put the same value at once.
        temporary = path.with_name(f"{path.name}.{secrets.token_hex(4)}.tmp")
        fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o400)
        try:
            tail.write_all(fd, text)
            os.fdatasync(fd)
            with self._turn:
                temporary.replace(path)
        except OSError:
            with contextlib.suppress(OSError):
                temporary.unlink()
            raise
        finally:
            os.close(fd)


class Writer:
    """A value that comes in pieces: kept after ``finish``, forgotten after ``abort``. Raises ``NotAccepting`` when
    the disk is full."""

    def __init__(self, store: Blobs, temporary: Path) -> None:
        self._store = store
        self._temporary = temporary
        self._fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o400)
        self._hash = hashlib.sha256()
        self._bytes = 0

    def write(self, chunk: bytes) -> None:
        """Add bytes."""
        try:
            tail.write_all(self._fd, chunk)
        except OSError as error:
            raise self._refused(error) from error
        self._hash.update(chunk)
        self._bytes += len(chunk)

    def finish(self) -> events.Blob:
        """Make it durable and return its reference."""
        blob = events.Blob(self._hash.hexdigest(), self._bytes)
        try:
            os.fdatasync(self._fd)
        except OSError as error:
            raise self._refused(error) from error
        self._close()
        self._store.take(self._temporary, blob)
        return blob

    def abort(self) -> None:
        """Forget it; harmless after ``finish``."""
        self._close()
        with contextlib.suppress(OSError):
            self._temporary.unlink()

    def _close(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def _refused(self, error: OSError) -> Exception:
        if error.errno in _NO_ROOM:
            return errors.NotAccepting(f"no room to keep {self._bytes:,} bytes", hint="free disk space")
        return error
