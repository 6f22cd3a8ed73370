"""COMMAND: run a program on the daemon's own machine, if the operator allows that program.

No shell takes part: the program gets its arguments as they are. It works in a private folder that is gone afterwards.
"""

from __future__ import annotations

import codecs
import functools
from typing import Annotated

import msgspec

from ..engine import ports
from . import definition as definitions
from . import host, process, workplace

TASK = "COMMAND"
#: What a program may write to one of its outputs.
OUTPUT_BYTES_MAX = 16 * 1024 * 1024
#: How much of its outputs a failure keeps, from their end.
_FAILURE_CHARACTERS = 1024 * 1024


class CommandInputs(definitions.Inputs, kw_only=True):
    """The inputs of COMMAND."""

    command: Annotated[
        Annotated[list[str], msgspec.Meta(min_length=1, max_length=10_000)],
        host.about("The program and its arguments, as a list; no shell takes part."),
    ]
    stdin: Annotated[str | None, host.about("What the program reads. Default: nothing.")] = None
    env: Annotated[dict[str, str] | None, host.about("More variables of its environment.")] = None
    copy_files: workplace.CopyFiles = None
    output_files: workplace.OutputFiles = None
    expected_retcode: Annotated[int | list[int] | None, host.about("Statuses that count as success. Default: 0.")] = (
        None
    )
    encoding: Annotated[str, host.about("The character set of what it reads and writes. Default: utf-8.")] = "utf-8"


class CommandOutput(msgspec.Struct, kw_only=True):
    """The output of COMMAND."""

    retcode: int
    stdout: str
    stderr: str


def _check(inputs: CommandInputs) -> None:
    if any("\0" in one for one in inputs.command) or not inputs.command[0]:
        raise definitions.invalid(TASK, "command", "expected a program and arguments without zero bytes")
    for name, value in (inputs.env or {}).items():
        if not name or "=" in name or "\0" in name + value:
            raise definitions.invalid(TASK, "env", "expected names and values of variables")
    try:
        codecs.lookup(inputs.encoding)
    except LookupError:
        raise definitions.invalid(TASK, "encoding", "expected the name of a character set, such as utf-8") from None
    workplace.check(TASK, inputs.copy_files, inputs.output_files)


async def _attempt(settings: definitions.Settings, inputs: CommandInputs, context: ports.TaskContext) -> CommandOutput:
    name, *arguments = inputs.command
    program = settings.local.program(TASK, name)
    async with settings.folders.opened("command") as folder:
        await workplace.bring_in(context, folder, inputs.copy_files or ())
        env = process.environment(folder, inputs.env or {})
        if context.traceparent:
            env.setdefault("TRACEPARENT", context.traceparent)
        ended = await process.run(
            [program, *arguments],
            folder=folder,
            mark=context.execution_id,
            env=env,
            stdin=(inputs.stdin or "").encode(inputs.encoding, "replace"),
            output_bytes_max=OUTPUT_BYTES_MAX,
        )
        output = CommandOutput(
            retcode=ended.status,
            stdout=ended.stdout.decode(inputs.encoding, "replace"),
            stderr=ended.stderr.decode(inputs.encoding, "replace"),
        )
        expected = [0] if inputs.expected_retcode is None else inputs.expected_retcode
        if output.retcode not in (expected if isinstance(expected, list) else [expected]):
            last = (output.stderr.rstrip() or output.stdout.rstrip()).rpartition("\n")[2]
            said = f": {host.quoted(last)}" if last else ", without a word"
            output.stdout, output.stderr = output.stdout[-_FAILURE_CHARACTERS:], output.stderr[-_FAILURE_CHARACTERS:]
            raise host.Failed(f"the program ended with {output.retcode}{said}", output=output)
        await workplace.take_out(context, folder, inputs.output_files or ())
        return output


async def _run(settings: definitions.Settings, inputs: CommandInputs, context: ports.TaskContext) -> CommandOutput:
    attempt = functools.partial(_attempt, settings, inputs, context)
    shown = f"{TASK} {inputs.command[0]}"
    return await host.performed(shown, attempt, inputs, context, settings, repeatable=False)


def definition(settings: definitions.Settings) -> definitions.TaskDefinition[CommandInputs]:
    """Return the task type COMMAND."""
    return definitions.TaskDefinition(
        name=TASK,
        summary="Run a program on the daemon's machine",
        description="Runs a program that the operator allows, and fails when it ends with another status than "
        "expected. It ends with the task, and everything it started.",
        inputs=CommandInputs,
        output=CommandOutput,
        run=functools.partial(_run, settings),
        idempotent=lambda _: False,
        check=_check,
    )
