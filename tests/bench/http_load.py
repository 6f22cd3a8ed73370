"""A lean HTTP/1.1 load generator: keep-alive connections, prepared requests, so that it costs little of what it measures.

It speaks only to loopback, makes a bounded number of requests and stops.
"""

from __future__ import annotations

import asyncio
import dataclasses
import time
from typing import Any


class Connection(asyncio.Protocol):
    """One keep-alive connection; one request at a time."""

    def __init__(self) -> None:
        self._transport: Any = None
        self._buffer = b""
        self._answer: asyncio.Future[tuple[int, bytes]] | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport  # uvloop's are transports without inheriting from asyncio's

    def connection_lost(self, exc: Exception | None) -> None:
        if self._answer is not None and not self._answer.done():
            self._answer.set_exception(exc or ConnectionResetError("the server closed the connection"))

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        head, separator, body = self._buffer.partition(b"\r\n\r\n")
        if not separator:
            return
        start = head.lower().index(b"content-length:") + 15
        length = int(head[start : head.find(b"\r\n", start) if b"\r\n" in head[start:] else len(head)])
        if len(body) < length:
            return
        self._buffer = body[length:]
        assert self._answer is not None
        self._answer.set_result((int(head[9:12]), body[:length]))

    async def ask(self, request: bytes) -> tuple[int, bytes]:
        """Send a request and return status and body."""
        assert self._transport is not None
        self._answer = asyncio.get_running_loop().create_future()
        self._transport.write(request)
        return await self._answer

    def close(self) -> None:
        if self._transport is not None:
            self._transport.close()


@dataclasses.dataclass
class Load:
    """What a run of many requests gave."""

    latencies_s: list[float]
    elapsed_s: float

    @property
    def per_s(self) -> float:
        return len(self.latencies_s) / self.elapsed_s

    def percentile_ms(self, percent: float) -> float:
        ordered = sorted(self.latencies_s)
        return round(1000 * ordered[min(len(ordered) - 1, int(len(ordered) * percent / 100))], 3)

    def summary(self) -> dict[str, float]:
        return {f"p{p}_ms": self.percentile_ms(p) for p in (50, 95, 99)} | {"per_s": round(self.per_s, 1)}


def request(method: str, path: str, body: bytes = b"", **headers: str) -> bytes:
    """Prepare the bytes of a request."""
    lines = [f"{method} {path} HTTP/1.1", "Host: 127.0.0.1", f"Content-Length: {len(body)}"]
    lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
    return "\r\n".join([*lines, "", ""]).encode() + body


async def run(host: str, port: int, text: bytes, *, requests: int, callers: int, expected: int = 200) -> Load:
    """Make ``requests`` requests with so many callers, each waiting for its answer before it asks again."""
    loop = asyncio.get_running_loop()
    connections = [(await loop.create_connection(Connection, host, port))[1] for _ in range(callers)]
    left = requests
    latencies: list[float] = []

    async def call(connection: Connection) -> None:
        nonlocal left
        while left > 0:
            left -= 1
            began = time.perf_counter()
            status, body = await connection.ask(text)
            latencies.append(time.perf_counter() - began)
            assert status == expected, body[:300]

    began = time.perf_counter()
    await asyncio.gather(*(call(connection) for connection in connections))
    elapsed = time.perf_counter() - began
    for connection in connections:
        connection.close()
    return Load(latencies, elapsed)
