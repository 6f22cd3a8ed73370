"""Reads the journal at start, mends what a crash left, and refuses what a crash cannot have done.

Every line of every segment is checked. The first line that does not follow from the one before it is either torn: it
belongs to the last batch, which nobody was promised, and it and what follows are dropped; or something whole of a later
batch exists: then durable records are damaged, ``JournalCorrupt`` says where, and nothing on disk is touched. A run of
NULs is a line that does not follow, like any other garbage. Lines that are nothing without the next one are dropped
with it, and nobody sees them before it has been read.

A journal may begin with a later segment than the first if a line of it vouches for that (``segments.dropped``); what
such a line says is gone and is not, is removed here: dying while segments go is mended by the next start.

The last segment is always written anew before anything acts on it: what a process finds after a failed fsync or a
kill may be in memory only, and would vanish with the next power cut. Recovery can die anywhere and be done again; it
needs no free space. Blocking; the daemon calls it before it opens the journal.
"""

from __future__ import annotations

import contextlib
import errno
import functools
import hashlib
import os
import secrets
from collections.abc import Callable
from pathlib import Path

import msgspec
import structlog

from .. import durable, errors, events
from . import dropping, head, seals, segments, tail
from .segments import Position

log = structlog.get_logger()

Visit = Callable[[events.Recorded], None]

_READ_BYTES = 1024 * 1024
_NO_ROOM = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})
_HINT = (
    "restore this file from a backup, or look at `headrace records verify` and `headrace records salvage`; "
    "nothing was changed"
)


class Recovered(msgspec.Struct):
    """The journal as recovery left it, and what the writer needs to go on."""

    instance: str = ""
    position: Position = msgspec.field(default_factory=Position)
    torn_bytes: int = 0  # dropped from the end of the last segment
    unknown_kinds: dict[str, int] = msgspec.field(default_factory=dict)  # event kinds not known here, with counts
    unknown_executions: set[str] = msgspec.field(default_factory=set)  # their records are incomplete for us
    first_seq: int = 1  # of the last segment
    previous_sha256: str = segments.NO_SHA256  # of the segment before the last one
    sealed_sha256: str | None = None  # set if the last segment is sealed
    dropped: int = 0  # all segments up to this one are not needed any more
    sha256: hashlib._Hash = msgspec.field(default_factory=hashlib.sha256)  # of the last segment's bytes


class Report(msgspec.Struct, frozen=True):
    """What ``verify`` found. ``problem`` is empty for a journal that can be trusted."""

    segments: int
    records: int
    bytes: int
    torn_bytes: int
    unknown_kinds: dict[str, int]
    problem: str


class Damaged(errors.JournalCorrupt):
    """Where the journal stops making sense: all before byte ``offset`` of ``segment`` is good."""

    def __init__(self, message: str, segment: int, offset: int) -> None:
        super().__init__(message, hint=_HINT)
        self.segment = segment
        self.offset = offset


def recover(directory: Path, visit: Visit | None = None, mark: head.Mark | None = None) -> Recovered:
    """Check the journal, call ``visit`` for each event in order, mend the end, and return where it stands.

    After this every line in the directory is durable. Raises ``JournalCorrupt``, or ``HistoryLost`` if it does not
    reach ``mark``, with nothing changed on disk (what was visited until then must not be used). An empty or missing
    directory is, without a mark, a journal that has yet to be born."""
    files = segments.files(directory)
    reader = Reader(visit)
    reader.read(files)
    found = reader.found
    if mark is not None:
        head.check(directory, found.instance, found.position, mark)
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    durable.names(directory.parent)  # also if it was there: whoever made it may have died before this
    _sweep(directory)
    if files:
        _rewrite(files[-1][1], found)
        _finish_dropping(directory, found.dropped)  # the line that allows it is durable now
    else:
        found.instance = secrets.token_hex(16)
    return found


