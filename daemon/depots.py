"""Where backups lie: one file, or a folder that holds many of them.

A file is a tar archive whose last members are the manifest and the SHA-256 of all bytes before it; it may be encrypted
with age. A folder keeps each content once, under its SHA-256, and a manifest for each backup: one more costs what
changed. Under its name a backup is never half made, and reading one checks every byte of it. Blocking; ``backup``
writes here, ``restoration`` reads.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import io
import os
import secrets
import tarfile
import tempfile
import threading
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import IO, Protocol

import msgspec

from ..engine import errors
from ..engine.state import age
from ..sync import snapshot

FORMAT = 1
CHUNK_BYTES = 1024 * 1024
_MANIFEST = "MANIFEST.json"
_HASH = "SHA256"
#: The last member, with its header, and the end of the archive.
_END_BYTES = 512 + 512 + 1024
_AGE = b"age-encryption.org/v1"
_OBJECTS = "objects"


class Entry(msgspec.Struct, frozen=True):
    """One file of a state directory; ``path`` is below it."""

    path: str
    sha256: str
    size: int
    mode: int
    mtime_s: int


class Manifest(msgspec.Struct, frozen=True, kw_only=True):
    """What a backup holds: the journal up to ``seq``, and all it names but what is ``missing``."""

    format: int = FORMAT
    version: str
    at: str
    instance: str
    seq: int
    files: tuple[Entry, ...]
    missing: tuple[str, ...] = ()


class Damaged(errors.JournalCorrupt):
    """A backup is not what was written."""


class Depot(Protocol):
    """What ``backup`` writes to. Nothing is there under its name before ``finish`` has returned; then it is durable."""

    def begin(self) -> None:
        """Begin, or begin anew."""

    def known(self, path: str, size: int) -> Entry | None:
        """Return the entry of a file that never changes, if an earlier backup has it."""

    def add(self, path: str, content: IO[bytes], size: int, mode: int, mtime_s: int) -> Entry:
        """Take the first ``size`` bytes of ``content``; raises ``Shrunk`` if there are less."""

    def finish(self, manifest: Manifest) -> None:
        """Complete it."""

    def close(self) -> None:
        """Leave nothing half made; after ``finish`` there is nothing of that kind."""


class Shrunk(Exception):
    """A file that is copied became shorter meanwhile."""


class Backup(Protocol):
    """What ``restoration`` reads from."""

    manifest: Manifest

    def content(self, entry: Entry) -> Iterable[bytes]:
        """Yield the content of a file; raises ``Damaged`` if it is not there. The reader checks what it holds."""


def depot(target: str, recipients: Sequence[str], keep: int) -> Depot:
    """Return where to write: a folder if there is one, or the name ends with a slash, else a file."""
    path = Path(target).absolute()
    if not target.endswith("/") and not path.is_dir():
        if keep:
            raise errors.InvalidRequest("a file holds one backup: there is nothing to keep of it", hint="name a folder")
        return _File(path, recipients)
    if recipients:
        raise errors.InvalidRequest("a folder of backups is not encrypted", hint="name a file, or encrypt its disk")
    return _Folder(path, keep)


@contextlib.contextmanager
def opened(source: Path, identity: str = "", beside: Path | None = None) -> Iterator[Backup]:
    """Open a backup, of a folder the newest one; a manifest in a folder is that one. Raises ``NotFound``, ``Damaged``.

    What is decrypted lies, without a name, in ``beside`` meanwhile."""
    if source.is_dir():
        found = sorted(source.glob("*.json"))
        if not found:
            raise errors.NotFound(f"there is no backup in {source}", hint="`headrace backup` makes one")
        yield _OfFolder(found[-1])
    elif source.suffix == ".json" and (source.parent / _OBJECTS).is_dir():
        yield _OfFolder(source)
    else:
        try:
            file: IO[bytes] = source.open("rb")
        except OSError as error:
            raise errors.NotFound(f"{source} cannot be read: {error.strerror}") from error
        with file:
            if file.read(len(_AGE)) != _AGE:
                yield _OfFile(source, file)
                return
            file.seek(0)
            with tempfile.TemporaryFile(dir=beside) as plain:
                age.open_stream(file, plain, identity)
                yield _OfFile(source, plain)


class _File:
    def __init__(self, path: Path, recipients: Sequence[str]) -> None:
        self._path = path
        self._beside = path.with_name(f".{path.name}.{secrets.token_hex(4)}.tmp")
        self._recipients = recipients
        self._raw: IO[bytes] | None = None
        self._out: _Hashed | None = None
        self._tar: tarfile.TarFile | None = None
        self._sealing: _Sealing | None = None

    def begin(self) -> None:
        self.close()
        self._raw = os.fdopen(os.open(self._beside, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb")
        self._sealing = _Sealing(self._raw, self._recipients) if self._recipients else None
        self._out = _Hashed(self._sealing.into if self._sealing else self._raw)
        self._tar = tarfile.TarFile(fileobj=self._out, mode="w", format=tarfile.PAX_FORMAT)

    def known(self, path: str, size: int) -> Entry | None:
        return None

    def add(self, path: str, content: IO[bytes], size: int, mode: int, mtime_s: int) -> Entry:
        assert self._tar is not None
        about = tarfile.TarInfo(path)
        about.size, about.mode, about.mtime = size, mode, mtime_s
        reading = _Reading(content)
        try:
            self._tar.addfile(about, reading)
        except OSError as error:
            if reading.read_bytes < size and error.errno is None:  # tarfile's own: unexpected end of data
                raise Shrunk(path) from error
            raise
        return Entry(path, reading.sha256.hexdigest(), size, mode, mtime_s)

    def finish(self, manifest: Manifest) -> None:
        assert self._tar is not None
        assert self._out is not None
        assert self._raw is not None
        text = msgspec.json.encode(manifest)
        self.add(_MANIFEST, io.BytesIO(text), len(text), 0o600, 0)
        self._out.write(_end(self._out.sha256.hexdigest()))
        if self._sealing is not None:
            self._sealing.finish()
        self._raw.flush()
        os.fsync(self._raw.fileno())
        self._raw.close()
        self._beside.replace(self._path)
        snapshot.sync_path(self._path.parent)

    def close(self) -> None:
        if self._sealing is not None:
            self._sealing.close()
        if self._raw is not None:
            self._raw.close()
        self._beside.unlink(missing_ok=True)


class _Sealing:
    """Encrypts what is written ``into`` it, in a thread."""

    def __init__(self, out: IO[bytes], recipients: Sequence[str]) -> None:
        keys = age.recipients(recipients)
        reading, writing = os.pipe()
        self.into: IO[bytes] = os.fdopen(writing, "wb")
        self._error: BaseException | None = None

        def seal() -> None:
            try:
                with os.fdopen(reading, "rb") as plain:
                    age.seal_stream(plain, out, keys)
            except (OSError, errors.HeadraceError) as error:
                self._error = error

        self._thread = threading.Thread(target=seal, name="age")
        self._thread.start()

    def finish(self) -> None:
        self.close()
        if self._error is not None:
            raise self._error

    def close(self) -> None:
        with contextlib.suppress(OSError):  # nobody reads any more: ``_error`` says why
            self.into.close()
        self._thread.join()


class _Hashed(io.RawIOBase):
    """Hashes what goes through it."""

    def __init__(self, out: IO[bytes]) -> None:
        self._out = out
        self._position = 0
        self.sha256 = hashlib.sha256()

    def write(self, data: bytes) -> int:  # type: ignore[override]
        self._out.write(data)
        self.sha256.update(data)
        self._position += len(data)
        return len(data)

    def tell(self) -> int:
        return self._position

    def writable(self) -> bool:
        return True


class _Reading:
    """Hashes what is read of it."""

    def __init__(self, content: IO[bytes]) -> None:
        self._content = content
        self.read_bytes = 0
        self.sha256 = hashlib.sha256()

    def read(self, size: int = -1, /) -> bytes:
        data = self._content.read(size)
        self.sha256.update(data)
        self.read_bytes += len(data)
        return data


def _end(digest: str) -> bytes:
    about = tarfile.TarInfo(_HASH)
    about.size, about.mode = len(digest) + 1, 0o600
    return about.tobuf(tarfile.USTAR_FORMAT) + f"{digest}\n".encode().ljust(512, b"\0") + bytes(1024)


class _OfFile:
    def __init__(self, path: Path, file: IO[bytes]) -> None:
        self._path = path
        size = file.seek(0, os.SEEK_END) - _END_BYTES
        file.seek(0)
        sha256, left = hashlib.sha256(), max(size, 0)
        while left and (chunk := file.read(min(left, CHUNK_BYTES))):
            sha256.update(chunk)
            left -= len(chunk)
        if size < 0 or file.read() != _end(sha256.hexdigest()):
            raise Damaged(f"{path} is damaged, or no backup: it does not have the checksum at its end", hint=_HINT)
        file.seek(0)
        self._tar = tarfile.TarFile(fileobj=file)
        self.manifest = _manifest(path, b"".join(self._read(_MANIFEST)))

    def content(self, entry: Entry) -> Iterable[bytes]:
        return self._read(entry.path)

    def _read(self, name: str) -> Iterator[bytes]:
        try:
            member = self._tar.extractfile(name)
        except (KeyError, tarfile.TarError):
            member = None
        if member is None:
            raise Damaged(f"{self._path} has no {name}", hint=_HINT)
        while chunk := member.read(CHUNK_BYTES):
            yield chunk


_HINT = "take another backup; nothing was changed"


def _manifest(path: Path, text: bytes) -> Manifest:
    try:
        found = msgspec.json.decode(text, type=Manifest)
    except msgspec.MsgspecError:
        raise Damaged(f"{path} has no manifest that can be read", hint=_HINT) from None
    if found.format != FORMAT:
        raise errors.InvalidRequest(
            f"{path} has format {found.format}, this version reads {FORMAT}",
            hint=f"restore it with headrace {found.version}",
        )
    return found


class _Folder:
    def __init__(self, path: Path, keep: int) -> None:
        self._path = path
        self._keep = keep
        self._objects = path / _OBJECTS
        self._lock = -1
        self._known: dict[str, Entry] = {}

    def begin(self) -> None:
        if self._path.is_dir() and any(self._path.iterdir()) and not self._objects.is_dir():
            raise errors.Conflict(f"{self._path} holds something else than backups", hint="name an empty folder")
        self._objects.mkdir(mode=0o700, parents=True, exist_ok=True)
        if self._lock < 0:
            self._lock = os.open(self._path, os.O_RDONLY | os.O_DIRECTORY)
            try:
                fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise errors.Conflict(f"another backup is written to {self._path}", hint="wait for its end") from None
        self._known = {}
        for path in sorted(self._path.glob("*.json"))[-1:]:
            with contextlib.suppress(errors.HeadraceError):  # it is no use then; all is copied
                self._known = {entry.path: entry for entry in _OfFolder(path).manifest.files}

    def known(self, path: str, size: int) -> Entry | None:
        entry = self._known.get(path)
        if entry is None or entry.size != size:
            return None
        try:
            return entry if self._object(entry.sha256).stat().st_size == size else None
        except OSError:
            return None

    def add(self, path: str, content: IO[bytes], size: int, mode: int, mtime_s: int) -> Entry:
        reading, left = _Reading(content), size
        beside = self._objects / f"{secrets.token_hex(8)}.tmp"
        try:
            with os.fdopen(os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
                while left:
                    chunk = reading.read(min(left, CHUNK_BYTES))
                    if not chunk:
                        raise Shrunk(path)
                    file.write(chunk)
                    left -= len(chunk)
            target = self._object(reading.sha256.hexdigest())
            target.parent.mkdir(mode=0o700, exist_ok=True)
            beside.replace(target)
        finally:
            beside.unlink(missing_ok=True)
        return Entry(path, reading.sha256.hexdigest(), size, mode, mtime_s)

    def finish(self, manifest: Manifest) -> None:
        if not snapshot.sync_file_system(self._path):
            os.sync()
        text = msgspec.json.encode(manifest)
        final = self._path / f"{manifest.at.replace(':', '')}.json"
        beside = final.with_suffix(".tmp")
        with os.fdopen(os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as file:
            file.write(text + b"\n" + hashlib.sha256(text).hexdigest().encode() + b"\n")
            file.flush()
            os.fsync(file.fileno())
        beside.replace(final)
        snapshot.sync_path(self._path)
        self._forget()

    def _forget(self) -> None:
        """Remove the backups that are too many, and then what none of the others needs."""
        found = sorted(self._path.glob("*.json"))
        for path in found[: -self._keep] if self._keep else []:
            path.unlink()
        try:
            kept = [_OfFolder(path).manifest for path in self._path.glob("*.json")]
        except errors.HeadraceError:  # what a damaged one needs is not known: all stays
            return
        needed = {entry.sha256 for manifest in kept for entry in manifest.files}
        for path in self._objects.glob("*/*"):
            if path.name not in needed:
                path.unlink()

    def close(self) -> None:
        if self._lock >= 0:
            for left in (*self._path.glob("*.tmp"), *self._objects.glob("*.tmp")):
                left.unlink(missing_ok=True)
            os.close(self._lock)
            self._lock = -1

    def _object(self, sha256: str) -> Path:
        return self._objects / sha256[:2] / sha256


class _OfFolder:
    def __init__(self, path: Path) -> None:
        self._objects = path.parent / _OBJECTS
        text, _, digest = path.read_bytes().partition(b"\n")
        if digest != hashlib.sha256(text).hexdigest().encode() + b"\n":
            raise Damaged(f"{path} is damaged: it does not have the checksum at its end", hint=_HINT)
        self.manifest = _manifest(path, text)

    def content(self, entry: Entry) -> Iterable[bytes]:
        try:
            with (self._objects / entry.sha256[:2] / entry.sha256).open("rb") as file:
                while chunk := file.read(CHUNK_BYTES):
                    yield chunk
        except OSError as error:
            raise Damaged(f"{entry.path} is not in the backup: {error.strerror}", hint=_HINT) from error
