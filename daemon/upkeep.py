"""What a client can do about the daemon as a service: ask how it is, have its configuration read anew, have it log more
or less, begin and end maintenance. Part of ``client``."""

from __future__ import annotations

from .endpoint import JSON, Asking


class Upkeep(Asking):
    """The calls; whoever inherits them knows how to ask the daemon."""

    def status(self) -> JSON:
        """Return how the daemon is: ready or why not, maintenance, the level of its log, how its last reload went."""
        return self._json("GET", "/status")

    def reload(self) -> JSON:
        """Have the configuration read anew; returns which settings ``changed`` and which need a ``restart``.

        Raises ``Conflict`` with everything that is wrong with it; nothing has changed then."""
        return self._json("POST", "/reload")

    def set_log_level(self, level: str, *, for_s: float | None = None) -> JSON:
        """Have everything from ``level`` on logged for so many seconds, an hour unless said."""
        said: JSON = {"level": level} if for_s is None else {"level": level, "for_s": for_s}
        return self._json("PUT", "/log-level", body=said)

    def restore_log_level(self) -> JSON:
        """Have logged again what the settings say."""
        return self._json("DELETE", "/log-level")

    def begin_maintenance(self, reason: str = "") -> JSON:
        """Let nothing new begin: requests are taken, and wait."""
        return self._json("PUT", "/maintenance", body={"reason": reason})

    def end_maintenance(self) -> JSON:
        """Let begin what waited."""
        return self._json("DELETE", "/maintenance")