def verify(directory: Path, mark: head.Mark | None = None) -> Report:
    """Check the journal and its hashes without changing anything; of a running daemon the end may look torn.

    ``mark`` must have been read before this is called: a running daemon goes on."""
    files = segments.files(directory)
    reader = Reader(lambda recorded: None)
    problem = ""
    try:
        reader.read(files)
        problem = next(filter(None, (seals.problem(path) for _, path in segments.contiguous(files)[1])), "")
        if mark is not None:
            head.check(directory, reader.found.instance, reader.found.position, mark)
    except (errors.JournalCorrupt, errors.HistoryLost) as error:
        problem = error.message
    found = reader.found
    size = sum(path.stat().st_size for _, path in files)
    return Report(len(files), found.position.seq, size, found.torn_bytes, found.unknown_kinds, problem)


class Reader:
    """Walks all segments, line by line, and keeps what the last good line said. Raises ``Damaged``."""

    def __init__(self, visit: Visit | None) -> None:
        self.found = Recovered()
        self._visit = visit
        self._chain = segments.Chain()
        self._ends: dict[int, dropping.End] = {}  # of each segment, as far as they are known

    def read(self, files: list[tuple[int, Path]]) -> None:
        """Read all of them. After ``Damaged`` what was found is the good part before the damage."""
        try:
            self._read(files)
        except Damaged as damage:
            if damage.offset:
                path = next(path for number, path in files if number == damage.segment)
                self.found.position = _end_at(path, damage.segment, damage.offset)
            raise

    def _read(self, files: list[tuple[int, Path]]) -> None:
        left_over, whole = segments.contiguous(files)
        first = whole[0][0] if whole else 1
        if first > 1:
            self._begin_after(first - 1, whole[0][1])
        for number, path in whole:
            last = number == whole[-1][0]
            self._read_segment(number, path, last=last)
            if last:
                break
            if self.found.sealed_sha256 is None:
                raise _corrupt(path, self.found.position.offset, "the line that seals the segment")
            self._ends[number] = dropping.End(self._chain.seq, f"{self._chain.crc:08x}", self.found.sealed_sha256)
        if self.found.dropped < first - 1 or (left_over and self.found.dropped < int(left_over[-1].stem)):
            raise Damaged(f"segment {segments.file_name(first - 1)} is missing", first - 1, 0)

    def _begin_after(self, number: int, path: Path) -> None:
        """Take the word of a segment for how the one before it, which is not there, ended."""
        with path.open("rb") as file:
            end = dropping.end_before(file.readline(segments.LINE_BYTES_MAX + 1))
        if end is None:
            raise _corrupt(path, 0, "a segment.opened that follows another one")
        self._ends[number] = end
        self._chain = segments.Chain(end.seq, 0, int(end.crc, 16))
        self.found.sealed_sha256 = end.sha256

    def _about_segments(self, path: Path, offset: int, line: bytes) -> None:
        event = segments.decode(line).event
        if isinstance(event, segments.SegmentSealed):
            self._seal_segment(path, offset, event)
        elif isinstance(event, events.SegmentsDropped):
            self._drop_segments(path, offset, event)
        else:
            raise _corrupt(path, offset, "a line about segments that this version can read")

    def _drop_segments(self, path: Path, offset: int, event: events.SegmentsDropped) -> None:
        """Believe that segments were dropped if what they ended with is what is known here."""
        known = self._ends.get(event.segment)
        if known is not None and known == dropping.End(event.last_seq, event.last_crc, event.sha256):
            self.found.dropped = max(self.found.dropped, event.segment)
        elif known is not None or event.segment > min(self._ends, default=0):
            raise _corrupt(path, offset, f"what segment {event.segment} ended with")

    def _read_segment(self, number: int, path: Path, *, last: bool) -> None:
        chain, visit = self._chain, self._visit
        follow = chain.follow
        held: list[tuple[bytes, int]] = []  # lines that are one with the next
        with path.open("rb", buffering=_READ_BYTES) as file:
            size = os.fstat(file.fileno()).st_size  # a running daemon, beside which we verify, writes on behind that
            lines = iter(functools.partial(file.readline, segments.LINE_BYTES_MAX + 1), b"")
            offset = self._open_segment(number, path, next(lines, b""))
            for line in lines:
                if not follow(line):
                    self._classify(path, offset, line, file.readline, size if last else 0)
                    self.found.torn_bytes = max(0, size - offset)
                    break
                if self.found.sealed_sha256 is not None:
                    raise _corrupt(path, offset, "nothing after the line that seals the segment")
                if segments.is_about_segments(line):
                    self._about_segments(path, offset, line)
                if segments.goes_with_next(line):
                    held.append((line, offset))
                elif visit is not None and self.found.sealed_sha256 is None:
                    for before, start in held:
                        self._call(visit, before, number, start)
                    held.clear()
                    self._call(visit, line, number, offset)
                else:
                    held.clear()
                offset += len(line)
        self.found.position = Position(number, offset, chain.seq, chain.crc)
        if held and last:  # cut off in the middle of what is one
            self.found.position = _end_at(path, number, held[0][1])
            self.found.torn_bytes = max(0, size - held[0][1])

    def _open_segment(self, number: int, path: Path, line: bytes) -> int:
        """Check a segment's first line. It was durable before the file got its name, so it is never torn."""
        found, previous_crc = self.found, f"{self._chain.crc:08x}"
        if not self._chain.follow(line):
            raise _corrupt(path, 0, f"a first line with seq {self._chain.seq + 1} that follows crc {previous_crc}")
        opened = segments.decode(line).event
        if not isinstance(opened, segments.SegmentOpened):
            raise _corrupt(path, 0, "a segment.opened")
        if opened.format != segments.FORMAT:
            raise errors.JournalCorrupt(
                f"{path.name} has format {opened.format}, this version reads {segments.FORMAT}",
                hint="install the version that wrote it, or a newer one",
            )
        instance = found.instance or opened.instance
        sha256 = found.sealed_sha256 or segments.NO_SHA256
        for name, actual, expected in (
            ("segment", opened.segment, number),
            ("instance", opened.instance, instance),
            ("previous_crc", opened.previous_crc, previous_crc),
            ("previous_sha256", opened.previous_sha256, sha256),
        ):
            if actual != expected:
                raise _corrupt(path, 0, f"{name} {expected}, not {actual}")
        found.instance = instance
        found.first_seq = self._chain.seq
        found.previous_sha256 = sha256
        found.sealed_sha256 = None
        return len(line)

    def _seal_segment(self, path: Path, offset: int, sealed: segments.SegmentSealed) -> None:
        count = self._chain.seq - self.found.first_seq
        if sealed.count != count:
            raise _corrupt(path, offset, f"a seal that counts {count} lines")
        self.found.sealed_sha256 = sealed.sha256

    def _call(self, visit: Visit, line: bytes, number: int, offset: int) -> None:
        decoded = segments.decode(line)
        event = decoded.event
        if isinstance(event, segments.Unknown):
            kinds = self.found.unknown_kinds
            kinds[event.kind] = kinds.get(event.kind, 0) + 1
            self.found.unknown_executions.add(event.execution)
        elif isinstance(event, segments.SegmentOpened | segments.SegmentSealed):
            raise Damaged(f"a {type(event).__name__} at byte {offset} inside segment {number}", number, offset)
        else:
            visit(events.Recorded(decoded.seq, decoded.at, event, number, offset, len(line)))

    def _classify(self, path: Path, offset: int, line: bytes, readline: Callable[[int], bytes], size: int) -> None:
        """Return if the line at ``offset`` and all that follows up to ``size`` can be a torn tail, else raise.

        ``size`` is 0 for a segment that is not the last one: nothing of that can be torn."""
        end = offset + len(line)
        damaged = not size or (end <= size and self._chain.contradicted_by(line, first=True))
        while not damaged and end < size and (line := readline(segments.LINE_BYTES_MAX + 1)):
            end += len(line)
            damaged = self._chain.contradicted_by(line, first=False)
        if damaged:
            expected = f"the line with seq {self._chain.seq + 1} that follows crc {self._chain.crc:08x}"
            raise _corrupt(path, offset, f"{expected}; whole records of a later batch exist, so it was durable once")


