"""Hostile repositories, one after the other into one daemon: nothing runs, nothing is written outside, all is told.

``HEADRACE_REPOSITORIES`` says how many of them; the suite takes a part, spread evenly, ``make faults`` all.
"""

from __future__ import annotations

import os
import shutil
import stat
from pathlib import Path

import pytest

from tests.sync import corpus

COUNT = int(os.environ.get("HEADRACE_REPOSITORIES", "16"))


def test_the_corpus_is_as_large_as_promised():
    assert len(corpus.CASES) >= 120


def check_snapshot(folder: Path) -> None:
    """Files and folders of ours, in the folder, and nothing else."""
    for path in folder.rglob("*"):
        mode = path.lstat().st_mode
        assert stat.S_ISDIR(mode) or stat.S_ISREG(mode), path
        assert stat.S_ISDIR(mode) or stat.S_IMODE(mode) in (0o444, 0o555), path
        assert str(path).isprintable(), path
        assert path.suffix != ".pyc"
        assert not path.name.lower().startswith((".git ", ".git.")), path
        assert path.name.lower() not in (".git", "git~1")


def outside(tmp_path: Path) -> set[Path]:
    return {path for path in tmp_path.rglob("*") if path.relative_to(tmp_path).parts[0] not in ("state", "repository")}


@pytest.mark.timeout(120 + 5 * COUNT)
async def test_no_repository_does_harm(repository, daemon, tmp_path, record_property):
    repository.write("a.py")
    repository.push()
    pristine = tmp_path / "repository" / "pristine.git"
    shutil.copytree(repository.upstream, pristine)
    sync = await daemon.started(repository.url)
    await daemon.synced(sync)
    canary = tmp_path / "canary"
    before = outside(tmp_path)
    cases = list(corpus.CASES.items())
    cases = cases[:: max(1, len(cases) // COUNT)]
    record_property("tries", len(cases))
    fates = set()
    for name, case in cases:
        shutil.rmtree(repository.upstream)
        shutil.copytree(pristine, repository.upstream)
        commit = case.build(corpus.Raw(repository.upstream, canary))
        (repository.upstream / "refs/heads/main").write_text(f"{commit}\n")
        current = sync.status().commit
        status = await daemon.synced(sync)
        said = (name, status.state, status.error, status.rejected)
        assert status.error.isprintable(), said
        if status.state == "ok":
            assert (status.commit, case.fate in ("taken", "either")) == (commit, True), said
            assert sync.flows.find("good").runnable, said
            check_snapshot(sync.flows.snapshot(commit))
        else:
            assert (status.state, status.commit) == ("degraded", current), said
            assert status.error, said
            assert status.hint, said
            assert case.fate in ("refused", "either"), said
            assert commit not in (path.name for path in (daemon.state / "snapshots").iterdir()), said
        assert not canary.exists(), said
        assert outside(tmp_path) == before, said
        fates.add(status.state)
    assert fates == {"ok", "degraded"}
    shutil.rmtree(repository.upstream)
    shutil.copytree(pristine, repository.upstream)
    repository.write("b.py")
    commit = repository.push()
    status = await daemon.synced(sync)
    assert (status.state, status.commit, status.flows) == ("ok", commit, 2)
