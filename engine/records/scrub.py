"""Reads all sealed segments again and again, slowly, so that a disk that forgets is noticed while there are backups.

One round takes a day at the most. What it finds is said once in the log (``segment.damaged``) and stands in ``damaged``
until a later round finds the segment good again; nothing is ever changed or removed. A thread of the lowest priority
does it: hashing lets go of the interpreter, and between portions it sleeps.
"""

from __future__ import annotations

import contextlib
import os
import threading
import time
from collections.abc import Callable
from pathlib import Path

import structlog

from . import seals, segments

log = structlog.get_logger()

#: A round begins so often; reading is spread over less than that.
ROUND_S = 20 * 3600.0
#: So fast at least: a daemon that is restarted every hour still gets through some gigabytes.
BYTES_PER_S_MIN = 8 * 1024 * 1024
_LOWEST_PRIORITY = 19


class Scrub:
    """``start`` it, look at ``damaged``, ``stop`` it."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._work, name="scrub", daemon=True)
        #: What is wrong with which segment, by the name of its file. Replaced whole, so any thread may read it.
        self.damaged: dict[str, str] = {}

    def start(self) -> None:
        """Begin, now."""
        self._thread.start()

    def stop(self) -> None:
        """End, at the next portion (blocking)."""
        self._stopping.set()
        if self._thread.ident is not None:
            self._thread.join()

    def _work(self) -> None:
        with contextlib.suppress(OSError):
            os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), _LOWEST_PRIORITY)
        while not self._stopping.is_set():
            began = time.monotonic()
            self.round()
            self._stopping.wait(max(0.0, ROUND_S - (time.monotonic() - began)))

    def round(self) -> None:
        """Read every sealed segment once (blocking)."""
        files = segments.files(self._directory)[:-1]
        found: dict[str, str] = {}
        total = 0
        for _, path in files:
            with contextlib.suppress(OSError):
                total += path.stat().st_size
        pause = self._pacer(max(BYTES_PER_S_MIN, total / (ROUND_S * 0.8)))
        for _, path in files:
            try:
                problem = seals.problem(path, pause)
            except FileNotFoundError:  # it was allowed to go meanwhile
                continue
            except OSError as error:  # a block the disk cannot read is what this looks for
                problem = f"{path} cannot be read: {error.strerror}"
            if self._stopping.is_set():
                return
            if problem:
                found[path.name] = problem
                if path.name not in self.damaged:
                    log.error(
                        "segment.damaged", reason=problem, hint="restore the file from a backup while you have it"
                    )
        self.damaged = found

    def _pacer(self, bytes_per_s: float) -> Callable[[int], None]:
        def pause(read_bytes: int) -> None:
            self._stopping.wait(read_bytes / bytes_per_s)

        return pause
