"""The journal's writer: events go in line, whole batches become durable together.

Everything appended in one turn of the event loop, and everything that arrives while the disk is busy, is one batch
with one fdatasync. What nobody waits for (a log line, a start) gathers for a few milliseconds, unless something that is
waited for takes it along: an execution costs two syncs, for its creation and its end, however much it says between.
Lines are composed on the loop; one thread writes and syncs them, so that a slow disk never stops the loop. There is
one writer per directory; the daemon's lock sees to that.

A full disk stalls the line and nothing else: what came from outside (``submit``) is refused, what already happened is
kept and tried again until there is room. A failed fsync ends it: ``failed`` is set, every waiter and later caller gets
``JournalFailed``, and the daemon must go, because what is on disk can only be learnt by reading it anew.
"""

from __future__ import annotations

import asyncio
import collections
import contextlib
import queue
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import msgspec
import structlog

from .. import errors, events, moments, ports
from . import recovery, segments, tail
from .segments import Position

log = structlog.get_logger()

SEGMENT_BYTES_MAX = 64 * 1024 * 1024
#: More than this waiting for the disk, and requests from outside are refused.
PENDING_BYTES_MAX = 64 * 1024 * 1024
#: A batch is cut here, so that composing it does not hold the loop for long.
BATCH_BYTES_MAX = 1024 * 1024
RETRY_S = 0.5
#: How long entries that nobody waits for may gather; live logs are this late at the most.
IDLE_S = 0.005
#: CPython's default of 5 ms starves the writer for seconds: a thread that waits for the interpreter counts anew each
#: time a busy loop lets go of it for a moment, so the interval must be shorter than a turn of the loop. Measured
#: beside a loop that is busy all the time, time to durable at p95: 2,093 ms by default, 1.0 ms so.
SWITCH_INTERVAL_S = 0.00002

Listener = Callable[[Sequence[events.Recorded]], None]


class _Entry(msgspec.Struct, frozen=True):
    number: int  # in order of appending, for those who wait
    event: events.AnyEvent
    at: str
    body: bytes
    waiter: asyncio.Future[None] | None  # of a request from outside, which may be refused
    joined: bool  # to the entry before it: both are there after a crash, or neither


class _Group:
    """What is appended together: the events between its beginning and its end. One inside another belongs to that."""

    def __init__(self) -> None:
        self._depth = 0
        self._count = 0

    def takes_another(self) -> bool:
        """Count an event and return whether it has to be there whenever the one before it is."""
        self._count += 1
        return self._depth > 0 and self._count > 1

    def __enter__(self) -> None:
        if not self._depth:
            self._count = 0
        self._depth += 1

    def __exit__(self, *_raised: object) -> None:
        self._depth -= 1


