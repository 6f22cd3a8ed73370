"""SMB, with a Samba that runs, and servers that lie."""

from __future__ import annotations

import asyncio
import contextlib
import json
import threading

import pytest

from headrace.engine import errors
from headrace.tasks import remote_files
from tests.support import services
from tests.support.services import PASSWORD
from tests.tasks.test_hosts import host


@pytest.fixture(scope="module")
def server():
    with services.samba() as running:
        yield running


@pytest.fixture
def root(server):
    return server.folder


@pytest.fixture
def run(call, server):
    async def ran(**inputs) -> dict:
        return await call("SMB", **{**server.access, "share": "files", "retry_backoff": False, **inputs})

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
    content = bytes(range(256)) * 12_000
    context.files.root.mkdir()
    (context.files.root / "a").write_bytes(content)
    (root / "deep").mkdir(mode=0o777)
    (root / "deep").chmod(0o777)
    assert await run(src="headrace:a", dst="deep/up ü.bin") == {"size": len(content)}
    assert (root / "deep/up ü.bin").read_bytes() == content
    assert await run(src=r"\deep\up ü.bin", dst="headrace:b", encrypt=False) == {"size": len(content)}
    assert (context.files.root / "b").read_bytes() == content
    (context.files.root / "a").write_bytes(b"")
    await run(src="headrace:a", dst="deep/up ü.bin", username=r"TESTS\app")
    assert [one.name for one in (root / "deep").iterdir()] == ["up ü.bin"]
    assert (root / "deep/up ü.bin").read_bytes() == b""


async def test_files_are_listed_and_changed(run, failure, root):
    await run(command="mkdir", path="box")
    (root / "box").chmod(0o777)
    (root / "box/b").write_text("12")
    (root / "box/b").chmod(0o666)
    await run(command="mkdir", path="box/c")
    entries = (await run(command="list", path="box"))["entries"]
    assert [(one["name"], one["type"], one["size"]) for one in entries] == [("b", "file", 2), ("c", "folder", None)]
    assert abs(entries[0]["modified"] - (root / "box/b").stat().st_mtime) < 2
    await run(command="rename", path="box/b", new_path="box/d")
    told = (await run(command="stat", path="/box/d"))["entry"]
    assert told == {"name": "d", "type": "file", "size": 2, "modified": entries[0]["modified"]}
    assert "the server refused: " in await failure(command="remove", path="box")
    assert "File exists" in await failure(command="mkdir", path="box/c")
    for name in ("box/c", "box/d", "box"):
        await run(command="remove", path=name)
    assert not (root / "box").exists()
    assert "No such file or directory (0xc0000034)" in await failure(src="nowhere", dst="headrace:x")
    assert "the server refused: " in await failure(command="list", path="nowhere")
    (root / "closed").mkdir(mode=0o700)
    assert "the server refused: STATUS_ACCESS_DENIED (0xc0000022)" in await failure(command="list", path="closed")


async def test_nothing_leaves_the_share(run, failure, root):
    (root.parent / "beside").write_text("x")
    assert "the server refused: " in await failure(src="../beside", dst="headrace:x")
    assert "has no share other" in await failure(share="other", command="list", path="/")


async def test_more_entries_than_anybody_wants_are_a_failure(failure, root, monkeypatch):
    monkeypatch.setattr(remote_files, "ENTRIES_MAX", 2)
    (root / "many").mkdir()
    for name in "abc":
        (root / "many" / name).touch()
    assert "the folder has more than 2 entries" in await failure(command="list", path="many")


async def test_a_wrong_password_is_refused_and_not_shown(failure, context):
    said = await failure(password="not-the-password", command="list", path="/")
    assert said.endswith("refused the password of app") and "not-the-password" not in said + context.text


async def test_a_server_that_cannot_encrypt_is_refused(call):
    with services.samba("server max protocol = SMB2_10", "server smb encrypt = off") as old:
        inputs = {**old.access, "share": "files", "command": "list", "path": "/", "retry_backoff": False}
        with pytest.raises(errors.TaskFailed, match="SMB encryption is required but the connection does not support"):
            await call("SMB", **inputs)
        assert await call("CIFS", **inputs, encrypt=False) == {"entries": []}


async def test_a_share_that_leads_elsewhere_is_not_followed(call):
    with services.samba("host msdfs = yes", "msdfs root = yes") as other:
        inputs = {**other.access, "share": "files", "command": "list", "path": "/", "retry_backoff": False}
        with pytest.raises(
            errors.TaskFailed, match=r"the share refers to others \(DFS\): give the server and the share"
        ):
            await call("SMB", **inputs)


async def test_cancelled_in_the_middle_it_leaves_nothing(run, context, root):
    with (root / "large").open("wb") as large:
        large.truncate(4 << 30)
    work = asyncio.create_task(run(src="large", dst="headrace:x"))
    while not list(context.files.root.glob("*")) or not list(context.files.root.glob("*"))[0].stat().st_size:
        assert not work.done()
        await asyncio.sleep(0.01)
    work.cancel()
    with pytest.raises(asyncio.CancelledError):
        await work
    left = [one.name for one in threading.enumerate() if one.name.startswith("msg_worker")]
    assert context.files.names() == [] and left == []
    (root / "large").unlink()


