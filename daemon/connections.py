"""Connections with patience that ends: aiohttp's protocol, with the deadlines and counts that it does not have.

aiohttp waits for ever for the rest of a head and for a reader that does not read (measured with 3.14: open after 20 s).
Here a connection is closed when a head is not whole in time after its first byte (or after the connection was made),
when nothing of an answer is read for a while, and at once when there are too many from one address. When there are too
many all in all, whoever has waited longest for a head makes room: so slow senders push out each other, not those who
have something to say.

Bodies have a deadline of their own where they are read (``answers.body_of``). The unix socket is never too full: who
looks after the daemon gets in. What cannot be understood is answered as a problem that repeats nothing of it.

Made by ``server``.
"""

from __future__ import annotations

import asyncio
import collections
import socket
from collections.abc import Callable
from typing import cast

import aiohttp
import msgspec
import structlog
from aiohttp import web
from aiohttp.web_server import Server as Manager

from . import limits

log = structlog.get_logger()

LINE_BYTES_MAX = 8190
HEADERS_MAX = 64
_RETRY_LATER = b"HTTP/1.1 503 Service Unavailable\r\nRetry-After: 5\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
_TOO_SLOW = b"HTTP/1.1 408 Request Timeout\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"


class Patience(msgspec.Struct, frozen=True):
    """How long is waited, in seconds, and how many connections there may be; ``per_address`` 0 does not count them."""

    head_s: float = 10.0
    fresh_s: float = 0.2  # whoever connected so lately was not slow yet, and need not make room
    write_s: float = 60.0
    idle_s: float = 75.0
    linger_s: float = 5.0  # for the rest of a body that nobody wants, so that its sender gets to read why
    connections: int = 2000
    per_address: int = 100


class Door:
    """Makes the protocol of each connection, and counts those that are open."""

    def __init__(self, manager: Manager, patience: Patience) -> None:
        self.manager = manager
        self.patience = patience
        self._open = 0
        self._by_address: collections.Counter[str] = collections.Counter()
        self._headless: dict[Connection, float] = {}  # those whose head is waited for, longest first: since when
        self._is_full = False

    def __call__(self) -> Connection:
        """Return the protocol of a new connection."""
        return Connection(self, asyncio.get_running_loop())

    def enter(self, address: str) -> bool:
        """Count a connection; returns False if there is no room for it. The socket's have no address."""
        if not address:
            return True
        most = self.patience.per_address
        is_full = self._open >= self.patience.connections
        if is_full and not self._is_full:
            log.warning("connections.full", open=self._open, origin=address)
        self._is_full = is_full
        if (most and self._by_address[address] >= most) or (is_full and not self._make_room()):
            return False
        self._open += 1
        self._by_address[address] += 1
        return True

    def _make_room(self) -> bool:
        longest, since_s = next(iter(self._headless.items()), (None, 0.0))
        if longest is None or asyncio.get_running_loop().time() - since_s < self.patience.fresh_s:
            return False
        del self._headless[longest]
        longest.give_way()
        return True

    def leave(self, address: str) -> None:
        """Forget a connection that was counted."""
        if address:
            self._open -= 1
            self._by_address[address] -= 1
            if not self._by_address[address]:
                del self._by_address[address]

    def awaits_head(self, connection: Connection, *, still: bool) -> None:
        """Remember whose head is waited for."""
        if still:
            self._headless[connection] = asyncio.get_running_loop().time()
        else:
            self._headless.pop(connection, None)

    @property
    def headless(self) -> int:
        """How many of them have yet to say what they want."""
        return len(self._headless)

    @property
    def open(self) -> int:
        """How many connections there are over TCP."""
        return self._open


