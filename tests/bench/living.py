"""A daemon's own life: how soon it is ready, what it costs when nothing happens, how soon it runs what was pushed."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from headrace.daemon import app
from headrace.engine import errors, events
from headrace.engine.records import journal
from tests.support.daemons import READY_S, Daemon
from tests.support.repositories import Repository, WorkingRepository

from . import http_load, stage
from .results import Row
from .stage import Plan

_RECORDED = 10_000
_IDLE_WATCHED_S = 10.0  # the kernel tells CPU in hundredths of a second, so 0.1 % is the least that can be seen
_CATCHING_UP_S = 900.0
_VERSION = "def handler(system, this):\n    return {{'version': {}}}\n"


def starting(plan: Plan) -> Iterator[Row]:
    """From exec to the first good answer of /readyz: with nothing, and with records."""
    empty, restarted, rebuilt = [], [], []
    for number in range(plan.rounds):
        daemon = stage.prepare(plan, f"starting{number}")
        empty.append(started_s(daemon))
        asyncio.run(record_ended(daemon.state / "records", _RECORDED))
        started_s(daemon)  # the index catches up
        restarted.append(started_s(daemon))
        (daemon.state / "index.db").unlink()
        rebuilt.append(started_s(daemon))
    yield Row("start to ready, no state, first fetch included", "s", empty, plan.rounds, reach=1.0)
    yield Row(f"start to ready, {_RECORDED:,} ended executions", "s", restarted, plan.rounds, reach=1.0)
    yield Row("the same without an index, which is made anew", "s", rebuilt, plan.rounds)


def started_s(daemon: Daemon) -> float:
    """Start it, and stop it when it is ready."""
    began = time.perf_counter()
    with stage.running(daemon, wait=False):
        while time.perf_counter() < began + READY_S:
            try:
                if daemon.raw("GET", "/readyz")[0] == 200:
                    return time.perf_counter() - began
            except (OSError, KeyError, ValueError):
                time.sleep(0.005)
    raise AssertionError(f"not ready within {READY_S} s:\n{daemon.log.read_text()[-4000:]}")


async def record_ended(records: Path, count: int, flows: int = 500) -> None:
    """Append ``count`` ended executions to the journal of a daemon that does not run."""
    writer = await journal.Journal.open(records, app.SystemClock())
    for number in range(count):
        execution = f"{time.time_ns() // 1_000_000:012x}{number:020x}"
        flow = number % flows
        created = events.ExecutionCreated(
            execution=execution,
            name=f"orders/flow_{flow}",
            flow_name=f"orders/flow_{flow}",
            flow_id=f"{flow:032x}",
            commit="c" * 40,
            path=f"orders/flow_{flow}.py",
            created_by="bench",
        )
        failed = number % 1_000 == 0
        ended = events.ExecutionEnded(
            execution=execution, status="ENDED_ERROR" if failed else "ENDED_SUCCESS", message=f"row {number}"
        )
        for event in (created, events.ExecutionStarted(execution=execution, attempt=1), ended):
            writer.append(event)
        if number % 500 == 0:
            await writer.durable()
    await writer.close()


def idle(plan: Plan) -> Iterator[Row]:
    """Memory and CPU when nothing happens."""
    memory, cpu, proportional = [], [], []
    with stage.daemon(plan, "idle") as daemon:
        for _ in range(plan.rounds):
            time.sleep(1)
            before = sum(stage.cpu_s(daemon.pid).values())
            time.sleep(_IDLE_WATCHED_S)
            cpu.append(100 * (sum(stage.cpu_s(daemon.pid).values()) - before) / _IDLE_WATCHED_S)
            found = stage.memory_mb(daemon.pid)
            memory.append(found["Rss"])
            proportional.append(found["Pss"])
        processes = len(stage.tree(daemon.pid))
    yield Row(
        "idle, resident memory of all processes",
        "MB",
        memory,
        plan.rounds,
        reach=80.0,
        also={"proportional": proportional[-1], "processes": processes},
    )
    yield Row("idle, CPU", "%", cpu, plan.rounds, reach=0.2)


def listing(plan: Plan) -> Iterator[Row]:
    """A page of 50 executions among many, for each filter; the slowest filter is the figure."""
    daemon = stage.prepare(plan, "listing")
    with stage.running(daemon):
        pass  # it makes its state
    asyncio.run(record_ended(daemon.state / "records", plan.executions))
    rounds: list[float] = []
    last: dict[str, float] = {}
    with stage.running(daemon, wait=False):
        until_all_are_listed(daemon)
        for _ in range(plan.rounds):
            last = filters_ms(plan, daemon)
            rounds.append(max(last.values()))
        tries = plan.rounds * len(last) * plan.count(20)
        name = f"list 50 of {plan.executions:,} executions, the slowest filter"
        yield Row(name, "ms p50", rounds, tries, reach=20.0, also=dict(last))
        yield _paging(plan, daemon)


def filters_ms(plan: Plan, daemon: Daemon) -> dict[str, float]:
    """What a page of 50 executions takes with each filter."""
    filters = {
        "all": "",
        "flow": "&flow=orders/flow_7",
        "failed": "&status=ENDED_ERROR",
        "started by none": "&parent=none",
        "tasks (none)": "&type=TASK",
        "flow, failed": "&flow=orders/flow_0&status=ENDED_ERROR",
        "text": "&q=row",
        "text, rare": f"&q=row%20{plan.executions - 7}",
        "text, none": "&q=nowhere",
    }
    found = {}
    for name, query in filters.items():
        text = stage.authorised(daemon, "GET", f"/executions?limit=50{query}")
        load = http_load.generate(stage.port(daemon), text, requests=plan.count(20), expected="items")
        found[name] = load.percentile_ms(50)
    return found


def until_all_are_listed(daemon: Daemon) -> None:
    """Wait until the index has caught up: with a million executions that takes minutes, once."""
    given_up = time.monotonic() + _CATCHING_UP_S
    while time.monotonic() < given_up:
        try:
            if daemon.raw("GET", "/readyz")[0] == 200 and daemon.client.executions(limit=1)["items"]:
                return
        except (OSError, KeyError, ValueError, errors.HeadraceError):
            pass
        time.sleep(0.2)
    raise AssertionError(f"the index did not catch up within {_CATCHING_UP_S} s")


def _paging(plan: Plan, daemon: Daemon) -> Row:
    """The pages that people look at among as many; the slowest one is the figure."""
    newest = daemon.client.executions(limit=1)["items"][0]["id"]
    pages = {
        "all": "/executions",
        "flow": "/executions?flow=orders/flow_7",
        "failed": "/executions?status=ENDED_ERROR",
        "nobody acknowledged": "/executions?type=FLOW&acknowledged=false&parent=none",
        "text": "/executions?q=row",
        "text, none": "/executions?q=nowhere",
        "one": f"/executions/{newest}",
        "overview": "/",
        "flows": "/flows",
    }
    rounds: list[float] = []
    once = http_load.generate(stage.port(daemon), stage.page(daemon, "/"), requests=1, expected="</html>")
    last = {"overview, the first time in a minute": once.percentile_ms(50)}
    for _ in range(plan.rounds):
        for name, path in pages.items():
            load = http_load.generate(
                stage.port(daemon), stage.page(daemon, path), requests=plan.count(20), expected="</html>"
            )
            last[name] = load.percentile_ms(50)
        rounds.append(max(last.values()))
    tries = plan.rounds * len(pages) * plan.count(20)
    name = f"a page among {plan.executions:,} executions, the slowest one"
    return Row(name, "ms p50", rounds, tries, reach=100.0, also=dict(last))


def pushing(plan: Plan) -> Iterator[Row]:
    """From the end of ``git push`` to a local upstream, or of saving a file, until the new version has run."""
    pushed = Repository(plan.directory / "pushing")
    yield _seen("push to a local upstream", plan, pushed, pushed.url, pushed.push, reach=300.0)
    saved = WorkingRepository(plan.directory / "saving" / "flows")
    yield _seen("a file saved in a watched directory", plan, saved, str(saved.directory), lambda: None)


def _seen(
    what: str,
    plan: Plan,
    repository: WorkingRepository,
    source: str,
    publish: Callable[[], object],
    reach: float | None = None,
) -> Row:
    repository.write("which.py", _VERSION.format(0))
    publish()
    samples, published = [], []
    with stage.running(Daemon(repository.directory.parent / "state", source)) as daemon:
        for version in range(1, plan.count(10) + 1):
            time.sleep(0.5)  # away from what the last one still does
            before = daemon.client.sync_state()["commit"]
            repository.write("which.py", _VERSION.format(version))
            publish()
            began = time.perf_counter()
            while daemon.client.sync_state()["commit"] == before:
                time.sleep(0.002)
                assert time.perf_counter() < began + 30, "the change was not seen within 30 s"
            published.append(time.perf_counter() - began)
            assert daemon.run("which")["output_value"] == {"version": version}
            samples.append(1000 * (time.perf_counter() - began))
    median_ms = 1000 * sorted(published)[len(published) // 2]
    name = f"{what} → new version has run"
    return Row(name, "ms", samples, len(samples), reach, also={"published": median_ms})
