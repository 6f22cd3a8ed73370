"""Kafka on loopback: the broker that librdkafka brings for tests, and what stands before it with a login and TLS.

The broker knows neither, so they are played here, after the protocol's public description: handshake and login are
answered, all else is passed on, and the address the broker tells clients becomes that of who stands before it.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import hashlib
import hmac
import os
import ssl
import struct
from collections.abc import AsyncIterator, Iterator
from typing import Any

import confluent_kafka

from tests.support.services import PASSWORD

_API_VERSIONS, _HANDSHAKE, _AUTHENTICATE = 18, 17, 36


@contextlib.contextmanager
def broker() -> Iterator[int]:
    """A broker without login; gives its port. Topics are there as soon as they are named, with 4 partitions."""
    made = confluent_kafka.Producer({"test.mock.num.brokers": 1, "bootstrap.servers": "x", "log_level": 0})
    yield next(iter(made.list_topics(timeout=30).brokers.values())).port


class Scram:
    """The server's side of one login of the user ``app``, as RFC 5802 has it: only who knows the password proves it."""

    def __init__(self, mechanism: str, password: str, iterations: int) -> None:
        self._hash = {"SCRAM-SHA-256": "sha256", "SCRAM-SHA-512": "sha512"}[mechanism]
        self._iterations, self._salt = iterations, os.urandom(16)
        # It is asked to hash often, we are not.
        self._salted = hashlib.pbkdf2_hmac(self._hash, password.encode(), self._salt, min(iterations, 8192))
        self._said = self._nonce = ""

    def first(self, client_first: str) -> str:
        bare = client_first.removeprefix("n,,")
        assert bare.startswith("n=app,r=") and bare != client_first
        self._nonce = bare.removeprefix("n=app,r=") + base64.b64encode(os.urandom(18)).decode()
        server_first = f"r={self._nonce},s={base64.b64encode(self._salt).decode()},i={self._iterations}"
        self._said = f"{bare},{server_first}"
        return server_first

    def final(self, client_final: str) -> str | None:
        """Return what proves that we know the password, too, or None for a proof that is none."""
        without, _, proof = client_final.rpartition(",p=")
        said = f"{self._said},{without}".encode()
        stored = hashlib.new(self._hash, self._mac(self._salted, b"Client Key")).digest()
        pairs = zip(base64.b64decode(proof), self._mac(stored, said), strict=True)
        shown = hashlib.new(self._hash, bytes(one ^ other for one, other in pairs)).digest()
        if shown != stored or without != f"c=biws,r={self._nonce}":
            return None
        return "v=" + base64.b64encode(self._mac(self._mac(self._salted, b"Server Key"), said)).decode()

    def _mac(self, key: bytes, content: bytes) -> bytes:
        return hmac.digest(key, content, self._hash)


class Front:
    """Stands before the broker; tells clients the ``advertised`` host and its own port.

    It knows ``password`` for the user ``app``, and no login but ``mechanism``."""

    def __init__(
        self,
        broker_port: int,
        advertised: str = "127.0.0.1",
        mechanism: str = "PLAIN",
        password: str = PASSWORD,
        iterations: int = 4096,
    ) -> None:
        self.port = 0
        self.here = 0
        self._broker_port = broker_port
        self._advertised = advertised
        self._mechanism, self._password, self._iterations = mechanism, password, iterations
        self._serving: set[asyncio.Task[None]] = set()  # the loop alone would let go of them in the middle

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.here += 1
        task = asyncio.current_task()
        assert task is not None
        self._serving.add(task)
        task.add_done_callback(self._serving.discard)
        theirs, other = await asyncio.open_connection("127.0.0.1", self._broker_port)
        try:
            let_in, login = False, None
            while True:
                asked = await _frame(reader)
                key, _, correlation = struct.unpack(">hhi", asked[:8])
                if key == _HANDSHAKE:
                    said = struct.pack(">ihi", correlation, 0, 1) + _text(self._mechanism)
                elif key == _AUTHENTICATE:
                    shown, answer = _shown(asked), ""
                    if self._mechanism == "PLAIN":
                        good = let_in = shown.endswith(f"\0app\0{self._password}")
                    elif login is None:
                        login, good = Scram(self._mechanism, self._password, self._iterations), True
                        answer = login.first(shown)
                    else:
                        proof = login.final(shown)
                        good = let_in = proof is not None
                        answer = self._proof(proof or "")
                    said = struct.pack(">ih", correlation, 0 if good else 58) + _text("no such user")
                    said += struct.pack(">i", len(answer)) + answer.encode()
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

    async def close(self) -> None:
        """Turn away who is still here."""
        for task in self._serving:
            task.cancel()
        await asyncio.gather(*self._serving, return_exceptions=True)

    def _proof(self, proof: str) -> str:
        return proof

    def _ours(self, said: bytes, key: int) -> bytes:
        if key == _API_VERSIONS:
            (count,) = struct.unpack(">i", said[6:10])
            more = struct.pack(">hhhhhh", _HANDSHAKE, 0, 1, _AUTHENTICATE, 0, 0)
            return said[:6] + struct.pack(">i", count + 2) + said[10:] + more
        theirs = _text("127.0.0.1") + struct.pack(">i", self._broker_port)
        return said.replace(theirs, _text(self._advertised) + struct.pack(">i", self.port))


async def _frame(reader: asyncio.StreamReader) -> bytes:
    return await reader.readexactly(int.from_bytes(await reader.readexactly(4), "big"))


def _shown(asked: bytes) -> str:
    """Return what a login shows: it stands behind the name that the client gives itself."""
    (length,) = struct.unpack(">h", asked[8:10])
    return asked[14 + length :].decode()


def _text(value: str) -> bytes:
    return struct.pack(">h", len(value)) + value.encode()


@contextlib.asynccontextmanager
async def front(
    broker_port: int, tls: ssl.SSLContext | None = None, kind: type[Front] = Front, **more: Any
) -> AsyncIterator[Front]:
    made = kind(broker_port, **more)
    async with await asyncio.start_server(made.serve, "127.0.0.1", 0, ssl=tls) as listening:
        made.port = listening.sockets[0].getsockname()[1]
        try:
            yield made
        finally:
            await made.close()
