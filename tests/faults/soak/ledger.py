"""What was promised and what the journal says became of it: nothing lost, nothing twice.

It reads the journal as it grows, for segments go while the soak goes on. Lines that are carried were seen before.
"""

from __future__ import annotations

import collections
import dataclasses
import datetime
import json
import threading
from pathlib import Path
from typing import Any

from tests.support import callers

from . import flows


@dataclasses.dataclass(slots=True)
class _Seen:
    flow: str
    parent: str
    scheduled: bool
    ends: list[str]
    outputs: list[Any]
    children: int = 0
    message: str = ""


class Ledger:
    """Fill ``acknowledged`` from outside, call ``read`` before segments go, and ``problems`` at the end."""

    def __init__(self, records: Path) -> None:
        self._records = records
        self._offsets: dict[str, int] = {}
        self._last_seq = 0
        self._reading = threading.Lock()
        self.acknowledged: dict[str, callers.Request] = {}
        self.seen: dict[str, _Seen] = {}
        self.events: collections.Counter[str] = collections.Counter()
        self.ticks: collections.Counter[str] = collections.Counter()
        self.missed = 0
        self.wrong: list[str] = []

    def read(self) -> None:
        """Take in what the journal got since the last time."""
        with self._reading:
            for segment in sorted(self._records.glob("*.jsonl")):
                self._read(segment)

    def _read(self, segment: Path) -> None:
        try:
            with segment.open("rb") as file:
                file.seek(self._offsets.get(segment.name, 0))
                text = file.read()
        except FileNotFoundError:
            return
        whole = text.rpartition(b"\n")[0]
        if not whole:
            return
        lines = []
        for line in whole.split(b"\n"):
            try:
                lines.append(json.loads(line))
            except ValueError:
                return  # a torn end that the next start drops: read again then
        # What is not acknowledged may yet be dropped by a crash: the last batch is read when another one follows.
        batch = lines[-1]["batch"] if lines[-1]["event"] != "segment.sealed" else None
        for line, raw in zip(lines, whole.split(b"\n"), strict=True):
            if line["batch"] == batch:
                break
            self._offsets[segment.name] = self._offsets.get(segment.name, 0) + len(raw) + 1
            if self._last_seq and line["seq"] != self._last_seq + 1:
                self.wrong.append(f"seq {line['seq']} follows {self._last_seq} in {segment.name}")
            self._last_seq = line["seq"]
            self._take(line)

    def _take(self, line: dict[str, Any]) -> None:
        self.events[line["event"]] += 1
        execution = line.get("execution", "")
        match line["event"]:
            case "execution.created":
                terms = line.get("terms", {})
                if terms.get("due"):
                    self.ticks[terms["due"]] += 1
                flow = line.get("flow_name") or line.get("task", "")
                if execution in self.seen:
                    self.wrong.append(f"{execution} was created twice")
                self.seen[execution] = _Seen(flow, line.get("parent", ""), bool(terms.get("due")), [], [])
                if line.get("parent"):
                    self.seen[line["parent"]].children += 1
            case "ticks.missed":
                self.missed += line["count"]
            case "execution.ended":
                self.seen[execution].ends.append(line["status"])
                self.seen[execution].message = line.get("message", "")
            case "execution.saved" if "n" in line.get("output_keys", {}):
                self.seen[execution].outputs.append(line["output_keys"]["n"])

    def unfinished(self) -> list[str]:
        """Those without an end."""
        return [execution for execution, seen in list(self.seen.items()) if not seen.ends]

    def problems(self, effects: collections.Counter[str], count: int) -> list[str]:
        """All that does not agree: with what callers were told, what the world saw, and what the setting counted."""
        found = list(self.wrong)
        found += [f"acknowledged, and not in the journal: {one}" for one in self.acknowledged.keys() - self.seen.keys()]
        for execution, seen in self.seen.items():
            found += [f"{execution} ({seen.flow}): {what}" for what in self._of(execution, seen, effects)]
        counted = sum(1 for seen in self.seen.values() if seen.flow == "counts" and seen.ends == ["ENDED_SUCCESS"])
        if count != counted:
            found.append(f"{counted} executions counted, and the setting says {count}")
        found += [
            f"the world was told by {one}, which is not in the journal" for one in effects.keys() - self.seen.keys()
        ]
        return found + self._tick_problems()

    def _of(self, execution: str, seen: _Seen, effects: collections.Counter[str]) -> list[str]:
        found = []
        request = self.acknowledged.get(execution)
        if request is None and not seen.parent and not seen.scheduled:
            found.append("nobody was told of it: its request made two, or none asked for it")
        if len(seen.ends) != 1:
            return [*found, f"it ended {len(seen.ends)} times"]
        if seen.flow == "REST":
            return found
        unknown = seen.flow == "tells_world" and "whether it took effect is not known" in seen.message
        if seen.ends != ["ENDED_SUCCESS"] and not unknown:
            found.append(f"{seen.ends[0]}: {seen.message}")
        if request is not None and not unknown and seen.outputs != [flows.number(request)]:
            found.append(f"its output is {seen.outputs}, asked for was {flows.number(request)}")
        if seen.children != flows.CHILDREN.get(seen.flow, 0):
            found.append(f"it has {seen.children} children")
        if seen.flow == "tells_world" and not (0 if unknown else 1) <= effects[execution] <= 1:
            found.append(f"its effect happened {effects[execution]} times")
        if seen.flow == "asks_world" and effects[execution] < 1:
            found.append("it did not ask")
        return found

    def _tick_problems(self) -> list[str]:
        twice = [f"the tick of {due} ran {times} times" for due, times in self.ticks.items() if times > 1]
        moments = sorted(datetime.datetime.fromisoformat(due) for due in self.ticks)
        minutes = round((moments[-1] - moments[0]).total_seconds() / 60) + 1 if moments else 0
        if minutes > len(moments) + self.missed:
            twice.append(f"{minutes} ticks were due, {len(moments)} ran and {self.missed} were missed")
        return twice
