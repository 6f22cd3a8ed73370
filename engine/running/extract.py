"""What has to be exported of an execution so that it can be replayed where there is nothing else. Reads only.

Its own lines whole; of an execution that an answer told of, the lines that what was told is made from. The same for a
daemon's index and for files that no daemon owns now.
"""

from __future__ import annotations

import asyncio
import platform
from collections.abc import AsyncIterator, Callable, Iterable
from pathlib import Path

import msgspec

from ... import __version__
from .. import errors, events, model, values
from ..records import blobs, exports, reading, shelf
from . import history, live, recall

#: Of an execution that an answer told of, what it printed and which values its calls had tell nobody anything.
_UNSAID = ("args_blob", "result_blob", "inputs_blob", "body_blob", "script_blob")
#: A source file over this size is data; so it is not needed to replay, or has to be brought by hand.
_SOURCE_BYTES_MAX = 4 * 1024 * 1024


class Extracts(msgspec.Struct, frozen=True):
    """Makes exports from one state directory."""

    archive: live.Archive
    records: Path  # the folder of the journal
    blobs: blobs.Blobs
    sources: Callable[[str], Iterable[tuple[str, bytes]]]  # the Python files of a commit by path; blocking
    workspace: str = ""
    environment: str = ""

    async def of(self, execution: str) -> AsyncIterator[bytes]:
        """Yield the lines of an execution's export. Raises ``NotFound``, and ``InvalidRequest`` for a task."""
        own = await self.archive.events_of(execution)
        state = model.Execution.told(own)
        if state is None or state.deleted:
            raise errors.NotFound(f"there is no execution {execution!r}", hint="`headrace executions` lists them")
        if state.type == "TASK":
            raise errors.InvalidRequest(f"execution {execution} is a task: only flows have a handler to replay")
        count = 0
        async for line in self._lines(own, state):
            yield line
            count += 1
        yield exports.end_line(count)

    async def _lines(self, own: list[events.Recorded], state: model.Execution) -> AsyncIterator[bytes]:
        yield exports.header_line(
            exports.Header(
                headrace=__version__,
                python=platform.python_version(),
                execution=state.id,
                type=state.type,
                flow=state.flow_name,
                path=state.path,
                commit=state.commit,
                workspace=self.workspace,
                environment=self.environment,
            )
        )
        for path, content in await asyncio.to_thread(lambda: list(self.sources(state.commit) if state.commit else ())):
            if len(content) <= _SOURCE_BYTES_MAX:
                yield exports.source_line(path, content)
        told = [line for id_ in await self._told_of(own, state) for line in await self._tellable(id_)]
        needed = dict.fromkeys([*_blobs(own, ()), *_blobs(told, _UNSAID)])
        for blob in needed:
            yield exports.blob_line(blob.sha256, await asyncio.to_thread(self.blobs.get, blob))
        for recorded in sorted([*own, *told], key=lambda line: line.seq):
            yield await asyncio.to_thread(self._line, recorded)

    def _line(self, recorded: events.Recorded) -> bytes:
        """A line as it stands in the journal; one that was carried to a later place, as it would stand alone."""
        end = recorded.offset + recorded.length
        line = reading.line(self.records, recorded.segment, recorded.offset, end)
        if line.startswith(b'{"seq":%d,' % recorded.seq):
            return line
        event = msgspec.json.encode(recorded.event)
        return b'{"seq":%d,"at":"%b",%b\n' % (recorded.seq, recorded.at.encode(), event[1:])

    async def _told_of(self, own: list[events.Recorded], state: model.Execution) -> list[str]:
        """The executions whose ends this one's answers tell."""
        found: dict[str, None] = {}
        for entry in history.of(own).entries():
            if entry.failure is not None:
                found |= dict.fromkeys([entry.failure.execution] if entry.failure.execution else [])
            elif entry.children and entry.ended:
                found |= dict.fromkeys(recall.ended_in(values.decode(await self._shown(entry.result))))
        found.pop(state.id, None)
        return list(found)

    async def _shown(self, value: model.Value) -> bytes:
        seen = value.shown if isinstance(value, model.Sealed) else value
        return await asyncio.to_thread(self.blobs.get, seen) if isinstance(seen, events.Blob) else bytes(seen)

    async def _tellable(self, execution: str) -> list[events.Recorded]:
        """The lines of another execution that its end as flows learn it is made from; none if it was deleted."""
        lines = await self.archive.events_of(execution)
        return [line for line in lines if not (isinstance(line.event, events.LogWritten) and line.event.stream)]


def _blobs(lines: Iterable[events.Recorded], unsaid: tuple[str, ...]) -> Iterable[events.Blob]:
    """Every blob that events refer to, but in the fields ``unsaid``; logs are always told whole."""
    for line in lines:
        for field in line.event.__struct_fields__:
            value = getattr(line.event, field)
            if isinstance(value, events.Blob) and (field not in unsaid or isinstance(line.event, events.LogWritten)):
                yield value
            elif isinstance(value, dict):
                yield from (inner for inner in value.values() if isinstance(inner, events.Blob))


def from_files(state: Path) -> tuple[Extracts, shelf.Shelf]:
    """Return what makes exports from a state directory that no daemon works in now, and its records."""
    records, snapshots = shelf.Shelf(state / "records"), state / "snapshots"
    store = blobs.Blobs(state / "blobs")
    return Extracts(records, state / "records", store, lambda commit: _below(snapshots / commit)), records


def _below(top: Path) -> Iterable[tuple[str, bytes]]:
    """The Python files of a snapshot, by path; none if it was cleaned away."""
    files = (path for path in sorted(top.rglob("*.py")) if path.is_file())
    return ((path.relative_to(top).as_posix(), path.read_bytes()) for path in files)
