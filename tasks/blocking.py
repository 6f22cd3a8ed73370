"""Blocking calls in threads, for task types whose libraries and stores block.

A thread cannot be stopped. So when the task is cancelled, the call is waited for before the cancellation goes on: what
it uses (a writer, a folder, a connection) has one user at a time, and may be taken away right after.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import functools
from collections.abc import Callable
from typing import Any, TypeVar

T = TypeVar("T")


async def call(function: Callable[..., T], *arguments: Any, on_cancel: Callable[[], None] | None = None) -> T:
    """Run ``function`` in a thread and return its result; cancelled, return only after its end.

    ``on_cancel`` may tell it to hurry. The threads are few and shared with the daemon: for what waits for others there
    is ``alone``."""
    return await _run(None, functools.partial(function, *arguments), on_cancel)


async def alone(function: Callable[..., T], *arguments: Any, on_cancel: Callable[[], None]) -> T:
    """Like ``call``, in a thread of its own: for what may take long, so that it takes no thread from the daemon.

    ``on_cancel`` must make ``function`` end soon."""
    own = concurrent.futures.ThreadPoolExecutor(1, thread_name_prefix="headrace-task")
    try:
        return await _run(own, functools.partial(function, *arguments), on_cancel)
    finally:
        own.shutdown(wait=False)  # it has ended


async def _run(
    threads: concurrent.futures.Executor | None, function: Callable[[], T], on_cancel: Callable[[], None] | None
) -> T:
    running = asyncio.get_running_loop().run_in_executor(threads, function)
    try:
        return await asyncio.shield(running)
    except asyncio.CancelledError:
        if on_cancel is not None:
            on_cancel()
        await asyncio.wait([running])
        running.exception()  # nobody asks for it any more
        raise
