"""Verbs that act on many executions: what chooses them, what is shown before, what is asked.

Chosen by a filter they are listed first, and nothing happens until somebody says yes (``--yes`` says it beforehand).
What is done then is done to those that were listed, whatever came meanwhile. Used by ``act``.
"""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

import click

from ..client import JSON, Client
from . import completers, look, options, render

_F = TypeVar("_F", bound=Callable[..., Any])
_SHOWN_MAX = 30


@dataclasses.dataclass(frozen=True, slots=True)
class Chosen:
    """What a filter says, and how sure its author is."""

    filter: JSON
    dry_run: bool
    yes: bool

    def __bool__(self) -> bool:
        """Return whether anything was said."""
        return bool(self.filter)


def chosen_by_filter(function: _F) -> _F:
    """Give a verb the options of a filter; ``chosen`` takes them together."""
    for option in reversed(
        [
            click.option("--flow", default="", metavar="NAME", shell_complete=completers.flows, help="Of this flow."),
            click.option("--tag", default="", help="Of flows that have this tag."),
            click.option(
                "--status",
                multiple=True,
                type=look.StatusName(),
                metavar="STATUS",
                help="In this status; may be given again.",
            ),
            click.option("--failed", is_flag=True, help="The same as --status error."),
            click.option("--unacknowledged", is_flag=True, help="Failed, and nobody said that they know."),
            click.option(
                "--since",
                default=None,
                type=options.Since(),
                metavar="TIME",
                help="Made since then: 2h, 7d, or a date.",
            ),
            click.option("--until", default=None, type=options.Since(), metavar="TIME", help="Made before then."),
            click.option("--dry-run", is_flag=True, help="Only list them."),
            click.option("--yes", is_flag=True, help="Do not ask."),
        ]
    ):
        function = option(function)
    return function


def chosen(given: Mapping[str, Any]) -> Chosen:
    """Return what the options of ``chosen_by_filter`` say."""
    wanted: JSON = {key: given[key] for key in ("flow", "tag", "since", "until") if given[key]}
    status = [*given["status"], *(["ENDED_ERROR"] if given["failed"] else [])]
    if status:
        wanted["status"] = status
    if given["unacknowledged"]:
        wanted["acknowledged"] = False
    return Chosen(wanted, given["dry_run"], given["yes"])


def act(client: Client, action: str, said: Chosen, *, as_json: bool, **more: Any) -> int:
    """Do ``action`` to all that are chosen. Returns the exit status: 1 if one of them could not be done."""
    found = client.bulk(action, filter=said.filter, dry_run=True)
    items: list[JSON] = found["items"]
    if said.dry_run or not items:
        render.json_object(found) if as_json else _list(items, more=found["more"])
        return 0
    if not said.yes:
        _list(items, more=found["more"], to_stderr=True)
        if not sys.stdin.isatty():
            raise click.UsageError("say --yes, or --dry-run: nobody is there to be asked")
        click.confirm(f"{action} {len(items)}?", abort=True, err=True)
    done = client.bulk(action, executions=[one["id"] for one in items], **more)
    if as_json:
        render.json_object(done)
    else:
        for one in done["items"]:
            said_of_it = one.get("error") or (f"→ {one['rerun']}" if "rerun" in one else DONE[action])
            render.line(one["id"], f"  {one.get('name', '')}  ", said_of_it)
    return 1 if any("error" in one for one in done["items"]) else 0


#: What is said of one that it was done to.
DONE = {"cancel": "cancel asked for", "acknowledge": "acknowledged", "rerun": "run again"}


def _list(items: list[JSON], *, more: bool, to_stderr: bool = False) -> None:
    if not items:
        render.say("no execution is like that")
        return
    for one in items[:_SHOWN_MAX]:
        render.line(
            one["id"],
            "  ",
            render.status(one),
            f"  {one['name']}  {render.moment(one['created_at'])}  {one['message'].partition(chr(10))[0]}",
            to=sys.stderr if to_stderr else sys.stdout,
        )
    if len(items) > _SHOWN_MAX:
        render.say(f"and {len(items) - _SHOWN_MAX} more")
    if more:
        render.say("the filter finds others besides; do it again after that")
