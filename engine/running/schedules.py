"""Schedules: flows that run by themselves when it is time.

Owns: which schedules there are (in the metadata of flows, and as stored records), when each is due next, and what
becomes of every tick. One heap and one timer serve all of them. Refuses: to be early, whatever the clock does, and to
do a tick twice: each is dealt with by one event of the journal, that of its execution or one that says it was missed,
and only what comes after the last of them is looked at.

A tick that is noticed within ``ON_TIME_S`` runs; an older one was missed (the daemon was down, the machine slept, the
clock was set) and is made up for as the schedule's ``catchup`` says. The wall clock is looked at anew at least once a
minute while anything is scheduled. ``look`` is one look; ``run`` looks whenever it is time.
"""

from __future__ import annotations

import asyncio
import contextlib
import heapq
from collections import deque
from collections.abc import Awaitable, Callable, Iterable, Sequence
from typing import Any

import msgspec
import structlog

from .. import cron, errors, events, model, moments, policy, ports, scheduled, values
from ..state import ticks
from . import expectations, keeper, lanes, reception

log = structlog.get_logger()

#: A tick is on time that is noticed so soon.
ON_TIME_S = 60.0
#: The wall clock may be set at any time: it is looked at again after so long.
LOOK_AGAIN_S = 60.0
#: A request that was refused for the moment is made again after so long.
_AGAIN_S = 5.0
#: A clock that is set back by more than this is believed: ticks after now count again, those that ran do not run twice.
_BACK_S = 3600.0
#: More missed ticks of one schedule than this are not told apart.
_TICKS_MAX = 10_000
#: Whoever was away for longer looks through the ticks beside the event loop: there may be very many.
_LONG_S = 3600.0
#: Requests made at once; they share the disk's writes.
_AT_ONCE = 100

_NOBODY = "nobody was there for it in time"

Submit = Callable[[model.Submission], Awaitable[reception.Accepted]]


class Entry(msgspec.Struct, frozen=True):
    """A schedule that is ready: what was said, and when it is due. ``source``: ``flow`` or ``record``."""

    said: policy.Schedule
    cron: cron.Cron
    source: str


