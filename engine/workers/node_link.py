"""The daemon's end of a link to a worker of a node (``guest.link`` is the protocol), which serves one place at a time.

What nodes send is outside data: whatever does not fit ends the link, and with it what it served. Who may come at all,
and whom they serve, ``seats`` decides; what becomes of an execution that is cut off, ``cluster``.
"""

from __future__ import annotations

import asyncio
import json
import platform
import ssl
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Protocol

import msgspec
import structlog

from .. import ports
from ..guest import link, node, parcels
from . import remote_process
from .seats import Seat, Seats

log = structlog.get_logger()

_HELLO_S = 20.0
#: A node without a process yet may be fetching a large environment.
_PREPARING_S = 300.0
_READ_BYTES = 256 * 1024


class Hello(msgspec.Struct, frozen=True):
    """What a node says first."""

    token: str
    node: str
    host: str
    python: str
    platform: str


class Want(msgspec.Struct, frozen=True):
    """A folder the node does not have, by digest."""

    folder: str


class Place(Protocol):
    """What an execution asked for, as far as a link knows it."""

    execution: str


class Cluster(Protocol):
    """Who knows what was asked for (``cluster``)."""

    clock: ports.Clock
    lease_s: float
    seats: Seats

    def lost(self, seat: Seat, process: remote_process.RemoteProcess | None, heard: float, *, silent: bool) -> None:
        """A link that served broke; ``heard`` is when the node was heard last. A ``silent`` one was given up."""

    def unserved(self, seat: Seat, tell: Callable[[str], None]) -> None:
        """A worker left before it had a process: ``tell`` why when Ray does, or nothing if it does not."""


