"""Branches that are pushed, forced, deleted, renamed and emptied at random: what git has is in force, or what was."""

from __future__ import annotations

import pytest

from tests.faults.conftest import Suite
from tests.support.repositories import FLOW, Repository, git
from tests.sync.conftest import Daemon

pytestmark = pytest.mark.timeout(7200)

OPERATIONS = ("push", "push", "force", "unrelated", "back", "delete", "rename", "empty", "gc")


class Upstream:
    """A repository to which anything happens."""

    def __init__(self, repository: Repository, suite: Suite) -> None:
        self._repository = repository
        self._suite = suite
        self._bare = repository.upstream
        self._number = 0
        self.commits: list[str] = []

    def _commit(self, *parents: str) -> str:
        """Make a commit of one flow there and return it."""
        self._number += 1
        blob = git(self._bare, "hash-object", "-w", "--stdin", stdin=f"{FLOW}# {self._number}\n".encode())
        tree = git(self._bare, "mktree", stdin=f"100644 blob {blob}\ta.py\n".encode())
        words = [word for parent in parents for word in ("-p", parent)]
        self.commits.append(git(self._bare, "commit-tree", tree, "-m", f"number {self._number}", *words))
        return self.commits[-1]

    @property
    def branch(self) -> str:
        return git(self._bare, "symbolic-ref", "HEAD")

    @property
    def tip(self) -> str:
        """Where the default branch points, or nothing."""
        return git(self._bare, "for-each-ref", "--format=%(objectname)", self.branch)

    def happen(self, operation: str) -> None:
        tip = self.tip
        parents = [tip] if tip else []
        if operation == "push":
            git(self._bare, "update-ref", self.branch, self._commit(*parents))
        elif operation == "force":
            git(self._bare, "update-ref", self.branch, self._commit(self._suite.random.choice(self.commits[-30:])))
        elif operation == "unrelated":
            git(self._bare, "update-ref", self.branch, self._commit())
        elif operation == "back":
            git(self._bare, "update-ref", self.branch, self._suite.random.choice(self.commits[-30:]))
        elif operation == "delete" and tip:
            git(self._bare, "update-ref", "-d", self.branch)
        elif operation == "rename":
            name = f"refs/heads/{self._suite.random.choice(['main', 'trunk', 'release/1'])}"
            if tip and self._suite.random.random() < 0.7:
                git(self._bare, "update-ref", name, tip)
            git(self._bare, "symbolic-ref", "HEAD", name)
        elif operation == "empty":
            for name in git(self._bare, "for-each-ref", "--format=%(refname)").split():
                git(self._bare, "update-ref", "-d", name)
        elif operation == "gc":
            for commit in self.commits[-30:]:  # those that may come back
                git(self._bare, "update-ref", f"refs/kept/{commit}", commit)
            git(self._bare, "gc", "--quiet", "--prune=now")


async def test_rewritten_branches(suite: Suite, tmp_path) -> None:
    upstream = Upstream(repository := Repository(tmp_path / "repository"), suite)
    upstream.happen("push")
    daemon = Daemon(tmp_path / "state")
    sync = await daemon.started(repository.url)
    await daemon.synced(sync)
    degraded = 0
    for number in suite.times(150):
        operation = suite.random.choice(OPERATIONS)
        with suite.attempt((number, operation)):
            upstream.happen(operation)
            if suite.random.random() < 0.1:
                sync = await daemon.started(repository.url)
            daemon.clock.ahead_s += suite.random.choice([0, 60, 7200])
            published = [event.commit for event in daemon.published]
            daemon.in_use = frozenset(
                suite.random.sample(published, min(3, len(published))) if number % 10 == 0 else daemon.in_use
            )
            before = sync.status().commit or sync.flows.current().commit
            readable = [commit for commit in daemon.in_use if (daemon.state / "snapshots" / commit).is_dir()]
            status = await daemon.synced(sync)
            tip = upstream.tip
            assert (status.state, sync.flows.current().commit) == (("ok", tip) if tip else ("degraded", before)), status
            degraded += not tip
            assert sync.flows.snapshot(sync.flows.current().commit).joinpath("a.py").is_file()
            for commit in readable:
                assert sync.flows.snapshot(commit).joinpath("a.py").is_file()
                git(daemon.state / "mirror.git", "cat-file", "-e", f"{commit}:a.py")
    suite.note = f"{len(daemon.published)} publications, {degraded} looks at nothing"
    assert degraded
