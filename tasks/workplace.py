"""The folder of one task's programs: files of the store go in and come out."""

from __future__ import annotations

import pathlib
from collections.abc import Sequence
from typing import Annotated

import msgspec

from ..engine import errors, ports
from . import blocking, host, stored_files
from . import definition as definitions

#: A file larger than this does not come out.
FILE_BYTES_MAX = 8 * 1024**3
_PIECE_BYTES = 1024 * 1024


class Copied(msgspec.Struct, forbid_unknown_fields=True):
    """A file to copy into the folder, or out of it."""

    src: str
    dst: str


CopyFiles = Annotated[
    list[Copied] | None, host.about("Files to put there before: [{src: headrace:<path>, dst: path in the folder}].")
]
OutputFiles = Annotated[
    list[Copied] | None, host.about("Files to keep afterwards: [{src: path in the folder, dst: headrace:<path>}].")
]


def check(task: str, copy_files: list[Copied] | None, output_files: list[Copied] | None) -> None:
    """Raise ``InputRefused`` for copies that do not go between the store and the folder."""
    sides = (("copy_files", copy_files, "src", "dst"), ("output_files", output_files, "dst", "src"))
    for name, copies, kept, inside in sides:
        for one in copies or ():
            if not stored_files.is_named(getattr(one, kept)):
                raise definitions.invalid(task, name, f"expected headrace:<path> as '{kept}'")
            if not is_inside(getattr(one, inside)):
                raise definitions.invalid(task, name, f"expected a path inside of the folder as '{inside}'")


def is_inside(path: str) -> bool:
    """Return whether a relative path stays in its folder."""
    parts = pathlib.PurePosixPath(path).parts
    return bool(parts) and not path.startswith("/") and ".." not in parts and "\0" not in path


async def bring_in(context: ports.TaskContext, folder: pathlib.Path, copies: Sequence[Copied]) -> None:
    """Copy from the store; raises ``TaskFailed`` for a file that is not there, ``host.Failed`` for a path that cannot
    be."""
    for one in copies:
        await blocking.call(write, folder, one.dst, await stored_files.read(context, one.src))


def write(folder: pathlib.Path, name: str, content: bytes) -> None:
    """Write a file, and what folders it needs; raises ``host.Failed``, as for one below another file."""
    target = folder / name
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(content)
    except OSError as error:
        raise host.Failed(f"cannot put the file '{name}' there: {error.strerror}") from None


async def take_out(context: ports.TaskContext, folder: pathlib.Path, copies: Sequence[Copied]) -> None:
    """Copy into the store; raises ``host.Failed`` for what is no file of the folder."""
    for one in copies:
        await blocking.call(_keep, context, folder, one)


def _keep(context: ports.TaskContext, folder: pathlib.Path, one: Copied) -> None:
    source = (folder / one.src).resolve()
    if not source.is_relative_to(folder.resolve()) or not source.is_file():
        raise host.Failed(f"there is no file '{one.src}' to keep")
    if source.stat().st_size > FILE_BYTES_MAX:
        raise host.Failed(f"the file '{one.src}' is larger than {FILE_BYTES_MAX >> 30} GiB")
    name = stored_files.path(one.dst)
    try:
        writer = context.files.write(name)
        try:
            with source.open("rb") as stream:
                while piece := stream.read(_PIECE_BYTES):
                    writer.write(piece)
            writer.commit()
        finally:
            writer.abort()
    except errors.HeadraceError as error:
        raise host.Failed(f"cannot write the file '{name}': {error.message}") from None
    except OSError as error:
        raise host.Failed(f"cannot write the file '{name}': {error.strerror}") from None
