"""Small journals for the tests of this room: made by the real writer, taken apart by the real reader."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator
from pathlib import Path

from headrace.engine import errors, events
from headrace.engine.records import journal, recovery, segments


class Clock:
    """The time of day, as the daemon's clock gives it."""

    def time(self) -> float:
        return time.time()

    def monotonic(self) -> float:
        return time.monotonic()


@contextlib.asynccontextmanager
async def opened(directory: Path, **settings: object) -> AsyncIterator[journal.Journal]:
    writer = await journal.Journal.open(directory, Clock(), **settings)
    try:
        yield writer
    finally:
        await writer.close()


def log(number: int, text: str = "") -> events.LogWritten:
    return events.LogWritten(execution=f"e{number:04d}", text=text or f"line {number}")


async def fill(directory: Path, batches: list[int], segment_bytes_max: int = 1 << 26) -> list[events.Recorded]:
    """Write batches of the given sizes and return what subscribers were told."""
    told: list[events.Recorded] = []
    number = 0
    async with opened(directory, segment_bytes_max=segment_bytes_max) as writer:
        writer.subscribe(told.extend)
        for size in batches:
            for _ in range(size):
                number += 1
                writer.append(log(number))
            await writer.durable()
    return told


def filled(directory: Path, batches: list[int], segment_bytes_max: int = 1 << 26) -> list[events.Recorded]:
    return asyncio.run(fill(directory, batches, segment_bytes_max))


def recovered(directory: Path) -> tuple[recovery.Recovered, list[events.Recorded]]:
    seen: list[events.Recorded] = []
    return recovery.recover(directory, seen.append), seen


def outcome(directory: Path) -> list[events.Recorded] | None:
    """Return what recovery finds, or None if it refuses."""
    try:
        return recovered(directory)[1]
    except errors.JournalCorrupt:
        return None


def snapshot(directory: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(directory.iterdir())}


def restore(directory: Path, files: dict[str, bytes]) -> None:
    directory.mkdir(exist_ok=True)
    for path in directory.iterdir():
        if path.name not in files:
            path.unlink()
    for name, content in files.items():
        path = directory / name
        if not path.exists() or path.read_bytes() != content:
            path.unlink(missing_ok=True)
            path.write_bytes(content)


def batch_of(line: bytes) -> int:
    return int(line.split(b'"batch":')[1].split(b",")[0])


def segment_names(directory: Path) -> list[str]:
    return [path.name for _, path in segments.files(directory)]
