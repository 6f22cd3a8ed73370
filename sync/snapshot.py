"""Snapshots: the files of one commit in a folder of their own, whole or not there, never changed.

Owns: writing ``snapshots/<sha>/`` (beside, made durable, renamed), checking and removing it. Refuses: anything
``tree.plan`` did not allow; following or writing links. After ``write`` returns the snapshot survives a power cut; if
we die before, only a ``.tmp-`` folder is left, which ``sweep`` removes. Used by ``candidate``.
"""

from __future__ import annotations

import contextlib
import ctypes
import functools
import os
import secrets
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path

import msgspec

from . import tree

#: The same for every file of every snapshot: compiled files then depend on content alone, and a file that somebody
#: wrote to is told from one that nobody touched.
MTIME_S = 946_684_800
_MODES = {"100644": 0o444, "100755": 0o555}
#: Up to this many new files each is fsynced (0.2 ms apiece). Beyond, one ``syncfs`` is quicker (10,000 files on ext4:
#: 0.15 s against 0.9 s with eight threads and 2.2 s with one) and worth flushing what others have written meanwhile.
_FSYNC_FILES_MAX = 400

Blobs = Callable[[Sequence[str]], Iterable[bytes]]


class Earlier(msgspec.Struct, frozen=True):
    """A snapshot whose files may be linked instead of written again; ``blobs`` is path → blob."""

    folder: Path
    blobs: Mapping[str, str]


@functools.lru_cache(maxsize=256)  # a path that is kept need not be put together again for each execution
def folder_of(snapshots: Path, commit: str) -> Path:
    """Return where the snapshot of ``commit`` lies, or would."""
    return snapshots / commit


def write(snapshots: Path, commit: str, plan: tree.Plan, blobs: Blobs, earlier: Earlier | None = None) -> Path:
    """Write the snapshot of ``commit``, durably, replacing one that is there, and return its folder."""
    beside = snapshots / f"{commit}.tmp-{secrets.token_hex(4)}"
    try:
        _fill(beside, plan, blobs, earlier)
    except BaseException:  # a full disk, say: one more half snapshot with each pass would not make it emptier
        shutil.rmtree(beside, ignore_errors=True)
        raise
    final = folder_of(snapshots, commit)
    remove(final)
    beside.rename(final)
    sync_path(snapshots)
    return final


def _fill(beside: Path, plan: tree.Plan, blobs: Blobs, earlier: Earlier | None) -> None:
    """Write all files into a new folder, durably."""
    folders = _make_folders(beside, plan)
    fresh = _link_known(beside, plan, earlier)
    for entry, content in zip(fresh, blobs([entry.blob for entry in fresh]), strict=True):
        _write_file(beside / entry.path, content, _MODES[entry.mode])
    if len(fresh) + len(folders) <= _FSYNC_FILES_MAX or not sync_file_system(beside):
        for path in [*(beside / entry.path for entry in fresh), *folders]:
            sync_path(path)


def is_intact(folder: Path, blobs: Mapping[str, str]) -> bool:
    """Return whether every file is there and holds what its blob says."""
    try:
        return all(tree.blob_sha((folder / path).read_bytes()) == blob for path, blob in blobs.items())
    except OSError:
        return False


def remove(folder: Path) -> None:
    """Remove a snapshot; it is gone at once, never seen half removed."""
    doomed = folder.with_name(f"{folder.name}.tmp-{secrets.token_hex(4)}")
    with contextlib.suppress(FileNotFoundError):
        folder.rename(doomed)
    shutil.rmtree(doomed, ignore_errors=True)


def sweep(snapshots: Path) -> None:
    """Remove what a crash left half written or half removed."""
    for leftover in snapshots.glob("*.tmp-*"):
        if leftover.is_dir():
            shutil.rmtree(leftover, ignore_errors=True)
        else:
            leftover.unlink(missing_ok=True)


def sync_path(path: Path) -> None:
    """Make a file's content or a folder's names durable."""
    handle = os.open(path, os.O_RDONLY | os.O_NOFOLLOW)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _make_folders(top: Path, plan: tree.Plan) -> list[Path]:
    """Make all folders, parents first, and return them."""
    needed = {""}
    for entry in plan.files:
        needed.update(_parents(entry.path))
    folders = [top / name if name else top for name in sorted(needed)]
    for folder in folders:
        folder.mkdir()
    return folders


def _parents(path: str) -> Iterator[str]:
    while path := path.rpartition("/")[0]:
        yield path


def _link_known(top: Path, plan: tree.Plan, earlier: Earlier | None) -> list[tree.Entry]:
    """Hard-link what the earlier snapshot has and nobody touched, and return the entries that remain to be written."""
    if earlier is None:
        return list(plan.files)
    return [entry for entry in plan.files if not _link(earlier, entry, top)]


def _link(earlier: Earlier, entry: tree.Entry, top: Path) -> bool:
    if earlier.blobs.get(entry.path) != entry.blob:
        return False
    known = f"{earlier.folder}/{entry.path}"
    try:
        found = os.lstat(known)
        untouched = found.st_size == entry.size and found.st_mtime == MTIME_S
        if not untouched or found.st_mode & 0o7777 != _MODES[entry.mode]:
            return False
        os.link(known, f"{top}/{entry.path}", follow_symlinks=False)
    except OSError:  # gone, too many links, another file system: then it is written
        return False
    return True


def _write_file(path: Path, content: bytes, mode: int) -> None:
    handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, mode)
    try:
        rest = memoryview(content)
        while rest:
            rest = rest[os.write(handle, rest) :]
        os.fchmod(handle, mode)  # whatever the umask
        os.utime(handle, (MTIME_S, MTIME_S))
    finally:
        os.close(handle)


def sync_file_system(folder: Path) -> bool:
    """Flush the file system that holds ``folder``; returns False where that cannot be asked for."""
    syncfs = getattr(ctypes.CDLL(None, use_errno=True), "syncfs", None)
    if syncfs is None:
        return False
    handle = os.open(folder, os.O_RDONLY)
    try:
        if syncfs(handle) != 0:
            raise OSError(ctypes.get_errno(), "syncfs failed", str(folder))
    finally:
        os.close(handle)
    return True
