"""A backup of a state directory, also while its daemon works there: what a crash at that moment would have left.

The journal comes first, up to where it is at that moment; it only grows, and what it names was on disk before it. Then
comes what those records name: blobs, sealed values, and the files of the commits that are published or that something
unfinished is pinned to. Retention may take some of that away meanwhile: then it begins anew. What can be made or
fetched again is left out: index, mirror, environments. A damaged journal is not backed up: earlier backups are worth
more.

Blocking, and beside the daemon: nothing of it is asked. ``restoration`` is the way back.
"""

from __future__ import annotations

import datetime
import io
import re
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec

from .. import __version__
from ..engine import errors
from ..engine.records import head, recovery, segments
from ..sync import manifests
from . import audit, depots, unfinished

#: Names of blobs and of sealed values, as lines have them.
_BLOB = re.compile(rb'"sha256":"([0-9a-f]{64})","bytes":')
_SEALED = re.compile(rb'_sealed":"([0-9a-f]{32})"')
_PERHAPS_SEALED = re.compile(rb':"([0-9a-f]{32})"')  # of several, by keys that are named as somebody liked
_TRIES = 5
_PAUSE_S = 0.5
#: What is copied whole beside the journal and what it names.
_WHOLE = ("tokens.json",)

Tell = Callable[[str], None]


class Taken(msgspec.Struct, frozen=True, kw_only=True):
    """What a backup has, as of ``at``. ``missing``: files that records name and that were not there."""

    at: str
    records: int
    files: int
    bytes: int
    missing: tuple[str, ...]

    @classmethod
    def of(cls, manifest: depots.Manifest) -> Taken:
        """Return the short form of its manifest."""
        size = sum(entry.size for entry in manifest.files)
        return cls(
            at=manifest.at, records=manifest.seq, files=len(manifest.files), bytes=size, missing=manifest.missing
        )


class _Moved(Exception):
    """Something was taken away while it was copied."""


def take(state: Path, depot: depots.Depot, tell: Tell = lambda what: None) -> depots.Manifest:
    """Put a backup of ``state`` into ``depot``; on return it is complete and durable.

    Raises ``JournalCorrupt`` and ``HistoryLost`` for records that are not sound, ``Conflict`` if they did not hold
    still for long enough."""
    if not (state / "records").is_dir():
        raise errors.NotFound(f"there are no records in {state}", hint="name the state directory with --state")
    try:
        for attempt in range(_TRIES):
            depot.begin()
            try:
                return _Taking(state, depot, tell).done()
            except (_Moved, depots.Shrunk):
                time.sleep(_PAUSE_S * (attempt + 1))
        raise errors.Conflict("records were taken away again and again while they were copied", hint="try once more")
    finally:
        depot.close()


