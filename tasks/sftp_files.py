"""Files over a connection of SSH, by its file transfer protocol: for SFTP and for the files that SSH copies."""

from __future__ import annotations

import contextlib
import functools
import stat
from collections.abc import AsyncGenerator, AsyncIterator, Iterator, Sequence
from typing import TYPE_CHECKING, Any

from ..engine import ports
from . import blocking, extras, host, remote_files, stored_files

if TYPE_CHECKING:
    import asyncssh

_PIECE_BYTES = 256 * 1024
#: A file arrives under a name beside its own, and replaces it when it is there whole.
_BESIDE = ".headrace-part"

is_named = stored_files.is_named


class SftpPlace:
    """Implements ``remote_files.Place``."""

    def __init__(self, client: asyncssh.SFTPClient, library: Any) -> None:
        self._client, self._library = client, library

    async def read(self, path: str) -> AsyncGenerator[bytes, None]:
        with self._told(path):
            async with self._client.open(path, "rb") as file:
                while piece := await file.read(_PIECE_BYTES):
                    yield bytes(piece)  # type: ignore[arg-type]

    async def write(self, path: str, content: bytes) -> None:
        beside = path + _BESIDE
        with self._told(path):
            try:
                async with self._client.open(beside, "wb") as file:
                    for start in range(0, len(content), _PIECE_BYTES):
                        await file.write(content[start : start + _PIECE_BYTES])
                await self._replace(beside, path)
            except BaseException:
                with contextlib.suppress(self._library.Error, OSError):
                    await self._client.remove(beside)
                raise

    async def _replace(self, beside: str, path: str) -> None:
        try:
            await self._client.posix_rename(beside, path)
        except self._library.SFTPOpUnsupported:
            with contextlib.suppress(self._library.SFTPError):
                await self._client.remove(path)
            await self._client.rename(beside, path)

    async def entries(self, path: str) -> Sequence[remote_files.Entry]:
        found = []
        with self._told(path):
            async for one in self._client.scandir(path):
                name = str(one.filename)
                if name not in (".", ".."):
                    found.append(_entry(name, one.attrs))
                    remote_files.bounded(found)
        return found

    async def entry(self, path: str) -> remote_files.Entry:
        with self._told(path):
            return _entry(path.rstrip("/").rpartition("/")[2] or path, await self._client.lstat(path))

    async def remove(self, path: str) -> None:
        with self._told(path):
            if (await self.entry(path)).type == "folder":
                await self._client.rmdir(path)
            else:
                await self._client.remove(path)

    async def rename(self, path: str, new_path: str) -> None:
        with self._told(path):
            await self._client.rename(path, new_path)

    async def mkdir(self, path: str) -> None:
        with self._told(path):
            await self._client.mkdir(path)

    @contextlib.contextmanager
    def _told(self, path: str) -> Iterator[None]:
        try:
            yield
        except (self._library.SFTPConnectionLost, self._library.SFTPNoConnection):
            raise host.Failed("the connection broke", passing=True) from None
        except self._library.SFTPNoSuchFile:
            raise host.Failed(f"there is no '{path}' on the server, or no folder for it") from None
        except self._library.SFTPPermissionDenied:
            raise host.Failed(f"the server does not permit it for '{path}'") from None
        except self._library.SFTPError as error:
            raise host.Failed(f"the server cannot do it for '{path}': {host.quoted(error.reason)}") from None


def _entry(name: str, attributes: asyncssh.SFTPAttrs) -> remote_files.Entry:
    kinds = ((stat.S_ISREG, "file"), (stat.S_ISDIR, "folder"), (stat.S_ISLNK, "link"))
    mode = attributes.permissions or 0
    kind = next((name for is_kind, name in kinds if is_kind(mode)), "other")
    modified = None if attributes.mtime is None else int(attributes.mtime)
    return remote_files.Entry(name=name, type=kind, size=attributes.size, modified=modified)


@contextlib.asynccontextmanager
async def place(connection: asyncssh.SSHClientConnection, task: str) -> AsyncIterator[SftpPlace]:
    """Give the server's files; raises ``host.Failed`` when it has no such service."""
    library = await blocking.call(
        functools.partial(extras.require, "asyncssh", extra="ssh", task=task)
    )  # it made the connection, so it is there
    try:
        client = await connection.start_sftp_client()
    except (library.SFTPError, library.ChannelOpenError) as error:
        raise host.Failed(f"the server does not transfer files: {host.quoted(error.reason)}") from None
    async with client:
        yield SftpPlace(client, library)


async def copied(connection: asyncssh.SSHClientConnection, src: str, dst: str, context: ports.TaskContext) -> None:
    """Copy a file to or from the store; raises ``host.Failed`` and ``TaskFailed``."""
    async with place(connection, "SSH") as files:
        await remote_files.copied(files, src, dst, context)
