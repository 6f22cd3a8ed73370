"""A directory whose disk may be full, fail, and lose at a power cut what was not synced.

Its files are real ones; what the journal and its recovery do to them goes through here. What is durable is kept beside
them: the content of each file at its last sync, and the names at the last sync of the directory.
"""

from __future__ import annotations

import errno
import os
import random
from pathlib import Path
from typing import Any


class PowerCut(BaseException):
    """The daemon is gone, in the middle of this."""


class Disk:
    """Stands in for the module ``os`` where files of the journal are written; what it does not know it passes on."""

    def __init__(self, directory: Path, pick: random.Random) -> None:
        self.directory = directory
        self.faults = 0.0  # how likely an operation goes wrong
        self.cut_after = -1  # so many operations; -1: never
        self.full = False
        self.operations = 0
        self._pick = pick
        self._synced: dict[int, bytes] = {}  # by inode
        self._names: dict[str, int] = {}  # as they are durable
        self._open: set[int] = set()

    def __getattr__(self, name: str) -> object:
        return getattr(os, name)

    def _step(self) -> None:
        self.operations += 1
        if self.cut_after >= 0:
            self.cut_after -= 1
            if self.cut_after < 0:
                raise PowerCut

    def _goes_wrong(self) -> bool:
        return bool(self.faults) and self._pick.random() < self.faults

    def open(self, *how: Any) -> int:
        """As ``os.open``."""
        fd = os.open(*how)
        self._open.add(fd)
        return fd

    def close(self, fd: int) -> None:
        """As ``os.close``."""
        self._open.discard(fd)
        os.close(fd)

    def close_all(self) -> None:
        """Do what the kernel does when a process has died."""
        while self._open:
            os.close(self._open.pop())

    def write(self, fd: int, data: bytes) -> int:
        """As ``os.write``, which may take a part only, too."""
        part = self._pick.randrange(1, len(data) + 1) if self._pick.random() < 0.1 else len(data)
        if self.cut_after == 0:
            os.write(fd, data[:part])  # how much of it there is, nobody knows
        self._step()
        if self.full or self._goes_wrong():
            if part < len(data) and not self._pick.randrange(2):
                return os.write(fd, data[:part])
            raise OSError(self._pick.choice((errno.ENOSPC, errno.EIO)), "played")
        return os.write(fd, data[:part])

    def ftruncate(self, fd: int, size: int) -> None:
        """As ``os.ftruncate``."""
        self._step()
        os.ftruncate(fd, size)

    def fdatasync(self, fd: int) -> None:
        """As ``os.fdatasync``, which fails for good now and then."""
        self._step()
        if self._goes_wrong() and self._pick.random() < 0.2:
            raise OSError(errno.EIO, "played")
        inode = os.fstat(fd).st_ino
        self._synced[inode] = Path(f"/proc/self/fd/{fd}").read_bytes()

    def fsync(self, fd: int) -> None:
        """Of a directory: its names are durable after this."""
        self._step()
        if os.path.samefile(f"/proc/self/fd/{fd}", self.directory):
            self._names = {path.name: path.stat().st_ino for path in self.directory.iterdir()}

    def cut_power(self) -> None:
        """Leave what a disk keeps: all that was synced, and of the rest whatever it likes."""
        now = {path.name: path.stat().st_ino for path in self.directory.iterdir()}
        last = {inode: (self.directory / name).read_bytes() for name, inode in now.items()}
        names = now if self._pick.randrange(2) else self._names
        left = {name: self._left(self._synced.get(inode, b""), last.get(inode)) for name, inode in names.items()}
        for name in now:
            (self.directory / name).unlink()
        self._synced, self._names = {}, {}
        for name, content in left.items():
            path = self.directory / name
            path.write_bytes(content)
            inode = path.stat().st_ino
            self._synced[inode] = content
            self._names[name] = inode

    def _left(self, synced: bytes, last: bytes | None) -> bytes:
        """What is left of a file; ``last`` is what it held, if it still had a name."""
        if last is None:
            return synced
        if not last.startswith(synced):
            return self._pick.choice((synced, last))  # it was being cut back
        rest = last[len(synced) :]
        cut = self._pick.randint(0, len(rest))
        match self._pick.randrange(4):
            case 0:
                return synced
            case 1:
                return synced + rest[:cut] + bytes(len(rest) - cut)
        return synced + rest[:cut]
