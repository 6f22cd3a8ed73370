"""The history of a flow's file: every version of it, its text at a commit, and what two versions differ in.

Owns: reading all that from the mirror, with renames followed as git finds them. Refuses: any path but the one asked
for and those it had before, and whatever is no commit of the mirror. Reads only, so it may run beside a sync pass; what
a pass replaces meanwhile is told as ``SourceUnavailable``. Called from worker threads: everything here blocks.
"""

from __future__ import annotations

import itertools
import re
import secrets
from typing import Literal

import msgspec

from ..engine import errors
from . import check, git, tree, union
from .mirror import Mirror

#: Nobody leafs through more; git is asked for no more, so a page costs what lies above it.
VERSIONS_MAX = 10_000
_CHANGES_MAX = 50  # of a commit; nobody reads more in a list
_DIFF_BYTES_MAX = 2 * 1024 * 1024
_ABBREVIATED = re.compile(r"[0-9a-f]{7,64}")
_CHANGES: dict[str, Literal["added", "changed", "renamed", "deleted"]] = {
    "A": "added",
    "C": "added",
    "R": "renamed",
    "D": "deleted",
}


class Version(msgspec.Struct, frozen=True, kw_only=True):
    """One commit that changed a flow. ``name`` is what the flow was called from then on, ``before`` until then."""

    commit: str
    change: Literal["added", "changed", "renamed", "deleted"]
    name: str
    before: str = ""
    blob: str = ""  # of its text, as in the flow's ETag; empty where it was deleted
    author: str
    at: str  # RFC 3339, by the author's clock
    message: str


class Change(msgspec.Struct, frozen=True, kw_only=True):
    """A file that a commit changed: its path below the folder, and the one it had before if it was renamed."""

    change: Literal["added", "changed", "renamed", "deleted"]
    path: str
    before: str = ""


class Commit(msgspec.Struct, frozen=True, kw_only=True):
    """One commit of the source, and the first of the files it changed compared with its first parent."""

    commit: str
    author: str
    at: str  # RFC 3339, by the author's clock
    message: str
    changes: list[Change]
    left_out: int = 0  # files


