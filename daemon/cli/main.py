"""The command ``headrace``: its verbs, and what becomes of an error.

A verb's module is imported when the verb is used, so that every verb starts quickly. The verbs return an exit status:
0 all is well, 1 the execution failed, 2 usage, 3 not found, 4 not allowed, 69 no daemon answers, 124 timed out,
130 interrupted. Called by the entry point of the package.
"""

from __future__ import annotations

import importlib
import io
import keyword
import os
import platform
import sys
from collections.abc import Sequence
from typing import Any

import click

from ... import __version__
from ...engine import errors
from . import options, render

#: verb -> where it is, in the order in which help shows them
_VERBS = {
    "up": "up",
    "init": "init",
    "run": "act",
    "try": "act",
    "flows": "catalogue",
    "flow": "flow",
    "executions": "look",
    "show": "look",
    "logs": "look",
    "tree": "look",
    "cancel": "act",
    "pause": "act",
    "resume": "act",
    "rerun": "act",
    "acknowledge": "act",
    "messages": "messages",
    "answer": "messages",
    "settings": "records",
    "files": "records",
    "connections": "records",
    "webhooks": "records",
    "schedules": "records",
    "vault-configs": "records",
    "locks": "locks",
    "workers": "workers",
    "records": "history",
    "backup": "backup",
    "restore": "backup",
    "replay": "replay",
    "check": "check",
    "test": "test",
    "sync": "catalogue",
    "tasks": "catalogue",
    "login": "accounts",
    "logout": "accounts",
    "token": "accounts",
    "audit": "accounts",
    "status": "service",
    "reload": "service",
    "log-level": "service",
    "maintenance": "service",
    "doctor": "doctor",
    "unit": "unit",
    "openapi": "catalogue",
    "completion": "completion",
}


class _Verbs(options.Verbs):
    def list_commands(self, ctx: click.Context) -> list[str]:
        return [*_VERBS, *super().list_commands(ctx)]

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in _VERBS:
            return super().get_command(ctx, cmd_name)
        # The marked place where verbs are imported.
        module = importlib.import_module(f".{_VERBS[cmd_name]}", __package__)
        name = cmd_name.replace("-", "_")
        found: click.Command = getattr(module, f"{name}_" if keyword.iskeyword(name) else name)
        return found


@click.group(cls=_Verbs, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@options.target
def headrace(url: str, state: str) -> None:
    """Flows from git, run durably.

    `headrace up DIRECTORY` starts the daemon; the other verbs talk to it: to the one at --url or HEADRACE_URL, else to
    the one whose state directory is --state, STATE_DIRECTORY or ./.headrace."""
    click.get_current_context().obj = options.Target(url, state)


@headrace.command()
@options.as_json
def version(*, as_json: bool) -> None:
    """Print the version."""
    if as_json:
        render.json_object({"version": __version__, "python": platform.python_version()})
    else:
        render.line(f"headrace {__version__}")


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command with ``argv`` (else the process's arguments) and return its exit status."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # what a flow wrote may not be UTF-8; show it all the same
    try:
        result: Any = headrace.main(args=argv, prog_name="headrace", standalone_mode=False)
        sys.stdout.flush()
    except click.ClickException as error:
        error.show()
        return error.exit_code
    except errors.HeadraceError as error:
        render.say_error(error)
        return error.exit_code
    except (click.Abort, KeyboardInterrupt):
        return 130
    except BrokenPipeError:
        # Who read our output has seen enough (`| head`); the interpreter must not try to flush again.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    return result if isinstance(result, int) else 0