class Journal:
    """The one writer of a directory of segments; see ``ports.Journal``. Made by ``open``, on a running event loop."""

    def __init__(self, end: tail.Tail, position: Position, clock: ports.Clock, segment_bytes_max: int) -> None:
        self._loop = asyncio.get_running_loop()
        #: Why requests from outside are not taken although the disk takes records: what is left is for what runs.
        self.scarce = ""
        #: Set once, when the disk broke its promise.
        self.failed: asyncio.Future[errors.JournalFailed] = self._loop.create_future()
        self._tail = end
        self._position = position
        self._clock = clock
        self._segment_bytes_max = segment_bytes_max
        self._pending: collections.deque[_Entry] = collections.deque()
        self._pending_bytes = 0
        self._flying: list[_Entry] = []
        self._appended = 0
        self._group = _Group()
        self._waiters: collections.deque[tuple[int, asyncio.Future[None]]] = collections.deque()
        self._meanwhile: list[Callable[[], None]] = []  # to be called while the disk works on the next batch
        self._listeners: list[Listener] = []
        self._seal_wanted = False
        self._busy = False  # a flush is scheduled, running, or to be tried again
        self._wanted = 0  # somebody waits for the entries up to this one
        self._idle: asyncio.TimerHandle | None = None  # until entries that nobody waits for are written all the same
        self._stalled = ""  # why the disk takes nothing now
        self._retry: asyncio.TimerHandle | None = None
        self._closing = False
        self._refusal: errors.JournalFailed | None = None
        self._jobs: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._work, name="journal-writer", daemon=True)
        self._thread.start()

    @classmethod
    async def open(
        cls,
        directory: Path,
        clock: ports.Clock,
        *,
        segment_bytes_max: int = SEGMENT_BYTES_MAX,
        recovered: recovery.Recovered | None = None,
    ) -> Journal:
        """Open the journal to append to it; without ``recovered`` it is recovered first. Raises ``JournalCorrupt``."""
        end, position = await asyncio.to_thread(_open_tail, directory, clock, recovered)
        sys.setswitchinterval(min(sys.getswitchinterval(), SWITCH_INTERVAL_S))
        return cls(end, position, clock, segment_bytes_max)

    @property
    def position(self) -> Position:
        """The end of what is durable."""
        return self._position

    @property
    def previous_sha256(self) -> str:
        """The hash in the seal of the segment before the open one: the head of the chain over all sealed ones."""
        return self._tail.sealed_sha256

    @property
    def stalled(self) -> str:
        """Why the disk takes nothing now; empty while it does."""
        return self._stalled

    def in_line(self) -> Iterator[events.AnyEvent]:
        """Yield what is appended and not durable yet."""
        return (entry.event for entry in (*self._flying, *self._pending))

    def seal_soon(self) -> None:
        """Finish the open segment before the next line is written, however small it is."""
        self._seal_wanted = True

    def append(self, event: events.AnyEvent) -> str:
        """Put ``event`` next in line and return its time; see ``ports.Journal``. Raises ``TooLarge``."""
        return self._append(event, None)

    def together(self) -> contextlib.AbstractContextManager[None]:
        """See ``ports.Journal``."""
        return self._group

    def _append(self, event: events.AnyEvent, waiter: asyncio.Future[None] | None) -> str:
        if self._refusal is not None:
            raise self._refusal
        body = msgspec.json.encode(event)
        if len(body) > segments.BODY_BYTES_MAX:
            raise errors.TooLarge(
                f"a record of {len(body):,} bytes is over the limit of {segments.BODY_BYTES_MAX:,}",
                hint="keep large values in blobs",
            )
        if b"\n" in body:
            raise ValueError("a raw line break inside a value would tear the record")
        at = moments.timestamp(self._clock.time())
        self._appended += 1
        joined = self._group.takes_another()
        self._pending.append(_Entry(self._appended, event, at, body, waiter, joined))
        self._pending_bytes += len(body)
        if waiter is not None or self._pending_bytes > BATCH_BYTES_MAX:
            self._wanted = self._appended
            self._hurry()
        elif not self._busy and self._idle is None:
            self._idle = self._loop.call_later(IDLE_S, self._hurry)
        return at

    def _hurry(self) -> None:
        """Flush at the end of this turn of the loop, with all that is appended until then."""
        if self._idle is not None:
            self._idle.cancel()
            self._idle = None
        if not self._busy:
            self._busy = True
            self._loop.call_soon(self._flush)

    async def durable(self) -> None:
        """Return when everything appended so far is on disk. Raises ``JournalFailed`` if it never will be."""
        if self._refusal is not None:
            raise self._refusal
        if self._flying or self._pending:
            waiter = self._loop.create_future()
            self._waiters.append((self._appended, waiter))
            self._wanted = self._appended
            self._hurry()
            await waiter

    async def settled(self) -> None:
        """The same for somebody who only looks: a disk that takes nothing now is not waited for."""
        if not self._stalled:
            await self.durable()

    def meanwhile(self, callback: Callable[[], None]) -> None:
        """Call it when the disk works on what is appended so far; see ``ports.Journal``."""
        if self._pending:
            self._meanwhile.append(callback)
        else:
            self._loop.call_soon(callback)

    async def pulse(self) -> None:
        """Return when the writer has come round: it is not stuck in the disk. Never returns if it is gone for good."""
        beat = self._loop.create_future()
        self._jobs.put(lambda: self._back(_ring, beat))
        await beat

    async def submit(self, event: events.AnyEvent) -> str:
        """Append and return its time when durable. Raises ``NotAccepting`` when the disk is full; see ``ports``."""
        if reason := self._stalled or self.scarce:
            raise _not_accepting(reason)
        if self._pending_bytes > PENDING_BYTES_MAX:
            raise _not_accepting("the disk is too slow for what is asked of it")
        waiter = self._loop.create_future()
        at = self._append(event, waiter)
        await waiter
        return at

    def subscribe(self, listener: Listener) -> Callable[[], None]:
        """Call ``listener`` on the event loop with each batch once it is durable, in order. Returns the way out."""
        self._listeners.append(listener)
        return lambda: self._listeners.remove(listener)

    async def close(self) -> None:
        """Make durable what is in line, then let go. What a full disk refuses even now is lost; waiters are told."""
        self._closing = True
        if self._retry is not None:
            self._retry.cancel()
            self._flush()
        with contextlib.suppress(errors.JournalFailed):
            while self._flying or self._pending:
                await self.durable()
        self._refuse(errors.JournalFailed("the journal is closed"))
        self._jobs.put(None)
        await asyncio.to_thread(self._thread.join)
        self._tail.close()

    # On the loop: a flush hands one job to the thread, which answers by _landed, _turned_over, _refused or _poison; by
    # _under_way before that if there is something to do meanwhile.

    def _flush(self) -> None:
        self._retry = None
        if self._refusal is not None:
            return
        if not self._tail.is_open:
            self._turn_over(self._tail.open_next)
        elif self._position.offset >= self._segment_bytes_max or (self._seal_wanted and self._pending):
            self._seal_wanted = False
            self._turn_over(self._tail.seal)
        elif self._pending:
            self._write_batch()
        else:
            self._busy = False

    def _write_batch(self) -> None:
        position = self._position
        seq, crc, batch = position.seq, position.crc, position.seq + 1
        lines = []
        size = 0
        while self._pending and (size < BATCH_BYTES_MAX or self._pending[0].joined):
            entry = self._pending.popleft()
            seq += 1
            with_next = bool(self._pending) and self._pending[0].joined
            line, crc = segments.compose(seq, batch, entry.at.encode(), entry.body, crc, with_next=with_next)
            self._pending_bytes -= len(entry.body)
            size += len(line)
            lines.append(line)
            self._flying.append(entry)
        data = b"".join(lines)
        landed = Position(position.segment, position.offset + size, seq, crc)
        lengths = [len(line) for line in lines]
        meanwhile, self._meanwhile = self._meanwhile, []
        self._jobs.put(lambda: self._write(data, landed, lengths, meanwhile))

    def _under_way(self, meanwhile: Sequence[Callable[[], None]]) -> None:
        for callback in meanwhile:  # each by itself: one that raises keeps none of the others from theirs
            self._loop.call_soon(callback)

    def _landed(self, position: Position, lengths: list[int]) -> None:
        before, flown = self._position, self._flying
        self._position = position
        self._flying = []
        if self._stalled:
            log.info("journal.resumed")
            self._stalled = ""
        for entry in flown:
            if entry.waiter is not None and not entry.waiter.done():
                entry.waiter.set_result(None)
        self._release()
        # After the waiters' turn, so that what they append next shares the batch.
        self._loop.call_soon(self._go_on, flown[-1].number)
        if self._listeners:
            recorded = _recorded(flown, before, lengths)
            for listener in tuple(self._listeners):
                listener(recorded)

    def _go_on(self, landed: int) -> None:
        """After a batch: the next one at once if somebody waits for it, else when it has gathered a little."""
        if self._wanted > landed or self._closing:
            self._flush()
            return
        self._busy = False
        if self._pending:
            self._idle = self._loop.call_later(IDLE_S, self._hurry)

    def _turn_over(self, step: Callable[[Position, bytes], Position]) -> None:
        position, at = self._position, moments.timestamp(self._clock.time()).encode()
        self._jobs.put(lambda: self._back(self._turned_over, step(position, at)))

    def _turned_over(self, position: Position) -> None:
        self._position = position
        self._flush()

    def _refused(self, reason: str) -> None:
        """The disk is full: drop what may be refused, keep what already happened, try again."""
        if not self._stalled:
            log.warning("journal.stalled", reason=reason, retry_s=RETRY_S)
        self._stalled = reason
        kept = []
        for entry in (*self._flying, *self._pending):
            if entry.waiter is None:
                kept.append(entry)
            elif not entry.waiter.done():
                entry.waiter.set_exception(_not_accepting(reason))
        self._flying = []
        self._pending = collections.deque(kept)
        self._pending_bytes = sum(len(entry.body) for entry in kept)
        self._release()
        if self._closing:
            log.error("journal.records_lost", reason=reason, records=len(kept))
            self._refuse(errors.JournalFailed(f"the journal is closed, the disk took no more: {reason}"))
        else:
            self._retry = self._loop.call_later(RETRY_S, self._flush)

    def _release(self) -> None:
        """Wake those who wait for nothing that is still in line. The last they wait for may have been refused."""
        number = self._pending[0].number - 1 if self._pending else self._appended
        while self._waiters and self._waiters[0][0] <= number:
            waiter = self._waiters.popleft()[1]
            if not waiter.done():
                waiter.set_result(None)

    def _poison(self, error: errors.JournalFailed) -> None:
        log.error("journal.failed", reason=error.message)
        self._refuse(error)
        self.failed.set_result(error)

    def _refuse(self, error: errors.JournalFailed) -> None:
        if self._refusal is not None:
            return
        self._refusal = error
        waiters = [entry.waiter for entry in (*self._flying, *self._pending) if entry.waiter is not None]
        waiters += [waiter for _, waiter in self._waiters]
        self._waiters.clear()
        for waiter in waiters:
            if not waiter.done():
                waiter.set_exception(error)

    # On the writer thread.

    def _work(self) -> None:
        error: errors.JournalFailed | None = errors.JournalFailed(
            "the journal's writer thread died of a defect", hint="its traceback is in the daemon's log"
        )
        try:
            error = self._serve()
        finally:
            if error is not None:
                self._back(self._poison, error)

    def _serve(self) -> errors.JournalFailed | None:
        """Do one job after the other; return None at the end, or why no other may follow."""
        while (job := self._jobs.get()) is not None:
            try:
                job()
            except tail.DiskRefused as refusal:
                self._back(self._refused, str(refusal))
            except errors.JournalFailed as error:
                return error
        return None

    def _write(
        self, data: bytes, position: Position, lengths: list[int], meanwhile: Sequence[Callable[[], None]]
    ) -> None:
        if meanwhile:  # told from here: a loop that is at work would keep this thread from the interpreter before that
            self._back(self._under_way, meanwhile)
        self._tail.write(data)
        self._back(self._landed, position, lengths)
        self._tail.digest(data)

    def _back(self, callback: Callable[..., None], *args: object) -> None:
        with contextlib.suppress(RuntimeError):  # the loop is closed: nobody is left to be told
            self._loop.call_soon_threadsafe(callback, *args)


