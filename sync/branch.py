"""A remote's branch as something to write to: a commit on top of its tip, made without a checkout, and pushed.

Owns: the steps of one change and what they leave behind.

    1  the tip is fetched; the file in it must be what the author has seen
    2  blob, tree and commit are written into the mirror, through an index of our own. If we die here or before, they
       are objects that nothing refers to, and git forgets them after some hours
    3  the commit is pushed, never by force. If we die before the remote has moved its branch there is nothing, after
       it there is a commit that the next sync finds like anybody's
    4  if somebody was faster, all of it again, as long as the file itself is still what the author has seen

Refuses: overwriting what others pushed, hooks and filters of commits (nothing is checked out). Used by ``candidate``
from a worker thread, never beside a sync pass.
"""

from __future__ import annotations

import random
import tempfile
import time
from collections.abc import Mapping

from ..engine import errors
from . import edits, git, tree
from .remote import Remote

#: Whoever loses the race that often had better look again.
_ATTEMPTS = 5
_PAUSE_S = 0.1
_EMAIL = "headrace@localhost"


class Branch:
    """The branch that one source follows."""

    def __init__(self, remote: Remote) -> None:
        self._remote = remote
        self._mirror = remote.mirror
        self._index = remote.mirror.directory / "write-back.index"

    def sweep(self) -> None:
        """Remove what a crash left half done: nothing, the mirror looks after itself."""

    def apply(self, edit: edits.Edit, note: edits.Note) -> str:
        """Have ``edit`` in the remote's branch and return its commit (the tip, if that has it already).

        Raises ``NotAllowed``, ``Conflict``, ``NotFound``, ``InvalidRequest``, ``SourceUnavailable``."""
        commit = ""
        for attempt in range(_ATTEMPTS):
            tip = self._remote.tip()
            if commit and self._mirror.is_ancestor(commit, tip.commit):
                return commit  # it had arrived after all, and somebody built on it
            files = edits.fitted(edit, self._entries(tip.commit), note, f"commit {tip.commit[:12]}")
            if not files:
                return tip.commit
            if isinstance(edit, edits.Save):
                self._mirror.store(edit.content)
            commit = self._commit(tip.commit, files, note)
            if self._remote.push(commit, tip):
                return commit
            time.sleep(random.uniform(0, _PAUSE_S * attempt))  # noqa: S311 - spreads load, keeps no secret
        raise errors.Conflict(
            f"others were faster {_ATTEMPTS} times; nothing was written", hint="try again when fewer push at once"
        )

    def _entries(self, commit: str) -> list[tree.Entry]:
        try:
            return self._mirror.entries(commit)
        except tree.TreeRefused:  # the folder of the flows is not there yet
            return []

    def _commit(self, parent: str, files: Mapping[str, tree.Entry | None], note: edits.Note) -> str:
        """Return a new commit on ``parent``; what is not in ``files`` stays."""
        for leftover in (self._index, self._index.with_name(f"{self._index.name}.lock")):
            leftover.unlink(missing_ok=True)
        run, environment = self._mirror.git.run, {"GIT_INDEX_FILE": str(self._index)}
        folder = f"{self._mirror.folder}/" if self._mirror.folder else ""
        run("read-tree", git.checked_sha(parent), environment=environment)
        with tempfile.TemporaryFile() as lines:
            for path, entry in files.items():
                about = f"{entry.mode} {git.checked_sha(entry.blob)}" if entry else f"0 {'0' * len(parent)}"
                lines.write(f"{about}\t{folder}{path}\0".encode())
            lines.seek(0)
            run("update-index", "-z", "--index-info", environment=environment, stdin=lines)
        top = run("write-tree", environment=environment).decode().strip()
        identity = {
            "GIT_AUTHOR_NAME": note.author,
            "GIT_AUTHOR_EMAIL": _EMAIL,
            "GIT_COMMITTER_NAME": "headrace",
            "GIT_COMMITTER_EMAIL": _EMAIL,
        }
        words = [note.message]
        if note.on_behalf_of:
            words.append(f"Co-authored-by: {note.on_behalf_of} <{_EMAIL}>")
        said = [word for paragraph in words for word in ("-m", paragraph)]
        made = run("commit-tree", git.checked_sha(top), "-p", parent, *said, environment=identity)
        return git.checked_sha(made.decode().strip())
