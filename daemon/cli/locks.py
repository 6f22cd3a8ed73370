"""The verb ``locks``: who holds what, and taking it away from them."""

from __future__ import annotations

import click

from ..client import Client
from . import completers, options, render


@click.group(cls=options.Verbs, invoke_without_command=True)
@options.target
@options.as_json
@click.pass_context
def locks(ctx: click.Context, *, url: str, state: str, as_json: bool) -> None:
    """The locks that are taken, and who waits for them."""
    options.narrow(ctx, url, state)
    if ctx.invoked_subcommand is None:
        ctx.invoke(list_, url="", state="", as_json=as_json)


@locks.command(name="list")
@options.reaches_daemon
@options.as_json
def list_(client: Client, *, as_json: bool) -> None:
    """List the locks that are taken."""
    found = client.locks()
    if as_json:
        render.json_object({"items": found})
        return
    if not found:
        render.say("no lock is taken")
        return
    rows = [
        (
            (each["name"], "bold"),
            each["execution_id"] or "",
            render.moment(each["since"]),
            "until it ends" if each["owned"] else "until released",
            ", ".join(waiting["execution_id"] for waiting in each["waiting"]),
        )
        for each in found
    ]
    render.table(["NAME", "TAKEN BY", "SINCE", "HELD", "WAITING"], rows, cut=["NAME", "WAITING"])


@locks.command()
@options.reaches_daemon
@click.argument("names", metavar="NAME...", nargs=-1, required=True, shell_complete=completers.locks)
def release(client: Client, names: tuple[str, ...]) -> None:
    """Take locks from whoever has them: who waits next gets them."""
    for name in names:
        client.release_lock(name)
        render.say(f"lock {name} is released")
