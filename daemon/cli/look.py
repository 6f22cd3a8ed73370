"""The verbs that look at executions: ``executions``, ``show``, ``logs``, ``tree``."""

from __future__ import annotations

import datetime
import sys
from collections.abc import Sequence
from typing import Any, TextIO, TypedDict, Unpack

import click

from ..client import JSON, Client
from . import completers, options, render

_STATUSES = ("NEW", "QUEUED", "RUNNING", "WAITING", "PAUSED", "ENDED_SUCCESS", "ENDED_ERROR", "ENDED_CANCELLED")
_TREE_MAX = 1000  # executions in one tree; each is a request
_LEVEL_STYLES = {"DEBUG": "dim", "WARNING": "yellow", "ERROR": "red", "CRITICAL": "bold red", "stderr": "red"}

execution_argument = click.argument("execution", metavar="ID", shell_complete=completers.executions)


class StatusName(click.ParamType[str]):
    """A status, with or without what all ends have in common."""

    name = "status"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """Read ``error``, ``ENDED_ERROR``, ``running``."""
        names = {name.removeprefix("ENDED_").lower(): name for name in _STATUSES}
        found = names.get(str(value).lower().removeprefix("ended_"))
        return found or self.fail(f"{value!r} is none of {', '.join(names)}", param, ctx)


class _Filters(TypedDict):
    flow_name: str
    tag: str
    statuses: tuple[str, ...]
    failed: bool
    unacknowledged: bool
    since: str | None
    limit: int


@click.command()
@options.reaches_daemon
@click.option("--flow", "flow_name", default="", metavar="NAME", shell_complete=completers.flows, help="Of this flow.")
@click.option(
    "--status",
    "statuses",
    multiple=True,
    type=StatusName(),
    metavar="STATUS",
    help="In this status, such as running or error; may be given again.",
)
@click.option("--tag", default="", help="Of flows that have this tag.")
@click.option("--failed", is_flag=True, help="The same as --status error.")
@click.option("--unacknowledged", is_flag=True, help="Failed, and nobody said that they know.")
@click.option(
    "--since", default=None, type=options.Since(), metavar="TIME", help="Made since then: 2h, 7d, or a date and time."
)
@click.option("--limit", default=25, show_default=True, type=click.IntRange(1, 10_000), help="So many, the newest.")
@options.as_json
def executions(client: Client, *, as_json: bool, **given: Unpack[_Filters]) -> None:
    """List executions, newest first."""
    filters: dict[str, str | Sequence[str]] = {
        "flow": given["flow_name"],
        "status": [*given["statuses"], *(["ENDED_ERROR"] if given["failed"] else [])],
        "since": given["since"] or "",
        "tag": given["tag"],
        "acknowledged": "false" if given["unacknowledged"] else "",
    }
    found = client.all_executions(limit=given["limit"], **filters)
    if as_json:
        render.json_object({"items": found})
        return
    if not found:
        render.say("no execution is like that" if any(filters.values()) else "nothing has been run yet")
        return
    rows = [
        (
            each["id"],
            render.status(each),
            (each["name"], "bold"),
            render.moment(each["created_at"]),
            render.took(each),
            each["message"].strip(),
        )
        for each in found
    ]
    render.table(["ID", "STATUS", "NAME", "CREATED", "TOOK", "MESSAGE"], rows, cut=["NAME", "MESSAGE"])


@click.command()
@options.reaches_daemon
@execution_argument
@options.as_json
def show(client: Client, execution: str, *, as_json: bool) -> None:
    """Show one execution: what it was given, how it went, what came of it.

    ID may be `latest`, or the beginning or the end of an id."""
    found = client.execution(client.execution_id(execution))
    if as_json:
        render.json_object(found)
        return
    stopping = "asked for" if found["cancel_requested"] and not found["ended_at"] else ""
    by = f" by {found['created_by']}" if found["created_by"] else ""
    render.fields([
        ("execution", (found["id"], "bold")),
        ("name", found["name"]),
        ("status", render.status(found)),
        ("cancel", stopping),
        ("pause", "asked for" if found.get("pause_requested") and found["status"] != "PAUSED" else ""),
        ("message", found["message"]),
        ("reason", found["reason"]),
        ("flow", found["flow_name"]),
        ("task", found["task"]),
        ("commit", found["commit"]),
        ("parent", found["parent_execution_id"] or ""),
        ("created", render.exact(found["created_at"]) + by),
        ("started", render.exact(found["started_at"])),
        ("ended", render.exact(found["ended_at"])),
        ("took", render.took(found)),
        ("effect", _effect(found.get("effect"))),
        ("attempt", str(found["attempt"]) if found["attempt"] > 1 else ""),
        ("generation", str(found["generation"]) if found["generation"] > 1 else ""),
        ("choose", _choices(found)),
        ("due", render.exact(found.get("due") or None)),
        ("retry", _retry(found)),
        ("not before", render.exact(found.get("not_before")) if found["status"] == "QUEUED" else ""),
        ("repeats", found.get("rerun_of", "")),
        ("told of", found.get("follows", "")),
        ("priority", str(found.get("priority") or "")),
        ("tags", ", ".join(found.get("tags", ()))),
        ("trace", found.get("trace_url") or found.get("traceparent", "")),
        ("acknowledged", "yes" if found.get("acknowledged") else ""),
    ])  # fmt: skip
    if found["waiting_for"]:
        render.heading("Waiting for")
    for call in found["waiting_for"]:
        children = f": {', '.join(call['children'])}" if call["children"] else ""
        render.line(f"call {call['call']}, {call['kind']} {call['target']}{children}")
    for title, value in (("Input", found["input_value"]), ("Output", found["output_value"])):
        if value not in (None, {}):
            render.heading(title)
            render.json_object(value)
    if found["error"]:
        render.heading("Error")
        failure(found["error"], sys.stdout)


