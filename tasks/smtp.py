"""SMTP: hand a mail over to a server.

Everything up to the message itself may be repeated, and so may what the server refused for the time being; once the
message is on its way, nobody knows whether a server that then falls silent took it, and nothing is repeated. A password
goes through TLS only, unless the call says otherwise.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import contextlib
import email.headerregistry
import email.message
import email.policy
import email.utils
import functools
import mimetypes
import re
import socket
from collections.abc import AsyncIterator, Awaitable, Sequence
from types import ModuleType
from typing import TYPE_CHECKING, Annotated, Any

import msgspec

from ..engine import errors, ports
from . import blocking, extras, host, stored_files, tls
from . import definition as definitions

if TYPE_CHECKING:
    import aiosmtplib

TASK = "SMTP"
PORT = 587
#: The port where TLS is spoken from the first byte (RFC 8314).
TLS_PORT = 465
#: All attachments together.
ATTACHED_BYTES_MAX = 64 * 1024 * 1024
RECIPIENTS_MAX = 1000
#: How long a server may take for one answer: it may have to look at the whole message (RFC 5321, 4.5.3.2).
_ANSWER_S = 300.0
#: How long it may take to say good-bye.
_QUIT_S = 2.0
_POLICY = email.policy.SMTP.clone(cte_type="7bit")
_DOMAIN = re.compile(r"""[^\s<>()\[\],;:@"\\]+""")

Addresses = str | list[str]


class Attachment(msgspec.Struct, forbid_unknown_fields=True):
    """A file to attach: one that flows keep, a text, or bytes in base64."""

    file: str | None = None
    text: str | None = None
    content: str | None = None
    filename: str | None = None
    content_type: str | None = None


class SmtpInputs(host.HostInputs, kw_only=True):
    """The inputs of SMTP."""

    port: Annotated[host.Port | None, host.about("Default: 587.")] = None
    use_tls: Annotated[
        bool | None,
        host.about("true: TLS from the start on port 465, by STARTTLS on others; false: none, also for a password. "
        "Default: STARTTLS if the server has it, and no password without."),
    ] = None  # fmt: skip
    from_: Annotated[str, host.about("The sender: address, or Name <address>.")] = msgspec.field(name="from")
    to: Annotated[Addresses | None, host.about("The recipients: addresses, as list or separated by commas.")] = None
    cc: Annotated[Addresses | None, host.about("Who gets a copy.")] = None
    bcc: Annotated[Addresses | None, host.about("Who gets a copy without the others seeing it.")] = None
    reply_to: Annotated[Addresses | None, host.about("Where answers shall go.")] = None
    subject: Annotated[str, host.about("The subject. Default: none.")] = ""
    text: Annotated[str | None, host.about("The message as text.")] = None
    html: Annotated[str | None, host.about("The message as HTML; with text, readers choose.")] = None
    attachments: Annotated[
        list[str | Attachment] | None,
        host.about("Files: headrace:<path>, or {file: headrace:<path> | text | content in base64, filename, "
        "content_type}."),
    ] = None  # fmt: skip
    headers: Annotated[dict[str, str] | None, host.about("More headers of the message.")] = None


class SmtpOutput(msgspec.Struct, kw_only=True):
    """The output of SMTP."""

    message_id: str
    accepted: list[str]
    refused: dict[str, str]


_ADDRESSED = ("to", "cc", "bcc", "reply_to")
#: Headers the message has of itself, or that would be read as instructions.
_OWN_HEADERS = frozenset(
    {"from", "to", "cc", "bcc", "reply-to", "subject", "date", "message-id", "sender", "mime-version"}
)


def _list(given: Addresses | None) -> list[str]:
    return [] if given is None else [given] if isinstance(given, str) else given


