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

    def __init__(self) -> None:
        #: The folder of the snapshot; empty while there is none. A process serves one commit, so it is set once.
        self.root = ""

    def install(self) -> None:
        """Make the modules there importable in this process, and in those that are forked from it."""
        sys.dont_write_bytecode = True
        sys.meta_path.insert(0, self)

    def find_spec(
        self, name: str, path: Sequence[str] | None = None, target: types.ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        """Return where ``name`` is, for top-level names only: below a package its own path is searched as usual."""
        if not self.root or path is not None or name.partition(".")[0] in sys.stdlib_module_names:
            return None
        return importlib.machinery.PathFinder.find_spec(name, [self.root], target)