def _end_at(path: Path, segment: int, offset: int) -> Position:
    """Return the end that the good line before ``offset`` makes."""
    start = max(0, offset - segments.LINE_BYTES_MAX)
    with path.open("rb") as file:
        file.seek(start)
        line = file.read(offset - start).splitlines()[-1]
    return Position(segment, offset, segments.decode(line).seq, segments.crc_of(line + b"\n"))


def _corrupt(path: Path, offset: int, expected: str) -> Damaged:
    return Damaged(f"{path} is damaged at byte {offset}: expected {expected}", int(path.stem), offset)


def _sweep(directory: Path) -> None:
    """Remove what a crash left half-made. Nothing ever refers to a ``.tmp``."""
    for leftover in directory.glob("*.tmp"):
        leftover.unlink()


def _finish_dropping(directory: Path, segment: int) -> None:
    try:
        dropping.unlink(directory, segment)
    except OSError as error:  # they take room, nothing else
        log.warning("records.dropping_failed", reason=error.strerror)


def _rewrite(path: Path, found: Recovered) -> None:
    """Make the good part of the last segment durable and drop the rest."""
    size = found.position.offset
    try:
        try:
            found.sha256 = _replace(path, size, mode=0o600 if found.sealed_sha256 is None else 0o400)
        except OSError as error:
            if error.errno not in _NO_ROOM:
                raise
            found.sha256 = _mend_in_place(path, size)
        durable.names(path.parent)  # whoever gave the file its name may have died before this
    except OSError as error:
        raise errors.JournalFailed(
            f"{path} could not be made durable: {error.strerror}", hint="look at the disk, then start again"
        ) from error


