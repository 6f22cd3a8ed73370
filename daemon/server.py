"""The HTTP server: one application on a TCP address and on the state directory's unix socket."""

from __future__ import annotations

import contextlib
import os
import ssl
from collections.abc import Iterable
from pathlib import Path

from aiohttp import web

from ..engine import errors
from . import config, private_files, routes

#: The kernel takes 107 bytes for a socket's path; a longer one is reached through the folder's descriptor.
_SOCKET_PATH_MAX = 100
_IDLE_S = 75.0


class Server:
    """Listens until stopped."""

    def __init__(self, table: Iterable[routes.Route], desk: routes.Desk) -> None:
        application = web.Application(middlewares=[routes.named, routes.problems_for_unknown])
        application.on_response_prepare.append(routes.put_name)
        desk.install(application, table)
        self._runner = web.AppRunner(
            application, handle_signals=False, access_log=None, keepalive_timeout=_IDLE_S, shutdown_timeout=5.0
        )
        self._socket: Path | None = None

    async def start(self, address: config.Address, socket: Path, tls: str = "") -> str:
        """Listen on both and return the URL; ``tls`` is the file with certificate and key, empty for plain HTTP.

        Raises ``ConfigurationInvalid`` for an address that cannot be had and for a file that cannot be used."""
        context = _tls(tls) if tls else None
        await self._runner.setup()
        try:
            site = web.TCPSite(self._runner, address.host, address.port, ssl_context=context)
            await site.start()
        except OSError as error:
            raise errors.ConfigurationInvalid(
                f"cannot listen on {address}: {error.strerror or error}", hint="choose another one with --listen"
            ) from error
        host, port = self._runner.addresses[0][:2]
        await self._listen_locally(socket)
        return f"{'https' if tls else 'http'}://{config.Address(host, port)}"

    async def _listen_locally(self, socket: Path) -> None:
        """Only the service's own user may open the socket: that is what authenticates its client."""
        _remove(socket)  # a dead daemon's: the state directory's lock is ours
        mask = os.umask(0o177)
        folder = os.open(socket.parent, os.O_RDONLY | os.O_DIRECTORY)
        try:
            path = str(socket)
            if len(path.encode()) > _SOCKET_PATH_MAX:
                path = f"/proc/self/fd/{folder}/{socket.name}"
            await web.UnixSite(self._runner, path).start()
        finally:
            os.close(folder)
            os.umask(mask)
        self._socket = socket

    async def stop(self) -> None:
        """Close the listeners and what is still connected."""
        await self._runner.cleanup()
        if self._socket is not None:
            _remove(self._socket)


def _tls(file: str) -> ssl.SSLContext:
    """Return what speaks TLS 1.2 or newer with this certificate and key."""
    private_files.check(Path(file))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    try:
        context.load_cert_chain(file)
    except (OSError, ssl.SSLError) as error:
        raise errors.ConfigurationInvalid(
            f"listen.tls: {file} cannot be used: {error.strerror or error}",
            hint="it holds the certificate, those that vouch for it, and the private key, all as PEM",
        ) from error
    return context


def _remove(socket: Path) -> None:
    with contextlib.suppress(FileNotFoundError):
        socket.unlink()
