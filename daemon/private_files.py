"""Files of the state directory that nobody but its user may read: tokens, links, what local clients need.

They are written whole, with mode 0600. One that others could read was perhaps read: it is refused, not mended.
Blocking; called by ``access``, ``token_store`` and ``app``.
"""

from __future__ import annotations

import os
import stat
from pathlib import Path

from ..engine import durable, errors

_OTHERS = stat.S_IRWXG | stat.S_IRWXO


def write(path: Path, text: str) -> None:
    """Write a file that only its user can read. After this returns it is on disk; if we die midway it is the old one
    or the new one, whole."""
    temporary = path.with_name(path.name + ".tmp")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "w") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)
    durable.names(path.parent)


def check(path: Path) -> None:
    """Raise ``ConfigurationInvalid`` if there is such a file and others than its user may read or write it."""
    try:
        found = path.stat()
    except FileNotFoundError:
        return
    if found.st_mode & _OTHERS:
        raise errors.ConfigurationInvalid(
            f"{path} can be read by others (mode {stat.S_IMODE(found.st_mode):04o}), and holds credentials",
            hint=f"remove it and make new ones, or if nobody has read it: chmod 600 {path}",
        )


def close_folder(folder: Path) -> bool:
    """Let only its user look into a folder; returns whether others could. Raises ``ConfigurationInvalid``."""
    found = folder.stat()
    if not found.st_mode & _OTHERS:
        return False
    try:
        folder.chmod(0o700)
    except OSError as error:
        raise errors.ConfigurationInvalid(
            f"{folder} can be read by others (mode {stat.S_IMODE(found.st_mode):04o}) and belongs to somebody else",
            hint="give the daemon a state directory of its own, with mode 0700",
        ) from error
    return True
