"""The journal's format: what a line is, what a segment is, how one follows from the other. Pure, no I/O.

``records/00000001.jsonl`` and on, one JSON object a line:

    {"seq":7,"batch":5,"at":"…","event":"call.ended",…,"crc":"9a3f1b2c"}

``seq`` counts on across segments. ``batch`` is the ``seq`` of the first line of the batch it was written with, and a
batch is only begun when the one before it is durable. So a whole line with batch B proves that every line before B was
on disk once: that is how recovery tells a torn tail (never promised to anybody) from damage (promised, and gone).
``crc`` is zlib's CRC-32 of the bytes before ``,"crc":``, rolling on from the line before, so that a line that is
missing, repeated or moved shows as much as one that changed. The first line of a segment says what it follows, the
last one of a finished segment seals it.

A line that ends in ``"with_next":true`` (before ``crc``) tells a part of what happened at one moment, as the next line
does: a journal that ends with such a line was cut off in the middle of it, and recovery drops that part.

Called by the journal, recovery and whoever reads lines back. A line of a kind that this version does not know is a
good line all the same.
"""

from __future__ import annotations

import contextlib
import re
import zlib
from collections.abc import Iterator
from pathlib import Path

import msgspec

from .. import errors, events

FORMAT = 1
#: No line is longer, with its newline: readers need no more memory than this, however damaged a file is.
LINE_BYTES_MAX = 1024 * 1024
#: Room for an event's own members; the rest of a line is numbers, time and checksum.
BODY_BYTES_MAX = LINE_BYTES_MAX - 256
NO_CRC = "00000000"
NO_SHA256 = "0" * 64

_WITH_NEXT = b',"with_next":true'
_TAIL_BYTES = len(b',"crc":"00000000"}\n')
_AT_BYTES = len("2026-01-01T00:00:00.000000+00:00")
_KIND_AFTER_AT = len(b'"at":"') + _AT_BYTES + len(b'",')
_ABOUT_SEGMENTS = (b'"event":"segment.sealed"', b'"event":"segments.dropped"')
_WHOLE_LINE = re.compile(rb'\{"seq":(\d{1,18}),"batch":(\d{1,18}),"at":"[^"]{32}","event":"')
_END_OF_LINE = re.compile(rb',"crc":"([0-9a-f]{8})"\}')


class SegmentOpened(events.Event, frozen=True, kw_only=True, tag="segment.opened"):
    """First line of a segment: whose it is and what it goes on from (``NO_CRC``, ``NO_SHA256`` for the very first)."""

    format: int
    instance: str  # random, of the journal as a whole
    segment: int
    previous_crc: str  # of the last line of the segment before
    previous_sha256: str  # as the seal of the segment before says


class SegmentSealed(events.Event, frozen=True, kw_only=True, tag="segment.sealed"):
    """Last line of a finished segment: ``count`` lines precede it in the file, ``sha256`` is that of their bytes."""

    count: int
    sha256: str


class Unknown(msgspec.Struct, frozen=True):
    """A good line that this version cannot read: a newer kind, or a known one that has changed."""

    kind: str
    execution: str
    raw: bytes


class Line(msgspec.Struct, frozen=True):
    """A line taken apart."""

    seq: int
    at: str
    event: events.AnyEvent | SegmentOpened | SegmentSealed | Unknown


class Position(msgspec.Struct, frozen=True):
    """The end of what is recorded: next comes byte ``offset`` of ``segment``; the last line has ``seq`` and ``crc``."""

    segment: int = 0
    offset: int = 0
    seq: int = 0
    crc: int = 0


class _Outline(msgspec.Struct):
    event: str = ""
    execution: str = ""


#: Lines that tell of the journal itself, or nothing that this version understands.
_NO_EVENTS = frozenset({SegmentOpened, SegmentSealed, Unknown})
_decode_event = msgspec.json.Decoder(events.AnyEvent | SegmentOpened | SegmentSealed)
_decode_carried = msgspec.json.Decoder(events.AnyEvent)
_decode_outline = msgspec.json.Decoder(_Outline)


def file_name(segment: int) -> str:
    """Return the name of a segment's file."""
    return f"{segment:08d}.jsonl"


def files(directory: Path) -> list[tuple[int, Path]]:
    """Return the segments in ``directory`` with their numbers, in order."""
    return sorted((int(path.stem), path) for path in directory.glob("[0-9]" * 8 + ".jsonl"))


def compose(seq: int, batch: int, at: bytes, body: bytes, crc: int, *, with_next: bool = False) -> tuple[bytes, int]:
    """Return the line for an event's JSON object ``body``, and the checksum the next line goes on from."""
    mark = _WITH_NEXT if with_next else b""
    line = b'{"seq":%d,"batch":%d,"at":"%b",%b%b' % (seq, batch, at, body[1:-1], mark)
    crc = zlib.crc32(line, crc)
    return b'%b,"crc":"%08x"}\n' % (line, crc), crc


