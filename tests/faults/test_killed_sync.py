"""Sync killed at every system call by which git or the daemon changes the state directory: it heals by itself."""

from __future__ import annotations

import os
import random

import pytest

from tests.engine.records.test_faults import needs_strace
from tests.faults.conftest import Suite
from tests.sync import killing

pytestmark = [needs_strace, pytest.mark.timeout(7200)]

#: Which share of the calls is tried.
SHARE = float(os.environ.get("HEADRACE_KILLED_SHARE", "1"))


@pytest.mark.parametrize("kind", killing.SCENES)
async def test_sync_killed_at_every_call(suite: Suite, tmp_path, monkeypatch, kind: str) -> None:
    scene = killing.Scene(tmp_path, kind)
    await scene.prepare()
    of_git, of_daemon = (chosen(suite.random, points) for points in (scene.points_of_git(), scene.points_of_daemon()))
    hits = 0
    for point in of_git:
        with suite.attempt((point, "git alone")):
            hits += await scene.kill_git(point, monkeypatch)
    for point in (*of_git, *of_daemon):
        with suite.attempt((point, "the daemon")):
            hits += await scene.kill_daemon(point)
    suite.note = f"{len(of_git)} calls of git, {len(of_daemon)} of the daemon, {hits} deaths"
    assert hits >= 0.5 * suite.tries  # when git tidies up, not every pass makes the same calls


def chosen(chance: random.Random, points: list[killing.Point]) -> list[killing.Point]:
    return points if SHARE >= 1 else chance.sample(points, max(1, round(len(points) * SHARE)))
