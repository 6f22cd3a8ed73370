"""DOCKER's wire: one task's calls of an engine of Docker or Podman, over TCP, TLS or a socket of this machine.

An answer is read up to a bound, and what is none of an engine is told as that. The API's streams come in pieces; what a
program is to read goes the other way, on a connection that stops being HTTP for it.
"""

from __future__ import annotations

import asyncio
import contextlib
import re
import ssl
from collections.abc import AsyncIterator
from typing import Any

import aiohttp
import msgspec
import yarl

from ..engine import values
from . import blocking, host, rest, tls
from . import definition as definitions
from . import docker_inputs as asked

#: The newest version of the API that is asked for; an engine that is older is asked for its own.
_VERSION = (1, 47)
#: What one output of a program may take, and how much of it a failure keeps.
OUTPUT_BYTES_MAX = 16 * 1024 * 1024
FAILURE_CHARACTERS = 1024 * 1024
_PIECE_BYTES = 64 * 1024


class Engine:
    """One task's calls of an engine. Each raises ``host.Failed``."""

    def __init__(
        self, session: aiohttp.ClientSession, trust: ssl.SSLContext | bool, inputs: asked.DockerInputs
    ) -> None:
        self._session, self._trust, self._inputs = session, trust, inputs
        self._base = yarl.URL("http://engine" if inputs.socket is not None else inputs.url)
        self._version = ""

    async def meet(self) -> None:
        """Agree on a version of the API."""
        async with self.answered("GET", "/_ping") as response:
            said = re.fullmatch(r"(\d{1,3})\.(\d{1,3})", response.headers.get("Api-Version", ""))
        if said is None:
            raise host.Failed(f"{self._where} is not an engine of Docker or Podman")
        major, minor = min(_VERSION, (int(said[1]), int(said[2])))
        self._version = f"/v{major}.{minor}"

    @property
    def _where(self) -> str:
        return self._inputs.socket or f"{self._base.host}:{self._base.port}"

    @contextlib.asynccontextmanager
    async def answered(
        self, method: str, path: str, params: dict[str, str] | None = None, *, patient: bool = False, **more: Any
    ) -> AsyncIterator[aiohttp.ClientResponse]:
        """Give a good answer; ``patient`` is for one that comes when something ends."""
        url = self._base.with_path(self._base.path.rstrip("/") + self._version + path).with_query(params or {})
        limits = aiohttp.ClientTimeout(
            total=None, connect=self._inputs.connect_timeout, sock_read=None if patient else self._inputs.read_timeout
        )
        try:
            async with self._session.request(
                method, url, ssl=self._trust, allow_redirects=False, timeout=limits, **more
            ) as response:
                if response.status >= 300 and response.status != 304:
                    raise await _refusal(response)
                yield response
        except (aiohttp.ClientError, OSError) as error:
            words, passing = rest.explained(error, url, self._inputs.connect_timeout, self._inputs.read_timeout)
            if self._inputs.socket is not None:
                words = words.replace("engine:80", self._inputs.socket)
            raise host.Failed(words, passing=passing) from None

    async def call(self, method: str, path: str, params: dict[str, str] | None = None, **more: Any) -> Any:
        """Return the answer's JSON, or nothing where there is none."""
        async with self.answered(method, path, params, **more) as response:
            body = await _bounded(response, values.VALUE_BYTES_MAX)
        try:
            return msgspec.json.decode(body) if body.strip() else None
        except msgspec.DecodeError:
            raise self.unexpected() from None

    def unexpected(self) -> host.Failed:
        """Return the failure of an answer that is none of an engine."""
        return host.Failed(f"what {self._where} says is not what an engine says")

    def member(self, answer: Any, name: str, kind: type[Any]) -> Any:
        """Return a member of an answer; a text is an id."""
        value = answer.get(name) if isinstance(answer, dict) else None
        if not isinstance(value, kind) or (kind is str and not asked.NAME.fullmatch(value)):
            raise self.unexpected()
        return value

    async def lines(self, response: aiohttp.ClientResponse) -> AsyncIterator[dict[str, Any]]:
        """Yield what an engine tells while it works: an object of JSON in each line, a failure among them."""
        pending, length = bytearray(), 0
        async for chunk in response.content.iter_any():
            length += len(chunk)
            if length > OUTPUT_BYTES_MAX:
                raise host.Failed(f"the answer is larger than {OUTPUT_BYTES_MAX >> 20} MiB")
            pending += chunk
            if b"\n" in chunk:  # looked for in what is new alone: a line may come byte by byte
                *whole, pending = pending.split(b"\n")
                for line in whole:
                    if line.strip():
                        yield self._told(line)
        if pending.strip():
            yield self._told(pending)

    def _told(self, line: bytearray) -> dict[str, Any]:
        try:
            told = msgspec.json.decode(line)
        except msgspec.DecodeError:
            raise self.unexpected() from None
        if not isinstance(told, dict):
            raise self.unexpected()
        return told

    async def streams(self, method: str, path: str, params: dict[str, str], **more: Any) -> tuple[str, str]:
        """Return what a program writes, until it ends: pieces with eight bytes before each, as the API has it."""
        outputs = {1: bytearray(), 2: bytearray()}
        async with self.answered(method, path, params, patient=True, **more) as response:
            while head := await self._piece(response, 8):
                stream, length = head[0], int.from_bytes(head[4:], "big")
                if stream not in outputs or length > OUTPUT_BYTES_MAX:
                    raise self.unexpected()
                outputs[stream] += await self._piece(response, length) if length else b""
                if len(outputs[stream]) > OUTPUT_BYTES_MAX:
                    raise host.Failed(f"the program wrote more than {OUTPUT_BYTES_MAX >> 20} MiB")
        return outputs[1].decode("utf-8", "replace"), outputs[2].decode("utf-8", "replace")

    async def _piece(self, response: aiohttp.ClientResponse, length: int) -> bytes:
        try:
            return await response.content.readexactly(length)
        except asyncio.IncompleteReadError as error:
            if error.partial or length != 8:
                raise self.unexpected() from None
            return b""

    @contextlib.asynccontextmanager
    async def attached(self, container: str) -> AsyncIterator[asyncio.StreamWriter]:
        """Give what the container's program reads; closing it is that input's end."""
        path, upgrade = f"/containers/{container}/attach", {"Connection": "Upgrade", "Upgrade": "tcp"}
        params = {"stream": "true", "stdin": "true"}
        async with self.answered("POST", path, params, patient=True, headers=upgrade) as response:
            connection = response.connection
            if response.status != 101 or connection is None or connection.protocol is None:
                raise self.unexpected()
            transport, protocol = connection.transport, connection.protocol
            if transport is None:
                raise host.Failed(f"{self._where} closed the connection")
            try:
                yield asyncio.StreamWriter(transport, protocol, None, asyncio.get_running_loop())
            finally:
                if (left := connection.transport) is not None:  # else the engine has closed it
                    left.abort()  # what nobody has read by now, nobody will
                response.close()