def _addresses(task_input: str, given: Sequence[str]) -> list[email.headerregistry.Address]:
    """Return the addresses; raises ``InputRefused``."""
    if any(character < " " or character == "\x7f" for one in given for character in one):
        raise definitions.invalid(TASK, task_input, "it contains a control character")
    found = []
    for name, address in email.utils.getaddresses(given):
        local, _, domain = address.rpartition("@")
        if not local or not _DOMAIN.fullmatch(domain) or any(character.isspace() for character in address):
            raise definitions.invalid(TASK, task_input, "expected mail addresses: name@domain or Name <name@domain>")
        found.append(email.headerregistry.Address(name, local, domain))
    return found


def _check(inputs: SmtpInputs) -> None:
    host.check(TASK, inputs)
    sender = _addresses("from", [inputs.from_])
    if len(sender) != 1:
        raise definitions.invalid(TASK, "from", "expected one mail address")
    counts = {name: len(_addresses(name, _list(getattr(inputs, name)))) for name in _ADDRESSED}
    recipients = counts["to"] + counts["cc"] + counts["bcc"]
    if not recipients:
        raise definitions.missing(TASK, "to", "the recipients, or 'cc' or 'bcc'")
    if recipients > RECIPIENTS_MAX:
        raise definitions.invalid(TASK, "to", f"a mail may have {RECIPIENTS_MAX:,} recipients")
    for name, value in {"subject": inputs.subject, **(inputs.headers or {})}.items():
        if any(character < " " or character == "\x7f" for character in name + value):
            raise definitions.invalid(TASK, "subject" if name == "subject" else "headers", "it has a control character")
    for name in inputs.headers or {}:
        own = name.casefold() in _OWN_HEADERS or name.casefold().startswith("content-")
        if own or not name or not name.isascii() or any(character in ": " for character in name):
            raise definitions.invalid(TASK, "headers", "expected names of headers that no other input sets")
    for one in inputs.attachments or ():
        _check_attachment(one)


def _check_attachment(given: str | Attachment) -> None:
    one = Attachment(file=given) if isinstance(given, str) else given
    if sum(value is not None for value in (one.file, one.text, one.content)) != 1:
        raise definitions.invalid(TASK, "attachments", "expected one of file, text and content for each")
    if one.file is not None and not stored_files.is_named(one.file):
        raise definitions.invalid(TASK, "attachments", "expected headrace:<path> as file")
    if one.file is None and one.filename is None:
        raise definitions.invalid(TASK, "attachments", "expected a filename with text or content")
    if any(character < " " for character in (one.filename or "") + (one.content_type or "")):
        raise definitions.invalid(TASK, "attachments", "a name or type has a control character")
    if one.content_type is not None and one.content_type.count("/") != 1:
        raise definitions.invalid(TASK, "attachments", "expected a content_type such as text/csv")
    if one.content is not None:
        try:
            base64.b64decode(one.content, validate=True)
        except (binascii.Error, ValueError):
            raise definitions.invalid(TASK, "attachments", "expected content in base64") from None


def _envelope(inputs: SmtpInputs) -> list[str]:
    """Return the address of the sender, then those of all who get it, each once."""
    given = [one for name in ("to", "cc", "bcc") for one in _list(getattr(inputs, name))]
    sender, *recipients = (one.addr_spec for one in _addresses("to", [inputs.from_, *given]))
    return [sender, *dict.fromkeys(recipients)]


async def _message(inputs: SmtpInputs, context: ports.TaskContext) -> email.message.EmailMessage:
    """Return the mail; raises ``TaskFailed`` for a file that is not there."""
    plain = "".join(_envelope(inputs)).isascii()
    message = email.message.EmailMessage(policy=_POLICY if plain else _POLICY.clone(utf8=True))
    message["From"] = _addresses("from", [inputs.from_])
    for header, given in (("To", inputs.to), ("Cc", inputs.cc), ("Reply-To", inputs.reply_to)):
        if given:
            message[header] = _addresses(header, _list(given))
    message["Subject"] = inputs.subject
    message["Date"] = email.utils.localtime()
    # The same for each attempt: a server or reader that looks at it sees that two are one.
    message["Message-ID"] = f"<{context.execution_id}@headrace>"
    for name, value in (inputs.headers or {}).items():
        message[name] = value
    if inputs.html is None or inputs.text is not None:
        message.set_content(inputs.text or "")
    if inputs.html is not None:
        put = message.set_content if inputs.text is None else message.add_alternative
        put(inputs.html, subtype="html")
    total = 0
    for named in inputs.attachments or ():
        one = Attachment(file=named) if isinstance(named, str) else named
        content = await _content(one, context)
        total += len(content)
        if total > ATTACHED_BYTES_MAX:
            raise errors.TaskFailed(f"{TASK}: the attachments are larger than {ATTACHED_BYTES_MAX >> 20} MiB together")
        name = one.filename or stored_files.path(one.file or "").rpartition("/")[2]
        kind = one.content_type or mimetypes.guess_type(name)[0] or "application/octet-stream"
        main, _, sub = kind.partition("/")
        message.add_attachment(content, maintype=main, subtype=sub, filename=name)
    return message


