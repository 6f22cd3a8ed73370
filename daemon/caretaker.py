"""Looks after the records while the daemon runs: marks how far they are, reads them again, watches the room left.

None of it is in the way of a request. What people should know, though nothing stops, is in ``notices``. For ``app``.
"""

from __future__ import annotations

import asyncio
from pathlib import Path

import structlog

from ..engine import errors, ports
from ..engine.records import head, journal, marking, recovery, scrub, space

log = structlog.get_logger()


class Caretaker:
    """``start`` it when the journal is open, ``rest`` before the journal is closed, ``close`` it after."""

    def __init__(self, state: Path, lines: journal.Journal, instance: str, clock: ports.Clock) -> None:
        self._marking = marking.Marking(lines, state / head.FILE_NAME, instance, clock)
        self._space = space.Space(state, lines)
        self._scrub = scrub.Scrub(state / "records")
        self._tasks: list[asyncio.Task[None]] = []
        lines.subscribe(self._marking.absorb)

    async def begin(self) -> None:
        """Mark where the journal stands before anybody is promised anything."""
        await self._marking.mark()

    def start(self, group: asyncio.TaskGroup) -> None:
        """Begin to work in ``group``."""
        self._tasks = [
            group.create_task(self._marking.run(), name="marking"),
            group.create_task(self._space.run(), name="space"),
        ]
        self._scrub.start()

    def rest(self) -> None:
        """Leave the task group."""
        for task in self._tasks:
            task.cancel()

    async def close(self) -> None:
        """Mark the end of the closed journal."""
        await asyncio.to_thread(self._scrub.stop)
        await self._marking.close()

    def notices(self) -> list[str]:
        """What somebody should see to, in words."""
        return [*([self._space.low] if self._space.low else []), *self._scrub.damaged.values()]


def known_mark(state: Path, *, accept_loss: bool) -> head.Mark | None:
    """Return what the journal must reach. Raises ``HistoryLost`` if that cannot be known, unless it was accepted."""
    try:
        return head.read(state / head.FILE_NAME)
    except errors.HistoryLost as lost:
        if not accept_loss:
            raise
        log.warning("history.loss_accepted", reason=lost.message)
        return None


def recover(state: Path, visit: recovery.Visit, *, accept_loss: bool) -> recovery.Recovered:
    """Recover the journal of a state directory (blocking); see ``recovery.recover``.

    With ``accept_loss`` it may have gone backwards; what it was is said in the log then."""
    directory, mark = state / "records", known_mark(state, accept_loss=accept_loss)
    recovered = recovery.recover(directory, visit, None if accept_loss else mark)
    if accept_loss and mark is not None:
        try:
            head.check(directory, recovered.instance, recovered.position, mark)
        except errors.HistoryLost as lost:
            log.warning("history.loss_accepted", reason=lost.message)
    if recovered.torn_bytes:
        log.warning("journal.tail_dropped", bytes=recovered.torn_bytes, hint="it was never acknowledged")
    if recovered.unknown_kinds:
        log.warning(
            "journal.kinds_unknown",
            kinds=recovered.unknown_kinds,
            executions=len(recovered.unknown_executions - {""}),
            hint="a newer version wrote them; install that, or a newer one",
        )
    return recovered
