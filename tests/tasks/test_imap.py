"""IMAP, with a Dovecot that runs."""

from __future__ import annotations

import asyncio
import email.message
import imaplib

import pytest

from headrace.engine import errors
from headrace.tasks import imap
from tests.support import mailboxes, services
from tests.tasks.test_hosts import host


@pytest.fixture(scope="module")
def server(certs):
    with mailboxes.dovecot(certs.folder) as running:
        yield running


@pytest.fixture
def box(server):
    """A client that sees all there is; the mailbox is empty at first."""
    with imaplib.IMAP4("127.0.0.1", server.port) as client:
        client.login("ada", services.PASSWORD)
        for name in ("Archiv", '"Gr&APwA3w-e & 1"'):
            client.delete(name)
        client.select()
        client.uid("STORE", "1:*", "+FLAGS", "(\\Deleted)")
        client.expunge()
        yield client


@pytest.fixture
def mail(call, server, certs):
    async def run(**inputs) -> dict:
        access = {**server.access, "cacert": certs.text("ca.crt"), "retry_backoff": False}
        return await call("IMAP", **{**access, **inputs})

    return run


@pytest.fixture
def failure(mail, context):
    async def failed(**inputs) -> str:
        with pytest.raises(errors.TaskFailed) as raised:
            await mail(**inputs)
        assert services.PASSWORD not in raised.value.message + context.text
        return raised.value.message

    return failed


def put(box, subject: str = "Grüße", folder: str = "INBOX", **parts) -> None:
    message = email.message.EmailMessage()
    message["Subject"], message["From"], message["To"] = subject, "Bob Ü <bob@example.org>", "ada@example.org"
    message["Date"], message["Message-ID"] = "Tue, 03 Feb 2026 04:05:06 +0100", f"<{subject.encode().hex()}@x>"
    message.set_content("Hallo Ü\n")
    if "html" in parts:
        message.add_alternative(parts["html"], subtype="html")
    for name, content in parts.get("files", {}).items():
        message.add_attachment(content, maintype="application", subtype="pdf", filename=name)
    assert box.append(folder, "", None, message.as_bytes())[0] == "OK"


async def test_messages_come_back_with_all_there_is(mail, box, context):
    put(box, html="<b>Ü</b>", files={"../ü b.pdf": b"\0\xff", ".hidden": b"x"})
    output = await mail(attachments_path="headrace:mails")
    [message] = output["messages"]
    uid = message.pop("uid")
    pdf = {"content_type": "application/pdf"}
    assert output["uids"] == [uid] and message.pop("size") > 500
    assert message == {
        "flags": [],
        "subject": "Grüße",
        "from": "Bob Ü <bob@example.org>",
        "to": "ada@example.org",
        "cc": "",
        "date": "2026-02-03T04:05:06+01:00",
        "message_id": f"<{'Grüße'.encode().hex()}@x>",
        "text": "Hallo Ü\n",
        "html": "<b>Ü</b>\n",
        "attachments": [
            {**pdf, "filename": "../ü b.pdf", "size": 2, "file": f"headrace:mails/{uid}/1-_ü_b.pdf"},
            {**pdf, "filename": ".hidden", "size": 1, "file": f"headrace:mails/{uid}/2-hidden"},
        ],
    }
    assert context.files.names() == [f"mails/{uid}/1-_ü_b.pdf", f"mails/{uid}/2-hidden"]
    box.select()
    assert box.search(None, "UNSEEN")[1] == [b"1"]


async def test_what_is_found_is_read_marked_moved_and_deleted(mail, box):
    for subject in ("one", "two", "three"):
        put(box, subject)
    box.create("Archiv")
    found = (await mail(command="search", criteria='SUBJECT "t"'))["uids"]
    assert [one["subject"] for one in (await mail(uids=found, content=False))["messages"]] == ["two", "three"]
    assert (await mail(command="search", max_messages=1))["uids"] == found[-1:]
    await mail(command="flag", uids=found[:1], flags=["\\Flagged", "done"])
    assert (await mail(criteria="FLAGGED"))["messages"][0]["flags"] == ["\\Flagged", "done"]
    await mail(command="unflag", criteria="FLAGGED", flags=["done"])
    assert (await mail(criteria="KEYWORD done")) == {"uids": [], "messages": []}
    await mail(criteria="SUBJECT one", mark_seen=True)
    assert (await mail(command="search", criteria="SEEN"))["uids"] != []
    await mail(command="move", uids=found, to_folder="Archiv")
    assert len((await mail(command="search"))["uids"]) == 1
    assert len((await mail(command="search", folder="Archiv"))["uids"]) == 2
    await mail(command="delete", folder="Archiv", criteria="SUBJECT two")
    assert [one["subject"] for one in (await mail(folder="Archiv"))["messages"]] == ["three"]


