"""Two runs of the benchmarks beside each other: ``make bench-compare``; ``python -m tests.bench.compare [OLD] [NEW]``.

Without words the two newest runs in ``bench-results/``; while there is but one, ``baseline.json`` here, if it is
committed, against it. A figure divided by what its machine itself took in the same run counts on another or a busier
machine, too. ``--history WORDS`` shows what rows of that name were in all runs.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

import msgspec
import rich.box
import rich.console
import rich.table

from .results import shown

RESULTS = Path("bench-results")
BASELINE = Path(__file__).parent / "baseline.json"


class Unfit(Exception):
    """There is nothing to compare; the message says why and what to do."""


class Measured(msgspec.Struct, frozen=True):
    """A row of a run, as ``results.Row`` writes it."""

    name: str
    figure: float
    unit: str
    rounds: list[float]
    limit: float | None = None

    @property
    def share(self) -> Measured | None:
        """The same in limits of the machine; None where it has none."""
        if not self.limit:
            return None
        rounds = [one / self.limit for one in self.rounds]
        return Measured(self.name, self.figure / self.limit, self.unit, rounds)

    @property
    def spread(self) -> str:
        """From the least to the greatest of its rounds."""
        return f"{shown(min(self.rounds))}–{shown(max(self.rounds))}" if len(self.rounds) > 1 else ""


class Run(msgspec.Struct, frozen=True):
    """One file of ``bench-results``. Files of before the processor was noted have none."""

    at: str
    cpus: int
    load_before: float
    machine: str
    system: str
    python: str
    rows: list[Measured]
    quick: bool = False
    processor: str = ""

    @property
    def by_name(self) -> dict[str, Measured]:
        return {row.name: row for row in self.rows}

    @property
    def busy(self) -> bool:
        """Whether somebody else had half of the machine, or more."""
        return self.load_before >= self.cpus / 2


def read(path: Path) -> Run:
    """Raises ``Unfit`` where that is no run."""
    try:
        return msgspec.json.decode(path.read_bytes(), type=Run)
    except (OSError, msgspec.MsgspecError) as error:
        raise Unfit(f"{path} is no run of the benchmarks ({error}): give a file that `make bench` wrote") from None


def runs(folder: Path) -> list[Path]:
    """All that were written into ``folder``, the oldest first: they are named for when they began."""
    return sorted(folder.glob("[0-9]*.json"))


def chosen(old: str | None, new: str | None, folder: Path, baseline: Path = BASELINE) -> tuple[Path, Path]:
    """Which two to compare: what is named, else the newest, and what was before it."""
    if old and new:
        return Path(old), Path(new)
    found = runs(folder)
    if not found:
        raise Unfit(f"there is no run in {folder}/: `make bench` makes one")
    if old:
        return Path(old), found[-1]
    if len(found) > 1:
        return found[-2], found[-1]
    if baseline.is_file():
        return baseline, found[-1]
    raise Unfit(f"there is but one run in {folder}/ and no {baseline.name}: `make bench` makes another one")


def differences(old: Run, new: Run, names: Sequence[str]) -> list[str]:
    """Which of these facts are not the same for both, in words."""
    pairs = [(name, getattr(old, name), getattr(new, name)) for name in names]
    return [f"{name} {before or 'unknown'} → {after or 'unknown'}" for name, before, after in pairs if before != after]


def verdict(old: Measured, new: Measured) -> str:
    """Whether the difference is beyond what the rounds of each run differ by among themselves."""
    if len(old.rounds) < 2 or len(new.rounds) < 2:
        return "one round"
    more, less = min(new.rounds) > max(old.rounds), max(new.rounds) < min(old.rounds)
    if not more and not less:
        return "in the spread"
    return "better" if more == new.unit.endswith("/s") else "worse"  # of rates alone more is better


def ratio(old: Measured, new: Measured) -> str:
    """By how much it grew; nothing where that means nothing."""
    return f"{new.figure / old.figure:.2f}" if old.figure > 0 and new.figure > 0 else ""


def comparison(old: Run, new: Run) -> rich.table.Table:
    """The rows that both have. Raises ``Unfit`` where there are none."""
    table = _table(
        "what", "old", "new", "new/old", "beyond both spreads?", "old/limit", "new/limit", "new/old ", "beyond? "
    )
    before = old.by_name
    shared = [(before[row.name], row) for row in new.rows if row.name in before]
    if not shared:
        raise Unfit("these runs have no row in common: measure the same groups, both with --quick or both without")
    for one, other in shared:
        cells = [f"{shown(row.figure)} {row.unit} [dim]{row.spread}[/]" for row in (one, other)]
        cells += [ratio(one, other), _coloured(verdict(one, other))]
        if one.share and other.share:
            cells += [shown(one.share.figure), shown(other.share.figure)]
            cells += [ratio(one.share, other.share), _coloured(verdict(one.share, other.share))]
        table.add_row(one.name, *cells)
    return table


def history(paths: Sequence[Path], words: str) -> rich.table.Table:
    """What rows whose names hold ``words`` were in each of these runs, the oldest first."""
    table = _table("what", "began", "load", "figure", "rounds", "figure/limit")
    read_runs = [read(path) for path in paths]
    for name in dict.fromkeys(row.name for run in read_runs for row in run.rows if words.lower() in row.name.lower()):
        for run in read_runs:
            if row := run.by_name.get(name):
                share = shown(row.share.figure) if row.share else ""
                began = run.at[:16] + (" quick" if run.quick else "")
                table.add_row(
                    name, began, f"{run.load_before:.1f}", f"{shown(row.figure)} {row.unit}", row.spread, share
                )
    if not table.row_count:
        raise Unfit(f"no run has a row with {words!r} in its name")
    return table


def _table(what: str, *names: str) -> rich.table.Table:
    table = rich.table.Table(box=rich.box.SIMPLE_HEAD)
    table.add_column(what)
    for name in names:
        table.add_column(name, justify="right")
    return table


def _coloured(word: str) -> str:
    style = {"better": "green", "worse": "red"}.get(word, "dim")
    return f"[{style}]{word}[/]"


def _about(label: str, path: Path, run: Run) -> str:
    busy = "; BUSY: only what is divided by a limit counts" if run.busy else ""
    quick = ", quick" if run.quick else ""
    return f"{label} {path}: {run.at}{quick}, load before the run {run.load_before:.2f} of {run.cpus} CPUs{busy}"


def _compare(words: argparse.Namespace, console: rich.console.Console) -> None:
    paths = chosen(words.old, words.new, Path(words.directory))
    old, new = map(read, paths)
    for label, path, run in zip(("old", "new"), paths, (old, new), strict=True):
        console.print(_about(label, path, run), markup=False, highlight=False)
    others = differences(old, new, ("machine", "cpus", "processor"))
    if others and not words.anyway:
        raise Unfit(f"these are runs of different machines ({', '.join(others)}): --anyway compares them all the same")
    if also := others + differences(old, new, ("system", "python", "quick")):
        console.print("different:", ", ".join(also), markup=False, highlight=False)
    console.print(comparison(old, new))
    for label, one, other in (("old", old, new), ("new", new, old)):
        if alone := [name for name in one.by_name if name not in other.by_name]:
            console.print(f"only {label}: {'; '.join(alone)}", markup=False, highlight=False)


def main(arguments: Sequence[str] | None = None) -> int:
    """Print it; 2 where there is nothing to compare."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench.compare", description="Compare runs of the benchmarks")
    parser.add_argument("old", nargs="?", help="a run; the one before the newest, or the baseline")
    parser.add_argument("new", nargs="?", help="another; the newest")
    parser.add_argument("--anyway", action="store_true", help="also if they are of different machines")
    parser.add_argument("--history", metavar="WORDS", help="what rows of this name were in all runs")
    parser.add_argument("--directory", default=str(RESULTS), help="where runs are looked for")
    words = parser.parse_args(arguments)
    console = rich.console.Console(width=None if sys.stdout.isatty() else 200)
    try:
        if words.history is None:
            _compare(words, console)
        else:
            console.print(history(runs(Path(words.directory)), words.history))
    except Unfit as unfit:
        print(unfit, file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
