"""FTP, with servers of pyftpdlib, with and without TLS."""

from __future__ import annotations

import asyncio
import contextlib
import pathlib
import socket

import pytest

from headrace.engine import errors
from headrace.tasks import ftp, remote_files
from tests.support import ftp_server
from tests.tasks.test_hosts import host

PASSWORD = "pass-word-of-the-files"


@pytest.fixture(scope="module")
def root(tmp_path_factory) -> pathlib.Path:
    return tmp_path_factory.mktemp("ftp")


@pytest.fixture(scope="module")
def server(root, certs):
    with ftp_server.served(root, PASSWORD, certs.folder) as port:
        yield port


@pytest.fixture
def run(call, server, certs):
    async def ran(**inputs) -> dict:
        access = {"hostname": "127.0.0.1", "port": server, "username": "ada", "password": PASSWORD}
        return await call("FTP", **{**access, "cacert": certs.text("ca.crt"), "retry_backoff": False, **inputs})

    return ran


@pytest.fixture
def failure(run, context):
    async def failed(**inputs) -> str:
        with pytest.raises(errors.TaskFailed) as raised:
            await run(**inputs)
        assert PASSWORD not in raised.value.message + context.text
        return raised.value.message

    return failed


async def test_a_file_goes_there_and_back(run, context, root):
    content = bytes(range(256)) * 5000
    context.files.root.mkdir()
    (context.files.root / "a").write_bytes(content)
    assert await run(src="headrace:a", dst="up ü.bin") == {"size": len(content)}
    assert (root / "up ü.bin").read_bytes() == content
    assert await run(src="/up ü.bin", dst="headrace:b") == {"size": len(content)}
    assert (context.files.root / "b").read_bytes() == content
    (context.files.root / "a").write_bytes(b"")
    await run(src="headrace:a", dst="up ü.bin")
    assert (root / "up ü.bin").read_bytes() == b"" and not list(root.glob("*.headrace-part"))


async def test_files_are_listed_and_changed(run, failure, root):
    await run(command="mkdir", path="box")
    (root / "box/b").write_text("12")
    (root / "box/c").mkdir()
    entries = (await run(command="list", path="box"))["entries"]
    assert [(one["name"], one["type"], one["size"]) for one in entries] == [("b", "file", 2), ("c", "folder", None)]
    assert abs(entries[0]["modified"] - (root / "box/b").stat().st_mtime) < 2
    await run(command="rename", path="box/b", new_path="box/d")
    assert (await run(command="stat", path="box/d"))["entry"]["size"] == 2
    for name in ("box/c", "box/d", "box"):
        await run(command="remove", path=name)
    assert not (root / "box").exists()
    assert "the server refused: 501" in await failure(command="list", path="nowhere")
    assert "the server refused: 550" in await failure(src="nowhere", dst="headrace:x")


async def test_more_entries_than_anybody_wants_are_a_failure(failure, root, monkeypatch):
    monkeypatch.setattr(remote_files, "ENTRIES_MAX", 2)
    (root / "many").mkdir()
    for name in "abc":
        (root / "many" / name).touch()
    assert "the folder has more than 2 entries" in await failure(command="list", path="many")


async def test_a_wrong_password_is_refused(failure):
    said = await failure(password="not-the-password", command="list", path=".")
    assert "the server refused the password of ada: 530" in said and "not-the-password" not in said


async def test_a_certificate_nobody_vouches_for_gets_no_password(failure):
    assert "is not trusted: unable to get local issuer" in await failure(command="list", path=".", cacert=None)


async def test_without_tls_only_when_asked(call, tmp_path):
    (tmp_path / "plain").mkdir()
    with ftp_server.served(tmp_path / "plain", PASSWORD) as server:
        access = {"hostname": "127.0.0.1", "port": server, "username": "ada", "password": PASSWORD}
        look = {"command": "list", "path": ".", "retry_backoff": False}
        with pytest.raises(errors.TaskFailed, match="does not speak TLS, and no password is sent without: 500"):
            await call("FTP", **access, **look)
        assert await call("FTPS", **access, **look, use_tls=False) == {"entries": []}


async def _script(lines: dict[bytes, bytes], reader, writer):
    writer.write(b"220 ready\r\n")
    while line := await reader.readline():
        said = lines.get(line.split()[0].upper(), b"200 fine\r\n")
        writer.write(said)
        await writer.drain()
    writer.close()


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        (b"PASV", b"227 nonsense\r\n"),
        (b"EPSV", b"229 (|||1|)\r\n"),
        (b"PASS", b"230-" + b"more\r\n" * 300_000),
        (b"USER", b"xyz\r\n"),
        (b"USER", b"331 " + b"x" * 100_000),
        (b"TYPE", b"421 too many\r\n"),
    ],
    ids=range(6),
)
async def test_a_server_that_lies_is_a_failure(call, asked, said):
    async def serve(reader, writer):
        with contextlib.suppress(OSError):
            await _script({b"USER": b"331 who\r\n", b"PASS": b"230 in\r\n", asked: said}, reader, writer)

    async with await asyncio.start_server(serve, "127.0.0.1", 0) as listening:
        port = listening.sockets[0].getsockname()[1]
        with pytest.raises(errors.TaskFailed):
            await call(
                "FTP", hostname="127.0.0.1", port=port, username="u", password="p", use_tls=False, src="x",
                dst="headrace:x", retry_backoff=False, connect_timeout=3,
            )  # fmt: skip


