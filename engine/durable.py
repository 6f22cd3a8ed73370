"""What has to be done before a file system keeps what it was told."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from pathlib import Path


def names(folder: Path) -> None:
    """Make the names in ``folder`` durable: a new, renamed or removed file is only that after this. Blocking."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


async def whole(write: Callable[..., None], *args: object) -> None:
    """Do a blocking write in a thread and return when it is over, even for somebody who is cancelled meanwhile.

    A thread cannot be cancelled. If it were left alone, whoever writes the same file next would meet it there, and what
    is older could come last."""
    writing = asyncio.create_task(asyncio.to_thread(write, *args), name="a write")
    cancelled: asyncio.CancelledError | None = None
    while not writing.done():
        try:
            await asyncio.wait({writing})
        except asyncio.CancelledError as error:
            cancelled = error
    if cancelled is not None:
        writing.exception()  # looked at: the cancellation is what counts
        raise cancelled
    writing.result()