class Chain:
    """Where a reader stands: the numbers and the checksum that the next line must go on from."""

    __slots__ = ("batch", "crc", "seq")

    def __init__(self, seq: int = 0, batch: int = 0, crc: int = 0) -> None:
        self.seq = seq
        self.batch = batch
        self.crc = crc

    def follow(self, line: bytes) -> bool:
        """Go on to ``line`` and return True, or stay and return False if it is not what must come next."""
        seq = self.seq + 1
        if line.startswith(b'{"seq":%d,"batch":%d,"at":"' % (seq, self.batch)):
            batch = self.batch
        elif line.startswith(b'{"seq":%d,"batch":%d,"at":"' % (seq, seq)):
            batch = seq
        else:
            return False
        crc = zlib.crc32(line[:-_TAIL_BYTES], self.crc)
        if line[-_TAIL_BYTES:] != b',"crc":"%08x"}\n' % crc:
            return False
        self.seq, self.batch, self.crc = seq, batch, crc
        return True

    def contradicted_by(self, piece: bytes, *, first: bool) -> bool:
        """Return whether ``piece``, found where this chain broke or later, proves that durable lines are damaged.

        ``first`` is the piece that broke it. A crash leaves neither a whole line of a later batch behind the broken
        one, nor, further down, a line whose number had its turn already."""
        if first:
            if (end := self._end_of_joined_line(piece)) < 0:
                numbers = _numbers(piece)
                return numbers is not None and numbers[1] > self.seq + 1
            piece = piece[end + 1 :]  # only its newline was damaged: what hangs on it is the next line
        numbers = _numbers(piece)
        return numbers is not None and (numbers[1] > self.seq + 1 or numbers[0] <= self.seq + 1)

    def _end_of_joined_line(self, piece: bytes) -> int:
        """Return where the expected line ends inside ``piece``, or -1. Checksums decide, as flows choose the text."""
        crc, start = self.crc, 0
        for match in _END_OF_LINE.finditer(piece):
            crc = zlib.crc32(piece[start : match.start()], crc)
            start = match.start()
            if match[1] == b"%08x" % crc:
                return match.end()
        return -1


def _numbers(piece: bytes) -> tuple[int, int] | None:
    """Return (seq, batch) if ``piece`` has the shape of a whole line."""
    match = _WHOLE_LINE.match(piece)
    if match is None or not piece.endswith(b'"}\n') or _END_OF_LINE.match(piece, len(piece) - _TAIL_BYTES) is None:
        return None
    seq, batch = int(match[1]), int(match[2])
    return (seq, batch) if batch <= seq else None


def is_about_segments(line: bytes) -> bool:
    """Return whether a good line seals its segment or says that others were dropped, without decoding it."""
    return line.startswith(_ABOUT_SEGMENTS, line.index(b'"at":"') + _KIND_AFTER_AT)


def goes_with_next(line: bytes) -> bool:
    """Return whether a good line is nothing without the one that follows it."""
    return line.endswith(_WITH_NEXT, 0, -_TAIL_BYTES)


def body_of(line: bytes, start: int) -> bytes:
    """Return the event's JSON object in a good line, whose members begin at ``start``."""
    end = len(line) - _TAIL_BYTES
    return b"{%b}" % line[start:end].removesuffix(_WITH_NEXT)


def contiguous(files: list[tuple[int, Path]]) -> tuple[list[Path], list[tuple[int, Path]]]:
    """Return the journal as it stands, the segments without a gap up to the last, and what lies before the gap.

    Only dropping segments leaves such a gap behind, when it was cut off; whether it did, recovery finds out."""
    first = len(files)
    while first and (first == len(files) or files[first - 1][0] == files[first][0] - 1):
        first -= 1
    return [path for _, path in files[:first]], files[first:]


def crc_of(line: bytes) -> int:
    """Return the checksum that stands at the end of ``line``, or that of nothing if there is none."""
    try:
        return int(line[-_TAIL_BYTES:][8:16], 16)
    except ValueError:
        return 0


def follows(line: bytes, crc: int) -> bool:
    """Return whether ``line`` is whole and goes on from a line with the checksum ``crc``, whatever their numbers."""
    return line[-_TAIL_BYTES:] == b',"crc":"%08x"}\n' % zlib.crc32(line[:-_TAIL_BYTES], crc)


def decode(line: bytes) -> Line:
    """Take a good line apart. Raises ``JournalCorrupt`` if it is no line of a journal at all."""
    try:
        end = line.index(b",", 7)
        seq = int(line[7:end])
        start = line.index(b'"at":"', end) + 6
        at = str(line[start : start + _AT_BYTES], "ascii")
    except ValueError:
        raise errors.JournalCorrupt(f"this is not a line of the journal: {line[:80]!r}") from None
    try:
        return Line(seq, at, _decode_event.decode(line))
    except (msgspec.MsgspecError, UnicodeError, RecursionError):
        return Line(seq, at, _unknown(line))


def _unknown(line: bytes) -> Unknown:
    try:
        outline = _decode_outline.decode(line)
    except (msgspec.MsgspecError, UnicodeError, RecursionError):
        outline = _Outline()
    return Unknown(outline.event, outline.execution, line)


def recorded(data: bytes, segment: int, offset: int) -> Iterator[events.Recorded]:
    """Yield the events of the whole lines ``data``, read at ``offset`` of ``segment``. Unknown kinds are left out."""
    for line in data.splitlines(keepends=True):
        decoded = decode(line)
        length = len(line)
        if type(decoded.event) not in _NO_EVENTS:
            yield events.Recorded(decoded.seq, decoded.at, decoded.event, segment, offset, length)  # type: ignore[arg-type]
        offset += length


def carried(event: events.ExecutionCarried, at: events.Recorded) -> Iterator[events.Recorded]:
    """Yield the lines that ``event`` brought along, with the numbers and times they had; they lie where it does.

    Kinds that this version does not know are left out."""
    for line in event.lines:
        with contextlib.suppress(msgspec.MsgspecError):
            inner = _decode_carried.decode(line.event)
            yield events.Recorded(line.seq, line.at, inner, at.segment, at.offset, at.length)


def unfolded(recorded: events.Recorded) -> Iterator[events.Recorded]:
    """Yield the line itself, or those that it carries."""
    if isinstance(recorded.event, events.ExecutionCarried):
        yield from carried(recorded.event, recorded)
    else:
        yield recorded
