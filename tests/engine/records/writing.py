"""A process that writes a small journal and says on stdout what was acknowledged; faults are injected around it.

python -m tests.engine.records.writing DIRECTORY [recover]
"""

from __future__ import annotations

import asyncio
import hashlib
import os
import sys
from pathlib import Path

import structlog

from headrace.engine import errors
from headrace.engine.records import journal, recovery, segments
from tests.engine.records import journals


def unrecovered(directory: Path) -> recovery.Recovered:
    files = segments.files(directory)
    reader = recovery.Reader(None)
    reader.read(files)
    reader.found.sha256 = hashlib.sha256(files[-1][1].read_bytes())
    return reader.found


async def write(directory: Path, recovered: recovery.Recovered | None) -> int:
    clock = journals.Clock()
    try:
        writer = await journal.Journal.open(directory, clock, segment_bytes_max=700, recovered=recovered)
    except errors.JournalFailed:
        return 74
    for number in range(1, 9):
        try:
            writer.append(journals.log(100 + number))
            await writer.submit(journals.log(number))
        except errors.NotAccepting:
            os.write(1, b"refused\n")
            continue
        except errors.JournalFailed:
            assert (await writer.failed).exit_code == 74
            return 74
        os.write(1, f"{number}\n".encode())
    await writer.close()
    return 0


if __name__ == "__main__":
    structlog.configure(logger_factory=structlog.PrintLoggerFactory(sys.stderr))
    if sys.argv[2:] == ["recover"]:
        recovery.recover(Path(sys.argv[1]))
    else:
        found = unrecovered(Path(sys.argv[1])) if sys.argv[2:] == ["resume"] else None
        sys.exit(asyncio.run(write(Path(sys.argv[1]), found)))
