"""The mirror: our own bare repository with what the source has, and what still runs.

Owns: the repository ``mirror.git``, reading commits from it, pins (``refs/pins/<sha>``, so that a force-push upstream
never takes away a commit that is in use), and healing: leftover lock files, a half-made or damaged repository. It is
never checked out, so no hook, filter or attribute of a commit is ever heard. Used by ``candidate``, ``remote``,
``branch`` and ``working_tree`` from one worker thread at a time, under the lock of the state directory.
"""

from __future__ import annotations

import contextlib
import secrets
import shutil
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import structlog

from ..engine import errors
from . import git, tree

log = structlog.get_logger()

_GC_TIMEOUT_S = 600.0
#: As many files as a commit may have, with names of an extraordinary length.
_LISTING_BYTES_MAX = 32 * 1024 * 1024
_CHECK_TIMEOUT_S = 300.0
#: `git gc --auto` does nothing below so many loose objects, of which it counts those in one folder of 256, and packs
#: (https://git-scm.com/docs/git-gc, gc.auto and gc.autoPackLimit): it need not be started to say so each time.
_LOOSE_MAX = 2000
_PACKS_MAX = 50
_RECENT_BYTES_MAX = 64 * 1024


class MirrorDamaged(errors.HeadraceError):
    """The mirror lacks something it should have; ``Mirror.rebuild`` makes a new one."""


