"""A thousand schedules through two years, with a daemon that dies and is away, and a clock that is set.

What ran and what was missed is compared with a reading of cron's manual that looks at every minute: nothing twice,
nothing left out, nothing early.
"""

from __future__ import annotations

import collections
import datetime
import random
import zoneinfo
from pathlib import Path

import pytest

from headrace.engine import cron, events, model, policy, scheduled
from headrace.engine.records import recovery
from tests.engine.running import timetables
from tests.engine.running.timetables import flow, opened
from tests.faults.conftest import SCALE, Suite
from tests.support.clocks import Clock

ZONES = ("UTC", "Europe/Vienna", "America/New_York", "Australia/Lord_Howe", "America/Santiago", "Pacific/Auckland")
BEGIN = datetime.datetime(2026, 1, 1, tzinfo=datetime.UTC).timestamp()
DAY = 86400.0
YEARS = 2


def expression(chance: random.Random) -> str:
    """A cron expression that is due some hundred times a year at most a few times a day."""
    minute = chance.choice(
        [str(chance.randrange(60)), "0", "*/30", f"{chance.randrange(30)},{30 + chance.randrange(30)}"]
    )
    hour = chance.choice([str(chance.randrange(24)), "1", "2", "3", "*/6", "0", "23", "1-3", "*"])
    day, weekday = chance.choice(
        [("*", "*"), ("*", "*"), (str(chance.randrange(1, 32)), "*"), ("*", "1-5"), ("1", "6")]
    )
    if hour == "*":
        day, weekday = str(chance.randrange(1, 29)), "*"
    return f"{minute} {hour} {day} * {weekday}"


def numbers(field: str, least: int, most: int) -> set[int]:
    found = set()
    for term in field.split(","):
        span, _, step = term.partition("/")
        first, _, last = (f"{least}-{most}" if span == "*" else span).partition("-")
        found |= set(range(int(first), int(last or first) + 1, int(step or 1)))
    return found


def manual(text: str, zone: str, begin: float, end: float) -> set[float]:
    """What cron(8) of Debian says: jobs at fixed times by the calendar, others by every minute that passes."""
    minute, hour, day, _, weekday = text.split()
    minutes, hours = numbers(minute, 0, 59), numbers(hour, 0, 23)
    days, weekdays = numbers(day, 1, 31), {n % 7 for n in numbers(weekday, 0, 7)}
    either = not day.startswith("*") and not weekday.startswith("*")

    def fits(date: datetime.date) -> bool:
        one, other = date.day in days, date.isoweekday() % 7 in weekdays
        return (one or other) if either else (one and other)

    place = zoneinfo.ZoneInfo(zone)
    found = set()
    first = datetime.datetime.fromtimestamp(begin, place).date() - datetime.timedelta(days=1)
    last = datetime.datetime.fromtimestamp(end, place).date() + datetime.timedelta(days=1)
    fixed = zone != "UTC" and not minute.startswith("*") and not hour.startswith("*")
    for ordinal in range(first.toordinal(), last.toordinal() + 1):
        date = datetime.date.fromordinal(ordinal)
        if not fits(date):
            continue
        for h in hours:
            for m in minutes:
                naive = datetime.datetime(date.year, date.month, date.day, h, m)
                for fold in (0, 1):
                    due = naive.replace(tzinfo=place, fold=fold)
                    back = datetime.datetime.fromtimestamp(due.timestamp(), place)
                    if (back.replace(tzinfo=None), back.fold) == (naive, fold):
                        found.add(due.timestamp())
                        if fixed:
                            break  # not once more in the hour that comes again
                    elif fixed and back.replace(tzinfo=None) != naive and fold == 0:
                        found.add(after_the_gap(naive, place))  # it is skipped: right after that
    return {tick for tick in found if begin < tick <= end}


def after_the_gap(naive: datetime.datetime, place: zoneinfo.ZoneInfo) -> float:
    while True:
        naive += datetime.timedelta(minutes=1)
        due = naive.replace(tzinfo=place)
        if datetime.datetime.fromtimestamp(due.timestamp(), place).replace(tzinfo=None) == naive:
            return due.timestamp()


