"""The true form of values that the record shows masked or protected: a file each, for the flow and for nobody else.

An event names such a file in its ``…_sealed`` field. The files lie in a directory of their own that only the service's
user may enter, so that records and blobs can be backed up, shipped and read without them. Nothing is encrypted here:
whoever is that user, or root, can read them. All calls block on the disk; the engine makes them in threads.
"""

from __future__ import annotations

import contextlib
import os
import re
import secrets
from collections.abc import Iterable, Iterator
from pathlib import Path

import msgspec

from .. import durable, errors
from .masks import Masks

_ID = re.compile(r"[0-9a-f]{32}")


class _Content(msgspec.Struct, frozen=True):
    """``secrets`` are those in the value: they must be masked again when it is used after a restart."""

    value: msgspec.Raw
    secrets: tuple[str, ...] = ()


class Sealed:
    """The store in ``directory``, which is made if it is not there and closed to everybody else."""

    def __init__(self, directory: Path, masks: Masks) -> None:
        self._directory = directory
        self._masks = masks
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        directory.chmod(0o700)
        durable.names(directory.parent)  # also if it was there: whoever made it may have died before this
        for left in directory.glob(".*.tmp"):  # by a daemon that died before the rename
            left.unlink()

    def put(self, value: bytes, secrets_inside: Iterable[str] = ()) -> str:
        """Keep ``value``, a JSON text, with the secrets in it, and return its id. On return it is durable.

        If we die before the rename nothing was kept, after it all of it; a file that no event names does no harm."""
        content = msgspec.json.encode(_Content(msgspec.Raw(value), tuple(secrets_inside)))
        id_ = secrets.token_hex(16)
        temporary = self._directory / f".{id_}.tmp"
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        try:
            with os.fdopen(descriptor, "wb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            temporary.replace(self._directory / id_)
        except BaseException:
            with contextlib.suppress(FileNotFoundError):
                temporary.unlink()
            raise
        durable.names(self._directory)
        return id_

    def get(self, id_: str) -> bytes:
        """Return a value, having taught ``masks`` the secrets in it; raises ``NotFound``, also for a damaged file."""
        try:
            content = msgspec.json.decode(self._path(id_).read_bytes(), type=_Content)
        except FileNotFoundError:
            raise errors.NotFound(
                f"there is no sealed value {id_}", hint="it went with its execution, or was left out of a backup"
            ) from None
        except msgspec.MsgspecError:
            raise errors.NotFound(f"the sealed value {id_} is damaged", hint="restore it from a backup") from None
        for secret in content.secrets:
            self._masks.learn(secret)
        return bytes(content.value)

    def remove(self, id_: str) -> None:
        """Forget a value; harmless if it is not there."""
        with contextlib.suppress(FileNotFoundError):
            self._path(id_).unlink()

    def files(self) -> Iterator[tuple[str, Path]]:
        """Yield all values, by their ids."""
        for path in self._directory.iterdir():
            if _ID.fullmatch(path.name):
                yield path.name, path

    def left_over(self) -> Iterator[Path]:
        """Yield what somebody has not finished, or never will."""
        yield from self._directory.glob(".*.tmp")

    def discard(self, path: Path, mtime_ns: int) -> bool:
        """Remove a file unless it was written to after ``mtime_ns``; returns whether it is gone."""
        with contextlib.suppress(OSError):
            if path.stat().st_mtime_ns == mtime_ns:
                path.unlink()
                return True
        return False

    def _path(self, id_: str) -> Path:
        if not _ID.fullmatch(id_):  # it came from a line of the journal: never let that choose a path
            raise errors.NotFound(f"{id_[:100]!r} cannot be the id of a sealed value")
        return self._directory / id_
