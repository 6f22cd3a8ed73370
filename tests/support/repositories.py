"""Real git repositories for tests: a bare upstream and a clone to push from, made with the git command line."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

_ENVIRONMENT = {
    "PATH": os.environ["PATH"],
    "HOME": "/nonexistent",
    "GIT_CONFIG_NOSYSTEM": "1",
    "GIT_CONFIG_GLOBAL": os.devnull,
    "GIT_AUTHOR_NAME": "Ada",
    "GIT_AUTHOR_EMAIL": "ada@example.org",
    "GIT_COMMITTER_NAME": "Ada",
    "GIT_COMMITTER_EMAIL": "ada@example.org",
}

FLOW = "def handler(system, this):\n    return {'answer': 42}\n"


def git(directory: Path, *words: str, stdin: bytes = b"") -> str:
    """Run git in ``directory`` and return what it says; fails the test if git fails."""
    done = subprocess.run(
        ["git", "-c", "core.fsync=none", *words], cwd=directory, env=_ENVIRONMENT, input=stdin, capture_output=True
    )
    assert done.returncode == 0, f"git {' '.join(words)}: {done.stderr.decode()}"
    return done.stdout.decode().strip()


class WorkingRepository:
    """A repository with a working tree, for developer mode and as the base of ``Repository``."""

    def __init__(self, directory: Path, branch: str = "main") -> None:
        self.directory = directory
        self.branch = branch
        directory.mkdir(parents=True, exist_ok=True)
        git(directory, "init", "--quiet", f"--initial-branch={branch}")

    def write(self, path: str, text: str | bytes = FLOW) -> Path:
        """Write a file of the working tree."""
        file = self.directory / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(text if isinstance(text, bytes) else text.encode())
        return file

    def remove(self, path: str) -> None:
        """Remove a file of the working tree."""
        (self.directory / path).unlink()

    def move(self, old: str, new: str) -> None:
        """Rename a file of the working tree."""
        target = self.directory / new
        target.parent.mkdir(parents=True, exist_ok=True)
        (self.directory / old).rename(target)

    def commit(self, message: str = "Change") -> str:
        """Commit everything and return the commit."""
        git(self.directory, "add", "--all")
        git(self.directory, "commit", "--quiet", "--allow-empty", "-m", message)
        return self.head()

    def head(self) -> str:
        """Return the commit that HEAD names."""
        return git(self.directory, "rev-parse", "HEAD")


class Repository(WorkingRepository):
    """A working repository with a bare upstream beside it (``upstream``, ``url``)."""

    def __init__(self, directory: Path, branch: str = "main") -> None:
        super().__init__(directory / "work", branch)
        self.upstream = directory / "upstream.git"
        git(directory, "init", "--quiet", "--bare", f"--initial-branch={branch}", str(self.upstream))
        git(self.directory, "remote", "add", "origin", str(self.upstream))

    @property
    def url(self) -> str:
        """The upstream's file URL."""
        return self.upstream.as_uri()

    def push(self, message: str = "Change", *, force: bool = False) -> str:
        """Commit everything, push it to the upstream and return the commit."""
        commit = self.commit(message)
        git(self.directory, "push", "--quiet", *(["--force"] if force else []), "origin", f"HEAD:{self.branch}")
        return commit

    def fast_import(self, stream: bytes) -> str:
        """Feed the upstream a ``git fast-import`` stream: trees that no honest client would make. Returns the tip."""
        git(self.upstream, "fast-import", "--quiet", "--force", stdin=stream)
        return git(self.upstream, "rev-parse", f"refs/heads/{self.branch}")
