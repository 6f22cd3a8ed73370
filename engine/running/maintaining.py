"""Maintenance: what is asked for is taken and stays QUEUED, what has begun goes on, until somebody says it is over.

Who waits is an execution that no call made and that has not begun: children are never held, so what runs comes to
its end. They are queued like any others, in their lanes, and durable. Whether there is maintenance is an event, so a
restart changes nothing about it. Called by the API, and by the dispatcher for whoever would begin.
"""

from __future__ import annotations

from collections.abc import Callable

import structlog

from .. import errors, model, ports, upkeep
from ..lifecycle import Status
from ..state import maintenance
from . import live

log = structlog.get_logger()


class Maintaining:
    """``admit`` lets an execution begin when there is room; ``state`` says how it is now."""

    def __init__(
        self, state: maintenance.Maintenance, journal: ports.Journal, admit: Callable[[live.Live], None]
    ) -> None:
        self.state = state
        self._journal = journal
        self._admit = admit
        self._held: dict[str, live.Live] = {}  # in their order

    @property
    def waiting(self) -> int:
        """How many are held back now."""
        return len(self._held)

    def concerns(self, state: model.Execution) -> bool:
        """Return whether that execution does not begin for now."""
        fresh = state.status is Status.QUEUED and not state.attempt and not state.parent
        return fresh and bool(self.state.since)

    def why(self, state: model.Execution) -> str:
        """Return why that execution does not begin, as people are told; empty if it may."""
        return str(self.state) if self.concerns(state) else ""

    def holds(self, subject: live.Live) -> bool:
        """Return whether ``subject`` must not begin now. It is let in when maintenance ends."""
        if not self.concerns(subject.state):
            return False
        if subject.state.id not in self._held:
            self._held[subject.state.id] = subject
            subject.watchers.append(self._gave_up)
        return True

    def _gave_up(self, state: model.Execution) -> None:
        """It has ended, while it waited or later."""
        self._held.pop(state.id, None)

    async def begin(self, reason: str, by: str) -> None:
        """Let nothing new begin; on return that is durable. Raises ``NotAccepting`` when the disk is full."""
        await self._change(upkeep.MaintenanceBegun(reason=reason, by=by))
        log.warning("maintenance.begun", reason=reason or None, by=by)

    async def end(self, by: str) -> None:
        """Let begin what waited, in its order; on return that is durable. Raises ``NotAccepting`` likewise."""
        if not self.state.since:
            return
        await self._change(upkeep.MaintenanceEnded(by=by))
        log.warning("maintenance.ended", by=by, waiting=self.waiting)
        held, self._held = self._held, {}
        for subject in held.values():
            self._admit(subject)

    async def _change(self, event: upkeep.MaintenanceBegun | upkeep.MaintenanceEnded) -> None:
        """At once, so that what is carried meanwhile says the same; a crash before it is durable takes it back."""
        if self._journal.stalled:
            raise errors.NotAccepting(self._journal.stalled, hint="free disk space")
        self.state.apply(event, self._journal.append(event))
        await self._journal.durable()
