"""The names in a folder are kept when that folder is synced: it, and not one that only looks like it."""

from __future__ import annotations

import asyncio
import os
import threading

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


async def test_whoever_is_cancelled_leaves_no_write_behind():
    begun, goes_on, over = threading.Event(), threading.Event(), []

    def write(text):
        begun.set()
        assert goes_on.wait(10)
        over.append(text)

    writing = asyncio.create_task(durable.whole(write, "first"))
    await asyncio.to_thread(begun.wait, 10)
    for _ in range(2):
        writing.cancel()
        await asyncio.sleep(0.01)
        assert not writing.done()
    goes_on.set()
    with pytest.raises(asyncio.CancelledError):
        await writing
    assert over == ["first"]


async def test_a_write_says_what_went_wrong():
    def write():
        raise OSError("the disk is full")

    with pytest.raises(OSError, match="the disk is full"):
        await durable.whole(write)
