"""Kafka on loopback: the broker that librdkafka brings for tests, and what stands before it with a login and TLS.

The broker knows neither, so they are played here, after the protocol's public description: handshake and login are
answered, all else is passed on, and the address the broker tells clients becomes that of who stands before it.
"""

from __future__ import annotations

import asyncio
import contextlib
import ssl
import struct
from collections.abc import AsyncIterator, Iterator

import confluent_kafka

from tests.support.services import PASSWORD

_API_VERSIONS, _HANDSHAKE, _AUTHENTICATE = 18, 17, 36


@contextlib.contextmanager
def broker() -> Iterator[int]:
    """A broker without login; gives its port. Topics are there as soon as they are named, with 4 partitions."""
    made = confluent_kafka.Producer({"test.mock.num.brokers": 1, "bootstrap.servers": "x", "log_level": 0})
    yield next(iter(made.list_topics(timeout=30).brokers.values())).port


class Front:
    """Stands before the broker; tells clients the ``advertised`` host and its own port."""

    def __init__(self, broker_port: int, advertised: str = "127.0.0.1") -> None:
        self.port = 0
        self.here = 0
        self._broker_port = broker_port
        self._advertised = advertised

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.here += 1
        theirs, other = await asyncio.open_connection("127.0.0.1", self._broker_port)
        try:
            let_in = False
            while True:
                asked = await _frame(reader)
                key, _, correlation = struct.unpack(">hhi", asked[:8])
                if key == _HANDSHAKE:
                    said = struct.pack(">ihi", correlation, 0, 1) + _text("PLAIN")
                elif key == _AUTHENTICATE:
                    let_in = asked.endswith(f"\0app\0{PASSWORD}".encode())
                    said = struct.pack(">ih", correlation, 0 if let_in else 58) + _text("no such user") + bytes(4)
                elif key != _API_VERSIONS and not let_in:
                    return
                else:
                    other.write(struct.pack(">i", len(asked)) + asked)
                    said = self._ours(await _frame(theirs), key)
                writer.write(struct.pack(">i", len(said)) + said)
                await writer.drain()
        except (OSError, asyncio.IncompleteReadError):
            pass
        finally:
            self.here -= 1
            other.close()
            writer.close()

    def _ours(self, said: bytes, key: int) -> bytes:
        if key == _API_VERSIONS:
            (count,) = struct.unpack(">i", said[6:10])
            more = struct.pack(">hhhhhh", _HANDSHAKE, 0, 1, _AUTHENTICATE, 0, 0)
            return said[:6] + struct.pack(">i", count + 2) + said[10:] + more
        theirs = _text("127.0.0.1") + struct.pack(">i", self._broker_port)
        return said.replace(theirs, _text(self._advertised) + struct.pack(">i", self.port))


async def _frame(reader: asyncio.StreamReader) -> bytes:
    return await reader.readexactly(int.from_bytes(await reader.readexactly(4), "big"))


def _text(value: str) -> bytes:
    return struct.pack(">h", len(value)) + value.encode()


@contextlib.asynccontextmanager
async def front(
    broker_port: int, tls: ssl.SSLContext | None = None, advertised: str = "127.0.0.1"
) -> AsyncIterator[Front]:
    made = Front(broker_port, advertised)
    async with await asyncio.start_server(made.serve, "127.0.0.1", 0, ssl=tls) as listening:
        made.port = listening.sockets[0].getsockname()[1]
        yield made
