"""Slow clients by the thousand: those who have something to say are served meanwhile, and the slow ones end.

``HEADRACE_SLOW_CLIENTS`` says how many.
"""

import asyncio
import contextlib
import os
import resource
import socket
import threading
import time

from headrace.daemon import answers, connections
from tests.support import small_server

COUNT = int(os.environ.get("HEADRACE_SLOW_CLIENTS", "5000"))
ROOM = max(20, min(2000, COUNT // 2))  # fewer connections than there are slow clients
KINDS = {
    "nothing": b"",
    "half a head": b"POST /echo HTTP/1.1\r\nHost: x\r\nA: ",
    "half a body": b"POST /echo HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n\r\nx",
    "reads nothing": b"GET /big HTTP/1.1\r\nHost: x\r\n\r\n",
}


async def slow(port: int, sent: bytes, ended: list[float]) -> None:
    """Connect, send a piece, and drip bytes or do nothing until the other end has enough of it."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port, limit=2**12)
    began = time.monotonic()
    with contextlib.suppress(ConnectionError):
        writer.write(sent)
        if sent.startswith(b"GET"):
            await asyncio.sleep(4)
        else:
            while await asyncio.wait_for(reader.read(2**12), 60):
                pass
    ended.append(time.monotonic() - began)
    writer.close()


def healthy(port: int, latencies: list[float], over: threading.Event) -> None:
    """One delivery after the other, each on a connection of its own; one that is told to come again comes again."""
    while not over.is_set():
        began = time.monotonic()
        while b"hello" not in delivered(port):
            time.sleep(0.05)
        latencies.append(time.monotonic() - began)
        time.sleep(0.005)


def delivered(port: int) -> bytes:
    found = b""
    with contextlib.suppress(ConnectionError), socket.create_connection(("127.0.0.1", port), 60) as connection:
        connection.sendall(b"POST /echo HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: 5\r\n\r\nhello")
        while chunk := connection.recv(65536):
            found += chunk
    return found


async def crowd(port: int) -> list[float]:
    ended: list[float] = []
    everybody = list(KINDS.values())
    # of each kind that does not make room (a body, a reader) some: those end by their own deadline
    kinds = [everybody[n % 2] if n % 10 else everybody[2 + n % 20 // 10] for n in range(COUNT)]
    await asyncio.gather(*(slow(port, sent, ended) for sent in kinds))
    return ended


def test_slow_clients_end_and_others_are_served_meanwhile(monkeypatch, record_property):
    record_property("tries", COUNT)
    monkeypatch.setattr(answers, "BODY_S", 2.0)
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, max(soft, 4 * COUNT)), hard))
    with small_server.running(head_s=2.0, write_s=2.0, connections=ROOM) as server:
        latencies: list[float] = []
        over = threading.Event()
        good = threading.Thread(target=healthy, args=(server.port, latencies, over))
        good.start()
        ended = asyncio.run(crowd(server.port))
        over.set()
        good.join(60)
        assert len(ended) == COUNT
        assert server.door.open < 10 and not server.door._headless
    assert isinstance(server.door, connections.Door) and len(latencies) > 5
    latencies.sort()
    p99 = latencies[int(len(latencies) * 0.99)]
    print(
        f"{COUNT} slow clients, room for {ROOM}: {len(latencies)} others, p50 {latencies[len(latencies) // 2]:.3f} s, "
        f"p99 {p99:.3f} s; the last slow one ended after {max(ended):.1f} s"
    )
