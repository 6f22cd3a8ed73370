"""The events of schedules: from when on one counts, and what became of ticks that made no execution.

A tick that made one stands in ``execution.created`` itself, so that neither can be durable without the other. A part
of the vocabulary in ``events``, where everybody finds them.
"""

from __future__ import annotations

from .event import Event


class ScheduleArmed(Event, frozen=True, tag="schedule.armed"):
    """Ticks of this schedule count that come after the moment ``after`` (RFC 3339): it is new, or otherwise now."""

    schedule: str
    after: str
    name: str = ""
    flow: str = ""
    cron: str = ""
    timezone: str = ""
    carried: bool = False  # known before, in a segment that is to go


class ScheduleDisarmed(Event, frozen=True, tag="schedule.disarmed"):
    """There is no such schedule any more, or it is switched off."""

    schedule: str
    name: str = ""


class TicksMissed(Event, frozen=True, tag="ticks.missed"):
    """``count`` ticks, ``first`` to ``last``, made no execution, and will not."""

    schedule: str
    first: str
    last: str
    name: str = ""
    flow: str = ""
    count: int = 1
    reason: str = ""


class ScheduleLate(Event, frozen=True, tag="schedule.late"):
    """The execution of the tick ``due`` did not start, or ``finish``, within the time that the schedule gives it."""

    schedule: str
    due: str
    name: str = ""
    flow: str = ""
    execution: str = ""
    finish: bool = False
    within_s: float = 0.0
