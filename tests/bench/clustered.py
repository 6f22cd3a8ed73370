"""A Ray cluster on this machine beside the local executor and beside Ray alone; and the daemon with very many nodes."""

from __future__ import annotations

import asyncio
import json
import multiprocessing
import platform
import ssl
import statistics
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import uvloop

from headrace.daemon.app import SystemClock
from headrace.engine import policy
from headrace.engine.guest import link, node
from headrace.engine.workers import cluster
from tests.support.ray_cluster import RayCluster

from . import http_load, stage
from .results import Row
from .stage import Plan

_CALLERS = 32
_LINKS = 10_000
_BEATS_S = 20.0


def executing(plan: Plan) -> Iterator[Row]:
    """The same flow on this machine, on the cluster, and as nothing but a task of Ray."""
    made = RayCluster([{"num_cpus": 2}, {"num_cpus": 2}])
    try:
        yield from _bare(made.address, plan)
        for name, setting in (("this machine", "local"), ("cluster", json.dumps({"address": made.address}))):
            daemon = stage.prepare(plan, f"cluster {name}")
            daemon.environment["HEADRACE_RUN__EXECUTOR"] = setting
            with stage.running(daemon):
                port, text = stage.port(daemon), stage.run_request(daemon, "warm")
                http_load.generate(port, text, requests=60)
                one = [http_load.generate(port, text, requests=plan.count(300)) for _ in range(plan.rounds)]
                yield Row(
                    f"{name}: API call → done, warm",
                    "ms p50",
                    [load.percentile_ms(50) for load in one],
                    plan.count(300) * plan.rounds,
                    also={"p95": statistics.median(load.percentile_ms(95) for load in one)},
                )
                many, before = plan.count(2000), stage.cpu_s(daemon.pid)["daemon"]
                loads = [http_load.generate(port, text, requests=many, callers=_CALLERS) for _ in range(plan.rounds)]
                cpu_ms = (stage.cpu_s(daemon.pid)["daemon"] - before) * 1000 / (many * plan.rounds)
                yield Row(
                    f"{name}: executions, {_CALLERS} callers",
                    "/s",
                    [load.per_s for load in loads],
                    many * plan.rounds,
                    also={"daemon CPU ms each": cpu_ms},
                )
    finally:
        made.stop()


def _bare(address: str, plan: Plan) -> Iterator[Row]:
    with multiprocessing.get_context("spawn").Pool(1) as other:
        one, many = other.apply(_bare_tasks, (address, plan.count(300), plan.count(2000), plan.rounds))
    yield Row("Ray alone: task → done", "ms p50", one, plan.count(300) * plan.rounds)
    yield Row(f"Ray alone: tasks, {_CALLERS} under way", "/s", many, plan.count(2000) * plan.rounds)


def _bare_tasks(address: str, singles: int, many: int, rounds: int) -> tuple[list[float], list[float]]:
    """Measure tasks that do nothing, in a process of its own: Ray stays in it."""
    import ray

    ray.init(address=address, log_to_driver=False, configure_logging=False)

    @ray.remote(max_retries=0)
    def task() -> int:
        return 42

    ray.get([task.remote() for _ in range(50)])
    medians, rates = [], []
    for _ in range(rounds):
        times = []
        for _ in range(singles):
            began = time.perf_counter()
            ray.get(task.remote())
            times.append(time.perf_counter() - began)
        medians.append(statistics.median(times) * 1000)
        began, under_way, done = time.perf_counter(), [task.remote() for _ in range(_CALLERS)], 0
        while done < many:
            ready, under_way = ray.wait(under_way)
            done += len(ready)
            under_way += [task.remote() for _ in ready]
        rates.append(done / (time.perf_counter() - began))
    ray.shutdown()
    return medians, rates


def links(plan: Plan) -> Iterator[Row]:
    """The daemon's side alone with very many nodes that each run something and say nothing but that they live."""
    count = plan.count(_LINKS)
    yield from uvloop.run(_links(count))  # the daemon's loop


async def _links(count: int) -> list[Row]:
    places = cluster.Cluster(cluster.Options(lease_s=20.0), SystemClock())
    places._context, places._certificate = await asyncio.to_thread(cluster.credentials.make)
    await places._listen("127.0.0.1")
    keeping = asyncio.create_task(places._keep_time())
    before_mb = _resident_mb()
    tokens: list[str] = []
    places.seats._ask = lambda seat: tokens.append(seat.token) or True  # type: ignore[func-returns-value]
    asked = [places.place(str(number), policy.ANYWHERE) for number in range(count)]
    assert places._address is not None
    crowd = multiprocessing.get_context("spawn").Process(
        target=_crowd, args=(places._address, places._certificate, tokens), daemon=True
    )
    crowd.start()
    began = time.perf_counter()
    await asyncio.gather(*(place.taken for place in asked))
    folder = Path(__file__).parent
    taking = (place.take(("f", "c"), snapshot=folder, python="", fresh=True, alone=False) for place in asked)
    processes = await asyncio.gather(*taking)
    took_s = time.perf_counter() - began
    cpu_s, lags, beaten = time.process_time(), [], time.perf_counter()
    while time.perf_counter() - beaten < _BEATS_S:
        at = time.perf_counter()
        await asyncio.sleep(0.01)
        lags.append((time.perf_counter() - at - 0.01) * 1000)
    cpu_share = (time.process_time() - cpu_s) / _BEATS_S * 100
    lost = sum(process.exited.done() for process in processes)
    memory_kb = (_resident_mb() - before_mb) * 1024 / count
    keeping.cancel()
    await places.stop()
    crowd.kill()
    return [
        Row(f"{count:,} nodes come and begin", "s", [took_s], count),
        Row(f"memory of the daemon for each of {count:,} running nodes", "kB", [memory_kb], count),
        Row(
            f"CPU of one core while {count:,} run and say nothing", "%", [cpu_share], count, also={"lost": float(lost)}
        ),
        Row("the loop is late meanwhile", "ms p50", [statistics.median(lags)], len(lags), also={"max": max(lags)}),
    ]


def _resident_mb() -> float:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmRSS"):
            return int(line.split()[1]) / 1024
    return 0.0


def _crowd(address: tuple[str, int], certificate: str, tokens: list[str]) -> None:
    """Be so many nodes, as far as the link shows it; in a process of its own."""
    asyncio.run(_come(address, certificate, tokens))


async def _come(address: tuple[str, int], certificate: str, tokens: list[str]) -> None:
    context = ssl.create_default_context(cadata=certificate)
    context.check_hostname = False
    about: dict[str, Any] = {"node": "n", "host": "h", "python": _python(), "platform": node.platform_name()}
    gate = asyncio.Semaphore(50)

    async def one(token: str) -> None:
        async with gate:
            reader, writer = await asyncio.open_connection(*address, ssl=context)
            writer.write(link.message(link.HELLO, json.dumps({"token": token, **about}).encode()))
        buffer = bytearray()
        while chunk := await reader.read(65536):
            buffer += chunk
            for kind, _ in link.split(buffer):
                if kind == link.OFFER:
                    writer.write(link.message(link.READY, b'{"pid":1,"snapshot":"/"}'))
                elif kind == link.PULSE:
                    writer.write(link.message(link.PULSE))

    await asyncio.gather(*(one(token) for token in tokens))


def _python() -> str:
    return platform.python_version()
