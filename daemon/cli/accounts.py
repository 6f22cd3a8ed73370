"""The verbs of who may do what: ``login``, ``logout``, ``token``, ``audit``. Called by ``main``."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import click

from ...engine import errors
from .. import audit as audit_log
from .. import logins
from ..client import Client
from ..endpoint import Endpoint
from . import completers, options, render

ROLES = ("viewer", "operator", "editor", "admin")
SCOPES = ("read", "run", "edit", "admin")


@click.command()
@click.argument("address", metavar="URL")
@click.option(
    "--token-file", "file", metavar="FILE|-", default="", help="Read the token there instead of asking for it."
)
def login(address: str, file: str) -> None:
    """Remember a token for the daemon at URL, and mean that daemon from now on.

    The token is tried first. It is kept in logins.json in your configuration directory, for your eyes only."""
    url = str(Endpoint.parse(address))
    token = _read(file) if file else click.prompt("Token", hide_input=True, err=True)
    who = Client(Endpoint.parse(url), token.strip()).me()
    logins.Logins.of(os.environ).add(url, token.strip())
    limit = f", for {', '.join(who['flows'])}" if who["flows"] else ""
    render.say(f"logged in to {url} as {who['name']}: {', '.join(who['scopes'])}{limit}")


def _read(file: str) -> str:
    if file == "-":
        return sys.stdin.read()
    try:
        return Path(file).read_text()
    except (OSError, UnicodeError) as error:
        raise click.UsageError(f"--token-file: {file} cannot be read: {error}") from error


@click.command()
@click.argument("address", metavar="[URL]", default="")
def logout(address: str) -> None:
    """Forget the token for the daemon at URL, else for the one that is meant. The token itself stays good."""
    known = logins.Logins.of(os.environ)
    url = str(Endpoint.parse(address)) if address else known.current
    if not url or not known.remove(url):
        raise errors.NotFound(f"nobody logged in to {url}" if url else "nobody logged in anywhere")
    render.say(f"forgot the token for {url}")


@click.group(cls=options.Verbs)
@options.target
@click.pass_context
def token(ctx: click.Context, *, url: str, state: str) -> None:
    """The tokens that people and programs have."""
    options.narrow(ctx, url, state)


@token.command()
@options.reaches_daemon
@click.argument("name")
@click.option("--role", type=click.Choice(ROLES), help="What it may do: look, also run, also edit, everything.")
@click.option("--scope", "scopes", type=click.Choice(SCOPES), multiple=True, help="The same, one by one.")
@click.option("--flow", "flows", metavar="PATTERN", multiple=True, help="Limit it to flows, such as 'reports/*'.")
@click.option("--valid", metavar="TIME", default="", help="How long it is good, such as 90d; for ever without.")
@options.as_json
def create(
    client: Client,
    name: str,
    *,
    role: str | None,
    scopes: tuple[str, ...],
    flows: tuple[str, ...],
    valid: str,
    as_json: bool,
) -> None:
    """Make a token called NAME and print it. It cannot be shown again."""
    wanted = [*scopes, *([role] if role else [])]
    if not wanted:
        raise click.UsageError("say what it may do: --role viewer, or --scope read")
    made = client.create_token(name, wanted, flows=flows, valid=valid)
    if as_json:
        render.json_object(made)
        return
    render.line(made["token"])
    render.say(f"{name} ({made['id']}) may {', '.join(made['scopes'])}; this is the only time its token is shown")


@token.command(name="list")
@options.reaches_daemon
@options.as_json
def list_(client: Client, *, as_json: bool) -> None:
    """List the tokens there are."""
    found = client.tokens()
    if as_json:
        render.json_object({"items": found})
        return
    if not found:
        render.say("there are no tokens but the one of client.json")
        return
    rows = [
        (
            each["id"],
            (each["name"], "bold"),
            ", ".join(each["scopes"]),
            ", ".join(each["flows"]) or "all",
            render.moment(each["expires_at"]) or "never",
            render.moment(each["last_used_at"]) or "never",
        )
        for each in found
    ]
    render.table(["ID", "NAME", "MAY", "FLOWS", "ENDS", "LAST USED"], rows, cut=["NAME", "FLOWS"])


@token.command()
@options.reaches_daemon
@click.argument("names", metavar="NAME|ID...", nargs=-1, required=True, shell_complete=completers.tokens)
def revoke(client: Client, names: tuple[str, ...]) -> None:
    """Take tokens from whoever has them, with everything they have open."""
    for name in names:
        client.revoke_token(name)
        render.say(f"token {name} is revoked")


@click.command()
@options.reaches_daemon
@click.option("--limit", type=click.IntRange(1, audit_log.LIMIT_MAX), default=50, help="How many lines.")
@click.option("--verify", "file", metavar="FILE", default="", help="Check that no line of an audit.jsonl was touched.")
@click.option(
    "--head", metavar="SHA256", default="", help="With --verify: this head of the daemon's log must be there."
)
@options.as_json
def audit(client: Client, *, limit: int, file: str, head: str, as_json: bool) -> int:
    """Show who did what, newest first; refused calls too."""
    if file:
        return _verify(Path(file), head)
    found = client.audit(limit)
    if as_json:
        render.json_object({"items": found})
        return 0
    rows = [
        (
            render.moment(each["at"]),
            (each["who"] or "somebody", "bold"),
            (str(each["status"]), "" if each["status"] < 400 else "red"),
            each["what"].partition(" ")[0],
            each["target"],
            each["origin"],
            each.get("reason") or each.get("made") or "",
        )
        for each in found
    ]
    render.table(["AT", "WHO", "STATUS", "", "WHAT", "FROM", ""], rows, cut=["WHAT", ""])
    return 0


def _verify(path: Path, head: str) -> int:
    try:
        with path.open("rb") as lines:
            count, problem = audit_log.verify(lines, head)
    except OSError as error:
        raise click.UsageError(f"--verify: {path} cannot be read: {error.strerror}") from error
    if problem:
        render.say(f"{path}: line {count + 1}: {problem}")
        return 1
    render.say(f"{path}: {count} lines, each follows the one before it")
    return 0
