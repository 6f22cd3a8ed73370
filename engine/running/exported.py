"""An exported execution, read as a daemon reads its own: what was recorded, in the generation that counts.

Values are as people see them: a secret stays the mark that stands for it.
"""

from __future__ import annotations

import msgspec

from .. import errors, events, model
from ..lifecycle import Status
from ..records import exports
from . import given, history

#: The message of an execution that was cancelled and whose handler left after it was told.
CANCELLED = "cancelled"


class Exported:
    """The record to replay. It is a ``views.Reading`` too."""

    def __init__(self, export: exports.Export) -> None:
        """Raises ``InvalidRequest`` for an export whose own execution is not in it."""
        self.header = export.header
        self.sources = export.sources
        self._export = export
        recorded = export.records.get(export.header.execution, [])
        state = model.Execution.told(recorded)
        if state is None:
            raise errors.InvalidRequest(f"the export of {export.header.execution} does not hold its own record")
        self.state = state
        self.history = history.of(recorded)
        self.given = given.Given(state.id, recorded, self.history, self)
        self.lines = self.given.lines
        self.end = next((event for event in self.lines if isinstance(event, events.ExecutionEnded)), None)

    @property
    def own_end(self) -> bool:
        """Whether the handler came to its end by itself, cancelled or not: nobody killed it, nothing was lost."""
        if self.end is None or self.end.reason:
            return False
        return self.end.status != Status.ENDED_CANCELLED or self.end.message == CANCELLED

    @property
    def effect(self) -> events.EffectNoticed | None:
        """The first effect of its own that the record tells of."""
        return self.state.effect

    @property
    def contents(self) -> Exported:
        """Where values are read."""
        return self

    async def shown(self, value: model.Value) -> msgspec.Raw:
        """Return a value; raises ``InvalidRequest`` if it is missing."""
        seen = value.shown if isinstance(value, model.Sealed) else value
        if not isinstance(seen, events.Blob):
            return seen
        if seen.sha256 not in self._export.blobs:
            raise errors.InvalidRequest(f"the value {seen.sha256} ({seen.bytes:,} bytes) is not in the export")
        return msgspec.Raw(self._export.blobs[seen.sha256])

    true = shown

    async def events_of(self, execution: str) -> list[events.Recorded]:
        """Return the record of an execution as far as it was exported."""
        return self._export.records.get(execution, [])

    async def load(self, execution: str) -> model.Execution:
        """Return an execution that an answer tells of; raises ``NotFound`` for one deleted before this was exported."""
        state = model.Execution.told(await self.events_of(execution))
        if state is None:
            raise errors.NotFound(f"execution {execution}, whose record had been deleted when this was exported")
        return state
