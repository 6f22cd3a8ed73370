"""Private folders for tasks under way, gone at their end: inputs and keys stand in them for programs to read.

A daemon that is killed leaves those of its tasks behind. Their names say whose they were, so that the next daemon with
the same state directory removes them before it begins, and nobody else's.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import pathlib
import shutil
import tempfile
from collections.abc import AsyncIterator

import msgspec

from . import blocking


class Folders(msgspec.Struct, frozen=True):
    """The folders of one daemon, where the system has its temporary files."""

    owner: str = "nobody"

    @contextlib.asynccontextmanager
    async def opened(self, kind: str) -> AsyncIterator[pathlib.Path]:
        """Give an empty folder for this user alone; everything of it is gone after the block."""
        # One mkdir, not in a thread: a cancellation could come between its end and our learning the folder's name.
        folder = pathlib.Path(tempfile.mkdtemp(prefix=f"headrace-{self.owner}-{kind}-"))
        try:
            yield folder
        finally:
            await blocking.call(shutil.rmtree, folder, True)

    def clear(self) -> None:
        """Remove what a killed daemon left; only while no daemon of this state directory runs."""
        for left in pathlib.Path(tempfile.gettempdir()).glob(f"headrace-{self.owner}-*"):
            with contextlib.suppress(OSError):
                if left.lstat().st_uid == os.getuid():
                    shutil.rmtree(left, ignore_errors=True)


def of_daemon(state: pathlib.Path) -> Folders:
    """Return the folders of the daemon that keeps its state there."""
    return Folders(hashlib.sha256(os.fsencode(state.resolve())).hexdigest()[:12])
