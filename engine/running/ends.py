"""Those outside who wait for executions to end, and how they are told.

An end comes in two steps. When the disk works on it, whoever waits hears of it and makes the answer meanwhile; when it
is durable, the answer goes out. One caller is answered 5 to 10 % sooner for it.
"""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Awaitable, Callable

import structlog

from .. import errors, model
from . import live

log = structlog.get_logger()

#: Returns when what it was given with is durable.
Confirm = Callable[[], Awaitable[None]]

#: An end that has happened is durable within this time, unless the disk is full.
DURABLE_SOON_S = 5.0


class _Audience:
    """Who waits for something that becomes of executions. However many they are, each costs the same to tell."""

    def __init__(self) -> None:
        self._seats: dict[str, set[asyncio.Future[None]]] = {}  # by execution
        self._is_over = False

    async def wait(self, execution: str, timeout_s: float) -> None:
        """Return when they are told of this one, or the time is up, or there is nothing more to tell."""
        if self._is_over:
            return
        loop = asyncio.get_running_loop()
        seat: asyncio.Future[None] = loop.create_future()
        present = self._seats.setdefault(execution, set())
        present.add(seat)
        timer = loop.call_later(timeout_s, _release, seat)
        try:
            await seat
        finally:
            timer.cancel()
            present.discard(seat)
            if not present:
                self._seats.pop(execution, None)

    def tell(self, execution: str) -> None:
        """It is so with this one."""
        for seat in self._seats.pop(execution, ()):
            _release(seat)

    def dismiss(self) -> None:
        """There is nothing more to tell."""
        self._is_over = True
        for execution in list(self._seats):
            self.tell(execution)


class Ends:
    """Tells of ends. ``load`` finds those that were before."""

    def __init__(self, ledger: live.Ledger, load: Callable[[str], Awaitable[model.Execution]]) -> None:
        self._ledger = ledger
        self._load = load
        self._ended = _Audience()
        self._durable = _Audience()

    async def wait(self, execution: str, timeout_s: float) -> model.Execution:
        """Wait until it has ended, durably, or ``timeout_s`` have passed, or nothing ends any more because the daemon
        stops, and return its state.

        Raises ``NotFound``, and ``NotAccepting`` while its end cannot be made durable: nobody is told of that yet."""
        state, confirm = await self.foresee(execution, timeout_s)
        await confirm()
        return state

    async def foresee(self, execution: str, timeout_s: float) -> tuple[model.Execution, Confirm]:
        """The same as soon as the disk works on its end: time to make the answer. What is returned beside the state has
        to be called and awaited before anybody sees that; it raises ``NotAccepting``."""
        subject = self._ledger.find(execution)
        if subject is None:
            return await self._load(execution), _is_durable
        deadline_s = asyncio.get_running_loop().time() + timeout_s
        if not subject.state.status.ended and timeout_s > 0:
            await self._ended.wait(execution, timeout_s)
        return subject.state, functools.partial(self._confirm, subject, deadline_s)

    async def _confirm(self, subject: live.Live, deadline_s: float) -> None:
        if not subject.state.status.ended or subject.ended.done():
            return
        left_s = deadline_s - asyncio.get_running_loop().time()
        await self._durable.wait(subject.state.id, max(left_s, DURABLE_SOON_S))
        if not subject.ended.done():
            raise errors.NotAccepting("it has ended, but its end cannot be recorded now", hint="free disk space")

    async def conclude(self, subject: live.Live) -> None:
        """An end was recorded: say so once, in the log too, and let the execution go when that is durable."""
        self._ledger.journal.meanwhile(lambda: self._tell(subject.state))
        await self._ledger.settle(subject)
        self._durable.tell(subject.state.id)

    def _tell(self, state: model.Execution) -> None:
        self._ended.tell(state.id)
        log.info(
            "execution.ended",
            execution=state.id,
            flow=state.flow_name or state.task,
            status=state.status,
            reason=state.reason or None,
        )

    def dismiss(self) -> None:
        """Nothing ends any more: the daemon stops."""
        self._ended.dismiss()
        self._durable.dismiss()


async def _is_durable() -> None:
    """It ended before."""


def _release(seat: asyncio.Future[None]) -> None:
    if not seat.done():
        seat.set_result(None)
