"""Edits back to the repository: what people and flows change of flows, as ``ports.Authoring`` promises it.

Owns: the order of a change (name and text are checked, a turn is waited for, a thread carries it out, a sync pass is
asked for), and what is known of changes that are in the repository and not in the catalogue yet: the next change of
the same file builds on them, and a renamed flow keeps its id. That memory may be lost: a flow that moved unchanged is
recognised by its content. Refuses: everything, where ``source.write_back`` is off. Made by ``loop``; called by flows
and by people through the engine. What a crash leaves is told in ``branch`` and ``folder``: one of them does the work.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from typing import Protocol

import msgspec

from ..engine import errors
from . import catalogue, edits, tree
from .candidate import Workshop
from .source import Source


class Passes(Protocol):
    """The sync loop, as far as it concerns whoever writes."""

    @property
    def manifest(self) -> catalogue.Manifest | None:
        """What is published."""

    @property
    def asked(self) -> int:
        """How often a pass was asked for."""

    @property
    def seen_through(self) -> int:
        """The asking that the last pass answered which could look at the source."""

    def nudge(self, reason: str) -> None:
        """Ask for a pass."""

    async def wait(self, condition: Callable[[], bool], timeout: float) -> None:
        """Return after the pass that makes ``condition`` true, or when the time is up."""


class Change(msgspec.Struct, frozen=True):
    """A change that the repository has and the catalogue perhaps not: path → blob (empty: gone), and old, new path."""

    files: Mapping[str, edits.Base]
    moved: tuple[str, str] = ("", "")


class WriteBack:
    """Changes flows of one source. All methods belong to the event loop."""

    def __init__(self, source: Source, workshop: Workshop, passes: Passes) -> None:
        self.turn = asyncio.Lock()  # a pass or a change, never both: they share the mirror
        self._source = source
        self._workshop = workshop
        self._passes = passes
        self._changes: list[Change] = []
        self._written = 0
        self._settled = 0
        self._asked = 0
        self._running: set[asyncio.Task[str]] = set()

    async def save_flow(self, name: str, script: str, *, author: str, message: str = "", on_behalf_of: str = "") -> str:
        """See ``ports.Authoring``."""
        path = edits.path_of(name, self._source.places)
        edit = edits.Save(path, edits.text_of(script), self._base(path))
        return await self._write(edit, self._note(author, message or f'Save flow "{name}"', on_behalf_of))

    async def delete_flow(self, name: str, *, author: str, message: str = "", on_behalf_of: str = "") -> str:
        """See ``ports.Authoring``."""
        path = edits.path_of(name, self._source.places)
        note = self._note(author, message or f'Delete flow "{name}"', on_behalf_of)
        return await self._write(edits.Delete(path, self._base(path)), note)

    async def rename_flow(
        self, name: str, new_name: str, *, author: str, message: str = "", on_behalf_of: str = ""
    ) -> str:
        """See ``ports.Authoring``."""
        path, new_path = (edits.path_of(one, self._source.places) for one in (name, new_name))
        edit = edits.Rename(path, new_path, self._base(path))
        return await self._write(
            edit, self._note(author, message or f'Rename flow "{name}" to "{new_name}"', on_behalf_of)
        )

    async def published(self, timeout_s: float) -> bool:
        """See ``ports.Authoring``. A commit that the policy refuses is not waited for."""
        written, asked = self._written, self._asked
        await self._passes.wait(lambda: self._settled >= written or self._passes.seen_through >= asked, timeout_s)
        return self._settled >= written

    def pending(self) -> tuple[int, dict[str, str]]:
        """Return how many changes the catalogue may lack, and new path → old path of the flows they moved.

        Called by a pass in its turn, so that it sees them all in the source."""
        moved: dict[str, str] = {}
        for change in self._changes:
            for path, blob in change.files.items():
                if blob == "" and path != change.moved[0]:
                    moved.pop(path, None)
            old, new = change.moved
            if new:  # where the flow of that path has moved away before, it was a new one that moved
                moved[new] = moved.pop(old, "" if old in moved.values() else old)
        return len(self._changes), moved

    def settle(self, count: int) -> None:
        """Forget the first ``count`` changes: the catalogue has them."""
        del self._changes[:count]
        self._settled += count

    async def close(self) -> None:
        """Break off what is under way, for an orderly stop; a change is then in the repository or not at all."""
        if self._running:
            self._workshop.interrupt()
            await asyncio.wait(self._running)

    def _base(self, path: str) -> edits.Base:
        """Return the blob at ``path`` that the author can have seen."""
        for change in reversed(self._changes):
            if path in change.files:
                return change.files[path]
        manifest = self._passes.manifest
        return manifest.files.get(path, "") if manifest else None

    def _note(self, author: str, message: str, on_behalf_of: str) -> edits.Note:
        """Return who changes what, and the commit that they can have seen."""
        manifest = self._passes.manifest
        return edits.Note(author, message, manifest.catalogue.commit if manifest else "", on_behalf_of)

    async def _write(self, edit: edits.Edit, note: edits.Note) -> str:
        if not self._source.write_back:
            raise errors.NotAllowed(
                f"{self._source.name} is not written to: write-back is off",
                hint="set source.write_back = true and let the daemon push, or change the flow in the repository",
            )
        # Whoever asked may go away meanwhile; what was begun is carried to its end.
        task = asyncio.create_task(self._carry_out(edit, note), name="sync.write")
        self._running.add(task)
        task.add_done_callback(self._ended)
        return await asyncio.shield(task)

    async def _carry_out(self, edit: edits.Edit, note: edits.Note) -> str:
        try:
            async with self.turn:
                commit = await asyncio.to_thread(self._workshop.apply, edit, note)
                self._changes.append(_change(edit))
                self._written += 1
        finally:
            self._passes.nudge("write-back")
        self._asked = self._passes.asked
        return commit

    def _ended(self, task: asyncio.Task[str]) -> None:
        self._running.discard(task)
        if not task.cancelled():
            task.exception()  # looked at, in case that nobody waits any more


def _change(edit: edits.Edit) -> Change:
    match edit:
        case edits.Save():
            return Change({edit.path: tree.blob_sha(edit.content)})
        case edits.Delete():
            return Change({edit.path: ""})
        case edits.Rename():
            return Change({edit.path: "", edit.new_path: edit.base}, (edit.path, edit.new_path))
