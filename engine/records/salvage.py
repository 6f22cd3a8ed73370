"""Mends a damaged journal as far as that is possible, and says exactly what is lost. Only ever because somebody asked.

All before the damage stays as it is. What follows it is taken line by line: a line whose checksum follows from the one
that stands in the line before it is what was written, wherever it lies. These lines get new numbers and checksums and
go into new segments; each original of them stays beside as ``*.jsonl.damaged``, which nothing reads.

The new folder is made beside the old one and takes its place when it is complete and durable. A death in between leaves
no records at all, which ``HEAD`` has the daemon refuse: the next ``salvage`` finishes the exchange. No daemon may run.
Blocking; called by the command line.
"""

from __future__ import annotations

import contextlib
import os
import re
import secrets
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec

from .. import durable, errors, events
from . import head, recovery, segments, tail
from .segments import Position

SEGMENT_BYTES_MAX = 64 * 1024 * 1024
_PORTION_BYTES = 1024 * 1024
_START = re.compile(rb'\{"seq":(\d{1,18}),"batch":\d{1,18},"at":"([^"]{32})",')
_EXECUTION = re.compile(rb'"execution":"([^"\\]{1,64})"')


class Loss(msgspec.Struct):
    """Bytes of one file that hold no line anybody can vouch for; ``executions`` are those that are named in them."""

    file: str
    offset: int
    bytes: int = 0
    executions: list[str] = msgspec.field(default_factory=list)


class Salvaged(msgspec.Struct):
    """What ``salvage`` did. Without ``reason`` the journal was sound and nothing was changed."""

    reason: str = ""
    kept: int = 0  # records before the damage
    moved: int = 0  # records after it, which have new numbers now
    losses: list[Loss] = msgspec.field(default_factory=list)
    missing: int = 0  # records whose numbers appear nowhere
    set_aside: list[str] = msgspec.field(default_factory=list)


class _Good(msgspec.Struct, frozen=True):
    """A line that can be vouched for: its old number, its time, and its event's JSON object."""

    seq: int
    at: bytes
    body: bytes


def salvage(state: Path) -> Salvaged:
    """Mend the journal in the state directory ``state``; what is returned tells what was lost.

    On return it is sound and durable, ``HEAD`` fits it and the index is gone. If we die before, it is as it was or
    this can be called again. Raises ``JournalCorrupt`` for a format this version does not know."""
    records, new = state / "records", state / "records.new"
    _finish_exchange(state)
    files = segments.files(records)
    reader = recovery.Reader(None)
    try:
        reader.read(files)
        return Salvaged()
    except recovery.Damaged as damage:
        done = Salvaged(reason=damage.message)
        where = damage
    if not where.offset:
        reader = _before([(number, path) for number, path in files if number < where.segment])
    if new.exists():
        shutil.rmtree(new)
    new.mkdir(mode=0o700)
    position, instance = _build(files, new, reader, where, done)
    durable.names(new)
    end = head.Head(state / head.FILE_NAME)
    end.write(instance, position)
    end.close()
    _exchange(state)
    for suffix in ("", "-wal", "-shm"):
        (state / f"index.db{suffix}").unlink(missing_ok=True)
    durable.names(state)
    return done


def _before(files: list[tuple[int, Path]]) -> recovery.Reader:
    """Read the whole segments before the damage. That those before them were dropped may be said behind it."""
    reader = recovery.Reader(None)
    with contextlib.suppress(recovery.Damaged):
        reader.read(files)
    return reader


def _exchange(state: Path) -> None:
    (state / "records").rename(state / "records.old")
    (state / "records.new").rename(state / "records")
    durable.names(state)
    shutil.rmtree(state / "records.old")  # every file of it has a second name in the new folder


def _finish_exchange(state: Path) -> None:
    """Finish what an earlier call began, if it died between its two renames or after them."""
    old, records = state / "records.old", state / "records"
    if old.exists():
        if not records.exists():
            (state / "records.new").rename(records)
            durable.names(state)
        shutil.rmtree(old)


def _build(
    files: list[tuple[int, Path]], new: Path, reader: recovery.Reader, where: recovery.Damaged, done: Salvaged
) -> tuple[Position, str]:
    """Fill the folder ``new``; return the end of its journal and whose it is."""
    behind = [(number, path) for number, path in files if number >= where.segment]
    for number, path in files:
        if number < where.segment:
            os.link(path, new / path.name)
        else:
            os.link(path, aside := _free_name(new, path))
            done.set_aside.append(aside.name)
    for path in files[0][1].parent.glob("*.damaged"):  # of earlier times
        os.link(path, _free_name(new, path, path.name))
    before = reader.found.position
    done.kept = before.seq
    writer = _Writer(new, reader.found, files, where.segment)
    expected = before.seq + 1
    for number, path in sorted(behind, key=lambda each: (_first_seq(each[1]), each[0])):
        start, crc = (where.offset, before.crc) if number == where.segment else (0, 0)
        if not start and _instance_of([(number, path)]) not in ("", writer.instance):
            done.losses.append(Loss(path.name, 0, path.stat().st_size))
            continue
        for good in _good_lines(path, start, crc, done.losses):
            if good.seq >= expected:  # else it was there already
                done.missing += good.seq - expected
                expected = good.seq + 1
                done.moved += writer.take(good)
    return writer.finish(), writer.instance


