"""Folders on their way to another machine: a tar stream of fixed form, and its digest.

The same folder gives the same bytes wherever and whenever it is packed, so the digest of the stream is the name of what
is in it. Used by both ends: the daemon packs snapshots and environments, nodes keep them by digest.
"""

from __future__ import annotations

import hashlib
import io
import os
import tarfile
from collections.abc import Iterator
from typing import BinaryIO

CHUNK_BYTES = 256 * 1024


def pack(folder: str) -> Iterator[bytes]:
    """Yield the stream of ``folder``; blocking. Owners and the order of the file system do not show in it."""
    sink = _Sink()
    with tarfile.open(fileobj=sink, mode="w|", format=tarfile.PAX_FORMAT, bufsize=CHUNK_BYTES) as archive:
        for path, name in _entries(folder):
            member = archive.gettarinfo(path, name)
            member.uid = member.gid = 0
            member.uname = member.gname = ""
            member.mode &= 0o755  # as it will be when it is unpacked
            member.mtime = 0 if member.isdir() else int(member.mtime)  # compiled files name their source's second
            if member.islnk():  # a second name of a file that came before: here it is a file like any other
                member.type, member.linkname = tarfile.REGTYPE, ""
                member.size = os.path.getsize(path)
            if not member.isreg():
                archive.addfile(member)
            else:
                with open(path, "rb") as content:
                    archive.addfile(member, content)
            yield from sink.taken()
    yield from sink.taken()


def digest(folder: str) -> str:
    """Return the digest of ``folder``, in hexadecimal; blocking."""
    found = hashlib.sha256()
    for chunk in pack(folder):
        found.update(chunk)
    return found.hexdigest()


def unpack(stream: BinaryIO, folder: str) -> None:
    """Make ``folder`` of a stream; blocking. Raises ``tarfile.TarError`` or ``OSError`` for one that is cut short, or
    leads out of the folder."""
    os.mkdir(folder, 0o700)
    inside = os.path.realpath(folder)
    with tarfile.open(fileobj=stream, mode="r|", bufsize=CHUNK_BYTES) as archive:
        archive.extraction_filter = _as_it_is
        for member in archive:
            if os.path.commonpath([inside, os.path.realpath(os.path.join(inside, member.name))]) != inside:
                raise tarfile.ReadError(f"{member.name!r} leads out of the folder")
            archive.extract(member, folder, numeric_owner=True)
    while stream.read(CHUNK_BYTES):
        pass  # what fills up the last record belongs to the digest


def _as_it_is(member: tarfile.TarInfo, _folder: str) -> tarfile.TarInfo:
    """Change nothing. Filters of the library's own came with Python 3.11.4, and some refuse the links of environments;
    ``extraction_filter`` means nothing to those before."""
    return member


def _entries(folder: str) -> Iterator[tuple[str, str]]:
    """Yield path and name of everything below ``folder``, folders before what is in them."""
    with os.scandir(folder) as found:
        listed = sorted((entry.name, entry.is_dir(follow_symlinks=False)) for entry in found)
    for name, is_folder in listed:
        path = os.path.join(folder, name)
        yield path, name
        if is_folder:
            yield from ((below, f"{name}/{rest}") for below, rest in _entries(path))


class _Sink(io.RawIOBase):
    """Where tarfile writes; what came is taken away between two members."""

    def __init__(self) -> None:
        self._parts: list[bytes] = []

    def writable(self) -> bool:
        return True

    def write(self, data: bytes) -> int:  # type: ignore[override]
        self._parts.append(bytes(data))
        return len(data)

    def taken(self) -> list[bytes]:
        """Return what was written since."""
        parts, self._parts = self._parts, []
        return parts
