"""The verb ``up``: settings from everywhere, then the daemon in the foreground."""

from __future__ import annotations

import contextlib
import gc
import os
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path

import click

from ...engine import errors
from . import options, render


@click.command()
@click.argument("source", required=False)
@click.option("--ref", metavar="REF", help="Branch, tag or commit.")
@click.option("--state", metavar="DIR", help="Where everything is kept.")
@click.option("--listen", metavar="HOST:PORT", help="Where HTTP is served.")
@click.option("--config", "file", metavar="FILE", help="The headrace.toml to read.")
@click.option("--accept-loss", is_flag=True, help="Go on although the records went backwards.")
@click.option("--print-config", is_flag=True, help="Print every setting with its origin, and leave.")
def up(
    source: str | None,
    *,
    ref: str | None,
    state: str | None,
    listen: str | None,
    file: str | None,
    accept_loss: bool,
    print_config: bool,
) -> int:
    """Run the daemon here, in the foreground.

    SOURCE is where flows come from: a directory, a working tree or a git URL."""
    # The marked place for the daemon itself: no other verb pays for importing it.
    gc.disable()  # what is imported stays; looking through it again and again costs a tenth of the time
    try:
        with _absent("rich"):  # structlog takes it in wherever it is installed: 3 MB for no line of ours
            from .. import app, config, service_manager
    finally:
        gc.enable()

    manager = service_manager.ServiceManager(os.environ)
    before = click.get_current_context().find_object(options.Target) or options.Target()
    given = {
        "source.url": source,
        "source.ref": ref,
        "state.directory": state or before.state or None,
        "listen.address": manager.address or listen,
    }
    flags = {key: value for key, value in given.items() if value is not None}

    def read() -> config.Configuration:
        return config.load(flags, os.environ, _read_file(file, config.candidate_files(os.environ)))

    configuration = read()
    if print_config:
        render.code(configuration.printed(), "toml")
        return 0
    return app.run(configuration, manager, read, accept_loss=accept_loss)


@contextlib.contextmanager
def _absent(name: str) -> Iterator[None]:
    """Let what is imported meanwhile find no module of that name."""
    known = sys.modules.get(name)
    sys.modules[name] = None  # type: ignore[assignment] # as importlib has it for what cannot be imported
    try:
        yield
    finally:
        del sys.modules[name]
        if known is not None:
            sys.modules[name] = known


def _read_file(named: str | None, usual: Iterable[Path]) -> dict[str, str]:
    """Return the configuration file that counts, by its name: the one that was named, else the first that exists."""
    for path in [Path(named)] if named else usual:
        try:
            return {str(path): path.read_text(encoding="utf-8")}
        except FileNotFoundError:
            if named:
                raise errors.ConfigurationInvalid(f"--config: there is no file {named}") from None
        except (OSError, UnicodeError) as error:
            raise errors.ConfigurationInvalid(f"{path} cannot be read: {error}") from error
    return {}