class Versions:
    """What one source's mirror knows about former versions."""

    def __init__(self, mirror: Mirror, prefix: str = "") -> None:
        """``prefix`` is what the names of flows begin with among all sources."""
        self._mirror = mirror
        self._prefix = prefix

    def of(self, path: str, tip: str, limit: int) -> list[Version]:
        """Return the versions of the file at ``path`` below the folder, newest first, ``limit`` at most.

        ``tip`` is the commit to begin at. A path that never was there has none."""
        if not self._prefix:
            return self._of(path, tip, limit)
        return [
            msgspec.structs.replace(
                one,
                name=union.prefixed(self._prefix, one.name),
                before=one.before and union.prefixed(self._prefix, one.before),
            )
            for one in self._of(path, tip, limit)
        ]

    def _of(self, path: str, tip: str, limit: int) -> list[Version]:
        words = self._run(
            *("log", "--follow", "--find-renames", "--raw", "--no-abbrev", "-z", f"--max-count={limit}"),
            *("--format=%H%x00%an%x00%aI%x00%B%x00", git.checked_sha(tip), "--", self._full(path)),
        )
        return self._parsed(words)

    def commits(self, tip: str, limit: int) -> list[Commit]:
        """Return the latest commits from ``tip`` on, newest first, that changed something below the folder."""
        mark = secrets.token_hex(16)  # no message has it
        folder = ("--", self._mirror.folder) if self._mirror.folder else ()
        words = self._run(
            *("log", "--first-parent", "--diff-merges=first-parent", "--find-renames", "--name-status", "-z"),
            *(f"--max-count={limit}", f"--format={mark}%H%x00%an%x00%aI%x00%B%x00", git.checked_sha(tip), *folder),
        )
        return [self._commit(part) for part in words.decode("utf-8", "replace").split(mark)[1:]]

    def _commit(self, told: str) -> Commit:
        commit, author, at, message, *told_of = told.split("\0")
        words = list(itertools.dropwhile(lambda word: not word.strip("\n"), told_of))
        words[:1] = [word.lstrip("\n") for word in words[:1]]
        changes = []
        while len(words) > 1:
            letter = words.pop(0)[0]
            paths = [words.pop(0).removeprefix(self._full("")) for _ in range(2 if letter in "RC" else 1) if words]
            before = paths[0] if letter == "R" else ""
            changes.append(Change(change=_CHANGES.get(letter, "changed"), path=paths[-1], before=before))
        return Commit(
            commit=commit,
            author=author,
            at=at,
            message=message.strip(),
            changes=changes[:_CHANGES_MAX],
            left_out=max(0, len(changes) - _CHANGES_MAX),
        )

    def commit(self, given: str, tip: str) -> str:
        """Return the commit in the history of ``tip`` that ``given`` names, at least 7 digits; raises ``NotFound``."""
        found = ""
        if _ABBREVIATED.fullmatch(given):
            found = self._mirror.value(f"{given}^{{commit}}")
        if not found or not self._mirror.is_ancestor(found, tip):
            raise errors.NotFound(
                f"there is no commit {given[:64]!a} in what is published", hint="`headrace flow history` lists them"
            )
        return found

    def text(self, path: str, commit: str, tip: str) -> str:
        """Return the file as it was in ``commit``, also under an earlier path; raises ``NotFound``."""
        return self._read(self._spec(path, commit, tip))

    def diff(self, path: str, old: str, new: str, tip: str) -> str:
        """Return what changed from one commit to another as a unified diff, empty where nothing did."""
        specs = [self._spec(path, commit, tip) for commit in (old, new)]
        words = self._run("diff", "--no-ext-diff", "--no-textconv", "--no-color", "--text", *specs)
        if len(words) > _DIFF_BYTES_MAX:
            raise errors.TooLarge(f"the difference is {len(words):,} bytes, more than anybody reads")
        body = words.decode("utf-8", "replace")
        at = body.find("\n@@ ")
        names = [spec.partition(":")[2].removeprefix(self._full("")) for spec in specs]
        return f"--- {names[0]}\t{old[:12]}\n+++ {names[1]}\t{new[:12]}\n{body[at + 1 :]}" if at >= 0 else ""

    def since(self, path: str, blob: str, tip: str) -> str:
        """Return what became of the flow since its text was ``blob``; nothing if it never was."""
        for version in self._of(path, tip, VERSIONS_MAX):
            if version.blob == blob:
                return self.diff(path, version.commit, tip, tip)
        return ""

    def _spec(self, path: str, commit: str, tip: str) -> str:
        """Return what git calls the file in ``commit``: by the path it had then."""
        earlier = [check.flow_name(path)]
        for version in self._of(path, tip, VERSIONS_MAX):
            if version.commit == commit:
                earlier = [version.name]
                break
            earlier += [name for name in (version.name, version.before) if name and name not in earlier]
        for name in earlier:
            spec = f"{commit}:{self._full(f'{name}.py')}"
            if self._mirror.value(spec):
                return spec
        raise errors.NotFound(f"the flow {check.flow_name(path)!r} is not in commit {commit[:12]}")

    def _read(self, spec: str) -> str:
        size = int(self._run("cat-file", "-s", spec))
        if size > tree.PYTHON_BYTES_MAX:
            raise errors.TooLarge(f"that version is {size:,} bytes, the limit is {tree.PYTHON_BYTES_MAX:,}")
        return self._run("cat-file", "blob", spec).decode("utf-8", "replace")

    def _parsed(self, words: bytes) -> list[Version]:
        parts = words.decode("utf-8", "replace").split("\0")
        found: list[Version] = []
        at = 0
        while at + 4 < len(parts):
            commit, author, moment, message = parts[at : at + 4]
            at += 5  # an empty part ends the format
            if at >= len(parts) or not parts[at].startswith("\n:"):
                continue  # a commit without files
            letter = parts[at].rpartition(" ")[2][:1]
            blob = parts[at].split(" ")[3]
            paths = parts[at + 1 : at + (3 if letter in "RC" else 2)]
            at += 1 + len(paths)
            names = [self._name(one) for one in paths]
            found.append(
                Version(
                    commit=commit,
                    change=_CHANGES.get(letter, "changed"),
                    name=names[-1],
                    before=names[0] if letter == "R" else "",
                    blob=blob if letter != "D" else "",
                    author=author,
                    at=moment,
                    message=message.strip(),
                )
            )
            if letter == "C":
                break  # git follows copies too, and what was before is another flow's
        return found

    def _full(self, path: str) -> str:
        return f"{self._mirror.folder}/{path}" if self._mirror.folder else path

    def _name(self, full: str) -> str:
        """Return the flow's name; what comes from outside of the folder keeps its whole path."""
        return check.flow_name(full.removeprefix(self._full("")))

    def _run(self, *words: str) -> bytes:
        try:
            return self._mirror.git.run(*words, environment={"GIT_LITERAL_PATHSPECS": "1"})
        except git.Stopping as stopping:
            raise errors.NotAccepting(stopping.message) from stopping
        except git.GitFailed as failure:
            raise errors.SourceUnavailable(
                f"the history cannot be read now: {failure.message}", hint="try again in a moment"
            ) from failure
