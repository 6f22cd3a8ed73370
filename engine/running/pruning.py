"""Retention: forgets what was kept long enough, and gives its disk back.

A pass has three parts, each of which may die anywhere and is gone on with by the next. Executions whose retention is
over (``records.expiry`` says which) and messages that were closed as long ago are said to be gone. Then the oldest
segments go, as many as hold little that is still needed; that little is carried to the journal's end first
(``carrying``), and a line that vouches for the journal's new beginning is durable before the first of them is removed
(``records.dropping``). Last, files that no line names any more are removed (``records.sweeping``).

Called by the daemon: now and then (``run``), and when somebody asks (``prune``). Nothing waits for it.
"""

from __future__ import annotations

import asyncio
from pathlib import Path

import msgspec
import structlog

from .. import errors, events, moments, ports
from ..records import dropping, expiry, index, journal, segments, sweeping
from . import carrying, kept, live

log = structlog.get_logger()

INTERVAL_S = 3600.0
#: The daemon has other things to do when it starts.
_FIRST_S = 60.0
#: A request's key is known so long at least, whatever becomes of its execution.
KEYS_S = 7 * 86400.0
#: What is carried must be worth it: the segments that go are so many times larger, and it is not more than that.
_WORTH = 4
_CARRIED_BYTES_MAX = 16 * 1024 * 1024
#: An open segment is finished after so long, however small: what is in it can go only then.
_SEGMENT_S = 86400.0
_EXECUTIONS_AT_ONCE = 2000
#: Of these one line is made.
_EXECUTIONS_A_LINE = 500
_PAUSE_S = 0.02
_ALL = 1 << 31


class Pruned(msgspec.Struct, frozen=True, kw_only=True):
    """What a pass did, or would do: ``bytes`` of ``segments``, and ``file_bytes`` of ``files`` beside them."""

    executions: int = 0
    messages: int = 0
    segments: int = 0
    bytes: int = 0
    files: int = 0
    file_bytes: int = 0
    dry_run: bool = False


