"""The same work on Headrace and on others, side by side: ``make bench-peers``, or ``python -m tests.bench.peers``.

JSON goes into ``bench-results/``, and ``--page`` writes the tables of ``docs/benchmarks.md`` from the newest of it. One
peer that fails does not end the run: the table says why. Everything runs on this machine alone, and stops by itself.
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import signal
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import rich.console
import structlog

from tests.bench import machine, results
from tests.bench.__main__ import about_this_run
from tests.bench.stage import Plan

from . import dbos, headrace, huey, n8n, node_red, page, prefect, procrastinate, restate, trials, webhook
from .peer import Peer

_RESULTS = Path("bench-results/peers")

PEERS: dict[str, type[Peer]] = {
    "headrace": headrace.Headrace,
    "restate": restate.Restate,
    "dbos": dbos.DbosPostgres,
    "dbos-sqlite": dbos.DbosSqlite,
    "procrastinate": procrastinate.Procrastinate,
    "huey": huey.Huey,
    "prefect": prefect.Prefect,
    "n8n": n8n.N8n,
    "node-red": node_red.NodeRed,
    "webhook": webhook.Webhook,
}


def main() -> None:
    """Measure who was asked for, or write the page."""
    chosen = _arguments()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("ended"))  # so that what was started is ended too
    if chosen.page:
        page.write(json.loads(newest().read_text()))
        return
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.ERROR))
    console = rich.console.Console(stderr=True, width=None if sys.stderr.isatty() else 160)
    found: dict[str, Any] = {**about_this_run(quick=chosen.quick), "memory_gib": memory_gib(), "rows": [], "peers": []}
    keys = list(dict.fromkeys(chosen.only or PEERS))
    found["left_out"] = [kind.name for key, kind in PEERS.items() if key not in keys]
    _RESULTS.mkdir(parents=True, exist_ok=True)
    target = _RESULTS / f"{found['at'].replace(':', '')}.json"
    with tempfile.TemporaryDirectory(dir=chosen.directory, prefix="headrace-peers-") as name:
        directory = Path(name)
        directory.chmod(0o755)  # servers with a user of their own have to get through
        limits = Plan(directory, rounds=1 if chosen.quick else 3, share=0.1 if chosen.quick else 1.0)
        found["rows"] += [{"group": "machine", **row.as_json()} for row in machine.measure(limits)]
        for key in keys:
            began = time.perf_counter()
            found["peers"].append(about := measure(PEERS[key], directory, found["rows"], console, quick=chosen.quick))
            found["load_after"] = os.getloadavg()[0]
            target.write_text(
                json.dumps(found, indent=2, ensure_ascii=False) + "\n"
            )  # whatever comes next, this is had
            console.print(f"{about['name']}: {time.perf_counter() - began:.0f} s {about['failed'] or ''}", style="dim")
    print(page.tables(found))
    console.print(f"written to {target}; python -m tests.bench.peers --page writes it into docs/benchmarks.md")


def measure(
    kind: type[Peer], directory: Path, rows: list[dict[str, Any]], console: rich.console.Console, *, quick: bool
) -> dict[str, Any]:
    """Put the rows of one peer to the others, and return what the page says about it."""
    work = trials.Trials(kind, directory, kind.amount.tenth() if quick else kind.amount)
    try:
        kind.install()
        for row in work.rows():
            rows.append({"group": kind.name, **row.as_json()})
            console.print(f"{kind.name}: {row.name} {results.shown(row.figure)} {row.unit}", style="dim")
    except Exception as error:  # one peer that fails does not end the run
        work.failed["all"] = str(error)[:300]
    return {
        "name": kind.name, "version": kind.version, "settings": kind.settings, "done": kind.done,
        "waits": kind.waits, "sleep_s": kind.sleep_s, "settle_s": kind.settle_s, "failed": work.failed,
    }  # fmt: skip


def newest() -> Path:
    """The newest run that lies here."""
    runs = sorted(_RESULTS.glob("*.json"))
    if not runs:
        raise SystemExit("no run of the peers lies in bench-results/peers: make bench-peers makes one")
    return runs[-1]


def memory_gib() -> int:
    """How much this machine has."""
    (total,) = [line for line in Path("/proc/meminfo").read_text().splitlines() if line.startswith("MemTotal:")]
    return round(int(total.split()[1]) / 1024**2)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.bench.peers", description="Measure headrace beside others")
    parser.add_argument("--quick", action="store_true", help="a tenth of the tries, one round")
    parser.add_argument("--only", action="append", choices=list(PEERS), metavar="NAME", help=", ".join(PEERS))
    parser.add_argument(
        "--page", action="store_true", help="write the tables of docs/benchmarks.md from the newest run"
    )
    parser.add_argument("--directory", default="/var/tmp", help="where to work: the disk that is to be measured")
    return parser.parse_args()


if __name__ == "__main__":
    main()
