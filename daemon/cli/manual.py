"""The manual of the command line, docs/cli.md: made of the verbs themselves and one table, what ``--json`` prints.

``python -m headrace.daemon.cli.manual > docs/cli.md`` writes it; a test compares both, and what is printed with the
table. Called by nobody else.
"""

from __future__ import annotations

import inspect
import sys
import typing
from collections.abc import Iterator, Mapping
from typing import Any, Literal

import click
import msgspec

from ...engine import events
from ...engine.records import recovery, salvage
from ...engine.running import pruning
from ...sync import versions
from .. import audit, backup, restoration, shapes
from . import main, symptoms

Items = shapes.Items


class Branch(shapes.Summary, kw_only=True):
    """An execution with what it started."""

    children: list[Branch]


class Tree(shapes.Execution, kw_only=True):
    """An execution whole, with what it started."""

    children: list[Branch]


class Note(msgspec.Struct, kw_only=True):
    """A call of a replay that was given something else than recorded."""

    call: int
    kind: str
    target: str
    where: str
    recorded: str
    attempted: str


class Packages(msgspec.Struct, kw_only=True):
    """The environment of packages that an execution ran in, and whether that is in the state directory here."""

    id: str
    here: bool


class Replayed(msgspec.Struct, kw_only=True):
    """What came of a replay; ``masked`` is how many answers hold something that the record hides."""

    execution: str
    flow: str
    verdict: Literal["same", "diverged", "further", "refused", "left", "late"]
    text: str
    calls: int
    divergence: events.Divergence | None
    notes: list[Note]
    masked: int
    environment: Packages | None


class Delivered(msgspec.Struct, kw_only=True):
    """What a webhook answered; ``id`` is the execution that the delivery made."""

    id: str
    status: str


class About(msgspec.Struct, kw_only=True):
    """Which headrace this is, and which Python it runs with."""

    version: str
    python: str


_RECORDS = {
    "list": Items[shapes.Record],
    "": Items[shapes.Record],
    "set": shapes.Record,
    "show": shapes.Record,
}
#: What ``--json`` prints, by verb. Several: it depends on what is asked for. ``LogLine``s stand each on its own line.
OUTPUTS: Mapping[str, tuple[Any, ...]] = {
    "run": (shapes.Execution,),
    "try": (shapes.Execution,),
    "flows": (Items[shapes.Flow],),
    "flow edit": (shapes.Committed,),
    "flow history": (Items[versions.Version],),
    "flow rename": (shapes.Committed,),
    "flow restore": (shapes.Committed,),
    "flow show": (shapes.FlowWithScript,),
    "executions": (Items[shapes.Summary],),
    "show": (shapes.Execution,),
    "logs": (shapes.LogLine,),
    "tree": (Tree,),
    "cancel": (Items[shapes.Execution], shapes.Bulk),
    "pause": (Items[shapes.Execution],),
    "resume": (Items[shapes.Execution],),
    "rerun": (shapes.Execution, shapes.Bulk),
    "acknowledge": (Items[shapes.Execution], shapes.Bulk),
    "messages": (Items[shapes.Message],),
    "messages list": (Items[shapes.Message],),
    "messages show": (shapes.Message,),
    "answer": (shapes.Message,),
    **{
        f"{plural} {verb}".rstrip(): (shape,)
        for plural in ("settings", "files", "connections", "webhooks", "schedules", "vault-configs")
        for verb, shape in _RECORDS.items()
        if (plural, verb) not in (("files", "show"), ("schedules", ""), ("schedules", "list"))
    },
    "schedules": (Items[shapes.Scheduled],),
    "schedules list": (Items[shapes.Scheduled],),
    "webhooks test": (Delivered,),
    "workers": (shapes.Workers,),
    "locks": (Items[shapes.Lock],),
    "locks list": (Items[shapes.Lock],),
    "backup": (backup.Taken,),
    "restore": (restoration.Restored,),
    "records prune": (pruning.Pruned,),
    "records salvage": (salvage.Salvaged,),
    "records verify": (recovery.Report,),
    "replay": (Replayed,),
    "sync": (shapes.Sync, Items[shapes.Plan]),
    "tasks": (Items[shapes.TaskType], shapes.TaskType),
    "token create": (shapes.NewToken,),
    "token list": (Items[shapes.Token],),
    "audit": (Items[audit.Entry],),
    "status": (shapes.Service,),
    "reload": (shapes.Reload,),
    "log-level": (shapes.LogLevel,),
    "maintenance": (shapes.Service,),
    "doctor": (Items[symptoms.Finding],),
    "version": (About,),
}

EXIT_STATUSES: Mapping[int, str] = {
    0: "all is well",
    1: "the execution failed, or a check found something",
    2: "that is no way to use it; the message says how",
    3: "what was asked for is not there",
    4: "not allowed",
    69: "no daemon answers",
    124: "it took longer than `--timeout`, and goes on",
    130: "interrupted; an execution goes on",
}

