"""Developer mode: a plain directory or a git working tree as the source, edits included before they are committed.

Owns: turning what lies in the directory into a commit of our own mirror, with an index of our own. Refuses: touching
the user's repository; neither its index nor its HEAD nor anything under ``.git`` is written, and its configuration,
hooks and filters are not heard (``.gitignore`` files and ``.git/info/exclude`` are). Used by ``candidate``.
"""

from __future__ import annotations

import re
from pathlib import Path

import structlog

from ..engine import errors
from . import folder, git
from .mirror import Mirror, MirrorDamaged
from .remote import Fetched
from .source import Source

log = structlog.get_logger()

_REF = "refs/headrace/working-tree"
_ADD_TIMEOUT_S = 300.0
_IDENTITY = {
    "GIT_AUTHOR_NAME": "headrace",
    "GIT_AUTHOR_EMAIL": "headrace@localhost",
    "GIT_COMMITTER_NAME": "headrace",
    "GIT_COMMITTER_EMAIL": "headrace@localhost",
}
_HEAD = re.compile(r"ref: (refs/[^\s]+)")


class WorkingTree:
    """The directory of one source, seen through the mirror."""

    def __init__(self, source: Source, state: Path) -> None:
        self._source = source
        self._directory = Path(source.url)
        self.mirror = Mirror(state, source.folder, _IDENTITY)
        self._index = self.mirror.directory / "working-tree.index"
        self._state = state
        self._last = ("", "")  # commit and tree, to ask no git about them each time

    def fetch(self) -> Fetched:
        """Commit what the directory holds, unless the last commit is the same, and return that commit.

        Raises ``SourceUnavailable`` when the directory cannot be read.
        """
        if not self._directory.is_dir():
            raise errors.SourceUnavailable(
                f"the directory {self._directory} is not there; what was published stays in force",
                hint="bring it back, or start with another directory",
            )
        if self.mirror.ensure():
            self._last = ("", "")
        top = self._add()
        last, tree = self._last if self._last[0] else (self.mirror.value(_REF), self.mirror.value(f"{_REF}^{{tree}}"))
        if last and tree == top:
            self._last = (last, tree)
            return Fetched(last, "working tree")
        parent = ["-p", last] if last else []
        message = f"Working tree of {self._directory}\n\nBased on {self._head() or 'no commit'}\n"
        commit = self.mirror.git.run("commit-tree", top, *parent, "-m", message).decode().strip()
        self.mirror.git.run("update-ref", _REF, git.checked_sha(commit))
        self._last = (commit, top)
        return Fetched(commit, "working tree")

    def told(self) -> None:
        """Nothing is rewritten here."""

    def other(self, ref: str) -> Fetched:
        """There is nothing but the directory."""
        raise errors.InvalidRequest(
            f"the directory {self._directory} has no {ref[:200]!r} to run from", hint="name a git URL as the source"
        )

    def forget(self) -> None:
        """Look at everything afresh: something went wrong. The index is only a memory of file times and sizes."""
        self._index.unlink(missing_ok=True)
        self._last = ("", "")
        self.mirror.distrust()

    def _add(self) -> str:
        """Bring our index up to date with the directory and return the tree it describes."""
        environment = {"GIT_WORK_TREE": str(self._directory), "GIT_INDEX_FILE": str(self._index)}
        paths = [":/", f":(top,exclude,literal){folder.SAVING}"]
        if self._state.is_relative_to(self._directory):
            paths.append(f":(top,exclude,literal){self._state.relative_to(self._directory)}")
        options = ["-c", "core.excludesFile=" + str(self._directory / ".git" / "info" / "exclude")]
        try:
            # A file that vanishes or cannot be read meanwhile is no reason to see none of the others.
            self.mirror.git.run(
                *options, "add", "--all", "--ignore-errors", "--", *paths,
                environment=environment, timeout_s=_ADD_TIMEOUT_S, accept=(0, 1),
            )  # fmt: skip
            return self.mirror.git.run("write-tree", environment=environment).decode().strip()
        except git.GitFailed as error:
            if error.status is not None and self.mirror.is_damaged():
                raise MirrorDamaged(error.message) from error
            raise errors.SourceUnavailable(
                f"the directory {self._directory} cannot be read: {error.message}",
                hint="what was published stays in force; the next change or poll tries again",
            ) from error

    def _head(self) -> str:
        """Return the commit the user's own HEAD names, read from plain files; nothing where that is not simple."""
        folder = self._directory / ".git"
        try:
            head = (folder / "HEAD").read_text().strip()
            if found := _HEAD.fullmatch(head):
                loose = folder / git.checked_ref(found[1])
                head = loose.read_text().strip() if loose.is_file() else _packed(folder, found[1])
        except (OSError, UnicodeDecodeError, errors.ConfigurationInvalid):
            return ""
        return head if git.is_sha(head) else ""


def _packed(folder: Path, ref: str) -> str:
    """Return the value of ``ref`` in the file of packed refs."""
    for line in (folder / "packed-refs").read_text().splitlines():
        value, _, name = line.partition(" ")
        if name == ref:
            return value
    return ""
