"""SMB: files of a share of Windows or Samba, signed and encrypted; smbprotocol in a thread.

The library gets a connection of ours, which a cancel cuts and where no message is larger than the transport allows. It
is kept from connecting by itself: references to other servers (DFS) are refused. Logins are NTLM with the user and
password of the call; tickets of the daemon's host are never looked at.
"""

from __future__ import annotations

import contextlib
import datetime
import functools
import logging
import stat
import threading
import uuid
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Sequence
from typing import Annotated, Any, TypeVar

from ..engine import ports
from . import blocking, extras, host, remote_files
from . import definition as definitions
from .definition import invalid, missing
from .host import about

T = TypeVar("T")
TASK = "SMB"
PORT = 445
_PIECE_BYTES = 1024 * 1024
#: No server may have less read or written at a time (MS-SMB2, 2.2.4); one that says so would be asked for ever.
_PIECE_BYTES_MIN = 4096
#: What the transport allows: three bytes of length (MS-SMB2, 2.1).
_MESSAGE_BYTES_MAX = (1 << 24) - 1
#: How an encrypted message begins.
_ENCRYPTED = b"\xfdSMB"
_BESIDE = ".headrace-part"
_LEAVE_S = 5.0


class SmbInputs(host.LoginInputs, kw_only=True):
    """The inputs of SMB."""

    port: Annotated[host.Port | None, about("Default: 445.")] = None
    username: Annotated[str | None, about(r"The user to log in as; also DOMAIN\user or user@domain. Required.")] = None
    password: Annotated[str | None, about("The user's password. Required.")] = None
    share: Annotated[str, about("The share, that paths begin at.")]
    encrypt: Annotated[
        bool, about("Whether it must be encrypted, as SMB 3 can be; it is signed at any rate. Default: true.")
    ] = True
    command: remote_files.Command = "copy"
    src: remote_files.Src = None
    dst: remote_files.Dst = None
    path: remote_files.Path = None
    new_path: remote_files.NewPath = None


def _check(inputs: SmbInputs) -> None:
    host.check_hostname(TASK, inputs)
    for name in ("username", "password"):
        if not getattr(inputs, name):
            raise missing(TASK, name, "who we are there")
    if not inputs.share or any(character in '\\/:*?"<>|' or character < " " for character in inputs.share):
        raise invalid(TASK, "share", "expected the name of a share, without server or path")
    remote_files.check(TASK, inputs)


class _Wire:
    """What smbprotocol calls a transport, over a connection that others may cut."""

    def __init__(self, line: host.Line) -> None:
        self.connected = True
        #: Whether everything must be encrypted by now: the library would take what is not, too.
        self.encrypted = False
        self._line = line
        self._sending = threading.Lock()

    def connect(self) -> None:
        """It is."""

    def close(self) -> None:
        self.connected = False
        self._line.cut()

    def send(self, said: Any) -> None:
        message = said if isinstance(said, bytes) else said.pack()
        if len(message) > _MESSAGE_BYTES_MAX:
            raise ValueError("the message is too long")
        with self._sending:
            self._line.socket.sendall(len(message).to_bytes(4, "big") + message)

    def recv(self, _: float) -> bytes:
        """Return the next message, or nothing at the end."""
        try:
            length = int.from_bytes(self._exactly(4), "big")
            if length > _MESSAGE_BYTES_MAX:
                raise ValueError("it is not SMB")
            message = self._exactly(length)
        except (EOFError, OSError):
            self.connected = False
            return b""
        if self.encrypted and message[:4] != _ENCRYPTED:
            raise ValueError("a message is not encrypted")
        return message

    def _exactly(self, length: int) -> bytes:
        found = bytearray()
        while len(found) < length:
            piece = self._line.socket.recv(min(length - len(found), _PIECE_BYTES))
            if not piece:
                raise EOFError
            found += piece
        return bytes(found)


class _Only(dict[str, Any]):
    """The library's connections: the one there is. For any other, and when it is gone, it would connect by itself."""

    def get(self, key: str, default: Any = None) -> Any:
        found = super().get(key)
        if found is None:
            raise host.Failed("the server refers to another one (DFS): give that one as 'hostname'")
        if not found.transport.connected:
            raise host.Failed("the server closed the connection", passing=True)
        return found


