"""The tables of ``docs/benchmarks.md``, written between two marks from one run; the words around them stay."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from tests.bench.results import shown

from . import trials

PAGE = Path("docs/benchmarks.md")
BEGIN, END = "<!-- figures: begin -->\n", "<!-- figures: end -->\n"

_SPEED = (trials.P50, trials.P99, trials.RATE, trials.PARENT)
_COST = (trials.READY, trials.IDLE, trials.CPU, trials.WAITING, trials.ALL)
#: A figure that is missing is told by the failure of the trial that gives it.
_TRIAL_OF = {
    **dict.fromkeys((trials.P50, trials.P99, trials.RATE, trials.READY, trials.IDLE, trials.CPU), trials.P50),
    trials.PARENT: trials.PARENT,
    **dict.fromkeys((trials.WAITING, trials.ALL), trials.WAITING),
    trials.FINISHED: trials.FINISHED,
}

#: Who is not measured, and why.
ABSENT = {
    "Temporal": "its server comes as a download or an image, its SDKs fetch it when they run: none of it is in a "
    "package registry",
    "Windmill": "its server comes as an image or a download; the registries have its clients alone",
    "Airflow": "left out of this run: it is made for schedules of data, and what it is to be installed with (its file "
    "of constraints) is in no registry",
}


def write(run: dict[str, Any]) -> None:
    """Put the tables of a run into the page."""
    before, _, rest = PAGE.read_text().partition(BEGIN)
    _, mark, after = rest.partition(END)
    assert mark, f"{PAGE} has lost its marks"
    PAGE.write_text(f"{before}{BEGIN}{tables(run)}{END}{after}")


def tables(run: dict[str, Any]) -> str:
    """All of a run as Markdown."""
    quick = ", a tenth of the tries" if run["quick"] else ""
    parts = [
        f"Measured {run['at'][:16].replace('T', ' ')} UTC on {run['cpus']} cores of {run['processor']} "
        f"({run['machine']}) with {run['memory_gib']} GiB of memory, Python {run['python']}; load before the run "
        f"{run['load_before']:.1f}, after it {run['load_after']:.1f}{quick}. "
        "Figures are medians of the rounds, with the least and the greatest.",
        _table("peer", _SPEED, run),
        _table("peer", _COST, run),
        _kills(run),
        _ahead(run),
        _limits(run),
        _versions(run),
        _absent(run),
    ]
    return "\n" + "\n\n".join(part for part in parts if part) + "\n\n"


def _table(first: str, columns: Iterable[str], run: dict[str, Any]) -> str:
    columns = list(columns)
    lines = [_line([first, *columns]), _line(["---", *("---:" for _ in columns)])]
    lines += [_line([peer["name"], *(_cell(run, peer, name) for name in columns)]) for peer in run["peers"]]
    return "\n".join(lines)


def _line(cells: Iterable[str]) -> str:
    return "| " + " | ".join(cell.replace("|", "\\|").replace("\n", " ") for cell in cells) + " |"


def _row(run: dict[str, Any], peer: str, name: str) -> dict[str, Any] | None:
    return next((row for row in run["rows"] if row["group"] == peer and row["name"] == name), None)


def _cell(run: dict[str, Any], peer: dict[str, Any], name: str) -> str:
    row = _row(run, peer["name"], name)
    if row is None:
        return "failed, see below" if _why(peer, name) else "–"
    rounds, unit = row["rounds"], row["unit"]
    spread = f" ({shown(min(rounds))}–{shown(max(rounds))})" if len(rounds) > 1 else ""
    of = f", of {row['also']['waiting']:,}" if name == trials.WAITING and row["also"]["waiting"] != 1_000 else ""
    return f"{shown(row['figure'])} {unit}{spread}{of}"


def _why(peer: dict[str, Any], name: str) -> str:
    return str(peer["failed"].get("all") or peer["failed"].get(_TRIAL_OF[name], ""))


def _kills(run: dict[str, Any]) -> str:
    head = [
        "peer",
        f"{trials.FINISHED}, each kill",
        "never finished",
        "side effects repeated",
        "waited after their time",
        "what became of the others",
    ]
    lines = [_line(head), _line(["---", *("---:" for _ in head[1:])])]
    for peer in run["peers"]:
        row = _row(run, peer["name"], trials.FINISHED)
        if row is None:
            lines.append(
                _line([peer["name"], "failed, see below" if _why(peer, trials.FINISHED) else "–", "", "", "", ""])
            )
            continue
        also = row["also"]
        each = " · ".join(shown(figure) for figure in row["rounds"])
        waited = f"{shown(also['waited s'])} s"
        counts = [shown(also[key]) for key in ("unfinished", "effects repeated")]
        lines.append(_line([peer["name"], each, *counts, waited, also["told"] or "–"]))
    return "\n".join(lines)


def _ahead(run: dict[str, Any]) -> str:
    """Who is better than Headrace at what: what a reader would look for, and a writer would like to leave out."""
    lines = []
    for name in (*_SPEED, *_COST, trials.FINISHED):
        ours = _row(run, "Headrace", name)
        if ours is None:
            continue
        sign = -1 if name in (trials.RATE, trials.FINISHED) else 1
        rows = [row for row in run["rows"] if row["name"] == name and sign * row["figure"] < sign * ours["figure"]]
        rows.sort(key=lambda row: sign * row["figure"])
        if rows:
            named = ", ".join(f"{row['group']} ({shown(row['figure'])} {row['unit']})" for row in rows)
            lines.append(f"* {name}, {shown(ours['figure'])} {ours['unit']} here: {named}")
    return "\n".join(["Where others are ahead of Headrace in this run:", "", *lines]) if lines else ""


def _limits(run: dict[str, Any]) -> str:
    rows = [row for row in run["rows"] if row["group"] == "machine"]
    lines = [_line(["what this machine can do at best, in the same run", "figure"]), _line(["---", "---:"])]
    for row in rows:
        spread = f" ({shown(min(row['rounds']))}–{shown(max(row['rounds']))})" if len(row["rounds"]) > 1 else ""
        lines.append(_line([row["name"].removeprefix("limit: "), f"{shown(row['figure'])} {row['unit']}{spread}"]))
    return "\n".join(lines)


def _versions(run: dict[str, Any]) -> str:
    lines = [_line(["peer", "version", "set up as", "“done” is", "what waits"]), _line(["---"] * 5)]
    failures = []
    for peer in run["peers"]:
        lines.append(_line([peer[key] for key in ("name", "version", "settings", "done", "waits")]))
        failures += [f"* {peer['name']}, {name}: failed: {why}" for name, why in peer["failed"].items()]
    return "\n".join([*lines, *(["", "What failed:", "", *failures] if failures else [])])


def _absent(run: dict[str, Any]) -> str:
    absent = {**dict.fromkeys(run["left_out"], "not asked for in this run"), **ABSENT}
    return "\n".join(["Not measured:", "", *(f"* {name}: {why}." for name, why in absent.items())])
