"""The index is disposable: whatever happens to its files, a start is never in its way and it ends up right."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from tests.engine.records import test_index as small
from tests.faults.conftest import Suite

pytestmark = pytest.mark.timeout(3600)


def test_random_accidents(tmp_path: Path, suite: Suite) -> None:
    async def fill() -> None:
        async with small.both(tmp_path) as (writer, _):
            await small.busy(writer, 40)

    async def look() -> None:
        async with small.both(tmp_path) as (_, catalogue):
            await small.assert_as_the_journal_says(catalogue, tmp_path)

    asyncio.run(fill())
    kept = {path.name: path.read_bytes() for path in tmp_path.glob("index.db*")}
    for _ in suite.times(150):
        for path in tmp_path.glob("index.db*"):
            path.unlink()
        for name, content in kept.items():
            damaged = bytearray(content)
            match suite.random.randrange(5):
                case 0:
                    continue
                case 1:
                    del damaged[suite.random.randrange(len(damaged) + 1) :]
                case 2:
                    damaged[suite.random.randrange(len(damaged))] ^= 1 << suite.random.randrange(8)
                case 3:
                    start = suite.random.randrange(len(damaged))
                    damaged[start : start + 4096] = suite.random.randbytes(4096)
                case 4:
                    start = suite.random.randrange(len(damaged))
                    damaged[start : start + 4096] = b"\0" * 4096
            (tmp_path / name).write_bytes(damaged)
        if suite.random.random() < 0.1:
            (tmp_path / "index.db-wal").write_bytes(suite.random.randbytes(5000))
        with suite.attempt():
            asyncio.run(look())
