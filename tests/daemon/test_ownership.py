"""The state directory: one process at a time, and a name that a power cut does not take."""

import os

import pytest

from headrace.daemon import ownership
from headrace.engine import errors


@pytest.fixture
def synced(monkeypatch):
    """What was synced, in order."""
    found, fsync = [], os.fsync

    def noted(descriptor):
        found.append(os.readlink(f"/proc/self/fd/{descriptor}"))
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", noted)
    return found


def test_it_belongs_to_one_at_a_time(tmp_path):
    with (
        ownership.locked(tmp_path / "s"),
        pytest.raises(errors.StateInUse, match="another daemon works in"),
        ownership.locked(tmp_path / "s"),
    ):
        pass
    with ownership.locked(tmp_path / "s"):
        pass


def test_every_folder_made_for_it_has_a_durable_name(tmp_path, synced):
    with ownership.locked(tmp_path / "a" / "b" / "s"):
        assert synced == [str(tmp_path / "a" / "b"), str(tmp_path / "a"), str(tmp_path)]


def test_one_that_was_there_has_too(tmp_path, synced, monkeypatch):
    """Whoever made it may have died before."""
    (tmp_path / "s").mkdir()
    monkeypatch.chdir(tmp_path)
    with ownership.locked(tmp_path.joinpath("s").relative_to(tmp_path)):
        assert synced == [str(tmp_path)]