class Connection(web.RequestHandler):
    """One connection."""

    __slots__ = ("_address", "_body", "_door", "_head_timer", "_was_refused", "_write_timer", "is_local")

    def __init__(self, door: Door, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__(
            door.manager,
            loop=loop,
            keepalive_timeout=door.patience.idle_s,
            access_log=None,  # type: ignore[arg-type]  # what None means is off
            max_line_size=LINE_BYTES_MAX,
            max_field_size=LINE_BYTES_MAX,
            max_headers=HEADERS_MAX,
            lingering_time=door.patience.linger_s,
            auto_decompress=False,
        )
        self._door = door
        self._address = ""
        self.is_local = False  #: whether it came through the unix socket
        self._was_refused = False
        self._body: aiohttp.StreamReader | None = None  # of the latest request
        self._head_timer: asyncio.TimerHandle | None = None
        self._write_timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Let it in if there is room, and begin to wait for its first head."""
        self._address = _address(transport)
        connection = transport.get_extra_info("socket")
        self.is_local = connection is not None and connection.family == socket.AF_UNIX
        if not self._door.enter(self._address):
            self._was_refused = True
            cast(asyncio.Transport, transport).write(_RETRY_LATER)  # uvloop's does not inherit from asyncio's
            transport.close()
            return
        super().connection_made(transport)
        if self._address:
            _give_up_after(transport, self._door.patience.write_s)
            self._await_head()

    def connection_lost(self, exc: BaseException | None) -> None:
        """Forget it."""
        if self._was_refused:
            return
        self._head_came()
        self._was_read()
        self._door.leave(self._address)
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Hand on what came, and see whether a head is still to be waited for."""
        if self._was_refused:
            return
        known = self._request_count
        super().data_received(data)
        if self._request_count != known:
            self._head_came()
            if self._messages:
                self._body = self._messages[-1][1]
        elif self._head_timer is None and data and self._address and (self._body is None or self._body.is_eof()):
            self._await_head()

    def _await_head(self) -> None:
        self._head_timer = self._loop.call_later(self._door.patience.head_s, self._head_is_late)
        self._door.awaits_head(self, still=True)

    def _head_came(self) -> None:
        if self._head_timer is not None:
            self._head_timer.cancel()
            self._head_timer = None
            self._door.awaits_head(self, still=False)

    def give_way(self) -> None:
        """Go at once."""
        if self.transport is not None:
            self.transport.abort()

    def _head_is_late(self) -> None:
        self._head_timer = None
        self._door.awaits_head(self, still=False)
        if self.transport is not None and not self._request_in_progress:
            self.transport.write(_TOO_SLOW)
            self.force_close()

    def resume_reading(self, resume_parser: bool = True) -> None:
        """aiohttp asks for it after every piece of a body; where nothing was paused there is nothing to be done."""
        if self._reading_paused:
            super().resume_reading(resume_parser)

    def pause_writing(self) -> None:
        """The reader does not keep up: it has so long to read some of it."""
        super().pause_writing()
        if self._write_timer is None and self.transport is not None:
            self._write_timer = self._loop.call_later(self._door.patience.write_s, self.transport.abort)

    def resume_writing(self) -> None:
        """It did."""
        super().resume_writing()
        self._was_read()

    def _was_read(self) -> None:
        if self._write_timer is not None:
            self._write_timer.cancel()
            self._write_timer = None

    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,
    ) -> web.StreamResponse:
        """Answer what is not HTTP, or not the kind that is taken here."""
        if isinstance(exc, ConnectionError) and request.writer.output_size > 0:
            raise exc  # who asked hung up while the answer was under way: nobody's mistake, and nothing for the log
        if status >= 500 or request.writer.output_size > 0:
            return super().handle_error(request, status, exc, message)
        body = {"type": "about:blank", "title": "Invalid request", "status": status}
        detail = {"detail": "the request's head cannot be understood, or is over a limit"}
        answer = web.Response(
            body=msgspec.json.encode(body | detail),
            status=status,
            content_type="application/problem+json",
            headers={"Server": "headrace"},
        )
        answer.force_close()
        return answer


def _address(transport: asyncio.BaseTransport) -> str:
    """Return whom a connection counts for; empty for the unix socket."""
    peer = transport.get_extra_info("peername")
    return limits.network(str(peer[0])) if isinstance(peer, tuple) and peer else ""


def _give_up_after(transport: asyncio.BaseTransport, seconds: float) -> None:
    """Have the kernel drop a connection whose other end acknowledges or takes nothing, also while it is closed."""
    connection = transport.get_extra_info("socket")
    if connection is not None and connection.family in (socket.AF_INET, socket.AF_INET6):
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, int(seconds * 1000))


#: What ``server`` hands to the event loop.
Factory = Callable[[], Connection]
