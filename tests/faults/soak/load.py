"""Who uses the daemon in the soak: senders that insist, people who answer, look and follow, and who pushes.

Each is a thread with a pace of its own. What goes wrong where nothing may go wrong is told to ``report``.
"""

from __future__ import annotations

import collections
import random
import threading
import time
import urllib.error
from collections.abc import Callable
from typing import Any

from headrace.engine import errors
from tests.support import callers
from tests.support.daemons import Daemon
from tests.support.repositories import Repository

from . import flows

#: A sender insists for so long, which is longer than anything here takes.
_INSISTING_S = 300.0
_LOOKS = (
    "/api/v1/executions?limit=50",
    "/api/v1/executions?limit=50&flow=parent",
    "/api/v1/executions?limit=50&q=quick",
    "/api/v1/executions?status=WAITING",
    "/api/v1/timetable",
    "/api/v1/settings",
    "/api/v1/files",
    "/metrics",
    "/",
    "/flows",
    "/executions?flow=naps",
    "/executions?q=up",
)


class Users:
    """Start them with ``start``; after ``stop`` nothing more is sent, but answers are given until ``leave``."""

    def __init__(self, daemon: Daemon, repository: Repository, pause_s: float, seed: int) -> None:
        self.daemon = daemon
        self.repository = repository
        self.pushing = threading.Lock()  # the repository belongs to whoever has it
        self.acknowledged: dict[str, callers.Request] = {}
        self.counts: collections.Counter[str] = collections.Counter()
        self.wrong: list[str] = []
        self._pause_s = pause_s
        self._seed = seed
        self._over = threading.Event()
        self._leave = threading.Event()
        self._threads: list[threading.Thread] = []

    def start(self, senders: int = 4) -> None:
        """Let them begin."""
        sends = [(f"sender-{n}", self._send, self._pause_s * senders, self._over) for n in range(senders)]
        for name, act, pause_s, over in [
            *sends,
            ("answers", self._answer, 4.0, self._leave),
            ("looks", self._look, 5 * self._pause_s, self._over),
            ("follows", self._follow, 15.0, self._over),
            ("pushes", self._push, 50.0, self._over),
        ]:
            chance = random.Random(f"{self._seed} {name}")
            thread = threading.Thread(
                target=self._live, args=(name, act, pause_s, over, chance), name=name, daemon=True
            )
            thread.start()
            self._threads.append(thread)

    def stop(self) -> None:
        """Send nothing more."""
        self._over.set()

    def leave(self) -> None:
        """Wait until the last of them is gone."""
        self._over.set()
        self._leave.set()
        for thread in self._threads:
            thread.join(_INSISTING_S)

    def _live(
        self,
        name: str,
        act: Callable[[random.Random, int, str], None],
        pause_s: float,
        over: threading.Event,
        chance: random.Random,
    ) -> None:
        n = 0
        while not over.wait(chance.uniform(0.2, 1.8) * pause_s):
            n += 1
            try:
                act(chance, n, f"{name}-{n}")
                self.counts[name.partition("-")[0]] += 1
            except (OSError, KeyError, ValueError, urllib.error.URLError, errors.HeadraceError):
                self.counts[f"{name.partition('-')[0]} disturbed"] += 1
            except Exception as error:  # a defect of the soak: it has to be seen
                self.wrong.append(f"{name}: {error!r}")

    def _send(self, chance: random.Random, n: int, key: str) -> None:
        request = flows.ask(chance, n, key)
        until = time.monotonic() + _INSISTING_S
        while time.monotonic() < until:
            try:
                status, answer, _ = callers.send(self.daemon, request)
                if status in (200, 202):
                    self.acknowledged[answer["id"]] = request
                    return
                self.counts[f"answered {status}"] += 1
                if status not in (429, 503):
                    self.wrong.append(f"{key} ({request.path}) was answered {status}: {answer}")
                    return
            except (OSError, KeyError, ValueError, urllib.error.URLError):
                self.counts["sender had no answer"] += 1
            time.sleep(chance.uniform(0.2, 1))
        self.wrong.append(f"{key} ({request.path}) was not taken within {_INSISTING_S:g} s")

    def _answer(self, chance: random.Random, n: int, key: str) -> None:
        for message in self.daemon.client.messages(pending=True):
            if chance.random() < 0.3 or self._over.is_set():
                self.daemon.client.answer(message["id"], {"string": "yes"})

    def _get(self, path: str) -> tuple[int, Any]:
        headers = {"Authorization": f"Bearer {self.daemon.token()}"}
        status, answer, _ = self.daemon.raw("GET", path, headers=headers)
        return status, answer

    def _look(self, chance: random.Random, n: int, key: str) -> None:
        path = chance.choice(_LOOKS)
        status, answer = self._get(path)
        if status not in (200, 503):
            self.wrong.append(f"{path} was answered {status}: {answer}"[:400])

    def _follow(self, chance: random.Random, n: int, key: str) -> None:
        """Follow an execution from its beginning to its end, through whatever happens, and compare with its record."""
        recent = self.daemon.client.executions(limit=20, status=["RUNNING", "WAITING"])["items"]
        if not recent:
            return
        execution = chance.choice(recent)["id"]
        followed = [int(event.id) for event in self.daemon.client.events(execution) if event.event != "end"]
        recorded = [line["seq"] for line in self.daemon.client.record(execution)]
        if followed != recorded:
            self.wrong.append(f"a stream of {execution} gave {followed}, its record has {recorded}")

    def _push(self, chance: random.Random, n: int, key: str) -> None:
        with self.pushing:
            self.repository.write("version.py", f"def handler(system, this):\n    return {{'version': {n}}}\n")
            commit = self.repository.push()
        until = time.monotonic() + 60
        while self.daemon.client.sync_state()["commit"] != commit:
            time.sleep(0.5)
            if time.monotonic() > until:
                self.counts["push not seen within a minute"] += 1
                return
