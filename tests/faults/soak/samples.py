"""What the daemon takes as time goes by, and whether that grows."""

from __future__ import annotations

import contextlib
import dataclasses
import math
import os
import statistics
import time
from pathlib import Path

from tests.bench import stage
from tests.support.daemons import Daemon

EVERY_S = 10.0
#: So much of a life is left out: what warms up is no leak. SQLite keeps up to 16 MB of the index's pages, which takes
#: some 25,000 executions.
_SETTLING = 0.5
#: Slopes over less than that say nothing.
_JUDGED_HOURS = 0.25
#: Looks within that are much alike, so they count as one: how many processes rest there changes by the minute.
_ALIKE_S = 60.0
#: What may grow by how much in an hour, as a share of its median and in its own unit; the larger one counts.
ALLOWED = {
    "daemon_pss_mb": (0.15, 10.0),
    "daemon_rss_mb": (0.15, 10.0),
    "all_pss_mb": (0.25, 40.0),
    "descriptors": (0.1, 6.0),
    "threads": (0.1, 3.0),
    "tasks": (0.2, 10.0),
    "processes": (0.3, 4.0),
}


@dataclasses.dataclass(frozen=True, slots=True)
class Sample:
    """One look. ``life`` is the daemon's process id."""

    at_s: float
    life: int
    values: dict[str, float]


def look(daemon: Daemon, began: float, tasks: Path) -> Sample | None:
    """Look at the daemon once; None while there is none."""
    pid = daemon.pid
    try:
        own = _memory_mb(pid)
        values = {
            "daemon_pss_mb": own["Pss"],
            "daemon_rss_mb": own["Rss"],
            "descriptors": float(len(os.listdir(f"/proc/{pid}/fd"))),
            "threads": float(len(os.listdir(f"/proc/{pid}/task"))),
            "processes": float(len(stage.tree(pid))),
            "all_pss_mb": sum(_memory_mb(one).get("Pss", 0.0) for one in stage.tree(pid)),
        }
    except (OSError, KeyError):
        return None
    with contextlib.suppress(OSError, ValueError):
        values["tasks"] = float(tasks.read_text())
    for name, size in sizes(daemon.state).items():
        values[f"state_{name}_mb"] = size
    values |= {f"cpu_{name}_s": value for name, value in stage.cpu_s(pid).items()}
    return Sample(time.monotonic() - began, pid, values)


def _memory_mb(pid: int) -> dict[str, float]:
    found = {}
    with contextlib.suppress(OSError):
        for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
            name, _, rest = line.partition(":")
            if name in ("Rss", "Pss"):
                found[name] = int(rest.split()[0]) / 1024
    return found


def sizes(state: Path) -> dict[str, float]:
    """Megabytes of each part of the state directory (the ballast left out), and of all of it."""
    found: dict[str, float] = {"all": 0.0}
    for folder, _, names in os.walk(state):
        part = Path(folder).relative_to(state).parts[:1]
        for name in names:
            if name != "ballast":
                with contextlib.suppress(OSError):
                    size = os.lstat(f"{folder}/{name}").st_blocks / 2048
                    kind = part[0] if part else name.split(".")[0]
                    found[kind] = found.get(kind, 0.0) + size
                    found["all"] += size
    return found


def slope(points: list[tuple[float, float]]) -> tuple[float, float]:
    """How much it grows in an hour, by the line that fits best, and what of it may be chance: three standard errors."""
    times, values = zip(*points, strict=True)
    line = statistics.linear_regression(times, values)
    rest = [value - line.slope * at - line.intercept for at, value in points]
    independent = max(1.0, (times[-1] - times[0]) / _ALIKE_S)
    error = statistics.pstdev(rest) / statistics.pstdev(times) / math.sqrt(independent)
    return line.slope * 3600, 3 * error * 3600


def growth(samples: list[Sample]) -> dict[str, dict[str, float]]:
    """Slopes within the daemon's longest life, without its beginning; of the state directory, within all the time."""
    lives: dict[int, list[Sample]] = {}
    for sample in samples:
        lives.setdefault(sample.life, []).append(sample)
    longest = max(lives.values(), key=lambda life: life[-1].at_s - life[0].at_s, default=[])
    settled = longest[int(len(longest) * _SETTLING) :]
    later = samples[int(len(samples) * _SETTLING) :]
    found = {}
    for name in sorted({name for sample in samples for name in sample.values if not name.startswith("cpu_")}):
        chosen = later if name.startswith("state_") else settled
        points = [(one.at_s, one.values[name]) for one in chosen if name in one.values]
        if len({at for at, _ in points}) > 2:
            values = [value for _, value in points]
            an_hour, give_or_take = slope(points)
            found[name] = {
                "an_hour": round(an_hour, 3),
                "give_or_take": round(give_or_take, 3),
                "median": round(statistics.median(values), 2),
                "least": round(min(values), 2),
                "most": round(max(values), 2),
                "hours": round((points[-1][0] - points[0][0]) / 3600, 2),
            }
    return found


def leaks(found: dict[str, dict[str, float]]) -> list[str]:
    """What grows more than is allowed, and not by chance."""
    return [
        f"{name} grows by {found[name]['an_hour']:g} an hour, give or take {found[name]['give_or_take']:g} "
        f"(median {found[name]['median']:g})"
        for name, (share, least) in ALLOWED.items()
        if name in found
        and found[name]["hours"] >= _JUDGED_HOURS
        and found[name]["an_hour"] - found[name]["give_or_take"] > max(share * found[name]["median"], least)
    ]
