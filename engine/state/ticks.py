"""How far each schedule is: up to which tick everything is dealt with. Pure, folded from events.

A tick is dealt with when its execution was created or when it is on record as missed; either is one event, so after a
crash each tick is one or the other, once. Ticks move forward only; where a schedule begins anew, ``schedule.armed``
says from when on. Changed by ``Kept.apply`` and, for the executions of ticks, by whoever folds or makes those.
"""

from __future__ import annotations

import datetime
from collections.abc import Mapping

import msgspec

from .. import events, moments, scheduled

#: Of each schedule so many lates are remembered, so that nobody is told twice.
_LATES_MAX = 50


class Position(msgspec.Struct):
    """A schedule, and the moment up to which its ticks are dealt with (seconds since the epoch)."""

    after: float
    name: str
    flow: str
    cron: str
    timezone: str
    missed: int = 0  # since the last one that ran
    lates: dict[tuple[str, bool], None] = msgspec.field(default_factory=dict)


class Ticks:
    """The schedules that count."""

    def __init__(self) -> None:
        self._positions: dict[str, Position] = {}

    @property
    def positions(self) -> Mapping[str, Position]:
        """All of them, by key."""
        return self._positions

    def apply(self, event: events.ScheduleEvent) -> None:
        """Change as ``event`` says."""
        match event:
            case scheduled.ScheduleArmed():
                position = Position(seconds(event.after), event.name, event.flow, event.cron, event.timezone)
                self._positions[event.schedule] = position
            case scheduled.ScheduleDisarmed():
                self._positions.pop(event.schedule, None)
            case scheduled.TicksMissed():
                self._move(event.schedule, event.last, event.count)
            case scheduled.ScheduleLate():
                if (position_ := self._positions.get(event.schedule)) is not None:
                    position_.lates[event.due, event.finish] = None
                    while len(position_.lates) > _LATES_MAX:
                        del position_.lates[next(iter(position_.lates))]

    def ran(self, event: events.ExecutionCreated) -> None:
        """Take an execution into account that was created, whatever it is of."""
        if event.terms.schedule and not event.terms.retry:
            self.moved(event.terms.schedule, event.terms.due)

    def moved(self, schedule: str, due: str) -> None:
        """The tick ``due`` has its execution."""
        self._move(schedule, due, 0)

    def carried(self, schedule: str) -> scheduled.ScheduleArmed | None:
        """Return how far a schedule is, so that applying it changes nothing that matters."""
        found = self._positions.get(schedule)
        if found is None:
            return None
        return scheduled.ScheduleArmed(
            schedule=schedule,
            after=moments.timestamp(found.after),
            name=found.name,
            flow=found.flow,
            cron=found.cron,
            timezone=found.timezone,
            carried=True,
        )

    def _move(self, schedule: str, due: str, missed: int) -> None:
        position = self._positions.get(schedule)
        if position is not None and (moment := seconds(due)) > position.after:
            position.after = moment
            position.missed = position.missed + missed if missed else 0


def seconds(moment: str) -> float:
    """Return the seconds since the epoch of a moment as events write it."""
    return datetime.datetime.fromisoformat(moment).timestamp()