class Schedules:
    """All of them."""

    def __init__(
        self,
        journal: ports.Journal,
        state: ticks.Ticks,
        flows: ports.Flows,
        records: keeper.Keeper,
        submit: Submit,
        expected: expectations.Expectations,
        clock: ports.Clock,
    ) -> None:
        self._journal = journal
        self._ticks = state
        self._flows = flows
        self._keeper = records
        self._submit = submit
        self._expected = expected
        self._clock = clock
        self._entries: dict[str, Entry] = {}
        self._heap: list[tuple[float, str]] = []  # when to look at which schedule
        self._seen: model.Catalogue | None = None
        self._stale = True  # records may have changed
        self._looked = 0.0  # when, by the wall clock
        self._nudge = asyncio.Event()
        self._turn = asyncio.Lock()

    def nudge(self, type_: str = "schedule") -> None:
        """A record of this type, or the catalogue, has changed."""
        if type_ == "schedule":
            self._stale = True
            self._nudge.set()

    async def run(self) -> None:
        """Look whenever it is time, for ever, until cancelled."""
        while True:
            self._nudge.clear()
            delay_s = await self.look()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(delay_s):
                    await self._nudge.wait()

    async def look(self) -> float | None:
        """Deal with every tick that is due by now; returns after how many seconds to look again, None: not at all."""
        async with self._turn:
            now = self._clock.time()
            self._stale = self._stale or now < self._looked - _BACK_S
            self._looked = now
            await self._adopt()
            due: list[str] = []
            while self._heap and self._heap[0][0] <= now:
                _, key = heapq.heappop(self._heap)
                if key in self._entries:
                    due.append(key)
            for start in range(0, len(due), _AT_ONCE):
                await asyncio.gather(*(self._see_to(key, now) for key in due[start : start + _AT_ONCE]))
            await self._expected.look(self._entries)
            nearest = [self._heap[0][0]] if self._heap else []
            nearest += filter(None, [self._expected.next])
            if not nearest:
                return None
            return min(LOOK_AGAIN_S, max(0.0, min(nearest) - self._clock.time()))

    # -- which there are --------------------------------------------------------------------------------------------

    async def _adopt(self) -> None:
        """Take up what there is now, if that has changed; what is new or otherwise counts from now on."""
        current = self._flows.current()
        if (current is self._seen and not self._stale) or not current.commit:
            return
        self._seen, self._stale = current, False
        found = {entry.said.key: entry for entry in [*_of_flows(current), *await self._of_records()]}
        now = self._clock.time()
        for key in [key for key in self._ticks.positions if key not in found or not found[key].said.is_enabled]:
            self._record(scheduled.ScheduleDisarmed(schedule=key, name=self._ticks.positions[key].name))
        self._entries, self._heap = found, []
        for key, entry in found.items():
            if entry.said.is_enabled:
                self._arm(key, entry, now)

    def _arm(self, key: str, entry: Entry, now: float) -> None:
        known, said = self._ticks.positions.get(key), entry.said
        same = known is not None and (known.cron, known.timezone) == (said.cron, said.timezone)
        if known is None or not same or known.after > now + _BACK_S:
            self._record(
                scheduled.ScheduleArmed(
                    schedule=key,
                    after=moments.timestamp(now),
                    name=said.name,
                    flow=said.flow,
                    cron=said.cron,
                    timezone=said.timezone,
                )
            )
        self._plan(key)

    def _plan(self, key: str, not_before: float = 0.0) -> None:
        """Look at the schedule again when its next tick is due."""
        due = self._entries[key].cron.after(self._ticks.positions[key].after)
        if due is not None:
            heapq.heappush(self._heap, (max(due, not_before), key))

    async def _of_records(self) -> list[Entry]:
        found = []
        for one in await self._keeper.chosen("schedule", None, lambda _: True):
            try:
                fields = await self._keeper.fields("schedule", one["id"], "id")
                found.append(_of_record(one["id"], one["name"], fields))
            except (errors.HeadraceError, cron.Invalid, policy.Invalid, msgspec.MsgspecError) as error:
                log.error("schedule.unusable", schedule=one["name"], reason=str(error))
        return found

    def _record(self, event: events.ScheduleEvent) -> None:
        self._journal.append(event)
        self._ticks.apply(event)

    # -- what is due ------------------------------------------------------------------------------------------------

    async def _see_to(self, key: str, now: float) -> None:
        """Deal with the ticks of one schedule up to ``now``, in their order, and plan the next."""
        entry = self._entries[key]
        position = self._ticks.positions[key]
        if now - position.after > _LONG_S:
            missed, more = await asyncio.to_thread(_ticks_between, entry.cron, position.after, now)
        else:
            missed, more = _ticks_between(entry.cron, position.after, now)
        runs = set(_chosen(entry.said.catchup, missed, now))
        passed: list[float] = []
        again = 0.0
        for tick in missed:
            if tick not in runs:
                passed.append(tick)
                continue
            self._pass(entry, passed, _NOBODY, more)
            passed, more = [], False
            try:
                await self._fire(entry, tick, late=now - tick > ON_TIME_S)
            except lanes.LaneFull as error:
                self._pass(entry, [tick], error.message)
            except errors.NotAccepting:  # it is tried again, and those after it
                again = now + _AGAIN_S
                break
            except errors.JournalFailed:
                raise
            except errors.HeadraceError as error:
                self._pass(entry, [tick], error.message)
        self._pass(entry, passed, _NOBODY, more)
        self._expected.missed(entry, [tick for tick in missed if tick not in runs], now)
        self._plan(key, again)

    async def _fire(self, entry: Entry, tick: float, *, late: bool) -> None:
        """Have the execution of a tick made, unless it was."""
        said = entry.said
        due = moments.timestamp(tick)
        overlap = said.overlap or "skip"
        if late and said.catchup.policy == "all" and overlap == "skip":
            overlap = "queue"  # what is made up for runs one after the other
        accepted = await self._submit(
            model.Submission(
                flow=said.flow,
                inputs=bytes(said.inputs),
                created_by=f"schedule {said.name}",
                key=f"schedule:{said.key}:{due}",
                terms=policy.Terms(schedule=said.key, due=due, when_full=overlap),
            )
        )
        self._ticks.moved(said.key, due)
        self._expected.begun(entry, tick, accepted.execution)
        log.info("schedule.fired", schedule=said.name, due=due, execution=accepted.execution)

    def _pass(self, entry: Entry, passed: Sequence[float], why: str, more: bool = False) -> None:
        """Record ticks that make no execution; ``more``: there were others before them that nobody counted."""
        if not passed:
            return
        first, last = moments.timestamp(passed[0]), moments.timestamp(passed[-1])
        reason = f"{why}; more than {_TICKS_MAX:,} before it are not counted" if more else why
        log.warning("schedule.missed", schedule=entry.said.name, first=first, last=last, count=len(passed), reason=why)
        self._record(
            scheduled.TicksMissed(
                schedule=entry.said.key,
                first=first,
                last=last,
                name=entry.said.name,
                flow=entry.said.flow,
                count=len(passed),
                reason=reason,
            )
        )

    # -- for people -------------------------------------------------------------------------------------------------

    async def timetable(self, count: int = 5) -> list[dict[str, Any]]:
        """Return every schedule as people see it, with its next ``count`` ticks, in order of flow and name."""
        async with self._turn:
            await self._adopt()
        now = self._clock.time()
        found = [self._shown(entry, now, count) for entry in self._entries.values()]
        return sorted(found, key=lambda one: (one["flow_name"], one["name"]))

    def _shown(self, entry: Entry, now: float, count: int) -> dict[str, Any]:
        said = entry.said
        position = self._ticks.positions.get(said.key)
        flow = _flow_called(self._flows, said.flow)
        upcoming = entry.cron.upcoming(max(now, position.after if position else 0.0), count) if said.is_enabled else []
        return {
            "id": said.key,
            "name": said.name,
            "flow_name": flow.name if flow is not None else said.flow,
            "source": entry.source,
            "cron": said.cron,
            "explained": entry.cron.explained(),
            "timezone": said.timezone,
            "is_enabled": said.is_enabled,
            "catchup": said.catchup.policy,
            "overlap": said.overlap or "skip",
            "problem": _problem(flow, said.flow),
            "missed": position.missed if position is not None else 0,
            "next": [{"utc": moments.timestamp(tick), "local": entry.cron.local(tick)} for tick in upcoming],
        }