class _Taking:
    def __init__(self, state: Path, depot: depots.Depot, tell: Tell) -> None:
        self._state = state
        self._depot = depot
        self._tell = tell
        self._files: list[depots.Entry] = []
        self._missing: list[str] = []
        self._blobs: set[str] = set()
        self._sealed: set[str] = set()

    def done(self) -> depots.Manifest:
        """Copy everything, in the order that makes it fit together."""
        at = datetime.datetime.now(datetime.UTC).isoformat(timespec="milliseconds")
        self._tell("reading every record")
        mark = head.read(self._state / head.FILE_NAME)  # first: the journal goes on
        self._add_small(head.FILE_NAME)
        left = unfinished.Unfinished()
        reader = recovery.Reader(left.visit)
        files = segments.files(self._state / "records")
        try:
            reader.read(files)
        except FileNotFoundError as error:
            raise _Moved from error
        except errors.JournalCorrupt as error:
            if [path for _, path in files if not path.exists()]:
                raise _Moved from error
            raise
        found = reader.found
        if mark is not None:
            head.check(self._state / "records", found.instance, found.position, mark)
        self._tell("copying")
        for number, path in segments.contiguous(files)[1]:
            self._add_segment(path, found.position.offset if number == found.position.segment else None)
        for name in sorted(self._blobs):
            self._add_named(f"blobs/{name[:2]}/{name[2:4]}/{name}")
        for name in sorted(self._sealed):
            self._add_named(f"sealed/{name}")
        for commit in sorted(self._commits(left)):
            self._add_commit(commit)
        for name in _WHOLE:
            self._add_small(name)
        self._add_small(audit.FILE, whole_lines=True)
        manifest = depots.Manifest(
            version=__version__,
            at=at,
            instance=found.instance,
            seq=found.position.seq,
            files=tuple(self._files),
            missing=tuple(self._missing),
        )
        self._depot.finish(manifest)
        return manifest

    def _add_small(self, name: str, *, whole_lines: bool = False) -> None:
        """Copy a file that may change, as it is now, if there is one."""
        path = self._state / name
        try:
            text, mode = path.read_bytes(), path.stat().st_mode & 0o777
        except FileNotFoundError:
            return
        if whole_lines:
            text = text[: text.rfind(b"\n") + 1]
        self._files.append(self._depot.add(name, io.BytesIO(text), len(text), mode, 0))

    def _add_segment(self, path: Path, size: int | None) -> None:
        """Copy a segment, of the last one what was read of it, and note what its lines name."""
        name = f"records/{path.name}"
        try:
            with path.open("rb") as file:
                self._note_names(file, size)
                length = path.stat().st_size if size is None else size
                known = self._depot.known(name, length) if size is None else None
                file.seek(0)
                mode = 0o400 if size is None else 0o600
                self._files.append(known or self._depot.add(name, file, length, mode, 0))
        except FileNotFoundError as error:
            raise _Moved from error

    def _note_names(self, file: io.BufferedReader, size: int | None) -> None:
        read = 0
        for line in file:
            read += len(line)
            if size is not None and read > size:
                break
            self._blobs.update(name.decode() for name in _BLOB.findall(line))
            self._sealed.update(name.decode() for name in _SEALED.findall(line))
            if b'_sealed":{' in line:
                perhaps = {name.decode() for name in _PERHAPS_SEALED.findall(line)}
                self._sealed.update(name for name in perhaps if (self._state / "sealed" / name).exists())

    def _add_named(self, name: str) -> None:
        """Copy a file that never changes and that records name."""
        path = self._state / name
        try:
            with path.open("rb") as file:
                about = path.stat()
                known = self._depot.known(name, about.st_size)
                entry = known or self._depot.add(name, file, about.st_size, about.st_mode & 0o777, 0)
        except FileNotFoundError as error:
            self._see_whether_gone(error)
            self._missing.append(name)
            return
        if name.startswith("blobs/") and entry.sha256 != path.name:
            self._missing.append(name)  # damaged: as good as not there
        self._files.append(entry)

    def _see_whether_gone(self, error: Exception) -> None:
        """Raise ``_Moved`` if records are gone that were copied: what they named may be, too."""
        for entry in self._files:
            if entry.path.startswith("records/") and not (self._state / entry.path).exists():
                raise _Moved from error

    def _commits(self, left: unfinished.Unfinished) -> set[str]:
        """Return the commits whose files a restored daemon needs."""
        commits = {state.commit for state in left.executions.values() if state.commit}
        for published in left.published.values():
            commits.add(published.commit)
        for folder in self._snapshot_folders():
            for commit in list(commits):
                commits.update(manifests.needs(folder, commit))
        return commits

    def _snapshot_folders(self) -> list[Path]:
        return [self._state / "snapshots", *sorted(self._state.glob("sources/*/snapshots"))]

    def _add_commit(self, commit: str) -> None:
        found = False
        for folder in self._snapshot_folders():
            if not (folder / commit).is_dir():
                continue
            found = True
            try:
                for path in [manifests.path_of(folder, commit), *_files_below(folder / commit)]:
                    with path.open("rb") as file:
                        about = path.stat()
                        name = str(path.relative_to(self._state))
                        size, mtime_s = about.st_size, int(about.st_mtime)
                        known = self._depot.known(name, size) if path.suffix != ".json" else None
                        entry = known or self._depot.add(name, file, size, about.st_mode & 0o777, mtime_s)
                        self._files.append(entry)
            except FileNotFoundError as error:
                raise _Moved from error
        if not found:
            self._missing.append(f"snapshots/{commit}")


def _files_below(folder: Path) -> Iterator[Path]:
    return (path for path in sorted(folder.rglob("*")) if path.is_file() and not path.is_symlink())