async def test_a_login_that_takes_longer_than_it_may_is_given_up(call):
    """Each byte comes in time, all of them do not."""

    async def serve(reader, writer):
        writer.write(b"220 ready\r\n")
        await reader.readline()
        while not writer.is_closing():
            for byte in b"331-who\r\n":
                writer.write(bytes([byte]))
                await writer.drain()
                await asyncio.sleep(0.05)

    async with host(serve) as slow:
        with pytest.raises(errors.TaskFailed, match="no connection to 127.0.0.1:.* within 0.3 s"):
            await call(
                "FTP", hostname="127.0.0.1", port=slow.port, username="u", password="p", use_tls=False, command="list",
                path=".", retry_backoff=False, connect_timeout=0.3,
            )  # fmt: skip
        await slow.left_alone()


async def test_data_goes_to_the_server_itself_and_a_cancel_ends_it(call, context):
    """The server names another address for the data; and then it sends for ever."""
    left = asyncio.Event()

    async def pour(reader, writer):
        with contextlib.suppress(OSError):
            while True:
                writer.write(b"x" * 65536)
                await writer.drain()
        left.set()

    async with await asyncio.start_server(pour, "127.0.0.1", 0) as data:
        port = data.sockets[0].getsockname()[1]
        answers = {
            b"USER": b"331 who\r\n", b"PASS": b"230 in\r\n", b"RETR": b"150 here\r\n",
            b"PASV": f"227 ok (192,0,2,1,{port >> 8},{port & 255})\r\n".encode(),
        }  # fmt: skip

        async def serve(reader, writer):
            with contextlib.suppress(OSError):
                await _script(answers, reader, writer)

        async with await asyncio.start_server(serve, "127.0.0.1", 0) as listening:
            port = listening.sockets[0].getsockname()[1]
            access = {"hostname": "127.0.0.1", "port": port, "username": "u", "password": "p", "use_tls": False}
            work = asyncio.create_task(call("FTP", **access, src="x", dst="headrace:x"))
            while not list(context.files.root.glob("*")) or not list(context.files.root.glob("*"))[0].stat().st_size:
                assert not work.done()
                await asyncio.sleep(0.01)
            work.cancel()
            with pytest.raises(asyncio.CancelledError):
                await work
            await left.wait()
    assert context.files.names() == []


async def test_a_cancel_does_not_wait_for_data_that_never_speak_tls(call, context, certs):
    reached, left = asyncio.Event(), asyncio.Event()

    async def be_silent(reader, writer):
        reached.set()
        await reader.read()
        left.set()
        writer.close()

    async with await asyncio.start_server(be_silent, "127.0.0.1", 0) as data:
        port = data.sockets[0].getsockname()[1]
        answers = {
            b"USER": b"331 who\r\n", b"PASS": b"230 in\r\n", b"RETR": b"150 here\r\n",
            b"PASV": f"227 ok (127,0,0,1,{port >> 8},{port & 255})\r\n".encode(),
        }  # fmt: skip

        async def serve(reader, writer):
            writer.write(b"220 ready\r\n")
            with contextlib.suppress(OSError):
                while line := await reader.readline():
                    writer.write(answers.get(word := line.split()[0], b"200 fine\r\n"))
                    await writer.drain()
                    if word == b"AUTH":
                        await writer.start_tls(certs.server_context())
            writer.close()

        async with await asyncio.start_server(serve, "127.0.0.1", 0) as listening:
            access = {"hostname": "127.0.0.1", "port": listening.sockets[0].getsockname()[1], "username": "u"}
            secrets = {"password": PASSWORD, "cacert": certs.text("ca.crt")}
            work = asyncio.create_task(call("FTP", **access, **secrets, src="x", dst="headrace:x"))
            await reached.wait()
            work.cancel()
            with pytest.raises(asyncio.CancelledError):
                await work
            await left.wait()
    assert context.files.names() == []


def test_what_may_be_repeated(tasks):
    for more, repeatable in (('"src":"headrace:a","dst":"b"', True), ('"command":"mkdir","path":"b"', False)):
        assert tasks.prepare("FTP", f'{{"hostname":"x",{more}}}'.encode()).idempotent is repeatable


def test_control_characters_are_refused(tasks):
    for name in ("username", "password"):
        given = f'{{"hostname":"x","username":"u","command":"list","path":"x","{name}":"a\\r\\nDELE x"}}'
        with pytest.raises(errors.InputRefused, match=f"FTP cannot use the input '{name}': it contains a control char"):
            tasks.prepare("FTP", given.encode())
    assert socket.getservbyname("ftp") == ftp.PORT
