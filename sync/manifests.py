"""Manifests on disk, and the published catalogue that everybody else asks.

Owns: ``snapshots/<sha>.json`` and ``Published``, the ``ports.Flows`` that the engine and the daemon see. Refuses: a
manifest that is not what its digest says. ``Published`` lives on the event loop; reading and writing files blocks.
"""

from __future__ import annotations

import collections
import contextlib
import functools
import hashlib
import secrets
from collections.abc import Callable
from pathlib import Path

import msgspec

from ..engine import errors, model, moments
from . import catalogue, git, snapshot

#: Executions in flight come from the last few commits; older manifests are read again when asked for.
_CATALOGUES_KEPT = 8
_LISTED_MAX = 20  # commits to choose from


class _Needs(msgspec.Struct):
    needs: tuple[str, ...] = ()
    venvs: tuple[str, ...] = ()


def path_of(snapshots: Path, commit: str) -> Path:
    """Return where the manifest of ``commit`` lies, or would."""
    return snapshots / f"{commit}.json"


def write(snapshots: Path, manifest: catalogue.Manifest) -> str:
    """Write ``manifest`` durably and return its SHA-256; if we die before, the older one is still there."""
    text = msgspec.json.encode(manifest)
    final = path_of(snapshots, manifest.catalogue.commit)
    beside = final.with_name(f"{final.name}.tmp-{secrets.token_hex(4)}")
    try:
        beside.write_bytes(text)
        snapshot.sync_path(beside)
        beside.replace(final)
    except OSError:
        beside.unlink(missing_ok=True)
        raise
    snapshot.sync_path(snapshots)
    return hashlib.sha256(text).hexdigest()


def read(snapshots: Path, commit: str, digest: str = "") -> catalogue.Manifest | None:
    """Return the manifest of ``commit``, or None if it is not there or not what it was."""
    try:
        text = path_of(snapshots, commit).read_bytes()
        if digest and hashlib.sha256(text).hexdigest() != digest:
            return None
        return msgspec.json.decode(text, type=catalogue.Manifest)
    except (OSError, msgspec.MsgspecError):
        return None


def needs(snapshots: Path, commit: str) -> tuple[str, ...]:
    """Return the other commits that the flows published with ``commit`` run on."""
    return _needs(path_of(snapshots, commit)).needs


def venvs(snapshots: Path) -> set[str]:
    """Return the environments that the flows of any manifest run in."""
    return {venv for path in snapshots.glob("*.json") for venv in _needs(path).venvs}


def _needs(path: Path) -> _Needs:
    try:
        return msgspec.json.decode(path.read_bytes(), type=_Needs)
    except (OSError, msgspec.MsgspecError):
        return _Needs()


class Published:
    """What is published: the current catalogue, and those of earlier commits while something runs on them."""

    def __init__(self, snapshots: Path) -> None:
        self._snapshots = snapshots
        self._folder = functools.lru_cache(_CATALOGUES_KEPT)(
            lambda commit: snapshot.folder_of(snapshots, git.checked_sha(commit))
        )
        self._current = model.Catalogue()
        self._recent: collections.OrderedDict[str, model.Catalogue] = collections.OrderedDict()
        self.watchers: list[Callable[[], None]] = []  # told when another catalogue is published

    def current(self) -> model.Catalogue:
        """Return what is published now; an empty catalogue before the first commit."""
        return self._current

    def find(self, name: str, commit: str = "") -> model.Flow:
        """Return the flow as published with ``commit`` (else as published now); raises ``NotFound``."""
        then = self.of(commit) if commit else None
        if then is not None:
            try:
                return then.find(name)
            except errors.NotFound:
                pass  # newer than that commit
        return self._current.find(name)

    def snapshot(self, commit: str) -> Path:
        """Return the folder with the files of a published commit; raises ``NotFound`` if it is not kept any more."""
        folder = self._folder(commit)
        if not folder.is_dir():
            raise errors.NotFound(
                f"the files of commit {commit} are not here any more", hint="run the flow as published now"
            )
        return folder

    def kept(self) -> list[model.Kept]:
        """Return the latest commits whose manifests are here, the newest first. Blocking.

        One that is cleaned away this moment is left out, or cannot be run when somebody tries."""
        found = []
        for path in self._snapshots.glob("*.json"):
            with contextlib.suppress(OSError):
                found.append((path.stat().st_mtime, path.stem))
        return [
            model.Kept(commit, moments.timestamp(at_s)) for at_s, commit in sorted(found, reverse=True)[:_LISTED_MAX]
        ]

    def swap(self, current: model.Catalogue) -> None:
        """Make ``current`` what everybody sees from now on."""
        self._remember(self._current)
        self._current = current
        for told in self.watchers:
            told()

    def has(self, commit: str) -> bool:
        """Return whether the files of a commit are here."""
        return git.is_sha(commit) and snapshot.folder_of(self._snapshots, commit).is_dir()

    def of(self, commit: str) -> model.Catalogue | None:
        """Return the catalogue that was published with ``commit``, None if that is forgotten or was never."""
        if commit == self._current.commit:
            return self._current
        if commit not in self._recent:
            manifest = read(self._snapshots, commit) if git.is_sha(commit) else None
            if manifest is None:
                return None
            self._remember(manifest.catalogue)
        self._recent.move_to_end(commit)
        return self._recent[commit]

    def _remember(self, old: model.Catalogue) -> None:
        if old.commit:
            self._recent[old.commit] = old
            self._recent.move_to_end(old.commit)
        while len(self._recent) > _CATALOGUES_KEPT:
            self._recent.popitem(last=False)
