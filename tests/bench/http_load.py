"""A lean HTTP/1.1 load generator: keep-alive connections, prepared requests; it costs little of what it measures.

It speaks only to loopback, makes a bounded number of requests and stops. ``generate`` runs it in a process of its own,
where it shares no interpreter with what it measures; ``run`` is the same inside a running event loop.
"""

from __future__ import annotations

import asyncio
import dataclasses
import json
import subprocess
import sys
import time
from collections.abc import Mapping
from typing import Any

import uvloop

#: Stands in a request for the number of the request, in as many digits: for ids that must differ.
NUMBER = b"@@@@@@@@@@@@"
REQUESTS_MAX = 1_000_000
CALLERS_MAX = 1_000
_HOST = "127.0.0.1"


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


@dataclasses.dataclass(frozen=True)
class Load:
    """What a run of many requests gave."""

    latencies_s: list[float]
    elapsed_s: float

    @property
    def per_s(self) -> float:
        return len(self.latencies_s) / self.elapsed_s

    def percentile_ms(self, percent: float) -> float:
        ordered = sorted(self.latencies_s)
        return 1000 * ordered[min(len(ordered) - 1, int(len(ordered) * percent / 100))]


def request(method: str, path: str, body: bytes = b"", headers: Mapping[str, str] | None = None) -> bytes:
    """Prepare the bytes of a request."""
    lines = [f"{method} {path} HTTP/1.1", f"Host: {_HOST}", f"Content-Length: {len(body)}"]
    lines += [f"{name}: {value}" for name, value in (headers or {}).items()]
    return "\r\n".join([*lines, "", ""]).encode() + body


async def run(
    port: int, text: bytes, *, requests: int, callers: int, first: int = 0, expected: str = "", good: int = 200
) -> Load:
    """Make ``requests`` requests with so many callers, each waiting for its answer before it asks again.

    Fails at the first answer whose status is not ``good`` or whose body does not hold ``expected``."""
    assert requests <= REQUESTS_MAX, f"a load has at most {REQUESTS_MAX:,} requests"
    assert callers <= CALLERS_MAX, f"a load has at most {CALLERS_MAX:,} callers"
    loop = asyncio.get_running_loop()
    connections = [(await loop.create_connection(Connection, _HOST, port))[1] for _ in range(callers)]
    numbered = NUMBER in text
    next_number, end = first, first + requests
    wanted = expected.encode()
    latencies: list[float] = []

    async def call(connection: Connection) -> None:
        nonlocal next_number
        while next_number < end:
            number, next_number = next_number, next_number + 1
            this = text.replace(NUMBER, b"%0*d" % (len(NUMBER), number)) if numbered else text
            began = time.perf_counter()
            status, body = await connection.ask(this)
            latencies.append(time.perf_counter() - began)
            assert status == good, body[:300]
            assert wanted in body, body[:1000]

    began = time.perf_counter()
    await asyncio.gather(*(call(connection) for connection in connections))
    elapsed = time.perf_counter() - began
    for connection in connections:
        connection.close()
    return Load(latencies, elapsed)


def generate(
    port: int,
    text: bytes,
    *,
    requests: int,
    callers: int = 1,
    first: int = 0,
    expected: str = "ENDED_SUCCESS",
    good: int = 200,
    timeout_s: float | None = None,
) -> Load:
    """``run`` in a process of its own; by default every answer must show an execution that ended well.

    Who does not answer everything within ``timeout_s`` is left alone; that fails."""
    numbers = {"port": port, "requests": requests, "callers": callers, "first": first, "good": good}
    order = {**numbers, "text": text.decode("latin-1"), "expected": expected}
    command = [sys.executable, "-m", "tests.bench.http_load"]
    try:
        done = subprocess.run(command, input=json.dumps(order), capture_output=True, text=True, timeout=timeout_s)
    except subprocess.TimeoutExpired as error:
        raise AssertionError(f"{requests:,} requests were not answered within {error.timeout:,.0f} s") from error
    if done.returncode:
        raise AssertionError(f"the load generator failed:\n{done.stderr[-3000:]}")
    return Load(**json.loads(done.stdout))


def main() -> None:
    """Take an order on stdin, write the load on stdout."""
    order = json.load(sys.stdin)
    text = order.pop("text").encode("latin-1")
    load = uvloop.run(run(text=text, **order))
    # With PYTHONUNBUFFERED Python's own stdout loses what did not fit into a pipe when a stop cuts its write short.
    with open(sys.stdout.fileno(), "w", closefd=False) as whole:
        whole.write(json.dumps(dataclasses.asdict(load)))


if __name__ == "__main__":
    main()