def _retry(found: JSON) -> str:
    return f"number {found['retry']}, of {found['retry_of']}" if found.get("retry") else ""


def _choices(found: JSON) -> str:
    """What to do about one that stands still for a reason."""
    if found["status"] != "PAUSED" or not found["reason"]:
        return ""
    return f"headrace resume {found['id']} · headrace resume --restart {found['id']} · headrace cancel {found['id']}"


def _effect(effect: JSON | None) -> str:
    """What it did by itself, outside of its calls."""
    if not effect:
        return ""
    place = f" at {effect['file']}:{effect['line']}" if effect["file"] else ""
    return f"{effect['event']} {render.plain(effect['detail'])}".rstrip() + f"{place}, after call {effect['call']}"


def failure(error: JSON, to: TextIO) -> None:
    """Write why an execution failed: the traceback, or else the exception and its place."""
    if error["traceback"]:
        render.line(error["traceback"].rstrip("\n"), to=to)
        return
    place = f"  ({error['file']}:{error['line']})" if error["file"] else ""
    kind = "" if error["message"].startswith(error["type"]) else f"{error['type']}: "
    render.line((kind, "bold red"), error["message"], (place, "dim"), to=to)


@click.command()
@options.reaches_daemon
@execution_argument
@click.option("-f", "--follow", is_flag=True, help="Go on until it has ended.")
@options.as_json
def logs(client: Client, execution: str, *, follow: bool, as_json: bool) -> None:
    """Print the log of an execution; with --json one object a line.

    ID may be `latest`, or the beginning or the end of an id."""
    id_ = client.execution_id(execution)
    if not follow:
        for entry in client.log(id_):
            render.json_line(entry) if as_json else log_line(entry, sys.stdout)
        return
    for event in client.follow_log(id_):
        if event.event == "end":
            render.say(("ended: ", "dim"), render.status(event.data))
        elif as_json:
            render.json_line(event.data)
        else:
            log_line(event.data, sys.stdout)
        sys.stdout.flush()  # who reads along through a pipe wants each line now


def log_line(entry: JSON, to: TextIO) -> None:
    """Write one line of a log; further lines of its text stand below the first."""
    at = datetime.datetime.fromisoformat(entry["at"]).astimezone().strftime("%H:%M:%S.%f")[:-3]
    kind = entry["stream"] or entry["level"]
    style = _LEVEL_STYLES.get(kind, "")
    text = entry["text"].rstrip("\n").replace("\n", "\n" + " " * 24)
    render.log_line([(f"{at}  ", "dim"), (f"{kind:<8}  ", style or "dim")], text, style, to=to)


@click.command()
@options.reaches_daemon
@execution_argument
@options.as_json
def tree(client: Client, execution: str, *, as_json: bool) -> None:
    """Show an execution with everything it started."""
    root = client.execution(client.execution_id(execution))
    cut = _grow(client, root)
    if as_json:
        render.json_object(root)
    else:
        _show_branch(root, "", "")
    if cut:
        render.say(f"only the first {_TREE_MAX} executions are shown")


def _grow(client: Client, root: JSON) -> bool:
    """Give every execution below ``root`` its ``children``, oldest first; True if there were too many."""
    count, level = 1, [root]
    while level:
        below: list[JSON] = []
        for parent in level:
            room = _TREE_MAX - count if parent["type"] != "TASK" else 0  # tasks start nothing
            children = client.all_executions(limit=room, parent=parent["id"])
            parent["children"] = children[::-1]
            count += len(children)
            below += children
        if count >= _TREE_MAX:
            for each in below:
                each["children"] = []
            return True
        level = below
    return False


def _show_branch(execution: JSON, first: str, rest: str) -> None:
    took = render.took(execution)
    message = execution["message"].partition("\n")[0]
    render.line(
        (first, "dim"),
        (execution["name"], "bold"),
        "  ",
        render.status(execution),
        f"  {took}" if took else "",
        (f"  {execution['id']}", "dim"),
        f"  {message}" if message else "",
    )
    children = execution["children"]
    for child in children[:-1]:
        _show_branch(child, f"{rest}├─ ", f"{rest}│  ")
    for child in children[-1:]:
        _show_branch(child, f"{rest}└─ ", f"{rest}   ")
