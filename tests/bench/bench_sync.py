"""How long sync takes, as JSON: first sync and one changed file of 1,000 and 10,000 flows, and from push to published.

Run it as ``python -m tests.bench.bench_sync`` from the top of the repository. The figures are for comparing on one
machine; nothing fails when they are bad.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import resource
import statistics
import sys
import tempfile
import time
from pathlib import Path

import structlog

from headrace.sync import loop
from tests.support.repositories import FLOW, Repository
from tests.sync.conftest import Daemon

_HOOK = """# /// script
# [tool.headrace]
# timeout = "2h"
# ///
"""


def text_of(number: int, edition: int = 0) -> str:
    """Return a flow of an ordinary length, different from all others."""
    lines = [f"    this.log('step {line} of {number}', edition={edition})" for line in range(20)]
    return _HOOK + "import json\n\n\ndef handler(system, this):\n" + "\n".join(lines) + "\n" + FLOW


async def catalogue_of(count: int, folder: Path) -> dict[str, float]:
    """Measure a repository of ``count`` flows in 100 folders."""
    repository = Repository(folder / "repository")
    for number in range(count):
        repository.write(f"team{number % 100}/flow{number}.py", text_of(number))
    repository.push()
    daemon = Daemon(folder / "state")
    sync = await daemon.started(repository.url)
    began_s = cpu_s()
    figures = {"first_s": await timed(daemon, sync)}
    figures["first_cpu_s"] = cpu_s() - began_s
    changed, cpu = [], []
    for edition in range(1, 4):
        repository.write("team0/flow0.py", text_of(0, edition))
        repository.push()
        began_s = cpu_s()
        changed.append(await timed(daemon, sync))
        cpu.append(cpu_s() - began_s)
    figures["one_file_s"] = statistics.median(changed)
    figures["one_file_cpu_s"] = statistics.median(cpu)
    figures["unchanged_s"] = await timed(daemon, sync)
    began = time.perf_counter()
    restarted = await daemon.started(repository.url)
    figures["restart_s"] = time.perf_counter() - began
    assert len(restarted.flows.current().flows) == count
    return figures


def cpu_s() -> float:
    """Return what this process and its children that ended have used: it says more than a clock on a busy machine."""
    return sum(sum(resource.getrusage(who)[:2]) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))


async def timed(daemon: Daemon, sync: loop.Synchroniser) -> float:
    began = time.perf_counter()
    status = await daemon.synced(sync)
    assert status.state == "ok", status.error
    return time.perf_counter() - began


async def push_to_published(folder: Path, flows: int = 20, pushes: int = 10) -> dict[str, float]:
    """Measure from the end of ``git push`` to the swap of the catalogue, found by the watcher alone and by a nudge."""
    repository = Repository(folder / "repository")
    for number in range(flows):
        repository.write(f"flow{number}.py", text_of(number))
    repository.push()
    daemon = Daemon(folder / "state")
    sync = await daemon.started(repository.url)
    figures: dict[str, list[float]] = {"nudged_s": [], "watched_s": []}
    async with daemon.running(sync):
        await sync.sync_now(30)
        await asyncio.sleep(0.5)
        for edition in range(1, 2 * pushes + 1):
            repository.write("flow0.py", text_of(0, edition))
            commit = await asyncio.to_thread(repository.push)
            began = time.perf_counter()
            if edition % 2:
                await sync.sync_now(30)
            while sync.status().commit != commit:
                await asyncio.sleep(0.001)
            figures["nudged_s" if edition % 2 else "watched_s"].append(time.perf_counter() - began)
            await asyncio.sleep(0.3)
    return {name: statistics.median(values) for name, values in figures.items()}


async def main() -> None:
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.ERROR))
    counts = [int(word) for word in sys.argv[1:]] or [1_000, 10_000]
    results: dict[str, dict[str, float]] = {}
    with tempfile.TemporaryDirectory(dir=os.environ.get("TMPDIR")) as folder:
        results["push"] = await push_to_published(Path(folder) / "push")
        for count in counts:
            results[f"flows_{count}"] = await catalogue_of(count, Path(folder) / str(count))
    print(json.dumps({name: {key: round(value, 4) for key, value in got.items()} for name, got in results.items()}))


if __name__ == "__main__":
    asyncio.run(main())
