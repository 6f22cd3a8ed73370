"""The HTTP server: one application on a TCP address and on the state directory's unix socket."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import os
import resource
import socket
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import aiohttp.http_parser
import msgspec
from aiohttp import web

from ..engine import errors
from . import certificate, connections, routes, written

#: The kernel takes 107 bytes for a socket's path; a longer one is reached through the folder's descriptor.
_SOCKET_PATH_MAX = 100
_HANDSHAKE_S = 10.0
_SHUTDOWN_S = 5.0
#: A head that was sent is here by then.
_HEADS_LOOKS, _HEADS_LOOK_S = 100, 0.01
#: Connections that wait to be accepted; a burst of deliveries is more than the default of 128.
_BACKLOG = 1024
#: What connections leave of the descriptors that a process may have, for journal, flows and tasks.
_OTHER_DESCRIPTORS = 512


class Server:
    """Listens until stopped."""

    def __init__(self, table: Iterable[routes.Route], desk: routes.Desk, patience: connections.Patience) -> None:
        _check_parser()
        application = web.Application(middlewares=[routes.named, routes.problems_for_unknown])
        application.on_response_prepare.append(routes.finish)
        desk.install(application, table)
        self._runner = web.AppRunner(application, handle_signals=False, shutdown_timeout=_SHUTDOWN_S)
        self._patience = patience
        self._listening: list[asyncio.Server] = []
        self._given: list[asyncio.Server] = []
        self._door: connections.Door | None = None
        self._socket: Path | None = None
        self._certificate: certificate.Certificate | None = None

    async def start(
        self, address: written.Address, local: Path, tls: str = "", given: Sequence[socket.socket] = ()
    ) -> str:
        """Listen on both and return the URL; ``tls`` is the file with certificate and key, empty for plain HTTP.

        Sockets that were ``given`` listen already, and ``address`` is theirs. Raises ``ConfigurationInvalid`` for an
        address that cannot be had and for a file that cannot be used."""
        self._certificate = certificate.Certificate(tls) if tls else None
        await self._runner.setup()
        assert self._runner.server is not None
        door = connections.Door(self._runner.server, _within_descriptors(self._patience))
        self._door = door
        create = functools.partial(
            asyncio.get_running_loop().create_server,
            door,
            ssl=self._certificate.context if self._certificate else None,
            ssl_handshake_timeout=_HANDSHAKE_S if self._certificate else None,
            backlog=_BACKLOG,
        )
        try:
            for one in given:
                self._given.append(await create(sock=one))
            self._listening += self._given
            if not given:
                self._listening.append(await create(address.host, address.port))
        except OSError as error:
            raise errors.ConfigurationInvalid(
                f"cannot listen on {address}: {error.strerror or error}", hint="choose another one with --listen"
            ) from error
        host, port = self._listening[0].sockets[0].getsockname()[:2]
        await self._listen_locally(local, door)
        return f"{'https' if tls else 'http'}://{written.Address(host, port)}"

    async def _listen_locally(self, local: Path, door: connections.Factory) -> None:
        """Only the service's own user may open the socket; who connects is asked of the kernel besides."""
        _remove(local)  # a dead daemon's: the state directory's lock is ours
        mask = os.umask(0o177)
        folder = os.open(local.parent, os.O_RDONLY | os.O_DIRECTORY)
        try:
            path = str(local)
            if len(path.encode()) > _SOCKET_PATH_MAX:
                path = f"/proc/self/fd/{folder}/{local.name}"
            self._listening.append(await asyncio.get_running_loop().create_unix_server(door, path, backlog=_BACKLOG))
        finally:
            os.close(folder)
            os.umask(mask)
        self._socket = local

    def hand_over(self) -> bool:
        """Leave whoever connects from now on to the next daemon, where sockets were given; returns whether they were.

        They wait in the socket, which stays open where it came from. Those who are connected already are served on."""
        for listening in self._given:
            listening.close()
        return bool(self._given)

    def renewed(self, _settings: object = None) -> Callable[[], None]:
        """Read the certificate again and return what makes it count; raises ``ConfigurationInvalid``."""
        return self._certificate.renewed() if self._certificate else lambda: None

    async def stop(self) -> None:
        """Close the listeners, and what is still connected when its requests are answered or the time is over."""
        for listening in self._listening:
            listening.close()
        # Who got in just before it was the next daemon's turn was perhaps not heard yet.
        for _ in range(_HEADS_LOOKS if self._given else 0):
            if self._door is None or not self._door.headless:
                break
            await asyncio.sleep(_HEADS_LOOK_S)
        await self._runner.cleanup()
        if self._socket is not None:
            _remove(self._socket)


def _check_parser() -> None:
    """Refuse to serve with aiohttp's parser in Python: it is slower by far, and not the one that is tested here."""
    if aiohttp.http_parser.HttpRequestParser is aiohttp.http_parser.HttpRequestParserPy:
        raise errors.ConfigurationInvalid(
            "aiohttp was installed without its compiled parser", hint="install the wheel of aiohttp for this platform"
        )


def _within_descriptors(patience: connections.Patience) -> connections.Patience:
    """Return the patience for as many connections as there can be descriptors: take all that the process may have."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = patience.connections + _OTHER_DESCRIPTORS
    if soft != resource.RLIM_INFINITY and soft < wanted:
        soft = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        return msgspec.structs.replace(patience, connections=max(64, soft - _OTHER_DESCRIPTORS))
    return patience


def _remove(local: Path) -> None:
    with contextlib.suppress(FileNotFoundError):
        local.unlink()
