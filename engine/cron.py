"""Cron expressions: when a schedule is due. Pure.

Owns: the five fields and their shorthands (``@daily``, ``H``), the time zone they are read in, and what daylight saving
does to them: as Debian's cron(8) has it. A job at fixed times runs once a day whatever the clocks do (what the spring
switch skips comes right after it, what the autumn switch repeats is not repeated); one whose minute or hour begins with
``*`` goes by elapsed time. Refuses: six fields, for cron programs do not agree where the seconds stand.

Moments are seconds since the epoch. Called by whoever checks a schedule and by ``running.schedules``.
"""

from __future__ import annotations

import datetime
import hashlib
import itertools
import re
import zoneinfo
from collections.abc import Iterator

import cronsim

SHORTHANDS = {
    "@yearly": "0 0 1 1 *",
    "@annually": "0 0 1 1 *",
    "@monthly": "0 0 1 * *",
    "@weekly": "0 0 * * 0",
    "@daily": "0 0 * * *",
    "@midnight": "0 0 * * *",
    "@hourly": "0 * * * *",
}
_CHARACTERS_MAX = 200
#: The smallest and the largest number that ``H`` stands for, by field; every month has its 28th.
_HASHED = ((0, 59), (0, 23), (1, 28), (1, 12), (0, 6))
_H = re.compile(r"H(?:\((\d{1,2})-(\d{1,2})\))?(?:/(\d{1,2}))?", re.IGNORECASE)
_FIELDS = ("minute", "hour", "day of the month", "month", "day of the week")

#: The clocks of all other places move by whole hours.
_HALF_HOURS = frozenset({"Australia/Lord_Howe", "Australia/LHI"})


class _InHalfHours(cronsim.CronSim):
    """Goes step by step where the clock may move by half an hour: its own steps, of an hour, pass over that."""

    def advance_hour(self) -> bool:
        if self.dt.hour in self.hours:
            return False
        self.dt = self.dt.replace(minute=0, second=0)
        while self.dt.hour not in self.hours:
            self.tick(seconds=1800)
            if (self.dt.hour, self.dt.minute) == (0, 0):  # the day is another one
                break
        return True

    def advance_minute(self) -> bool:
        if self.dt.minute in self.minutes:
            return False
        self.dt = self.dt.replace(second=0)
        while self.dt.minute not in self.minutes:
            self.tick(seconds=60)
            if self.dt.minute in (0, 30):  # the hour may be another one
                break
        return True


class Invalid(ValueError):
    """A cron expression or a zone that cannot be meant, in words that follow its name."""


class Cron:
    """When something is due. ``seed`` decides what each ``H`` stands for: the same seed, the same moments."""

    __slots__ = ("_expanded", "text", "zone")

    def __init__(self, text: str, zone: str = "UTC", seed: str = "") -> None:
        """Raises ``Invalid``."""
        self.text = text.strip()
        self.zone = zone_called(zone)
        self._expanded = _expanded(self.text, seed)
        try:
            first = self.after(0.0)
        except cronsim.CronSimError as error:
            said = str(error)
            raise Invalid(f"is no cron expression: {said[:1].lower()}{said[1:]}") from None
        if first is None:
            raise Invalid("is never due")

    def after(self, moment: float) -> float | None:
        """Return the first moment after ``moment`` at which it is due; None if there is none in the next 50 years."""
        return next(self.since(moment), None)

    def since(self, moment: float) -> Iterator[float]:
        """Yield the moments after ``moment`` at which it is due, each later than the one before, without an end."""
        last = moment
        kind = _InHalfHours if getattr(self.zone, "key", "") in _HALF_HOURS else cronsim.CronSim
        for due in kind(self._expanded, datetime.datetime.fromtimestamp(moment, self.zone)):
            found = due.timestamp()
            if found > last:  # a time that the autumn switch repeats is told for its first pass, which may be over
                last = found
                yield found

    def upcoming(self, moment: float, count: int) -> list[float]:
        """Return the next ``count`` moments after ``moment``."""
        return list(itertools.islice(self.since(moment), count))

    def explained(self) -> str:
        """Return it in English words."""
        began = datetime.datetime(2024, 1, 1, tzinfo=self.zone)
        return str(cronsim.CronSim(self._expanded, began).explain())

    def local(self, moment: float) -> str:
        """Return a moment as RFC 3339 in its zone, to the second."""
        return datetime.datetime.fromtimestamp(moment, self.zone).isoformat(timespec="seconds")


def zone_called(name: str) -> datetime.tzinfo:
    """Return the IANA zone of that name; raises ``Invalid``."""
    if name in ("UTC", "Etc/UTC"):
        return datetime.UTC
    try:
        if re.fullmatch(r"[A-Za-z][\w+-]*(?:/[\w+-]+)*", name):
            return zoneinfo.ZoneInfo(name)
    except (zoneinfo.ZoneInfoNotFoundError, OSError, ValueError):
        pass
    raise Invalid('is no time zone that is known here; write it like "Europe/Vienna"')


def _expanded(text: str, seed: str) -> str:
    """Return the five fields, with numbers for each ``H``."""
    if text.startswith("@"):
        if text.lower() not in SHORTHANDS:
            raise Invalid(f"is no shorthand; there are {', '.join(sorted(SHORTHANDS))}")
        return SHORTHANDS[text.lower()]
    fields = text.split()
    if len(fields) != len(_FIELDS) or len(text) > _CHARACTERS_MAX:
        raise Invalid('has not five fields; write it like "30 2 * * mon-fri": minute, hour, day, month, day of week')
    return " ".join(
        ",".join(_term(term, place, seed) for term in field.split(",")) for place, field in enumerate(fields)
    )


def _term(term: str, place: int, seed: str) -> str:
    """Put the number that belongs to ``seed`` in the place of an ``H``, ``H(0-29)``, ``H/15`` or ``H(0-29)/10``."""
    found = _H.fullmatch(term)
    if found is None:
        return term
    least, most = _HASHED[place]
    if found[1]:
        low, high = int(found[1]), int(found[2])
        if not least <= low <= high <= most:
            raise Invalid(f"has {term} for the {_FIELDS[place]}, which goes from {least} to {most} there")
        least, most = low, high
    step = int(found[3] or 0)
    if found[3] and not 1 <= step <= most - least + 1:
        raise Invalid(f"has {term} for the {_FIELDS[place]}: the step is too large, or none")
    digest = int.from_bytes(hashlib.sha256(f"{place} {seed}".encode("utf-8", "surrogatepass")).digest()[:8])
    first = least + digest % (step or most - least + 1)
    return f"{first}-{most}/{step}" if step else str(first)
