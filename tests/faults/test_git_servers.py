"""A git server that misbehaves in any way at any stage of a first clone or a fetch, again and again."""

from __future__ import annotations

import pytest

from tests.faults.conftest import Suite
from tests.support import hostile_git
from tests.support.repositories import FLOW
from tests.sync import test_hostile_servers as small
from tests.sync.conftest import Daemon, certificates, daemon, repository
from tests.sync.test_hostile_servers import hostile, server

__all__ = ["certificates", "daemon", "hostile", "repository", "server"]  # fixtures

pytestmark = pytest.mark.timeout(7200)


async def test_misbehaviour_of_servers(suite: Suite, repository, server, hostile, tmp_path, monkeypatch) -> None:
    manners = (*hostile_git.STATUSES, *hostile_git.MANNERS)
    daemon, sync = None, None
    for number in suite.times(60):
        if daemon is None or suite.random.random() < 0.2:
            daemon = Daemon(tmp_path / f"state{number}")
            sync = await daemon.started(server.url, **server.settings)
        repository.write(f"{number % 9}.py", FLOW + f"# {number}\n" * suite.random.randint(1, 2000))
        commit = repository.push()
        stage, manner = suite.random.choice(hostile_git.STAGES), suite.random.choice(manners)
        with suite.attempt((number, stage, manner)):
            hostile.stage = stage
            await small.spoilt_pass(daemon, sync, hostile, monkeypatch, manner, commit)
            hostile.stage = ""
            status = await daemon.synced(sync)
            assert (status.state, status.commit) == ("ok", commit), status.error
            assert small.leftovers(daemon.state) == []