class Between:
    """Stands between the task and the server, and does something to what the server says after some messages."""

    def __init__(self, port: int, after: int, lie: bytes | None) -> None:
        self._port, self._after, self._lie = port, after, lie

    async def serve(self, reader, writer) -> None:
        theirs, other = await asyncio.open_connection("127.0.0.1", self._port)
        forth = asyncio.create_task(self._pump(reader, other))
        try:
            for _ in range(self._after):
                head = await theirs.readexactly(4)
                writer.write(head + await theirs.readexactly(int.from_bytes(head, "big")))
            head = await theirs.readexactly(4)
            message = await theirs.readexactly(int.from_bytes(head, "big"))
            if self._lie is not None:
                message = self._lie(message)
                writer.write(len(message).to_bytes(4, "big") + message)
                await forth
        finally:
            forth.cancel()
            with contextlib.suppress(asyncio.CancelledError, OSError):
                await forth
            other.close()

    async def _pump(self, reader, writer) -> None:
        while piece := await reader.read(65536):
            writer.write(piece)
            await writer.drain()


def _flipped(message: bytes) -> bytes:
    return message[:-1] + bytes([message[-1] ^ 1])


@pytest.mark.parametrize(
    ("after", "lie", "encrypt", "words"),
    [
        (0, None, True, "closed the connection"),
        (1, None, True, "closed the connection"),
        (3, None, True, "closed the connection"),
        (3, _flipped, True, "cannot be used: "),
        (3, _flipped, False, "cannot be used: "),
        (3, lambda _: b"\xfeSMB" + bytes(60), True, "cannot be used: a message is not encrypted"),
        (0, lambda _: b"\xfeSMB" + bytes(60), True, "cannot be used: "),
    ],
    ids=range(7),
)
async def test_who_stands_between_is_found_out(failure, server, after, lie, encrypt, words):
    async with host(Between(server.port, after, lie).serve) as between:
        said = await failure(port=between.port, command="list", path="/", encrypt=encrypt, connect_timeout=5)
        assert words in said
        await between.left_alone()


async def test_who_says_the_same_for_ever_is_left(failure, server):
    """What was said after the login is true, encrypted and signed, and comes again and again."""

    class Parrot(Between):
        async def serve(self, reader, writer) -> None:
            theirs, other = await asyncio.open_connection("127.0.0.1", self._port)
            forth = asyncio.create_task(self._pump(reader, other))
            try:
                for _ in range(5):
                    head = await theirs.readexactly(4)
                    message = head + await theirs.readexactly(int.from_bytes(head, "big"))
                    writer.write(message)
                while not writer.is_closing():
                    writer.write(message)
                    await writer.drain()
                    await asyncio.sleep(0)
            finally:
                forth.cancel()
                other.close()

    for encrypt in (True, False):
        async with host(Parrot(server.port, 0, None).serve) as parrot:
            said = await failure(port=parrot.port, command="list", path="/", encrypt=encrypt)
            assert "closed the connection" in said or "cannot be used: " in said
            await parrot.left_alone()


async def test_a_file_without_end_is_left(failure, root, context, monkeypatch):
    monkeypatch.setattr(remote_files, "FILE_BYTES_MAX", 4 << 20)
    with (root / "endless").open("wb") as endless:
        endless.truncate(1 << 40)
    assert "the file is larger than" in await failure(src="endless", dst="headrace:x")
    (root / "endless").unlink()
    assert context.files.names() == []


async def test_a_message_longer_than_any_is_a_failure(failure):
    async def lies(reader, writer):
        await reader.read(10)
        writer.write(b"\xff" * 8)
        await reader.read()

    async with host(lies) as lying:
        assert "cannot be used: it is not SMB" in await failure(port=lying.port, command="list", path="/")


def test_what_may_be_repeated(tasks):
    own = {"hostname": "x", "username": "u", "password": "p", "share": "s"}
    for more, repeatable in (({"src": "headrace:a", "dst": "b"}, True), ({"command": "mkdir", "path": "b"}, False)):
        assert tasks.prepare("SMB", json.dumps({**own, **more}).encode()).idempotent is repeatable


@pytest.mark.parametrize(
    ("inputs", "message"),
    [
        ({"share": None}, "needs the input 'share': The share, that paths begin at."),
        ({"username": None}, "needs the input 'username': who we are there"),
        ({"password": None}, "needs the input 'password': who we are there"),
        ({"share": "a/b"}, "cannot use the input 'share': expected the name of a share, without server or path"),
        ({"path": None}, "needs the input 'path': the command list is about it"),
        ({"dst": "x"}, "cannot use the input 'dst': the command list does not use it"),
        ({"path": "a\nb"}, "cannot use the input 'path': it contains a control character"),
    ],
    ids=range(7),
)
def test_inputs_that_cannot_be_used(tasks, inputs, message):
    own = {"hostname": "x", "username": "u", "password": "p", "share": "s", "command": "list", "path": "/"}
    with pytest.raises(errors.InputRefused) as refused:
        tasks.prepare("SMB", json.dumps({**own, **inputs}).encode())
    assert refused.value.message == f"SMB {message}"
