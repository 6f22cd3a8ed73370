"""The verb ``init``: a new repository of flows, ready to be run and pushed."""

from __future__ import annotations

from pathlib import Path

import click

from .. import scaffold
from . import render


@click.command()
@click.argument("directory", metavar="[DIR]", default=".", type=click.Path(path_type=Path))
def init(directory: Path) -> None:
    """Make a new repository of flows in DIR, or here: two flows with tests, a setting, what editors need.

    Nothing is overwritten. Where git is, it has a first commit."""
    paths = scaffold.write(directory)
    for path in paths:
        render.line(str(directory / path))
    undone = scaffold.commit(directory, paths)
    render.say(f"not committed: {undone}" if undone else "committed as the first commit")
    render.say(f"`headrace up {directory}` runs it, `headrace run hello` tries it.")
