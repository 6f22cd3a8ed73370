"""A process that writes a small journal and says on stdout what was acknowledged; faults are injected around it.

python -m tests.engine.records.writing DIRECTORY [recover | resume] [mark]

``resume`` goes on without recovery, so that the k-th system call is the k-th of writing; ``mark`` keeps ``HEAD``, too.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import hashlib
import os
import sys
from pathlib import Path

import structlog

from headrace.engine import errors
from headrace.engine.records import head, journal, marking, recovery, segments
from tests.engine.records import journals


def unrecovered(directory: Path) -> recovery.Recovered:
    files = segments.files(directory)
    reader = recovery.Reader(None)
    reader.read(files)
    reader.found.sha256 = hashlib.sha256(files[-1][1].read_bytes())
    return reader.found


async def write(directory: Path, recovered: recovery.Recovered | None, *, mark: bool) -> int:
    clock = journals.Clock()
    # strace counts the calls of each thread: all marks must be made by one.
    asyncio.get_running_loop().set_default_executor(concurrent.futures.ThreadPoolExecutor(1))
    try:
        recovered = recovered or recovery.recover(directory, mark=head.read(directory.parent / head.FILE_NAME))
        writer = await journal.Journal.open(directory, clock, segment_bytes_max=700, recovered=recovered)
    except errors.JournalFailed:
        return 74
    path = directory.parent / head.FILE_NAME
    keeping = marking.Marking(writer, path, recovered.instance, clock) if mark else None
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
        if keeping is not None and number % 3 == 0:
            await keeping.mark()
    await writer.close()
    if keeping is not None:
        await keeping.close()
    return 0


if __name__ == "__main__":
    structlog.configure(logger_factory=structlog.PrintLoggerFactory(sys.stderr))
    folder, words = Path(sys.argv[1]), sys.argv[2:]
    if "recover" in words:
        recovery.recover(folder, mark=head.read(folder.parent / head.FILE_NAME))
    else:
        found = unrecovered(folder) if "resume" in words else None
        sys.exit(asyncio.run(write(folder, found, mark="mark" in words)))
