"""What really ran, as tests: files that ``headrace records export`` wrote.

A recording is replayed against the flows as they are now, offline, as ``headrace replay --against`` does; or the tasks
in it answer a flow that runs, so that what changed may do more than it did. Called by ``plugin``.
"""

from __future__ import annotations

import asyncio
import dataclasses
from pathlib import Path
from typing import Any

import msgspec

from ...engine import errors, model, values
from ...engine.records import exports
from ...engine.running import exported, failures, views
from ...engine.running import replay as running_replay
from ...engine.workers import protocol

#: A replay that takes longer has lost its way.
_REPLAY_S = 60.0


class FlowDiffers(AssertionError):
    """A flow does not do what is recorded."""


class _Lines:
    """What the handler says in a replay, to be shown with a difference."""

    def __init__(self) -> None:
        self.said: list[str] = []

    def logged(self, said: protocol.Log) -> None:
        self.said.append(" ".join(map(str, msgspec.json.decode(said.args))))

    def printed(self, said: protocol.Output) -> None:
        self.said.append(said.text.rstrip("\n"))


@dataclasses.dataclass(frozen=True, slots=True)
class RecordedTask:
    """A task as it was recorded; secrets are masked."""

    type: str
    inputs: dict[str, Any]
    answer: dict[str, Any] | Exception


def read(file: Path) -> list[exports.Export]:
    """Return the executions of a recording; raises ``InvalidRequest``."""
    try:
        with file.open("rb") as lines:
            return list(exports.read(lines, str(file)))
    except OSError as error:
        raise errors.InvalidRequest(f"{file} cannot be read: {error.strerror}") from error


def replay(file: Path, flows: Path, *, strict: bool, effects: bool) -> list[running_replay.Outcome]:
    """Replay every execution of a recording against ``flows``; raises ``FlowDiffers`` at the first that differs.

    With ``strict`` differing arguments of calls count, with ``effects`` a flow may have effects of its own."""
    __tracebackhide__ = True
    said = running_replay.Options(effects=effects, strict=strict, quiet=True, limit_s=_REPLAY_S)
    found = []
    for export in read(file):
        record, lines = exported.Exported(export), _Lines()
        header = record.header
        if header.type == "FLOW" and not (flows / header.path).is_file():
            raise FlowDiffers(f"{file.name} was recorded of {header.path}, which is not in {flows}")
        outcome = asyncio.run(running_replay.replay(record, flows.resolve(), lines, said))
        if outcome.verdict not in (running_replay.Verdict.SAME, running_replay.Verdict.FURTHER):
            raise FlowDiffers(_difference(file, record, outcome, lines.said))
        found.append(outcome)
    return found


def _difference(file: Path, record: exported.Exported, outcome: running_replay.Outcome, said: list[str]) -> str:
    told = [f"{record.header.flow or 'a script'} does not do what {file.name} records of {record.header.execution}:"]
    told.append(failures.told(outcome.divergence) if outcome.divergence is not None else outcome.text)
    if outcome.masked:
        told.append(f"{outcome.masked} answers hold something masked: the flow got the mask instead of the secret")
    return "\n".join([*told, *(["its log:"] if said else []), *(f"  {line}" for line in said)])


def tasks(file: Path) -> list[RecordedTask]:
    """Return the tasks of a recording that the flows in it asked for, in order."""
    return asyncio.run(_tasks(file))


async def _tasks(file: Path) -> list[RecordedTask]:
    found = []
    for export in read(file):
        record = exported.Exported(export)
        for execution in export.records:
            state = model.Execution.told(export.records[execution])
            if state is None or state.type != "TASK" or not state.status.ended:
                continue
            inputs = values.decode(await record.shown(state.inputs))
            found.append((state.id, RecordedTask(state.task, inputs, await _answer(record, state))))
    return [task for _, task in sorted(found, key=lambda pair: pair[0])]  # ids begin with their time


async def _answer(record: exported.Exported, state: model.Execution) -> dict[str, Any] | Exception:
    output = values.decode(msgspec.Raw(values.encode(await views.output(record, state))))
    if state.failure is None:
        answer: dict[str, Any] = output
        return answer
    return errors.TaskFailed(state.failure.message, output=values.encode(output), kind=state.failure.type)