def _free_name(new: Path, path: Path, name: str = "") -> Path:
    """Return a name for what is set aside that is not taken in the new folder."""
    found, number = new / (name or f"{path.name}.damaged"), 1
    while found.exists():
        number += 1
        found = new / f"{path.name.removesuffix('.damaged')}.{number}.damaged"
    return found


def _first_seq(path: Path) -> int:
    with path.open("rb") as file:
        match = _START.match(file.readline(segments.LINE_BYTES_MAX))
    return int(match[1]) if match else 0


def _good_lines(path: Path, start: int, crc: int, losses: list[Loss]) -> Iterator[_Good]:
    """Yield the lines from ``start`` on that follow from the checksum in the line before; note what does not."""
    loss: Loss | None = None
    offset = start
    with path.open("rb") as file:
        file.seek(start)
        while line := file.readline(segments.LINE_BYTES_MAX + 1):
            if not offset and (opened := _opened(line)) is not None:
                crc = int(opened.previous_crc, 16)
            good = _vouched(line, crc)
            if good is None:
                if loss is None:
                    loss = Loss(path.name, offset)
                    losses.append(loss)
                loss.bytes += len(line)
                loss.executions += [name for name in _executions(line) if name not in loss.executions]
            else:
                loss = None
                yield good
            crc = segments.crc_of(line)
            offset += len(line)


def _vouched(line: bytes, crc: int) -> _Good | None:
    match = _START.match(line)
    if match is None or not segments.follows(line, crc):
        return None
    return _Good(int(match[1]), match[2], segments.body_of(line, match.end()))


def _opened(line: bytes) -> segments.SegmentOpened | None:
    """A segment's first line says itself what it follows from."""
    with contextlib.suppress(errors.JournalCorrupt, ValueError):
        opened = segments.decode(line).event
        if isinstance(opened, segments.SegmentOpened) and segments.follows(line, int(opened.previous_crc, 16)):
            return opened
    return None


def _executions(line: bytes) -> list[str]:
    return [name.decode(errors="replace") for name in dict.fromkeys(_EXECUTION.findall(line))]


class _Writer:
    """Goes on behind what is good, in files of the new folder."""

    def __init__(self, new: Path, prefix: recovery.Recovered, files: list[tuple[int, Path]], damaged: int) -> None:
        # What is said of dropped segments is only true of those that stay as they were.
        self._kept_below = damaged if prefix.position.segment else 0
        self.instance = prefix.instance or _instance_of(files) or secrets.token_hex(16)
        self._new = new
        self._tail = tail.Tail(new, self.instance)
        self._position = prefix.position
        self._at = b"1970-01-01T00:00:00.000000+00:00"
        self._lines: list[bytes] = []
        self._bytes = 0
        self._crc, self._seq, self._batch = prefix.position.crc, prefix.position.seq, prefix.position.seq + 1
        self._begin(prefix, next((path for number, path in files if number == prefix.position.segment), new))

    def _begin(self, prefix: recovery.Recovered, source: Path) -> None:
        """Take over the good part of the damaged segment, and go on behind what is good."""
        sealed, target = prefix.sealed_sha256, self._new / source.name
        if prefix.position.segment and not target.exists():
            mode = 0o600 if sealed is None else 0o400
            sha256 = recovery.copy(source, target, prefix.position.offset, mode)
            if sealed is None:
                self._tail.resume(prefix.position, prefix.first_seq, sha256, prefix.previous_sha256)
        if sealed is not None:
            self._tail.resume_sealed(sealed)

    def take(self, good: _Good) -> int:
        """Write a line under its new number; return how many records that are (none, for marks of segments)."""
        self._at = good.at
        if good.body.startswith((b'{"event":"segment.opened"', b'{"event":"segment.sealed"')):
            return 0
        is_dropping = good.body.startswith(b'{"event":"segments.dropped"')
        if is_dropping and msgspec.json.decode(good.body, type=events.SegmentsDropped).segment >= self._kept_below:
            return 0
        if not self._tail.is_open:
            self._turn(self._tail.open_next)
        line, self._crc = segments.compose(self._seq + 1, self._batch, good.at, good.body, self._crc)
        self._seq += 1
        self._lines.append(line)
        self._bytes += len(line)
        if self._bytes >= _PORTION_BYTES:
            self._flush()
        return 1

    def _flush(self) -> None:
        if self._lines:
            data = b"".join(self._lines)
            self._tail.write(data)
            self._tail.digest(data)
            before = self._position
            self._position = Position(before.segment, before.offset + len(data), self._seq, self._crc)
            self._lines, self._bytes, self._batch = [], 0, self._seq + 1
        if self._position.offset >= SEGMENT_BYTES_MAX:
            self._turn(self._tail.seal)

    def _turn(self, step: Callable[[Position, bytes], Position]) -> None:
        self._position = step(self._position, self._at)
        self._crc, self._seq, self._batch = self._position.crc, self._position.seq, self._position.seq + 1

    def finish(self) -> Position:
        """Write what is left and let go; all of it is durable on return."""
        if not self._tail.is_open:
            self._turn(self._tail.open_next)
        self._flush()
        self._tail.close()
        return self._position


def _instance_of(files: list[tuple[int, Path]]) -> str:
    """Return whose journal this is, as the first segment says that can be vouched for."""
    for _, path in files:
        with path.open("rb") as file:
            if (opened := _opened(file.readline(segments.LINE_BYTES_MAX))) is not None:
                return opened.instance
    return ""
