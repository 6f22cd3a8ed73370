"""Schedules: every tick once, whatever happens to the daemon and the clock; missed ones are made up for as asked."""

import os
import random

import msgspec
import pytest

from headrace.engine import cron, events, moments, policy, scheduled
from headrace.engine.running import keeper, schedules
from headrace.engine.state import ticks
from tests.engine.running import archives, timetables
from tests.engine.running.timetables import flow, opened
from tests.support.clocks import Clock

ROUNDS = int(os.environ.get("HEADRACE_SCHEDULE_ROUNDS", "12"))
MINUTE, HOUR, DAY = 60.0, 3600.0, 86400.0
NOON = cron.Cron("0 12 * * *").after(1_800_000_000.0)
RAW = msgspec.Raw


def minutely(**said):
    return policy.Schedule(cron="* * * * *", **said)


def at(moment):
    return moments.timestamp(moment)


def due(table):
    return [state.terms.due for state in table.begun]


async def test_it_runs_when_it_is_time_and_not_before(tmp_path):
    async with opened(tmp_path, Clock(NOON - 30), flow("f", minutely(inputs=RAW(b'{"a":1}')))) as table:
        assert await table.schedules.look() == 30.0
        table.clock.now_s = NOON - 0.001
        await table.schedules.look()
        assert table.begun == []
        table.clock.now_s = NOON
        await table.schedules.look()
        await table.schedules.look()
        (state,) = table.begun
        assert (state.terms.due, state.created_by, bytes(state.inputs)) == (at(NOON), "schedule ", b'{"a":1}')
        assert (state.terms.lane, state.terms.when_full) == (f"schedule {state.terms.schedule}", "skip")


async def test_several_schedules_of_flows_and_records_stand_side_by_side(tmp_path):
    one, two = policy.Schedule(cron="0 * * * *"), policy.Schedule(cron="30 * * * *", timezone="Asia/Kolkata")
    async with opened(tmp_path, Clock(NOON - 10), flow("f", one, two), flow("g")) as table:
        fields = {"flow_name": RAW(b'"g"'), "cron": RAW(b'"15 * * * *"'), "input_value": RAW(b'{"b":2}')}
        await table.keeper.save("schedule", "mine", fields, keeper.Actor("Ada"))
        await table.until(NOON + HOUR - 1)
        assert due(table) == [at(NOON), at(NOON), at(NOON + 15 * MINUTE)]
        assert table.begun[2].created_by == "schedule mine" and bytes(table.begun[2].inputs) == b'{"b":2}'
        await table.keeper.save("schedule", "mine", {"is_enabled": RAW(b"false")}, keeper.Actor("Ada"))
        await table.until(NOON + HOUR + 20 * MINUTE)
        assert len(table.begun) == 5
        await table.keeper.save("schedule", "mine", {"is_enabled": RAW(b"true")}, keeper.Actor("Ada"))
        await table.until(NOON + 3 * HOUR - 1)
        assert due(table).count(at(NOON + 2 * HOUR + 15 * MINUTE)) == 1
        shown = {one["name"]: one for one in await table.schedules.timetable()}
        assert shown["mine"]["next"][0]["utc"] == at(NOON + 3 * HOUR + 15 * MINUTE)
        assert [row["next"][0]["local"][-6:] for row in shown.values() if row["timezone"] == "Asia/Kolkata"] == [
            "+05:30"
        ]


@pytest.mark.parametrize(
    ("catchup", "ran", "missed"),
    [
        (policy.Catchup(policy="none"), [], 10),
        (policy.Catchup(), [10], 9),
        (policy.Catchup(policy="all"), list(range(1, 11)), 0),
        (policy.Catchup(policy="all", max=3), [8, 9, 10], 7),
        (policy.Catchup(policy="all", window_s=4.4 * HOUR), [7, 8, 9, 10], 6),
        (policy.Catchup(window_s=60.0), [], 10),
    ],
)
async def test_what_was_missed_is_made_up_for_as_asked_and_recorded(tmp_path, catchup, ran, missed):
    hourly = flow("f", policy.Schedule(cron="0 * * * *", catchup=catchup))
    clock = Clock(NOON + 1)
    async with opened(tmp_path, clock, hourly) as table:
        await table.schedules.look()
    clock.now_s = NOON + 10 * HOUR + 30 * MINUTE
    async with opened(tmp_path, clock, hourly) as table:
        await table.schedules.look()
        assert due(table) == [at(NOON + n * HOUR) for n in ran]
        if catchup.policy == "all":
            assert {state.terms.when_full for state in table.begun} == {"queue"}
        await table.until(NOON + 11 * HOUR)
        assert due(table)[-1] == at(NOON + 11 * HOUR)
    _, told = await timetables.story(tmp_path, clock)
    assert sum(count for *_, count in told) == missed


