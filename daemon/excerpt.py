"""The lines of a snapshot's file around one that matters. Blocking; called from worker threads by pages."""

from __future__ import annotations

from pathlib import Path

import msgspec

from . import wording

_AROUND = 6
_BYTES_MAX = 1024 * 1024


class Excerpt(msgspec.Struct, frozen=True, kw_only=True):
    """Some lines, the number of the first one, and of the one that matters."""

    first: int
    marked: int
    lines: list[str]


def read(root: Path, path: Path, line: int) -> Excerpt | None:
    """Return the lines around ``line`` of a file below ``root``, or None if it is not there or elsewhere."""
    try:
        if not path.resolve().is_relative_to(root.resolve()):
            return None
        with path.open("rb") as file:
            lines = wording.plain(file.read(_BYTES_MAX).decode("utf-8", "replace")).split("\n")
    except OSError:  # cleaned away, or of another place than the snapshot
        return None
    if not 1 <= line <= len(lines):
        return None
    first = max(1, line - _AROUND)
    return Excerpt(first=first, marked=line, lines=lines[first - 1 : line + _AROUND])
