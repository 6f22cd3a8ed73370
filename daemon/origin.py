"""What a client can do about where flows come from: have it looked at, and list, read, compare and restore the versions
that a flow had. Part of ``client``."""

from __future__ import annotations

import urllib.parse

from .endpoint import ANSWER_S, JSON, Asking

_PLAN_S = 300.0


class Origin(Asking):
    """The calls; whoever inherits them knows how to ask the daemon."""

    def sync_state(self) -> JSON:
        """Return what is published and how the last look at the source went."""
        return self._json("GET", "/sync")

    def sync(self, wait_s: float = 60) -> JSON:
        """Have the source looked at now and return how it went."""
        return self._json("POST", "/sync", query=[("wait", f"{wait_s:g}")], timeout_s=ANSWER_S + wait_s)

    def sync_plan(self) -> list[JSON]:
        """Return what looking now would change, for each source; nothing of it is done."""
        return list(self._json("POST", "/sync/plan", timeout_s=_PLAN_S)["items"])

    def flow_history(self, name: str, *, limit: int = 50) -> list[JSON]:
        """Return the newest versions of a flow, newest first; of one that was deleted, too."""
        return list(self._json("GET", _address(name, "/history"), query=[("limit", str(limit))])["items"])

    def flow_at(self, name: str, commit: str) -> JSON:
        """Return ``name``, ``commit`` and ``script`` as they were in a commit."""
        return self._json("GET", _address(name), query=[("commit", commit)])

    def flow_diff(self, name: str, old: str, new: str = "") -> str:
        """Return what a flow differs in between two commits (the second: what is published), as a unified diff."""
        return str(self._json("GET", _address(name, "/diff"), query=[("from", old), ("to", new)])["diff"])

    def restore_flow(self, name: str, commit: str, *, message: str = "") -> JSON:
        """Make the flow what it was in ``commit``, by a new commit."""
        return self._json("POST", _address(name, "/restore"), body={"commit": commit, "message": message})


def _address(name: str, part: str = "") -> str:
    return f"/flows/{urllib.parse.quote(name, safe='')}{part}"