def _replace(path: Path, size: int, mode: int) -> hashlib._Hash:
    temporary = path.with_suffix(".tmp")
    try:
        sha256 = copy(path, temporary, size, mode)
        temporary.rename(path)
    except OSError:
        with contextlib.suppress(OSError):
            temporary.unlink()
        raise
    return sha256


def copy(source: Path, target: Path, size: int, mode: int) -> hashlib._Hash:
    """Write the first ``size`` bytes of ``source`` to ``target`` and return their hash; they are durable on return."""
    sha256 = hashlib.sha256()
    fd = os.open(target, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    try:
        with source.open("rb", buffering=0) as file:
            while size:
                chunk = file.read(min(size, _READ_BYTES))
                if not chunk:
                    raise errors.JournalCorrupt(f"{source} became shorter while it was read", hint="run one daemon")
                tail.write_all(fd, chunk)
                sha256.update(chunk)
                size -= len(chunk)
        os.fchmod(fd, mode)
        os.fdatasync(fd)
    finally:
        os.close(fd)
    return sha256


def _mend_in_place(path: Path, size: int) -> hashlib._Hash:
    """Cut the file, then write each byte over itself, so that it reaches the disk: needs no free space."""
    path.chmod(0o600)
    sha256 = hashlib.sha256()
    fd = os.open(path, os.O_RDWR)
    try:
        os.ftruncate(fd, size)
        while chunk := os.read(fd, _READ_BYTES):
            sha256.update(chunk)
            os.lseek(fd, -len(chunk), os.SEEK_CUR)
            tail.write_all(fd, chunk)
        os.fdatasync(fd)
    finally:
        os.close(fd)
    return sha256
