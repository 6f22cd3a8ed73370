"""What of a commit may become files: the rules for paths, kinds, sizes and counts. Pure.

Owns: reading git's tree listing and the decision per entry: take it, leave it out with a warning, or refuse the
commit. Refuses (the whole commit): names that no honest repository has (``..``, ``.git``, control characters,
backslashes) and trees over the limits. Used by ``mirror`` (listing), ``snapshot`` (writing) and ``edits``.
"""

from __future__ import annotations

import hashlib
import unicodedata
from collections.abc import Iterable

import msgspec

from ..engine import errors

#: A flow is text; a larger one is generated data in disguise, and compiling it costs seconds.
PYTHON_BYTES_MAX = 1024 * 1024
FILE_BYTES_MAX = 32 * 1024 * 1024
TOTAL_BYTES_MAX = 256 * 1024 * 1024
FILES_MAX = 20_000
DEPTH_MAX = 32
_NAME_BYTES_MAX = 255  # what file systems take
_PATH_BYTES_MAX = 2048

_FILE_MODES = frozenset({"100644", "100755"})
_LEFT_OUT = {"120000": "a symbolic link", "160000": "a submodule"}
# Code points that HFS+ ignores in names: ".g\u200cit" is ".git" there.
_IGNORABLE = dict.fromkeys([*range(0x200C, 0x2010), *range(0x202A, 0x202F), *range(0x206A, 0x2070), 0xFEFF])


class TreeRefused(errors.HeadraceError):
    """A commit that will not be published as it is; ``message`` names the path and the rule."""


class Entry(msgspec.Struct, frozen=True):
    """A line of git's tree listing."""

    path: str
    blob: str
    mode: str
    size: int


class Plan(msgspec.Struct, frozen=True):
    """Which files a snapshot gets, and path → why something was left out."""

    files: tuple[Entry, ...]
    left_out: dict[str, str]

    def blobs(self) -> dict[str, str]:
        """Return path → blob."""
        return {entry.path: entry.blob for entry in self.files}


def blob_sha(content: bytes) -> str:
    """Return git's name for ``content``."""
    return hashlib.sha1(b"blob %d\0" % len(content) + content, usedforsecurity=False).hexdigest()


def parse(listing: bytes) -> list[Entry]:
    """Return the entries of ``git ls-tree -r -z -l``."""
    entries = []
    for line in listing.split(b"\0"):
        if line:
            about, _, path = line.partition(b"\t")
            mode, _, blob, size = about.decode("ascii").split()
            name = path.decode("utf-8", "surrogateescape")
            entries.append(Entry(name, blob, mode, 0 if size == "-" else int(size)))
    return entries


def plan(entries: Iterable[Entry]) -> Plan:
    """Decide what becomes a file; raises ``TreeRefused`` for a commit that must not be published."""
    files: list[Entry] = []
    left_out: dict[str, str] = {}
    seen: dict[str, str] = {}
    total = 0
    for number, entry in enumerate(entries):
        if number >= FILES_MAX:
            raise TreeRefused(f"it has more than {FILES_MAX:,} files", hint="keep flows in a repository of their own")
        check_path(entry.path)
        if reason := _reason_to_leave_out(entry):
            left_out[entry.path] = reason
            continue
        _check_collision(entry.path, seen)
        files.append(entry)
        total += entry.size
        if total > TOTAL_BYTES_MAX:
            raise TreeRefused(f"its files have more than {TOTAL_BYTES_MAX:,} bytes", hint="keep large data elsewhere")
    return Plan(tuple(files), left_out)


def folded(path: str) -> str:
    """Return what two paths have in common that are one on some file system."""
    return path.casefold() if path.isascii() else unicodedata.normalize("NFC", path).casefold()


def _reason_to_leave_out(entry: Entry) -> str:
    if entry.mode not in _FILE_MODES:
        return f"{_LEFT_OUT.get(entry.mode, f'an entry of mode {entry.mode}')}: left out, never followed"
    if entry.path.endswith(".pyc") or "__pycache__" in entry.path.split("/"):
        # Python would load it in place of the source that people reviewed.
        return "compiled Python: left out, the source counts"
    limit = PYTHON_BYTES_MAX if entry.path.endswith(".py") else FILE_BYTES_MAX
    if entry.size > limit:
        return f"{entry.size:,} bytes, the limit is {limit:,}: left out"
    return ""


def check_path(path: str) -> None:
    """Raise ``TreeRefused`` for a path that no honest repository has."""
    parts = path.split("/")
    if len(parts) > DEPTH_MAX:
        raise TreeRefused(f"{path[:80]!r}… lies {len(parts)} folders deep, the limit is {DEPTH_MAX}")
    if not path.isascii():
        try:
            path.encode()
        except UnicodeEncodeError:
            raise TreeRefused(f"the name {path!r} is not UTF-8") from None
    if "\\" in path or (not path.isprintable() and any(unicodedata.category(sign) == "Cc" for sign in path)):
        raise TreeRefused(f"the name {path!r} holds a control character or a backslash")
    if len(path) > _PATH_BYTES_MAX or any(len(part.encode()) > _NAME_BYTES_MAX for part in parts):
        raise TreeRefused(f"the name {path[:80]!r}… is too long")
    for part in parts:
        if part in ("", ".", "..") or _is_git_folder(part):
            raise TreeRefused(f"the name {path!r} is not allowed: it could reach outside or into git's own files")


def _is_git_folder(part: str) -> bool:
    """Return whether some file system takes ``part`` for ``.git``: by case, trailing dots or ignored characters."""
    if part.isascii() and part[0] not in ".gG":
        return False
    plain = part.translate(_IGNORABLE).casefold().partition(":")[0].rstrip(" .")
    return plain in (".git", "git~1")


def _check_collision(path: str, seen: dict[str, str]) -> None:
    """Refuse two paths that are one on some file system, folders included."""
    whole = path
    while whole:
        known = seen.setdefault(folded(whole), whole)
        if known != whole:
            raise TreeRefused(f"{whole!r} and {known!r} differ only in case or in how accents are spelled")
        whole = whole.rpartition("/")[0]
