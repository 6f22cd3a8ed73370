"""What waiting costs, and what it costs to go on: many executions that wait without a process, and long histories."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import time
from collections.abc import Iterator
from pathlib import Path

import msgspec

from headrace.daemon import app, endpoint
from headrace.engine import events, ids, moments
from headrace.engine.records import journal
from tests.support.daemons import Daemon, until

from . import stage
from .results import Row
from .stage import Plan

_WAITING = 100_000
_CALLS = 10_000


def waiting(plan: Plan) -> Iterator[Row]:
    """Memory and restart with executions that wait."""
    for share in (0.1, 1.0):
        count = plan.count(int(_WAITING * share))
        found = waited_for(plan, count)
        yield Row(
            f"{count:,} waiting executions, each",
            "KB",
            [found.each_kb],
            count,
            reach=4.0,
            also={"in all, MB": found.all_mb},
        )
        yield Row(f"start to ready with {count:,} waiting", "s", [found.ready_s], 1, reach=10.0)


@dataclasses.dataclass(frozen=True)
class Waited:
    """What as many cost: memory of all processes, that over a daemon's own for each, and a start with them."""

    each_kb: float
    all_mb: float
    ready_s: float


def waited_for(plan: Plan, count: int) -> Waited:
    """Measure a daemon with so many executions that sleep."""
    daemon = stage.prepare(plan, f"waiting{count}")
    with stage.running(daemon):
        time.sleep(1.0)  # what checks the flows is gone
        before_mb = stage.memory_mb(daemon.pid)["Pss"]
        flow = daemon.client.flow("sleeps")
    last = asyncio.run(_record_waiting(daemon.state / "records", count, flow))
    with stage.running(daemon):  # what was recorded here is indexed once, as it would have been while it happened
        until(lambda: _newest(daemon) == last, "it is", 300)
    began = time.perf_counter()
    with stage.running(daemon):
        ready_s = time.perf_counter() - began
        time.sleep(2.0)
        after_mb = stage.memory_mb(daemon.pid)["Pss"]
    return Waited(1024 * (after_mb - before_mb) / count, after_mb, ready_s)


def _newest(daemon: Daemon) -> str:
    """Return the latest execution that the index knows; none while the index is made."""
    with contextlib.suppress(endpoint.Unavailable):
        for each in daemon.client.executions(limit=1)["items"]:
            return str(each["id"])
    return ""


async def _record_waiting(records: Path, count: int, flow: dict[str, object]) -> str:
    writer = await journal.Journal.open(records, app.SystemClock())
    until_s = time.time() + 7200
    for number in range(count):
        execution = ids.new_id()
        writer.append(
            events.ExecutionCreated(
                execution=execution,
                flow_id=str(flow["id"]),
                flow_name="sleeps",
                name="sleeps",
                commit=str(flow["commit"]),
                path=str(flow["path"]),
                created_by="bench",
                inputs=msgspec.Raw(b'{"n":%d}' % number),
            )
        )
        writer.append(events.ExecutionStarted(execution=execution))
        writer.append(
            events.CallStarted(
                execution=execution, call=1, kind="sleep", waits=True, until=until_s + number, where="sleeps.py:2"
            )
        )
        writer.append(events.ExecutionHibernated(execution=execution))
        if number % 1_000 == 0:
            await writer.durable()
    await writer.close()
    return execution


def replaying(plan: Plan) -> Iterator[Row]:
    """How long a history takes to be replayed."""
    took = []
    for number in range(plan.rounds):
        daemon = stage.prepare(plan, f"replaying{number}")
        daemon.environment["HEADRACE_RUN__HIBERNATE_AFTER"] = "600s"
        with stage.running(daemon):
            execution = daemon.client.run("long", {"calls": _CALLS, "seconds": 20})["id"]
            until(lambda d=daemon, e=execution: d.client.execution(e)["status"] == "WAITING", "it sleeps", 120)
            daemon.kill()
        took.append(_replayed_s(daemon, execution))
    yield Row("replay, a thousand calls", "ms", [s / _CALLS * 1e6 for s in took], plan.rounds * _CALLS)


def _replayed_s(daemon: Daemon, execution: str) -> float:
    """From the start of the process that replays it to the end, as the record tells."""
    with stage.running(daemon):
        daemon.client.wait(execution, 120)
        # Nothing is replayed before the sleep is over; then its answer is there as soon as the handler comes to it.
        lines = {line["event"]: line["at"] for line in daemon.record(execution)}
    return moments.seconds_between(lines["execution.started"], lines["call.ended"])
