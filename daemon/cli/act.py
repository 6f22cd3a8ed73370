"""The verbs that set executions going, and act on them: ``run``, ``try``, ``rerun``, ``cancel``, ``pause``, ``resume``,
``acknowledge``."""

from __future__ import annotations

import functools
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypedDict, Unpack

import click

from ...engine import errors
from ..client import ENDED, JSON, Client
from . import arguments, completers, look, many, options, render

_TIMED_OUT = 124
_INTERRUPTED = 130
_LOG_REST_S = 5.0  # how long the end of a followed log may lag behind the end of its execution


class _RunOptions(TypedDict):
    document: str
    no_wait: bool
    follow: bool
    timeout_s: float | None


@click.command()
@options.reaches_daemon
@click.argument("flow", shell_complete=completers.flows)
@click.argument("pairs", metavar="[KEY=VALUE | KEY:=JSON]...", nargs=-1)
@click.option("--input", "document", default="", metavar="JSON|@FILE|-", help="The inputs as one JSON object.")
@click.option("--ref", default="", metavar="REF", help="A commit, branch or tag; what is published unless said.")
@click.option("--no-wait", is_flag=True, help="Print the execution's id and leave.")
@click.option("--follow", is_flag=True, help="Show its log (on stderr) while it runs.")
@click.option("--timeout", "timeout_s", type=options.Seconds(), metavar="TIME", help="Stop waiting then: 30, 5m.")
@options.as_json
def run(
    client: Client, flow: str, pairs: tuple[str, ...], *, ref: str, as_json: bool, **given: Unpack[_RunOptions]
) -> int:
    """Run a flow, wait, and print what it returned.

    KEY=VALUE gives a text, KEY:=JSON anything else. Exit status: 0 if it succeeded, 1 if not, 124 if it took longer
    than --timeout (it goes on)."""
    execution = client.run(flow, {**arguments.document(given["document"]), **arguments.pairs(pairs)}, ref=ref)
    return _see_through(client, flow, execution, given, as_json=as_json)


@click.command(name="try")
@options.reaches_daemon
@click.argument("file", metavar="FILE|-", shell_complete=completers.paths)
@click.argument("pairs", metavar="[KEY=VALUE | KEY:=JSON]...", nargs=-1)
@click.option("--input", "document", default="", metavar="JSON|@FILE|-", help="The inputs as one JSON object.")
@click.option("--ref", default="", metavar="REF", help="A commit, branch or tag that it imports from.")
@click.option("--no-wait", is_flag=True, help="Print the execution's id and leave.")
@click.option("--follow/--no-follow", default=True, help="Show its log (on stderr) while it runs; yes unless said.")
@click.option("--timeout", "timeout_s", type=options.Seconds(), metavar="TIME", help="Stop waiting then: 30, 5m.")
@options.as_json
def try_(
    client: Client, file: str, pairs: tuple[str, ...], *, ref: str, as_json: bool, **given: Unpack[_RunOptions]
) -> int:
    """Run a script of this machine on the daemon, without committing it: follow its log, print what it returned.

    The script has a `handler`, as a flow does, and sees the flows, settings and modules that are published. Its first
    line may be `#!/usr/bin/env -S headrace try`. Exit status as that of `headrace run`."""
    if file == "-" and given["document"] == "-":
        raise click.UsageError("the script and --input cannot both come on stdin")
    script = arguments.text("-" if file == "-" else f"@{file}", "FILE")
    inputs = {**arguments.document(given["document"]), **arguments.pairs(pairs)}
    name = "stdin" if file == "-" else Path(file).name
    execution = client.run_script(script, inputs, name=name, ref=ref)
    return _see_through(client, name, execution, given, as_json=as_json)


def _see_through(client: Client, what: str, execution: JSON, given: _RunOptions, *, as_json: bool) -> int:
    """Wait for the end of an execution as the options say, and tell how it went. Returns the exit status."""
    id_ = execution["id"]
    if given["no_wait"]:
        render.json_object(execution) if as_json else render.line(id_)
        return 0
    if execution.get("held"):
        render.say(f"{what} waits: {execution['held']}")
    try:
        wait = _wait_following if given["follow"] else _wait
        execution = wait(client, execution, given["timeout_s"])
    except KeyboardInterrupt:
        render.say(f"\n{what} goes on. `headrace logs -f {id_}` follows it, `headrace cancel {id_}` ends it.")
        return _INTERRUPTED
    if as_json:
        render.json_object(execution)
    return _tell(execution, quiet=as_json)


@click.command()
@options.reaches_daemon
@click.argument("words", metavar="[ID] [KEY=VALUE | KEY:=JSON]...", nargs=-1, shell_complete=completers.executions)
@click.option("--latest/--same-commit", "latest", default=True, help="Which version of the flow; --latest unless said.")
@click.option("--input", "document", default="", metavar="JSON|@FILE|-", help="Other inputs as one JSON object.")
@click.option("--no-wait", is_flag=True, help="Print the new execution's id and leave.")
@click.option("--follow", is_flag=True, help="Show its log (on stderr) while it runs.")
@click.option("--timeout", "timeout_s", type=options.Seconds(), metavar="TIME", help="Stop waiting then: 30, 5m.")
@many.chosen_by_filter
@options.as_json
def rerun(client: Client, words: tuple[str, ...], *, latest: bool, as_json: bool, **given: Any) -> int:
    """Run again what an execution ran, with its inputs but for those given, and print what it returned.

    Exit status as that of `headrace run`. Without an ID, all that a filter finds are run again, and none is waited for:
    `headrace rerun --failed --since 1d --flow F`."""
    said = many.chosen(given)
    pairs = words if said else words[1:]
    otherwise = {**arguments.document(given["document"]), **arguments.pairs(pairs)}
    if said:
        version = "latest" if latest else "same"
        return many.act(client, "rerun", said, as_json=as_json, inputs=otherwise, version=version)
    if not words:
        raise click.UsageError("give an ID, or a filter such as --failed --since 1d")
    again = client.rerun(client.execution_id(words[0]), otherwise, same_commit=not latest)
    chosen: _RunOptions = {key: given[key] for key in _RunOptions.__annotations__}  # type: ignore[assignment]
    return _see_through(client, again["name"], again, chosen, as_json=as_json)