class Pruner:
    """The one who removes records. ``keep_s``: how long executions are kept that say nothing else; 0 is for ever."""

    def __init__(
        self,
        directory: Path,
        lines: journal.Journal,
        ledger: live.Ledger,
        archive: index.Index,
        state: kept.Kept,
        carrier: carrying.Carrier,
        sweeper: sweeping.Sweeper,
        flows: ports.Flows,
        clock: ports.Clock,
        keep_s: float,
    ) -> None:
        self._directory = directory
        self._journal = lines
        self._ledger = ledger
        self._archive = archive
        self._state = state
        self._carrier = carrier
        self._sweeper = sweeper
        self._flows = flows
        self._clock = clock
        self.keep_s = keep_s
        self._turn = asyncio.Lock()

    async def run(self, interval_s: float = INTERVAL_S, first_s: float = _FIRST_S) -> None:
        """Make a pass now and then for ever, until cancelled."""
        await asyncio.sleep(first_s)
        while True:
            if not self._journal.stalled:
                try:
                    await self.prune()
                except errors.JournalFailed:
                    raise  # the daemon has to go
                except (errors.HeadraceError, OSError) as error:
                    log.warning("records.prune_failed", reason=str(error))
            await asyncio.sleep(interval_s)

    async def prune(self, keep_s: float | None = None, *, dry_run: bool = False, at_once: bool = False) -> Pruned:
        """Make a pass, or say what one would do; ``keep_s`` counts instead of the usual, for what has none of its own.

        ``at_once``: what goes from the segment that still grows gives its disk back now, not after a day.
        Raises ``NotAccepting`` while the index is behind or the disk is full. If it dies, the next one goes on."""
        if self._journal.stalled:
            raise errors.NotAccepting(f"the journal takes nothing now: {self._journal.stalled}", hint="free some space")
        async with self._turn:
            terms = self._terms(self.keep_s if keep_s is None else keep_s)
            if dry_run:
                return await self._foreseen(terms)
            if at_once and await self._archive.expired(terms, 1):
                self._journal.seal_soon()  # with the first line about what is forgotten, which begins the next segment
            executions = await self._forget_executions(terms)
            messages = self._forget_messages(terms)
            await self._journal.durable()
            done = await self._drop()
            swept = await self._sweep()
            await self._finish_old_segment()
            done = msgspec.structs.replace(
                done, executions=executions, messages=messages, files=swept.files, file_bytes=swept.bytes
            )
            if done != Pruned():
                log.info("records.pruned", **msgspec.structs.asdict(done))
            return done

    def _terms(self, keep_s: float) -> expiry.Terms:
        now = self._clock.time()
        flows = self._flows.current().flows.values()
        return expiry.Terms(
            now=moments.timestamp(now),
            ended_before=moments.timestamp(max(0.0, now - keep_s)) if keep_s else "",
            counts={flow.name: flow.metadata.retention_count for flow in flows if flow.metadata.retention_count},
        )

    async def _foreseen(self, terms: expiry.Terms) -> Pruned:
        gone = {id_ for id_ in await self._archive.expired(terms, _ALL) if self._ledger.find(id_) is None}
        prefix, count = await self._oldest(gone)
        return Pruned(
            executions=len(gone),
            messages=len(self._closed_messages(terms)),
            segments=count,
            bytes=prefix.size,
            dry_run=True,
        )

    # -- what is over -----------------------------------------------------------------------------------------------

    async def _forget_executions(self, terms: expiry.Terms) -> int:
        count = 0
        while True:
            found = await self._archive.expired(terms, _EXECUTIONS_AT_ONCE)
            gone = [id_ for id_ in found if self._ledger.find(id_) is None]
            for start in range(0, len(gone), _EXECUTIONS_A_LINE):
                some = tuple(gone[start : start + _EXECUTIONS_A_LINE])
                self._journal.append(events.ExecutionsPruned(executions=some))
            for id_ in gone:
                if (state := self._ledger.recent(id_)) is not None:
                    self._ledger.forget(state)
            if not gone:
                return count
            count += len(gone)
            await self._journal.durable()
            await asyncio.sleep(_PAUSE_S)

    def _forget_messages(self, terms: expiry.Terms) -> int:
        closed = self._closed_messages(terms)
        for message in closed:
            event = events.MessageDeleted(message=message, by="retention")
            self._state.messages.apply(event, self._journal.append(event))
        return len(closed)

    def _closed_messages(self, terms: expiry.Terms) -> list[str]:
        return [
            message.id
            for message in self._state.messages.all()
            if not message.pending
            and (message.answered_at or message.created_at) < terms.ended_before
            and self._ledger.find(message.execution) is None
        ]

    # -- what lies on the disk --------------------------------------------------------------------------------------

    async def _drop(self) -> Pruned:
        """Let the oldest segments go that hold little of use."""
        prefix, count = await self._oldest(set())
        if not count:
            return Pruned()
        try:
            await self._carrier.carry(prefix)
        except carrying.NotNow as reason:
            log.info("records.prune_postponed", reason=str(reason))
            return Pruned()
        self._journal.append(await asyncio.to_thread(dropping.tombstone, self._directory, prefix.segment))
        await self._journal.durable()
        await self._archive.flushed()
        freed = await asyncio.to_thread(dropping.unlink, self._directory, prefix.segment)
        return Pruned(segments=count, bytes=freed)

    async def _oldest(self, gone: set[str]) -> tuple[carrying.Prefix, int]:
        """Return the largest run of oldest segments that is worth dropping, and how many they are.

        ``gone``: executions that are to be taken for gone."""
        since = moments.timestamp(max(0.0, self._clock.time() - KEYS_S))
        found, best = carrying.Prefix(), 0
        seen: list[tuple[dropping.Contents, set[str]]] = []
        for number, path in await asyncio.to_thread(segments.files, self._directory):
            if number >= self._journal.position.segment:
                break  # it grows, or nothing follows it yet
            contents = await asyncio.to_thread(dropping.contents, number, path, since)
            if contents.unknown:
                log.info("records.prune_postponed", reason=f"{path.name} has lines of a newer version")
                break
            alive = await self._archive.not_gone(contents.begun - gone)
            found.add(contents, alive)
            contents.executions = {id_: lines for id_, lines in contents.executions.items() if id_ in found.alive}
            seen.append((contents, alive))
            cost = self._carrier.cost(found)
            if cost * _WORTH <= found.size:
                best = len(seen)
            if cost > _CARRIED_BYTES_MAX:
                break
        chosen = carrying.Prefix()
        for contents, alive in seen[:best]:
            chosen.add(contents, alive)
        return chosen, best

    async def _sweep(self) -> sweeping.Swept:
        old = await asyncio.to_thread(self._sweeper.find)
        await self._journal.durable()
        return await asyncio.to_thread(self._sweeper.sweep, old)

    async def _finish_old_segment(self) -> None:
        began = await asyncio.to_thread(dropping.began_at, self._directory, self._journal.position.segment)
        if began and began < moments.timestamp(self._clock.time() - _SEGMENT_S):
            self._journal.seal_soon()