async def test_a_tick_that_is_a_little_late_is_on_time_even_without_making_up(tmp_path):
    one = flow("f", policy.Schedule(cron="0 * * * *", catchup=policy.Catchup(policy="none")))
    clock = Clock(NOON - 5)
    async with opened(tmp_path, clock, one) as table:
        await table.schedules.look()
    clock.now_s = NOON + schedules.ON_TIME_S - 1
    async with opened(tmp_path, clock, one) as table:
        await table.schedules.look()
        assert due(table) == [at(NOON)]


async def test_a_flow_that_is_gone_or_cannot_run_misses_its_ticks_and_says_why(tmp_path):
    async with opened(tmp_path, Clock(NOON - 5), flow("g")) as table:
        fields = {"flow_name": RAW(b'"f"'), "cron": RAW(b'"* * * * *"')}
        await table.keeper.save("schedule", "lost", fields, keeper.Actor("Ada"))
        await table.until(NOON + 2 * MINUTE)
        await table.archive.journal.durable()
        told = [one.event for one in table.archive.told if isinstance(one.event, scheduled.TicksMissed)]
        assert len(told) >= 2 and "no flow 'f'" in told[0].reason
        assert (await table.schedules.timetable())[0]["problem"] == "there is no flow 'f'"
        table.publish(flow("f"))
        await table.until(NOON + 3 * MINUTE)
        assert due(table) == [at(NOON + 3 * MINUTE)]


async def test_what_is_otherwise_now_counts_from_now_on(tmp_path):
    clock = Clock(NOON + 1)
    async with opened(tmp_path, clock, flow("f", policy.Schedule(key="k", cron="0 13 * * *"))) as table:
        await table.schedules.look()
        clock.now_s = NOON + 5 * HOUR
        table.publish(flow("f", policy.Schedule(key="k", cron="0 14 * * *")))
        await table.schedules.look()
        assert table.begun == []
        table.publish(flow("f"))
        await table.schedules.look()
        assert not table.archive.state.ticks.positions


async def test_a_clock_that_is_set_back_repeats_nothing_and_forward_misses_nothing(tmp_path):
    hourly = flow("f", policy.Schedule(cron="0 * * * *", catchup=policy.Catchup(policy="all")))
    async with opened(tmp_path, Clock(NOON - 1), hourly) as table:
        await table.until(NOON + 2 * HOUR)
        for back_s in (30 * MINUTE, 90 * MINUTE, 5 * HOUR):
            table.clock.now_s -= back_s
            await table.until(NOON + 2 * HOUR)
        assert sorted(set(due(table))) == sorted(due(table))[: len(set(due(table)))]
        ids_of = {state.terms.due: state.id for state in table.begun}
        assert len(ids_of) == len(table.begun), "a tick ran twice"
        table.clock.now_s += 3 * HOUR
        await table.schedules.look()
        assert due(table)[-3:] == [at(NOON + n * HOUR) for n in (3, 4, 5)]


async def test_years_of_being_away_are_looked_through_and_counted_up_to_a_bound(tmp_path):
    one = flow("f", minutely())
    clock = Clock(NOON - 1)
    async with opened(tmp_path, clock, one) as table:
        await table.schedules.look()
    clock.now_s = NOON + 30 * DAY
    async with opened(tmp_path, clock, one) as table:
        await table.schedules.look()
        assert due(table) == [at(NOON + 30 * DAY)]
    _, told = await timetables.story(tmp_path, clock)
    assert told[-1][2] == 9_999


# -- what is expected ------------------------------------------------------------------------------------------------


async def test_what_does_not_start_or_finish_in_time_is_told_once_across_restarts(tmp_path):
    strict = policy.Schedule(cron="0 * * * *", start_within_s=60.0, finish_within_s=600.0)
    flows = (flow("f", strict, on_failure="told"), flow("told"))
    clock = Clock(NOON - 1)
    async with opened(tmp_path, clock, *flows) as table:
        await table.until(NOON)
        (late,) = table.begun
        await table.until(NOON + 59)
        assert len(table.begun) == 1
        await table.until(NOON + 61)
        notice = table.begun[1]
        said = msgspec.json.decode(bytes(notice.inputs))
        assert (notice.flow_name, said["reason"], said["execution_id"]) == ("told", "late start", late.id)
    async with opened(tmp_path, clock, *flows) as table:
        await table.schedules.look()
        assert table.begun == [], "it was told before"
        subject = table.archive.ledger.find(late.id)
        table.archive.ledger.record(subject, events.ExecutionStarted(execution=late.id))
        await table.until(NOON + 599)
        assert table.begun == []
        await table.until(NOON + 601)
        assert [msgspec.json.decode(bytes(one.inputs))["reason"] for one in table.begun] == ["late finish"]


