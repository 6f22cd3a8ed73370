"""Figures of the records room, as one JSON object: journal throughput and latency, recovery, index.

python -m tests.bench.bench_journal [--executions N]
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import sys
import tempfile
import threading
import time
from pathlib import Path

import structlog
import uvloop

from headrace.engine import events
from headrace.engine.records import filing, index, journal, listing, places, recovery


class Clock:
    def time(self) -> float:
        return time.time()

    def monotonic(self) -> float:
        return time.monotonic()


def percentile(samples: list[float], share: float) -> float:
    return round(sorted(samples)[int(len(samples) * share)] * 1e3, 3)


def bare_fdatasync(directory: Path) -> float:
    """Return the median of what the journal cannot beat: write 200 bytes, fdatasync."""
    fd = os.open(directory / "bare", os.O_CREAT | os.O_WRONLY | os.O_APPEND)
    samples = []
    for _ in range(300):
        begun = time.perf_counter()
        os.write(fd, b"x" * 200)
        os.fdatasync(fd)
        samples.append(time.perf_counter() - begun)
    os.close(fd)
    return percentile(samples, 0.5)


async def latency(writer: journal.Journal, count: int) -> list[float]:
    samples = []
    for number in range(count):
        begun = time.perf_counter()
        writer.append(events.ExecutionStarted(execution=f"latency{number}", pid=1))
        await writer.durable()
        samples.append(time.perf_counter() - begun)
    return samples


async def latency_beside_a_busy_loop(writer: journal.Journal) -> list[float]:
    done = False

    async def burn() -> None:
        while not done:
            until = time.perf_counter() + 0.0003
            while time.perf_counter() < until:
                pass
            await asyncio.sleep(0)

    burning = asyncio.create_task(burn(), name="burn")
    samples = await latency(writer, 300)
    done = True
    await burning
    return samples


def created(number: int) -> events.ExecutionCreated:
    return events.ExecutionCreated(
        execution=f"{number:032x}",
        flow_name=f"orders/flow_{number % 500}",
        flow_id=f"{number % 500:032x}",
        commit="c" * 40,
        path="orders/flow.py",
        created_by="bench",
        parent=f"{number // 100:032x}" if number % 3 == 0 else "",
    )


async def callers(writer: journal.Journal, number_of: int, each: int) -> dict[str, float]:
    """Trivial executions of three events, each acknowledged twice."""
    batches = 0

    def count(_: object) -> None:
        nonlocal batches
        batches += 1

    async def caller(number: int) -> None:
        for n in range(each):
            event = created(number * each + n)
            await writer.submit(event)
            writer.append(events.ExecutionStarted(execution=event.execution, pid=1))
            writer.append(events.ExecutionEnded(execution=event.execution, status="ENDED_SUCCESS"))
            await writer.durable()

    leave = writer.subscribe(count)
    begun, cpu = time.perf_counter(), time.process_time()
    await asyncio.gather(*(caller(number) for number in range(number_of)))
    elapsed, cpu = time.perf_counter() - begun, time.process_time() - cpu
    leave()
    total = number_of * each * 3
    return {
        "events_per_s": round(total / elapsed),
        "batches_per_s": round(batches / elapsed),
        "cpu_us_per_event": round(cpu / total * 1e6, 1),
        "cpu_share": round(cpu / elapsed, 2),
    }


async def bench_journal(directory: Path) -> dict[str, object]:
    writer = await journal.Journal.open(directory / "records", Clock())
    await latency(writer, 50)
    alone = await latency(writer, 1000)
    busy = await latency_beside_a_busy_loop(writer)
    figures = await callers(writer, 32, 200)
    await writer.close()
    return {
        "durable_p50_ms": percentile(alone, 0.5),
        "durable_p95_ms": percentile(alone, 0.95),
        "durable_busy_loop_p50_ms": percentile(busy, 0.5),
        "durable_busy_loop_p95_ms": percentile(busy, 0.95),
        "callers_32": figures,
    }


class Filler:
    """Writes many executions to a journal, and measures the thread of the index alone."""

    def __init__(self, directory: Path, executions: int) -> None:
        self._directory = directory
        self._executions = executions

    async def run(self) -> dict[str, object]:
        records = self._directory / "records"
        recovered = await asyncio.to_thread(recovery.recover, records)
        catalogue = await index.Index.open(self._directory / "index.db", records, recovered)
        writer = await journal.Journal.open(records, Clock(), recovered=recovered)
        writer.subscribe(catalogue.absorb)
        writer_thread = next(t for t in threading.enumerate() if t.name == "index-writer")
        clock = time.pthread_getcpuclockid(writer_thread.ident or 0)
        cpu = time.clock_gettime(clock)
        for start in range(0, self._executions, 500):
            for number in range(start, min(start + 500, self._executions)):
                event = created(number)
                status = "ENDED_ERROR" if number % 1000 == 0 else "ENDED_SUCCESS"
                writer.append(event)
                writer.append(events.ExecutionStarted(execution=event.execution, pid=1))
                writer.append(events.ExecutionEnded(execution=event.execution, status=status, message=f"row {number}"))
            await writer.durable()
        await catalogue.flushed()
        cpu = time.clock_gettime(clock) - cpu
        figures = {"cpu_us_per_execution": round(cpu / self._executions * 1e6, 1), **await self._questions(catalogue)}
        await writer.close()
        await catalogue.close()
        return figures

    async def _questions(self, catalogue: index.Index) -> dict[str, object]:
        some = f"{self._executions // 2:032x}"
        middle = (await catalogue.events_of(some))[0].at
        asked = {
            "all": listing.Query(),
            "flow": listing.Query(flow="orders/flow_7"),
            "failed": listing.Query(status=("ENDED_ERROR",)),
            "several": listing.Query(status=("ENDED_ERROR", "RUNNING", "ENDED_SUCCESS")),
            "none such": listing.Query(type="TASK"),
            "parent": listing.Query(parent=f"{7:032x}"),
            "since": listing.Query(since=middle),
            "until": listing.Query(until=middle),
            "flow failed": listing.Query(flow="orders/flow_0", status=("ENDED_ERROR",)),
            "text common": listing.Query(q="row"),
            "text rare": listing.Query(q=f"row {self._executions - 7}"),
            "text none": listing.Query(q="nowhere"),
            "text flow": listing.Query(q="row 1", flow="orders/flow_7"),
        }
        times = {}
        for name, query in asked.items():
            samples = []
            for _ in range(7):
                begun = time.perf_counter()
                await catalogue.query(query)
                samples.append(time.perf_counter() - begun)
            times[name] = percentile(samples, 0.5)
        begun = time.perf_counter()
        for _ in range(1000):
            catalogue.find_key("hook:none")
        key_us = (time.perf_counter() - begun) * 1e3
        begun = time.perf_counter()
        await catalogue.events_of(some)
        return {
            "listing_ms": times,
            "find_key_us": round(key_us, 1),
            "events_of_ms": round((time.perf_counter() - begun) * 1e3, 2),
        }


def bench_recovery(directory: Path) -> dict[str, object]:
    records = directory / "records"
    size = sum(path.stat().st_size for path in records.iterdir())
    figures: dict[str, object] = {"bytes": size}
    for name, visit in (("check", None), ("visit", lambda _: None), ("places", places.Places().visit)):
        begun = time.perf_counter()
        found = recovery.recover(records, visit)
        elapsed = time.perf_counter() - begun
        figures[f"{name}_mb_per_s"] = round(size / elapsed / 1e6)
        figures[f"{name}_records_per_s"] = round(found.position.seq / elapsed)
    begun = time.perf_counter()
    recovery.verify(records)
    figures["verify_mb_per_s"] = round(size / (time.perf_counter() - begun) / 1e6)
    return figures


async def bench_rebuild(directory: Path) -> dict[str, object]:
    records = directory / "records"
    recovered = recovery.recover(records)
    (directory / "index.db").unlink()
    begun = time.perf_counter()
    catalogue = await index.Index.open(directory / "index.db", records, recovered)
    held_up = time.perf_counter() - begun
    await catalogue.close()
    begun = time.perf_counter()
    filing.rebuild(directory / "index.db", records, recovered.instance, recovered.position)
    elapsed = time.perf_counter() - begun
    size = sum(path.stat().st_size for path in records.iterdir())
    return {"start_held_up_s": round(held_up, 3), "s": round(elapsed, 2), "mb_per_s": round(size / elapsed / 1e6)}


def main() -> None:
    structlog.configure(logger_factory=structlog.PrintLoggerFactory(sys.stderr))
    parser = argparse.ArgumentParser(description="Measure journal, recovery and index")
    parser.add_argument("--executions", type=int, default=50_000, help="how many fill the index")
    parser.add_argument("--directory", type=Path, default=None, help="where to write (a disk, not a tmpfs)")
    chosen = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=chosen.directory) as name:
        directory = Path(name)
        (directory / "a").mkdir()
        (directory / "b").mkdir()
        figures: dict[str, object] = {"bare_fdatasync_p50_ms": bare_fdatasync(directory)}
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            figures["journal_uvloop"] = runner.run(bench_journal(directory / "a"))
        with asyncio.Runner() as runner:
            figures["journal_asyncio"] = runner.run(bench_journal(directory / "b"))
            figures["index"] = {
                "executions": chosen.executions,
                **runner.run(Filler(directory, chosen.executions).run()),
            }
            figures["recovery"] = bench_recovery(directory)
            figures["index_rebuild"] = runner.run(bench_rebuild(directory))
    print(json.dumps(figures, indent=2))


if __name__ == "__main__":
    main()
