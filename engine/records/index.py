"""The index: listing and searching executions, finding their lines, and keys of requests; derived, decides nothing.

The journal feeds it with each durable batch. Its file is written a little later, in a thread (``filing``), and read in
others; only looking up a key happens on the event loop. Whatever is asked shows everything that was durable before the
question. A file that is missing, damaged, of another journal or ahead of it is thrown away and made anew from the
segments, behind a daemon that takes requests meanwhile: until it is complete, listings are refused and say how far it
is, and of executions that were unfinished at start, or are new, the records are found all the same (``places``).
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextlib
import itertools
import sqlite3
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import TypeVar

import structlog

from .. import errors, events
from . import bloom, expiry, filing, listing, places, reading, recovery, tables

log = structlog.get_logger()

_READERS = 2
#: Reading all keys pauses after so many: whoever runs flows goes first.
_KEYS_AT_ONCE = 2000
_PAUSE_S = 0.001
#: A file that is made anew is waited for so long, which is enough for small ones.
PATIENCE_S = 1.0

T = TypeVar("T")
#: A request's execution, the digest of its body, and when it was made.
Key = tuple[str, str, str]


class Index:
    """The index of one journal: ``open`` it, subscribe ``absorb`` to the journal, ``close`` it after the journal."""

    def __init__(self, path: Path, records: Path, instance: str, known: places.Places) -> None:
        self._loop = asyncio.get_running_loop()
        self._path = path
        self._records = records
        self._filing = filing.Filing(path, records, instance, self._filed)
        self._fresh_keys: dict[str, tuple[int, Key]] = {}  # not in the file yet, with their seq
        self._keys = bloom.Bloom()  # all that came since the start, and those of the file of this generation
        self._keys_of = -1
        self._reading: asyncio.Task[None] | None = None
        self._places: places.Places | None = known
        self._key_reader = _Reader(path)
        self._local = threading.local()
        self._open_readers = [self._key_reader]
        self._readers = concurrent.futures.ThreadPoolExecutor(_READERS, "index-reader")

    @classmethod
    async def open(
        cls, path: Path, records: Path, recovered: recovery.Recovered, known: places.Places | None = None
    ) -> Index:
        """Open or make the index of the journal in ``records``. A bad file neither fails this nor holds it up.

        ``known`` visited the journal at its recovery."""
        index = cls(path, records, recovered.instance, known or places.Places())
        await asyncio.to_thread(index._filing.prepare, recovered.position)
        index._filing.start()
        return index

    def absorb(self, batch: Sequence[events.Recorded]) -> None:
        """Take in a durable batch, in order; returns at once."""
        for recorded in batch:
            event = recorded.event
            if isinstance(event, events.ExecutionCreated) and event.key:
                key = (event.execution, event.key_digest, recorded.at)
                self._fresh_keys.setdefault(event.key, (recorded.seq, key))
                self._keys.add(event.key)
        if self._places is not None:
            if self._filing.complete:
                self._places = None
            else:
                self._places.absorb(batch)
        self._filing.put(batch)

    def find_key(self, key: str) -> Key | None:
        """Return (execution, digest, created at) of the durable request that had ``key``; quick enough for the loop.

        Raises ``NotAccepting`` while the index is being made anew."""
        if (fresh := self._fresh_keys.get(key)) is not None:
            return fresh[1]
        generation = self._filing.generation
        if self._keys_of == generation and not self._keys.may_have(key):
            return None
        try:
            select = "SELECT execution, digest, at FROM keys WHERE key = ?"
            found: Key | None = self._key_reader.of(generation).execute(select, (key,)).fetchone()
        except sqlite3.DatabaseError as error:
            self._filing.distrust(str(error), generation)
            raise self._incomplete() from error
        if found is None and not self._filing.complete:
            raise self._incomplete()
        if self._keys_of != generation and self._filing.complete and (self._reading is None or self._reading.done()):
            self._reading = self._loop.create_task(self._read_keys(generation))
        return found

    async def _read_keys(self, generation: int) -> None:
        """Learn what keys there are: most that are asked for are new, and a question to the file takes its time."""
        try:
            known = await self._loop.run_in_executor(self._readers, self._ask, _all_keys)
        except sqlite3.DatabaseError:  # whoever asks the next question finds out
            return
        if self._filing.generation == generation:
            self._keys.update(known)
            self._keys_of = generation

    async def flushed(self) -> None:
        """Return when everything absorbed so far is in the file.

        Raises ``NotAccepting`` if the disk is full, or if the file is being made anew and that takes longer."""
        waiter: asyncio.Future[None] = self._loop.create_future()
        self._filing.settle(lambda error: self._call_on_loop(_settle, waiter, error))
        while not self._filing.complete and not waiter.done():
            await asyncio.wait({waiter}, timeout=PATIENCE_S)
            if not waiter.done() and not self._filing.complete:
                waiter.cancel()
                raise self._incomplete()
        await waiter
        if not self._filing.complete:
            raise self._incomplete()

    def _incomplete(self) -> errors.NotAccepting:
        return errors.NotAccepting(
            f"the index is being made anew, {self._filing.share:.0%} of it is there", hint="try again soon"
        )

    def _filed(self, seq: int) -> None:
        if self._fresh_keys:
            self._call_on_loop(self._forget_fresh_keys, seq)

    def _forget_fresh_keys(self, seq: int) -> None:
        self._fresh_keys = {key: fresh for key, fresh in self._fresh_keys.items() if fresh[0] > seq}

    def _call_on_loop(self, callback: Callable[..., None], *args: object) -> None:
        with contextlib.suppress(RuntimeError):  # the loop is closed: nobody waits any more
            self._loop.call_soon_threadsafe(callback, *args)

    async def query(self, query: listing.Query) -> listing.Page:
        """List executions, newest first; see ``listing.page``."""
        return await self._read(lambda connection: listing.page(connection, query))

    async def children(self, parent: str) -> list[listing.Summary]:
        """Return the executions that ``parent`` created, in order."""
        return await self._read(lambda connection: listing.children(connection, parent))

    async def counts(self) -> dict[str, int]:
        """Return how many executions have each status that occurs."""
        return await self._read(listing.counts)

    async def by_hour(self, hours: Sequence[str]) -> dict[str, tuple[int, int]]:
        """Return how many executions of flows began in each of the hours, and how many failed."""
        return await self._read(lambda connection: listing.by_hour(connection, hours))

    async def events_of(self, execution: str) -> list[events.Recorded]:
        """Return the record of one execution, in order; empty if there is none.

        Raises ``JournalCorrupt`` if the segments do not have what the index says they have, and ``NotAccepting`` for
        an execution that had ended before the start, while the index is made anew."""

        def read(extents: Sequence[places.Extent]) -> list[events.Recorded]:
            lines = itertools.chain.from_iterable(reading.extent(self._records, *extent) for extent in extents)
            return places.record(line for line in lines if getattr(line.event, "execution", "") == execution)

        known = self._places.find(execution) if self._places is not None and not self._filing.complete else None
        if known is not None:
            return await self._loop.run_in_executor(self._readers, read, known)
        generation = self._filing.generation
        record = await self._read(lambda connection: read(listing.extents(connection, execution)))
        if record and not isinstance(record[0].event, events.ExecutionCreated):
            self._filing.distrust(f"the record of {execution} has no beginning", generation)
            record = await self._read(lambda connection: read(listing.extents(connection, execution)))
        return record

    async def expired(self, terms: expiry.Terms, limit: int) -> list[str]:
        """Return executions that need not be kept; see ``expiry.expired``."""
        return await self._read(lambda connection: expiry.expired(connection, terms, limit))

    async def not_gone(self, executions: Iterable[str]) -> set[str]:
        """Return those that nobody deleted, and no retention did: their lines are needed."""
        return await self._read(lambda connection: expiry.not_gone(connection, executions))

    async def _read(self, question: Callable[[sqlite3.Connection], T]) -> T:
        await self.flushed()
        generation = self._filing.generation
        try:
            return await self._loop.run_in_executor(self._readers, self._ask, question)
        except sqlite3.DatabaseError as error:
            log.warning("index.read_failed", reason=str(error))
            self._filing.distrust(str(error), generation)
        await self.flushed()
        return await self._loop.run_in_executor(self._readers, self._ask, question)

    def _ask(self, question: Callable[[sqlite3.Connection], T]) -> T:
        """In a reader thread, each of which has its own connection."""
        reader: _Reader | None = getattr(self._local, "reader", None)
        if reader is None:
            reader = self._local.reader = _Reader(self._path)
            self._open_readers.append(reader)
        return question(reader.of(self._filing.generation))

    async def close(self) -> None:
        """Write what was absorbed and let go of the file."""
        if self._reading is not None:
            await asyncio.wait([self._reading])
        await asyncio.to_thread(self._filing.stop)
        await asyncio.to_thread(self._readers.shutdown)
        for reader in self._open_readers:
            reader.close()


class _Reader:
    """A connection for reading that follows the file when it is made anew."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._generation = -1
        self._connection: sqlite3.Connection | None = None

    def of(self, generation: int) -> sqlite3.Connection:
        if self._connection is None or generation != self._generation:
            self.close()
            self._connection = tables.connect(self._path, read_only=True)
            self._generation = generation
        return self._connection

    def close(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None


def _all_keys(connection: sqlite3.Connection) -> bloom.Bloom:
    found = bloom.Bloom()
    for count, (key,) in enumerate(connection.execute("SELECT key FROM keys"), 1):
        found.add(key)
        if count % _KEYS_AT_ONCE == 0:
            time.sleep(_PAUSE_S)
    return found


def _settle(waiter: asyncio.Future[None], error: errors.HeadraceError | None) -> None:
    if not waiter.done():
        waiter.set_result(None) if error is None else waiter.set_exception(error)
