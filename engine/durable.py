"""What has to be done before a file system keeps what it was told."""

from __future__ import annotations

import os
from pathlib import Path


def names(folder: Path) -> None:
    """Make the names in ``folder`` durable: a new, renamed or removed file is only that after this. Blocking."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
