"""The command ``headrace``: its verbs, and what becomes of an error.

A verb's module is imported when the verb is used, so that every verb starts quickly, and so do the list of all and the
completion of their names. The verbs return an exit status: 0 all is well, 1 the execution failed, 2 usage, 3 not found,
4 not allowed, 69 no daemon answers, 124 timed out, 130 interrupted. Called by the entry point of the package.
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
from click import shell_completion

from ... import __version__
from ...engine import errors
from . import options, render

#: verb -> where it is, and the first sentence of its help; in the order in which help shows them
_VERBS = {
    "up": ("up", "Run the daemon here, in the foreground."),
    "init": (
        "init",
        "Make a new repository of flows in DIR, or here: two flows with tests, a setting, what editors need.",
    ),
    "run": ("act", "Run a flow, wait, and print what it returned."),
    "try": (
        "act",
        "Run a script of this machine on the daemon, without committing it: follow its log, print what it returned.",
    ),
    "flows": ("catalogue", "List the catalogue, and what is broken in it."),
    "flow": ("flow", "Show or change one flow."),
    "executions": ("look", "List executions, newest first."),
    "show": ("look", "Show one execution: what it was given, how it went, what came of it."),
    "logs": ("look", "Print the log of an execution; with --json one object a line."),
    "tree": ("look", "Show an execution with everything it started."),
    "cancel": ("act", "Have executions end."),
    "pause": ("act", "Have executions stand still at their next call, until `headrace resume`."),
    "resume": ("act", "Let paused executions go on."),
    "rerun": (
        "act",
        "Run again what an execution ran, with its inputs but for those given, and print what it returned.",
    ),
    "acknowledge": (
        "act",
        "Say that you know of failed executions: `headrace executions --unacknowledged` lists them no more.",
    ),
    "messages": ("messages", "What flows ask people; `headrace answer` answers."),
    "answer": ("messages", "Answer a message."),
    "settings": ("records", "The settings flows share."),
    "files": ("records", "The files flows keep."),
    "connections": ("records", "Where tasks connect to, and how."),
    "webhooks": ("records", "Who may call flows, and how."),
    "schedules": ("records", "When flows run by themselves."),
    "vault-configs": ("records", "The vaults secrets come from."),
    "locks": ("locks", "The locks that are taken, and who waits for them."),
    "workers": ("workers", "The machines that flow processes run on, and what runs where."),
    "records": ("history", "The records on disk: check, mend, index, prune and export them."),
    "backup": (
        "backup",
        "Copy the state directory to a file, or into a folder of backups; the daemon may work meanwhile.",
    ),
    "restore": ("backup", "Make an empty state directory what it was at the moment of a backup."),
    "replay": ("replay", "Run a recorded execution again: offline, with the recorded answers, touching nothing."),
    "check": (
        "check",
        "Check the flows in PATH, as a daemon would; with --records, replay what ran recently against them.",
    ),
    "test": ("test", "Run the tests of the flows in DIR, or here: what pytest finds in the folder `tests`."),
    "sync": ("catalogue", "Look for new commits now, and show what is published."),
    "tasks": ("catalogue", "List the task types a flow may ask for, or document one."),
    "login": ("accounts", "Remember a token for the daemon at URL, and mean that daemon from now on."),
    "logout": ("accounts", "Forget the token for the daemon at URL, else for the one that is meant."),
    "token": ("accounts", "The tokens that people and programs have."),
    "audit": ("accounts", "Show who did what, newest first; refused calls too."),
    "status": ("service", "How the daemon is: whether it takes work, maintenance, its log, its last reload."),
    "reload": ("service", "Have the daemon read its configuration anew."),
    "log-level": (
        "service",
        "Have the daemon log more, or less, for a while; `configured` goes back to log.level at once.",
    ),
    "maintenance": ("service", "Let nothing new begin, or let begin what waited."),
    "doctor": (
        "doctor",
        "Look whether all is well: git, the clock, the state directory, its disk, records and index, the daemon, its "
        "source, flows and locks.",
    ),
    "unit": (
        "unit",
        "Print the unit with which systemd runs the daemon: of the system, or with --user of the user who asks.",
    ),
    "openapi": ("catalogue", "Print the description of the HTTP API (OpenAPI 3.1, JSON)."),
    "completion": ("completion", "Print the completion script of a shell."),
}


class _Verbs(options.Verbs):
    def list_commands(self, ctx: click.Context) -> list[str]:
        return [*_VERBS, *super().list_commands(ctx)]

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in _VERBS:
            return super().get_command(ctx, cmd_name)
        # The marked place where verbs are imported.
        module = importlib.import_module(f".{_VERBS[cmd_name][0]}", __package__)
        name = cmd_name.replace("-", "_")
        found: click.Command = getattr(module, f"{name}_" if keyword.iskeyword(name) else name)
        return found

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """List the verbs, which need not be imported for that."""
        told = self._told(ctx)
        most = formatter.width - 6 - max(map(len, told))
        with formatter.section("Commands"):
            formatter.write_dl([(name, one.get_short_help_str(most)) for name, one in told.items()])

    def shell_complete(self, ctx: click.Context, incomplete: str) -> list[shell_completion.CompletionItem]:
        """Offer the verbs, likewise, and the options."""
        verbs = [
            shell_completion.CompletionItem(name, help=one.get_short_help_str())
            for name, one in self._told(ctx).items()
            if name.startswith(incomplete)
        ]
        return verbs + click.Command.shell_complete(self, ctx, incomplete)

    def _told(self, ctx: click.Context) -> dict[str, click.Command]:
        """Return what stands for each verb where only its help counts."""
        own = {name: self.commands[name] for name in super().list_commands(ctx)}
        return {name: click.Command(name, help=about) for name, (_, about) in _VERBS.items()} | own


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
