"""Files that flows keep, as task types use them: named ``headrace:<path>``, read whole, written in pieces.

The store blocks, so everything passes through threads here. A file that is being written appears whole or not at all,
also when the task is cancelled in the middle.
"""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

from ..engine import errors, ports
from . import blocking

PREFIXES = ("headrace:", "cloudomation:")
#: Pieces are collected up to this size before a thread is bothered with them.
_PIECE_BYTES = 1024 * 1024


def is_named(value: Any) -> bool:
    """Return whether an input's value stands for a file of the store."""
    return isinstance(value, str) and value.startswith(PREFIXES)


def path(named: str) -> str:
    """Return the path in the store that ``headrace:<path>`` or a bare path names."""
    for prefix in PREFIXES:
        named = named.removeprefix(prefix)
    return named.lstrip("/")


async def read(context: ports.TaskContext, named: str) -> bytes:
    """Return the content; raises ``TaskFailed`` when there is no such file."""
    with told(f"read the file '{path(named)}'"):
        return await blocking.call(context.files.read, path(named))


@contextlib.contextmanager
def told(deed: str) -> Iterator[None]:
    """Raise ``TaskFailed`` for what the store cannot do in the block, with ``deed`` in the words."""
    try:
        yield
    except errors.HeadraceError as error:
        raise errors.TaskFailed(f"cannot {deed}: {error.message}") from None
    except OSError as error:
        raise errors.TaskFailed(f"cannot {deed}: {error.strerror}") from None


class Sink:
    """A file being written. Each call raises ``TaskFailed`` when the store cannot do it."""

    def __init__(self, files: ports.Files, name: str) -> None:
        self._files = files
        self._name = name
        self._writer: ports.FileWriter | None = None
        self._pending = bytearray()

    async def open(self) -> None:
        """Begin. What was begun can be aborted even when nobody waited for the end of this call."""
        await self._call(self._open)

    async def write(self, chunk: bytes) -> None:
        """Add bytes."""
        self._pending += chunk
        if len(self._pending) >= _PIECE_BYTES:
            await self._call(self._flush)

    async def commit(self) -> None:
        """Make the file visible."""
        await self._call(self._commit)

    async def abort(self) -> None:
        """Forget it, unless it was committed."""
        await self._call(self._abort)

    async def _call(self, function: Callable[[], None]) -> None:
        with told(f"write the file '{self._name}'"):
            await blocking.call(function)

    def _open(self) -> None:
        self._writer = self._files.write(self._name)

    def _flush(self) -> None:
        assert self._writer is not None, "open comes first"
        self._writer.write(bytes(self._pending))
        self._pending.clear()

    def _commit(self) -> None:
        self._flush()
        assert self._writer is not None, "open comes first"
        self._writer.commit()

    def _abort(self) -> None:
        if self._writer is not None:
            self._writer.abort()


@contextlib.asynccontextmanager
async def writing(context: ports.TaskContext, named: str) -> AsyncIterator[Sink]:
    """Give a sink whose file is visible after the block, or not at all when the block raises.

    Raises ``TaskFailed`` for a path that leaves the store."""
    sink = Sink(context.files, path(named))
    try:
        await sink.open()
        yield sink
        await sink.commit()
    finally:
        await sink.abort()


def put(context: ports.TaskContext, named: str, content: bytes) -> None:
    """Write a whole file, for code that blocks anyway; raises ``TaskFailed``."""
    name = path(named)
    with told(f"write the file '{name}'"):
        writer = context.files.write(name)
        try:
            writer.write(content)
            writer.commit()
        finally:
            writer.abort()
