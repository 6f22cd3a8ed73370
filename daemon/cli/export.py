"""``headrace records export``: executions as files that can be replayed elsewhere. ``history`` has its group."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

import click

from ..client import Client
from . import completers, options, render


@click.command()
@options.reaches_daemon
@click.argument("executions", metavar="ID...", nargs=-1, required=True, shell_complete=completers.executions)
@click.option("-o", "--output", default="-", metavar="FILE|-", help="Where to write; stdout unless given.")
def export(client: Client, executions: tuple[str, ...], *, output: str) -> None:
    """Write executions as JSON lines: the record, what it refers to, and the flow's source.

    Secrets are masked. `headrace replay FILE` runs such an execution again where nothing else of it is. ID may be
    `latest`, or the beginning or the end of an id."""
    with _opened(output) as file, render.bar("exporting", len(executions)) as reached:
        for done, execution in enumerate([client.execution_id(text) for text in executions]):
            reached(done)
            for line in client.export(execution):
                file.write(line)
    if output != "-":
        render.say(f"{output}: {len(executions)} execution{'s' if len(executions) > 1 else ''}")


@contextlib.contextmanager
def _opened(output: str) -> Iterator[BinaryIO]:
    """Give what to write to; a file is there when it is complete, and not at all if that fails."""
    if output == "-":
        sys.stdout.flush()
        yield sys.stdout.buffer
        sys.stdout.buffer.flush()
        return
    path = Path(output)
    beside = path.with_name(f".{path.name}.part")
    try:
        with beside.open("wb") as file:
            yield file
        beside.replace(path)
    except OSError as error:
        raise click.FileError(output, str(error.strerror)) from error
    finally:
        beside.unlink(missing_ok=True)
