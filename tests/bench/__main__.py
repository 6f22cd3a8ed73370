"""The figures of this product on this machine: ``make bench``, or ``python -m tests.bench`` at the top of the checkout.

A table for people on stderr, and JSON in ``bench-results/`` (or where ``--json`` says, ``-`` for stdout). Nothing fails
when a figure is bad; everything runs on this machine alone, is bounded in number and stops by itself.
"""

from __future__ import annotations

import argparse
import datetime
import json
import logging
import os
import platform
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import rich.console
import structlog

from . import clustered, executing, living, machine, records, results, row_files, stage, waiting, watching
from .stage import Plan

_RESULTS = Path("bench-results")

GROUPS: dict[str, Callable[[Plan], Iterator[results.Row]]] = {
    "machine": machine.measure,
    "latency": executing.latency,
    "accepting": executing.accepting,
    "throughput": executing.throughput,
    "parents": executing.parents,
    "watch": watching.hook,
    "waiting": waiting.waiting,
    "replay": waiting.replaying,
    "push": living.pushing,
    "idle": living.idle,
    "start": living.starting,
    "list": living.listing,
    "journal": records.writing,
    "sync": records.syncing,
    "rows": row_files.writing,
    "cluster": clustered.executing,
    "links": clustered.links,
}


def main() -> None:
    """Measure what was asked for."""
    chosen = _arguments()
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.ERROR))
    console = rich.console.Console(stderr=True, width=None if sys.stderr.isatty() else 180)
    table = results.Table(console)
    found: list[dict[str, Any]] = []
    about = about_this_run(quick=chosen.quick)
    _RESULTS.mkdir(exist_ok=True)
    stage.compile_package()
    with tempfile.TemporaryDirectory(dir=chosen.directory or _RESULTS.absolute(), prefix="run-") as directory:
        plan = Plan(
            Path(directory),
            rounds=1 if chosen.quick else 3,
            share=0.1 if chosen.quick else 1.0,
            executions=chosen.executions or (10_000 if chosen.quick else 100_000),
        )
        try:
            for name in dict.fromkeys(("machine", *(chosen.only or GROUPS))):  # its limits stand beside the others
                began = time.perf_counter()
                for row in GROUPS[name](plan):
                    table.add(row)
                    found.append({"group": name, **row.as_json()})
                console.print(f"{name}: {time.perf_counter() - began:.1f} s", style="dim")
        finally:  # what was measured before something broke is worth seeing
            table.show()
    text = json.dumps({**about, "rows": found}, indent=2, ensure_ascii=False)
    if chosen.json == "-":
        print(text)
        return
    target = Path(chosen.json) if chosen.json else _RESULTS / f"{about['at'].replace(':', '')}.json"
    target.write_text(text + "\n")
    console.print(f"written to {target}")


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.bench", description="Measure headrace on this machine")
    parser.add_argument("--quick", action="store_true", help="a tenth of the tries, one round")
    parser.add_argument("--only", action="append", choices=list(GROUPS), metavar="NAME", help=", ".join(GROUPS))
    parser.add_argument("--json", metavar="FILE", help="where the JSON goes; - for stdout")
    parser.add_argument("--executions", type=int, help="how many are recorded for the listing")
    parser.add_argument("--directory", help="where to work: the disk that is to be measured")
    return parser.parse_args()


def about_this_run(*, quick: bool) -> dict[str, Any]:
    """When, and on what: by the machine ``compare`` knows what can be compared."""
    return {
        "at": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "quick": quick,
        "cpus": os.cpu_count(),
        "load_before": os.getloadavg()[0],
        "machine": platform.machine(),
        "processor": _processor(),
        "system": platform.platform(),
        "python": platform.python_version(),
    }


def _processor() -> str:
    """Its name, as Linux says it on most machines."""
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "")


if __name__ == "__main__":
    main()