class Link:
    """The connection of one worker of a node, which has one seat after the other."""

    def __init__(self, cluster: Cluster, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.seat: Seat | None = None
        self.place: Place | None = None
        self.hello: Hello | None = None
        self.process: remote_process.RemoteProcess | None = None
        self._cluster = cluster
        self._reader = reader
        self._writer = writer
        self._folders: Mapping[str, Path] = {}
        self._begun: asyncio.Future[remote_process.RemoteProcess] | None = None
        self._heard = cluster.clock.monotonic()
        self._buffer = bytearray()

    # -- what the place asks for ------------------------------------------------------------------------------------

    async def begin(self, offer: Mapping[str, Any], folders: Mapping[str, Path]) -> remote_process.RemoteProcess:
        """Have a flow process made; raises ``NodeLost``."""
        if self._writer.is_closing():
            raise remote_process.NodeLost(f"node {self.name} was lost")
        self._folders = folders
        self._begun = asyncio.get_running_loop().create_future()
        self.send(link.OFFER, json.dumps(offer).encode())
        return await self._begun

    def send(self, kind: bytes, content: bytes = b"") -> None:
        """Send a message; nothing if the link is over, which the process tells."""
        if not self._writer.is_closing():
            self._writer.write(link.message(kind, content))

    def pass_on(self, process: remote_process.RemoteProcess, kind: bytes, content: bytes = b"") -> None:
        """Send a message to a process; nothing if it is not there any more."""
        if process is self.process:
            self.send(kind, content)

    def keep(self) -> None:
        """The process did well."""
        self.process = None
        self.send(link.KEEP)

    def leave(self) -> None:
        """Its seat is over; it may come for another."""
        self.seat = None
        self.send(link.LEAVE)

    def abandon(self, why: str, *, silent: bool = True) -> None:
        """End the link, and what it serves."""
        self._lost(why, silent=silent)
        self._writer.close()

    @property
    def name(self) -> str:
        """Of the node, for people."""
        return self.hello.host if self.hello is not None else "?"

    @property
    def is_preparing(self) -> bool:
        """Whether it was asked for a process and has none yet."""
        return self._begun is not None and not self._begun.done()

    # -- its life ---------------------------------------------------------------------------------------------------

    async def serve(self) -> None:
        """Take what the node says until it is gone."""
        why = "its connection ended"
        try:
            async with asyncio.timeout(_HELLO_S):
                goes_on = await self._take_next()
            while goes_on:
                goes_on = await self._take_next()
        except (link.Broken, msgspec.MsgspecError) as error:
            why = f"it broke the protocol: {error}"
        except TimeoutError:
            why = "it did not say who it is"
        except (OSError, ssl.SSLError) as error:
            why = str(error)
        finally:
            self.abandon(why, silent=False)

    async def _take_next(self) -> bool:
        """Read once and act on it; False at the end."""
        chunk = await self._reader.read(_READ_BYTES)
        if not chunk:
            return False
        self._heard = self._cluster.clock.monotonic()
        self._buffer += chunk
        for kind, content in link.split(self._buffer):
            if self.hello is None and kind != link.HELLO:
                raise link.Broken(f"{kind!r} before it said who it is")
            if kind == link.HELLO:
                if not self._greet(msgspec.json.decode(content, type=Hello)):
                    return False
            elif kind == link.WANT:
                await self._deliver(msgspec.json.decode(content, type=Want).folder)
            elif kind == link.READY:
                self._ready(msgspec.json.decode(content, type=remote_process.Ready))
            elif kind == link.KEPT:
                self._over()
            elif kind == link.EXITED:
                if self.process is not None:
                    self.process.gone(msgspec.json.decode(content, type=remote_process.Exited).status)
                self._over()
            elif self.process is not None:
                await self.process.take(kind, content)
        return True

    def _greet(self, hello: Hello) -> bool:
        """Whether its token is good."""
        seat = self._cluster.seats.claim(hello.token)
        if seat is None or self.seat is not None:
            log.warning("cluster.refused", node=hello.host[:100], reason="its token is not good, or not any more")
            return False
        if wrong := unlike_ours(hello):
            self._cluster.seats.refused(seat.line, wrong)
            return False
        self.hello, self.seat = hello, seat
        self._cluster.seats.free(self)
        return True

    async def _deliver(self, digest: str) -> None:
        folder = self._folders.get(digest)
        if folder is None:
            raise link.Broken("it asked for a folder that is none of its business")
        chunks = parcels.pack(str(folder))
        try:
            while (chunk := await asyncio.to_thread(next, chunks, None)) is not None:
                self.send(link.PARCEL, chunk)
                self._heard = self._cluster.clock.monotonic()
                await self._writer.drain()
        except OSError as error:
            raise link.Broken(f"{folder.name} cannot be read: {error}") from None
        self.send(link.PARCEL)

    def _ready(self, said: remote_process.Ready) -> None:
        if self._begun is None or self._begun.done():
            raise link.Broken("it is ready for nothing")
        self.process = remote_process.RemoteProcess(self, said, self._cluster.lease_s + 10)
        self._begun.set_result(self.process)

    def _over(self) -> None:
        """The place is served; another one may come."""
        if self.place is None:
            raise link.Broken("it served nobody")
        self.place = self.process = self._begun = None
        self._folders = {}
        self._cluster.seats.free(self)

    def _lost(self, why: str, *, silent: bool) -> None:
        """What it served is cut off."""
        self._cluster.seats.gone(self)
        seat, place, process, begun = self.seat, self.place, self.process, self._begun
        self.seat = self.place = self.process = self._begun = None
        if process is not None:
            process.lose(_lost(self.name, why))
        if begun is not None and not begun.done():
            if seat is not None and not silent:
                self._cluster.unserved(seat, lambda said: _fail(begun, self.name, said or why))
                return
            _fail(begun, self.name, why)
        if seat is not None and place is not None:
            self._cluster.lost(seat, process, self._heard, silent=silent)

    def check(self, now: float) -> None:
        """Give the node up if it was silent for too long, else let it know of us."""
        if self.place is None or (self.process is not None and self.process.is_stopped):
            return
        patience_s = self._cluster.lease_s if self.process is not None else _PREPARING_S
        if now - self._heard > patience_s:
            self.abandon(f"silent for {now - self._heard:.0f} s")
            self._writer.transport.abort()
        else:
            self.send(link.PULSE)


def _lost(node: str, why: str) -> remote_process.NodeLost:
    return remote_process.NodeLost(f"node {node} was lost: {why}")


def _fail(begun: asyncio.Future[remote_process.RemoteProcess], node: str, why: str) -> None:
    """There will be no process."""
    if not begun.done():
        begun.set_exception(_lost(node, why))
        begun.exception()  # whoever waited may have left


def unlike_ours(hello: Hello) -> str:
    """Return why flows of this daemon would not run there as they do here; empty if they would."""
    ours = node.platform_name()
    if hello.platform != ours:
        return f"{hello.host} is {hello.platform}, and the daemon {ours}"
    if hello.python.split(".")[:2] != platform.python_version().split(".")[:2]:
        return f"{hello.host} has Python {hello.python}, and the daemon {platform.python_version()}"
    return ""
