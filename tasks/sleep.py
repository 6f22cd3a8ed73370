"""SLEEP: do nothing for a while. Flows have ``this.sleep`` for that; this is for those that ask for a task."""

from __future__ import annotations

import asyncio
from typing import Annotated

import msgspec

from ..engine import ports
from . import definition as definitions
from .host import about

TASK = "SLEEP"


class SleepInputs(definitions.Inputs, kw_only=True):
    """The inputs of SLEEP."""

    seconds: Annotated[
        Annotated[float, msgspec.Meta(ge=0, le=366 * 86400)], about("(or delay) How many seconds, up to a year.")
    ]


class SleepOutput(msgspec.Struct, kw_only=True):
    """The output of SLEEP."""

    seconds: float


async def _run(inputs: SleepInputs, _: ports.TaskContext) -> SleepOutput:
    await asyncio.sleep(inputs.seconds)
    return SleepOutput(seconds=inputs.seconds)


def definition(_: definitions.Settings) -> definitions.TaskDefinition[SleepInputs]:
    """Return the task type SLEEP."""
    return definitions.TaskDefinition(
        name=TASK,
        summary="Do nothing for a while",
        description="Ends after so many seconds. After the daemon's death it begins anew.",
        inputs=SleepInputs,
        output=SleepOutput,
        run=_run,
        idempotent=lambda _: True,
        input_aliases={"delay": "seconds"},
    )
