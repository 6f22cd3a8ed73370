"""The verbs about what could run: ``flows``, ``flow show|edit|rename|delete``, ``sync``, ``tasks``."""

from __future__ import annotations

import json
import tempfile
from typing import Any

import click

from ...engine import errors
from ..client import JSON, Client
from . import options, render


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
            _state(each),
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
        render.line((each["name"], "bold"), ": ", *_broken(each["broken"]))


@click.group()
def flow() -> None:
    """Show or change one flow."""


@flow.command()
@options.reaches_daemon
@click.argument("name", shell_complete=options.complete_flows)
@options.as_json
def show(client: Client, name: str, *, as_json: bool) -> None:
    """Show a flow and its script."""
    found = client.flow(name)
    if as_json:
        render.json_object(found)
        return
    hook = found["webhook"]
    published = f"{' '.join(hook['methods'])} /api/v1/webhook/{hook['name']} (auth: {hook['auth']})" if hook else ""
    render.fields([
        ("flow", (found["name"], "bold")),
        ("state", _state(found)),
        ("file", found["path"]),
        ("commit", found["commit"]),
        ("id", found["id"]),
        ("description", found["description"]),
        ("timeout", render.span(found["timeout_s"]) if found["timeout_s"] else ""),
        ("webhook", published),
    ])  # fmt: skip
    if found["broken"]:
        render.heading("Broken")
        render.line(*_broken(found["broken"]))
    _show_warnings(found["warnings"])
    render.line()
    render.code(found["script"], "python")


@flow.command()
@options.reaches_daemon
@click.argument("name", shell_complete=options.complete_flows)
@click.option("--message", "-m", default="", metavar="TEXT", help="What the commit says.")
@options.as_json
def edit(client: Client, name: str, *, message: str, as_json: bool) -> int:
    """Edit a flow in $EDITOR and commit it; if it was changed meanwhile, your text is kept and nothing committed."""
    found, tag = client.flow_with_tag(name)
    before = found.get("newest_script", found["script"])
    text: str | None = click.edit(before, extension=".py")
    if text is None or text == before:
        render.say("nothing was changed")
        return 0
    try:
        saved = client.save_flow(name, text, message=message, tag=tag)
    except errors.HeadraceError:
        render.say(f"your text is in {_kept(text)}")
        raise
    return _committed(saved, as_json=as_json)


def _kept(text: str) -> str:
    with tempfile.NamedTemporaryFile("w", suffix=".py", prefix="headrace-", encoding="utf-8", delete=False) as file:
        file.write(text)
    return file.name


@flow.command()
@options.reaches_daemon
@click.argument("name", shell_complete=options.complete_flows)
@click.argument("new_name")
@options.as_json
def rename(client: Client, name: str, new_name: str, *, as_json: bool) -> int:
    """Give a flow another name, by a commit; its id stays."""
    return _committed(client.rename_flow(name, new_name), as_json=as_json)


@flow.command()
@options.reaches_daemon
@click.argument("name", shell_complete=options.complete_flows)
def delete(client: Client, name: str) -> None:
    """Delete a flow, by a commit."""
    client.delete_flow(name)
    render.say(f"flow {name} is deleted")


def _committed(saved: JSON, *, as_json: bool) -> int:
    """Say what became of a change; 1 if the flow is broken now."""
    if as_json:
        render.json_object(saved)
    elif saved.get("broken"):
        render.say((saved["name"], "bold"), " is committed and broken: ", *_broken(saved["broken"]))
    else:
        late = "" if "commit" in saved else "; the catalogue does not have it yet"
        render.say((saved["name"], "bold"), f" is committed{late}")
    return 1 if saved.get("broken") else 0


@click.command()
@options.reaches_daemon
@click.option("--status", "status_only", is_flag=True, help="Only show how it stands; do not look at the source.")
@options.as_json
def sync(client: Client, *, status_only: bool, as_json: bool) -> int:
    """Look for new commits now, and show what is published."""
    if status_only:
        state = client.sync_state()
    else:
        with render.progress() as tell:
            if tell:
                tell("looking at the source")
            state = client.sync()
    if as_json:
        render.json_object(state)
    else:
        _show_sync(state)
    return 1 if state["error"] and not status_only else 0


def _show_sync(state: JSON) -> None:
    render.fields([
        ("source", state["source"]),
        ("ref", state["ref"]),
        ("commit", (state["commit"] or "nothing published yet", "bold")),
        ("published", render.exact(state["published_at"])),
        ("state", state["state"]),
        ("looked", render.exact(state["last_attempt_at"])),
        ("succeeded", render.exact(state["last_success_at"])),
        ("flows", str(state["flows"])),
        ("error", (state["error"] or "", "bold red")),
    ])  # fmt: skip
    if state["broken"] or state.get("problems"):
        render.heading("Broken")
    for each in [*state["broken"], *state.get("problems", [])]:
        render.line((each.get("name") or each["file"], "bold"), ": ", *_broken(each))
    _show_warnings(state["warnings"])


def _show_warnings(warnings: list[str] | dict[str, str]) -> None:
    """Write warnings: of one flow as a list, of a whole commit by file."""
    if warnings:
        render.heading("Warnings")
    for warning in warnings:
        render.line((f"{warning}: {warnings[warning]}" if isinstance(warnings, dict) else warning, "yellow"))


@click.command()
@options.reaches_daemon
@click.argument("task_type", metavar="[TYPE]", required=False)
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


def _state(found: JSON) -> render.Part:
    if not found["runnable"]:
        return "broken", "bold red"
    if found["broken"]:
        return "older version", "yellow"  # the newest one is broken, the last good one runs
    return "ok", "green"


def _broken(broken: JSON) -> list[render.Part]:
    place = f"{broken['file']}:{broken['line']}" if broken["line"] else broken["file"]
    commit = f" in {broken['commit'][:8]}" if broken["commit"] else ""
    return [broken["reason"], (f"  ({place}{commit})", "dim")]


@click.command()
@options.reaches_daemon
def openapi(client: Client) -> None:
    """Print the description of the HTTP API (OpenAPI 3.1, JSON)."""
    render.json_object(client.openapi())
