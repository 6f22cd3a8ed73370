"""Fixtures of the sync tests: a repository to push to, and a synchroniser with a journal that only remembers."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from headrace.engine import events, moments
from headrace.sync import environments, loop
from headrace.sync.source import Source
from tests.support.certificates import Certificates
from tests.support.certificates import make as make_certificates
from tests.support.repositories import Repository


class Clock:
    """The real clock, which tests may move forward."""

    def __init__(self) -> None:
        self.ahead_s = 0.0

    def time(self) -> float:
        return time.time() + self.ahead_s

    def monotonic(self) -> float:
        return time.monotonic() + self.ahead_s


class Daemon:
    """What a synchroniser needs of a daemon, and the synchronisers of one state directory."""

    def __init__(self, state: Path) -> None:
        self.state = state
        self.clock = Clock()
        self.events: list[events.CommitPublished | events.CommitRejected] = []
        self.in_use: frozenset[str] = frozenset()

    async def publish(self, event: events.CommitPublished | events.CommitRejected) -> str:
        self.events.append(event)
        return moments.timestamp(self.clock.time())

    async def commits_in_use(self) -> frozenset[str]:
        return self.in_use

    @property
    def published(self) -> list[events.CommitPublished]:
        return [event for event in self.events if isinstance(event, events.CommitPublished)]

    def environments(self, packages: environments.Packages) -> environments.Environments:
        self.installed = environments.Environments(self.state / "envs", packages, self.clock)
        self.installed.open()
        return self.installed

    def synchroniser(
        self, url: str = "", packages: environments.Packages | None = None, **settings: Any
    ) -> loop.Synchroniser:
        return loop.Synchroniser(
            Source(url=url, **{"poll_s": 3600.0, **settings}),
            self.state,
            publications=self,
            commits_in_use=self.commits_in_use,
            clock=self.clock,
            installed=self.environments(packages) if packages is not None else None,
        )

    async def synced(self, sync: loop.Synchroniser) -> loop.SourceStatus:
        """Make one pass and return the status; the timers of the loop play no part."""
        await sync._pass()
        return sync.status()

    async def started(self, url: str, **settings: Any) -> loop.Synchroniser:
        """Return a synchroniser as after a restart of the daemon: it knows the last published commit, nothing else."""
        sync = self.synchroniser(url, **settings)
        await sync.start(self.published[-1] if self.published else None)
        return sync

    @contextlib.asynccontextmanager
    async def running(self, sync: loop.Synchroniser) -> AsyncIterator[loop.Synchroniser]:
        task = asyncio.create_task(sync.run(), name="sync")
        try:
            yield sync
        finally:
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task


@pytest.fixture
def repository(tmp_path: Path) -> Repository:
    return Repository(tmp_path / "repository")


@pytest.fixture
def daemon(tmp_path: Path) -> Daemon:
    return Daemon(tmp_path / "state")


@pytest.fixture(scope="session")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    return make_certificates(tmp_path_factory.mktemp("certificates"))
