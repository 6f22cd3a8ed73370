"""What a client can do about the versions that a flow had: list, read, compare and restore them. Part of ``client``."""

from __future__ import annotations

import abc
import urllib.parse
from collections.abc import Sequence
from typing import Any

from .endpoint import ANSWER_S

JSON = dict[str, Any]


class FormerFlows(abc.ABC):
    """The calls; whoever inherits them knows how to ask the daemon."""

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

    @abc.abstractmethod
    def _json(
        self,
        method: str,
        path: str,
        *,
        query: Sequence[tuple[str, str]] = (),
        body: JSON | None = None,
        headers: Any = None,
        timeout_s: float = ANSWER_S,
    ) -> JSON:
        """Ask for something and return the answer."""


def _address(name: str, part: str = "") -> str:
    return f"/flows/{urllib.parse.quote(name, safe='')}{part}"
