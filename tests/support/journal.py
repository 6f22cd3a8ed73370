"""What stands in for systemd's journal: a socket, and its native protocol parsed."""

from __future__ import annotations

import array
import os
import socket
import struct
from pathlib import Path


def parsed(data: bytes) -> dict[str, str]:
    """The fields of an entry, read as systemd.io/JOURNAL_NATIVE_PROTOCOL says."""
    found: dict[str, str] = {}
    while data:
        line, _, data = data.partition(b"\n")
        name, is_short, value = line.partition(b"=")
        if not is_short:
            (length,) = struct.unpack("<Q", data[:8])
            value, data = data[8 : 8 + length], data[8 + length :]
            assert data[:1] == b"\n"
            data = data[1:]
        assert name.decode() not in found
        found[name.decode()] = value.decode()
    return found


class Listener:
    """Listens as journald does; ``files`` counts the sealed ones that were handed over."""

    def __init__(self, path: Path) -> None:
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.bind(str(path))
        self._socket.settimeout(20)
        self.files = 0

    def next(self) -> dict[str, str]:
        """The next entry; one that came as a file is read only if it is sealed."""
        data, passed, _, _ = self._socket.recvmsg(1 << 20, socket.CMSG_SPACE(4))
        for _level, _kind, content in passed:
            (descriptor,) = array.array("i", content)
            with open(descriptor, "rb") as file:
                try:
                    os.pwrite(descriptor, b"x", 0)
                except PermissionError:
                    self.files += 1
                data = os.pread(descriptor, os.fstat(file.fileno()).st_size, 0)
        return parsed(data)

    def close(self) -> None:
        self._socket.close()
