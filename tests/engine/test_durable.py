"""The names in a folder are kept when that folder is synced: it, and not one that only looks like it."""

from __future__ import annotations

import os

import pytest

from headrace.engine import durable


def test_the_folder_itself_is_synced_and_let_go_of(tmp_path, monkeypatch):
    synced, fsync = [], os.fsync

    def noted(descriptor):
        synced.append((descriptor, os.readlink(f"/proc/self/fd/{descriptor}")))
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", noted)
    durable.names(tmp_path)
    [(descriptor, folder)] = synced
    assert folder == str(tmp_path)
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(descriptor)


def test_what_is_no_folder_is_refused(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(NotADirectoryError):
        durable.names(tmp_path / "file")
    with pytest.raises(FileNotFoundError):
        durable.names(tmp_path / "none")
