"""A git server that behaves as it should but for one stage of a fetch, where it does as badly as it is told.

Put ``Hostile(...).serve`` before a good handler of ``git_http``: what it does not spoil, that one answers.
"""

from __future__ import annotations

import asyncio
import dataclasses
import zlib
from collections.abc import AsyncIterator, Callable

from aiohttp import web

from tests.support import git_http

#: What a fetch asks, in this order: who are you, where do your refs point, give me what I lack.
STAGES = ("advertise", "refs", "fetch")


def stage_of(request: web.Request, body: bytes) -> str:
    if request.method == "GET":
        return "advertise"
    return "refs" if b"command=ls-refs" in body else "fetch"


def packet(content: bytes) -> bytes:
    return b"%04x" % (len(content) + 4) + content


def sideband(content: bytes, band: int = 1) -> bytes:
    return b"".join(packet(bytes([band]) + content[at : at + 60_000]) for at in range(0, len(content), 60_000))


def endless_pack() -> bytes:
    """Return the beginning of a pack with one blob of a terabyte of noise that cannot be refuted before its end."""
    size = 2**40
    header = bytearray([0x80 | 3 << 4 | size & 15])
    size >>= 4
    while size > 0x7F:
        header.append(0x80 | size & 0x7F)
        size >>= 7
    header.append(size)
    return b"PACK\0\0\0\2\0\0\0\1" + bytes(header) + b"\x78\x01"


#: A block of 65,535 bytes that deflate stores as it is, and after which there is another one.
STORED = b"\0\xff\xff\0\0" + b"\xa5" * 65_535


async def endless(first: bytes, again: bytes) -> AsyncIterator[bytes]:
    yield first
    while True:
        yield again
        await asyncio.sleep(0)


async def dripping(content: bytes) -> AsyncIterator[bytes]:
    for at in range(len(content)):
        yield content[at : at + 1]
        await asyncio.sleep(0.2)
    await asyncio.sleep(3600)


async def then_silence(content: bytes) -> AsyncIterator[bytes]:
    yield content
    await asyncio.sleep(3600)


async def then_reset(content: bytes) -> AsyncIterator[bytes]:
    yield content
    raise ConnectionResetError


def once(content: bytes) -> Callable[[bytes], AsyncIterator[bytes]]:
    async def give(good: bytes) -> AsyncIterator[bytes]:
        yield content

    return give


def cut(share: float) -> Callable[[bytes], AsyncIterator[bytes]]:
    async def give(good: bytes) -> AsyncIterator[bytes]:
        yield good[: int(len(good) * share)]

    return give


def flipped(good: bytes) -> AsyncIterator[bytes]:
    """The answer with one bit of its second half wrong."""
    spoilt = bytearray(good)
    spoilt[len(good) * 3 // 4] ^= 0x10
    return once(bytes(spoilt))(good)


HTML = b"<!doctype html><title>Sign in</title><p>Please sign in to continue."

#: What comes in place of the good answer, by a name for people.
MANNERS: dict[str, Callable[[bytes], AsyncIterator[bytes]]] = {
    "nothing": once(b""),
    "a page": once(HTML),
    "garbage": once(bytes(range(256)) * 64),
    "a length and no more": once(b"fff0"),
    "an error of its own": once(packet(b"ERR upload-pack: not our ref \x1b[31mred")),
    "half of it": cut(0.5),
    "all but the end": cut(0.98),
    "a wrong bit": flipped,
    "half, then a reset": lambda good: then_reset(good[: len(good) // 2]),
    "silence": lambda good: then_silence(b""),
    "half, then silence": lambda good: then_silence(good[: len(good) // 2]),
    "a byte now and then": dripping,
    "packets without end": lambda good: endless(b"", packet(b"0" * 40 + b" refs/heads/" + b"x" * 60_000 + b"\n")),
    "bytes without end": lambda good: endless(b"", b"0008data" * 8000),
}
STATUSES = (401, 403, 404, 418, 429, 500, 503)
SLOW = {"silence", "half, then silence", "a byte now and then"}
ENDLESS = {"packets without end", "bytes without end"}


@dataclasses.dataclass
class Hostile:
    """``stage`` is spoilt in the ``manner`` (a name in ``MANNERS``, or a status); nothing is with no stage."""

    good: git_http.Handler
    stage: str = ""
    manner: str | int = ""
    spoilt: int = 0
    give: Callable[[bytes], AsyncIterator[bytes]] | None = None  # in place of a manner that has a name

    async def serve(self, request: web.Request) -> web.StreamResponse:
        stage = stage_of(request, await request.read())
        answer = await self.good(request)
        if stage != self.stage or answer.status == 401:
            return answer
        self.spoilt += 1
        if isinstance(self.manner, int):
            return web.Response(status=self.manner, text=HTML.decode(), content_type="text/html")
        assert isinstance(answer, web.Response)
        assert isinstance(answer.body, bytes)
        spoilt = web.StreamResponse(headers={"Content-Type": answer.content_type})
        await spoilt.prepare(request)
        try:
            async for piece in (self.give or MANNERS[self.manner])(answer.body):
                await spoilt.write(piece)
        except ConnectionResetError:
            if request.transport is not None:
                request.transport.abort()
        return spoilt


async def pack_without_end(good: bytes) -> AsyncIterator[bytes]:
    """A blob of a terabyte, one packet after the other."""
    yield packet(b"packfile\n") + sideband(endless_pack())
    while True:
        yield sideband(STORED)
        await asyncio.sleep(0)


async def chatter_without_end(good: bytes) -> AsyncIterator[bytes]:
    """Words for people in place of the pack."""
    yield packet(b"packfile\n")
    while True:
        yield sideband(b"Counting objects, canary\n" * 2000, band=2)
        await asyncio.sleep(0)


async def bomb(good: bytes) -> AsyncIterator[bytes]:
    """A blob of four gigabytes in four megabytes."""
    packer = zlib.compressobj(9)
    header = endless_pack()[: -len(b"\x78\x01")]
    yield packet(b"packfile\n") + sideband(header)
    zeros = bytes(2**20)
    for _ in range(4096):
        if piece := packer.compress(zeros):
            yield sideband(piece)
            await asyncio.sleep(0)
    yield sideband(packer.flush(zlib.Z_SYNC_FLUSH))
