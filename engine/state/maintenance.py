"""Whether nothing new begins for now, since when, and why. Pure, folded from events; changed by ``Kept.apply``."""

from __future__ import annotations

from .. import events, upkeep


class Maintenance:
    """``since`` is empty while everything is as usual."""

    def __init__(self) -> None:
        self.since = ""
        self.reason = ""
        self.by = ""

    def apply(self, event: events.MaintenanceEvent, at: str) -> None:
        """Change as ``event`` says. Begun twice, it goes on since the first time, for the newer reason."""
        match event:
            case upkeep.MaintenanceBegun():
                self.since = event.since or self.since or at
                self.reason, self.by = event.reason, event.by
            case upkeep.MaintenanceEnded():
                self.since = self.reason = self.by = ""

    def carried(self) -> upkeep.MaintenanceBegun | None:
        """Return what makes it as it is; None while everything is as usual."""
        return upkeep.MaintenanceBegun(reason=self.reason, by=self.by, since=self.since) if self.since else None

    def __str__(self) -> str:
        """What people are told; empty while everything is as usual."""
        if not self.since:
            return ""
        who = f" by {self.by}" if self.by else ""
        why = f": {self.reason}" if self.reason else ""
        return f"maintenance{why} (since {self.since[:16]}Z{who}); new executions wait until `headrace maintenance off`"
