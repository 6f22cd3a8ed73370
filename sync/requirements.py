"""What flows need of packages: their lists, the repository's, its lock, and which environment that comes to. Pure.

Owns: the normal form of a list, so that two flows that say the same share an environment; the files
``requirements.txt`` (what flows without a list of their own get) and ``requirements.lock`` (versions and hashes that
count in every environment). One lock serves many different lists, so it constrains and requires nothing: a
``uv.lock`` or a ``pylock.toml`` holds the one resolution of one list. Refuses: options, paths and credentials in any of
them. Called by ``metadata``, ``candidate`` and ``environments``.
"""

from __future__ import annotations

import hashlib
import json
import re
import sys
import sysconfig
import urllib.parse
from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING

import msgspec

from ..engine import errors

if TYPE_CHECKING:
    from packaging.requirements import Requirement

DEFAULT = "requirements.txt"
LOCK = "requirements.lock"
#: Files at the flows root that decide over the environments of all flows.
FILES = (DEFAULT, LOCK)
_COMMENT = re.compile(r"(?:^|\s)#.*")
_HASH = re.compile(r"\s--hash[= ]\S+")


class Unusable(errors.HeadraceError):
    """A list or a lock that says something no environment can be made of."""


class Recipe(msgspec.Struct, frozen=True):
    """What an environment is made of: a list in its normal form, and the lock that it is held to."""

    requirements: tuple[str, ...]
    lock: str = ""

    @property
    def id(self) -> str:
        """The name of the environment: another list, lock or Python makes another one."""
        python = f"{sys.implementation.cache_tag} {sysconfig.get_platform()}"
        told = json.dumps([list(self.requirements), python, self.lock]).encode()
        return hashlib.sha256(told).hexdigest()[:24]


class Shared(msgspec.Struct, frozen=True):
    """What a commit says for all of its flows. ``problems``: file → what is wrong with it."""

    default: tuple[str, ...] = ()
    lock: str = ""
    problems: dict[str, str] = msgspec.field(default_factory=dict)

    @property
    def default_id(self) -> str:
        """The environment of whatever has no list of its own; empty if there is none."""
        try:
            recipe = self.recipe(None)
        except Unusable:
            return ""
        return recipe.id if recipe is not None else ""

    def recipe(self, dependencies: tuple[str, ...] | None) -> Recipe | None:
        """Return what a flow with this list (None: with none of its own) needs, None for no packages at all.

        Raises ``Unusable``."""
        wanted = self.default if dependencies is None else dependencies
        for file in FILES if dependencies is None else (LOCK,) if wanted else ():
            if file in self.problems:
                raise Unusable(f"{file}, {self.problems[file]}")
        if not wanted:
            return None
        for one in wanted:
            _check_lock(_parsed(one), self.lock)
        return Recipe(wanted, self.lock)


def shared(files: Mapping[str, bytes]) -> Shared:
    """Return what ``requirements.txt`` and ``requirements.lock`` say, of which either may be missing."""
    problems: dict[str, str] = {}
    default: tuple[str, ...] = ()
    lock = ""
    try:
        default = normalised(_numbered(files.get(DEFAULT, b"")))
    except Unusable as error:
        problems[DEFAULT] = error.message
    try:
        lock = _lock(files.get(LOCK, b""))
    except Unusable as error:
        problems[LOCK] = error.message
    return Shared(default, lock, problems)


def normalised(lines: Iterable[tuple[str, str]]) -> tuple[str, ...]:
    """Return a list in the form that equal lists have in common. ``lines`` are pairs of where and what.

    Raises ``Unusable`` with the first that is no requirement (PEP 508)."""
    found = set()
    for where, text in lines:
        found.add(str(_requirement(where, text)))
    return tuple(sorted(found))


def _parsed(text: str) -> Requirement:
    """Return a requirement under its canonical name; raises ``ValueError`` for what is none."""
    from packaging import requirements, utils  # the marked place: most repositories ask for no packages

    one = requirements.Requirement(text)
    one.name = utils.canonicalize_name(one.name)
    return one


def _requirement(where: str, text: str) -> Requirement:
    told = f"{where}{text!r}" if len(text) <= 200 else f"{where}{text[:200]!r}…"
    try:
        one = _parsed(text)
    except ValueError as error:
        raise Unusable(f"{told} is no requirement such as 'requests>=2.31,<3': {str(error).splitlines()[0]}") from None
    if one.url is not None:
        address = urllib.parse.urlsplit(one.url)
        if "@" in address.netloc:
            raise Unusable(
                f"{where}{one.name} is given by a URL with credentials; write them into run.environments.netrc"
            )
        if address.scheme not in ("https", "git+https"):
            raise Unusable(
                f"{told} names neither a version nor an https URL; lay the wheel into a folder that "
                "run.environments.find_links names"
            )
    return one


def _numbered(content: bytes) -> Iterator[tuple[str, str]]:
    """Yield the meaningful lines of a file, continued ones joined, with where they are."""
    text = content.decode("utf-8", "replace").replace("\\\r\n", "  ").replace("\\\n", "  ")
    for number, line in enumerate(text.splitlines(), 1):
        if meant := _COMMENT.sub("", line).strip():
            yield f"line {number}: ", meant


def _lock(content: bytes) -> str:
    """Return a lock in the form that is compared and handed on: one line for each version, hashes kept."""
    lines = []
    for where, text in _numbered(content):
        bare = _HASH.sub("", text).strip()
        one = _requirement(where, bare)
        exact = [each.operator for each in one.specifier] == ["=="]
        if one.url is None and not exact:
            raise Unusable(f"{where}{bare!r} is no exact version such as 'requests==2.32.3'")
        lines.append(" ".join([str(one), *sorted(found.strip() for found in _HASH.findall(text))]))
    return "".join(f"{line}\n" for line in sorted(lines))


def _check_lock(one: Requirement, lock: str) -> None:
    """Raise ``Unusable`` where the lock says a version that ``one`` does not take: that can be told offline."""
    pinned = [_parsed(_HASH.sub("", line)) for line in lock.splitlines() if line.startswith(one.name)]
    held = [each for each in pinned if each.name == one.name and each.url is None and _counts(each)]
    for each in held if _counts(one) else ():
        version = next(iter(each.specifier)).version
        if not one.specifier.contains(version, prereleases=True):
            raise Unusable(f"{str(one)!r} is wanted, and {LOCK} has {version}: change one of them")


def _counts(one: Requirement) -> bool:
    return one.marker is None or one.marker.evaluate()
