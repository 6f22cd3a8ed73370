"""The audit log: who did what, from where, and what came of it; refused calls too. ``audit.jsonl``, one object a line.

Each line carries the sha256 of the line before it (``prev``), so a line that was changed, taken out or put in shows;
``verify`` finds the first. Nothing in the API can change or shorten the file. What is cut off at its end shows against
the chain's head, which stands in the daemon's log once a day and at each stop.

A line is handed to the kernel before the answer goes out: it survives the daemon's death at any moment, and a loss of
power but for the last second. While lines cannot be written, nothing that would have to stand here is let through.

Called by ``routes`` for every call that changes something or was refused; read by ``accounts`` and the command line.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import os
from collections.abc import Callable, Iterable
from pathlib import Path

import msgspec
import structlog

from ..engine import durable, errors, moments, ports

log = structlog.get_logger()

FILE = "audit.jsonl"
LIMIT_MAX = 1000
_SYNC_S = 1.0
_HEAD_S = 86400.0
#: More than the longest line: names and paths are bounded by the request's head.
_LINE_BYTES_MAX = 64 * 1024
#: So many lines are looked through for one page of those that are sought.
_LOOKED_MAX = 5000
_READ_BYTES_MAX = 4 * 1024 * 1024


class Entry(msgspec.Struct, kw_only=True):
    """One line. ``who`` is empty for somebody who was not recognised; ``what`` is method and route, ``target`` the path
    without its query; ``origin`` is an address, or "socket"; ``made`` is what came of it, if that has an address;
    ``before`` and ``after`` are hashes of what was changed, empty for what was not there."""

    at: str
    who: str
    what: str
    target: str
    origin: str
    status: int
    token: str = ""
    made: str = ""
    reason: str = ""
    request: str = ""
    before: str = ""
    after: str = ""
    prev: str = ""


#: Whether a line is one of those that are looked for.
Chosen = Callable[[Entry], bool]


class Audit:
    """The log of one state directory; ``open`` it, and ``close`` it last."""

    def __init__(self, path: Path, descriptor: int, head: str, clock: ports.Clock) -> None:
        self._path = path
        self._descriptor = descriptor
        self._head = head  # sha256 of the last line
        self._clock = clock
        self._pending = b""
        self._dirty = asyncio.Event()

    @classmethod
    def open(cls, path: Path, clock: ports.Clock) -> Audit:
        """Go on where the file ends. A line that a loss of power tore is cut off; it was the last one."""
        descriptor = os.open(path, os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
        size = os.fstat(descriptor).st_size
        tail = os.pread(descriptor, _LINE_BYTES_MAX, max(0, size - _LINE_BYTES_MAX))
        whole, newline, torn = tail.rpartition(b"\n")
        if torn:
            log.warning("audit.tail_dropped", bytes=len(torn), hint="the last line was torn by a loss of power")
            os.ftruncate(descriptor, size - len(torn))
        return cls(path, descriptor, _digest(whole.rpartition(b"\n")[2]) if newline else "", clock)

    def check(self) -> None:
        """Raise ``NotAccepting`` while lines cannot be written."""
        if self._pending:
            self._flush()
        if self._pending:
            raise errors.NotAccepting(
                "the audit log cannot be written, so nothing is changed", hint="make room on the disk of the state"
            )

    def write(self, entry: Entry) -> None:
        """Write a line; the time and the chain are put in here."""
        entry.at, entry.prev = moments.timestamp(self._clock.time()), self._head
        line = msgspec.json.encode(entry)
        self._head = _digest(line)
        self._pending += line + b"\n"
        self._flush()

    def _flush(self) -> None:
        """Hand what is pending to the kernel; what it does not take whole is taken back and stays pending."""
        try:
            written = os.write(self._descriptor, self._pending)
        except OSError as error:
            log.error("audit.failed", reason=error.strerror)
            return
        if written < len(self._pending):  # the disk is full; the next write would fail
            os.ftruncate(self._descriptor, os.fstat(self._descriptor).st_size - written)
            log.error("audit.failed", reason="the disk is full")
            return
        self._pending = b""
        self._dirty.set()

    async def run(self) -> None:
        """Bring lines to the disk within a second, and tell the chain's head once a day, until cancelled."""
        told_s = self._clock.monotonic()
        while True:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(told_s + _HEAD_S - self._clock.monotonic()):
                    await self._dirty.wait()
            if self._clock.monotonic() - told_s >= _HEAD_S:
                told_s = self._clock.monotonic()
                self.tell_head()
            if self._dirty.is_set():
                await asyncio.sleep(_SYNC_S)
                self._dirty.clear()  # first: what comes while the disk works is for the next time
                await durable.whole(os.fdatasync, self._descriptor)  # it is closed soon after a stop

    def tell_head(self) -> None:
        """Say in the daemon's log where the chain is, so that lines cut off at the end show against that."""
        if self._head:
            log.info("audit.head", sha256=self._head)

    def close(self) -> None:
        """Bring the rest to the disk."""
        self.tell_head()
        with contextlib.suppress(OSError):
            os.fdatasync(self._descriptor)
        os.close(self._descriptor)

    def latest(self, limit: int, end: int | None = None) -> tuple[list[Entry], int]:
        """Return up to ``limit`` lines before the byte ``end`` (None: the file's), newest first, and where the oldest
        of them begins: 0 if it is the first. Raises ``InvalidRequest`` if no line ends there. Blocking."""
        with self._path.open("rb") as file:
            size = file.seek(0, os.SEEK_END)
            last = size if end is None else end
            begin = max(0, last - _READ_BYTES_MAX)
            file.seek(begin)
            text = file.read(max(0, last - begin))
        if not 0 <= last <= size or (text and not text.endswith(b"\n")):
            raise errors.InvalidRequest("the cursor is not one of this list", hint="leave it out")
        lines = text.splitlines(keepends=True)[1 if begin else 0 :][-limit:]  # what begins in the middle is half a line
        return [msgspec.json.decode(line, type=Entry) for line in reversed(lines)], last - sum(map(len, lines))

    def search(self, chosen: Chosen, limit: int, end: int | None = None) -> tuple[list[Entry], int]:
        """Return up to ``limit`` lines that are ``chosen``, as ``latest`` does; fewer where they are far apart, with
        where to go on. Blocking."""
        found: list[Entry] = []
        for _ in range(_LOOKED_MAX // limit):
            entries, begin = self.latest(limit, end)
            for number, entry in enumerate(entries, 1):
                found += [entry] if chosen(entry) else []
                if len(found) == limit and number < len(entries):
                    return found, self.latest(number, end)[1]
            end = begin
            if len(found) == limit or not begin:
                break
        return found, end or 0


def verify(lines: Iterable[bytes], known_head: str = "") -> tuple[int, str]:
    """Return how many lines hold together from the first, and what is wrong with the next (empty: nothing is).

    ``known_head``: the sha256 of a line that was there once, and has to be there still."""
    head, count, is_there = "", 0, not known_head
    for line in lines:
        try:
            entry = msgspec.json.decode(line, type=Entry)
        except (msgspec.MsgspecError, UnicodeError) as error:
            return count, f"it cannot be read: {error}"
        if not line.endswith(b"\n"):
            return count, "it is not whole"
        if entry.prev != head:
            return count, "it does not follow the line before it: one was changed, taken out or put in"
        head, count = _digest(line[:-1]), count + 1
        is_there = is_there or head == known_head
    return count, "" if is_there else "lines are missing at the end: the one with that head is not there"


def _digest(line: bytes) -> str:
    return hashlib.sha256(line).hexdigest()
