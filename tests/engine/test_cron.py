"""Cron expressions over summer time and back, in five zones, as cron(8) of Debian has it; and what they may say.

The table is written by hand from its manual: jobs at fixed times run once whatever the clock does, those that the
spring switch skips right after it; jobs whose minute or hour begins with * go by elapsed time.
"""

import datetime
import itertools
import random
import zoneinfo

import pytest

from headrace.engine import cron

#: zone | from | until (local) | expression | when it is due
TABLE = """
# Vienna: 2026-03-29 02:00 → 03:00, 2026-10-25 03:00 → 02:00
Europe/Vienna       | 2026-03-29T01 | 2026-03-29T05 | 30 2 * * *     | 03:00+02
Europe/Vienna       | 2026-03-29T01 | 2026-03-29T05 | 0 3 * * *      | 03:00+02
Europe/Vienna       | 2026-03-29T01 | 2026-03-29T05 | 30 1,2,3 * * * | 01:30+01 03:00+02 03:30+02
Europe/Vienna       | 2026-03-29T01 | 2026-03-29T05 | 30 * * * *     | 01:30+01 03:30+02 04:30+02
Europe/Vienna       | 2026-03-29T00 | 2026-03-29T05 | 0 */2 * * *    | 00:00+01 04:00+02
Europe/Vienna       | 2026-10-25T01 | 2026-10-25T04 | 30 2 * * *     | 02:30+02
Europe/Vienna       | 2026-10-25T01 | 2026-10-25T04 | 0 2,3 * * *    | 02:00+02 03:00+01
Europe/Vienna       | 2026-10-25T01 | 2026-10-25T04 | 30 * * * *     | 01:30+02 02:30+02 02:30+01 03:30+01
Europe/Vienna       | 2026-10-25T01 | 2026-10-25T04 | */30 2 * * *   | 02:00+02 02:30+02 02:00+01 02:30+01
# New York: 2026-03-08 02:00 → 03:00, 2026-11-01 02:00 → 01:00
America/New_York    | 2026-03-08T01 | 2026-03-08T05 | 15 2 * * *     | 03:00-04
America/New_York    | 2026-03-08T01 | 2026-03-08T04 | 45 * * * *     | 01:45-05 03:45-04
America/New_York    | 2026-11-01T00 | 2026-11-01T03 | 15 1 * * *     | 01:15-04
America/New_York    | 2026-11-01T00 | 2026-11-01T03 | 15 * * * *     | 00:15-04 01:15-04 01:15-05 02:15-05
# Lord Howe moves by half an hour: 2026-10-04 02:00 → 02:30, 2026-04-05 02:00 → 01:30
Australia/Lord_Howe | 2026-10-04T01 | 2026-10-04T04 | 10 2 * * *     | 02:30+11
Australia/Lord_Howe | 2026-10-04T01 | 2026-10-04T08 | 10 */6 * * *   | 06:10+11
Australia/Lord_Howe | 2026-04-05T01 | 2026-04-05T08 | */30 6 * * *   | 06:00+10:30 06:30+10:30
Australia/Lord_Howe | 2026-10-04T01 | 2026-10-04T04 | 45 2 * * *     | 02:45+11
Australia/Lord_Howe | 2026-10-04T01 | 2026-10-04T04 | 10 * * * *     | 01:10+10:30 03:10+11
Australia/Lord_Howe | 2026-04-05T01 | 2026-04-05T03 | 40 1 * * *     | 01:40+11
Australia/Lord_Howe | 2026-04-05T01 | 2026-04-05T03 | 40 * * * *     | 01:40+11 01:40+10:30 02:40+10:30
# Santiago switches at midnight: 2026-09-06 00:00 → 01:00, 2026-04-05 00:00 → 2026-04-04 23:00
America/Santiago    | 2026-09-05T23 | 2026-09-06T03 | 30 0 * * *     | 01:00-03
America/Santiago    | 2026-09-05T23 | 2026-09-06T03 | @daily         | 01:00-03
America/Santiago    | 2026-09-05T23 | 2026-09-06T03 | @hourly        | 23:00-04 01:00-03 02:00-03
America/Santiago    | 2026-04-04T22 | 2026-04-05T01 | 30 23 * * *    | 23:30-03
America/Santiago    | 2026-04-04T22 | 2026-04-05T01 | @daily         | 00:00-04
America/Santiago    | 2026-04-04T22 | 2026-04-05T01 | 30 * * * *     | 22:30-03 23:30-03 23:30-04 00:30-04
# Auckland: 2026-09-27 02:00 → 03:00, 2026-04-05 03:00 → 02:00
Pacific/Auckland    | 2026-09-27T01 | 2026-09-27T05 | 59 2 * * sun   | 03:00+13
Pacific/Auckland    | 2026-09-27T01 | 2026-09-27T05 | 59 2 * * mon   |
Pacific/Auckland    | 2026-09-27T01 | 2026-09-27T04 | */30 * * * *   | 01:00+12 01:30+12 03:00+13 03:30+13
Pacific/Auckland    | 2026-04-05T02 | 2026-04-05T04 | 0 2 * * *      | 02:00+13
Pacific/Auckland    | 2026-04-05T02 | 2026-04-05T04 | 0 * * * *      | 02:00+13 02:00+12 03:00+12
"""
ROWS = [[cell.strip() for cell in row.split("|")] for row in TABLE.strip().splitlines() if not row.startswith("#")]


