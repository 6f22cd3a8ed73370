"""The files that flows keep, as a running task sees them: read whole, written in pieces; see ``ports.Files``.

Tasks use this in threads, while the keeper lives on the event loop. A file becomes visible when its content is durable
and its record is appended, both before ``commit`` returns.
"""

from __future__ import annotations

import asyncio

from .. import ports
from ..records import blobs
from ..state import kinds
from . import keeper


class TaskFiles:
    """The keeper's files for one task."""

    def __init__(self, records: keeper.Keeper, store: blobs.Blobs, actor: keeper.Actor) -> None:
        self._keeper = records
        self._blobs = store
        self._actor = actor
        self._loop = asyncio.get_running_loop()
        records.adopt()

    def read(self, path: str) -> bytes:
        """Return the content; raises ``NotFound``."""
        return self._keeper.read_file_here(path)

    def write(self, path: str) -> ports.FileWriter:
        """Begin to write the file ``path``; raises ``InvalidRequest`` for a path that leaves the store."""
        return Writer(kinds.name_of("file", path), self._blobs.writer(), self)

    def move(self, path: str, new_path: str) -> int:
        """Give a file another path and return its size; see ``ports.Files``."""
        moved = self._keeper.move_file(path, new_path, self._actor)
        return asyncio.run_coroutine_threadsafe(moved, self._loop).result().bytes

    def put(self, name: str, content: blobs.Writer) -> None:
        """Make it visible, from a thread."""
        blob = content.finish()

        async def append() -> None:
            self._keeper.put_file(name, blob, self._actor)

        asyncio.run_coroutine_threadsafe(append(), self._loop).result()


class Writer:
    """A file on its way; see ``ports.FileWriter``."""

    def __init__(self, name: str, content: blobs.Writer, store: TaskFiles) -> None:
        self._name = name
        self._content = content
        self._store = store

    def write(self, chunk: bytes) -> None:
        """Add bytes."""
        self._content.write(chunk)

    def commit(self) -> None:
        """Make it durable under its name."""
        self._store.put(self._name, self._content)

    def abort(self) -> None:
        """Forget it."""
        self._content.abort()