def _open_tail(directory: Path, clock: ports.Clock, recovered: recovery.Recovered | None) -> tuple[tail.Tail, Position]:
    if recovered is None:
        recovered = recovery.recover(directory)
    position = recovered.position
    end = tail.Tail(directory, recovered.instance)
    if position.segment and recovered.sealed_sha256 is None:
        end.resume(position, recovered.first_seq, recovered.sha256, recovered.previous_sha256)
        return end, position
    if recovered.sealed_sha256 is not None:
        end.resume_sealed(recovered.sealed_sha256)
    try:
        position = end.open_next(position, moments.timestamp(clock.time()).encode())
    except tail.DiskRefused as refusal:
        log.warning("journal.stalled", reason=str(refusal), retry_s=RETRY_S)  # the first flush tries again
    return end, position


def _ring(beat: asyncio.Future[None]) -> None:
    if not beat.done():
        beat.set_result(None)


def _recorded(entries: list[_Entry], before: Position, lengths: list[int]) -> list[events.Recorded]:
    seq, offset = before.seq, before.offset
    batch = []
    for entry, length in zip(entries, lengths, strict=True):
        seq += 1
        batch.append(events.Recorded(seq, entry.at, entry.event, before.segment, offset, length))
        offset += length
    return batch


def _not_accepting(reason: str) -> errors.NotAccepting:
    return errors.NotAccepting(f"the journal takes no new records: {reason}", hint="free disk space")
