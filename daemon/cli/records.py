"""The verbs for what flows keep: ``settings``, ``files``, ``connections``, ``webhooks``, ``schedules`` and
``vault-configs``.

Each is a group with ``list`` (what the bare word does), ``show``, ``set`` and ``delete``. Values are written as YAML,
of which JSON is a part, and read as those of the repository are. Called by ``main``.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

import click

from ...sync import read_documents
from ..client import JSON, Client
from . import arguments, completers, deliveries, options, render

#: Fields that people type without quotes or brackets: how their text is meant.
_FLAGS = {"true": True, "yes": True, "on": True, "false": False, "no": False, "off": False}
_TYPED: dict[str, Callable[[str], Any]] = {
    "is_enabled": lambda text: _FLAGS.get(text.lower(), text),
    "methods": lambda text: text.replace(",", " ").split(),
}
#: Fields every record has, which stand at the end.
_KEPT = ("created_at", "created_by", "modified_at", "modified_by", "id")
_TEXT_MAX = 60


def _group(plural: str, columns: tuple[str, ...], about: str) -> click.Group:
    """Return the verb for one type of record, with ``list``, ``show`` and ``delete``."""
    one = plural.replace("_", " ").removesuffix("s")

    @click.group(cls=options.Verbs, name=plural.replace("_", "-"), invoke_without_command=True, help=about)
    @options.target
    @options.as_json
    @click.pass_context
    def group(ctx: click.Context, *, url: str, state: str, as_json: bool) -> None:
        options.narrow(ctx, url, state)
        if ctx.invoked_subcommand is None:
            ctx.invoke(group.commands["list"], url="", state="", as_json=as_json)

    @group.command(name="list", help=f"List all {plural.replace('_', ' ')}.")
    @options.reaches_daemon
    @options.as_json
    def list_(client: Client, *, as_json: bool) -> None:
        found = client.kept(plural)
        if as_json:
            render.json_object({"items": found})
        elif not found:
            render.say(f"there are no {plural.replace('_', ' ')} yet")
        else:
            _table(found, columns)

    @group.command(help=f"Delete a {one}.")
    @options.reaches_daemon
    @click.argument("name", shell_complete=completers.records[plural])
    def delete(client: Client, name: str) -> None:
        client.drop(plural, name)
        render.say(f"{one} {name} is deleted")

    if plural != "files":

        @group.command(help=f"Show a {one}.")
        @options.reaches_daemon
        @click.argument("name", shell_complete=completers.records[plural])
        @options.as_json
        def show(client: Client, name: str, *, as_json: bool) -> None:
            found = client.kept_one(plural, name)
            render.json_object(found) if as_json else _show(found)

    return group


def _table(found: list[JSON], columns: tuple[str, ...]) -> None:
    rows: list[tuple[render.Part, ...]] = [
        ((each["name"], "bold"), *(_short(each.get(column)) for column in columns), render.moment(each["modified_at"]))
        for each in found
    ]
    headings = ["NAME", *(column.upper() for column in columns), "MODIFIED"]
    render.table(headings, rows, cut=[column.upper() for column in columns])


def _short(value: Any) -> str:
    text = "" if value is None else value if isinstance(value, str) else render.compact(value)
    return text if len(text) <= _TEXT_MAX else text[: _TEXT_MAX - 1] + "…"


def _show(found: JSON) -> None:
    plain = {field: value for field, value in found.items() if not isinstance(value, dict | list)}
    inner = {field: value for field, value in found.items() if field not in plain}
    order = sorted(plain, key=lambda field: _KEPT.index(field) if field in _KEPT else -1)
    render.fields([(field, _said(field, plain[field])) for field in order])
    for field, value in inner.items():
        render.heading(field)
        render.json_object(value)


def _said(field: str, value: Any) -> str:
    if field.endswith("_at"):
        return render.exact(value)
    return value if isinstance(value, str) else render.compact(value)


def _yaml(text: str, what: str) -> Any:
    """Return the value of a YAML text."""
    found = read_documents.read(text.encode("utf-8", "surrogateescape"))
    if "problem" in found:
        raise click.UsageError(f"{what}, line {found['line']}: {found['problem']}")
    return found["value"]


settings = _group("settings", ("value",), "The settings flows share.")
connections = _group("connections", ("connection_type", "description"), "Where tasks connect to, and how.")
schedules = _group("schedules", ("flow_name", "cron", "timezone", "is_enabled"), "When flows run by themselves.")
webhooks = _group("webhooks", ("flow_name", "auth", "methods", "is_enabled"), "Who may call flows, and how.")
vault_configs = _group("vault_configs", ("url", "engine_path", "is_enabled"), "The vaults secrets come from.")
files = _group("files", ("size",), "The files flows keep.")


@schedules.command(name="list")
@options.reaches_daemon
@options.as_json
def list_schedules(client: Client, *, as_json: bool) -> None:
    """List every schedule, of flows and records, with when it is due next: in its own zone, and as UTC."""
    found = client.timetable()
    if as_json:
        render.json_object({"items": found})
        return
    if not found:
        render.say("there are no schedules yet")
        return
    rows: list[tuple[render.Part, ...]] = [
        (
            (each["name"], "bold"),
            each["flow_name"],
            each["cron"],
            each["timezone"],
            *(_next_tick(each) if each["next"] else ("never" if each["is_enabled"] else "off", "")),
            each["problem"] or (f"{each['missed']} missed" if each["missed"] else ""),
        )
        for each in found
    ]
    headings = ["NAME", "FLOW_NAME", "CRON", "TIMEZONE", "NEXT", "UTC", ""]
    render.table(headings, rows, cut=["NAME", "FLOW_NAME", ""])


def _next_tick(schedule: JSON) -> tuple[str, str]:
    """Return when it is due next, in its zone and in UTC, to the minute."""
    tick = schedule["next"][0]
    return tick["local"][:16].replace("T", " ") + tick["local"][19:], tick["utc"][:16].replace("T", " ")


@settings.command(name="set")
@options.reaches_daemon
@click.argument("name", shell_complete=completers.records["settings"])
@click.argument("value", metavar="VALUE|@FILE|-")
@click.option("--description", metavar="TEXT", help="What it is for.")
@options.as_json
def set_setting(client: Client, name: str, value: str, *, description: str | None, as_json: bool) -> None:
    """Make VALUE, written as YAML or JSON, the value of a setting.

    A number stays a number and `[1, 2]` a list; a text that looks like one of these is put in quotes: '"1"'."""
    fields: JSON = {"value": _yaml(arguments.text(value, "VALUE"), "the value")}
    _saved(client.keep("settings", name, fields | _given(description=description)), as_json=as_json)


def _setter(group: click.Group, plural: str, example: str) -> None:
    @group.command(name="set", epilog=f"Example: headrace {group.name} set {example}")
    @options.reaches_daemon
    @click.argument("name", shell_complete=completers.records[plural])
    @click.argument("pairs", metavar="[KEY=VALUE | KEY:=JSON]...", nargs=-1)
    @click.option("--input", "document", default="", metavar="@FILE|-", help="The fields as YAML or JSON.")
    @options.as_json
    def set_(client: Client, name: str, pairs: tuple[str, ...], *, document: str, as_json: bool) -> None:
        """Make one, or change the fields that are given."""
        given = _yaml(arguments.text(document, "--input"), "--input") if document else {}
        if not isinstance(given, dict):
            raise click.UsageError("--input must hold an object of fields")
        typed = {pair.partition("=")[0] for pair in pairs} & _TYPED.keys()
        typed_in = {key: _TYPED[key](value) if key in typed else value for key, value in arguments.pairs(pairs).items()}
        if not given and not typed_in:
            raise click.UsageError("no field is given; write KEY=VALUE")
        _saved(client.keep(plural, name, given | typed_in), as_json=as_json)


_setter(connections, "connections", 'db connection_type=SQLPG value:=\'{"host": "db.example"}\'')
_setter(schedules, "schedules", "nightly flow_name=reports/daily cron='30 2 * * *' timezone=Europe/Vienna")
_setter(webhooks, "webhooks", "deployed flow_name=deploy 'secret=secret.env(DEPLOY_KEY)' methods=GET,POST")
webhooks.add_command(deliveries.sign)
webhooks.add_command(deliveries.test)
_setter(vault_configs, "vault_configs", "main url=https://vault.example:8200 'token=secret.credential(vault)'")


def _given(**fields: Any) -> JSON:
    return {name: value for name, value in fields.items() if value is not None}


def _saved(record: JSON, *, as_json: bool) -> None:
    render.json_object(record) if as_json else render.say(f"{record['name']} is saved")


@files.command(name="show")
@options.reaches_daemon
@click.argument("path", shell_complete=completers.records["files"])
def show_file(client: Client, path: str) -> None:
    """Write the content of a file to stdout, byte by byte."""
    sys.stdout.flush()
    sys.stdout.buffer.write(client.file(path))
    sys.stdout.buffer.flush()


@files.command(name="set")
@options.reaches_daemon
@click.argument("path", shell_complete=completers.records["files"])
@click.argument("content", metavar="@FILE|-")
@options.as_json
def set_file(client: Client, path: str, content: str, *, as_json: bool) -> None:
    """Make what is in FILE, or comes on stdin, the content of a file."""
    _saved(client.save_file(path, arguments.content(content, "CONTENT")), as_json=as_json)
