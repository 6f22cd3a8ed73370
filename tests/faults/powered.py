"""A disk whose power can be cut: ext4 on a loop device, and the ioctl that makes it forget what was not synced.

    python -m tests.faults.powered DIRECTORY [lying]

writes a journal in DIRECTORY until it is killed, and says on stdout what is acknowledged. ``lying``: its fdatasync does
nothing, as that of some disks: the negative control, which has to be noticed.
"""

from __future__ import annotations

import asyncio
import fcntl
import os
import subprocess
import sys
import time
from pathlib import Path

import structlog

from headrace.engine.records import head, journal, marking, recovery
from tests.engine.records import journals

#: FS_IOC_SHUTDOWN, and its flags: go down after a sync, after flushing the log, at once.
SHUTDOWN = 0x8004587D
FLAGS = {"default": 0, "logflush": 1, "nologflush": 2}


class Disk:
    """Mounted at ``path``; raises ``RuntimeError`` with the reason where that is impossible."""

    def __init__(self, folder: Path, megabytes: int = 48) -> None:
        self.image = folder / "image"
        self.path = folder / "disk"
        self.path.mkdir()
        with self.image.open("wb") as file:
            file.truncate(megabytes << 20)
        self._do("mkfs.ext4", "-q", "-F", str(self.image))
        self.mount()

    def _do(self, *command: str) -> None:
        try:
            done = subprocess.run(command, capture_output=True, text=True, check=False)
        except FileNotFoundError:
            raise RuntimeError(f"{command[0]} is not installed") from None
        if done.returncode:
            raise RuntimeError(f"{command[0]}: {done.stderr.strip()}")

    def mount(self) -> None:
        self._do("mount", "-o", "loop", str(self.image), str(self.path))

    def cut(self, flag: str = "nologflush") -> None:
        """Cut the power: what was not synced is gone."""
        fd = os.open(self.path, os.O_RDONLY)
        try:
            fcntl.ioctl(fd, SHUTDOWN, FLAGS[flag].to_bytes(4, "little"))
        finally:
            os.close(fd)

    def again(self) -> None:
        """Power is back. Whoever still looks at a file is waited for, and another mount namespace that still has it: as
        long as one has, to mount it again gives the one without power."""
        deadline = time.monotonic() + 10
        while True:
            try:
                if self.path.is_mount():
                    self._do("umount", str(self.path))
                self.mount()
                (self.path / "lost+found").chmod(0o700)  # a change, which has to be possible
                return
            except (RuntimeError, OSError):
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.02)

    def close(self) -> None:
        subprocess.run(["umount", "-l", str(self.path)], capture_output=True, check=False)


async def write(directory: Path) -> None:
    """Acknowledge for ever; ``HEAD`` is marked often, so that cuts meet it, too."""
    numbers: list[int] = []
    found = recovery.recover(
        directory / "records",
        lambda recorded: numbers.append(int(recorded.event.execution[1:])),
        head.read(directory / head.FILE_NAME),
    )
    os.write(1, b"began %d\n" % len(numbers))
    lines = await journal.Journal.open(
        directory / "records", journals.Clock(), recovered=found, segment_bytes_max=20_000
    )
    keeping = marking.Marking(lines, directory / head.FILE_NAME, found.instance, journals.Clock())
    await keeping.mark()
    number = max(numbers, default=0)
    while True:
        number += 1
        await lines.submit(journals.log(number, "x" * (number * 37 % 900)))
        os.write(1, b"%d\n" % number)
        if number % 7 == 0:
            await keeping.mark()


if __name__ == "__main__":
    structlog.configure(logger_factory=structlog.PrintLoggerFactory(sys.stderr))
    if sys.argv[2:] == ["lying"]:
        os.fdatasync = lambda fd: None
    asyncio.run(write(Path(sys.argv[1])))
