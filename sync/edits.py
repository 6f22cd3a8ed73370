"""Changes to a flow's file: what may be asked for, and what it means for the files that are there. Pure.

Owns: the path that belongs to a flow's name, the form of a script, and the decision whether a change fits what the
repository holds by now. Refuses: names that cannot be flows, texts over the limit, overwriting what its author has
not seen. Made by ``write_back``, carried out by ``branch`` and ``folder``.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable

import msgspec

from ..engine import errors
from . import check, tree
from .places import Places

SCRIPT_BYTES_MAX = tree.PYTHON_BYTES_MAX
_AUTHOR_CHARACTERS_MAX = 200
_MESSAGE_CHARACTERS_MAX = 8_000
_DIFFERENCE_BYTES_MAX = 256 * 1024
# What git takes for the end of a name or strips from it.
_UNFIT = re.compile(r"[\x00-\x1f\x7f<>]+")

#: The blob a file is known to have: empty for no file, None where nothing is known.
Base = str | None


class Save(msgspec.Struct, frozen=True):
    """Make ``content`` the file at ``path``."""

    path: str
    content: bytes
    base: Base


class Delete(msgspec.Struct, frozen=True):
    """Remove the file at ``path``."""

    path: str
    base: Base


class Rename(msgspec.Struct, frozen=True):
    """Move the file at ``path`` to ``new_path``, where nothing is yet."""

    path: str
    new_path: str
    base: Base


Edit = Save | Delete | Rename


class Stale(errors.Conflict):
    """The file is not what the author of a change has seen: ``base`` is, and ``found`` is there now (two contents'
    shas, empty for none; ``content`` is what was found, where only whoever found it has it)."""

    def __init__(self, message: str, *, hint: str, base: str, found: str, content: bytes | None = None) -> None:
        super().__init__(message, hint=hint)
        self.base = base
        self.found = found
        self.content = content


class Note(msgspec.Struct, frozen=True):
    """Who changes it and why, fit for a commit; ``since`` is the commit that the author has seen.

    ``on_behalf_of``: who had it done, where a flow did it."""

    author: str
    message: str
    since: str = ""
    on_behalf_of: str = ""

    def __post_init__(self) -> None:
        """Leave out what git cannot hold."""
        author, other = (_person(name) for name in (self.author, self.on_behalf_of))
        message = _encodable(self.message).replace("\0", "")[:_MESSAGE_CHARACTERS_MAX].strip()
        msgspec.structs.force_setattr(self, "author", author or "headrace")
        msgspec.structs.force_setattr(self, "message", message or "Change a flow")
        msgspec.structs.force_setattr(self, "on_behalf_of", other if other != self.author else "")


def path_of(name: str, places: Places) -> str:
    """Return the file of the flow called ``name``; raises ``InvalidRequest`` if there can be none."""
    path = f"{name}.py"
    try:
        tree.check_path(path)
    except tree.TreeRefused as refused:
        raise errors.InvalidRequest(
            f"no flow can be called {name[:200]!r}: {refused.message}",
            hint="a name is a path below the flows, as sub/dir/my flow",
        ) from None
    if not places.may_be_flow(path) or name.rpartition("/")[2] in (".", ".."):
        raise errors.InvalidRequest(
            f"no flow can be called {name[:200]!r}: its file {path!r} would not be taken for one",
            hint="flows are not called __init__ or conftest, and lie in no folder that is called tests, begins with a "
            "dot or an underscore, or holds files",
        )
    return path


def text_of(script: str) -> bytes:
    """Return a script as it is stored, in UTF-8 with a newline after each line.

    Raises ``InvalidRequest`` and ``TooLarge``."""
    text = script.replace("\r\n", "\n").replace("\r", "\n")
    try:
        content = text.encode() if text.endswith("\n") else text.encode() + b"\n"
    except UnicodeEncodeError as error:
        raise errors.InvalidRequest(
            f"the script holds a character that is none: {error.object[error.start]!a}"
        ) from None
    if len(content) > SCRIPT_BYTES_MAX:
        raise errors.TooLarge(
            f"the script is {len(content):,} bytes, the limit is {SCRIPT_BYTES_MAX:,}",
            hint="put data into files and let the flow read them",
        )
    return content


def check_base(edit: Edit, found: str, note: Note, now: str, content: bytes | None = None) -> None:
    """Raise ``Stale`` if the file is not what the author has seen; ``now`` says where it was found otherwise."""
    if edit.base is None or edit.base == found:
        return
    since = f" since commit {note.since[:12]}, which is published" if note.since else ""
    what = "was changed" if edit.base and found else "was removed" if edit.base else "was made by somebody else"
    raise Stale(
        f"the flow {check.flow_name(edit.path)!r} {what} in {now}{since}",
        hint="wait for the sync, look at what is there now, and make the change again",
        base=edit.base,
        found=found,
        content=content,
    )


def fitted(edit: Edit, entries: Iterable[tree.Entry], note: Note, now: str) -> dict[str, tree.Entry | None]:
    """Return path → what it becomes (None: nothing) in a commit with ``entries``; empty if it is so already.

    Raises ``NotFound``, ``Conflict`` and ``InvalidRequest``."""
    files = {entry.path: entry for entry in entries}
    there = files.get(edit.path)
    found = there.blob if there else ""
    if isinstance(edit, Save):
        blob = tree.blob_sha(edit.content)
        if there is not None and there.blob == blob:
            return {}
        check_base(edit, found, note, now)
        becomes = tree.Entry(edit.path, blob, _mode(there), len(edit.content))
        if there is None:
            _check_addition(becomes, files)
        return {edit.path: becomes}
    if there is None:
        raise missing(check.flow_name(edit.path))
    check_base(edit, found, note, now)
    mode = _mode(there)
    if isinstance(edit, Delete):
        return {edit.path: None}
    if edit.new_path in files:
        raise taken(check.flow_name(edit.new_path))
    del files[edit.path]
    moved = msgspec.structs.replace(there, path=edit.new_path, mode=mode)
    _check_addition(moved, files)
    return {edit.path: None, edit.new_path: moved}


def missing(name: str) -> errors.NotFound:
    """Return the complaint that there is no such flow."""
    return errors.NotFound(f"there is no flow {name!r} in the repository", hint="`headrace flows` lists what there is")


def taken(name: str) -> errors.Conflict:
    """Return the complaint that something else has this name."""
    return errors.Conflict(f"there is a file {name + '.py'!r} already", hint="choose another name, or delete that one")


def _mode(there: tree.Entry | None) -> str:
    """Return the mode a file keeps; raises ``Conflict`` for what is no file."""
    if there is None:
        return "100644"
    if there.mode not in ("100644", "100755"):
        raise errors.Conflict(f"{there.path!r} is a link or a submodule in the repository", hint="change it with git")
    return there.mode


def _check_addition(new: tree.Entry, files: dict[str, tree.Entry]) -> None:
    """Refuse a path that would make the whole commit unfit, or that cannot be beside what is there."""
    inside = next((path for path in files if path.startswith(f"{new.path}/")), "")
    above = next((part for part in _parents(new.path) if part in files), "")
    if inside or above:
        raise errors.Conflict(
            f"{new.path!r} cannot be beside {inside or above!r}: one is a file, the other a folder of that name",
            hint="choose another name",
        )
    try:
        tree.plan([*files.values(), new])
    except tree.TreeRefused as refused:
        raise errors.InvalidRequest(
            f"with {new.path!r} the repository could not be published: {refused.message}", hint=refused.hint
        ) from None


def _parents(path: str) -> Iterable[str]:
    while path := path.rpartition("/")[0]:
        yield path


def difference(path: str, before: bytes, after: bytes) -> str:
    """Return what became of a file as a unified diff; empty if it is too long for anybody to read."""
    if len(before) + len(after) > _DIFFERENCE_BYTES_MAX:
        return ""
    old, new = (content.decode("utf-8", "replace").splitlines(keepends=True) for content in (before, after))
    lines = difflib.unified_diff(old, new, f"a/{path}", f"b/{path}")
    return "".join(line if line.endswith("\n") else f"{line}\n" for line in lines)


def _person(name: str) -> str:
    return _UNFIT.sub(" ", _encodable(name)).strip(" .,:;\"'\\")[:_AUTHOR_CHARACTERS_MAX]


def _encodable(text: str) -> str:
    return text.encode("utf-8", "replace").decode()