_BEGIN = """# The command line

`headrace` is the daemon and its client in one. This page lists every verb; `headrace VERB --help` says the same.

* **Which daemon** is meant say `--url URL` or `HEADRACE_URL`, else `--state DIR` or `STATE_DIRECTORY`, else
  `./.headrace`, else the last `headrace login`. Both options stand before the verb or behind it. The token is that of
  `HEADRACE_TOKEN`, of the state directory, or of the login; the daemon's socket there needs none.
* **Data** goes to stdout, everything else to stderr. Colours and progress are for terminals alone.
* **`--json`** prints the objects that are described [below](#json), for every verb that reads. Fields may be added.
* **Names**: an execution's or a message's ID may be `latest`, or the beginning or the end of an id.
* **Inputs**: `KEY=VALUE` gives a text, `KEY:=JSON` anything else; where `@FILE` may stand, `-` is stdin.

{statuses}

## Completion

`headrace completion SHELL` prints what makes a shell complete verbs, options, and the names the daemon knows: flows,
executions, settings, task types, … A daemon that does not answer at once offers nothing, and nothing is said about it.

| shell | file | line |
| --- | --- | --- |
| bash | `~/.bashrc` | `eval "$(headrace completion bash)"` |
| zsh | `~/.zshrc`, after `compinit` | `eval "$(headrace completion zsh)"` |
| fish | `~/.config/fish/config.fish` | `headrace completion fish \\| source` |

## Verbs
"""

_JSON = """
## JSON

What `--json` prints. The same shapes are components of `headrace openapi`, as JSON Schema; times are ISO 8601, spans
are in seconds. `{"items": […]}` is always whole, however many pages the daemon made of it.
"""
#: Options that every verb has, and the page tells once.
OWN = frozenset({"url", "state", "as_json", "help"})


def verbs(command: click.Command, words: tuple[str, ...] = ()) -> Iterator[tuple[str, click.Command]]:
    """Yield every verb with its words, groups that do something by themselves before what is below them."""
    if not isinstance(command, click.Group):
        yield " ".join(words), command
        return
    if words and command.invoke_without_command:
        yield " ".join(words), command
    context = click.Context(command)
    for name in command.list_commands(context):
        below = command.get_command(context, name)
        assert below is not None, "it is listed"
        yield from verbs(below, (*words, name))


def page() -> str:
    """Return the whole manual."""
    lines = [_BEGIN.replace("{statuses}", "\n".join(_statuses()))]
    for words, command in verbs(main.headrace):
        lines += _verb(words, command)
    lines.append(_JSON)
    components = _components()
    for name, schema in sorted(components.items()):
        if "properties" in schema:
            lines += _shape(name, schema, components)
    return "\n".join(lines).rstrip("\n") + "\n"


def _statuses() -> Iterator[str]:
    yield "| exit status | means |\n| --- | --- |"
    for status, means in EXIT_STATUSES.items():
        yield f"| {status} | {means} |"


def _verb(words: str, command: click.Command) -> Iterator[str]:
    context = click.Context(command, info_name=words)
    given = [piece for piece in command.collect_usage_pieces(context) if piece != "[OPTIONS]"]
    below = "" if not isinstance(command, click.Group) else " ".join(given)
    usage = " ".join(["headrace", words, *(given if not below else [])])
    yield f"### `{usage}`\n"
    yield f"{_paragraphs(command.help or '')}\n"
    found = [
        option.get_help_record(context)
        for option in command.params
        if isinstance(option, click.Option) and option.name not in OWN
    ]
    if rows := [record for record in found if record is not None]:
        yield "| option | does |\n| --- | --- |"
        for names, help_ in rows:
            yield f"| `{_cell(names)}` | {_cell(help_)} |"
        yield ""
    if words in OUTPUTS:
        yield f"With `--json`: {' or '.join(map(_named, OUTPUTS[words]))}.\n"


def _paragraphs(text: str) -> str:
    return inspect.cleandoc(text.replace("\b", ""))


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")


def _named(shape: Any) -> str:
    if typing.get_origin(shape) is Items:
        return f'`{{"items": […]}}`, each a {_named(typing.get_args(shape)[0])}'
    return f"[`{shape.__name__}`](#{shape.__name__.lower()})"


def _components() -> dict[str, dict[str, Any]]:
    """Return the schemas of all shapes, and of those inside of them."""
    shown = dict.fromkeys(
        typing.get_args(shape)[0] if typing.get_origin(shape) is Items else shape
        for several in OUTPUTS.values()
        for shape in several
    )
    _, components = msgspec.json.schema_components(list(shown))
    return components


def _shape(name: str, schema: Mapping[str, Any], components: Mapping[str, dict[str, Any]]) -> Iterator[str]:
    yield f"### {name}\n"
    if schema.get("description"):
        yield f"{' '.join(schema['description'].split()).replace('``', '`')}\n"
    yield "| field | is |\n| --- | --- |"
    for field, inner in schema["properties"].items():
        optional = "" if field in schema.get("required", ()) else ", or not there"
        yield f"| `{field}` | {_cell(_kind(inner, components))}{optional} |"
    yield ""


def _kind(schema: Mapping[str, Any], components: Mapping[str, dict[str, Any]]) -> str:
    """Return what a field may hold, in words."""
    if "$ref" in schema:
        name = schema["$ref"].rpartition("/")[2]
        found = components[name]
        return f"[{name}](#{name.lower()})" if "properties" in found else _kind(found, components)
    if "anyOf" in schema:
        return " or ".join(_kind(one, components) for one in schema["anyOf"])
    if "enum" in schema:
        return ", ".join(f"`{one}`" for one in schema["enum"])
    match schema.get("type"):
        case "array":
            return f"list of {_kind(schema['items'], components)}" if schema.get("items") else "list"
        case "object":
            inner = schema.get("additionalProperties")
            return f"object of {_kind(inner, components)}" if isinstance(inner, dict) and inner else "object"
        case str() as type_:
            return type_
    return "any JSON"


if __name__ == "__main__":
    sys.stdout.write(page())