def _of_flows(current: model.Catalogue) -> Iterable[Entry]:
    for flow in current.flows.values():
        for said in flow.metadata.policies.schedules:
            whole = msgspec.structs.replace(said, key=f"{flow.id} {said.key}", flow=flow.id)
            with contextlib.suppress(cron.Invalid):  # sync has checked it; a zone may have gone from the machine since
                yield Entry(whole, cron.Cron(said.cron, said.timezone, flow.name), "flow")


def _of_record(key: str, name: str, fields: dict[str, Any]) -> Entry:
    given = {
        field: values.decode(raw)
        for field, raw in fields.items()
        if isinstance(raw, msgspec.Raw) and field != "input_value"
    }
    said = policy.Schedule(
        key=key,
        name=name,
        flow=given["flow_name"],
        cron=given["cron"],
        timezone=given["timezone"],
        inputs=fields["input_value"],
        catchup=policy.Catchup.read(given.get("catchup", "latest")),
        overlap=given.get("overlap", ""),
        is_enabled=given["is_enabled"],
        **policy.expect(given.get("expect", {})),
    )
    return Entry(said, cron.Cron(said.cron, said.timezone, said.flow), "record")


def _ticks_between(due: cron.Cron, after: float, until: float) -> tuple[list[float], bool]:
    """Return the ticks after ``after`` up to ``until``, the newest ``_TICKS_MAX``; and whether there were more."""
    found: deque[float] = deque(maxlen=_TICKS_MAX)
    more = False
    for tick in due.since(after):
        if tick > until:
            break
        more = more or len(found) == _TICKS_MAX
        found.append(tick)
    return list(found), more


def _chosen(said: policy.Catchup, due: Sequence[float], now: float) -> list[float]:
    """Return which of the ticks that are due run: those on time, and of older ones those that are made up for."""
    on_time = [tick for tick in due if now - tick <= ON_TIME_S]
    if said.policy == "latest" and on_time:
        return on_time[-1:]
    return [*said.chosen([tick for tick in due if now - tick > ON_TIME_S], now), *on_time]


def _flow_called(flows: ports.Flows, name: str) -> model.Flow | None:
    try:
        return flows.find(name)
    except errors.NotFound:
        return None


def _problem(flow: model.Flow | None, name: str) -> str:
    if flow is None:
        return f"there is no flow {name!r}"
    return "" if flow.runnable else f"flow {flow.name!r} has no version that runs"
