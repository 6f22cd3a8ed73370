"""Watching a directory: says that something changed, never what.

Owns: the quarantine of watchfiles, its fall-back to polling, and the folders that never matter. Refuses: acting on
the list of events: editors replace files, git unlinks and creates them again; whoever is told looks at the
directory itself. Run by ``loop`` as an asyncio.Task of its own.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable
from pathlib import Path

import structlog
import watchfiles

log = structlog.get_logger()

#: Changes that come in one breath are told once: 50 ms of silence end it, 400 ms at the latest. The watcher wakes up
#: this often even if nothing happens, so a shorter silence costs an idle daemon more than it gains a push.
_QUIET_MS = 50
_BREATH_MS = 400
_POLL_MS = 1000
_RETRY_S = 5.0

_NEVER = re.compile(
    r"/(?:\.git|\.headrace|__pycache__|\.venv|node_modules|\.mypy_cache|\.ruff_cache|\.pytest_cache|\.idea)(?:/|$)"
    r"|\.py[cod]$|\.sw[a-z]$|~$|\.lock$"
)


def _filter(directory: Path, ignored: Path | None) -> Callable[[watchfiles.Change, str], bool]:
    """Return the test for changes that may matter: everything but what is never part of a commit."""
    top, state = f"{directory}/", f"{ignored}/" if ignored else ""

    def matters(_: watchfiles.Change, path: str) -> bool:
        if state and f"{path}/".startswith(state):
            return False
        return _NEVER.search("/" + path.removeprefix(top)) is None

    return matters


async def watch(directory: Path, nudge: Callable[[str], None], *, ignored: Path | None = None) -> None:
    """Call ``nudge`` after every change below ``directory`` but not below ``ignored``, for ever.

    A directory that is gone is waited for."""
    polling = again = False
    while True:
        if _inode(directory):
            if again:
                nudge("watch.restarted")  # what happened meanwhile nobody saw
            try:
                await _watch_once(directory, nudge, _filter(directory, ignored), polling=polling)
            except (OSError, RuntimeError) as error:
                # No inotify here (network file system, container), or none left for this user.
                polling = True
                log.warning("watch.degraded", directory=str(directory), reason=str(error), poll_ms=_POLL_MS)
        again = True
        await asyncio.sleep(_RETRY_S)


async def _watch_once(
    directory: Path,
    nudge: Callable[[str], None],
    matters: Callable[[watchfiles.Change, str], bool],
    *,
    polling: bool,
) -> None:
    """Watch until the directory itself goes away."""
    changes = watchfiles.awatch(
        directory,
        watch_filter=matters,
        step=_QUIET_MS,
        debounce=_BREATH_MS,
        rust_timeout=2000,
        yield_on_timeout=True,
        force_polling=polling,
        poll_delay_ms=_POLL_MS,
    )
    inode = _inode(directory)
    async for changed in changes:
        if changed:
            nudge("watch")
        if _inode(directory) != inode:
            return


def _inode(directory: Path) -> int:
    """Return which directory this is, 0 for none."""
    try:
        return directory.stat().st_ino if directory.is_dir() else 0
    except OSError:
        return 0
