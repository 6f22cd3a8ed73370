"""The verbs about what could run: ``flows``, ``sync``, ``tasks``."""

from __future__ import annotations

import contextlib
import json
import threading
from collections.abc import Callable, Iterator
from typing import Any

import click

from ...engine import errors
from ..client import JSON, Client
from . import completers, options, render


@click.command()
@options.reaches_daemon
@click.option("--tag", default="", help="Only flows that have this tag.")
@options.as_json
def flows(client: Client, *, tag: str, as_json: bool) -> None:
    """List the catalogue, and what is broken in it."""
    found = client.flows(tag)
    if as_json:
        render.json_object({"items": found})
        return
    if doing := client.sync_state()["doing"]:
        render.say((doing, "cyan"))
    if not found:
        render.say(
            f"no flow has the tag {tag}"
            if tag
            else "there are no flows yet; `headrace sync --status` shows where they are looked for"
        )
        return
    rows = [
        (
            each["name"],
            state_of(each),
            each["commit"][:8],
            each["webhook"]["name"] if each["webhook"] else "",
            each["description"].partition("\n")[0],
        )
        for each in found
    ]
    render.table(["FLOW", "STATE", "COMMIT", "WEBHOOK", "DESCRIPTION"], rows, cut=["DESCRIPTION"])
    broken = [each for each in found if each["broken"]]
    if broken:
        render.line()
    for each in broken:
        render.line((each["name"], "bold"), ": ", *reason_of(each["broken"]))


@click.command()
@options.reaches_daemon
@click.option("--status", "status_only", is_flag=True, help="Only show how it stands; do not look at the source.")
@click.option("--dry-run", is_flag=True, help="Look, and only show what that would change.")
@options.as_json
def sync(client: Client, *, status_only: bool, dry_run: bool, as_json: bool) -> int:
    """Look for new commits now, and show what is published."""
    if dry_run:
        plans = client.sync_plan()
        render.json_object({"items": plans}) if as_json else _show_plans(plans)
        return int(any(plan["result"] == "reject" for plan in plans))
    if status_only:
        state = client.sync_state()
    else:
        with render.progress() as tell, _watched(client, tell):
            state = client.sync()
    if as_json:
        render.json_object(state)
    else:
        _show_sync(state)
    return 1 if state["error"] and not status_only else 0


@contextlib.contextmanager
def _watched(client: Client, tell: Callable[[str], None] | None) -> Iterator[None]:
    """Tell meanwhile what the daemon is at: looking, building the environment of some packages."""
    if tell is None:
        yield
        return
    over = threading.Event()

    def watch() -> None:
        tell(_LOOKING)
        while not over.wait(_WATCH_S):
            with contextlib.suppress(errors.HeadraceError):
                tell(client.sync_state()["doing"] or _LOOKING)

    watching = threading.Thread(target=watch, name="progress", daemon=True)
    watching.start()
    try:
        yield
    finally:
        over.set()
        watching.join()


_LOOKING = "looking at the source"
_WATCH_S = 0.5
_MARKS = {"added": "+", "removed": "-", "changed": "~", "renamed": ">", "broken": "!", "mended": "*"}


def _show_plans(plans: list[JSON]) -> None:
    for plan in plans:
        what = {"publish": "would be published", "unchanged": "is published already", "reject": "would be refused"}
        commit = f"{plan['commit'][:12]} of {plan['ref']}"
        render.line((plan["source"], "bold"), f": {commit} {what[plan['result']]}")
        if plan["rewritten"]:
            render.line(("the history was rewritten: it does not contain what is published", "yellow"))
        if plan["reason"]:
            render.line((plan["reason"], "bold red"))
        for change in plan["changes"]:
            name = f"{change['before']} → {change['name']}" if change["before"] else change["name"]
            kind = "" if change["kind"] == "flow" else f"  ({change['kind'].replace('_', ' ')})"
            render.line(f"  {_MARKS[change['change']]} {change['change']:<8} ", (name, "bold"), kind)
        for each in [*plan["broken"], *plan["problems"]]:
            render.line((each["file"], "bold"), ": ", *reason_of(each))
        _show_warnings(plan["warnings"])


