"""What the calls of a record were given, as far as it tells: a replay is compared with this where that is asked for.

Built from the lines about one execution, in order, of which only its present generation counts. What a child was given
stands in the child's own record, which is read when it is asked for.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec

from .. import events, model, values
from . import history, views


class Given:
    """The arguments of each call."""

    def __init__(
        self, execution: str, recorded: Sequence[events.Recorded], told: history.History, reading: views.Reading
    ) -> None:
        begins = max((n for n, r in enumerate(recorded) if isinstance(r.event, events.ExecutionRestarted)), default=0)
        self.lines = [line.event for line in recorded[begins:]]
        #: The event that tells what each call was given, by number.
        self.said = {call: event for event in self.lines if (call := _tells_of(event))}
        self._execution = execution
        self._history = told
        self._reading = reading

    async def value(self, raw: msgspec.Raw | msgspec.UnsetType, blob: events.Blob | None) -> Any:
        """Return a value as people see it; None for one that was not given. Raises ``InvalidRequest`` if it is lost."""
        if raw is msgspec.UNSET and blob is None:
            return None
        return values.decode(await self._reading.contents.shown(model.value(raw, blob)))

    async def child(self, number: int) -> events.ExecutionCreated | None:
        """Return the creation of the child that a call made, None if that is not known (any more)."""
        entry = self._history.find(number)
        for recorded in (
            await self._reading.events_of(entry.children[0]) if entry is not None and entry.children else ()
        ):
            event = recorded.event
            if isinstance(event, events.ExecutionCreated) and event.parent_call == number:
                return event if event.parent == self._execution else None
        return None


def _tells_of(event: events.AnyEvent) -> int:
    """Return the number of the call whose arguments an event tells, 0 if it tells none."""
    match event:
        case events.CallStarted() | events.LogWritten() | events.WebhookAnswered():
            return event.call
        case events.CallEnded() | events.ExecutionSaved() if event.kind:
            return event.call
    return 0
