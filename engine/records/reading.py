"""Reads events back from the segments, whose lines recovery has checked. Blocking; called in threads.

Used by the index to catch up and by whoever wants the record of one execution.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

from .. import errors, events
from . import segments

_CHUNK_BYTES = 4 * 1024 * 1024


def extent(directory: Path, segment: int, start: int, end: int) -> Iterator[events.Recorded]:
    """Yield the events of the whole lines between two offsets. Raises ``JournalCorrupt`` if they are not there."""
    path = directory / segments.file_name(segment)
    try:
        with path.open("rb", buffering=0) as file:
            file.seek(start)
            data = file.read(end - start)
    except OSError as error:
        raise errors.JournalCorrupt(f"{path} cannot be read: {error.strerror}", hint="check the disk") from error
    if len(data) != end - start or not data.endswith(b"\n"):
        raise errors.JournalCorrupt(f"{path} has no whole lines in bytes {start} to {end}", hint="rebuild the index")
    yield from segments.recorded(data, segment, start)


def between(directory: Path, segment: int, offset: int, end: tuple[int, int]) -> Iterator[list[events.Recorded]]:
    """Yield all events from ``offset`` of ``segment`` up to ``end`` (segment, offset), in order, in handy portions."""
    for number, path in segments.files(directory):
        if not segment <= number <= end[0]:
            continue
        start = offset if number == segment else 0
        rest = (end[1] if number == end[0] else path.stat().st_size) - start
        with path.open("rb") as file:
            file.seek(start)
            while rest > 0 and (lines := file.readlines(min(rest, _CHUNK_BYTES))):
                data = b"".join(lines)
                yield list(segments.recorded(data, number, start))
                start += len(data)
                rest -= len(data)


def size(directory: Path, end: tuple[int, int], start: tuple[int, int] = (0, 0)) -> int:
    """Return how many bytes lie between two ends (segment, offset) of the journal."""
    whole = 0
    for number, path in segments.files(directory):
        if start[0] <= number < end[0]:
            with contextlib.suppress(FileNotFoundError):  # it was allowed to go
                whole += path.stat().st_size
    return max(0, whole + end[1] - start[1])


def line(directory: Path, segment: int, start: int, end: int) -> bytes:
    """Return the bytes between two offsets, or what there is of them."""
    with contextlib.suppress(OSError), (directory / segments.file_name(segment)).open("rb") as file:
        file.seek(start)
        return file.read(end - start)
    return b""
