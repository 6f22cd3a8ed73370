"""Trying again: how long to wait after a passing failure, and when to give up.

Exponential back-off with full jitter: each pause is a random part of a ceiling that grows from ``initial`` by
``multiplier`` up to ``maximum``, so that many executions that failed together do not come back together. A pause the
server asked for (``Retry-After``) is kept when it ends before the deadline. Task types raise ``Transient`` for what
may pass; every other exception leaves at once. Sleep, time and chance are handed in, so that tests need not wait.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Awaitable, Callable
from typing import Annotated, TypeVar

import msgspec

from ..engine import errors, ports

T = TypeVar("T")
_Seconds = Annotated[float, msgspec.Meta(ge=0)]


class Backoff(msgspec.Struct, forbid_unknown_fields=True, frozen=True, kw_only=True):
    """When to try again, in seconds."""

    initial: Annotated[_Seconds, msgspec.Meta(description="Ceiling of the first pause, in seconds.")] = 1.0
    maximum: Annotated[_Seconds, msgspec.Meta(description="Ceiling of every later pause, in seconds.")] = 60.0
    multiplier: Annotated[float, msgspec.Meta(ge=1, description="By what the ceiling grows each time.")] = 2.0
    deadline: Annotated[_Seconds, msgspec.Meta(description="Seconds after which no new attempt begins.")] = 600.0

    def ceiling(self, failures: int) -> float:
        """Return the longest pause after that many failures."""
        try:
            return min(self.maximum, self.initial * self.multiplier ** (failures - 1))
        except OverflowError:
            return self.maximum


class Transient(Exception):
    """An attempt failed in a way that may pass; ``failure`` is what is raised if it does not."""

    def __init__(self, failure: errors.TaskFailed, *, retry_after_s: float | None = None) -> None:
        super().__init__(failure.message)
        self.failure = failure
        self.retry_after_s = retry_after_s


class Pacing(msgspec.Struct, frozen=True, kw_only=True):
    """Where time and chance come from."""

    sleep: Callable[[float], Awaitable[None]] = asyncio.sleep
    monotonic: Callable[[], float] = time.monotonic
    #: A number in [0, 1).
    random: Callable[[], float] = random.random


def chosen(asked: Backoff | bool | None, *, repeatable: bool) -> Backoff | None:
    """Return the back-off in force for an input ``retry_backoff``: what may be repeated is, unless it was forbidden."""
    if isinstance(asked, Backoff):
        return asked
    wanted = repeatable if asked is None else asked
    return Backoff() if wanted else None


async def attempts(
    attempt: Callable[[], Awaitable[T]], backoff: Backoff | None, context: ports.TaskContext, pacing: Pacing
) -> T:
    """Return what ``attempt`` returns, trying again while it raises ``Transient`` and the back-off allows it.

    Raises ``TaskFailed`` with the last failure, its message saying how often it was tried."""
    began = pacing.monotonic()
    failures = 0
    while True:
        try:
            return await attempt()
        except Transient as passing:
            failures += 1
            failure, retry_after_s = passing.failure, passing.retry_after_s
        if backoff is None:
            raise failure
        pause = max(backoff.ceiling(failures) * pacing.random(), retry_after_s or 0.0)
        elapsed = pacing.monotonic() - began
        if elapsed + pause > backoff.deadline:
            raise _given_up(failure, failures, backoff, retry_after_s)
        context.log("WARNING", f"attempt {failures} failed, next one in {pause:.1f} s: {failure.message}")
        await pacing.sleep(pause)


def _given_up(
    failure: errors.TaskFailed, failures: int, backoff: Backoff, retry_after_s: float | None
) -> errors.TaskFailed:
    tried = "once" if failures == 1 else f"{failures} times"
    why = f"tried {tried}, the deadline for retries is {backoff.deadline:g} s"
    if retry_after_s is not None:
        why += f", the server asked to wait {retry_after_s:g} s"
    return errors.TaskFailed(f"{failure.message} ({why})", output=failure.output, kind=failure.kind)
