"""The certificate that HTTPS is served with, which may be replaced while the daemon runs.

A listener keeps the context it began with, so that one asks for each connection which certificate counts now: what was
begun with an older one goes on, and kinds of keys do not mix. Called by ``server``.
"""

from __future__ import annotations

import ssl
from collections.abc import Callable
from pathlib import Path

from ..engine import errors
from . import private_files


class Certificate:
    """``context`` is for listeners. Raises ``ConfigurationInvalid`` for a file that cannot be used."""

    def __init__(self, file: str) -> None:
        self._file = file
        self.context = self._current = _context(file)
        self.context.sni_callback = self._choose

    def _choose(self, connection: ssl.SSLObject, _name: str | None, _context: ssl.SSLContext) -> None:
        connection.context = self._current

    def renewed(self) -> Callable[[], None]:
        """Read the file again and return what makes it count; raises ``ConfigurationInvalid`` likewise."""
        fresh = _context(self._file)

        def count() -> None:
            self._current = fresh

        return count


def _context(file: str) -> ssl.SSLContext:
    """Return what speaks TLS 1.2 or newer with this certificate and key."""
    private_files.check(Path(file))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    try:
        context.load_cert_chain(file)
    except (OSError, ssl.SSLError) as error:
        raise errors.ConfigurationInvalid(
            f"the credential tls: {file} cannot be used: {error.strerror or error}",
            hint="it holds the certificate, those that vouch for it, and the private key, all as PEM",
        ) from error
    return context