async def test_what_is_in_time_is_nobodys_business(tmp_path):
    strict = policy.Schedule(cron="0 * * * *", start_within_s=60.0, finish_within_s=600.0)
    async with opened(tmp_path, Clock(NOON - 1), flow("f", strict, on_failure="told"), flow("told")) as table:
        await table.until(NOON)
        execution = table.begun[0].id
        subject = table.archive.ledger.find(execution)
        table.archive.ledger.record(subject, events.ExecutionStarted(execution=execution))
        table.archive.ledger.record(subject, events.ExecutionEnded(execution=execution, status="ENDED_SUCCESS"))
        await table.until(NOON + 30 * MINUTE)
        assert len(table.begun) == 1


# -- crashes ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(ROUNDS))
async def test_killed_at_any_moment_each_tick_is_dealt_with_once(tmp_path, seed):
    """kill -9 after any batch, a daemon away for any time: what ran and what was missed are together all ticks."""
    chance = random.Random(seed)
    catchup = policy.Catchup(policy=chance.choice(["none", "latest", "all"]), window_s=1000 * DAY, max=10_000)
    hours = policy.Schedule(key="a", cron="H/20 * * * *", catchup=catchup)
    days = policy.Schedule(key="b", cron="5 */3 * * *", timezone="Europe/Vienna", catchup=catchup)
    flows = [flow("f", hours, days)]
    clock, directory = Clock(NOON), tmp_path / "0"
    began = clock.now_s
    for life in range(chance.randrange(2, 5)):
        batches = chance.randrange(1, 12)
        left = tmp_path / str(life + 1)

        def copy(_, left=left, directory=directory):
            nonlocal batches
            batches -= 1
            if batches == 0:
                timetables.copied(directory, left)

        async with opened(directory, clock, *flows) as table:
            table.archive.journal.subscribe(copy)
            await table.until(clock.now_s + chance.uniform(1, 5) * HOUR)
            await table.archive.journal.durable()
        directory = left if left.exists() else directory
        clock.now_s += chance.choice([0.0, 30.0, 2 * HOUR])
    async with opened(directory, clock, *flows) as table:
        await table.schedules.look()
        await table.archive.journal.durable()
    ran, missed = await timetables.story(directory, clock)
    assert len(ran) == len(set(ran)), "a tick ran twice"
    expected = 0
    for said in (hours, days):
        for tick in cron.Cron(said.cron, said.timezone, "f").since(began):
            if tick > clock.now_s:
                break
            expected += 1
    assert len(ran) + sum(count for *_, count in missed) == expected


async def test_it_goes_on_where_it_was_when_the_segments_that_said_so_are_gone(tmp_path):
    async with archives.opened(tmp_path) as archive:
        clock = archive.clock
        archive.say(scheduled.ScheduleArmed(schedule="s", after=at(clock.now), name="n", cron="@daily", timezone="UTC"))
        archive.say(scheduled.ScheduleArmed(schedule="gone", after=at(clock.now)))
        archive.say(scheduled.ScheduleDisarmed(schedule="gone"))
        last = at(clock.now + 7)
        terms = policy.Terms(schedule="s", due=last)
        archive.state.ticks.moved("s", last)
        await archive.run("tick", terms=terms)
        for number in range(100):
            await archive.run(f"e{number}")
        clock.now += 3 * archives.KEEP_S
        done = await archive.pruner.prune()
        assert done.segments, "something went"
        before = msgspec.structs.asdict(archive.state.ticks.carried("s"))
    assert not [line for line in archive.segments() if line == "00000001.jsonl"]
    async with archives.opened(tmp_path) as again:
        assert msgspec.structs.asdict(again.state.ticks.carried("s")) == before and before["after"] == last
        assert "gone" not in again.state.ticks.positions


async def test_how_far_a_schedule_is_outlives_the_segments_that_said_so():
    state = ticks.Ticks()
    state.apply(
        scheduled.ScheduleArmed(schedule="s", after=at(NOON), name="n", flow="f", cron="@daily", timezone="UTC")
    )
    state.moved("s", at(NOON + DAY))
    again = ticks.Ticks()
    again.apply(state.carried("s"))
    assert again.positions["s"].after == NOON + DAY and state.carried("x") is None
    again.moved("s", at(NOON))
    assert again.positions["s"].after == NOON + DAY, "it never moves back"
