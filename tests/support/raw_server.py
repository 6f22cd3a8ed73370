"""A TCP server that says exactly what a test wants, and knows when its client has gone."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable

Script = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


class RawServer:
    """``arrived`` is set when a request's head came in, ``gone`` when that client closed its connection."""

    def __init__(self, script: Script) -> None:
        self._script = script
        self.arrived = asyncio.Event()
        self.gone = asyncio.Event()
        self.address = ""
        self.heads: list[bytes] = []

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            self.heads.append(await reader.readuntil(b"\r\n\r\n"))
            self.arrived.set()
            await self._script(reader, writer)
            await writer.drain()
        except (ConnectionError, asyncio.IncompleteReadError):
            self.gone.set()
        finally:
            writer.close()


async def until_gone(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Say nothing until the client closes."""
    while await reader.read(65536):
        pass
    raise ConnectionResetError


@contextlib.asynccontextmanager
async def running(script: Script) -> AsyncIterator[RawServer]:
    """Serve on a free port of 127.0.0.1."""
    server = RawServer(script)
    async with await asyncio.start_server(server.serve, "127.0.0.1", 0) as listening:
        server.address = f"http://127.0.0.1:{listening.sockets[0].getsockname()[1]}"
        yield server
