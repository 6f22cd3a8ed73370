"""A JSON value as a tree that can be folded: what of it a page shows at once, and what only when it is asked for. Pure.

A page shows the first members of each object or list, near ones before deep ones, and a bounded number altogether; the
others are named by where they lie (a JSON pointer, RFC 6901) and fetched on their own. It makes no HTML. Called by
``value_pages``.
"""

from __future__ import annotations

import collections
import itertools
import json
from typing import Any

import msgspec

from ..engine import errors
from . import wording

#: Nodes of one tree on a page, and members of one container at a time.
NODES_MAX = 300
MEMBERS_MAX = 100
#: Deeper than people look, and than templates go.
_DEPTH_MAX = 24
_TEXT_CHARACTERS_MAX = 1200
#: The first members of a folded object are named.
_NAMES = 4
_NAME_CHARACTERS_MAX = 24
#: A tree of so few nodes is shown wholly unfolded.
_FEW = 40


class Number(str):
    """A number as it is written: none is rounded for being shown."""

    __slots__ = ()


class Node(msgspec.Struct, kw_only=True):
    """A value of the tree: a scalar with its text, or a container with the first of its members.

    ``unopened``: its members are not here, only where it lies. ``after``: so many members come before the next ones."""

    at: str
    key: str = ""  # as JSON, empty for what has none
    kind: str = "word"  # object, array, text, number, word; file: not opened
    text: str = ""
    count: int = 0
    members: list[Node] = []
    after: int = 0
    unopened: bool = False
    open: bool = False


def read(text: bytes) -> Any:
    """Return the value of a JSON text; raises ``InvalidRequest`` for one that is nested too deeply to be shown."""
    try:
        return json.loads(text, parse_int=Number, parse_float=Number)
    except RecursionError:
        raise errors.InvalidRequest("the value is nested too deeply to be shown", hint="download it") from None


def tree(value: Any, at: str = "", after: int = 0, nodes_max: int = NODES_MAX) -> Node:
    """Return ``value`` as a tree, from its member ``after`` on; ``at`` is where it lies."""
    root = _node(value, at, "")
    count = 1
    waiting = collections.deque([(root, value, after)])
    while waiting:
        node, held, begin = waiting.popleft()
        pairs = _pairs(held)
        shown = pairs[begin : begin + MEMBERS_MAX]
        is_near = node.at.count("/") - at.count("/") < _DEPTH_MAX and count + len(shown) <= nodes_max
        if not pairs or not (is_near or node is root):
            continue
        node.unopened = False
        for key, member in shown:
            name = json.dumps(wording.plain(str(key)), ensure_ascii=False) if isinstance(held, dict) else str(key)
            child = _node(member, f"{node.at}/{_escaped(str(key))}", name)
            node.members.append(child)
            waiting.append((child, member, 0))
        count += len(shown)
        node.after = begin + len(shown) if begin + len(shown) < len(pairs) else 0
    _unfold(root, everything=count <= _FEW)
    return root


def unread(at: str, key: str, bytes_: int) -> Node:
    """Return the node of a value that lies in a file and is not opened for a page."""
    return Node(at=at, key=key, kind="file", text=wording.size(bytes_), unopened=True)


def find(value: Any, pointer: str) -> Any:
    """Return what lies at ``pointer``; raises ``NotFound``."""
    for step in pointer.split("/")[1:]:
        key = step.replace("~1", "/").replace("~0", "~")
        if isinstance(value, dict) and key in value:
            value = value[key]
        elif isinstance(value, list) and key.isascii() and key.isdecimal() and int(key) < len(value):
            value = value[int(key)]
        else:
            raise errors.NotFound(f"there is nothing at {pointer[:200]!r}")
    return value


def member(key: str) -> str:
    """Return the pointer to a member of the top."""
    return "/" + _escaped(key)


def _escaped(key: str) -> str:
    return key.replace("~", "~0").replace("/", "~1")


def _unfold(node: Node, *, everything: bool) -> None:
    node.open = True
    for child in node.members if everything else ():
        _unfold(child, everything=True)


def _pairs(value: Any) -> list[tuple[Any, Any]]:
    return list(value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ())


def _node(value: Any, at: str, key: str) -> Node:
    match value:
        case dict():
            names = [wording.plain(str(name))[:_NAME_CHARACTERS_MAX] for name in itertools.islice(value, _NAMES)]
            told = ", ".join([*names, *(["…"] if len(value) > _NAMES else [])])
            return Node(at=at, key=key, kind="object", text=told, count=len(value), unopened=bool(value))
        case list():
            return Node(at=at, key=key, kind="array", count=len(value), unopened=bool(value))
        case Number():
            return Node(at=at, key=key, kind="number", text=value[:_TEXT_CHARACTERS_MAX])
        case str():
            text = wording.plain(value)
            cut = len(text) > _TEXT_CHARACTERS_MAX
            shown = json.dumps(text[:_TEXT_CHARACTERS_MAX], ensure_ascii=False)
            return Node(at=at, key=key, kind="text", text=shown, count=len(text), unopened=cut)
    return Node(at=at, key=key, text=json.dumps(value))
