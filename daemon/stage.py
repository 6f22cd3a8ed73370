"""Where a daemon lives: in a process of its own, which signals tell to stop, or inside of a test. Called by ``app``."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import os
import signal
from collections.abc import Callable

from ..engine import ports
from . import config


def greet(url: str, link: str, settings: config.Configuration) -> None:
    """Tell whoever started the daemon where to look. Its login token is good once, for an hour.

    A service manager keeps what is printed for ever, so there it is only in a file."""
    if "INVOCATION_ID" in os.environ:
        return
    with contextlib.suppress(OSError):  # nobody reads it: the daemon runs all the same
        print(f"Headrace listens on {url}\n  open {link}\n  flows come from {settings.source_url}", flush=True)  # noqa: T201


@dataclasses.dataclass(frozen=True, slots=True)
class Stage:
    """What tells a daemon to stop, who is greeted with its address when it takes requests, who plays its tasks, and
    whether schedules run."""

    stop: asyncio.Event
    greet: Callable[[str, str, config.Configuration], None] = greet
    cast: Callable[[ports.Tasks], ports.Tasks] = lambda real: real
    ticks: bool = True


def of_this_process() -> Stage:
    """Return the stage of a process that is a daemon and nothing else; signals tell it to stop."""
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    return Stage(stop)


async def rest() -> None:
    """What stands in for something that does not run here."""
    await asyncio.Event().wait()
