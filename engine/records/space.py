"""Room on the disk: people are warned in time, requests are refused before it is gone, what runs can record its end.

A file of ballast is kept beside the journal. When the disk refuses the journal it is given up, so that executions under
way find room for their last records; requests from outside are refused from then on until there is room for the ballast
again. Bounds are shares of the file system, and amounts for large ones: a tenth of two terabytes is no shortage.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
from pathlib import Path

import msgspec
import structlog

from .. import durable
from . import journal

log = structlog.get_logger()

FILE_NAME = "ballast"
CHECK_S = 1.0
WARN_SHARE, WARN_BYTES = 0.10, 2 * 1024**3
REFUSE_SHARE, REFUSE_BYTES = 0.05, 1024**3
BALLAST_SHARE, BALLAST_BYTES = 0.02, 64 * 1024**2
#: Refusing ends only with so much more than what it begins with, so that it does not come and go.
_AGAIN = 1.2
_NO_ROOM = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})


class Bounds(msgspec.Struct, frozen=True):
    """What counts as scarce on one file system, in bytes."""

    warn: int
    refuse: int
    ballast: int

    @classmethod
    def of(cls, total_bytes: int) -> Bounds:
        """Return the bounds of a file system of that size."""
        return cls(
            warn=min(int(total_bytes * WARN_SHARE), WARN_BYTES),
            refuse=min(int(total_bytes * REFUSE_SHARE), REFUSE_BYTES),
            ballast=min(int(total_bytes * BALLAST_SHARE), BALLAST_BYTES),
        )


class Space:
    """``run`` it beside the journal, whose ``scarce`` it sets. ``low`` is a warning for people or empty."""

    def __init__(self, directory: Path, lines: journal.Journal) -> None:
        self._directory = directory
        self._ballast = directory / FILE_NAME
        self._lines = lines
        self.low = ""

    async def run(self) -> None:
        """Look at the disk every second, until cancelled."""
        while True:
            await self.look()
            await asyncio.sleep(CHECK_S)

    async def look(self) -> None:
        """Look now, and do what has to be done."""
        if self._lines.stalled:
            self._refuse(f"the disk took no more: {self._lines.stalled}")  # first: what is given up is for what runs
            await asyncio.to_thread(self._release)
            return
        factor = _AGAIN if self._lines.scarce else 1
        try:
            free, bounds, kept = await asyncio.to_thread(self._measure, factor)
        except OSError:  # a disk that is gone the journal notices by itself
            return
        if free < bounds.refuse * factor:
            self._refuse(f"only {_megabytes(free)} are free on the disk, and what runs needs them")
        elif kept:
            self._accept()
        else:
            self._refuse(f"only {_megabytes(free)} are free on the disk, not enough for its reserve")
        self._warn(free, bounds)

    def _refuse(self, reason: str) -> None:
        if not self._lines.scarce:
            log.warning("disk.refusing", reason=reason)
        self._lines.scarce = reason

    def _accept(self) -> None:
        if self._lines.scarce:
            self._lines.scarce = ""
            log.info("disk.accepting")

    def _warn(self, free: int, bounds: Bounds) -> None:
        low = f"only {_megabytes(free)} are free on the disk" if free < bounds.warn else ""
        if low and not self.low:
            log.warning("disk.low", free_bytes=free, warn_bytes=bounds.warn, refuse_bytes=bounds.refuse)
        self.low = low

    # In a thread: one way there and back for each look, since a daemon at rest does little else.

    def _measure(self, factor: float) -> tuple[int, Bounds, bool]:
        """Return what is free, the bounds, and whether there is enough and the ballast is kept of it."""
        found = os.statvfs(self._directory)
        free, bounds = found.f_bavail * found.f_frsize, Bounds.of(found.f_blocks * found.f_frsize)
        enough = bounds.refuse * factor
        return free, bounds, free >= enough and self._keep_ballast(free - int(enough), bounds.ballast)

    def _release(self) -> None:
        """Give the ballast up. It may be half made: whatever there is of it is room."""
        with contextlib.suppress(OSError):
            size = self._ballast.stat().st_size
            self._ballast.unlink()
            log.warning("ballast.released", bytes=size)

    def _keep_ballast(self, room: int, size: int) -> bool:
        """Return whether the ballast is there, or need not be; make it if there is ``room`` for it."""
        with contextlib.suppress(OSError):
            if self._ballast.stat().st_size == size:
                return True
        if room < size:
            return False
        try:
            fd = os.open(self._ballast, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
            try:
                os.posix_fallocate(fd, 0, max(size, 1))
                os.fsync(fd)
            finally:
                os.close(fd)
            durable.names(self._directory)
        except OSError as error:
            with contextlib.suppress(OSError):
                self._ballast.unlink()
            return error.errno not in _NO_ROOM  # a file system that has no such thing does without
        return True


def _megabytes(size: int) -> str:
    return f"{size / 1024**2:,.1f} MiB"
