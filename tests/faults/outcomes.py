"""A plugin of pytest that keeps what each suite of ``make faults`` came to: a JSON line each, in ``faults-results/``.

``-p tests.faults.outcomes`` asks for it. A test says how often it tried, and its seed, by ``record_property``; one that
says nothing tried once. What was skipped tried nothing and leaves no line. ``table`` reads them.
"""

from __future__ import annotations

import datetime
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

FOLDER = Path("faults-results")


class Outcome(msgspec.Struct, frozen=True):
    """One test. ``date`` is when it ended; ``scale`` is there for suites that have one."""

    name: str
    tries: int
    failures: int
    date: str
    seconds: float
    seed: int | None = None
    scale: float | None = None


def read(folder: Path) -> Iterator[Outcome]:
    """All that are there, the oldest run first; a line that a killed run left unfinished is passed over."""
    for path in sorted(folder.glob("*.jsonl")):
        for line in path.read_bytes().splitlines(keepends=True):
            if line.endswith(b"\n"):
                yield msgspec.json.decode(line, type=Outcome)


class _Recorder:
    """Adds a line when a test is torn down: what it says of itself is complete only then."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._began = _now()
        self._reports: dict[str, list[pytest.TestReport]] = {}  # by test: workers of xdist report between each other

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        self._reports.setdefault(report.nodeid, []).append(report)
        if report.when != "teardown":
            return
        reports = self._reports.pop(report.nodeid)
        if any(one.failed for one in reports) or not any(one.skipped for one in reports):
            self._write(_outcome(reports))

    def _write(self, outcome: Outcome) -> None:
        self._folder.mkdir(exist_ok=True)
        with (self._folder / f"{self._began.replace(':', '')}.jsonl").open("ab") as file:
            file.write(msgspec.json.encode(outcome) + b"\n")


def _outcome(reports: list[pytest.TestReport]) -> Outcome:
    said: dict[str, Any] = dict(reports[-1].user_properties)
    failed = any(one.failed for one in reports)
    return Outcome(
        name=reports[-1].nodeid,
        tries=said.get("tries", 1),
        failures=max(said.get("failures", 0), int(failed)),
        date=_now(),
        seconds=round(sum(one.duration for one in reports), 3),
        seed=said.get("seed"),
        scale=said.get("scale"),
    )


def _now() -> str:
    return datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")


def pytest_configure(config: pytest.Config) -> None:
    if not hasattr(config, "workerinput"):  # workers of xdist report to whom they work for
        config.pluginmanager.register(_Recorder(config.rootpath / FOLDER))
