"""What a benchmark found, as rows of one table: for people a line each, for machines a JSON object each.

A row's figure is the median of several rounds, because the machine may be doing other things; the least and the
greatest stand beside it. ``reach`` is what we want it to be, ``limit`` what the machine itself took in the same run: in
limits the figure means the same on a slower machine.
"""

from __future__ import annotations

import dataclasses
import statistics
from collections.abc import Sequence
from typing import Any

import rich.box
import rich.console
import rich.table


@dataclasses.dataclass(frozen=True)
class Row:
    """One figure. ``rounds`` are its values, ``tries`` how many single measurements stand behind them together."""

    name: str
    unit: str
    rounds: Sequence[float]
    tries: int
    reach: float | None = None
    limit: float | None = None
    limit_name: str = ""
    more_is_better: bool = False
    also: dict[str, Any] = dataclasses.field(default_factory=dict)

    @property
    def figure(self) -> float:
        return statistics.median(self.rounds)

    @property
    def reached(self) -> bool | None:
        """Whether the figure is as good as wanted; None where nothing is."""
        if self.reach is None:
            return None
        return self.figure >= self.reach if self.more_is_better else self.figure <= self.reach

    @property
    def share(self) -> float | None:
        """The same in limits of the machine; None where it has none."""
        return self.figure / self.limit if self.limit else None

    def as_json(self) -> dict[str, Any]:
        """Everything, rounded to what can be meant."""
        return {
            "name": self.name,
            "figure": rounded(self.figure),
            "unit": self.unit,
            "rounds": [rounded(value) for value in self.rounds],
            "tries": self.tries,
            "reach": self.reach,
            "reached": self.reached,
            "limit": None if self.limit is None else rounded(self.limit),
            "limit_name": self.limit_name,
            "also": {name: rounded(value) if isinstance(value, float) else value for name, value in self.also.items()},
        }


class Table:
    """Rows as they come, on a terminal or in a file."""

    def __init__(self, console: rich.console.Console) -> None:
        self._console = console
        self._table = rich.table.Table(box=rich.box.SIMPLE_HEAD)
        self._table.add_column("what")
        for name in ("figure", "rounds", "reach", "limit here", "figure/limit"):
            self._table.add_column(name, justify="right", no_wrap=True)
        self._table.add_column("also")

    def add(self, row: Row) -> None:
        """Put a row at the end."""
        least, greatest = min(row.rounds), max(row.rounds)
        reach = "" if row.reach is None else f"{'≥' if row.more_is_better else '≤'} {row.reach:,g}"
        style = {None: "", True: "green", False: "red"}[row.reached]
        self._table.add_row(
            row.name,
            f"{shown(row.figure)} {row.unit}",
            f"{shown(least)}–{shown(greatest)}" if len(row.rounds) > 1 else "",
            f"[{style}]{reach}[/]" if style else reach,
            "" if row.limit is None else shown(row.limit),
            "" if row.share is None else shown(row.share),
            ", ".join(f"{name} {shown(value)}" for name, value in row.also.items()),
        )

    def show(self) -> None:
        """Print it."""
        self._console.print(self._table)


def rounded(value: float) -> float:
    """Three significant digits, more before the point."""
    return float(f"{value:.3g}") if abs(value) < 1000 else round(value)


def shown(value: Any) -> str:
    """For people."""
    if not isinstance(value, int | float):
        return str(value)
    return f"{rounded(value):,.10g}"
