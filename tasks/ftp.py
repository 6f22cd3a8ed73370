"""FTP: files on a server that speaks it, with TLS unless the call says otherwise; the standard library's ftplib.

Each call blocks in a thread of its own; a cancel cuts both connections. Data connections go to the very address of the
control connection, whatever the server says.
"""

from __future__ import annotations

import contextlib
import datetime
import ftplib
import functools
import io
import socket
import ssl
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Sequence
from typing import Annotated, Any, TypeVar

from ..engine import ports
from . import blocking, host, remote_files, tls
from . import definition as definitions

T = TypeVar("T")
TASK = "FTP"
PORT = 21
#: TLS from the first byte, as old servers have it.
TLS_PORT = 990
_PIECE_BYTES = 256 * 1024
#: How long a server may say nothing.
_ANSWER_S = 120.0
#: What a server may say beside the files.
_SAID_BYTES_MAX = 1024 * 1024
_BESIDE = ".headrace-part"


class FtpInputs(host.HostInputs, kw_only=True):
    """The inputs of FTP."""

    port: Annotated[host.Port | None, host.about("Default: 21.")] = None
    use_tls: Annotated[
        bool | None,
        host.about(
            "true: TLS, on port 990 from the start; false: none, the password goes in the clear. Default: true."
        ),
    ] = None
    command: remote_files.Command = "copy"
    src: remote_files.Src = None
    dst: remote_files.Dst = None
    path: remote_files.Path = None
    new_path: remote_files.NewPath = None


def _check(inputs: FtpInputs) -> None:
    host.check(TASK, inputs)
    remote_files.check(TASK, inputs)
    for name in ("username", "password"):
        if any(character in "\r\n\0" for character in getattr(inputs, name) or ""):
            raise definitions.invalid(TASK, name, "it contains a control character")


class _Client(ftplib.FTP_TLS):
    """ftplib over a connection that is there already; remembers its data connection, so that it can be cut too."""

    def __init__(self, line: host.Line, trust: ssl.SSLContext) -> None:
        super().__init__(context=trust, encoding="utf-8")
        self.data: socket.socket | None = None
        self.line, self._trust = line, trust
        self._left = _SAID_BYTES_MAX

    def begin(self, timeout: float, *, implicit: bool) -> None:
        self.timeout = timeout  # of connecting, for data too
        self.sock = self.line.socket
        self.sock.settimeout(timeout)
        if implicit:
            self.sock = self._trust.wrap_socket(self.sock)
        self.af = self.sock.family
        self.host = self.sock.getpeername()[0]
        self.file = self.sock.makefile("r", encoding=self.encoding, errors="replace")
        self.welcome = self.getresp()

    def getline(self) -> str:
        line = super().getline()
        self._left -= len(line)
        if self._left < 0:
            raise ftplib.Error("it says more than anybody can use")  # noqa: S321 - a type for it was asked for
        return line

    def ntransfercmd(self, cmd: str, rest: int | str | None = None) -> tuple[socket.socket, int | None]:
        """Like FTP_TLS's, with the session of the control connection: vsftpd and others insist on it."""
        connection, size = ftplib.FTP.ntransfercmd(self, cmd, rest)  # noqa: S321
        if self._prot_p:  # type: ignore[attr-defined]
            session = self.sock.session  # type: ignore[union-attr]
            connection = self._trust.wrap_socket(connection, session=session, do_handshake_on_connect=False)
        connection.settimeout(_ANSWER_S)
        self.data = connection  # from here on a cancel cuts it, also while it shakes hands
        try:
            if self.line.was_cut:  # a moment before there was anything to cut
                raise ConnectionAbortedError
            if isinstance(connection, ssl.SSLSocket):
                connection.do_handshake()
        except BaseException:
            connection.close()
            raise
        return connection, size

    def cut(self) -> None:
        self.line.cut()
        if self.data is not None:
            with contextlib.suppress(OSError):
                self.data.shutdown(socket.SHUT_RDWR)


