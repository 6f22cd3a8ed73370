"""The benchmark of very many nodes, which reaches into the daemon's side of the cluster, with a few of them."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.bench import clustered, stage


def test_nodes_come_and_begin(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(clustered, "_LINKS", 10)
    monkeypatch.setattr(clustered, "_BEATS_S", 0.2)
    rows = list(clustered.links(stage.Plan(tmp_path, rounds=1)))
    assert [row.name for row in rows] == [
        "10 nodes come and begin",
        "memory of the daemon for each of 10 running nodes",
        "CPU of one core while 10 run and say nothing",
        "the loop is late meanwhile",
    ]
    assert rows[2].also["lost"] == 0
