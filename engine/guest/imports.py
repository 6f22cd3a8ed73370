"""Where a flow's imports come from: its repository at its commit, then the standard library's and the environment's.

The repository's own modules come before installed packages, as beside any script, but they can never shadow the
standard library: a ``json.py`` in a repository would otherwise break everything else in the process. Nothing is
written: no byte code lands in a snapshot.
"""

from __future__ import annotations

import importlib.machinery
import sys
import types
from collections.abc import Sequence


class SnapshotFinder:
    """Finds top-level modules in the snapshot of the commit that this process serves."""

    def __init__(self, root: str) -> None:
        self._path = [root]

    def find_spec(
        self, name: str, path: Sequence[str] | None = None, target: types.ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        """Return where ``name`` is, for top-level names only: below a package its own path is searched as usual."""
        if path is not None or name.partition(".")[0] in sys.stdlib_module_names:
            return None
        return importlib.machinery.PathFinder.find_spec(name, self._path, target)


def serve_snapshot(root: str) -> None:
    """Make the modules below ``root`` importable in this process, for good: a process serves one commit."""
    sys.dont_write_bytecode = True
    sys.meta_path.insert(0, SnapshotFinder(root))
