"""Blocking calls in threads, for task types whose libraries and stores block.

A thread cannot be stopped. So when the task is cancelled, the call is waited for before the cancellation goes on: what
it uses (a writer, a folder, a connection) has one user at a time, and may be taken away right after.
"""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Callable
from typing import Any, TypeVar

T = TypeVar("T")


async def call(function: Callable[..., T], *arguments: Any, on_cancel: Callable[[], None] | None = None) -> T:
    """Run ``function`` in a thread and return its result; cancelled, return only after its end.

    ``on_cancel`` may tell it to hurry."""
    running = asyncio.get_running_loop().run_in_executor(None, functools.partial(function, *arguments))
    try:
        return await asyncio.shield(running)
    except asyncio.CancelledError:
        if on_cancel is not None:
            on_cancel()
        await asyncio.wait([running])
        running.exception()  # nobody asks for it any more
        raise
