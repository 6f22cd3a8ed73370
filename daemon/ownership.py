"""The state directory belongs to one process at a time: a daemon, or a verb that changes records.

Called by ``app`` and by the command line's ``records``.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
from collections.abc import Iterator
from pathlib import Path

import structlog

from ..engine import durable, errors
from . import private_files

log = structlog.get_logger()

_FILE_NAME = "daemon.lock"


@contextlib.contextmanager
def locked(state: Path) -> Iterator[None]:
    """Hold the state directory for this process alone; the lock goes when the process does, however that happens.

    A directory that others could look into is closed to them. Raises ``StateInUse``."""
    _make(state)
    if private_files.close_folder(state):
        log.warning("state.closed", directory=str(state), hint="others could look into it; now its mode is 0700")
    descriptor = os.open(state / _FILE_NAME, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise errors.StateInUse(
                f"another daemon works in {state}", hint="stop it, or give this one its own --state"
            ) from None
        yield
    finally:
        os.close(descriptor)


def _make(state: Path) -> None:
    """Make the directory, with a durable name; also if it was there: whoever made it may have died before that was."""
    made = [folder for folder in (state, *state.parents) if not folder.exists()]
    state.mkdir(mode=0o700, parents=True, exist_ok=True)
    for folder in made or [state]:
        with contextlib.suppress(OSError):  # of others, or of another file system, which may have no such thing
            durable.names(folder.absolute().parent)
