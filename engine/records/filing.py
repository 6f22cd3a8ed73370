"""Puts what the journal recorded into the index, in a thread of its own, many batches in one transaction.

It always knows how far the index goes and how far the journal does. When a write fails, when too much waits, or when
the file has to be made anew, it forgets the batches it holds and reads the difference from the segments. Batches and
questions come from the event loop; nothing here runs on it.
"""

from __future__ import annotations

import contextlib
import functools
import itertools
import sqlite3
import threading
from collections.abc import Callable, Sequence
from pathlib import Path

import structlog

from .. import errors, events
from . import reading, tables
from .segments import Position

log = structlog.get_logger()

#: Batches are gathered for so long before they are written: one transaction for many executions.
GATHER_S = 0.2
#: When more events than this wait to be written they are forgotten, and read from the segments later.
WAITING_EVENTS_MAX = 100_000
#: With more than this missing the daemon does not wait for the index at start: it is completed behind.
CATCH_UP_BYTES_MAX = 8 * 1024 * 1024
#: A transaction is not larger, so that readers see progress and the write-ahead log stays small.
_TRANSACTION_EVENTS = 20_000
_RETRY_S = 1.0

_PASSING = frozenset(
    {sqlite3.SQLITE_FULL, sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED, sqlite3.SQLITE_NOMEM, sqlite3.SQLITE_CANTOPEN}
)

#: Called in the filing thread when all that was put is in the file, or with the error why it is not.
Settled = Callable[[errors.HeadraceError | None], None]


