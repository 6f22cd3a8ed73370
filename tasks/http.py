"""One HTTP exchange, for task types whose library says what to send and understands what comes back.

Nothing is followed and nothing is decompressed: a signature is about one address and one body. What comes back is
bounded, and the operator's policy holds for every address.
"""

from __future__ import annotations

import io
import ssl
from collections.abc import Mapping

import aiohttp
import msgspec
import yarl

from . import host, rest, stored_files

#: What an answer may take in memory.
BODY_BYTES_MAX = rest.BODY_BYTES_MAX


class Request(msgspec.Struct, frozen=True, kw_only=True):
    """What is sent. The address is encoded already."""

    method: str
    url: str
    headers: Mapping[str, str] = msgspec.field(default_factory=dict)
    body: bytes | None = None


class Answer(msgspec.Struct, frozen=True):
    """What came back; the body is empty when it went to a sink."""

    status: int
    headers: Mapping[str, str]
    body: bytes


class Limits(msgspec.Struct, frozen=True, kw_only=True):
    """How long a request may take, in seconds, and whom it trusts (True: the system's authorities)."""

    connect_timeout: float = 30.0
    read_timeout: float = 300.0
    trust: ssl.SSLContext | bool = True


async def exchange(
    connections: rest.Connections, request: Request, limits: Limits, sink: stored_files.Sink | None = None
) -> Answer:
    """Send the request and return the answer, whatever its status; raises ``host.Failed`` when there is none.

    A body of a good answer goes to ``sink`` where there is one."""
    url = yarl.URL(request.url, encoded=True)
    try:
        if (refusal := connections.egress.refusal(url.raw_host or "")) is not None:
            raise rest.EgressDenied(refusal)
        async with connections.session().request(
            request.method,
            url,
            data=None if request.body is None else io.BytesIO(request.body),
            headers=request.headers,
            skip_auto_headers=("Content-Type", "Accept-Encoding"),
            allow_redirects=False,
            ssl=limits.trust,
            timeout=aiohttp.ClientTimeout(
                total=None, connect=limits.connect_timeout, sock_read=limits.read_timeout or None
            ),
        ) as response:
            body = await _read(response, sink if response.status < 300 else None)
            return Answer(response.status, dict(response.headers), body)
    except (aiohttp.ClientError, OSError) as error:
        words, passing = rest.explained(error, url, limits.connect_timeout, limits.read_timeout)
        raise host.Failed(words, passing=passing) from None


async def _read(response: aiohttp.ClientResponse, sink: stored_files.Sink | None) -> bytes:
    body, total = bytearray(), 0
    async for chunk in response.content.iter_any():
        total += len(chunk)
        if total > (BODY_BYTES_MAX if sink is None else rest.FILE_BYTES_MAX):
            where = f"{BODY_BYTES_MAX >> 20} MiB" if sink is None else f"{rest.FILE_BYTES_MAX >> 30} GiB"
            raise host.Failed(f"the answer is larger than {where}")
        if sink is None:
            body += chunk
        else:
            await sink.write(chunk)
    return bytes(body)
