"""The daemons somebody logged in to from this machine: address → token, and the one meant when nothing else says so.

``$XDG_CONFIG_HOME/headrace/logins.json``, mode 0600, written whole. Called by the client to find a token, and by
``headrace login`` and ``logout``. Standard library alone, because the command line must start quickly.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

from . import private_files


class Logins:
    """What the file says. One that is not there, or cannot be read, says nothing."""

    def __init__(self, path: Path) -> None:
        self._path = path
        try:
            found = json.loads(path.read_bytes())
        except (OSError, ValueError):
            found = {}
        known = found if isinstance(found, dict) else {}
        tokens = known.get("tokens")
        self.tokens: dict[str, str] = dict(tokens) if isinstance(tokens, dict) else {}
        self.current: str = known.get("current") or ""

    @classmethod
    def of(cls, environ: Mapping[str, str]) -> Logins:
        """Return those of whoever has this environment."""
        home = environ.get("XDG_CONFIG_HOME") or str(Path(environ.get("HOME", "/")) / ".config")
        return cls(Path(home) / "headrace" / "logins.json")

    def add(self, url: str, token: str) -> None:
        """Remember a token, and that its daemon is the one meant from now on."""
        self.tokens[url] = token
        self.current = url
        self._write()

    def remove(self, url: str) -> bool:
        """Forget a token; returns whether there was one."""
        known = self.tokens.pop(url, None) is not None
        if self.current == url:
            self.current = ""
        if known:
            self._write()
        return known

    def _write(self) -> None:
        self._path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        private_files.write(self._path, json.dumps({"current": self.current, "tokens": self.tokens}, indent=1))