def at(zone, hour):
    return datetime.datetime.fromisoformat(f"{hour}:00").replace(tzinfo=zoneinfo.ZoneInfo(zone)).timestamp()


def due(zone, text, first, last):
    clock = cron.Cron(text, zone)
    return [clock.local(tick) for tick in itertools.takewhile(lambda tick: tick < last, clock.since(first - 1))]


@pytest.mark.parametrize(("zone", "first", "last", "text", "expected"), ROWS)
def test_summer_time_comes_and_goes_as_cron_of_debian_has_it(zone, first, last, text, expected):
    found = due(zone, text, at(zone, first), at(zone, last))
    assert [one[11:16] + one[19:].removesuffix(":00") for one in found] == expected.split()


@pytest.mark.parametrize("zone", sorted({row[0] for row in ROWS}))
def test_from_wherever_one_looks_the_next_tick_is_the_same(zone):
    """No look, not even one in an hour that comes twice, gives a tick again or one that lies behind it."""
    chance = random.Random(zone)
    for *_, text, _ in [row for row in ROWS if row[0] == zone]:
        clock = cron.Cron(text, zone)
        for switch in sorted({row[1] for row in ROWS if row[0] == zone}):
            begin = at(zone, switch) - 86400
            ticks = [tick for tick, _ in zip(clock.since(begin), range(200), strict=False) if tick < begin + 3 * 86400]
            assert ticks == sorted(set(ticks))
            for _ in range(20):
                look = begin + chance.random() * 2 * 86400
                expected = next((tick for tick in ticks if tick > look), None)
                assert expected is None or clock.after(look) == expected, (text, clock.local(look))


def test_h_spreads_flows_and_is_always_the_same_for_one():
    ticks = {name: cron.Cron("H H * * *", seed=name).after(0.0) for name in map(str, range(50))}
    assert len(set(ticks.values())) > 40
    assert ticks["7"] == cron.Cron("h h * * *", seed="7").after(0.0)
    quarter = cron.Cron("H/15 * * * *", seed="x").upcoming(0.0, 8)
    assert {round(b - a) for a, b in itertools.pairwise(quarter)} == {900}
    early = cron.Cron("H(0-9) 3 * * *", seed="x").local(cron.Cron("H(0-9) 3 * * *", seed="x").after(0.0))
    assert "T03:0" in early


@pytest.mark.parametrize(
    ("text", "local"),
    [
        ("@yearly", "2027-01-01T00:00:00+00:00"),
        ("@annually", "2027-01-01T00:00:00+00:00"),
        ("@monthly", "2026-07-01T00:00:00+00:00"),
        ("@weekly", "2026-06-21T00:00:00+00:00"),
        ("@daily", "2026-06-16T00:00:00+00:00"),
        ("@midnight", "2026-06-16T00:00:00+00:00"),
        ("@hourly", "2026-06-15T13:00:00+00:00"),
        ("30 2 * * mon-fri", "2026-06-16T02:30:00+00:00"),
        ("0 0 L * *", "2026-06-30T00:00:00+00:00"),
        ("0 0 * * 5#1", "2026-07-03T00:00:00+00:00"),
        ("0 0 29 2 *", "2028-02-29T00:00:00+00:00"),
        ("0 0 13 * 5", "2026-06-19T00:00:00+00:00"),  # the 13th or a Friday
    ],
)
def test_what_an_expression_may_say(text, local):
    clock = cron.Cron(text)
    assert clock.local(clock.after(at("UTC", "2026-06-15T12"))) == local


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "five fields"),
        ("* * * *", "five fields"),
        ("* * * * * *", "five fields"),
        ("@reboot", "there are @annually"),
        ("60 * * * *", "bad minute"),
        ("0 0 31 4 *", "bad day-of-month"),
        ("H(40-90) * * * *", "from 0 to 59"),
        ("H/90 * * * *", "the step"),
        ("H/0 * * * *", "the step"),
        ("every day at two o'clock", "bad minute"),
        ("a b c d e", "bad minute"),
        ("* " * 200, "five fields"),
    ],
)
def test_what_it_may_not_say(text, said):
    with pytest.raises(cron.Invalid, match=said):
        cron.Cron(text)


@pytest.mark.parametrize("zone", ["Mars/Olympus", "", "../etc/passwd", "Europe/ Vienna", "/etc/localtime"])
def test_zones_that_nobody_knows_are_refused(zone):
    with pytest.raises(cron.Invalid, match="no time zone"):
        cron.Cron("@daily", zone)


def test_an_expression_is_told_in_words():
    assert cron.Cron("30 2 * * mon-fri").explained() == "At 02:30 on Monday through Friday"
