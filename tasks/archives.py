"""Archives of kept files: zip and tar.gz, made the same each time, and taken apart without trusting them.

Only regular files come out, under names that stay in their folder, and only so much of them: an archive can be a bomb.
"""

from __future__ import annotations

import gzip
import io
import pathlib
import tarfile
import zipfile
import zlib
from collections.abc import Iterator, Sequence
from typing import IO

FILES_MAX = 10_000
#: All files together, unpacked.
BYTES_MAX = 512 * 1024 * 1024
_PIECE_BYTES = 1024 * 1024
#: The same archive for the same files: their time is that of zip's beginning.
_EPOCH = (1980, 1, 1, 0, 0, 0)


class ArchiveInvalid(ValueError):
    """It is no archive, or none that is taken apart here."""


def kind(name: str) -> str | None:
    """Return which kind of archive a name promises, or None."""
    for ending, found in ((".zip", "zip"), (".tar.gz", "tar"), (".tgz", "tar")):
        if name.lower().endswith(ending):
            return found
    return None


def packed(form: str, files: Sequence[tuple[str, bytes]]) -> bytes:
    """Return an archive of names and contents."""
    buffer = io.BytesIO()
    if form == "zip":
        with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as zipped:
            for name, content in files:
                zipped.writestr(zipfile.ZipInfo(name, _EPOCH), content, zipfile.ZIP_DEFLATED)
    else:
        # Python's gzip writes the time of day into the header unless it is told one.
        with gzip.GzipFile(fileobj=buffer, mode="wb", mtime=0) as packer, tarfile.open(fileobj=packer, mode="w") as tar:
            for name, content in files:
                about = tarfile.TarInfo(name)
                about.size, about.mode = len(content), 0o644
                tar.addfile(about, io.BytesIO(content))
    return buffer.getvalue()


def unpacked(form: str, content: bytes) -> Iterator[tuple[str, bytes]]:
    """Yield the name and content of each file; raises ``ArchiveInvalid``."""
    left, count = BYTES_MAX, 0
    try:
        for name, stream in _members(form, content):
            count += 1
            if count > FILES_MAX:
                raise ArchiveInvalid(f"it has more than {FILES_MAX:,} files")
            if not _is_usable(name):
                raise ArchiveInvalid("a name in it leaves its folder or cannot be used")
            data = stream.read(left + 1)
            left -= len(data)
            if left < 0:
                raise ArchiveInvalid(f"its files are larger than {BYTES_MAX >> 20} MiB together")
            yield name, data
    except (zipfile.BadZipFile, tarfile.TarError, zlib.error, EOFError, OSError, RuntimeError, NotImplementedError):
        raise ArchiveInvalid("it is damaged, encrypted, or no such archive") from None


def _members(form: str, content: bytes) -> Iterator[tuple[str, IO[bytes]]]:
    if form == "zip":
        with zipfile.ZipFile(io.BytesIO(content)) as zipped:
            for about in zipped.infolist():
                is_link = (about.external_attr >> 28) == 0o12
                if not about.is_dir() and not is_link:
                    with zipped.open(about) as stream:
                        yield about.filename, stream
    else:
        with tarfile.open(fileobj=io.BytesIO(content), mode="r:gz") as tar:
            for member in tar:
                if member.isreg() and (found := tar.extractfile(member)) is not None:
                    with found:
                        yield member.name.removeprefix("./"), found


def _is_usable(name: str) -> bool:
    parts = pathlib.PurePosixPath(name).parts
    return bool(parts) and not name.startswith("/") and ".." not in parts and name.isprintable() and "\\" not in name
