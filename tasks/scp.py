"""SCP: copy one file over SSH by the old protocol of ``scp``, for machines that have no SFTP.

The protocol has no specification; it is what OpenSSH's scp speaks with ``-O``: the far side runs ``scp -t`` or
``scp -f``, ``C<mode> <size> <name>`` comes before the bytes, and each step is answered by a zero byte, or by 1 or 2
and a line that says what is wrong. A file that breaks off does not appear in the store.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import re
import shlex
from collections.abc import AsyncGenerator, AsyncIterator
from typing import TYPE_CHECKING, Annotated, Any

import msgspec

from ..engine import ports
from . import definition as definitions
from . import host, remote_files, ssh_connection

if TYPE_CHECKING:
    import asyncssh

TASK = "SCP"
_PIECE_BYTES = 256 * 1024
#: A line of the protocol: a mode, a size and a name.
_LINE_BYTES_MAX = 8192
#: What the far side may say beside it. It has to be taken: nothing else comes through until it is.
_COMPLAINTS_BYTES_MAX = 1024 * 1024
_HEADER = re.compile(rb"C[0-7]{3,5} (\d{1,18}) [^\n]+\n")


class ScpInputs(host.LoginInputs, kw_only=True):
    """The inputs of SCP."""

    src: Annotated[str, host.about("What to copy: headrace:<path>, or a path on the server.")]
    dst: Annotated[str, host.about("Where to: a path on the server, or headrace:<path>. A file there is replaced.")]
    key: ssh_connection.Key = None
    hostkey: ssh_connection.HostKey = None


class ScpOutput(msgspec.Struct, kw_only=True):
    """The output of SCP."""

    size: int


def _check(inputs: ScpInputs) -> None:
    ssh_connection.check(TASK, inputs)
    remote_files.check_sides(TASK, inputs.src, inputs.dst)


class _ScpPlace:
    """The part of ``remote_files.Place`` that the protocol has."""

    def __init__(self, connection: asyncssh.SSHClientConnection) -> None:
        self._connection = connection

    async def read(self, path: str) -> AsyncGenerator[bytes, None]:
        async with self._far(f"scp -f -- {shlex.quote(path)}") as far:
            _say(far, b"\0")
            header = _HEADER.fullmatch(await _line(far))
            if header is None:
                raise host.Failed("the server does not speak the protocol of scp")
            _say(far, b"\0")
            left = int(header[1])
            while left:
                piece = await far.stdout.read(min(left, _PIECE_BYTES))
                if not piece:
                    raise host.Failed("the connection broke", passing=True)
                left -= len(piece)
                yield piece
            await _answer(far)

    async def write(self, path: str, content: bytes) -> None:
        async with self._far(f"scp -t -- {shlex.quote(path)}") as far:
            await _answer(far)
            name = path.rpartition("/")[2] or "file"
            _say(far, f"C0644 {len(content)} {name}\n".encode())
            await _answer(far)
            for start in range(0, len(content), _PIECE_BYTES):
                _say(far, content[start : start + _PIECE_BYTES])
                with contextlib.suppress(BrokenPipeError):
                    await far.stdin.drain()
            _say(far, b"\0")
            await _answer(far)

    @contextlib.asynccontextmanager
    async def _far(self, command: str) -> AsyncIterator[_Far]:
        process = await self._connection.create_process(command, encoding=None)
        heard = asyncio.create_task(_heard(process), name="scp complaints")
        try:
            yield _Far(process.stdin, process.stdout, heard)
        finally:
            process.close()
            heard.cancel()
            await asyncio.wait([heard])


class _Far(msgspec.Struct, frozen=True):
    """The program on the far side: what it reads and writes, and in the end what it complained of."""

    stdin: Any
    stdout: Any
    complaints: asyncio.Task[bytes]


async def _heard(process: Any) -> bytes:
    """Return the beginning of what the far side complains of, when it has ended; one that does not stop is ended."""
    beginning, total = b"", 0
    while total <= _COMPLAINTS_BYTES_MAX and (piece := await process.stderr.read(_PIECE_BYTES)):
        total += len(piece)
        beginning += piece[: _LINE_BYTES_MAX - len(beginning)]
    process.close()
    return beginning


def _say(far: _Far, data: bytes) -> None:
    """Send; if the far side has left, what it said before that is still to be read."""
    with contextlib.suppress(BrokenPipeError):
        far.stdin.write(data)


async def _line(far: _Far) -> bytes:
    """Return the next line of the far side; raises ``host.Failed`` with what it complains of."""
    line = bytearray()
    while not line.endswith(b"\n") and len(line) < _LINE_BYTES_MAX:
        byte = await far.stdout.read(1)
        if not byte:
            said = await _complaint(far)
            raise host.Failed(f"the server cannot copy: {said}" if said else "the server has no scp")
        line += byte
    if bytes(line[:1]) in (b"\1", b"\2"):
        raise host.Failed(f"the server refused: {host.quoted(line[1:].decode(errors='replace'))}")
    return bytes(line)


async def _answer(far: _Far) -> None:
    """Wait for the far side to agree."""
    byte = await far.stdout.read(1)
    if byte == b"\0":
        return
    if byte in (b"\1", b"\2"):
        raise host.Failed(f"the server refused: {host.quoted((await _rest(far)).decode(errors='replace'))}")
    said = await _complaint(far) if not byte else "it does not speak the protocol of scp"
    raise host.Failed(f"the server cannot copy: {said or 'it closed the connection'}")


async def _rest(far: _Far) -> bytes:
    line = bytearray()
    while not line.endswith(b"\n") and len(line) < _LINE_BYTES_MAX and (byte := await far.stdout.read(1)):
        line += byte
    return bytes(line)


async def _complaint(far: _Far) -> str:
    return host.quoted((await far.complaints).decode(errors="replace"))


async def _run(settings: definitions.Settings, inputs: ScpInputs, context: ports.TaskContext) -> ScpOutput:
    async def attempt() -> ScpOutput:
        async with ssh_connection.opened(TASK, inputs, settings.egress) as connection:
            return ScpOutput(size=await remote_files.copied(_ScpPlace(connection), inputs.src, inputs.dst, context))

    shown = ssh_connection.shown(TASK, inputs)
    return await host.performed(shown, attempt, inputs, context, settings, repeatable=True, secret=("key",))


def definition(settings: definitions.Settings) -> definitions.TaskDefinition[ScpInputs]:
    """Return the task type SCP."""
    return definitions.TaskDefinition(
        name=TASK,
        summary="Copy a file over SSH, the old way",
        description="Copies one file between the files that flows keep and another machine. SFTP does the same and "
        "more; SCP is for machines without it.",
        inputs=ScpInputs,
        output=ScpOutput,
        run=functools.partial(_run, settings),
        idempotent=lambda _: True,
        check=_check,
        input_aliases=host.ALIASES,
    )
