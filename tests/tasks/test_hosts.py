"""What every task type promises that talks to a host by a protocol of its own, tried with hosts that are no good."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import json
import pathlib
import socket
import sys
from collections.abc import AsyncIterator, Awaitable, Callable

import pytest

from headrace.engine import errors
from headrace.tasks import definition, egress, registry, retry
from tests.support import services
from tests.support.task_context import Context, FolderFiles

SECRET = "hush-hush-pass-word"
#: What a call of each type needs beside the host, and the library it uses.
TYPES = {
    "AMQP": ({"username": "u", "password": SECRET, "queue": "q", "text": "x"}, "pamqp"),
    "FTP": ({"username": "u", "password": SECRET, "command": "list", "path": "."}, None),
    "IMAP": ({"username": "u", "password": SECRET}, None),
    "KAFKA": ({"username": "u", "password": SECRET, "topic": "t", "text": "x"}, "aiokafka"),
    "LDAP": ({"username": "cn=u", "password": SECRET}, None),
    "MONGO": ({"username": "u", "password": SECRET, "database": "d", "collection": "c"}, "pymongo"),
    "MQTT": ({"username": "u", "password": SECRET, "topic": "t", "text": "x"}, None),
    "MYSQL": ({"username": "u", "password": SECRET, "fetch": "SELECT 1"}, "pymysql"),
    "PS": ({"username": "u", "password": SECRET, "script": "x", "transport": "winrm"}, "pypsrp"),
    "REDIS": ({"password": SECRET, "command": "GET", "args": ["k"]}, None),
    "SCP": ({"username": "u", "password": SECRET, "src": "headrace:f", "dst": "f"}, "asyncssh"),
    "SFTP": ({"username": "u", "password": SECRET, "path": ".", "command": "list"}, "asyncssh"),
    "SMB": ({"username": "u", "password": SECRET, "share": "s", "command": "list", "path": "."}, "smbprotocol"),
    "SMTP": ({"username": "u", "password": SECRET, "from": "a@b.example", "to": "c@d.example"}, "aiosmtplib"),
    "SSH": ({"username": "u", "password": SECRET, "script": "true", "connect_tries": 1}, "asyncssh"),
    "SQLMSSQL": ({"username": "u", "password": SECRET, "fetch": "SELECT 1"}, "pytds"),
    "SQLORACLE": ({"username": "u", "password": SECRET, "fetch": "SELECT 1", "database": "x"}, "oracledb"),
    "SQLPG": ({"username": "u", "password": SECRET, "fetch": "SELECT 1"}, "psycopg"),
}
#: Types whose protocol brings its own encryption or has none.
WITHOUT_TLS = {"SCP", "SFTP", "SMB", "SSH"}
each = pytest.mark.parametrize("name", TYPES)


@dataclasses.dataclass
class Host:
    """A host that does the same to whoever comes, and counts who is there."""

    behaviour: Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]
    port: int = 0
    came: asyncio.Event = dataclasses.field(default_factory=asyncio.Event)
    served: set[asyncio.Task] = dataclasses.field(default_factory=set)

    @property
    def here(self) -> int:
        return len(self.served)

    def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.create_task(self._serve(reader, writer))
        self.served.add(task)
        task.add_done_callback(self.served.discard)
        self.came.set()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError, asyncio.IncompleteReadError):
            await self.behaviour(reader, writer)
        writer.close()

    async def left_alone(self) -> None:
        while self.served:
            await asyncio.wait(self.served)


@contextlib.asynccontextmanager
async def host(behaviour) -> AsyncIterator[Host]:
    made = Host(behaviour)
    async with await asyncio.start_server(made.serve, "127.0.0.1", 0) as listening:
        made.port = listening.sockets[0].getsockname()[1]
        yield made
    for _ in range(5):  # who was let in a moment ago, and is gone already, is still to be served
        await asyncio.sleep(0)
    if made.served:
        await asyncio.wait(made.served, timeout=10)


async def says_nothing(reader, writer):
    while await reader.read(65536):
        pass


async def hangs_up(reader, writer):
    await reader.read(1)


async def babbles(reader, writer):
    """Send noise for as long as somebody takes it."""
    noise = bytes(range(1, 256)) * 1024
    while not writer.is_closing():
        writer.write(noise)
        await writer.drain()


async def ends_lines(reader, writer):
    while not writer.is_closing():
        writer.write(b"\r\n" * 65536)
        await writer.drain()


async def dribbles(reader, writer):
    """Say what many protocols take for the first of several lines, and then the others, byte by byte."""
    while not writer.is_closing():
        for byte in b"220-come in\r\n":
            writer.write(bytes([byte]))
            await writer.drain()
            await asyncio.sleep(0.01)


@pytest.fixture
def failure(call, context: Context):
    """Run a task that has to fail and return what it says, which never holds a secret."""

    async def run(name: str, **inputs) -> str:
        with pytest.raises(errors.TaskFailed) as failed:
            await call(name, **{**TYPES[name][0], "hostname": "127.0.0.1", "retry_backoff": False, **inputs})
        said = failed.value.message
        assert SECRET not in said + failed.value.output.decode() + context.text
        assert "\n" not in said and len(said) < 1500
        return said

    return run


@each
async def test_nobody_listens(failure, name):
    port = services.free_port()
    said = await failure(name, port=port)
    assert "refused" in said and str(port) in said


@each
async def test_a_name_nobody_has(failure, name):
    assert "the name nowhere.invalid cannot be resolved: " in await failure(name, hostname="nowhere.invalid")


@each
async def test_a_passing_failure_is_tried_again_if_the_call_says_so(failure, pacing, name):
    said = await failure(name, port=services.free_port(), retry_backoff={"initial": 1, "deadline": 4})
    assert pacing.pauses == [1.0, 2.0] and "tried 3 times" in said


@each
async def test_an_address_the_operator_forbids(tmp_path: pathlib.Path, name):
    tasks = registry.installed(definition.Settings(egress=egress.Egress(deny_private=True), pacing=retry.Pacing()))
    with socket.create_server(("127.0.0.1", 0)) as listening:
        listening.settimeout(0.05)
        for hostname in ("127.0.0.1", "localhost"):
            inputs = {**TYPES[name][0], "hostname": hostname, "port": listening.getsockname()[1]}
            with pytest.raises(errors.TaskFailed, match="is not a public address, and this daemon lets tasks connect"):
                await tasks.prepare(name, json.dumps(inputs).encode()).run(Context(FolderFiles(tmp_path)))
        with pytest.raises(TimeoutError):
            listening.accept()
    await tasks.aclose()


@each
async def test_a_host_that_says_nothing_is_left_when_time_is_up(failure, name):
    async with host(says_nothing) as silent:
        said = await failure(name, port=silent.port, connect_timeout=0.2)
        assert said.endswith(f"no connection to 127.0.0.1:{silent.port} within 0.2 s")
        await silent.left_alone()


@each
async def test_a_host_that_says_little_at_a_time_is_left_when_time_is_up(failure, name):
    async with host(dribbles) as slow:
        await failure(name, port=slow.port, connect_timeout=0.3)
        await slow.left_alone()


@each
async def test_cancelled_the_task_leaves_the_host(call, name):
    async with host(says_nothing) as silent:
        work = asyncio.create_task(call(name, **{**TYPES[name][0], "hostname": "127.0.0.1", "port": silent.port}))
        await silent.came.wait()
        work.cancel()
        with pytest.raises(asyncio.CancelledError):
            await work
        await silent.left_alone()


@each
@pytest.mark.parametrize("behaviour", [hangs_up, babbles, ends_lines])
async def test_a_host_that_is_something_else(failure, name, behaviour):
    async with host(behaviour) as strange:
        await failure(name, port=strange.port, connect_timeout=2)
        await strange.left_alone()


@pytest.mark.parametrize("name", [name for name, (_, library) in TYPES.items() if library])
async def test_without_the_library_the_task_says_what_to_install(call, monkeypatch, name):
    inputs, library = TYPES[name]
    for loaded in [one for one in sys.modules if one == library or one.startswith(f"{library}.")]:
        monkeypatch.delitem(sys.modules, loaded)
    monkeypatch.setitem(sys.modules, library, None)
    with pytest.raises(errors.TaskFailed, match=rf"^{name} needs the library {library}, .*pip install 'headrace\["):
        await call(name, **inputs, hostname="127.0.0.1")


@each
@pytest.mark.parametrize(
    ("inputs", "kind", "message"),
    [
        (
            {"hostname": "http://x/"},
            "InvalidInputError",
            "cannot use the input 'hostname': expected a host name or an address, without port or path",
        ),
        ({"port": 0}, "InvalidInputError", "cannot use the input 'port': expected a whole number >= 1"),
        (
            {"connect_timeout": 0},
            "InvalidInputError",
            "cannot use the input 'connect_timeout': expected a number > 0.0",
        ),
        (
            {"client_key": "k"},
            "MissingInputError",
            "needs the input 'client_cert': the certificate that 'client_key' belongs to",
        ),
        ({"cacert": "k"}, "InvalidInputError", "cannot use the input 'cacert': expected certificates as PEM text"),
        (
            {"cacert": "k", "use_tls": False},
            "InvalidInputError",
            "cannot use the input 'use_tls': certificates are given, so it cannot be false",
        ),
        ({"hostnam": "y"}, "ExtraInputError", "has no input 'hostnam'; did you mean 'hostname'"),
    ],
    ids=["hostname", "port", "connect_timeout", "client_key", "cacert", "use_tls", "unknown"],
)
def test_inputs_that_cannot_be_used(tasks, name, inputs, kind, message):
    if name in WITHOUT_TLS and {"cacert", "client_key"} & set(inputs):
        kind, message = "ExtraInputError", "has no input 'c"
    with pytest.raises(errors.InputRefused) as refused:
        tasks.prepare(name, json.dumps({**TYPES[name][0], "hostname": "x", **inputs}).encode())
    assert refused.value.kind == kind and refused.value.message.startswith(f"{name} {message}")
    assert SECRET not in refused.value.message


@each
def test_the_old_names_of_inputs_count_too(tasks, name):
    own = {**TYPES[name][0], "host": "x"}
    if "username" in own:
        own["user"] = own.pop("username")
    tasks.prepare(name.lower(), json.dumps(own).encode())