async def test_folders_have_names_in_every_script(mail, box):
    box.create('"Gr&APwA3w-e &- 1"')
    assert (await mail(command="folders"))["folders"] == ["Grüße & 1", "INBOX"]
    put(box, folder='"Gr&APwA3w-e &- 1"')
    assert len((await mail(folder="Grüße & 1"))["uids"]) == 1
    box.delete('"Gr&APwA3w-e &- 1"')


async def test_what_is_too_large_is_listed_without_content(mail, box, context, monkeypatch):
    monkeypatch.setattr(imap, "MESSAGE_BYTES_MAX", 1000)
    put(box, files={"x": b"x" * 2000})
    [message] = (await mail())["messages"]
    assert message["subject"] == "Grüße" and message["text"] is None
    assert context.lines == [("WARNING", f"message {message['uid']} is larger than 0 MiB: without its content")]


async def test_a_server_that_says_too_much_is_left(failure, box, monkeypatch):
    put(box, files={"x": b"x" * 20000})
    monkeypatch.setattr(imap, "SAID_BYTES_MAX", 20000)
    assert "says more than 0 MiB: ask for fewer messages" in await failure()


async def test_tls_from_the_start_by_starttls_or_not_at_all(mail, failure, server, monkeypatch):
    assert (await mail(command="folders"))["folders"] == ["INBOX"]
    assert (await mail(command="folders", use_tls=False, cacert=None))["folders"] == ["INBOX"]
    assert "is not trusted: unable to get local issuer certificate" in await failure(cacert=None)
    monkeypatch.setattr(imap, "TLS_PORT", server.tls_port)
    assert (await mail(command="folders", port=server.tls_port))["folders"] == ["INBOX"]
    assert "is not trusted" in await failure(port=server.tls_port, cacert=None)


async def test_a_wrong_password_is_refused(failure):
    said = await failure(password="not-the-password")
    assert "the server refused the password of ada: " in said and "not-the-password" not in said


async def test_what_is_not_there_is_told(failure, mail, box):
    assert "the server refused: " in await failure(folder="Nowhere")
    assert "Unknown argument NONSENSE" in await failure(criteria="NONSENSE")
    assert (await mail(uids=[4000000000])) == {"uids": [], "messages": []}


@pytest.mark.parametrize(
    "sent",
    [
        b"* 1 FETCH (UID 1 RFC822.SIZE 10 BODY[HEADER] {999999999999}\r\n",
        b"* 1 FETCH (UID 1 RFC822.SIZE 10 BODY[HEADER] {3}\r\nab",
        b"* SEARCH 1\r\n* 1 FETCH (BODY[HEADER] {2}\r\nab)\r\nTAG OK done\r\n",
        b"\0\xff\r\n",
        b"* SEARCH x y z\r\nTAG OK done\r\n",
        b"x" * 2_000_000,
    ],
    ids=range(6),
)
async def test_a_server_that_lies_is_a_failure(call, sent):
    async def lie(reader, writer):
        writer.write(b"* OK ready\r\n")
        while line := await reader.readline():
            tag, _, asked = line.partition(b" ")
            known = {b"CAPA": b"* CAPABILITY IMAP4rev1\r\n", b"UID ": None}.get(asked[:4], b"")
            writer.write(sent.replace(b"TAG", tag) if known is None else known + tag + b" OK done\r\n")
            if known is None and b"TAG" not in sent:
                break
        writer.close()

    async with await asyncio.start_server(lie, "127.0.0.1", 0) as listening:
        port = listening.sockets[0].getsockname()[1]
        with pytest.raises(errors.TaskFailed):
            await call(
                "IMAP", hostname="127.0.0.1", port=port, username="u", password="p", use_tls=False, retry_backoff=False
            )


