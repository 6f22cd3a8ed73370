"""Sync killed at system calls of its gits and of its own: it heals by itself. ``tests/faults`` has all of the calls."""

from __future__ import annotations

import pytest

from tests.engine.records.test_faults import needs_strace
from tests.sync import killing

pytestmark = needs_strace

#: So many of the calls, spread evenly.
SAMPLE = 2


def sample(points: list[killing.Point], least: int) -> list[killing.Point]:
    assert len(points) >= least, points
    return points[:: -(-len(points) // SAMPLE)]


@pytest.mark.parametrize("kind", killing.SCENES)
async def test_sync_that_is_killed_heals_by_itself(tmp_path, monkeypatch, kind):
    scene = killing.Scene(tmp_path, kind)
    await scene.prepare()
    of_git, of_daemon = sample(scene.points_of_git(), 10), sample(scene.points_of_daemon(), 20)
    hits = 0
    for point in of_git[::2]:
        hits += await scene.kill_git(point, monkeypatch)
    for point in (*of_git[1::2], *of_daemon):
        hits += await scene.kill_daemon(point)
    assert hits >= 0.5 * (len(of_git) + len(of_daemon))
