"""DOCKER's files: from the store into a container or a build, and out of a container; between them lie tar archives.

They pass through a private folder, so that memory holds none of it whole but what the store reads.
"""

from __future__ import annotations

import contextlib
import pathlib
import tarfile
from collections.abc import AsyncIterator, Sequence
from typing import IO

import aiohttp

from ..engine import errors, ports
from . import archives, blocking, docker_engine, host, stored_files, workplace
from . import docker_inputs as asked

#: Around a file in an archive: its head, a long name, what fills the last block.
_AROUND_BYTES = 64 * 1024
_PIECE_BYTES = 1024 * 1024
_TAR = {"Content-Type": "application/x-tar"}


async def bring_in(
    engine: docker_engine.Engine,
    container: str,
    context: ports.TaskContext,
    folder: pathlib.Path,
    copies: Sequence[workplace.Copied],
) -> None:
    """Put files of the store into a container, at absolute paths; raises ``TaskFailed`` and ``host.Failed``."""
    if not copies:
        return
    inside = folder / "in"
    relative = [workplace.Copied(src=one.src, dst=one.dst.lstrip("/")) for one in copies]
    await workplace.bring_in(context, inside, relative)
    async with packed(inside, folder / "in.tar") as content:
        await engine.call("PUT", f"/containers/{container}/archive", {"path": "/"}, data=content, headers=_TAR)


async def take_out(
    engine: docker_engine.Engine,
    container: str,
    context: ports.TaskContext,
    folder: pathlib.Path,
    copies: Sequence[workplace.Copied],
) -> None:
    """Keep files of a container in the store; raises ``host.Failed`` for what is no file there."""
    for one in copies:
        archive, found = folder / "out.tar", folder / "out"
        try:
            async with engine.answered("GET", f"/containers/{container}/archive", {"path": one.src}) as response:
                await _save(response, archive, one.src)
        except host.Failed as failed:
            if failed.words.startswith("status 404: "):
                raise host.Failed(f"there is no file '{one.src}' to keep: {failed.words}") from None
            raise
        await blocking.call(_only_file, archive, found, one.src)
        await workplace.take_out(context, folder, [workplace.Copied(src=found.name, dst=one.dst)])


async def _save(response: aiohttp.ClientResponse, target: pathlib.Path, shown: str) -> None:
    left = workplace.FILE_BYTES_MAX + _AROUND_BYTES
    with target.open("wb") as stream:
        async for chunk in response.content.iter_chunked(_PIECE_BYTES):
            left -= len(chunk)
            if left < 0:
                raise host.Failed(f"the file '{shown}' is larger than {workplace.FILE_BYTES_MAX >> 30} GiB")
            await blocking.call(stream.write, chunk)


def _only_file(archive: pathlib.Path, target: pathlib.Path, shown: str) -> None:
    """Take the one file out of what the engine sent; the name in there does not matter."""
    try:
        with tarfile.open(archive) as tar:
            member = tar.next()
            source = tar.extractfile(member) if member is not None and member.isreg() else None
            if source is None:
                raise host.Failed(f"there is no file '{shown}' to keep: it is something else")
            with source, target.open("wb") as stream:
                while piece := source.read(_PIECE_BYTES):
                    stream.write(piece)
    except (tarfile.TarError, EOFError, *host.GARBAGE):
        raise host.Failed(f"what the engine sends as the file '{shown}' is no archive") from None


async def gather(inputs: asked.DockerInputs, context: ports.TaskContext, folder: pathlib.Path) -> None:
    """Put together what an image is made of; what is named later wins: archive, copies, texts."""
    if inputs.archive is not None:
        content = await stored_files.read(context, inputs.archive)
        try:
            await blocking.call(_unpack, archives.kind(inputs.archive) or "tar", content, folder)
        except archives.ArchiveInvalid as problem:
            name = stored_files.path(inputs.archive)
            raise errors.TaskFailed(f"cannot unpack the file '{name}': {problem}") from None
    await workplace.bring_in(context, folder, inputs.copy_files or ())
    for name, text in (inputs.files or {}).items():
        await blocking.call(workplace.write, folder, name, text.encode())


def _unpack(form: str, content: bytes, folder: pathlib.Path) -> None:
    for name, data in archives.unpacked(form, content):
        workplace.write(folder, name, data)


@contextlib.asynccontextmanager
async def packed(folder: pathlib.Path, archive: pathlib.Path) -> AsyncIterator[IO[bytes]]:
    """Give the files of a folder as a tar archive to send.

    Folders are not named in it: of one that is there already, owner and mode would become others."""
    await blocking.call(_pack, folder, archive)
    with archive.open("rb") as stream:
        yield stream


def _pack(folder: pathlib.Path, archive: pathlib.Path) -> None:
    with tarfile.open(archive, "w", format=tarfile.PAX_FORMAT) as tar:
        for path in sorted(one for one in folder.rglob("*") if one.is_file()):
            about = tar.gettarinfo(path, str(path.relative_to(folder)))
            about.uid, about.gid, about.uname, about.gname = 0, 0, "", ""
            about.mode = 0o755  # the store knows no modes; docker does the same with files of Windows
            with path.open("rb") as stream:
                tar.addfile(about, stream)
