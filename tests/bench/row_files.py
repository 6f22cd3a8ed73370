"""A million rows of a query on their way into a file: how long it takes, and how much memory of the daemon."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Iterator
from pathlib import Path

from headrace.tasks import registry
from tests.support.task_context import Context, FolderFiles

from .results import Row
from .stage import Plan

_ROWS = 1_000_000
_QUERY = (
    f"WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n LIMIT {_ROWS}) "
    "SELECT i, 'some text of this row ' || i AS text, i * 0.5 AS half FROM n"
)


def writing(plan: Plan) -> Iterator[Row]:
    """Rows of SQLITE, as CSV and as JSON lines."""
    for form in ("csv", "jsonl"):
        took, grew = [], []
        for _ in range(plan.rounds):
            seconds, megabytes = asyncio.run(_written(plan.directory / "row-files", form))
            took.append(seconds)
            grew.append(megabytes)
        yield Row(f"{_ROWS:,} rows into a file, {form}", "s", took, plan.rounds)
        yield Row(f"the same, memory at most, {form}", "MB more", grew, plan.rounds, reach=20.0)


async def _written(folder: Path, form: str) -> tuple[float, float]:
    tasks = registry.installed()
    given = {"fetch": _QUERY, "dst": f"headrace:rows.{form}"}
    work = asyncio.create_task(tasks.prepare("SQLITE", json.dumps(given).encode()).run(Context(FolderFiles(folder))))
    began, before = time.perf_counter(), _resident_mb()
    most = before
    while not work.done():
        most = max(most, _resident_mb())
        await asyncio.sleep(0.01)
    assert json.loads(await work)["row_count"] == _ROWS
    await tasks.aclose()
    return time.perf_counter() - began, most - before


def _resident_mb() -> float:
    (line,) = [one for one in Path("/proc/self/status").read_text().splitlines() if one.startswith("VmRSS")]
    return int(line.split()[1]) / 1024
