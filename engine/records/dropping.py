"""Giving segments back to the disk: what the oldest ones hold, and letting them go for good. Blocking.

A segment may go when nothing in it is needed any more, or what is has been said again at the journal's end. That must
be durable, and so must the line that vouches for a journal without its beginning (``events.SegmentsDropped``), before
``unlink`` is called; the oldest goes first. Recovery believes such a line if its numbers fit, and does what was left
undone. Who decides what is needed is ``running.pruning``.
"""

from __future__ import annotations

import re
import time
from array import array
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import BinaryIO

import msgspec

from .. import durable, errors, events
from . import segments

#: Reading pauses after so many lines: whoever runs flows goes first.
_LINES_AT_ONCE = 500
_PAUSE_S = 0.001
_CRC = re.compile(r"[0-9a-f]{8}")


class End(msgspec.Struct, frozen=True):
    """What a sealed segment ended with: number and checksum of its last line, and what its seal says."""

    seq: int
    crc: str
    sha256: str


class Contents(msgspec.Struct):
    """What a sealed segment holds, as far as it may still count; the numbers are bytes."""

    segment: int
    path: Path
    size: int
    begun: set[str] = msgspec.field(default_factory=set)  # executions that begin here
    executions: dict[str, dict[int, int]] = msgspec.field(default_factory=dict)  # line → bytes, of all with lines
    records: dict[tuple[str, str], int] = msgspec.field(default_factory=dict)  # by type and name
    messages: Counter[str] = msgspec.field(default_factory=Counter)
    locks: int = 0
    sources: set[str] = msgspec.field(default_factory=set)  # of which something was published
    keys: array[int] = msgspec.field(default_factory=lambda: array("Q"))  # offsets of the lines that name a young one
    schedules: set[str] = msgspec.field(default_factory=set)
    maintenance: bool = False
    unknown: bool = False  # only a newer version can judge some of its lines

    def add(self, event: events.AnyEvent, seq: int, size: int) -> None:
        """Take one line's event into account, but for the key that it names."""
        match event:
            case events.ExecutionCreated():
                self.begun.add(event.execution)
                self.executions.setdefault(event.execution, {})[seq] = size
                if event.terms.schedule:
                    self.schedules.add(event.terms.schedule)
            case events.ExecutionCarried():
                self.begun.add(event.execution)
                lines = self.executions.setdefault(event.execution, {})
                lines.update((line.seq, len(bytes(line.event))) for line in event.lines)
            case events.CommitPublished():
                self.sources.add(event.source)
            case event if isinstance(event, events.RecordEvent):
                self.records[event.type, event.name] = size
            case event if isinstance(event, events.LockEvent):
                self.locks += size
            case event if isinstance(event, events.ScheduleEvent):
                self.schedules.add(event.schedule)
            case event if isinstance(event, events.MaintenanceEvent):
                self.maintenance = True
            case event if isinstance(event, events.MessageEvent):
                self.messages[event.message] += size
            case event if isinstance(event, events.ExecutionEvent):
                self.executions.setdefault(event.execution, {})[seq] = size
            case _:
                pass  # a daemon's start, what was pruned, …: nothing that counts later


def contents(segment: int, path: Path, keys_since: str) -> Contents:
    """Read a sealed segment through; keys of requests that are older than ``keys_since`` do not count any more.

    Raises ``JournalCorrupt`` if it has changed: nobody knows then what counts."""
    found = Contents(segment, path, path.stat().st_size)
    chain: segments.Chain | None = None
    offset = 0
    with path.open("rb") as file:
        for count, line in enumerate(file, 1):
            chain = chain or _chain_before(line)
            if chain is None or not chain.follow(line):
                raise errors.JournalCorrupt(f"{path} is damaged in line {count}", hint="restore it from a backup")
            decoded = segments.decode(line)
            if isinstance(decoded.event, segments.Unknown):
                found.unknown = True
            elif not isinstance(decoded.event, segments.SegmentOpened | segments.SegmentSealed):
                found.add(decoded.event, decoded.seq, len(line))
                if (key := _key(decoded)) is not None and key.created_at >= keys_since:
                    found.keys.append(offset)
            offset += len(line)
            if count % _LINES_AT_ONCE == 0:
                time.sleep(_PAUSE_S)
    return found


def keys(path: Path, offsets: Iterable[int]) -> list[events.KeyCarried]:
    """Return the keys of requests that the lines at ``offsets`` of a segment name.

    They are read again to be carried, a few at a time: there may be tens of thousands, and what a daemon once held of
    them all at once it would not give back."""
    with path.open("rb") as file:
        return [key for offset in offsets if (key := _key(_line_at(file, offset))) is not None]


def _line_at(file: BinaryIO, offset: int) -> segments.Line:
    file.seek(offset)
    return segments.decode(file.readline(segments.LINE_BYTES_MAX + 1))


def _key(line: segments.Line) -> events.KeyCarried | None:
    match line.event:
        case events.KeyCarried() as event:
            return event
        case events.ExecutionCreated(key=key, execution=execution, key_digest=digest) if key:
            return events.KeyCarried(key=key, execution=execution, key_digest=digest, created_at=line.at)
    return None


def end_before(line: bytes) -> End | None:
    """Return what the segment before the one that begins with ``line`` ended with; None if ``line`` cannot tell."""
    try:
        opened = segments.decode(line)
    except errors.JournalCorrupt:
        return None
    if not isinstance(opened.event, segments.SegmentOpened) or not _CRC.fullmatch(opened.event.previous_crc):
        return None
    return End(opened.seq - 1, opened.event.previous_crc, opened.event.previous_sha256)


def _chain_before(line: bytes) -> segments.Chain | None:
    end = end_before(line)
    return segments.Chain(end.seq, 0, int(end.crc, 16)) if end is not None else None


def tombstone(directory: Path, segment: int) -> events.SegmentsDropped:
    """Return the event that must be durable before ``segment`` and those before it go."""
    path = directory / segments.file_name(segment + 1)
    with path.open("rb") as file:
        end = end_before(file.readline(segments.LINE_BYTES_MAX + 1))
    if end is None:
        raise errors.JournalCorrupt(f"{path} does not begin as a segment does", hint="restore it from a backup")
    return events.SegmentsDropped(segment=segment, last_seq=end.seq, last_crc=end.crc, sha256=end.sha256)


def unlink(directory: Path, segment: int) -> int:
    """Remove all segments up to ``segment``, the oldest first, and return the bytes that gave back.

    Their tombstone is durable. If we die before the end, the rest is removed by the next start."""
    freed = 0
    for number, path in segments.files(directory):
        if number > segment:
            break
        freed += path.stat().st_size
        path.unlink()
    if freed:
        durable.names(directory)
    return freed


def began_at(directory: Path, segment: int) -> str:
    """Return when a segment was begun; empty if there is none."""
    try:
        with (directory / segments.file_name(segment)).open("rb") as file:
            line = file.readline(segments.LINE_BYTES_MAX + 1)
    except FileNotFoundError:
        return ""
    return segments.decode(line).at