@pytest.mark.timeout(900 * int(max(1, SCALE)))
def test_a_thousand_expressions_through_two_years_are_due_as_the_manual_says(suite: Suite) -> None:
    ticks = 0
    for _ in suite.times(1000):
        text, zone = expression(suite.random), suite.random.choice(ZONES)
        with suite.attempt(f"{text} in {zone}"):
            found = []
            for tick in cron.Cron(text, zone).since(BEGIN):
                if tick > BEGIN + YEARS * 365 * DAY:
                    break
                found.append(tick)
            ticks += len(found)
            assert found == sorted(manual(text, zone, BEGIN, BEGIN + YEARS * 365 * DAY))
    suite.note = f"{ticks:,} ticks"


@pytest.mark.timeout(900 * int(max(1, SCALE)))
async def test_a_daemon_that_dies_and_a_clock_that_is_set_leave_no_tick_out_and_do_none_twice(
    tmp_path: Path, suite: Suite
) -> None:
    ticks = 0
    for number in suite.times(20):
        with suite.attempt(number):
            ticks += await _life(tmp_path / str(number), suite.random)
    suite.note = f"{ticks:,} ticks"


async def _life(folder: Path, chance: random.Random) -> int:
    catchup = policy.Catchup(policy=chance.choice(["none", "latest", "all"]), max=10_000, window_s=1000 * DAY)
    said = [
        policy.Schedule(key=str(n), cron=expression(chance), timezone=chance.choice(ZONES), catchup=catchup)
        for n in range(chance.randrange(1, 30))
    ]
    flows, clock, directory = [flow("f", *said)], Clock(BEGIN + chance.uniform(0, 365) * DAY), folder / "0"
    began = clock.now_s
    for life in range(chance.randrange(2, 6)):
        left = folder / str(life + 1)
        batches = chance.randrange(1, 60)

        def copy(_: object, left: Path = left, directory: Path = directory) -> None:
            nonlocal batches
            batches -= 1
            if batches == 0:
                timetables.copied(directory, left)

        async with opened(directory, clock, *flows) as table:
            table.archive.journal.subscribe(copy)
            for _ in range(chance.randrange(1, 4)):
                await table.until(clock.now_s + chance.uniform(0.1, 6) * DAY, step_s=3600.0)
                clock.now_s += chance.choice([0.0, 0.0, -1200.0, 7200.0])
                early = [one for one in table.begun if _due(one) > clock.now_s + 1200.0]
                assert early == [], "a tick came early"
            await table.archive.journal.durable()
        directory = left if left.exists() else directory
        clock.now_s += chance.choice([0.0, 30.0, 3 * 3600.0, 4 * DAY])
    clock.now_s += 3600.0  # after whatever the clock was set back by
    async with opened(directory, clock, *flows) as table:
        await table.schedules.look()
        await table.archive.journal.durable()
    return _compare(directory, said, began, clock.now_s)


def _due(state: model.Execution) -> float:
    return datetime.datetime.fromisoformat(state.terms.due).timestamp()


def _compare(directory: Path, said: list[policy.Schedule], began: float, end: float) -> int:
    ran: list[tuple[str, str]] = []
    missed: collections.Counter[str] = collections.Counter()

    def visit(recorded: events.Recorded) -> None:
        match recorded.event:
            case events.ExecutionCreated() as event:
                ran.append((event.terms.schedule, event.terms.due))
            case scheduled.TicksMissed() as event:
                missed[event.schedule] += event.count

    recovery.recover(directory / "records", visit)
    assert len(ran) == len(set(ran)), "a tick ran twice"
    counts = collections.Counter(schedule for schedule, _ in ran)
    for one in said:
        key = f"id of f {one.key}"
        expected = len(manual(one.cron, one.timezone, began, end))
        assert counts[key] + missed[key] == expected, f"{one.cron} in {one.timezone}"
    return len(ran) + missed.total()