class _FtpPlace:
    """Implements ``remote_files.Place``."""

    def __init__(self, client: _Client, inputs: FtpInputs, port: int) -> None:
        self._client, self._inputs, self._port = client, inputs, port

    async def enter(self) -> None:
        """Log in; raises ``host.Failed``."""
        line, inputs = self._client.line, self._inputs
        work = functools.partial(_enter, self._client, inputs, self._port)
        try:
            await self._explaining(line.used(work, inputs.connect_timeout))
        except host.Failed:
            if not line.too_late:
                raise
            raise host.explained(TimeoutError(), inputs, self._port) from None

    async def do(self, function: Callable[..., T], *arguments: Any) -> T:
        """Call ftplib in a thread; raises ``host.Failed``."""
        return await self._explaining(blocking.alone(function, *arguments, on_cancel=self._client.cut))

    async def _explaining(self, working: Awaitable[T]) -> T:
        try:
            return await working
        except ftplib.error_temp as error:
            raise host.Failed(f"the server asks to come later: {host.quoted(str(error))}", passing=True) from None
        except ftplib.error_perm as error:
            raise host.Failed(f"the server refused: {host.quoted(str(error))}") from None
        except (ftplib.Error, EOFError) as error:
            where = f"{self._inputs.hostname}:{self._port}"
            words = host.quoted(str(error)) or "it closed the connection"
            raise host.Failed(
                f"what {where} says cannot be used: {words}", passing=isinstance(error, EOFError)
            ) from None
        except OSError as error:
            raise host.explained(error, self._inputs, self._port) from None
        except host.GARBAGE as error:
            raise host.Failed(f"what the server says cannot be used: {host.quoted(str(error))}") from None

    async def read(self, path: str) -> AsyncGenerator[bytes, None]:
        connection = await self.do(self._opened, f"RETR {path}")
        try:
            while piece := await self.do(connection.recv, _PIECE_BYTES):
                yield piece
        finally:
            connection.close()
        await self.do(self._client.voidresp)  # a transfer that broke off is told here

    def _opened(self, command: str) -> socket.socket:
        self._client.voidcmd("TYPE I")
        return self._client.transfercmd(command)

    async def write(self, path: str, content: bytes) -> None:
        beside = path + _BESIDE
        try:
            await self.do(self._client.storbinary, f"STOR {beside}", io.BytesIO(content), _PIECE_BYTES)
            await self.do(self._client.rename, beside, path)
        except host.Failed:
            with contextlib.suppress(host.Failed):
                await self.do(self._client.delete, beside)
            raise

    async def entries(self, path: str) -> Sequence[remote_files.Entry]:
        return remote_files.bounded(await self.do(self._listed, path))

    def _listed(self, path: str) -> list[remote_files.Entry]:
        found = []
        for name, facts in self._client.mlsd(path, facts=["type", "size", "modify"]):
            if facts.get("type") not in ("cdir", "pdir"):
                found.append(_entry(name, facts))
            if len(found) > remote_files.ENTRIES_MAX:
                break
        return found

    async def entry(self, path: str) -> remote_files.Entry:
        said = await self.do(self._client.sendcmd, f"MLST {path}")
        lines = [line for line in said.splitlines() if line.startswith(" ")]
        facts, _, name = (lines[0].strip() if lines else "").partition(" ")
        if not name:
            raise host.Failed("what the server says of the file cannot be used")
        pairs = (fact.partition("=") for fact in facts.rstrip(";").split(";"))
        return _entry(name.rstrip("/").rpartition("/")[2] or name, {key.lower(): value for key, _, value in pairs})

    async def remove(self, path: str) -> None:
        folder = (await self.entry(path)).type == "folder"
        await self.do(self._client.rmd if folder else self._client.delete, path)

    async def rename(self, path: str, new_path: str) -> None:
        await self.do(self._client.rename, path, new_path)

    async def mkdir(self, path: str) -> None:
        await self.do(self._client.mkd, path)