def _wait(client: Client, execution: JSON, timeout_s: float | None) -> JSON:
    began = time.monotonic()

    def described(now: JSON) -> str:
        message = now["message"].partition("\n")[0]
        return f"{now['name']}  {now['status']}  {render.span(time.monotonic() - began)}  {message}"

    with render.progress() as show:
        on_unended = (lambda now: show(described(now))) if show else None
        return client.wait(execution["id"], timeout_s, on_unended)


def _wait_following(client: Client, execution: JSON, timeout_s: float | None) -> JSON:
    id_ = execution["id"]

    def follow() -> None:
        try:
            for event in client.follow_log(id_):
                if event.event != "end":
                    look.log_line(event.data, sys.stderr)
        except errors.HeadraceError as error:  # waiting goes on, and reports what matters
            render.say(f"the log cannot be followed any more: {error.message}")

    follower = threading.Thread(target=follow, name="follow-log", daemon=True)
    follower.start()
    execution = client.wait(id_, timeout_s)
    if execution["status"] in ENDED:
        follower.join(_LOG_REST_S)
    return execution


def _tell(execution: JSON, *, quiet: bool) -> int:
    """Say how it went; unless ``quiet`` its output goes to stdout. Returns the exit status."""
    status, id_ = execution["status"], execution["id"]
    if status not in ENDED:
        hint = f" and goes on. `headrace logs -f {id_}` follows it."
        render.say(f"{execution['name']} is still ", render.status(execution), hint)
        return _TIMED_OUT
    if not quiet and (execution["output_value"] not in (None, {}) or status == "ENDED_SUCCESS"):
        render.json_object(execution["output_value"])
    took = f" after {render.took(execution)}" if execution["started_at"] else ""
    message = f": {execution['message'].strip()}" if execution["message"] else ""
    render.say(render.status(execution), f"  {execution['name']}{took}{message}", (f"  {id_}", "dim"))
    if execution["error"]:
        look.failure(execution["error"], sys.stderr)
    return 0 if status == "ENDED_SUCCESS" else 1


def _executions_argument(function: Callable[..., int]) -> Callable[..., int]:
    argument = click.argument(
        "executions", metavar="ID...", nargs=-1, required=True, shell_complete=completers.executions
    )
    return argument(function)


_any_executions_argument = click.argument(
    "executions", metavar="[ID]...", nargs=-1, shell_complete=completers.executions
)


@click.command()
@options.reaches_daemon
@_any_executions_argument
@many.chosen_by_filter
@options.as_json
def cancel(client: Client, executions: tuple[str, ...], *, as_json: bool, **given: Any) -> int:
    """Have executions end. Each is asked for, even if another one cannot be cancelled.

    Without an ID, all that a filter finds: `headrace cancel --flow F --status queued`."""
    return _each_or_many(client, "cancel", client.cancel, executions, given, as_json=as_json)


@click.command()
@options.reaches_daemon
@_any_executions_argument
@many.chosen_by_filter
@options.as_json
def acknowledge(client: Client, executions: tuple[str, ...], *, as_json: bool, **given: Any) -> int:
    """Say that you know of failed executions: `headrace executions --unacknowledged` lists them no more.

    Without an ID, all that a filter finds: `headrace acknowledge --failed --since 1d`."""
    return _each_or_many(client, "acknowledge", client.acknowledge, executions, given, as_json=as_json)


def _each_or_many(
    client: Client,
    action: str,
    ask: Callable[[str], JSON],
    executions: tuple[str, ...],
    given: dict[str, Any],
    *,
    as_json: bool,
) -> int:
    said = many.chosen(given)
    if bool(said) == bool(executions):
        raise click.UsageError("give IDs, or a filter such as --failed --since 1d, and not both")
    if said:
        return many.act(client, action, said, as_json=as_json)
    return _each(client, ask, executions, many.DONE[action], as_json=as_json)


@click.command()
@options.reaches_daemon
@_executions_argument
@options.as_json
def pause(client: Client, executions: tuple[str, ...], *, as_json: bool) -> int:
    """Have executions stand still at their next call, until `headrace resume`."""
    return _each(client, client.pause, executions, "pause asked for", as_json=as_json)


@click.command()
@options.reaches_daemon
@_executions_argument
@click.option("--restart", is_flag=True, help="from the beginning of the flow, instead of where they were")
@options.as_json
def resume(client: Client, executions: tuple[str, ...], *, restart: bool, as_json: bool) -> int:
    """Let paused executions go on."""
    said = "begins anew" if restart else "goes on"
    return _each(client, functools.partial(client.resume, restart=restart), executions, said, as_json=as_json)


def _each(client: Client, ask: Callable[[str], JSON], executions: tuple[str, ...], said: str, *, as_json: bool) -> int:
    asked: list[JSON] = []
    worst = 0
    for text in executions:
        try:
            asked.append(ask(client.execution_id(text)))
        except errors.HeadraceError as error:
            render.say_error(error)
            worst = max(worst, error.exit_code)
    if as_json:
        render.json_object({"items": asked})
    else:
        for each in asked:
            render.line(each["id"], "  ", render.status(each), f"  {said}" if not each["ended_at"] else "")
    return worst