class Mirror:
    """The bare repository ``mirror.git`` in the state directory."""

    def __init__(self, state: Path, folder: str = "", environment: Mapping[str, str] | None = None) -> None:
        """``folder`` is the subfolder that holds the flows; ``environment`` tells git about the source."""
        self.directory = state / "mirror.git"
        self.home = state / "git-home"  # empty: git finds no configuration there
        self.folder = folder
        self.git = git.Git(self.directory, self.home, environment)
        self._trusted = False
        self._pins: set[str] | None = None  # as far as we know them
        self._recent: dict[str, bytes] = {}

    def ensure(self) -> bool:
        """Make the repository if it is not there, and clear what a crash or a killed git left. Cheap when all is well;
        returns whether it was not: then nothing that was known of it counts.

        Its files may go because nobody else works here: we hold the state directory's lock, and our own git
        processes end with us."""
        if self._trusted and (self.directory / "HEAD").is_file():
            return False
        self.home.mkdir(parents=True, exist_ok=True)
        for leftover in self.directory.parent.glob("mirror.git.*"):
            shutil.rmtree(leftover, ignore_errors=True)
        if not self.directory.exists():
            self._swap_in(self._new_beside())
        elif self._is_repository():
            self._sweep()
        else:
            log.warning("mirror.rebuilt", reason="it is not a repository any more")
            self._swap_in(self._new_beside())
        self._trusted = True
        return True

    def _sweep(self) -> None:
        """Remove locks, and what of packs and objects is only half there: git itself would keep some of it for ever."""
        objects = self.directory / "objects"
        whole = {pack.stem for pack in (objects / "pack").glob("pack-*.pack") if pack.with_suffix(".idx").exists()}
        half = [path for path in (objects / "pack").glob("*") if path.stem not in whole or path.suffix == ".keep"]
        begun = [path for folder in (".", "??") for path in (objects / folder).glob("tmp_*")]
        for path in [*self.directory.rglob("*.lock"), self.directory / "gc.pid", *half, *begun]:
            if path.is_dir():
                shutil.rmtree(path, ignore_errors=True)
            elif path.exists():
                log.warning("mirror.leftover_removed", file=str(path.relative_to(self.directory)))
                path.unlink(missing_ok=True)

    def distrust(self) -> None:
        """Look at the repository afresh before the next use: a git command failed or was killed."""
        self._trusted = False
        self._pins = None

    def rebuild(self, reason: str) -> None:
        """Replace a damaged repository by a new one beside it, keeping the pins that can still be read."""
        log.warning("mirror.rebuilt", reason=reason)
        fresh = self._new_beside()
        rescue = git.Git(fresh, self.home, {"GIT_ALLOW_PROTOCOL": "file"})
        for sha in self.pins():
            with contextlib.suppress(git.GitFailed):
                rescue.run(
                    "fetch", "--quiet", "--no-tags", "--", str(self.directory), f"+refs/pins/{sha}:refs/pins/{sha}"
                )
        self._swap_in(fresh)

    def is_damaged(self) -> bool:
        """Return whether this repository is the reason why a command failed, as far as can be said in time."""
        try:
            self.git.run("fsck", "--connectivity-only", "--no-dangling", "--no-progress", timeout_s=_CHECK_TIMEOUT_S)
        except git.GitFailed as error:
            return error.status is not None
        return False

    def _is_repository(self) -> bool:
        try:
            return self.git.run("rev-parse", "--is-bare-repository").strip() == b"true"
        except git.GitFailed:
            return False

    def _new_beside(self) -> Path:
        fresh = self.directory.with_name(f"mirror.git.new-{secrets.token_hex(4)}")
        git.Git(fresh, self.home).run("init", "--bare", "--quiet", "--template=", "--initial-branch=main")
        (fresh / "info").mkdir(exist_ok=True)
        # The last word on attributes: files are stored as they are, whatever a .gitattributes file says.
        (fresh / "info" / "attributes").write_text("* -text -ident -filter -working-tree-encoding\n")
        (fresh / "info" / "exclude").write_text(".headrace/\n__pycache__/\n*.pyc\n")
        return fresh

    def _swap_in(self, fresh: Path) -> None:
        """Put ``fresh`` in place. If we die in between there is no mirror, and ``ensure`` makes one."""
        aside = self.directory.with_name(f"mirror.git.old-{secrets.token_hex(4)}")
        with contextlib.suppress(FileNotFoundError):
            self.directory.rename(aside)
        fresh.rename(self.directory)
        self._pins = None
        shutil.rmtree(aside, ignore_errors=True)

    def tidy(self) -> None:
        """Let git pack what has become many small files, now and then; unreachable commits go after some hours."""
        objects = self.directory / "objects"
        loose, packs = (len([*objects.glob(pattern)]) for pattern in ("17/*", "pack/*.pack"))
        if loose < _LOOSE_MAX // 256 and packs < _PACKS_MAX:
            return
        self.git.run(
            "-c", f"gc.auto={_LOOSE_MAX}", "-c", "gc.autoDetach=false", "-c", "gc.pruneExpire=2.hours.ago",
            "gc", "--auto", "--quiet", timeout_s=_GC_TIMEOUT_S,
        )  # fmt: skip

    def has(self, commit: str) -> bool:
        """Return whether ``commit`` is here."""
        try:
            self.git.run("cat-file", "-e", f"{git.checked_sha(commit)}^{{commit}}")
        except git.GitFailed:
            return False
        return True

    def entries(self, commit: str) -> list[tree.Entry]:
        """Return everything below the source's folder in ``commit``; raises ``MirrorDamaged`` if it is not here."""
        spec = f"{git.checked_sha(commit)}:{self.folder}"
        try:
            listing = self.git.run("ls-tree", "-r", "-z", "-l", "--full-tree", spec, bytes_max=_LISTING_BYTES_MAX)
        except git.TooMuch as error:  # a hundred trees that hold each other a hundred times are small, and endless
            raise tree.TreeRefused("the list of its files is endless, or as good as that") from error
        except git.GitFailed as error:
            if self.folder and self.has(commit):
                raise tree.TreeRefused(f"there is no folder {self.folder!r} in it") from error
            raise MirrorDamaged(error.message) from error
        try:
            return tree.parse(listing)
        except ValueError as error:  # git writes BAD where a size should stand
            raise MirrorDamaged(f"commit {commit} lacks files") from error

    def blobs(self, shas: Sequence[str]) -> Iterator[bytes]:
        """Give the content of each blob, in order; raises ``MirrorDamaged`` for one that is missing or not itself."""
        recent = self._recent
        if all(sha in recent for sha in shas):
            yield from [recent[sha] for sha in shas]
            return
        with tempfile.TemporaryFile() as wanted:
            wanted.write("".join(f"{sha}\n" for sha in shas).encode())
            wanted.seek(0)
            with self.git.stream("cat-file", "--batch", "--buffer", stdin=wanted) as output:
                for sha in shas:
                    header = output.readline().split()
                    if len(header) != 3 or header[0].decode() != sha:
                        raise MirrorDamaged(f"blob {sha} cannot be read")
                    content = output.read(int(header[2]))
                    output.read(1)
                    if tree.blob_sha(content) != sha:
                        raise MirrorDamaged(f"blob {sha} is damaged")
                    self._remember(sha, content)
                    yield content

    def _remember(self, sha: str, content: bytes) -> None:
        """Keep a little of what was read: what is checked of a push is written a moment later."""
        if sum(map(len, self._recent.values())) + len(content) > _RECENT_BYTES_MAX:
            self._recent = {}
        if len(content) <= _RECENT_BYTES_MAX:
            self._recent[sha] = content

    def store(self, content: bytes) -> str:
        """Put ``content`` in as a blob and return its sha; until something refers to it, git may forget it again."""
        with tempfile.TemporaryFile() as file:
            file.write(content)
            file.seek(0)
            return self.git.run("hash-object", "-w", "--no-filters", "--stdin", stdin=file).decode().strip()

    def renames(self, old: str, new: str) -> dict[str, str]:
        """Return new path → old path of files that git holds for renamed between two commits, both below the folder."""
        if not (self.has(old) and self.has(new)):
            return {}
        spec = [f"{git.checked_sha(commit)}:{self.folder}" for commit in (old, new)]
        words = self.git.run("diff-tree", "-r", "-z", "--find-renames", "--diff-filter=R", "--name-status", *spec)
        parts = words.decode("utf-8", "surrogateescape").split("\0")
        return {parts[i + 2]: parts[i + 1] for i in range(0, len(parts) - 2, 3)}

    def pin(self, commit: str) -> None:
        """Keep ``commit`` and what it needs, whatever happens upstream."""
        self.git.run("update-ref", f"refs/pins/{git.checked_sha(commit)}", commit)
        if self._pins is not None:
            self._pins.add(commit)

    def unpin(self, commits: Sequence[str]) -> None:
        """Let git forget commits that nothing runs on any more."""
        for commit in commits:
            self.git.run("update-ref", "-d", f"refs/pins/{git.checked_sha(commit)}")
            if self._pins is not None:
                self._pins.discard(commit)

    def pins(self) -> list[str]:
        """Return the pinned commits."""
        if self._pins is None:
            try:
                listing = self.git.run("for-each-ref", "--format=%(refname:lstrip=2)", "refs/pins/")
            except git.GitFailed:
                return []
            self._pins = {sha for sha in listing.decode().split() if git.is_sha(sha)}
        return sorted(self._pins)

    def value(self, revision: str) -> str:
        """Return the commit or object a revision of ours stands for, or nothing."""
        return self.git.run("rev-parse", "--verify", "--quiet", revision, accept=(0, 1)).decode().strip()

    def since(self, old: str, revision: str) -> tuple[str, bool]:
        """Return the commit that a revision of ours stands for, and whether its history contains ``old``, if any."""
        if not old:
            return self.value(f"{revision}^{{commit}}"), True
        try:
            # Both ends come, the second one first, then what they have in common, with a ^ before it.
            words = self.git.run("rev-parse", f"{git.checked_sha(old)}...{revision}^{{commit}}").decode().split()
        except git.GitFailed:  # the old one is not here any more
            return self.value(f"{revision}^{{commit}}"), False
        return words[0], f"^{old}" in words[2:]

    def is_ancestor(self, old: str, new: str) -> bool:
        """Return whether the history of ``new`` contains ``old``."""
        return self.since(git.checked_sha(old), git.checked_sha(new))[1]