def _show_sync(state: JSON) -> None:
    render.fields([
        ("source", state["source"]),
        ("ref", state["ref"]),
        ("commit", (state["commit"] or "nothing published yet", "bold")),
        ("published", render.exact(state["published_at"])),
        ("state", state["state"]),
        ("doing", state["doing"]),
        ("looked", render.exact(state["last_attempt_at"])),
        ("succeeded", render.exact(state["last_success_at"])),
        ("flows", str(state["flows"])),
        ("error", (state["error"] or "", "bold red")),
    ])  # fmt: skip
    if len(state.get("sources", [])) > 1:
        render.heading("Sources")
        rows = [
            ((one["prefix"] or "(none)", "bold"), one["source"], one["ref"], one["commit"][:12], one["state"])
            for one in state["sources"]
        ]
        render.table(["PREFIX", "SOURCE", "REF", "COMMIT", "STATE"], rows)
    if state["broken"] or state.get("problems"):
        render.heading("Broken")
    for each in [*state["broken"], *state.get("problems", [])]:
        render.line((each.get("name") or each["file"], "bold"), ": ", *reason_of(each))
    _show_warnings(state["warnings"])


def _show_warnings(warnings: dict[str, str]) -> None:
    if warnings:
        render.heading("Warnings")
    for path, text in warnings.items():
        render.line((f"{path}: {text}", "yellow"))


@click.command()
@options.reaches_daemon
@click.argument("task_type", metavar="[TYPE]", required=False, shell_complete=completers.tasks)
@options.as_json
def tasks(client: Client, task_type: str | None, *, as_json: bool) -> None:
    """List the task types a flow may ask for, or document one."""
    if task_type:
        found = client.task(task_type)
        render.json_object(found) if as_json else _show_task(found)
        return
    types = client.tasks()
    if as_json:
        render.json_object({"items": types})
        return
    rows = [((each["name"], "bold"), ", ".join(each["aliases"]), each["summary"]) for each in types]
    render.table(["TYPE", "ALSO", "WHAT IT DOES"], rows, wrap=["WHAT IT DOES"])


def _show_task(found: JSON) -> None:
    render.fields([
        ("type", (found["name"], "bold")),
        ("also", ", ".join(found["aliases"])),
        ("summary", found["summary"]),
    ])  # fmt: skip
    if found["description"]:
        render.paragraph(found["description"])
    for title, schema in (("Inputs", found["inputs"]), ("Output", found["output"])):
        shown = _resolved(schema, schema)
        if not shown.get("properties"):
            continue
        render.heading(title)
        needed = set(shown.get("required", []))
        members = {name: _resolved(member, schema) for name, member in shown["properties"].items()}
        rows = [_member(name, member, required=name in needed) for name, member in members.items()]
        render.table(["NAME", "TYPE", "DEFAULT", "DESCRIPTION"], rows, wrap=["TYPE", "DESCRIPTION"])


def _member(name: str, schema: JSON, *, required: bool) -> tuple[render.Part, ...]:
    default = "" if schema.get("default") is None else json.dumps(schema["default"], ensure_ascii=False)
    return (
        (name, "bold"),
        _schema_type(schema),
        ("required", "yellow") if required else default,
        schema.get("description", ""),
    )


def _resolved(schema: JSON, root: JSON) -> JSON:
    """Return what a ``$ref`` into the root's ``$defs`` stands for, with what is said beside it."""
    definition = root.get("$defs", {}).get(schema.get("$ref", "").removeprefix("#/$defs/"), {})
    beside = {key: value for key, value in schema.items() if key != "$ref" or not definition}
    return {**definition, **beside}


def _schema_type(schema: JSON) -> str:
    if "enum" in schema:
        return " | ".join(json.dumps(choice) for choice in schema["enum"])
    if "anyOf" in schema:
        return " | ".join(_schema_type(choice) for choice in schema["anyOf"] if choice.get("type") != "null")
    if "$ref" in schema:
        return str(schema["$ref"].rpartition("/")[2])
    kind: Any = schema.get("type", "any")
    return kind if isinstance(kind, str) else " | ".join(kind)


def state_of(found: JSON) -> render.Part:
    """Return how a flow is."""
    if not found["runnable"]:
        return "broken", "bold red"
    if found["broken"]:
        return "older version", "yellow"  # the newest one is broken, the last good one runs
    return "ok", "green"


def reason_of(broken: JSON) -> list[render.Part]:
    """Return why something is broken, and where."""
    place = f"{broken['file']}:{broken['line']}" if broken.get("line") else broken["file"]
    commit = f" in {broken['commit'][:8]}" if broken["commit"] else ""
    return [broken["reason"], (f"  ({place}{commit})", "dim")]


@click.command()
@options.reaches_daemon
def openapi(client: Client) -> None:
    """Print the description of the HTTP API (OpenAPI 3.1, JSON)."""
    render.json_object(client.openapi())