def _entry(name: str, facts: dict[str, str]) -> remote_files.Entry:
    """Return what MLSD and MLST say of a file (RFC 3659, 7.5)."""
    said = facts.get("type", "").lower()
    kind = {"file": "file", "dir": "folder", "cdir": "folder", "pdir": "folder"}.get(said, "other")
    kind = "link" if "slink" in said or "symlink" in said else kind
    size = facts.get("size", "")
    modified = None
    with contextlib.suppress(ValueError):
        when = datetime.datetime.strptime(facts.get("modify", "")[:14], "%Y%m%d%H%M%S")
        modified = int(when.replace(tzinfo=datetime.UTC).timestamp())
    return remote_files.Entry(
        name=name, type=kind, size=int(size) if size.isdecimal() and kind == "file" else None, modified=modified
    )


@contextlib.asynccontextmanager
async def _place(settings: definitions.Settings, inputs: FtpInputs) -> AsyncIterator[_FtpPlace]:
    port = inputs.port or PORT
    trust = await blocking.call(_trust, inputs)
    async with host.line(inputs, port, settings.egress) as line:
        client = _Client(line, trust)
        place = _FtpPlace(client, inputs, port)
        try:
            await place.enter()
            yield place
            with contextlib.suppress(host.Failed):
                await place.do(client.quit)
        finally:
            for one in (client, client.data):
                if one is not None:
                    with contextlib.suppress(OSError):
                        one.close()


def _trust(inputs: FtpInputs) -> ssl.SSLContext:
    return tls.context(
        cacert=inputs.cacert,
        client_cert=inputs.client_cert,
        client_key=inputs.client_key,
        verify=inputs.verify_ssl,
        expected_name=inputs.hostname.strip("[]"),
    )


def _enter(client: _Client, inputs: FtpInputs, port: int) -> None:
    secure = inputs.use_tls is not False
    client.begin(inputs.connect_timeout, implicit=secure and port == TLS_PORT)
    if secure and port != TLS_PORT:
        try:
            client.auth()
        except ftplib.Error as error:
            said = host.quoted(str(error))
            raise host.Failed(f"the server does not speak TLS, and no password is sent without: {said}") from None
    try:
        client.login(inputs.username or "anonymous", inputs.password or "", secure=False)
    except ftplib.error_perm as error:
        said = host.quoted(str(error))
        raise host.Failed(f"the server refused the password of {inputs.username or 'anonymous'}: {said}") from None
    if secure:
        client.prot_p()
    client.sock.settimeout(_ANSWER_S)  # type: ignore[union-attr]
    client.line.entered = True


async def _run(
    settings: definitions.Settings, inputs: FtpInputs, context: ports.TaskContext
) -> remote_files.FilesOutput:
    async def attempt() -> remote_files.FilesOutput:
        async with _place(settings, inputs) as place:
            return await remote_files.performed(place, inputs, context)

    shown = f"{TASK} {inputs.hostname}:{inputs.port or PORT} {inputs.command}"
    repeatable = remote_files.is_repeatable(inputs)
    return await host.performed(shown, attempt, inputs, context, settings, repeatable=repeatable)


def definition(settings: definitions.Settings) -> definitions.TaskDefinition[FtpInputs]:
    """Return the task type FTP."""
    return definitions.TaskDefinition(
        name=TASK,
        summary="Copy, list and change files over FTP",
        description="Copies one file between the files that flows keep and a server, or lists and changes files there; "
        "with TLS (FTPS) unless the call says otherwise.",
        inputs=FtpInputs,
        output=remote_files.FilesOutput,
        run=functools.partial(_run, settings),
        idempotent=remote_files.is_repeatable,
        check=_check,
        aliases=("FTPS",),
        input_aliases=host.ALIASES,
    )
