"""The verbs that change something: ``run`` and ``cancel``."""

from __future__ import annotations

import json
import sys
import threading
import time
from pathlib import Path
from typing import Any, NoReturn, TypedDict, Unpack

import click

from ...engine import errors
from ..client import ENDED, JSON, Client
from . import look, options, render

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
@click.argument("flow", shell_complete=options.complete_flows)
@click.argument("pairs", metavar="[KEY=VALUE | KEY:=JSON]...", nargs=-1)
@click.option("--input", "document", default="", metavar="JSON|@FILE|-", help="The inputs as one JSON object.")
@click.option("--no-wait", is_flag=True, help="Print the execution's id and leave.")
@click.option("--follow", is_flag=True, help="Show its log (on stderr) while it runs.")
@click.option("--timeout", "timeout_s", type=options.Seconds(), metavar="TIME", help="Stop waiting then: 30, 5m.")
@options.as_json
def run(client: Client, flow: str, pairs: tuple[str, ...], *, as_json: bool, **given: Unpack[_RunOptions]) -> int:
    """Run a flow, wait, and print what it returned.

    KEY=VALUE gives a text, KEY:=JSON anything else. Exit status: 0 if it succeeded, 1 if not, 124 if it took longer
    than --timeout (it goes on)."""
    execution = client.run(flow, {**_read_document(given["document"]), **_read_pairs(pairs)})
    id_ = execution["id"]
    if given["no_wait"]:
        render.json_object(execution) if as_json else render.line(id_)
        return 0
    try:
        wait = _wait_following if given["follow"] else _wait
        execution = wait(client, execution, given["timeout_s"])
    except KeyboardInterrupt:
        render.say(f"\n{flow} goes on. `headrace logs -f {id_}` follows it, `headrace cancel {id_}` ends it.")
        return _INTERRUPTED
    if as_json:
        render.json_object(execution)
    return _tell(execution, quiet=as_json)


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


def _read_document(document: str) -> JSON:
    if not document:
        return {}
    if document == "-":
        text = sys.stdin.read()
    elif document.startswith("@"):
        try:
            text = Path(document[1:]).read_text(encoding="utf-8")
        except (OSError, UnicodeError) as error:
            raise click.UsageError(f"--input: {document[1:]} cannot be read: {error}") from error
    else:
        text = document
    value = _read_json(text, "--input")
    if not isinstance(value, dict):
        raise click.UsageError('--input must be a JSON object, such as {"day": "monday"}')
    return value


def _read_pairs(pairs: tuple[str, ...]) -> JSON:
    inputs: JSON = {}
    for pair in pairs:
        key, equals, value = pair.partition("=")
        if not equals or not key.removesuffix(":"):
            raise click.UsageError(f"{pair!r} is neither KEY=VALUE nor KEY:=JSON")
        if key.endswith(":"):
            inputs[key[:-1]] = _read_json(value, key[:-1])
        else:
            inputs[key] = value
    return inputs


def _read_json(text: str, what: str) -> Any:
    def refuse(constant: str) -> NoReturn:
        raise ValueError(f"{constant} is not JSON")

    try:
        return json.loads(text, parse_constant=refuse)
    except (ValueError, RecursionError) as error:
        raise click.UsageError(f"{what} is not valid JSON: {error}") from error


@click.command()
@options.reaches_daemon
@click.argument("executions", metavar="ID...", nargs=-1, required=True, shell_complete=options.complete_executions)
@options.as_json
def cancel(client: Client, executions: tuple[str, ...], *, as_json: bool) -> int:
    """Have executions end. Each is asked for, even if another one cannot be cancelled."""
    asked: list[JSON] = []
    worst = 0
    for text in executions:
        try:
            asked.append(client.cancel(client.execution_id(text)))
        except errors.HeadraceError as error:
            render.say_error(error)
            worst = max(worst, error.exit_code)
    if as_json:
        render.json_object({"items": asked})
    else:
        for each in asked:
            render.line(each["id"], "  ", render.status(each), "  cancel asked for" if not each["ended_at"] else "")
    return worst
