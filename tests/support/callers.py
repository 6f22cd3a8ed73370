"""People who ask for runs as fast as they can, whatever happens to the daemon, and remember what it acknowledged."""

from __future__ import annotations

import contextlib
import dataclasses
import random
import threading
import time
import urllib.error
from collections.abc import Callable, Iterator
from typing import Any

from tests.support.daemons import Daemon


@dataclasses.dataclass(frozen=True)
class Request:
    """One request for a run: with the same key it is the same one. ``told_s``: when its sender, who waited for that,
    was told that it has ended, in seconds since the epoch."""

    flow: str
    path: str
    body: Any
    headers: dict[str, str]
    told_s: float | None = None


#: Makes a caller's next request from chance, its number and the key it shall have.
Ask = Callable[[random.Random, int, str], Request]


class Caller(threading.Thread):
    """One of them. What is acknowledged goes into a dictionary by the execution's id."""

    def __init__(self, daemon: Daemon, seed: float, ask: Ask, acknowledged: dict[str, Request]) -> None:
        super().__init__(daemon=True)
        self._daemon_under_test = daemon
        self._random = random.Random(seed)
        self._ask = ask
        self._acknowledged = acknowledged
        self.over = threading.Event()

    def run(self) -> None:
        n = 0
        while not self.over.is_set():
            n += 1
            request = self._ask(self._random, n, f"{self.name}-{n}")
            try:
                status, answer, _ = send(self._daemon_under_test, request)
                if status == 202:
                    self._acknowledged[answer["id"]] = request
                elif status == 200:
                    self._acknowledged[answer["id"]] = dataclasses.replace(request, told_s=time.time())
            except (OSError, KeyError, ValueError, urllib.error.URLError):
                time.sleep(0.02)


def send(daemon: Daemon, request: Request) -> tuple[int, Any, dict[str, str]]:
    """Send it over TCP; returns status, answer and headers."""
    headers = {"Authorization": f"Bearer {daemon.token()}", **request.headers}
    return daemon.raw("POST", request.path, request.body, headers)


@contextlib.contextmanager
def calling(daemon: Daemon, chance: random.Random, ask: Ask, count: int = 4) -> Iterator[dict[str, Request]]:
    """Let ``count`` of them ask during the block; gives what was acknowledged, complete when it is left."""
    acknowledged: dict[str, Request] = {}
    callers = [Caller(daemon, chance.random(), ask, acknowledged) for _ in range(count)]
    for caller in callers:
        caller.start()
    try:
        yield acknowledged
    finally:
        for caller in callers:
            caller.over.set()
        for caller in callers:
            caller.join()
