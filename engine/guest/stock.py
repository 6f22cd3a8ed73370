"""What a node keeps for its flow processes: folders by their digest, fetched once and never changed.

Several workers of a node share it; who comes first fetches, the others wait. What nobody used for long is removed.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import io
import os
import shutil
import sys
import tarfile
import time
from collections.abc import Callable, Iterator

from . import parcels

#: More folders than this, and those go that nobody used for an hour.
FOLDERS_MAX = 40
_UNUSED_S = 3600.0
_LOOK_AGAIN_S = 0.1


class Spoilt(Exception):
    """What came is not what was asked for."""


def root(wanted: str) -> str:
    """Return where the stock of this user lies, made if need be; raises ``OSError`` where it cannot be trusted."""
    path = wanted or f"/var/tmp/headrace-{os.getuid()}"  # noqa: S108 - checked below; survives a reboot
    os.makedirs(path, 0o700, exist_ok=True)
    found = os.stat(path, follow_symlinks=False)
    if found.st_uid != os.getuid() or found.st_mode & 0o022:
        raise PermissionError(f"{path} belongs to somebody else, or others may write there")
    return path


class Stock:
    """The folders below one."""

    def __init__(self, path: str) -> None:
        self.path = path

    def where(self, digest: str) -> str:
        """Return where the folder with that digest lies, or would."""
        return os.path.join(self.path, digest)

    def get(self, digest: str, fetch: Callable[[], Iterator[bytes]], meanwhile: Callable[[], None]) -> str:
        """Return a folder, fetched if it is not here; ``meanwhile`` is called while somebody else fetches it.

        Raises ``Spoilt`` if something else came."""
        final = self.where(digest)
        if self._claim(final):
            return final
        with self._turn(digest, meanwhile):
            if not self._claim(final):
                self._fetch(digest, fetch, final)
        self._tidy()
        return final

    def _claim(self, path: str) -> bool:
        try:
            os.utime(path)
        except FileNotFoundError:
            return False
        return True

    @contextlib.contextmanager
    def _turn(self, digest: str, meanwhile: Callable[[], None]) -> Iterator[None]:
        descriptor = os.open(self.where(digest) + ".lock", os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
        try:
            while True:
                try:
                    fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    break
                except BlockingIOError:
                    meanwhile()
                    time.sleep(_LOOK_AGAIN_S)
            yield
        finally:
            os.close(descriptor)

    def _fetch(self, digest: str, fetch: Callable[[], Iterator[bytes]], final: str) -> None:
        beside = f"{final}.tmp-{os.getpid()}"
        shutil.rmtree(beside, ignore_errors=True)
        stream = _Hashed(fetch())
        try:
            parcels.unpack(io.BufferedReader(stream, parcels.CHUNK_BYTES), beside)
            if stream.digest != digest:
                raise Spoilt(f"asked for {digest}, and {stream.digest} came")
            _settle_in(beside)
            os.rename(beside, final)
        except tarfile.TarError as error:
            raise Spoilt(f"what came for {digest} cannot be unpacked: {error}") from None
        finally:
            shutil.rmtree(beside, ignore_errors=True)

    def _tidy(self) -> None:
        """Remove what nobody used lately, if there is much."""
        found = []
        for entry in os.scandir(self.path):
            with contextlib.suppress(FileNotFoundError):
                if entry.is_dir(follow_symlinks=False) and len(entry.name) == 64:
                    found.append((entry.stat().st_mtime, entry.path))
        oldest = time.time() - _UNUSED_S
        for used_at, path in sorted(found)[:-FOLDERS_MAX]:
            if used_at < oldest:
                with contextlib.suppress(OSError):
                    os.rename(path, f"{path}.tmp-{os.getpid()}")
                    shutil.rmtree(f"{path}.tmp-{os.getpid()}", ignore_errors=True)


class _Hashed(io.RawIOBase):
    """A stream of chunks as a file, and its digest."""

    def __init__(self, chunks: Iterator[bytes]) -> None:
        self._chunks = chunks
        self._rest = b""
        self._hash = hashlib.sha256()

    @property
    def digest(self) -> str:
        """Of what was read so far."""
        return self._hash.hexdigest()

    def readable(self) -> bool:
        return True

    def readinto(self, into: memoryview) -> int:  # type: ignore[override]
        if not self._rest:
            self._rest = next(self._chunks, b"")
        taken, self._rest = self._rest[: len(into)], self._rest[len(into) :]
        into[: len(taken)] = taken
        self._hash.update(taken)
        return len(taken)


def python_of(environment: str) -> str:
    """Return the interpreter of an environment's folder."""
    return os.path.join(environment, "venv", "bin", "python")


def _settle_in(folder: str) -> None:
    """Let an environment that came from elsewhere use the Python of this machine."""
    told = os.path.join(folder, "venv", "pyvenv.cfg")
    if not os.path.isfile(told):
        return
    base = os.path.realpath(getattr(sys, "_base_executable", sys.executable))
    with open(told, encoding="utf-8") as file:
        lines = [line for line in file if line.partition("=")[0].strip() not in ("home", "executable")]
    with open(told, "w", encoding="utf-8") as file:
        file.writelines([f"home = {os.path.dirname(base)}\n", *lines])
    programs = os.path.join(folder, "venv", "bin")
    for name in os.listdir(programs):
        path = os.path.join(programs, name)
        if name.startswith("python") and os.path.islink(path):
            os.unlink(path)
            os.symlink(base if name == "python" else "python", path)
