"""Which flow of before a file is now: what keeps its id when files are renamed, exchanged, copied. Pure.

Owns the order of proofs: what we moved ourselves; content that is the same to the byte and only at one place, before
and now; what git finds similar, for files whose old path is gone. In doubt a flow stays where it is. Called by
``catalogue``.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping

import msgspec


class Arrivals(msgspec.Struct, frozen=True, kw_only=True):
    """What a commit brings: path → sha of its content, and what is known or can be asked about it.

    ``left_out``: paths that are there and not read. ``moved``: new path → old path, by ourselves. ``renames`` asks git
    the same; ``alike`` whether the second content, by its sha, could be an edit of the first."""

    files: Mapping[str, str]
    left_out: Collection[str]
    may_be_flow: Callable[[str], bool]
    meant_as_flow: Collection[str]
    moved: Mapping[str, str]
    renames: Callable[[], Mapping[str, str]]
    alike: Callable[[str, str], bool]


def origins(was: Mapping[str, str], flows: Collection[str], now: Arrivals) -> dict[str, str]:
    """Return new path → old path for flows that moved. ``was``: path → sha before; ``flows``: which were flows."""
    present = now.files.keys() | now.left_out
    found = {new: old for new, old in now.moved.items() if new in present and old in flows}
    found |= _exchanged(was, [path for path in flows if path not in found.values()], now, set(found))
    gone = {path for path in flows if path not in present} - set(found.values())
    if not was or not gone:
        return found
    arrived = {
        path: blob
        for path, blob in now.files.items()
        if path not in found and path not in flows and now.may_be_flow(path) and was.get(path) != blob
    }
    by_blob: dict[str, list[str]] = {}
    for path in sorted(gone, reverse=True):
        by_blob.setdefault(was.get(path, ""), []).append(path)
    for path in sorted(arrived):
        if candidates := by_blob.get(arrived[path]):
            found[path] = candidates.pop()
    gone -= set(found.values())
    meant = arrived.keys() & set(now.meant_as_flow)
    if gone and meant - found.keys():
        for path, old in now.renames().items():
            if path in meant and path not in found and old in gone:
                found[path] = old
                gone.discard(old)
    return found


def _exchanged(was: Mapping[str, str], flows: Collection[str], now: Arrivals, taken: Collection[str]) -> dict[str, str]:
    """Return new path → old path of flows whose content is elsewhere now, while something else lies where it was.

    Two files swapped, a chain of renames, a rename with a new file under the old name. A copy whose original was edited
    looks like the last of these, but for the edit being like what it was made of."""
    places_before, places_now = _places(was), _places(now.files)
    found: dict[str, str] = {}
    for path in flows:
        blob, there = was.get(path, ""), now.files.get(path, "")
        if not blob or not there or blob == there or places_before[blob] != [path]:
            continue
        targets = places_now.get(blob, [])
        if len(targets) != 1 or targets[0] in taken or not now.may_be_flow(targets[0]):
            continue
        came_from_elsewhere = there in places_before
        if came_from_elsewhere or not now.alike(blob, there):
            found[targets[0]] = path
    left = set(found.values())
    for path in flows:  # the beginning of a chain: its own path is gone, and where it went somebody else left
        blob = was.get(path, "")
        targets = places_now.get(blob, [])
        if path not in now.files and len(targets) == 1 and targets[0] in left and places_before.get(blob) == [path]:
            found[targets[0]] = path
    return found


def _places(files: Mapping[str, str]) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for path, blob in files.items():
        found.setdefault(blob, []).append(path)
    return found
