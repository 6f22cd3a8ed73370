"""The index is disposable: whatever happens to its files, no start fails for it, and made anew it is right.

SQLite has no checksums: a bit that changes inside a row may go unnoticed until ``headrace records reindex``. How often
is printed.
"""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from headrace.engine.records import filing, recovery
from tests.engine.records import test_index as small
from tests.faults.conftest import Suite

pytestmark = pytest.mark.timeout(3600)


def test_random_accidents(tmp_path: Path, suite: Suite) -> None:
    async def fill() -> None:
        async with small.both(tmp_path) as (writer, _):
            await small.busy(writer, 40)

    async def look() -> bool:
        async with small.both(tmp_path) as (_, catalogue):
            try:
                await small.assert_as_the_journal_says(catalogue, tmp_path)
            except AssertionError:
                return False
        return True

    asyncio.run(fill())
    kept = {path.name: path.read_bytes() for path in tmp_path.glob("index.db*")}
    unnoticed = 0
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
            if not asyncio.run(look()):
                unnoticed += 1
                found = recovery.recover(tmp_path / "records")
                filing.rebuild(tmp_path / "index.db", tmp_path / "records", found.instance, found.position)
                assert asyncio.run(look())
    suite.note = f"{unnoticed} accidents went unnoticed until it was made anew"
    assert unnoticed <= 0.05 * suite.tries
