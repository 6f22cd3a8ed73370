"""A fence around libraries that connect by themselves: an event loop in a thread of its own.

Every connection such a library makes, also to a host that a server named, passes the operator's policy by the very
address it goes to, and what comes in through them is bounded. When the task is cancelled, what the library runs is
cancelled and its connections are cut, so that nothing it waits for keeps it.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import socket
import ssl
import threading
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

from . import blocking, host
from .egress import Egress

T = TypeVar("T")
#: So soon is cancelled again what did not end.
_AGAIN_S = 0.1


class Refused(OSError):
    """A connection the policy forbids, or that comes too late."""


class Loop(asyncio.SelectorEventLoop):
    """The event loop of a library; ``failed`` is what its last connection failed with, for its own words say less."""

    def __init__(self, egress: Egress, bytes_max: int) -> None:
        super().__init__()
        self.failed: OSError | None = None
        self.refusal: str | None = None
        #: Ends the work: libraries try again for long what will not be allowed.
        self.give_up: Callable[[], object] = self.stop
        self._egress = egress
        self._bytes_max, self._bytes = bytes_max, 0
        self._sockets: list[socket.socket] = []
        self._opened: list[asyncio.Transport] = []
        self._was_cut = False

    async def sock_connect(self, sock: socket.socket, address: Any) -> None:
        """Connect to a numeric address, if that is allowed."""
        if self._was_cut:
            raise Refused("it is over")
        if (refusal := self._egress.refusal(str(address[0]))) is not None:
            self._refuse(refusal)
            raise Refused(refusal)
        self._sockets.append(sock)
        with self._remembering():
            await super().sock_connect(sock, address)

    async def create_connection(self, protocol_factory: Callable[[], Any], *arguments: Any, **named: Any) -> Any:
        """Like the loop's, with what comes in counted."""

        def made() -> Any:
            protocol = protocol_factory()
            if isinstance(protocol, asyncio.BufferedProtocol):
                protocol.buffer_updated = self._counted(protocol.buffer_updated)  # type: ignore[method-assign, assignment]
            else:
                protocol.data_received = self._counted(protocol.data_received)
            return protocol

        with self._remembering():
            transport, protocol = await super().create_connection(made, *arguments, **named)
        self._opened.append(transport)
        return transport, protocol

    def _counted(self, take: Callable[[Any], None]) -> Callable[[Any], None]:
        def taken(came: bytes | int) -> None:
            self._bytes += came if isinstance(came, int) else len(came)
            if self._bytes > self._bytes_max:
                self._refuse(f"more came in than {self._bytes_max:,} bytes")
            else:
                take(came)

        return taken

    def _refuse(self, words: str) -> None:
        self.refusal = self.refusal or words
        self.cut()
        self.give_up()

    @contextlib.contextmanager
    def _remembering(self) -> Any:
        try:
            yield
        except OSError as error:
            self.failed = error
            raise

    def cut(self) -> None:
        """End all connections, and let there be no more."""
        self._was_cut = True
        for one in self._sockets:
            with contextlib.suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)

    async def leave(self) -> None:
        """Let go of what the library left open."""
        for transport in self._opened:
            transport.abort()
        await asyncio.sleep(0)  # they close their sockets in the next round
        for one in self._sockets:
            one.close()


async def call(
    work: Callable[[Loop], Awaitable[T]], egress: Egress, *, bytes_max: int, patience_s: float | None = None
) -> T:
    """Return what ``work`` returns on a loop of its own; raises what it raises, and ``host.Failed`` at the fence.

    ``patience_s`` is how long a library that takes leave of its host when it is cancelled may take for that."""
    running = _Running(work, egress, bytes_max, patience_s)
    result: T = await blocking.alone(running.run, on_cancel=running.cancel)
    return result


class _Running:
    """The work in its thread."""

    def __init__(
        self, work: Callable[[Loop], Awaitable[Any]], egress: Egress, bytes_max: int, patience_s: float | None
    ) -> None:
        self.loop: Loop | None = None
        self._patience_s = patience_s
        self._work, self._make = work, functools.partial(Loop, egress, bytes_max)
        self._task: asyncio.Task[Any] | None = None
        self._lock = threading.Lock()
        self._is_over = False

    def run(self) -> Any:
        """Return what the work returns, or nothing when it was cancelled, which nobody waits for then."""
        result = None
        with asyncio.Runner(loop_factory=self._make) as runner:
            try:
                with contextlib.suppress(asyncio.CancelledError):
                    result = runner.run(self._entered())
            finally:
                with self._lock:
                    self._is_over = True
                # A library that was refused may raise anything, or nothing: what the fence knows comes first.
                if self.loop is not None and self.loop.refusal is not None:
                    raise host.Failed(self.loop.refusal) from None
        return result

    async def _entered(self) -> Any:
        loop = asyncio.get_running_loop()
        assert isinstance(loop, Loop), "it is the one that was made for it"
        with self._lock:
            if self._is_over:
                raise asyncio.CancelledError
            self.loop, self._task = loop, asyncio.current_task()
            loop.give_up = self._stop
        try:
            return await self._work(loop)
        finally:
            await loop.leave()

    def cancel(self) -> None:
        """End it soon."""
        with self._lock:
            if self.loop is not None and not self._is_over:
                self.loop.call_soon_threadsafe(self._stop)
            self._is_over = True

    def _stop(self) -> None:
        assert self.loop is not None, "it runs on it"
        assert self._task is not None, "it came with the loop"
        if self._patience_s is None:
            self._insist()
        else:
            self.loop.call_later(self._patience_s, self._insist)
            self._task.cancel()

    def _insist(self) -> None:
        """Cancel it until it has ended: a library may answer each time by waiting for its host once more, and asyncio
        itself loses one now and then (https://github.com/python/cpython/issues/86296, before Python 3.12)."""
        assert self.loop is not None, "it runs on it"
        assert self._task is not None, "it came with the loop"
        self.loop.cut()
        if not self._task.done():
            self._task.cancel()
            self.loop.call_later(_AGAIN_S, self._insist)


def explained(error: Exception, loop: Loop, inputs: host.LoginInputs, port: int) -> host.Failed | None:
    """Return in words why the library has no connection, if it is for one that failed."""
    if isinstance(error, ssl.SSLError | TimeoutError):
        return host.explained(error, inputs, port)
    if loop.failed is not None:
        return host.explained(loop.failed, inputs, port)
    return host.explained(error, inputs, port) if isinstance(error, OSError) else None