class Filing:
    """The one writer of an index file. ``prepare`` it (blocking), ``start`` it, ``put`` batches, ``stop`` it."""

    def __init__(self, path: Path, records: Path, instance: str, written: Callable[[int], None]) -> None:
        """``written`` is called in the filing thread with the last ``seq`` of what went into the file."""
        self._path = path
        self._records = records
        self._instance = instance
        self._written = written
        self._reached: Callable[[int], None] = lambda seq: None
        self._thread = threading.Thread(target=self._work, name="index-writer", daemon=True)
        self._tables: tables.Tables | None = None
        self._done = (1, 0)  # segment and offset up to which the file goes
        self._done_seq = 0
        #: Counts the files made anew; a reader that opened an earlier one has to open it again.
        self.generation = 0
        #: False while the file is being made anew: what is not found in it may exist all the same.
        self.complete = False
        #: How much of the journal is in the file, from 0 to 1.
        self.share = 0.0
        # Shared with the loop, under the lock.
        self._lock = threading.Lock()
        self._batches: list[Sequence[events.Recorded]] = []
        self._waiting_events = 0
        self._end = (1, 0)  # segment and offset up to which the journal goes
        self._end_seq = 0  # at start
        self._behind = False  # the batches at hand are not all that is missing
        self._bad = ""  # why the file must be made anew
        self._settled: list[Settled] = []
        self._stopping = False
        self._ended = False
        self._wake = threading.Event()  # there is something to do
        self._hurry = threading.Event()  # somebody waits for it

    def prepare(self, end: Position) -> None:
        """Open the file, or make it, and let it catch up with the journal, which goes to ``end``.

        What takes longer is left to the thread, and if the disk has no room for it now, it is tried again later: an
        index never keeps a daemon from starting."""
        self._end = (end.segment, end.offset)
        self._end_seq = end.seq
        self._write([], patient=False)
        self._wake.set()

    def make(self, end: Position, reached: Callable[[int], None]) -> None:
        """Make the file anew and let go of it, instead of everything else (blocking). Raises ``NotAccepting``.

        ``reached`` is told the last ``seq`` of what is in the file, now and then."""
        self._reached = reached
        self._end, self._end_seq, self._bad = (end.segment, end.offset), end.seq, "somebody asked for it"
        error = self._write([])
        if self._tables is not None:
            self._tables.close()
        if error is not None:
            raise error

    def start(self) -> None:
        """Begin to take batches."""
        self._thread.start()

    def put(self, batch: Sequence[events.Recorded]) -> None:
        """Take in a durable batch; returns at once."""
        last = batch[-1]
        with self._lock:
            self._end = (last.segment, last.offset + last.length)
            if self._behind or self._waiting_events > WAITING_EVENTS_MAX:
                self._behind = True
                self._batches.clear()
            else:
                self._batches.append(batch)
                self._waiting_events += len(batch)
        if not self._wake.is_set():
            self._wake.set()

    def settle(self, settled: Settled) -> None:
        """Call ``settled`` when everything put so far is written, soon."""
        with self._lock:
            if not self._ended:
                self._settled.append(settled)
                self._hurry.set()
                self._wake.set()
                return
        settled(_closed())

    def distrust(self, reason: str, generation: int) -> None:
        """A reader of the file of that ``generation`` found it bad: have it made anew."""
        with self._lock:
            if generation == self.generation:
                self._bad = reason
        self._wake.set()

    def stop(self) -> None:
        """Write what was put and let go of the file (blocking)."""
        with self._lock:
            self._stopping = True
        self._hurry.set()
        self._wake.set()
        self._thread.join()

    def _open(self) -> tables.Tables:
        if not self._path.exists():
            return self._make_anew("there was none")
        self._tables = tables.Tables(self._path, functools.partial(reading.extent, self._records))
        found = self._tables.position(self._records, self._instance, self._end_seq)
        if isinstance(found, str):
            return self._make_anew(found)
        self._done, self._done_seq = found[:2], found[2]
        self._behind = True
        return self._tables

    def _make_anew(self, reason: str) -> tables.Tables:
        if self._tables is not None:
            with contextlib.suppress(sqlite3.Error):
                self._tables.close()
            self._tables = None
        log.info("index.rebuilt", reason=reason)
        self.complete = False
        self.share = 0.0
        self.generation += 1
        for suffix in ("", "-wal", "-shm"):
            self._path.with_name(self._path.name + suffix).unlink(missing_ok=True)
        self._done, self._done_seq = (1, 0), 0
        self._behind = True
        fresh = tables.Tables(self._path, functools.partial(reading.extent, self._records))
        fresh.create(self._instance)
        self._tables = fresh
        return fresh

    def _work(self) -> None:
        try:
            self._serve()
        finally:  # also after a defect: nobody may wait for ever
            with self._lock:
                self._ended = True
                settled, self._settled = self._settled, []
            for callback in settled:
                callback(_closed())
            if self._tables is not None:
                self._tables.close()

    def _serve(self) -> None:
        while True:
            self._wake.wait()
            self._hurry.wait(GATHER_S)
            self._hurry.clear()
            self._wake.clear()
            with self._lock:
                batches, self._batches = self._batches, []
                settled, self._settled = self._settled, []
                self._waiting_events = 0
                stopping = self._stopping
            error = self._write(batches)
            self._written(self._done_seq)
            for callback in settled:
                callback(error)
            if stopping:
                return
            if error is not None:
                self._hurry.wait(_RETRY_S)
                self._wake.set()

    def _write(self, batches: list[Sequence[events.Recorded]], *, patient: bool = True) -> errors.HeadraceError | None:
        """Bring the file up to date, by any means; return why that is not possible now."""
        try:
            try:
                self._catch_up(batches, patient=patient)
            except sqlite3.DatabaseError as error:
                if _passes(error):
                    raise
                self._bad = str(error)
                self._catch_up([], patient=patient)
        except (sqlite3.DatabaseError, OSError) as error:
            log.warning("index.write_failed", reason=str(error), retry_s=_RETRY_S)
            self._behind = True
            return errors.NotAccepting(f"the index cannot be written: {error}", hint="free disk space")
        except errors.JournalCorrupt as corrupt:
            log.error("index.write_failed", reason=corrupt.message, retry_s=_RETRY_S)
            self._behind = True
            return corrupt
        return None

    def _catch_up(self, batches: list[Sequence[events.Recorded]], *, patient: bool) -> None:
        bad, self._bad = self._bad, ""
        file = self._make_anew(bad) if bad else self._tables or self._open()
        if not patient and reading.size(self._records, self._end, self._done) > CATCH_UP_BYTES_MAX:
            self.complete = False
            return
        with self._lock:
            behind, self._behind = self._behind, False
            end = self._end
            if behind:  # reading up to the end makes up for all batches there are
                self._batches.clear()
                self._waiting_events = 0
        if not behind:
            self._take_in(file, list(itertools.chain.from_iterable(batches)))
            return
        total = reading.size(self._records, end)
        for portion in reading.between(self._records, *self._done, end):
            if self._stopping:  # what is missing is read after the next start
                self._behind = True
                return
            self._take_in(file, portion)
            self._reached(self._done_seq)
            self.share = 1 - reading.size(self._records, end, self._done) / total
        self.complete = True

    def _take_in(self, file: tables.Tables, batch: list[events.Recorded]) -> None:
        for start in range(0, len(batch), _TRANSACTION_EVENTS):
            part = batch[start : start + _TRANSACTION_EVENTS]
            file.take_in(part)
            last = part[-1]
            self._done, self._done_seq = (last.segment, last.offset + last.length), last.seq


def rebuild(
    path: Path, records: Path, instance: str, end: Position, reached: Callable[[int], None] = lambda seq: None
) -> None:
    """Make the index of a journal that nobody writes anew (blocking); raises ``NotAccepting`` if there is no room."""
    filing = Filing(path, records, instance, lambda seq: None)
    filing.make(end, reached)


def _closed() -> errors.NotAccepting:
    return errors.NotAccepting("the index is closed", hint="if the daemon still runs, restart it")


def _passes(error: sqlite3.DatabaseError) -> bool:
    """Return whether the file is as good as before and only the moment is bad."""
    return getattr(error, "sqlite_errorcode", 0) & 0xFF in _PASSING
