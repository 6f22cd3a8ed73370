"""Where flows come from: the settings of one source, and how the SOURCE argument of the command line is read.

Owns: the distinction between a git remote and a plain directory (developer mode). Refuses: addresses that ``git``
does not allow, before anything is run. Called by ``daemon`` to configure a ``loop.Synchroniser``.
"""

from __future__ import annotations

import pathlib
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import msgspec

from ..engine import errors
from . import forge, git, places, verification

_PREFIX = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,63}")

Policy = Literal["per-flow", "strict"]


class Preview(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The setting ``source.preview``. ``refs``: patterns of branches and tags that flows may be run from unmerged."""

    refs: tuple[str, ...]

    def __post_init__(self) -> None:
        """Refuse patterns that can be no ref's."""
        for pattern in self.refs:
            if not pattern.isprintable() or not pattern.strip() or pattern.startswith(("-", "/")):
                raise ValueError(f"`refs` has {pattern!r}, which no branch or tag can be called")


class Source(msgspec.Struct, frozen=True, kw_only=True):
    """One source of flows. ``url`` is a git URL, or the absolute path of a directory when ``developer`` is set."""

    url: str
    prefix: str = ""  # what the names of its flows begin with, where there are several sources
    ref: str = ""  # branch, tag or commit; empty: the remote's default branch
    path: str = ""  # subfolder that holds the flows
    poll_s: float = 30.0
    policy: Policy = "per-flow"
    developer: bool = False
    ssh_key: str = ""  # file with the private key; empty: what the ssh agent offers
    known_hosts: str = ""  # file with the host keys; empty: the known_hosts files of the daemon's user
    token_file: str = ""  # file with the token or password for https
    user: str = "git"  # sent along with the token
    write_back: bool = True  # whether people and flows may change flows here
    verify: verification.Verify | None = None  # whose signatures count; None: nobody has to sign
    github_app: forge.GithubApp | None = None  # gets in as an app, with tokens of its own
    preview: Preview | None = None  # what may be run unmerged; None: nothing
    folders: Mapping[str, str] = msgspec.field(default_factory=dict)  # other names of the declaring folders

    def __post_init__(self) -> None:
        """Refuse what git must never be given; raises ``ConfigurationInvalid``."""
        if not self.developer:
            git.checked_url(self.url)
            if self.ref and not git.is_sha(self.ref):
                git.checked_ref(self.ref)
        if self.prefix and not _PREFIX.fullmatch(self.prefix):
            raise errors.ConfigurationInvalid(
                f"prefix is {self.prefix!r}", hint="use letters, digits, - and _; flows are then called PREFIX/NAME"
            )
        if self.policy not in ("per-flow", "strict"):
            raise errors.ConfigurationInvalid(f"policy is {self.policy!r}", hint='use "per-flow" or "strict"')
        if self.poll_s < 1:
            raise errors.ConfigurationInvalid(f"poll is {self.poll_s:g} s", hint="use 1 s or more")
        parts = pathlib.PurePosixPath(self.path).parts
        if self.path and (self.path.startswith(("/", "-")) or ".." in parts or not self.path.isprintable()):
            raise errors.ConfigurationInvalid(
                f"path is {self.path!r}", hint="give a folder relative to the top of the repository"
            )
        if self.github_app is not None and (self.token_file or not self.url.startswith("https://")):
            raise errors.ConfigurationInvalid(
                "source.github_app makes tokens for https, and "
                + ("source.token_file names one" if self.token_file else "the source is not reached so"),
                hint="take source.token_file away" if self.token_file else "give the address that begins with https://",
            )
        places.Places.named(self.folders)
        if self.verify is not None and (self.developer or self.write_back):
            raise errors.ConfigurationInvalid(
                "source.verify asks for signed commits, and "
                + ("a directory has none" if self.developer else "what is changed through the daemon is not signed"),
                hint="name a repository" if self.developer else "set source.write_back = false",
            )

    @property
    def folder(self) -> str:
        """The subfolder in the form git uses: no slash at either end, empty for the top."""
        folder = pathlib.PurePosixPath(self.path).as_posix()
        return "" if folder == "." else folder

    @property
    def places(self) -> places.Places:
        """Where it declares what."""
        return places.Places.named(self.folders)

    @property
    def name(self) -> str:
        """How people and records call it."""
        return f"{git.redacted(self.url)} ({self.prefix})" if self.prefix else git.redacted(self.url)

    @property
    def is_local(self) -> bool:
        """Whether it lies on this machine."""
        return self.developer or self.url.startswith("file://")

    @property
    def watched(self) -> Path | None:
        """The directory in which a change means news, if there is one: the flows, or a local repository's refs."""
        if self.developer:
            return Path(self.url)
        if not self.is_local:
            return None
        repository = Path(git.checked_url(self.url))
        return repository / "refs" if _is_bare_repository(repository) else repository / ".git" / "refs"


def parse(argument: str, **settings: Any) -> Source:
    """Return the source that ``argument`` means: a directory, a bare repository, or a URL; raises if it is neither.

    ``settings`` are the other fields of ``Source``."""
    path = Path(argument).expanduser()
    if not path.is_dir():
        if "://" in argument or ":" in argument:
            return Source(url=argument, **settings)
        raise errors.ConfigurationInvalid(
            f"there is no directory {argument!r}", hint="give a directory with flows or the URL of a git repository"
        )
    path = path.resolve()
    if _is_bare_repository(path):
        return Source(url=path.as_uri(), **settings)
    return Source(url=str(path), developer=True, **settings)


def _is_bare_repository(path: Path) -> bool:
    return (path / "HEAD").is_file() and (path / "objects").is_dir() and (path / "refs").is_dir()
