"""Gives back the files beside the journal that no line of it names any more: blobs and sealed values. Blocking.

What counts is whether a name occurs anywhere in a surviving line, in whatever field and of whatever kind of event. A
file goes when it is older than ``grace_s``, has not been named since it was first found so, ``grace_s`` ago, and nobody
touched it meanwhile: somebody may hold a reference to it that has yet to reach the journal. Finding nothing costs
little: a file stays known to be named as long as the segment that names it is there.
"""

from __future__ import annotations

import re
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Protocol

import msgspec

from . import segments

GRACE_S = 3600.0
#: What nobody has written to for so long, its writer has left behind.
_LEFT_OVER_S = 86400.0
_CHUNK_BYTES = 256 * 1024
_PAUSE_S = 0.001
#: Names of blobs (SHA-256) and of sealed values, as lines have them.
_NAMES = re.compile(rb'"([0-9a-f]{64}|[0-9a-f]{32})"')


class Store(Protocol):
    """A folder of files that lines name."""

    def files(self) -> Iterator[tuple[str, Path]]:
        """Yield the files that lines may name, and by what."""

    def left_over(self) -> Iterator[Path]:
        """Yield files that only their writer knows, if it still lives."""

    def discard(self, path: Path, mtime_ns: int) -> bool:
        """Remove a file unless it was touched after ``mtime_ns``; returns whether it is gone now."""


class _File(msgspec.Struct, frozen=True):
    store: Store
    path: Path
    mtime_ns: int
    size: int


class _Unnamed(msgspec.Struct, frozen=True):
    """No line up to the end of segment ``through`` names it; found so at ``since``."""

    file: _File
    through: int
    since: float


class Swept(msgspec.Struct, frozen=True):
    """What a pass gave back."""

    files: int = 0
    bytes: int = 0


class Sweeper:
    """Sweeps the ``stores`` of the journal in ``records``. One pass at a time: ``find``, then ``sweep``."""

    def __init__(self, records: Path, stores: Sequence[Store], grace_s: float = GRACE_S) -> None:
        self._records = records
        self._stores = stores
        self._grace_s = grace_s
        self._named: dict[str, int] = {}  # → a segment that names it
        self._unnamed: dict[str, _Unnamed] = {}

    def find(self) -> Mapping[str, _File]:
        """Return the files that are old enough. What names them must be durable before ``sweep`` is called."""
        found = {}
        for store in self._stores:
            for name, path in store.files():
                if (file := _old(store, path, self._grace_s)) is not None:
                    found[name] = file
        return found

    def sweep(self, old: Mapping[str, _File]) -> Swept:
        """Remove what nothing names, and was named by nothing before; if we die in between, less is removed."""
        files = segments.files(self._records)
        numbers = {number for number, _ in files}
        self._named = {name: at for name, at in self._named.items() if at in numbers and name in old}
        candidates = {name: file for name, file in old.items() if name not in self._named}
        self._read(files, candidates)
        through = max(numbers, default=1) - 1  # the last one may grow
        now = time.monotonic()
        removed, before, self._unnamed = [], self._unnamed, {}
        for name, file in candidates.items():
            if name in self._named:
                continue
            known = before.get(name)
            if known is None or known.file.mtime_ns != file.mtime_ns:
                self._unnamed[name] = _Unnamed(file, through, now)
            elif now - known.since >= self._grace_s and file.store.discard(file.path, file.mtime_ns):
                removed.append(file)
            else:
                self._unnamed[name] = _Unnamed(file, through, known.since)
        removed += self._remove_left_over()
        return Swept(len(removed), sum(file.size for file in removed))

    def _read(self, files: list[tuple[int, Path]], candidates: Mapping[str, _File]) -> None:
        """Look for the names of ``candidates``, in the newest segments first."""
        left = {name: self._unnamed[name].through if name in self._unnamed else 0 for name in candidates}
        for number, path in reversed(files):
            wanted = {name for name, through in left.items() if number > through}
            if not wanted:
                return
            for name in _names(path, wanted):
                self._named[name] = number
                del left[name]

    def _remove_left_over(self) -> list[_File]:
        found = [_old(store, path, _LEFT_OVER_S) for store in self._stores for path in store.left_over()]
        return [file for file in found if file is not None and file.store.discard(file.path, file.mtime_ns)]


def _old(store: Store, path: Path, age_s: float) -> _File | None:
    try:
        found = path.stat()
    except OSError:  # gone meanwhile
        return None
    young = time.time() - found.st_mtime < age_s
    return None if young else _File(store, path, found.st_mtime_ns, found.st_size)


def _names(path: Path, wanted: set[str]) -> set[str]:
    """Return which of ``wanted`` stand in a segment."""
    spelled = {name.encode() for name in wanted}
    found: set[bytes] = set()
    with path.open("rb") as file:
        while spelled and (lines := file.readlines(_CHUNK_BYTES)):
            here = spelled.intersection(_NAMES.findall(b"".join(lines)))
            found |= here
            spelled -= here
            time.sleep(_PAUSE_S)
    return {name.decode() for name in found}
