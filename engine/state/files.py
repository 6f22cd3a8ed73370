"""Files that flows keep: a folder of the state directory, by relative path, each replaced whole or not at all."""

from __future__ import annotations

import contextlib
import os
import secrets
from pathlib import Path, PurePosixPath

from .. import errors, ports

_PATH_CHARACTERS_MAX = 1024


class Files:
    """The store in ``directory``; see ``ports.Files``."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory

    def write(self, path: str) -> ports.FileWriter:
        """Begin to write the file ``path``; raises ``InvalidRequest`` for a path that leaves the store."""
        return Writer(self._resolved(path))

    def read(self, path: str) -> bytes:
        """Return the content; raises ``NotFound``."""
        try:
            return self._resolved(path).read_bytes()
        except (FileNotFoundError, IsADirectoryError, NotADirectoryError):
            raise errors.NotFound(f"there is no file {path!r}") from None

    def _resolved(self, path: str) -> Path:
        parts = PurePosixPath(path).parts
        if not parts or ".." in parts or path.startswith("/") or "\0" in path or len(path) > _PATH_CHARACTERS_MAX:
            raise errors.InvalidRequest(
                f"{path[:100]!r} is not a path in the file store", hint="use a relative path without .."
            )
        return self._directory.joinpath(*parts)


class Writer:
    """A file on its way into the store; see ``ports.FileWriter``."""

    def __init__(self, target: Path) -> None:
        self._target = target
        target.parent.mkdir(parents=True, exist_ok=True)
        self._temporary = target.with_name(f".{secrets.token_hex(8)}.tmp")
        self._file = self._temporary.open("xb")

    def write(self, chunk: bytes) -> None:
        """Add bytes."""
        self._file.write(chunk)

    def commit(self) -> None:
        """Make it durable under its name.

        If we die before the rename the old file stays and a temporary one is left; after it the new one is there.
        """
        self._file.flush()
        os.fsync(self._file.fileno())
        self._file.close()
        self._temporary.replace(self._target)
        folder = os.open(self._target.parent, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)

    def abort(self) -> None:
        """Forget it."""
        self._file.close()
        with contextlib.suppress(FileNotFoundError):
            self._temporary.unlink()
