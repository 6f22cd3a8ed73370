"""The protocol of Redis and Valkey, version 3 with version 2 in it: commands as bytes, and answers within bounds.

There is no more to it than this, so no library is asked for. An answer may not have more bytes, nor be nested deeper,
than stands here: lengths are told before the data comes, and are believed only within the bounds.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

import msgspec

from . import host

#: What an answer may take: as much as a task's output.
ANSWER_BYTES_MAX = 64 * 1024 * 1024
#: The longest line: lengths, numbers, errors and simple texts.
LINE_BYTES_MAX = 64 * 1024
DEPTH_MAX = 32
_CONSTANTS = {b"_": None, b"#t": True, b"#f": False, b"$-1": None, b"*-1": None}


class Problem(msgspec.Struct, frozen=True):
    """An error the server answered."""

    text: str


def command(words: Sequence[bytes]) -> bytes:
    """Return a command as it is sent."""
    return b"*%d\r\n" % len(words) + b"".join(b"$%d\r\n%s\r\n" % (len(word), word) for word in words)


class Answers:
    """Answers as they come in. Texts are ``bytes``, errors ``Problem``, maps lists of pairs in a ``Pairs``."""

    def __init__(self, reader: asyncio.StreamReader) -> None:
        self._reader = reader
        self._left = 0

    async def next(self) -> Any:
        """Return the next answer; raises ``host.Failed`` for one over the bounds or that is none."""
        self._left = ANSWER_BYTES_MAX
        value = await self._value(0)
        while isinstance(value, _Aside):
            value = await self._value(0)
        return value

    async def _value(self, depth: int) -> Any:
        if depth > DEPTH_MAX:
            raise host.Failed(f"the answer is nested deeper than {DEPTH_MAX} levels")
        line = await self._line()
        if line in _CONSTANTS:
            return _CONSTANTS[line]
        kind, rest = line[:1], line[1:]
        try:
            match kind:
                case b"+":
                    return rest
                case b"-":
                    return Problem(rest.decode("utf-8", "replace"))
                case b":" | b"(":
                    return int(rest)
                case b",":
                    return float(rest)
                case b"$" | b"=" | b"!":
                    return await self._text(kind, int(rest))
                case b"*" | b"~":
                    return [await self._value(depth + 1) for _ in range(self._count(int(rest)))]
                case b"%":
                    return Pairs(
                        [
                            (await self._value(depth + 1), await self._value(depth + 1))
                            for _ in range(self._count(int(rest)))
                        ]
                    )
                case b">" | b"|":
                    count = self._count(int(rest)) * (2 if kind == b"|" else 1)
                    for _ in range(count):
                        await self._value(depth + 1)
                    return _Aside() if depth == 0 else await self._value(depth)
        except ValueError:
            pass
        raise host.Failed("what the server says is not understood: it may not be Redis, or may expect TLS")

    def _count(self, count: int) -> int:
        if not 0 <= count <= self._left // 3:  # the shortest value has three bytes
            raise self._too_long() if count > 0 else ValueError("a negative length")
        return count

    async def _text(self, kind: bytes, length: int) -> Any:
        if length < 0:
            raise ValueError("a negative length")
        self._spend(length + 2)
        text = await self._reader.readexactly(length + 2)
        match kind:
            case b"!":
                return Problem(text[:-2].decode("utf-8", "replace"))
            case b"=":
                return text[4:-2]
        return text[:-2]

    async def _line(self) -> bytes:
        try:
            line = await self._reader.readuntil(b"\r\n")
        except asyncio.LimitOverrunError:
            raise host.Failed(f"the server sent a line of more than {LINE_BYTES_MAX >> 10} KiB") from None
        self._spend(len(line))
        return line[:-2]

    def _spend(self, count: int) -> None:
        self._left -= count
        if self._left < 0:
            raise self._too_long()

    def _too_long(self) -> host.Failed:
        return host.Failed(f"the answer is larger than {ANSWER_BYTES_MAX >> 20} MiB: ask for less at a time")


class Pairs(list[tuple[Any, Any]]):
    """A map, in the order it came."""


class _Aside:
    """What was pushed or remarked and answers nothing."""
