"""The verbs about one flow: ``flow show|edit|rename|delete|history|restore``; what changes it is a commit."""

from __future__ import annotations

import tempfile

import click

from ...engine import errors
from ..client import JSON, Client
from . import catalogue, completers, options, render

_message = click.option("--message", "-m", default="", metavar="TEXT", help="What the commit says.")


@click.group(cls=options.Verbs)
def flow() -> None:
    """Show or change one flow."""


@flow.command()
@options.reaches_daemon
@click.argument("name", shell_complete=completers.flows)
@click.option("--commit", default="", metavar="COMMIT", help="Only its script, as it was then.")
@options.as_json
def show(client: Client, name: str, *, commit: str, as_json: bool) -> None:
    """Show a flow and its script."""
    if commit:
        former = client.flow_at(name, commit)
        render.json_object(former) if as_json else render.code(former["script"], "python")
        return
    found = client.flow(name)
    if as_json:
        render.json_object(found)
        return
    hook = found["webhook"]
    published = f"{' '.join(hook['methods'])} /api/v1/webhook/{hook['name']} (auth: {hook['auth']})" if hook else ""
    render.fields([
        ("flow", (found["name"], "bold")),
        ("state", catalogue.state_of(found)),
        ("file", found["path"]),
        ("commit", found["commit"]),
        ("id", found["id"]),
        ("description", found["description"]),
        ("timeout", render.span(found["timeout_s"]) if found["timeout_s"] else ""),
        ("webhook", published),
        ("packages", ", ".join(found["dependencies"] or [])),
        ("environment", found["venv"]),
    ])  # fmt: skip
    if found["broken"]:
        render.heading("Broken")
        render.line(*catalogue.reason_of(found["broken"]))
    render.line()
    render.code(found["script"], "python")


@flow.command()
@options.reaches_daemon
@click.argument("name", shell_complete=completers.flows)
@_message
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
@click.argument("name", shell_complete=completers.flows)
@click.argument("new_name")
@_message
@options.as_json
def rename(client: Client, name: str, new_name: str, *, message: str, as_json: bool) -> int:
    """Give a flow another name, by a commit; its id stays."""
    return _committed(client.rename_flow(name, new_name, message=message), as_json=as_json)


@flow.command()
@options.reaches_daemon
@click.argument("name", shell_complete=completers.flows)
@_message
def delete(client: Client, name: str, *, message: str) -> None:
    """Delete a flow, by a commit."""
    client.delete_flow(name, message=message)
    render.say(f"flow {name} is deleted")


@flow.command()
@options.reaches_daemon
@click.argument("name", shell_complete=completers.flows)
@click.option("--diff", "with_diff", is_flag=True, help="Show what each version changed.")
@click.option("--limit", default=50, show_default=True, type=click.IntRange(1, 1000), help="So many, the newest.")
@options.as_json
def history(client: Client, name: str, *, with_diff: bool, limit: int, as_json: bool) -> None:
    """List the versions of a flow, newest first, over its renames; of a deleted flow, too."""
    found = client.flow_history(name, limit=limit + 1 if with_diff and limit < 1000 else limit)
    if as_json:
        render.json_object({"items": found[:limit]})
        return
    for version, before in zip(found[:limit], [*found[1:], None], strict=False):
        renamed = f" from {version['before']}" if version["before"] else ""
        render.line(
            *((version["commit"][:12], "yellow"), f"  {render.exact(version['at'])}  {version['author']}  "),
            f"{version['change']}{renamed}  {version['message'].partition(chr(10))[0]}",
        )
        if with_diff and before is not None and version["change"] != "deleted":
            render.code(client.flow_diff(name, before["commit"], version["commit"]), "diff")


@flow.command()
@options.reaches_daemon
@click.argument("name", shell_complete=completers.flows)
@click.argument("commit")
@_message
@options.as_json
def restore(client: Client, name: str, commit: str, *, message: str, as_json: bool) -> int:
    """Make a flow what it was in COMMIT, by a new commit; a deleted one is made again."""
    return _committed(client.restore_flow(name, commit, message=message), as_json=as_json)


def _committed(saved: JSON, *, as_json: bool) -> int:
    """Say what became of a change; 1 if the flow is broken now."""
    if as_json:
        render.json_object(saved)
    elif saved.get("broken"):
        render.say((saved["name"], "bold"), " is committed and broken: ", *catalogue.reason_of(saved["broken"]))
    else:
        late = "" if "commit" in saved else "; the catalogue does not have it yet"
        render.say((saved["name"], "bold"), f" is committed{late}")
    return 1 if saved.get("broken") else 0
