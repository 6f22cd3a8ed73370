"""The records and sync rooms by themselves: a short form of their own scripts (``bench_journal``, ``bench_sync``)."""

from __future__ import annotations

import asyncio
import statistics
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import uvloop

from . import bench_journal, bench_sync
from .results import Row
from .stage import Plan

_INDEXED = 20_000
_FLOWS = (1_000, 10_000)


def writing(plan: Plan) -> Iterator[Row]:
    """The journal without anything around it."""
    found: list[dict[str, Any]] = []
    limits = []
    for number in range(plan.rounds):
        directory = plan.directory / f"journal{number}"
        directory.mkdir()
        limits.append(bench_journal.bare_fdatasync(directory))
        found.append(uvloop.run(bench_journal.bench_journal(directory)))
    yield Row(
        "journal: an event is durable",
        "ms p50",
        [figures["durable_p50_ms"] for figures in found],
        1_000 * plan.rounds,
        limit=statistics.median(limits),
        limit_name="fdatasync",
        also={"p95": statistics.median(figures["durable_p95_ms"] for figures in found)},
    )
    yield Row(
        "journal: events, 32 callers",
        "/s",
        [figures["callers_32"]["events_per_s"] for figures in found],
        19_200 * plan.rounds,
        more_is_better=True,
        also={"CPU µs each": found[-1]["callers_32"]["cpu_us_per_event"]},
    )
    directory = plan.directory / "filler"
    directory.mkdir()
    executions = plan.count(_INDEXED)
    figures = asyncio.run(bench_journal.Filler(directory, executions).run())
    yield Row("index: CPU of an execution of three events", "µs", [figures["cpu_us_per_execution"]], executions)
    recovered = bench_journal.bench_recovery(directory)
    yield Row(
        "recovery: reading the journal",
        "records/s",
        [recovered["visit_records_per_s"]],
        executions * 3,
        more_is_better=True,
        also={"MB/s": recovered["visit_mb_per_s"]},
    )


def syncing(plan: Plan) -> Iterator[Row]:
    """A catalogue of many flows: the first sync, one changed file, nothing changed, and after a restart."""
    for flows in map(plan.count, _FLOWS):
        figures = asyncio.run(bench_sync.catalogue_of(flows, Path(plan.directory) / f"catalogue{flows}"))
        cpu = {"CPU s": figures["first_cpu_s"]}
        yield Row(f"sync: first of {flows:,} flows", "s", [figures["first_s"]], 1, also=cpu)
        cpu = {"CPU s": figures["one_file_cpu_s"]}
        yield Row(f"sync: one changed file of {flows:,}", "s", [figures["one_file_s"]], 3, reach=1.0, also=cpu)
        yield Row(f"sync: nothing changed of {flows:,}", "s", [figures["unchanged_s"]], 1)
        yield Row(f"sync: {flows:,} flows after a restart", "s", [figures["restart_s"]], 1)
