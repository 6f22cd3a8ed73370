"""What a shell offers where the daemon knows the names: flows, executions, settings and the like.

A prompt is no place for errors or for waiting: a daemon that does not answer within a second offers nothing, and
nothing is ever said about it. Called by the verbs, for their arguments.
"""

from __future__ import annotations

import contextlib
import http.client
from collections.abc import Callable, Iterable, Mapping
from contextlib import AbstractContextManager
from typing import Any

import click
from click.shell_completion import CompletionItem

from ...engine import errors
from ..client import JSON, Client
from . import options

_PATIENCE_S = 1.0
_EXECUTIONS_MAX = 50
#: What can go wrong with a daemon, its answers and the files that lead to it.
_ANYTHING = (errors.HeadraceError, OSError, LookupError, TypeError, ValueError)

Completer = Callable[[click.Context, click.Parameter, str], list[CompletionItem]]


class _Hasty(Client):
    """A client that would rather have nothing than wait."""

    def _answer(
        self,
        method: str,
        target: str,
        body: bytes | None = None,
        headers: Mapping[str, str] | None = None,
        timeout_s: float = _PATIENCE_S,
    ) -> AbstractContextManager[http.client.HTTPResponse]:
        return super()._answer(method, target, body, headers, min(timeout_s, _PATIENCE_S))


def _offering(ask: Callable[[Client], Iterable[tuple[str, str]]]) -> Completer:
    """Return what offers the names that ``ask`` returns, each with a line about it."""

    def complete(ctx: click.Context, _param: click.Parameter, incomplete: str) -> list[CompletionItem]:
        with contextlib.suppress(*_ANYTHING):
            found = ask(_client(ctx))
            return [
                CompletionItem(name, help=about.partition("\n")[0])
                for name, about in found
                if name.startswith(incomplete) and "\n" not in name
            ]
        return []

    return complete


def _client(ctx: click.Context) -> Client:
    """Return the client of the daemon that is named on the line so far."""
    named = ctx.find_object(options.Target) or options.Target()
    own = {name: ctx.params.get(name) or "" for name in ("url", "state")}
    if own["url"] or own["state"]:
        named = options.Target(**own)
    return _Hasty.find(named.url, state=named.state)


def _execution(one: JSON) -> tuple[str, str]:
    return one["id"], f"{one['name']} {one['status']}"


def _records(plural: str, about: str) -> Completer:
    return _offering(lambda client: [(one["name"], str(one.get(about) or "")) for one in client.kept(plural)])


flows = _offering(lambda client: [(one["name"], one["description"]) for one in client.flows()])
executions = _offering(lambda client: map(_execution, client.executions(limit=_EXECUTIONS_MAX)["items"]))
tasks = _offering(lambda client: [(one["name"], one["summary"]) for one in client.tasks()])
messages = _offering(lambda client: [(one["id"], one["subject"]) for one in client.messages(pending=True)])
locks = _offering(lambda client: [(one["name"], "") for one in client.locks()])
tokens = _offering(lambda client: [(one["name"], "") for one in client.tokens()])
#: By the type of record, as its verb is called.
records: Mapping[str, Completer] = {
    "settings": _records("settings", "description"),
    "files": _records("files", ""),
    "connections": _records("connections", "connection_type"),
    "webhooks": _records("webhooks", "flow_name"),
    "schedules": _records("schedules", "flow_name"),
    "vault_configs": _records("vault_configs", "url"),
}


def paths(_ctx: click.Context, _param: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Have the shell offer files."""
    return [CompletionItem(incomplete, type="file")]


def executions_and_paths(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[Any]:
    """Offer executions, and files where none begins so."""
    return executions(ctx, param, incomplete) or paths(ctx, param, incomplete)
