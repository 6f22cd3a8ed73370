"""The directory of developer mode as something to write to: one file at a time, whole or not at all.

Owns: the steps of one change (a file beside under the name ``SAVING``, made durable, renamed into place). If we die
before the renaming there is only that file, which no commit takes up and the next change or start removes; after it
the change is complete. Refuses: leaving the directory, following links on the way, and replacing what its author has
not seen, but for what an editor saves in the very moment between looking and renaming. Used by ``candidate`` from a
worker thread, never beside a sync pass.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import os
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import assert_never

from ..engine import errors
from . import check, edits, tree

#: A file on its way, at the top of the directory; there is never more than one.
SAVING = ".headrace-saving~"
_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_NEW = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_RENAME_NOREPLACE = 1
_NOT_OURS = (errno.EACCES, errno.EPERM, errno.EROFS)


class Folder:
    """The flows of a directory, ``below`` its top."""

    def __init__(self, directory: Path, below: str) -> None:
        self._directory = directory
        self._below = below

    def sweep(self) -> None:
        """Remove what a crash left half done."""
        with contextlib.suppress(OSError):
            (self._directory / SAVING).unlink(missing_ok=True)

    def apply(self, edit: edits.Edit, note: edits.Note) -> str:
        """Change the file and return an empty text: there is no commit yet. On return the change is durable.

        Raises ``NotAllowed``, ``Conflict``, ``NotFound``, ``SourceUnavailable``."""
        try:
            match edit:
                case edits.Save():
                    self._save(edit, note)
                case edits.Delete():
                    self._delete(edit, note)
                case edits.Rename():
                    self._rename(edit, note)
                case _:
                    assert_never(edit)
        except OSError as error:
            raise self._failed(error) from error
        return ""

    def _save(self, edit: edits.Save, note: edits.Note) -> None:
        with self._parent(edit.path, make=True) as (parent, name):
            there = _read(parent, name)
            if there == edit.content:
                return
            edits.check_base(edit, "" if there is None else tree.blob_sha(there), note, "the directory", there)
            if there is None:
                _check_case(parent, name)
            with self._saved(edit.content, parent, name if there is not None else "") as top:
                if there is None:
                    _rename_new(top, SAVING, parent, name)
                else:
                    os.rename(SAVING, name, src_dir_fd=top, dst_dir_fd=parent)
            os.fsync(parent)

    def _delete(self, edit: edits.Delete, note: edits.Note) -> None:
        with self._known(edit, note) as (parent, name):
            os.unlink(name, dir_fd=parent)
            os.fsync(parent)

    def _rename(self, edit: edits.Rename, note: edits.Note) -> None:
        with self._known(edit, note) as (parent, name), self._parent(edit.new_path, make=True) as (target, new_name):
            stays = edit.path.rpartition("/")[0] == edit.new_path.rpartition("/")[0]
            _check_case(target, new_name, leaving=name if stays else "")
            _rename_new(parent, name, target, new_name)
            os.fsync(target)
            os.fsync(parent)

    @contextlib.contextmanager
    def _known(self, edit: edits.Delete | edits.Rename, note: edits.Note) -> Iterator[tuple[int, str]]:
        """Give the file that is there and as the author has seen it."""
        with self._parent(edit.path, make=False) as (parent, name):
            there = _read(parent, name)
            if there is None:
                raise edits.missing(check.flow_name(edit.path))
            edits.check_base(edit, tree.blob_sha(there), note, "the directory", there)
            yield parent, name

    @contextlib.contextmanager
    def _parent(self, path: str, *, make: bool) -> Iterator[tuple[int, str]]:
        """Open the folder that ``path`` lies in, step by step and never through a link; give it and the file's name."""
        *folders, name = f"{self._below}/{path}".lstrip("/").split("/")
        handle = os.open(self._directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            for folder in folders:
                inner = _open_folder(handle, folder, path, make=make)
                os.close(handle)
                handle = inner
            yield handle, name
        finally:
            os.close(handle)

    @contextlib.contextmanager
    def _saved(self, content: bytes, parent: int, like: str) -> Iterator[int]:
        """Have ``content`` in the file ``SAVING`` of the top, durably, with the rights of the file ``like``."""
        top = os.open(self._directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(SAVING, dir_fd=top)
            with open(os.open(SAVING, _NEW, 0o666, dir_fd=top), "wb") as file:  # noqa: PTH123 - a handle, not a path
                file.write(content)
                file.flush()
                if like:
                    about = os.stat(like, dir_fd=parent, follow_symlinks=False)
                    os.fchmod(file.fileno(), stat.S_IMODE(about.st_mode))
                    with contextlib.suppress(PermissionError):
                        os.fchown(file.fileno(), about.st_uid, about.st_gid)
                os.fsync(file.fileno())
            yield top
        finally:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(SAVING, dir_fd=top)
            os.close(top)

    def _failed(self, error: OSError) -> errors.HeadraceError:
        reason = error.strerror or type(error).__name__
        if error.errno in _NOT_OURS:
            return errors.NotAllowed(
                f"the directory {self._directory} cannot be written to: {reason}",
                hint="give the daemon's user the right to, or set source.write_back = false",
            )
        if error.errno == errno.EEXIST:
            return errors.Conflict("something of that name has just appeared there", hint="look at it and try again")
        return errors.SourceUnavailable(
            f"the directory {self._directory} could not be changed: {reason}", hint="nothing was changed; try again"
        )


def _open_folder(handle: int, folder: str, path: str, *, make: bool) -> int:
    """Open the folder called ``folder`` inside of another, making it if that is wanted."""
    if make and not _exists(handle, folder):
        _check_case(handle, folder)
        with contextlib.suppress(FileExistsError):
            os.mkdir(folder, dir_fd=handle)
            os.fsync(handle)
    try:
        return os.open(folder, _FOLDER, dir_fd=handle)
    except FileNotFoundError:
        raise edits.missing(check.flow_name(path)) from None
    except OSError as error:
        if error.errno not in (errno.ENOTDIR, errno.ELOOP):
            raise
        raise errors.Conflict(
            f"{folder!r} on the way to {path!r} is no folder: a link, or a file", hint="choose another name"
        ) from None


def _exists(handle: int, name: str) -> bool:
    try:
        os.stat(name, dir_fd=handle, follow_symlinks=False)
    except FileNotFoundError:
        return False
    return True


def _read(handle: int, name: str) -> bytes | None:
    """Return what the file holds, None if there is none; raises ``Conflict`` for a link or anything else."""
    try:
        kind = os.stat(name, dir_fd=handle, follow_symlinks=False).st_mode
    except FileNotFoundError:
        return None
    if not stat.S_ISREG(kind):
        raise errors.Conflict(f"{name!r} is no plain file there: a link, or a folder", hint="choose another name")
    with open(os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=handle), "rb") as file:  # noqa: PTH123
        return file.read()


def _check_case(handle: int, name: str, *, leaving: str = "") -> None:
    """Refuse a name that is another one's on some file system: the commit of this directory would be refused."""
    for other in os.listdir(handle):
        if other not in (name, leaving) and tree.folded(other) == tree.folded(name):
            raise errors.Conflict(f"there is {other!r} already, which differs only in case", hint="choose another name")


def _rename_new(folder: int, name: str, new_folder: int, new_name: str) -> None:
    """Rename a file to where nothing is; raises ``FileExistsError`` rather than replace what has appeared there."""
    rename = getattr(ctypes.CDLL(None, use_errno=True), "renameat2", None)
    if rename is not None:
        if rename(folder, os.fsencode(name), new_folder, os.fsencode(new_name), _RENAME_NOREPLACE) == 0:
            return
        number = ctypes.get_errno()
        if number not in (errno.EINVAL, errno.ENOSYS):  # this file system or kernel does not know how
            raise OSError(number, os.strerror(number), new_name)
    os.link(name, new_name, src_dir_fd=folder, dst_dir_fd=new_folder, follow_symlinks=False)
    os.unlink(name, dir_fd=folder)
