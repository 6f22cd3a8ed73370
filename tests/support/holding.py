"""Servers that hold whoever comes: they take connections, say little or nothing, and know who is there."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import socket
import threading
from collections.abc import Iterator, Sequence


@dataclasses.dataclass
class Place:
    """One such server, on a port of its own. Datagrams that come to the same port are not answered either.

    ``says``: first what greets, then what answers each piece that comes in; after the last it is silent."""

    says: Sequence[bytes] = ()
    port: int = 0
    came: int = 0  # how many connections there ever were
    here: int = 0  # how many there are
    heard: bytes = b""

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    async def hold(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Keep one connection until its other end is closed."""
        self.came += 1
        self.here += 1
        answers = iter(self.says)
        with contextlib.suppress(OSError):
            writer.write(next(answers, b""))
            while piece := await reader.read(65536):
                self.heard += piece
                writer.write(next(answers, b""))
        self.here -= 1
        writer.close()


@contextlib.contextmanager
def held(places: Sequence[Place]) -> Iterator[None]:
    """Serve all of them, in a thread, while the block lasts."""
    loop, stop, ready = asyncio.new_event_loop(), asyncio.Event(), threading.Event()

    async def serve() -> None:
        async with contextlib.AsyncExitStack() as stack:
            for place in places:
                listening = await stack.enter_async_context(await asyncio.start_server(place.hold, "127.0.0.1", 0))
                place.port = listening.sockets[0].getsockname()[1]
                silent = stack.enter_context(socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
                silent.bind(("127.0.0.1", place.port))
            ready.set()
            await stop.wait()

    thread = threading.Thread(target=lambda: loop.run_until_complete(serve()), name="holding")
    thread.start()
    assert ready.wait(20), "it serves"
    try:
        yield
    finally:
        loop.call_soon_threadsafe(stop.set)
        thread.join(20)
        loop.close()
