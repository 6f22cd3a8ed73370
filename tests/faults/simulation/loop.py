"""An event loop without a clock, a selector or threads: time passes when nothing else is left to do."""

from __future__ import annotations

import asyncio
import collections
import contextvars
import heapq
import random
from asyncio import events
from collections.abc import Callable
from typing import Any


class Stuck(Exception):
    """Nothing will ever happen any more."""


class Loop(asyncio.BaseEventLoop):
    """Callbacks run in asyncio's order. What goes to a thread elsewhere is done at once and answered a little later."""

    def __init__(self, now: float, pick: random.Random, steps_max: int) -> None:
        super().__init__()
        self.dead = False
        self.steps = 0
        self._steps_max = steps_max
        self._now = now
        self._pick = pick
        self._ready: collections.deque[asyncio.Handle] = collections.deque()
        self._scheduled: list[asyncio.TimerHandle] = []

    def time(self) -> float:
        return self._now

    def get_debug(self) -> bool:
        return False

    def call_soon(
        self, callback: Callable[..., Any], *args: Any, context: contextvars.Context | None = None
    ) -> asyncio.Handle:
        handle = asyncio.Handle(callback, args, self, context)
        if not self.dead:  # what is cleared away afterwards may still call
            self._ready.append(handle)
        return handle

    call_soon_threadsafe = call_soon

    def call_at(
        self, when: float, callback: Callable[..., Any], *args: Any, context: contextvars.Context | None = None
    ) -> asyncio.TimerHandle:
        timer = asyncio.TimerHandle(when, callback, args, self, context)
        if not self.dead:
            heapq.heappush(self._scheduled, timer)
        return timer

    def call_later(
        self, delay: float, callback: Callable[..., Any], *args: Any, context: contextvars.Context | None = None
    ) -> asyncio.TimerHandle:
        return self.call_at(self._now + delay, callback, *args, context=context)

    def _timer_handle_cancelled(self, handle: asyncio.TimerHandle) -> None:
        pass  # it is passed over when its time comes

    def run_in_executor(self, executor: Any, func: Callable[..., Any], *args: Any) -> asyncio.Future[Any]:
        done: asyncio.Future[Any] = self.create_future()
        try:
            result, error = func(*args), None
        except Exception as raised:
            result, error = None, raised
        self.call_later(self._pick.choice((0.0, 0.0, 0.0004, 0.02)), _answer, done, result, error)
        return done

    def run(self) -> None:
        """Go on until somebody sets ``dead``; raises ``Stuck``."""
        events._set_running_loop(self)
        try:
            while not self.dead:
                self._turn()
        finally:
            events._set_running_loop(None)

    def _turn(self) -> None:
        ready, timers = self._ready, self._scheduled
        while timers and (timers[0]._cancelled or timers[0]._when <= self._now or not ready):
            timer = heapq.heappop(timers)
            if not timer._cancelled:
                self._now = max(self._now, timer._when)
                ready.append(timer)
        if not ready:
            raise Stuck("nothing will ever happen any more")
        for _ in range(len(ready)):
            handle = ready.popleft()
            if not handle._cancelled:
                handle._run()
                self.steps += 1
            if self.dead:
                return
        if self.steps > self._steps_max:
            raise Stuck(f"no end after {self.steps:,} steps")


def _answer(done: asyncio.Future[Any], result: Any, error: Exception | None) -> None:
    if done.done():
        return
    if error is None:
        done.set_result(result)
    else:
        done.set_exception(error)


def bury(tasks: set[asyncio.Task[Any]]) -> None:
    """Take tasks of a dead loop apart, so that nobody hears of them again."""
    for task in tasks:
        task._log_destroy_pending = False  # type: ignore[attr-defined]
        for _ in range(8):  # what cleans up by waiting is asked again
            try:
                task.get_coro().close()  # type: ignore[union-attr]
                break
            except BaseException:
                continue
