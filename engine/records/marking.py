"""Keeps ``HEAD`` up to date beside a running journal, and says its head in the log, where nobody can take it back.

A mark is written after each rotation, every ten seconds if something moved, and when the journal is closed: always in a
thread and only for what the journal calls durable. A mark that cannot be written costs nobody anything but certainty:
it is said once and tried again.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Sequence
from pathlib import Path

import structlog

from .. import durable, events, ports
from . import head, journal
from .segments import Position

log = structlog.get_logger()

#: An end that is durable is marked so soon.
MARK_S = 10.0
#: So often the head of the chain of hashes is told to the log.
TOLD_S = 24 * 3600.0


class Marking:
    """``run`` it beside the journal; ``close`` it after the journal."""

    def __init__(self, lines: journal.Journal, path: Path, instance: str, clock: ports.Clock) -> None:
        self._lines = lines
        self._head = head.Head(path)
        self._instance = instance
        self._clock = clock
        self._marked = Position()
        self._segment = 0
        self._told_at = float("-inf")
        self._failing = False
        self._rotated = asyncio.Event()

    def absorb(self, batch: Sequence[events.Recorded]) -> None:
        """Take notice of a durable batch; returns at once."""
        if batch[-1].segment != self._segment:
            self._segment = batch[-1].segment
            self._rotated.set()

    async def run(self) -> None:
        """Mark what is durable, until cancelled."""
        while True:
            await self.mark()
            self._rotated.clear()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(MARK_S):
                    await self._rotated.wait()

    async def mark(self) -> None:
        """Mark the end of the journal now, if it moved; on return it is in ``HEAD``, or the log says why not."""
        position = self._lines.position
        if position == self._marked or not position.segment:
            return
        try:
            await durable.whole(self._head.write, self._instance, position)
        except OSError as error:
            if not self._failing:
                log.warning("head.write_failed", reason=error.strerror, retry_s=MARK_S)
            self._failing = True
            return
        self._failing = False
        self._marked = position
        if self._clock.monotonic() - self._told_at >= TOLD_S:
            self._told_at = self._clock.monotonic()
            log.info(
                "journal.head",
                instance=self._instance,
                segment=position.segment,
                seq=position.seq,
                crc=f"{position.crc:08x}",
                previous_sha256=self._lines.previous_sha256,
            )

    async def close(self) -> None:
        """Mark the last end, for good."""
        await self.mark()
        self._head.close()
