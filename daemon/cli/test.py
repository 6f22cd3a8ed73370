"""The verb ``test``: the tests that a repository has of its own flows, run by pytest with ``testing.plugin``."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from pathlib import Path

import click

from ...engine import errors
from . import render

#: What pytest's exit statuses are here: passed, failed, interrupted, broken inside, wrong usage, nothing to run.
_STATUS = {0: 0, 1: 1, 2: 130, 3: 1, 4: 2, 5: 3}
_NOTHING = 5


@click.command(context_settings={"ignore_unknown_options": True, "allow_interspersed_args": False})
@click.argument("words", metavar="[DIR] [PYTEST ARGUMENT]...", nargs=-1, type=click.UNPROCESSED)
def test(words: tuple[str, ...]) -> int:
    """Run the tests of the flows in DIR, or here: what pytest finds in the folder `tests`.

    No daemon is needed: each test has one of its own, in which tasks are what the test says. Everything after DIR goes
    to pytest: `headrace test . -k greets -x`. Exit status: 0 if all passed, 1 if not, 3 if there are none."""
    folder = Path(words[0]) if words and Path(words[0]).is_dir() else Path()
    arguments = list(words[1:] if folder != Path() or words[:1] == (".",) else words)
    if importlib.util.find_spec("pytest") is None:
        raise errors.NotFound("pytest is not installed here", hint="pip install 'headrace[pytest]'")
    # The plugin is named for those who keep pytest from loading plugins by itself.
    command = [sys.executable, "-m", "pytest", "-p", "headrace", "--rootdir", ".", "--flows", "."]
    status = _run([*command, *arguments], folder)
    if status == _NOTHING:
        render.say("hint: a test is a function `test_…(run_flow)` in tests/test_….py; docs/testing.md shows some")
    return _STATUS.get(status, 1)


def _run(command: list[str], folder: Path) -> int:
    """Run it to its end, however often somebody presses Ctrl-C: it hears that too, and has daemons to stop."""
    with subprocess.Popen(command, cwd=folder) as process:
        while True:
            try:
                return process.wait()
            except KeyboardInterrupt:
                continue
