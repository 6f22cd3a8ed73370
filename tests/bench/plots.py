"""How cost grows with size, measured and drawn: ``make bench-plots``, or ``python -m tests.bench.plots --largest N``.

Sizes are powers of ten up to ``--largest``, and never beyond a million executions, 10,000 flows and 100,000 waiting
ones: all of it takes an hour, the default a few minutes. Pictures and the figures in them land in
``bench-results/plots/``; ``--drawn-from`` draws figures again that were measured before.
"""

from __future__ import annotations

import argparse
import asyncio
import dataclasses
import json
import logging
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import structlog

from . import bench_sync, drawing, http_load, living, stage, waiting
from .__main__ import about_this_run
from .stage import Plan

_PLOTS = Path("bench-results") / "plots"
_LARGEST = 10_000

#: For each chart its lines: name → points of size and figure.
Figures = dict[str, dict[str, list[tuple[float, float]]]]


@dataclasses.dataclass(frozen=True)
class Chart:
    """What is drawn: its file's name is its key in ``CHARTS``."""

    title: str
    x: str
    y: str


CHARTS = {
    "list": Chart("A page of 50 executions", "executions recorded", "ms (p50)"),
    "start": Chart("From start to ready", "executions", "s"),
    "waiting": Chart("Memory for each waiting execution, over a daemon's own", "executions waiting", "KB"),
    "sync": Chart("A sync", "flows in the repository", "s"),
    "run": Chart("An execution, one caller", "flows in the repository", "ms (p50)"),
}

#: What one measurement says: chart, line, figure.
Found = Iterator[tuple[str, str, float]]


def _recorded(plan: Plan, size: int) -> Found:
    daemon = stage.prepare(plan, "recorded")
    with stage.running(daemon):
        pass  # it makes its state
    asyncio.run(living.record_ended(daemon.state / "records", size))
    with stage.running(daemon, wait=False):
        living.until_all_are_listed(daemon)
        took = living.filters_ms(dataclasses.replace(plan, executions=size), daemon)
    yield "list", "all, no filter", took["all"]
    yield "list", "the slowest filter", max(took.values())
    yield "start", "ended", living.started_s(daemon)


def _waiting(plan: Plan, size: int) -> Found:
    found = waiting.waited_for(plan, size)
    yield "waiting", "each", found.each_kb
    yield "start", "waiting", found.ready_s


def _flows(plan: Plan, size: int) -> Found:
    found = asyncio.run(bench_sync.catalogue_of(size, plan.directory / "catalogue"))
    yield "sync", "one changed file", found["one_file_s"]
    yield "sync", "nothing changed", found["unchanged_s"]
    yield "sync", "the first", found["first_s"]
    with stage.running(stage.prepare(plan, "run", others=size)) as daemon:
        for flow in ("warm", "fresh"):
            text = stage.run_request(daemon, flow)
            http_load.generate(stage.port(daemon), text, requests=100)
            yield "run", flow, http_load.generate(stage.port(daemon), text, requests=300).percentile_ms(50)


#: What grows: how it is measured, the least and the greatest exponent of ten.
GROWING: dict[str, tuple[Callable[[Plan, int], Found], int, int]] = {
    "executions": (_recorded, 2, 6),
    "waiting": (_waiting, 0, 5),
    "flows": (_flows, 1, 4),
}


def sizes(least: int, greatest: int, largest: int) -> list[int]:
    """Powers of ten between two exponents, none above ``largest``; the smallest at any rate."""
    return [10**n for n in range(least, greatest + 1) if n == least or 10**n <= largest]


def measure(folder: Path, largest: int) -> Figures:
    """Measure everything that grows, the smallest first, each in a folder of its own."""
    figures: Figures = {}
    for name, (measured, least, greatest) in GROWING.items():
        for size in sizes(least, greatest, largest):
            print(f"{size:,} {name}", file=sys.stderr)
            with tempfile.TemporaryDirectory(dir=folder, prefix="run-") as directory:
                for chart, line, figure in measured(Plan(Path(directory), rounds=1), size):
                    figures.setdefault(chart, {}).setdefault(line, []).append((size, figure))
    return figures


def draw(figures: Mapping[str, Any], folder: Path) -> list[Path]:
    """Write a picture of each chart that has figures; what has none above 0 is said and left out."""
    drawn = []
    for name, chart in CHARTS.items():
        try:
            text = drawing.chart(chart.title, chart.x, chart.y, figures.get(name, {}))
        except ValueError as error:
            print(error, file=sys.stderr)
            continue
        path = folder / f"{name}.svg"
        path.write_text(text)
        drawn.append(path)
    return drawn


def main(arguments: list[str] | None = None) -> None:
    """Measure, or read what was measured, and draw."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench.plots", description="Draw how cost grows with size")
    parser.add_argument("--largest", type=int, default=_LARGEST, metavar="N", help=f"how far to go ({_LARGEST:,})")
    parser.add_argument("--drawn-from", metavar="FILE", help="a growth.json that was measured before")
    parser.add_argument("--into", default=str(_PLOTS), metavar="DIR", help=f"where it all lands ({_PLOTS}/)")
    words = parser.parse_args(arguments)
    folder = Path(words.into)
    folder.mkdir(parents=True, exist_ok=True)
    if words.drawn_from:
        figures = json.loads(Path(words.drawn_from).read_text())["figures"]
    else:
        structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.ERROR))
        about = about_this_run(quick=False)
        figures = measure(folder.absolute(), words.largest)
        text = json.dumps({**about, "largest": words.largest, "figures": figures}, indent=2)
        (folder / "growth.json").write_text(text + "\n")
    for path in draw(figures, folder):
        print(path)


if __name__ == "__main__":
    main()