async def test_cancelled_the_server_is_left(call):
    asked, left = asyncio.Event(), asyncio.Event()

    async def hang(reader, writer):
        writer.write(b"* OK ready\r\n")
        while line := await reader.readline():
            if b"SELECT" in line or b"EXAMINE" in line:
                asked.set()
            else:
                more = b"* CAPABILITY IMAP4rev1\r\n" if b"CAPABILITY" in line else b""
                writer.write(more + line.split()[0] + b" OK done\r\n")
        writer.close()
        left.set()

    async with await asyncio.start_server(hang, "127.0.0.1", 0) as listening:
        port = listening.sockets[0].getsockname()[1]
        access = {"hostname": "127.0.0.1", "port": port, "username": "u", "password": "p", "use_tls": False}
        work = asyncio.create_task(call("IMAP", **access))
        await asked.wait()
        work.cancel()
        with pytest.raises(asyncio.CancelledError):
            await work
        await left.wait()


@pytest.mark.parametrize(
    ("inputs", "message"),
    [
        ({"username": None, "password": None}, "IMAP needs the input 'username': the user to log in as"),
        ({"password": None}, "IMAP needs the input 'password': the user's password"),
        ({"folder": "a\r\nb"}, "IMAP cannot use the input 'folder': it contains a control character"),
        (
            {"criteria": "ALL) x"},
            "IMAP cannot use the input 'criteria': its quotes or parentheses do not match, or it is not ASCII",
        ),
        (
            {"criteria": "BODY {3}"},
            "IMAP cannot use the input 'criteria': its quotes or parentheses do not match, or it is not ASCII",
        ),
        (
            {"criteria": "ALL", "uids": [1]},
            "IMAP cannot use the input 'uids': expected 1 to 10,000 uids, without 'criteria'",
        ),
        ({"command": "delete"}, "IMAP needs the input 'uids': what to delete, or 'criteria'"),
        ({"command": "flag", "uids": [1]}, "IMAP needs the input 'flags': the flags to set"),
        ({"command": "move", "uids": [1]}, "IMAP needs the input 'to_folder': the folder to move to"),
        (
            {"command": "flag", "uids": [1], "flags": ["a b"]},
            "IMAP cannot use the input 'flags': expected flags such as \\Seen or a word",
        ),
    ],
    ids=range(10),
)
async def test_inputs_that_cannot_be_used(mail, inputs, message):
    with pytest.raises(errors.InputRefused) as refused:
        await mail(**inputs)
    assert refused.value.message == message


def test_what_may_be_repeated(tasks):
    for command, repeatable in {"fetch": True, "flag": True, "move": False, "delete": False}.items():
        more = '"flags":["x"],"to_folder":"y"'
        given = f'{{"hostname":"x","username":"u","password":"p","command":"{command}","uids":[1],{more}}}'
        assert tasks.prepare("IMAP", given.encode()).idempotent is repeatable


@pytest.mark.parametrize(("pause_s", "words"), [(0.05, "within 0.3 s"), (0, "says more than 1 MiB")])
async def test_a_server_that_talks_instead_of_letting_us_in_is_left(call, monkeypatch, pause_s, words):
    monkeypatch.setattr(imap, "SAID_BYTES_MAX", 1 << 20)

    async def talk(reader, writer):
        writer.write(b"* OK ready\r\n")
        while not writer.is_closing():
            writer.write(b"* 1 EXISTS\r\n" * (1 if pause_s else 10_000))
            await writer.drain()
            await asyncio.sleep(pause_s)

    async with host(talk) as talker:
        own = {
            "hostname": "127.0.0.1",
            "port": talker.port,
            "use_tls": False,
            "connect_timeout": 0.3 if pause_s else 30,
        }
        with pytest.raises(errors.TaskFailed, match=words):
            await call("IMAP", **own, username="u", password="p", retry_backoff=False)
        await talker.left_alone()