class _SmbPlace:
    """Implements ``remote_files.Place``."""

    def __init__(self, line: host.Line, libraries: Sequence[Any], inputs: SmbInputs, port: int) -> None:
        self._line, self._inputs, self._port = line, inputs, port
        self._wire = _Wire(line)
        self._libraries, self._client, self._errors, cipher = libraries[:3], *libraries[3:]
        #: What the library raises; forgery is told by that of the cipher.
        self._raised: tuple[type[Exception], ...] = (
            OSError,
            *host.GARBAGE,
            self._errors.SMBException,
            cipher.InvalidTag,
        )
        self._connection: Any = None
        self._own: dict[str, Any] = {}

    async def enter(self) -> None:
        """Log in and open the share; raises ``host.Failed``."""
        await self._explaining(self._line.used(self._enter, self._inputs.connect_timeout))

    async def do(self, function: Callable[..., T], *arguments: Any, **named: Any) -> T:
        """Call the library in a thread; raises ``host.Failed``."""
        call = functools.partial(function, *arguments, **named)
        return await self._explaining(blocking.alone(call, on_cancel=self._line.cut))

    async def leave(self) -> None:
        """Log off, and have the library's thread end."""
        if self._connection is not None:
            await blocking.alone(self._leave, on_cancel=self._line.cut)

    def _leave(self) -> None:
        with contextlib.suppress(*self._raised):
            if self._wire.connected and self._line.entered:
                self._connection.disconnect(timeout=_LEAVE_S)
        self._line.cut()
        with contextlib.suppress(OSError):
            self._connection.disconnect(False)
        for session in self._connection.session_table.values():
            for opened in session.open_table.values():
                opened._connected = False  # it went with the connection; the library would warn of it

    def _enter(self) -> None:
        inputs, wire = self._inputs, self._wire
        library, sessions, trees = self._libraries

        class Connection(library.Connection):  # type: ignore[misc, name-defined]
            """The library's, over our own connection."""

            transport = property(lambda _: wire, lambda _, __: None)

        made = Connection(uuid.uuid4(), inputs.hostname, self._port)
        self._connection = made
        made.connect(timeout=inputs.connect_timeout)
        if min(made.max_read_size, made.max_write_size) < _PIECE_BYTES_MIN:
            raise ValueError("it takes no pieces that anybody can use")
        made.max_read_size = min(made.max_read_size, _PIECE_BYTES)
        made.max_write_size = min(made.max_write_size, _PIECE_BYTES)
        own = {"username": inputs.username, "password": inputs.password}
        session = sessions.Session(made, **own, require_encryption=inputs.encrypt, auth_protocol="ntlm")
        session.connect()
        wire.encrypted = session.encrypt_data
        tree = trees.TreeConnect(session, rf"\\{inputs.hostname}\{inputs.share}")
        tree.connect()
        if tree.is_dfs_share:
            raise host.Failed("the share refers to others (DFS): give the server and the share that it leads to")
        self._own = {"port": self._port, "connection_cache": _Only({f"{inputs.hostname.lower()}:{self._port}": made})}
        self._line.entered = True

    async def _explaining(self, working: Awaitable[T]) -> T:
        try:
            return await working
        except host.Failed:
            raise
        except self._raised as error:
            late = TimeoutError() if self._line.too_late else None
            raise self._explained(late or error) from None

    def _explained(self, error: Exception) -> host.Failed:
        inputs, errors = self._inputs, self._errors
        where = f"{inputs.hostname}:{self._port}"
        if isinstance(error, errors.SMBConnectionClosed):
            return host.Failed(f"{where} closed the connection", passing=True)
        if isinstance(error, errors.SMBAuthenticationError | errors.LogonFailure):
            return host.Failed(f"{where} refused the password of {inputs.username}")
        if isinstance(error, errors.BadNetworkName):
            return host.Failed(f"{where} has no share {inputs.share}")
        if isinstance(error, errors.SMBOSError):  # its own text would name the whole path
            words = error.strerror if error.errno else error.strerror.split("'")[1]
            return host.Failed(f"the server refused: {words} (0x{error.ntstatus:08x})")
        if isinstance(error, OSError):
            return host.explained(error, inputs, self._port)
        return host.Failed(f"what {where} says cannot be used: {host.quoted(str(error)) or 'it is forged'}")

    def _there(self, path: str) -> str:
        inside = path.replace("/", "\\").strip("\\")
        return rf"\\{self._inputs.hostname}\{self._inputs.share}\{inside}"

    async def read(self, path: str) -> AsyncGenerator[bytes, None]:
        opened = await self.do(self._client.open_file, self._there(path), "rb", 0, share_access="r", **self._own)
        try:
            while piece := await self.do(opened.read, _PIECE_BYTES):
                yield piece
        finally:
            if self._wire.connected:
                with contextlib.suppress(host.Failed):
                    await self.do(opened.close)

    async def write(self, path: str, content: bytes) -> None:
        beside = self._there(path + _BESIDE)
        try:
            await self.do(self._write, beside, content)
            await self.do(self._client.replace, beside, self._there(path), **self._own)
        except host.Failed:
            with contextlib.suppress(host.Failed):
                await self.do(self._client.remove, beside, **self._own)
            raise

    def _write(self, path: str, content: bytes) -> None:
        with self._client.open_file(path, "wb", **self._own) as opened:
            opened.write(content)

    async def entries(self, path: str) -> Sequence[remote_files.Entry]:
        return remote_files.bounded(await self.do(self._listed, path))

    def _listed(self, path: str) -> list[remote_files.Entry]:
        found = []
        for one in self._client.scandir(self._there(path), **self._own):
            found.append(_listed_entry(one.name, one.smb_info))
            if len(found) > remote_files.ENTRIES_MAX:
                break
        return found

    async def entry(self, path: str) -> remote_files.Entry:
        known = await self.do(self._client.lstat, self._there(path), **self._own)
        name = path.replace("/", "\\").rstrip("\\").rpartition("\\")[2]
        return _entry(name, stat.S_ISDIR(known.st_mode), stat.S_ISLNK(known.st_mode), known.st_size, known.st_mtime)

    async def remove(self, path: str) -> None:
        folder = (await self.entry(path)).type == "folder"
        await self.do(self._client.rmdir if folder else self._client.remove, self._there(path), **self._own)

    async def rename(self, path: str, new_path: str) -> None:
        await self.do(self._client.rename, self._there(path), self._there(new_path), **self._own)

    async def mkdir(self, path: str) -> None:
        await self.do(self._client.mkdir, self._there(path), **self._own)


