"""The watcher says that something changed, whichever way editors and git change files."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from headrace.sync import watch


class Bell:
    """Counts nudges and lets a test wait for the next one."""

    def __init__(self) -> None:
        self.rung = asyncio.Event()

    def __call__(self, reason: str) -> None:
        self.rung.set()

    async def heard(self, within_s: float = 20.0) -> None:
        async with asyncio.timeout(within_s):
            await self.rung.wait()

    async def quiet(self) -> None:
        """Wait until the last change has been told, then forget it."""
        with contextlib.suppress(TimeoutError):
            while True:
                self.rung.clear()
                await self.heard(0.3)


@contextlib.asynccontextmanager
async def watching(directory: Path, ignored: Path | None = None) -> AsyncIterator[Bell]:
    bell = Bell()
    task = asyncio.create_task(watch.watch(directory, bell, ignored=ignored), name="watch")
    try:
        await _until_awake(directory, bell)
        yield bell
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task


async def _until_awake(directory: Path, bell: Bell) -> None:
    """Knock until the watcher hears it: it has no way to say that it watches."""
    knock = directory / "knock"
    for number in range(200):
        knock.write_text(str(number))
        with contextlib.suppress(TimeoutError):
            await bell.heard(0.1)
            break
    knock.unlink()
    await bell.quiet()


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    folder = tmp_path / "flows"
    (folder / "sub").mkdir(parents=True)
    (folder / "sub" / "a.py").write_text("x = 1\n")
    return folder


def edit(folder: Path) -> None:
    (folder / "sub" / "a.py").write_text("x = 2\n")


def replace(folder: Path) -> None:
    (folder / "sub" / "a.py.new").write_text("x = 3\n")
    os.replace(folder / "sub" / "a.py.new", folder / "sub" / "a.py")


def remove_and_recreate(folder: Path) -> None:
    shutil.rmtree(folder / "sub")
    (folder / "sub").mkdir()
    (folder / "sub" / "a.py").write_text("x = 1\n")


def new_folder(folder: Path) -> None:
    (folder / "new" / "er").mkdir(parents=True)
    (folder / "new" / "er" / "b.py").write_text("x = 1\n")


def remove(folder: Path) -> None:
    (folder / "sub" / "a.py").unlink()


async def test_every_way_of_changing_files_is_noticed(directory):
    async with watching(directory) as bell:
        for change in (edit, replace, remove_and_recreate, edit, new_folder, remove):
            change(directory)
            await bell.heard()
            await bell.quiet()


async def test_what_is_never_part_of_a_commit_is_not_noticed(directory, tmp_path):
    state = directory / "state"
    state.mkdir()
    for folder in (".git", ".headrace", "__pycache__", ".venv"):
        (directory / folder).mkdir()
    async with watching(directory, ignored=state) as bell:
        for folder in (".git", ".headrace", "__pycache__", ".venv", "state"):
            (directory / folder / "file").write_text("x")
        (directory / "sub" / ".a.py.swp").write_text("x")
        with pytest.raises(TimeoutError):
            await bell.heard(0.4)


async def test_a_directory_that_is_replaced_is_watched_again(directory, monkeypatch):
    monkeypatch.setattr(watch, "_RETRY_S", 0.05)
    async with watching(directory) as bell:
        directory.rename(directory.with_name("old"))
        await bell.heard()
        shutil.copytree(directory.with_name("old"), directory)
        await _until_awake(directory, bell)
        edit(directory)
        await bell.heard()


async def test_without_inotify_it_polls(directory, monkeypatch):
    monkeypatch.setattr(watch, "_RETRY_S", 0.01)
    monkeypatch.setattr(watch, "_POLL_MS", 20)
    real = watch.watchfiles.awatch

    def refusing(*paths, force_polling, **options):
        if not force_polling:
            raise OSError(28, "inotify watch limit reached")
        return real(*paths, force_polling=force_polling, **options)

    monkeypatch.setattr(watch.watchfiles, "awatch", refusing)
    async with watching(directory) as bell:
        new_folder(directory)  # polling sees times in whole seconds: an edit within the same one can be missed
        await bell.heard()
