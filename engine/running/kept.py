"""What flows keep and share, all of it, folded from the journal: records, locks, messages, how far schedules are, and
whether there is maintenance."""

from __future__ import annotations

from typing import assert_never

import msgspec

from .. import events, scheduled, upkeep
from ..state import locks, maintenance, messages, store, ticks


class Kept(msgspec.Struct, frozen=True):
    """The state in memory. It changes by ``apply`` alone, live and at recovery alike."""

    store: store.Store = msgspec.field(default_factory=store.Store)
    locks: locks.Locks = msgspec.field(default_factory=locks.Locks)
    messages: messages.Messages = msgspec.field(default_factory=messages.Messages)
    ticks: ticks.Ticks = msgspec.field(default_factory=ticks.Ticks)
    maintenance: maintenance.Maintenance = msgspec.field(default_factory=maintenance.Maintenance)

    def apply(self, event: events.StateEvent, at: str) -> None:
        """Change the state as ``event`` says."""
        match event:
            case events.RecordSaved() | events.RecordDeleted() | events.RecordSuperseded() | events.RecordCarried():
                self.store.apply(event, at)
            case events.LockTaken() | events.LockReleased() | events.LockCarried():
                self.locks.apply(event, at)
            case (
                events.MessageCreated()
                | events.MessageAnswered()
                | events.MessageWithdrawn()
                | events.MessageDeleted()
                | events.MessageCarried()
            ):
                self.messages.apply(event, at)
            case (
                scheduled.ScheduleArmed()
                | scheduled.ScheduleDisarmed()
                | scheduled.TicksMissed()
                | scheduled.ScheduleLate()
            ):
                self.ticks.apply(event)
            case upkeep.MaintenanceBegun() | upkeep.MaintenanceEnded():
                self.maintenance.apply(event, at)
            case _:
                assert_never(event)
