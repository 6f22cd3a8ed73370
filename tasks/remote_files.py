"""Files on another machine: the commands and inputs of SFTP, FTP and their like, and the way to and from the store.

A type brings a ``Place``, which speaks its protocol; what is asked of it, and what comes back, is the same for all.
"""

from __future__ import annotations

import contextlib
from collections.abc import AsyncGenerator, Sequence
from typing import Annotated, Literal, Protocol

import msgspec

from ..engine import ports
from . import definition as definitions
from . import host, stored_files

#: The largest file that is fetched.
FILE_BYTES_MAX = 8 * 1024**3
#: A folder with more entries is not listed.
ENTRIES_MAX = 20_000

Command = Annotated[
    Literal["copy", "list", "stat", "remove", "rename", "mkdir"],
    host.about("copy: src to dst; list: the folder 'path'; stat: about 'path'; remove: the file or empty folder "
    "'path'; rename: 'path' to 'new_path'; mkdir: the folder 'path'. Default: copy."),
]  # fmt: skip
Src = Annotated[str | None, host.about("What to copy: headrace:<path>, or a path on the server.")]
Dst = Annotated[str | None, host.about("Where to: a path on the server, or headrace:<path>. A file there is replaced.")]
Path = Annotated[str | None, host.about("The file or folder that the other commands are about.")]
NewPath = Annotated[str | None, host.about("What rename makes of it.")]


class Entry(msgspec.Struct, kw_only=True):
    """A file or folder: ``type`` is file, folder, link or other; ``modified`` in seconds since 1970."""

    name: str
    type: str
    size: int | None = None
    modified: int | None = None


class FilesOutput(msgspec.Struct, kw_only=True):
    """``size`` in bytes with copy, ``entries`` with list, ``entry`` with stat."""

    size: int | msgspec.UnsetType = msgspec.UNSET
    entries: list[Entry] | msgspec.UnsetType = msgspec.UNSET
    entry: Entry | msgspec.UnsetType = msgspec.UNSET


class Asked(Protocol):
    """The inputs that say what to do."""

    command: Command
    src: Src
    dst: Dst
    path: Path
    new_path: NewPath


class Transfer(Protocol):
    """What can be copied to and from. Each call raises ``host.Failed``."""

    def read(self, path: str) -> AsyncGenerator[bytes, None]:
        """Yield the file's content in pieces."""

    async def write(self, path: str, content: bytes) -> None:
        """Make or replace the file."""


class Place(Transfer, Protocol):
    """A server's files. Each call raises ``host.Failed``."""

    async def entries(self, path: str) -> Sequence[Entry]:
        """Return what is in the folder, but for itself and its parent."""

    async def entry(self, path: str) -> Entry:
        """Return what is known of the file or folder."""

    async def remove(self, path: str) -> None:
        """Remove the file or the empty folder."""

    async def rename(self, path: str, new_path: str) -> None:
        """Give it another name."""

    async def mkdir(self, path: str) -> None:
        """Make the folder."""


def check(task: str, asked: Asked) -> None:
    """Raise ``InputRefused`` for inputs that do not go with the command."""
    wanted = {"copy": ("src", "dst"), "rename": ("path", "new_path")}.get(asked.command, ("path",))
    for name in wanted:
        if not getattr(asked, name):
            raise definitions.missing(task, name, f"the command {asked.command} is about it")
    for name in {"src", "dst", "path", "new_path"} - set(wanted):
        if getattr(asked, name) is not None:
            raise definitions.invalid(task, name, f"the command {asked.command} does not use it")
    for name in wanted:
        if any(character < " " or character == "\x7f" for character in getattr(asked, name)):
            raise definitions.invalid(task, name, "it contains a control character")
    if asked.command == "copy":
        check_sides(task, asked.src, asked.dst)


def check_sides(task: str, src: str | None, dst: str | None) -> None:
    """Raise ``InputRefused`` unless one side of a copy is a file of the store."""
    if stored_files.is_named(src) == stored_files.is_named(dst):
        raise definitions.invalid(task, "dst", "expected headrace:<path> either as 'src' or as 'dst'")


def is_repeatable(asked: Asked) -> bool:
    """Return whether doing it twice is as good as once. A copy replaces a file by the same."""
    return asked.command in ("copy", "list", "stat")


async def performed(place: Place, asked: Asked, context: ports.TaskContext) -> FilesOutput:
    """Do what is asked; raises ``host.Failed`` and ``TaskFailed``."""
    path = asked.path or ""
    match asked.command:
        case "copy":
            return FilesOutput(size=await copied(place, asked.src or "", asked.dst or "", context))
        case "list":
            entries = sorted(await place.entries(path), key=lambda one: one.name)
            return FilesOutput(entries=entries)
        case "stat":
            return FilesOutput(entry=await place.entry(path))
        case "remove":
            await place.remove(path)
        case "rename":
            await place.rename(path, asked.new_path or "")
        case "mkdir":
            await place.mkdir(path)
    return FilesOutput()


async def copied(place: Transfer, src: str, dst: str, context: ports.TaskContext) -> int:
    """Copy a file to or from the store and return its size."""
    if stored_files.is_named(src):
        content = await stored_files.read(context, src)
        await place.write(dst, content)
        return len(content)
    total = 0
    async with stored_files.writing(context, dst) as sink, contextlib.aclosing(place.read(src)) as pieces:
        async for piece in pieces:
            total += len(piece)
            if total > FILE_BYTES_MAX:
                raise host.Failed(f"the file is larger than {FILE_BYTES_MAX >> 30} GiB")
            await sink.write(piece)
    return total


def bounded(entries: Sequence[Entry]) -> Sequence[Entry]:
    """Return the entries; raises ``host.Failed`` when there are too many."""
    if len(entries) > ENTRIES_MAX:
        raise host.Failed(f"the folder has more than {ENTRIES_MAX:,} entries")
    return entries
