"""The events of looking after a daemon: from when to when nothing new begins.

A part of the vocabulary in ``events``, where everybody finds them.
"""

from __future__ import annotations

from .event import Event


class MaintenanceBegun(Event, frozen=True, tag="maintenance.begun"):
    """From here on what is asked for is taken and waits; what has begun goes on. ``since`` if that was said before."""

    reason: str = ""
    by: str = ""
    since: str = ""  # RFC 3339: when it began, if this only says again what stood in a segment that is to go


class MaintenanceEnded(Event, frozen=True, tag="maintenance.ended"):
    """What waited begins."""

    by: str = ""
