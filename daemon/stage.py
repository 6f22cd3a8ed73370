"""Where a daemon lives: in a process of its own, which signals tell to stop and to read its configuration anew, or
inside of a test. Called by ``app``."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from collections.abc import Callable
from pathlib import Path

import msgspec

from ..engine import ports
from . import config


def greet(url: str, link: str, settings: config.Configuration) -> None:
    """Tell whoever started the daemon where to look. Its login token is good once, for an hour.

    A service manager keeps what is printed for ever, so there it is only in a file."""
    if "INVOCATION_ID" in os.environ:
        return
    with contextlib.suppress(OSError):  # nobody reads it: the daemon runs all the same
        print(f"Headrace listens on {url}\n  open {link}\n  flows come from {settings.source_url}", flush=True)  # noqa: T201


class Stage(msgspec.Struct, frozen=True):
    """What tells a daemon to stop, who is greeted with its address when it takes requests, who plays its tasks,
    whether schedules run, and what tells it to read its configuration anew."""

    stop: asyncio.Event
    greet: Callable[[str, str, config.Configuration], None] = greet
    cast: Callable[[ports.Tasks], ports.Tasks] = lambda real: real
    ticks: bool = True
    reload: asyncio.Event = msgspec.field(default_factory=asyncio.Event)


def of_this_process() -> Stage:
    """Return the stage of a process that is a daemon and nothing else; signals tell it what to do.

    SIGHUP has two meanings: somebody wants the configuration read anew, or the terminal it runs on is gone."""
    on = Stage(asyncio.Event())
    had_terminal, written = _has_terminal(), [number for number in (1, 2) if os.isatty(number)]

    def hang_up() -> None:
        if not had_terminal or _has_terminal():
            on.reload.set()
            return
        with Path(os.devnull).open("wb") as nowhere:  # writing to a terminal that is gone fails
            for number in written:
                os.dup2(nowhere.fileno(), number)
        on.stop.set()

    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, on.stop.set)
    loop.add_signal_handler(signal.SIGHUP, hang_up)
    return on


def _has_terminal() -> bool:
    """Return whether the process has a terminal that can end it."""
    try:
        os.close(os.open("/dev/tty", os.O_RDWR | os.O_NOCTTY))
    except OSError:
        return False
    return True


async def rest() -> None:
    """What stands in for something that does not run here."""
    await asyncio.Event().wait()
