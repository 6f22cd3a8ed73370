"""Records read straight from their files, without a daemon and without an index. Nothing is written, not even mended.

Only for looking at a few executions where no daemon runs: each question reads the whole journal. A tail that a crash
left torn ends the reading, as it does at the next start. Blocking, in spite of its one coroutine.
"""

from __future__ import annotations

import asyncio
from pathlib import Path

from .. import errors, events
from . import places, segments


class Shelf:
    """The records in ``directory``."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory

    async def events_of(self, execution: str) -> list[events.Recorded]:
        """Return the record of one execution, in order; empty if there is none. Raises ``JournalCorrupt``."""
        return await asyncio.to_thread(self._read, execution)

    def newest(self) -> str:
        """Return the id of the newest flow execution that somebody asked for; empty if there is none."""
        found = ""
        for line in self._lines(b'"event":"execution.created"'):
            for recorded in segments.unfolded(line):
                event = recorded.event
                if isinstance(event, events.ExecutionCreated) and event.type != "TASK" and not event.parent:
                    found = max(found, event.execution)  # ids begin with their time
        return found

    def _read(self, execution: str) -> list[events.Recorded]:
        lines = self._lines(b'"execution":"%b"' % execution.encode())
        return places.record(line for line in lines if getattr(line.event, "execution", "") == execution)

    def _lines(self, having: bytes) -> list[events.Recorded]:
        found: list[events.Recorded] = []
        for number, path in segments.files(self._directory):
            offset = 0
            try:
                with path.open("rb") as file:
                    for line in file:
                        if having in line and line.endswith(b'"}\n'):
                            found += segments.recorded(line, number, offset)
                        offset += len(line)
            except OSError as error:
                raise errors.JournalCorrupt(f"{path} cannot be read: {error.strerror}") from error
        return found