def _libraries() -> list[Any]:
    names = ["smbprotocol.connection", "smbprotocol.session", "smbprotocol.tree", "smbclient"]
    names += ["smbprotocol.exceptions", "cryptography.exceptions"]
    logging.getLogger("smbprotocol").setLevel(logging.CRITICAL + 1)  # what it could tell, failures tell
    return [extras.require(name, extra="smb", task=TASK) for name in names]


def _listed_entry(name: str, info: Any) -> remote_files.Entry:
    folder = bool(info.file_attributes & stat.FILE_ATTRIBUTE_DIRECTORY)
    link = bool(info.file_attributes & stat.FILE_ATTRIBUTE_REPARSE_POINT)
    when = info.last_write_time
    seconds = when.replace(tzinfo=when.tzinfo or datetime.UTC).timestamp()
    return _entry(name, folder, link, info.end_of_file, seconds)


def _entry(name: str, folder: bool, link: bool, size: int, modified: float) -> remote_files.Entry:
    kind = "link" if link else "folder" if folder else "file"
    return remote_files.Entry(name=name, type=kind, size=size if kind == "file" else None, modified=int(modified))


@contextlib.asynccontextmanager
async def _place(settings: definitions.Settings, inputs: SmbInputs) -> AsyncIterator[_SmbPlace]:
    port = inputs.port or PORT
    libraries = await blocking.call(_libraries)
    async with host.line(inputs, port, settings.egress) as line:
        place = _SmbPlace(line, libraries, inputs, port)
        try:
            await place.enter()
            yield place
        finally:
            await place.leave()


async def _run(
    settings: definitions.Settings, inputs: SmbInputs, context: ports.TaskContext
) -> remote_files.FilesOutput:
    async def attempt() -> remote_files.FilesOutput:
        async with _place(settings, inputs) as place:
            return await remote_files.performed(place, inputs, context)

    shown = f"{TASK} {inputs.hostname}:{inputs.port or PORT} {inputs.command}"
    repeatable = remote_files.is_repeatable(inputs)
    return await host.performed(shown, attempt, inputs, context, settings, repeatable=repeatable)


def definition(settings: definitions.Settings) -> definitions.TaskDefinition[SmbInputs]:
    """Return the task type SMB."""
    return definitions.TaskDefinition(
        name=TASK,
        summary="Copy, list and change files of a Windows share",
        description="Copies one file between the files that flows keep and a share of Windows or Samba, or lists and "
        "changes files there.",
        inputs=SmbInputs,
        output=remote_files.FilesOutput,
        run=functools.partial(_run, settings),
        idempotent=remote_files.is_repeatable,
        check=_check,
        aliases=("CIFS",),
        input_aliases=host.ALIASES,
    )
