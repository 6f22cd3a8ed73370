"""Whether a finished segment is still what it was when it was sealed: its hash, its seal, and what it goes on from.

The seal holds the SHA-256 of all bytes before it, the first line that of the segment before: a chain over the whole
journal, whose head is enough to prove that nothing of it was changed. Reads the disk, not the page cache. Blocking;
used by ``recovery.verify`` and, slowly, by ``scrub``.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
from collections.abc import Callable
from pathlib import Path

from .. import errors
from . import segments

_CHUNK_BYTES = 256 * 1024
#: Longer than any seal with the end of the line before it.
_END_BYTES = 1024


def problem(path: Path, pause: Callable[[int], None] = lambda read_bytes: None) -> str:
    """Return what is wrong with a sealed segment, empty if nothing is or if it has no seal.

    ``pause`` is called after each portion with its size. Raises ``OSError`` for what cannot be read."""
    with path.open("rb", buffering=0) as file:
        fd = file.fileno()
        size = os.fstat(fd).st_size
        before, seal = _end(file.read, file.seek, size)
        sealed = _decoded(seal)
        if sealed is None:
            return "" if _is_open(path) else f"{path} has no seal at its end"
        if not segments.follows(seal, segments.crc_of(before)):
            return f"{path} is damaged: its seal does not follow the line before it"
        with contextlib.suppress(OSError):  # what the disk holds counts, not what memory remembers of it
            os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
        file.seek(0)
        sha256 = hashlib.sha256()
        rest = size - len(seal)
        while rest and (chunk := file.read(min(rest, _CHUNK_BYTES))):
            sha256.update(chunk)
            rest -= len(chunk)
            pause(len(chunk))
        if sha256.hexdigest() != sealed.sha256:
            return f"{path} is damaged at byte 0: expected content with sha256 {sealed.sha256}"
    return ""


def _end(read: Callable[[int], bytes], seek: Callable[[int], int], size: int) -> tuple[bytes, bytes]:
    """Return the end of the file before its last line, and that line."""
    seek(max(0, size - _END_BYTES))
    end = read(_END_BYTES)
    start = end.rfind(b"\n", 0, -1) + 1
    return end[:start], end[start:]


def _decoded(line: bytes) -> segments.SegmentSealed | None:
    if b'"event":"segment.sealed"' not in line or not line.endswith(b"\n"):
        return None
    try:
        event = segments.decode(line).event
    except errors.JournalCorrupt:
        return None
    return event if isinstance(event, segments.SegmentSealed) else None


def _is_open(path: Path) -> bool:
    """Return whether the segment is the last one, which may be open."""
    files = segments.files(path.parent)
    return not files or files[-1][1].name == path.name
