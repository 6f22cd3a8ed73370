"""SMTP, with a server of aiosmtpd that keeps what it is given."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import dataclasses
import email
import email.policy

import pytest
from aiosmtpd import smtp as aiosmtpd

from headrace.engine import errors

PASSWORD = "pass-word-of-the-mail"


@dataclasses.dataclass
class Post:
    """A server: what was handed to it, and what it says to whom."""

    port: int = 0
    mails: list = dataclasses.field(default_factory=list)
    answers: dict = dataclasses.field(default_factory=dict)
    said: asyncio.Event = dataclasses.field(default_factory=asyncio.Event)
    here: int = 0

    async def handle_RCPT(self, server, session, envelope, address, options):  # noqa: N802 - aiosmtpd's names
        if address in self.answers:
            return self.answers[address]
        envelope.rcpt_tos.append(address)
        return "250 OK"

    async def handle_DATA(self, server, session, envelope):  # noqa: N802
        self.said.set()
        answer = self.answers.get("DATA", "250 taken")
        if answer is None:
            await asyncio.sleep(60)
        message = email.message_from_bytes(envelope.content, policy=email.policy.default)
        self.mails.append((envelope.mail_from, envelope.rcpt_tos, message, session.ssl is not None))
        return answer

    def connection_lost(self, protocol):
        self.here -= 1


def _lets_in(server, session, envelope, mechanism, data):
    return aiosmtpd.AuthResult(success=data.password == PASSWORD.encode(), handled=False)


@pytest.fixture
async def post(certs):
    """A server with STARTTLS, for users with a password."""
    async with _served(tls_context=certs.server_context(), authenticator=_lets_in) as running:
        yield running


@contextlib.asynccontextmanager
async def _served(ssl=None, **options):
    made = Post()

    class Counted(aiosmtpd.SMTP):
        def connection_made(self, transport):
            made.here += self.transport is None  # TLS makes it anew
            super().connection_made(transport)

        def connection_lost(self, error):
            made.here -= 1
            super().connection_lost(error)

    def protocol():
        return Counted(made, enable_SMTPUTF8=True, data_size_limit=2**27, **options)

    serving = await asyncio.get_running_loop().create_server(protocol, "127.0.0.1", 0, ssl=ssl)
    made.port = serving.sockets[0].getsockname()[1]
    async with serving:
        yield made


@pytest.fixture
def send(call, certs):
    async def sent(post, **inputs):
        access = {"hostname": "127.0.0.1", "port": post.port, "username": "ada", "password": PASSWORD}
        mail = {"from": "Ada <ada@example.org>", "to": "bob@example.org", "cacert": certs.text("ca.crt")}
        return await call("SMTP", **{**access, **mail, **inputs})

    return sent


@pytest.fixture
def failure(send, context):
    async def failed(post, **inputs) -> errors.TaskFailed:
        with pytest.raises(errors.TaskFailed) as raised:
            await send(post, **{"retry_backoff": False, **inputs})
        assert PASSWORD not in raised.value.message + raised.value.output.decode() + context.text
        return raised.value

    return failed


async def test_a_mail_with_all_there_is_arrives(send, post, context):
    context.files.root.mkdir()
    (context.files.root / "r.csv").write_bytes(b"a;b\r\n")
    output = await send(
        post, to="Bob Ü <bob@example.org>, carl@example.org", cc=["dora@example.org"], bcc="eve@example.org",
        subject="Grüße und ein langer Betreff " * 5, text="Hallo Ü\n.\nEnde", html="<b>Ü</b>", reply_to="x@example.org",
        headers={"X-Kind": "report"},
        attachments=[
            "headrace:r.csv",
            {"text": "ü", "filename": "ü.txt"},
            {"content": base64.b64encode(b"\0\xff").decode(), "filename": "b.bin", "content_type": "image/x"},
        ],
    )  # fmt: skip
    everybody = [f"{name}@example.org" for name in ("bob", "carl", "dora", "eve")]
    assert output == {"message_id": f"<{context.execution_id}@headrace>", "accepted": everybody, "refused": {}}
    [(sender, recipients, mail, encrypted)] = post.mails
    assert (sender, recipients, encrypted) == ("ada@example.org", everybody, True)
    assert mail["To"] == "Bob Ü <bob@example.org>, carl@example.org" and mail["Cc"] == "dora@example.org"
    assert mail["Bcc"] is None and mail["From"] == "Ada <ada@example.org>" and mail["X-Kind"] == "report"
    assert mail["Subject"] == ("Grüße und ein langer Betreff " * 5) and mail["Reply-To"] == "x@example.org"
    assert mail["Message-ID"] == output["message_id"] and mail["Date"]
    assert mail.get_body(("plain",)).get_content().splitlines() == ["Hallo Ü", ".", "Ende"]
    assert mail.get_body(("html",)).get_content().strip() == "<b>Ü</b>"
    found = [
        (one.get_filename(), one.get_content_type(), one.get_payload(decode=True)) for one in mail.iter_attachments()
    ]
    assert found == [
        ("r.csv", "text/csv", b"a;b\r\n"),
        ("ü.txt", "text/plain", "ü".encode()),
        ("b.bin", "image/x", b"\0\xff"),
    ]


async def test_the_old_names_of_inputs_count_too(call, post, certs):
    await call(
        "smtp", smtp_host="127.0.0.1", smtp_port=post.port, login="ada", password=PASSWORD, from_="a@b.example",
        to="c@d.example", subject="x", html="<p>only</p>", use_tls=True, cacert=certs.text("ca.crt"),
    )  # fmt: skip
    assert post.mails[0][2].get_content_type() == "text/html"


async def test_addresses_outside_of_ascii(send, post):
    await send(post, to="jürgen@example.org", text="x")
    assert post.mails[0][1] == ["jürgen@example.org"]


async def test_tls_from_the_start_is_for_port_465(certs, call, monkeypatch):
    async with _served(ssl=certs.server_context()) as post:
        monkeypatch.setattr("headrace.tasks.smtp.TLS_PORT", post.port)
        own = {"hostname": "127.0.0.1", "port": post.port, "from": "a@b.example", "to": "c@d.example"}
        await call("SMTP", **own, cacert=certs.text("ca.crt"))
        assert len(post.mails) == 1
        with pytest.raises(errors.TaskFailed, match="the certificate of 127.0.0.1:[0-9]+ is not trusted"):
            await call("SMTP", **own, retry_backoff=False)


async def test_a_certificate_nobody_vouches_for_gets_no_password(failure, post):
    assert "not trusted: unable to get local issuer" in (await failure(post, cacert=None)).message
    assert "not trusted" in (await failure(post, cacert=None, use_tls=True)).message
    assert post.mails == []


async def test_a_password_never_goes_in_the_clear_unless_asked_to(failure, send):
    async with _served(authenticator=_lets_in, auth_require_tls=False) as post:
        said = (await failure(post, cacert=None)).message
        assert said.endswith("the server does not offer STARTTLS, and without it no password is sent: 'use_tls' false")
        assert (await failure(post)).message.endswith("the server does not offer STARTTLS")
        await send(post, cacert=None, use_tls=False)
        await send(post, cacert=None, username=None, password=None)
        assert [encrypted for *_, encrypted in post.mails] == [False, False]


async def test_a_wrong_password_is_refused(failure, post):
    said = (await failure(post, password="not-the-password")).message
    assert "the server refused the password of ada: 535" in said and "not-the-password" not in said


async def test_who_is_refused_is_told_and_the_others_get_it(send, failure, post, context):
    post.answers = {"x@example.org": "550 5.1.1 no such person"}
    output = await send(post, to="x@example.org, bob@example.org")
    assert output["accepted"] == ["bob@example.org"] and post.mails[0][1] == ["bob@example.org"]
    assert output["refused"] == {"x@example.org": "550 5.1.1 no such person"}
    assert context.lines == [("WARNING", "the server refused x@example.org: 550 5.1.1 no such person")]
    said = (await failure(post, to="x@example.org")).message
    assert said.endswith("the server refused every recipient: x@example.org: 550 5.1.1 no such person")


async def test_who_asks_to_come_later_is_asked_later(send, post, pacing):
    post.answers = {"bob@example.org": "451 4.7.1 greylisted"}
    work = asyncio.create_task(send(post))
    while not pacing.pauses:
        await asyncio.sleep(0.001)
    post.answers = {}
    await work
    assert len(post.mails) == 1


async def test_a_message_that_may_have_been_taken_is_not_sent_again(failure, post, pacing, monkeypatch):
    monkeypatch.setattr("headrace.tasks.smtp._ANSWER_S", 2.0)
    post.answers = {"DATA": None}
    failed = await failure(post, retry_backoff=True)
    assert failed.message.endswith("whether it was taken is not known") and pacing.pauses == []
    assert b'"accepted":["bob@example.org"]' in failed.output
    post.answers = {"DATA": "554 5.6.0 no"}
    assert (await failure(post)).message.endswith("the server refused: 554 5.6.0 no")


async def test_cancelled_the_server_is_left(send, post):
    post.answers = {"DATA": None}
    work = asyncio.create_task(send(post))
    await post.said.wait()
    work.cancel()
    with pytest.raises(asyncio.CancelledError):
        await work
    while post.here > 0:
        await asyncio.sleep(0.01)


@pytest.mark.parametrize(
    ("inputs", "message"),
    [
        ({"from": "nobody"}, "'from': expected mail addresses: name@domain or Name <name@domain>"),
        ({"from": "a@b, c@d"}, "'from': expected one mail address"),
        ({"to": "a@b\r\nBcc: c@d"}, "'to': it contains a control character"),
        ({"subject": "a\nBcc: c@d"}, "'subject': it has a control character"),
        ({"headers": {"X-A": "a\rb"}}, "'headers': it has a control character"),
        ({"headers": {"Bcc": "a@b"}}, "'headers': expected names of headers that no other input sets"),
        ({"attachments": ["/etc/passwd"]}, "'attachments': expected headrace:<path> as file"),
        ({"attachments": [{"filename": "x"}]}, "'attachments': expected one of file, text and content for each"),
        ({"attachments": [{"text": "x"}]}, "'attachments': expected a filename with text or content"),
        ({"attachments": [{"content": "?", "filename": "x"}]}, "'attachments': expected content in base64"),
        (
            {"attachments": [{"text": "x", "filename": "x", "content_type": "y"}]},
            "'attachments': expected a content_type such as text/csv",
        ),
        ({"to": [f"n{n}@x.example" for n in range(1001)]}, "'to': a mail may have 1,000 recipients"),
    ],
    ids=range(12),
)
async def test_inputs_that_cannot_be_used(send, inputs, message):
    with pytest.raises(errors.InputRefused) as refused:
        await send(Post(port=1), **inputs)
    assert refused.value.message == f"SMTP cannot use the input {message}"


async def test_a_mail_needs_somebody_to_go_to(send):
    with pytest.raises(errors.InputRefused, match="SMTP needs the input 'to': the recipients, or 'cc' or 'bcc'"):
        await send(Post(port=1), to=None)
