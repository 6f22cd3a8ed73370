"""Secrets by reference: flows and webhooks name them, the daemon looks them up when it needs one.

    secret.env(NAME)          the daemon's environment
    secret.credential(NAME)   a file below ``$CREDENTIALS_DIRECTORY``, as systemd provides it
    secret.file(PATH)         a file on this host

Nothing is cached, so a rotated secret counts at once.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

from .. import errors

_REFERENCE = re.compile(r"secret\.(env|credential|file)\(([^()\n]+)\)")
_BYTES_MAX = 64 * 1024


def resolve(reference: str, environ: Mapping[str, str]) -> str:
    """Return the secret that ``reference`` names; raises ``InvalidRequest`` or ``NotFound`` without ever showing it."""
    match = _REFERENCE.fullmatch(reference)
    if match is None:
        raise errors.InvalidRequest(
            "a secret is given by reference", hint="secret.env(NAME), secret.credential(NAME) or secret.file(PATH)"
        )
    kind, name = match[1], match[2].strip()
    match kind:
        case "env":
            found = environ.get(name, "")
        case "credential":
            found = _read(_credential(name, environ))
        case _:
            found = _read(name)
    if not found:
        raise errors.NotFound(f"secret.{kind}({name}) is not set, or empty")
    return found


def _credential(name: str, environ: Mapping[str, str]) -> str:
    directory = environ.get("CREDENTIALS_DIRECTORY", "")
    if not directory:
        raise errors.NotFound(f"secret.credential({name}): the service has no credentials directory")
    if "/" in name or name in (".", ".."):
        raise errors.InvalidRequest(f"secret.credential({name}): a credential is a name, not a path")
    return str(Path(directory) / name)


def _read(path: str) -> str:
    try:
        with Path(path).open("rb") as file:
            return file.read(_BYTES_MAX).decode().removesuffix("\n")
    except (OSError, UnicodeError) as error:
        raise errors.NotFound(f"the secret's file {path} cannot be read: {type(error).__name__}") from None