async def feed(writer: asyncio.StreamWriter, content: bytes) -> bool:
    """Send all of it, then its end; return whether it was taken: a program may end before it has read all."""
    try:
        for start in range(0, len(content), _PIECE_BYTES):
            writer.write(content[start : start + _PIECE_BYTES])
            await writer.drain()
    except (aiohttp.ClientError, OSError):
        return False
    finally:
        writer.close()
    return True


async def _refusal(response: aiohttp.ClientResponse) -> host.Failed:
    body = await _bounded(response, 64 * 1024)
    try:
        said = msgspec.json.decode(body)["message"]
    except (msgspec.DecodeError, LookupError, TypeError):
        said = body.decode("utf-8", "replace")
    return host.Failed(f"status {response.status}: {host.quoted(str(said))}", passing=response.status == 503)


async def _bounded(response: aiohttp.ClientResponse, bytes_max: int) -> bytes:
    body = bytearray()
    async for chunk in response.content.iter_any():
        body += chunk
        if len(body) > bytes_max:
            raise host.Failed(f"the answer is larger than {bytes_max:,} bytes")
    return bytes(body)


@contextlib.asynccontextmanager
async def reached(
    settings: definitions.Settings, connections: rest.Connections, inputs: asked.DockerInputs
) -> AsyncIterator[Engine]:
    """Give the engine, if it may be reached and is one; raises ``TaskFailed`` and ``host.Failed``."""
    trust = await blocking.call(_trust, inputs)
    async with contextlib.AsyncExitStack() as stack:
        if inputs.socket is not None:
            settings.local.socket(asked.TASK, inputs.socket)
            session = aiohttp.ClientSession(connector=aiohttp.UnixConnector(inputs.socket))
            await stack.enter_async_context(session)
        elif (refusal := connections.egress.refusal(yarl.URL(inputs.url).raw_host or "")) is not None:
            raise host.Failed(refusal)
        else:
            session = connections.session()
        engine = Engine(session, trust, inputs)
        await engine.meet()
        yield engine


def _trust(inputs: asked.DockerInputs) -> ssl.SSLContext:
    return tls.context(
        cacert=inputs.cacert, client_cert=inputs.client_cert, client_key=inputs.client_key, verify=inputs.verify_ssl
    )
