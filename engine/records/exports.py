"""The format of an exported execution: one file of JSON lines that is enough to replay it elsewhere. Pure, no I/O.

    {"format":"headrace-export","version":1,"execution":"…","flow":"…",…}    the header
    {"source":"reports/daily.py","text":"…"}                                 a file of the commit it ran on
    {"blob":"<sha256>","text":"…"}                                           a value too large for a line
    {"seq":7,"batch":5,"at":"…","event":"execution.created",…,"crc":"…"}     the journal's lines, as they are
    {"end":12}                                                               so many lines stand before this one

Secrets are in none of them: values are as people see them, and the files that keep true ones stay where they are. Files
may be joined; each begins with its header. A file is outside data: it is checked line by line, and what a line may not
be is an ``InvalidRequest`` that names its number.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import re
from collections.abc import Iterable, Iterator

import msgspec

from .. import errors, events
from . import segments

FORMAT = "headrace-export"
VERSION = 1
_SOURCE = re.compile(r"(?!/)(?!(?:.*/)?\.{1,2}(?:/|$))[^\0]+\.py")


class Header(msgspec.Struct, frozen=True, kw_only=True):
    """The first line: which execution this is, and what it ran on."""

    format: str = FORMAT
    version: int = VERSION
    headrace: str
    python: str
    execution: str
    type: str = "FLOW"  # FLOW | SCRIPT
    flow: str = ""
    path: str = ""  # of the flow below its sources
    commit: str = ""
    workspace: str = ""
    environment: str = ""


class _Kind(msgspec.Struct):
    format: str | msgspec.UnsetType = msgspec.UNSET
    version: int | msgspec.UnsetType = msgspec.UNSET
    source: str | msgspec.UnsetType = msgspec.UNSET
    blob: str | msgspec.UnsetType = msgspec.UNSET
    text: str | msgspec.UnsetType = msgspec.UNSET
    base64: str | msgspec.UnsetType = msgspec.UNSET
    seq: int | msgspec.UnsetType = msgspec.UNSET
    end: int | msgspec.UnsetType = msgspec.UNSET


class Export:
    """One execution with all that its replay needs."""

    def __init__(self, header: Header) -> None:
        self.header = header
        self.records: dict[str, list[events.Recorded]] = {}  # by execution: its own and those that answers tell of
        self.blobs: dict[str, bytes] = {}
        self.sources: dict[str, bytes] = {}

    def add(self, line: bytes, kind: _Kind) -> None:
        """Take in a line after the header; raises ``ValueError`` for one that may not be there."""
        if kind.seq is not msgspec.UNSET:
            self._add_event(line)
        elif kind.source is not msgspec.UNSET:
            if not _SOURCE.fullmatch(kind.source):
                raise ValueError(f"{kind.source[:100]!r} is no path of a source file")
            self.sources[kind.source] = _content(kind)
        elif kind.blob is not msgspec.UNSET:
            content = _content(kind)
            if hashlib.sha256(content).hexdigest() != kind.blob:
                raise ValueError("the value does not have the hash it is called by")
            self.blobs[kind.blob] = content
        else:
            raise ValueError("no line of an export looks like this")

    def _add_event(self, line: bytes) -> None:
        try:
            decoded = segments.decode(line)
        except errors.JournalCorrupt as error:
            raise ValueError(error.message) from None
        # One of a kind that a newer version wrote is left out, as everywhere.
        if isinstance(decoded.event, events.ExecutionEvent):
            recorded = events.Recorded(decoded.seq, decoded.at, decoded.event, 0, 0, len(line))
            self.records.setdefault(decoded.event.execution, []).append(recorded)


def _content(kind: _Kind) -> bytes:
    if kind.text is not msgspec.UNSET:
        return kind.text.encode()
    if kind.base64 is msgspec.UNSET:
        raise ValueError("a value without its content")
    try:
        return base64.b64decode(kind.base64, validate=True)
    except binascii.Error as error:
        raise ValueError(str(error)) from None


def read(lines: Iterable[bytes], name: str) -> Iterator[Export]:
    """Yield the executions in an export called ``name``; raises ``InvalidRequest`` for anything else."""
    export: Export | None = None
    count = number = 0
    for number, line in enumerate(lines, 1):
        if not line.endswith(b"\n"):
            break
        try:
            kind = msgspec.json.decode(line, type=_Kind)
            if export is None:
                export, count = Export(_header(line, kind, name)), 1
                continue
            if kind.end is not msgspec.UNSET:
                if kind.end != count:
                    raise ValueError(f"{count} lines where there were {kind.end}")
                yield export
                export = None  # ``count`` stays: there was one
                continue
            export.add(line, kind)
        except (ValueError, msgspec.MsgspecError, RecursionError) as error:
            raise errors.InvalidRequest(f"{name}, line {number}: not a line of an export: {error}") from None
        count += 1
    if export is not None or not count:
        raise errors.InvalidRequest(f"{name} ends too early", hint="was it copied whole? export it again")


def _header(line: bytes, kind: _Kind, name: str) -> Header:
    if kind.format != FORMAT:
        raise ValueError(f"it does not begin with a header of format {FORMAT}")
    if kind.version != VERSION:
        raise errors.InvalidRequest(
            f"{name} has version {kind.version} of the format, this headrace reads version {VERSION}",
            hint="replay it with the headrace that wrote it, or a newer one",
        )
    return msgspec.json.decode(line, type=Header)


def header_line(header: Header) -> bytes:
    """Return the first line."""
    return msgspec.json.encode(header) + b"\n"


def source_line(path: str, content: bytes) -> bytes:
    """Return the line of a source file."""
    return msgspec.json.encode({"source": path} | _said(content)) + b"\n"


def blob_line(sha256: str, content: bytes) -> bytes:
    """Return the line of a large value."""
    return msgspec.json.encode({"blob": sha256} | _said(content)) + b"\n"


def _said(content: bytes) -> dict[str, str]:
    """Text as it is, anything else in base64."""
    try:
        return {"text": content.decode()}
    except UnicodeDecodeError:
        return {"base64": base64.b64encode(content).decode()}


def end_line(count: int) -> bytes:
    """Return the last line; ``count`` lines stand before it."""
    return msgspec.json.encode({"end": count}) + b"\n"
