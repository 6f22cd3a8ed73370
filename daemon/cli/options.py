"""Options and arguments that verbs share: which daemon is meant, JSON, spans of time."""

from __future__ import annotations

import dataclasses
import datetime
import difflib
import functools
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click

from .. import written

R = TypeVar("R")


@dataclasses.dataclass(frozen=True, slots=True)
class Target:
    """The daemon named before the verb; what stands behind the verb wins."""

    url: str = ""
    state: str = ""


class Verbs(click.Group):
    """A group that names the verbs nearest to one that is not there."""

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Find the verb that is typed; raises ``UsageError``."""
        try:
            return super().resolve_command(ctx, args)
        except click.UsageError as error:
            near = difflib.get_close_matches(args[0], self.list_commands(ctx), n=2)
            if not near:
                raise
            raise click.UsageError(f"{error.message} Did you mean {' or '.join(near)}?", error.ctx) from error


def target(function: Callable[..., R]) -> Callable[..., R]:
    """Add ``--url`` and ``--state``."""
    function = click.option("--state", default="", metavar="DIR", help="State directory of the daemon meant.")(function)
    return click.option("--url", default="", metavar="URL", help="Address of the daemon meant.")(function)


def reaches_daemon(function: Callable[..., R]) -> Callable[..., R]:
    """Add ``--url`` and ``--state``, and hand the client they lead to in as the first argument."""

    @target
    @functools.wraps(function)
    def command(*args: Any, url: str, state: str, **kwargs: Any) -> R:
        return function(_client(click.get_current_context(), url, state), *args, **kwargs)

    return command


def narrow(ctx: click.Context, url: str, state: str) -> None:
    """Have the verbs below a group reach the daemon that was named behind the group's own name."""
    if url or state:
        ctx.obj = Target(url, state)


def client(url: str, state: str) -> Any:
    """Return the client that ``--url`` and ``--state`` lead to, for a verb that can do without one."""
    return _client(click.get_current_context(), url, state)


def state_directory(state: str) -> Path:
    """Return the state directory that is meant, for a verb that looks into it where no daemon runs."""
    before = click.get_current_context().find_object(Target) or Target()
    return Path(state or before.state or written.state_directory(os.environ)).absolute()


as_json = click.option("--json", "as_json", is_flag=True, help="Print JSON instead of text for people.")


class Seconds(click.ParamType[float]):
    """A span of time, as seconds."""

    name = "duration"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        """Read ``30``, ``30s``, ``5m`` or ``2h``."""
        try:
            return written.duration_s(value)
        except ValueError as error:
            self.fail(f"{value!r} {error}", param, ctx)


class Since(click.ParamType[str]):
    """A moment in the past, as a timestamp."""

    name = "since"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """Read a date and time, or a span of time that ends now."""
        now = datetime.datetime.now(datetime.UTC)
        try:
            then = datetime.datetime.fromisoformat(str(value)).astimezone(datetime.UTC)
        except ValueError:
            then = now - datetime.timedelta(seconds=Seconds().convert(value, param, ctx))
        return then.isoformat(timespec="microseconds")


def _client(ctx: click.Context, url: str, state: str) -> Any:
    # The marked place for the client: it brings the whole of HTTP and TLS, which `version` and `up` do without.
    from ..client import Client

    before = ctx.find_object(Target) or Target()
    return Client.find(url or ("" if state else before.url), state=state or before.state)
