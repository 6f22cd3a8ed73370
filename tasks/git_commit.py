"""Making a commit in the temporary repository of a GIT task, without checking anything out.

It owns what may be written under which name. The commit is put together in an index of its own from the parent's tree;
hooks, filters and attributes never take effect. ``git`` fetches the parent before and pushes the commit after.
"""

from __future__ import annotations

import contextlib
import io
import os
import pathlib
from collections.abc import Mapping, Sequence

import git
import gitdb  # type: ignore[import-untyped]
import msgspec

from . import git_fetch

_FILE, _EXECUTABLE, _LINK = 0o100644, 0o100755, 0o120000


class CannotCommit(Exception):
    """The change does not fit the commit it is for; the message says why."""


class Content(msgspec.Struct, frozen=True):
    """What a file shall hold; ``executable`` None leaves that as it is."""

    data: bytes
    executable: bool | None = None


class Change(msgspec.Struct, frozen=True, kw_only=True):
    """What a commit shall change, and who says so."""

    files: Mapping[str, Content]
    removed: Sequence[str]
    message: str
    name: str
    email: str

    @property
    def identity(self) -> dict[str, str]:
        """The environment in which git knows who commits."""
        return {
            f"GIT_{who}_{what}": value
            for who in ("AUTHOR", "COMMITTER")
            for what, value in (("NAME", self.name), ("EMAIL", self.email))
        }


def is_name(path: str) -> bool:
    """Return whether a file of a repository may be called so, on any machine."""
    parts = path.split("/")
    return path.isprintable() and "\\" not in path and not {"", ".", ".."} & set(parts) and not _is_own(parts)


def _is_own(parts: Sequence[str]) -> bool:
    """Return whether git's own folder is meant, also where case, a last dot or a stream make no difference."""
    return any(one.casefold().split(":")[0].rstrip(". ") in (".git", "git~1") for one in parts)


def is_person(text: str) -> bool:
    """Return whether git takes this as a name or an address as it is."""
    return bool(text.strip()) and text.isprintable() and not set("<>") & set(text)


def made(repository: git_fetch.Repository, parent: str | None, change: Change) -> str | None:
    """Return the new commit's sha, None when it would change nothing; raises ``CannotCommit``. Blocks."""
    with contextlib.closing(git.Repo(repository.path, expand_vars=False)) as repo:
        index = repository.path / "index"
        index.unlink(missing_ok=True)  # of a try before
        repo.git.update_environment(**repository.environment, **change.identity, GIT_INDEX_FILE=str(index))
        before = repo.commit(parent).tree if parent is not None else None
        if before is not None:
            repo.git.read_tree(before.hexsha)
        lines = [f"0 {'0' * 40}\t{name}" for name in _present(before, change.removed)]
        for name, content in change.files.items():
            stored = repo.odb.store(gitdb.IStream("blob", len(content.data), io.BytesIO(content.data)))
            lines.append(f"{_mode(before, name, content.executable):o} {stored.hexsha.decode()}\t{name}")
        _feed(repo, repository.path / "changes", lines)
        tree = repo.git.write_tree()
        if before is not None and tree == before.hexsha:
            return None
        message = _written(repository.path / "message", change.message.encode())
        parents = ("-p", parent) if parent is not None else ()
        return str(repo.git.commit_tree(tree, *parents, "-F", str(message)))


def tagged(repository: git_fetch.Repository, sha: str, name: str, change: Change) -> str:
    """Return what a tag of this name has to point to: a tag object with the message, or the commit itself. Blocks."""
    if not change.message:
        return sha
    with contextlib.closing(git.Repo(repository.path, expand_vars=False)) as repo:
        repo.git.update_environment(**repository.environment, **change.identity)
        message = _written(repository.path / "message", change.message.encode())
        repo.git.tag("--annotate", "--no-sign", "-F", str(message), "--end-of-options", name, sha)
        return str(repo.git.rev_parse("--verify", f"refs/tags/{name}"))


def _present(tree: git.Tree | None, names: Sequence[str]) -> Sequence[str]:
    """Return the names; raises ``CannotCommit`` for one that is no file of the tree."""
    for name in names:
        item = _item(tree, name)
        if item is None or isinstance(item, git.Tree):
            raise CannotCommit(f"there is no file '{name}' to remove")
    return names


def _mode(tree: git.Tree | None, name: str, executable: bool | None) -> int:
    """Return the file's mode; raises ``CannotCommit`` where the file cannot be: a flow must not lose a folder by it."""
    parts = name.split("/")
    for number in range(1, len(parts)):
        above = _item(tree, "/".join(parts[:number]))
        if above is not None and not isinstance(above, git.Tree):
            raise CannotCommit(f"there cannot be a file '{name}': '{'/'.join(parts[:number])}' is no folder")
    there = _item(tree, name)
    if isinstance(there, git.Tree | git.Submodule):
        raise CannotCommit(f"there cannot be a file '{name}': it is a folder or a submodule")
    if there is not None and there.mode == _LINK:
        raise CannotCommit(f"there cannot be a file '{name}': it is a symbolic link")
    if executable is None:
        return there.mode if there is not None else _FILE
    return _EXECUTABLE if executable else _FILE


def _item(tree: git.Tree | None, name: str) -> git.Tree | git.Blob | git.Submodule | None:
    try:
        return None if tree is None else tree.join(name)
    except KeyError:
        return None


def _feed(repo: git.Repo, path: pathlib.Path, lines: Sequence[str]) -> None:
    """Change the index; what git reads comes from a file, so that no name is ever an argument."""
    with _written(path, "".join(f"{line}\0" for line in lines).encode()).open("rb") as stream:
        repo.git.update_index("-z", "--index-info", istream=stream)


def _written(path: pathlib.Path, content: bytes) -> pathlib.Path:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "wb") as stream:
        stream.write(content)
    return path