async def _content(one: Attachment, context: ports.TaskContext) -> bytes:
    if one.file is not None:
        return await stored_files.read(context, one.file)
    return one.text.encode() if one.text is not None else base64.b64decode(one.content or "")


class _Silent(Exception):
    """The server did not answer."""


async def _answer(asked: Awaitable[Any]) -> Any:
    try:
        async with asyncio.timeout(_ANSWER_S):
            return await asked
    except TimeoutError:
        raise _Silent from None


class _Delivery:
    """One SMTP task under way."""

    def __init__(self, settings: definitions.Settings, inputs: SmtpInputs, message: email.message.EmailMessage) -> None:
        self._settings, self._inputs, self._message = settings, inputs, message
        self._port = inputs.port or PORT

    async def attempt(self) -> SmtpOutput:
        """Connect, log in, hand over; raises ``host.Failed``."""
        inputs = self._inputs
        library = await blocking.call(functools.partial(extras.require, "aiosmtplib", extra="mail", task=TASK))
        data = await blocking.call(self._message.as_bytes)
        try:
            async with self._connected(library) as client:
                if inputs.username is not None:
                    await _answer(client.login(inputs.username, inputs.password or ""))
                return await self._hand_over(library, client, data)
        except _Silent:
            raise host.Failed(
                f"{inputs.hostname}:{self._port} sent nothing for {_ANSWER_S:g} s", passing=True
            ) from None
        except library.SMTPException as error:
            raise self._explained(library, error) from None
        except (OSError, TimeoutError) as error:
            raise host.explained(error, inputs, self._port) from None

    @contextlib.asynccontextmanager
    async def _connected(self, library: ModuleType) -> AsyncIterator[aiosmtplib.SMTP]:
        inputs = self._inputs
        trust = await blocking.call(self._trust)
        clients: list[aiosmtplib.SMTP] = []

        async def connect(address: str) -> aiosmtplib.SMTP:
            client: aiosmtplib.SMTP = library.SMTP(
                hostname=address,
                port=self._port,
                use_tls=self._port == TLS_PORT and inputs.use_tls is not False,
                start_tls=False,
                tls_context=trust,
                timeout=None,  # ours is around it: that of the library can swallow a cancellation in Python 3.11
                local_hostname=socket.gethostname() or "localhost",  # the default asks the resolver and blocks
            )
            clients.append(client)
            await client.connect()
            await self._secure(client, trust)
            return client

        try:
            async with asyncio.timeout(inputs.connect_timeout):
                addresses = await host.addresses(inputs, self._port, self._settings.egress)
                client = await host.first(addresses, connect)
            yield client
            with contextlib.suppress(library.SMTPException, OSError, TimeoutError):
                async with asyncio.timeout(_QUIT_S):
                    await client.quit()
        finally:
            for one in clients:
                one.close()

    def _trust(self) -> Any:
        inputs = self._inputs
        return tls.context(
            cacert=inputs.cacert,
            client_cert=inputs.client_cert,
            client_key=inputs.client_key,
            verify=inputs.verify_ssl,
            expected_name=inputs.hostname.strip("[]"),
        )

    async def _secure(self, client: aiosmtplib.SMTP, trust: Any) -> None:
        """Begin TLS where it has to be, or can be; raises ``host.Failed`` when a password would go in the clear."""
        inputs = self._inputs
        if self._port == TLS_PORT or inputs.use_tls is False:
            return
        await client.ehlo()
        if client.supports_extension("starttls"):
            await client.starttls(tls_context=trust)
        elif inputs.with_tls:
            raise host.Failed("the server does not offer STARTTLS")
        elif inputs.password is not None:
            raise host.Failed("the server does not offer STARTTLS, and without it no password is sent: 'use_tls' false")

    async def _hand_over(self, library: ModuleType, client: aiosmtplib.SMTP, data: bytes) -> SmtpOutput:
        inputs = self._inputs
        sender, *recipients = _envelope(inputs)
        plain = "".join([sender, *recipients]).isascii()
        options, encoding = ([], "ascii") if plain else (["SMTPUTF8"], "utf-8")
        output = SmtpOutput(message_id=str(self._message["Message-ID"]), accepted=[], refused={})
        await _answer(client.mail(sender, options=options, encoding=encoding))
        last: Any = None
        for one in recipients:
            try:
                await _answer(client.rcpt(one, encoding=encoding))
                output.accepted.append(one)
            except library.SMTPRecipientRefused as refusal:
                last = refusal
                output.refused[one] = host.quoted(f"{refusal.code} {refusal.message}")
        if not output.accepted:
            said = "; ".join(f"{one}: {why}" for one, why in list(output.refused.items())[:5])
            raise host.Failed(f"the server refused every recipient: {said}", passing=_passes(last.code), output=output)
        try:
            await _answer(client.data(data))
        except (OSError, _Silent):  # SMTPServerDisconnected is one
            words = "the connection broke while the message was handed over: whether it was taken is not known"
            raise host.Failed(words, output=output) from None
        return output

    def _explained(self, library: ModuleType, error: Any) -> host.Failed:
        """Return what a refusal means in words, and whether it may pass."""
        where = f"{self._inputs.hostname}:{self._port}"
        match error:
            case library.SMTPAuthenticationError():
                said = host.quoted(f"{error.code} {error.message}")
                return host.Failed(f"the server refused the password of {self._inputs.username}: {said}")
            case library.SMTPResponseException():
                words = f"the server refused: {error.code} {error.message}" if error.code > 0 else error.message
                return host.Failed(host.quoted(words), passing=_passes(error.code))
            case library.SMTPServerDisconnected():
                return host.Failed(f"{where} closed the connection", passing=True)
            case library.SMTPConnectError() if isinstance(error.__cause__, OSError):
                return host.explained(error.__cause__, self._inputs, self._port)
            case library.SMTPNotSupported():
                return host.Failed(f"the server cannot do it: {host.quoted(str(error))}")
        return host.Failed(host.quoted(str(error)))


def _passes(code: int) -> bool:
    """Return whether the server asks to come again later (RFC 5321, 4.2.1)."""
    return 400 <= code < 500


async def _run(settings: definitions.Settings, inputs: SmtpInputs, context: ports.TaskContext) -> SmtpOutput:
    message = await _message(inputs, context)
    shown = f"{TASK} {inputs.hostname}:{inputs.port or PORT}"
    attempt = _Delivery(settings, inputs, message).attempt
    output = await host.performed(shown, attempt, inputs, context, settings, repeatable=True)
    for one, why in output.refused.items():
        context.log("WARNING", f"the server refused {one}: {why}")
    return output


def definition(settings: definitions.Settings) -> definitions.TaskDefinition[SmtpInputs]:
    """Return the task type SMTP."""
    return definitions.TaskDefinition(
        name=TASK,
        summary="Send a mail",
        description="Hands a mail over to a server, with attachments from the files that flows keep.",
        inputs=SmtpInputs,
        output=SmtpOutput,
        run=functools.partial(_run, settings),
        idempotent=lambda _: False,
        check=_check,
        aliases=("EMAIL",),
        input_aliases={**host.ALIASES, "smtp_host": "hostname", "smtp_port": "port", "login": "username"},
    )
