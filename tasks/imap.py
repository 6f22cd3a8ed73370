"""IMAP: find, read, mark and move mails, through the standard library's imaplib in a thread of its own.

What a server may make the daemon hold is bounded line by line and in all. A task that is cancelled cuts the connection.
Messages are named by their UIDs. A password goes through TLS only, unless the call says otherwise.
"""

from __future__ import annotations

import binascii
import contextlib
import email.message
import email.parser
import email.policy
import email.utils
import functools
import imaplib
import re
import socket
import ssl
from collections.abc import Iterator, Sequence
from typing import Annotated, Any, Literal

import msgspec

from ..engine import ports
from . import definition as definitions
from . import host, stored_files, tls

TASK = "IMAP"
#: TLS from the first byte (RFC 8314).
TLS_PORT = 993
#: What a server may say in one task.
SAID_BYTES_MAX = 256 * 1024 * 1024
#: What a line takes in memory beside what it says; a server may say as many as it likes, as short as it likes.
_LINE_BYTES = 200
#: A message larger than this is listed without its content.
MESSAGE_BYTES_MAX = 32 * 1024 * 1024
UIDS_MAX = 10_000
#: How long a server may say nothing.
_ANSWER_S = 120.0
_FOLDER = re.compile(rb'\((?P<flags>[^)]*)\) (?:"(?:\\.|[^"\\])"|NIL) (?P<name>.+)', re.DOTALL)
_UID = re.compile(rb"\bUID (\d{1,10})\b")
_SIZE = re.compile(rb"\bRFC822\.SIZE (\d{1,12})\b")
_FLAGS = re.compile(rb"\bFLAGS \(([^)]*)\)")
_WORD = re.compile(r"\\?[A-Za-z0-9$_.-]+")

Command = Literal["folders", "search", "fetch", "flag", "unflag", "move", "delete"]
Uids = list[Annotated[int, msgspec.Meta(ge=1, lt=2**32)]]


class ImapInputs(host.HostInputs, kw_only=True):
    """The inputs of IMAP."""

    port: Annotated[host.Port | None, host.about("Default: 993.")] = None
    use_tls: Annotated[
        bool | None,
        host.about("true: TLS, on port 993 from the start, by STARTTLS on others; false: none, also for a password. "
        "Default: true."),
    ] = None  # fmt: skip
    command: Annotated[
        Command,
        host.about("folders: their names; search: the uids of what 'criteria' finds; fetch: the messages; flag and "
        "unflag: set or take 'flags'; move: to 'to_folder'; delete: for good. Default: fetch."),
    ] = "fetch"  # fmt: skip
    folder: Annotated[str, host.about("The folder. Default: INBOX.")] = "INBOX"
    criteria: Annotated[
        str | None, host.about('What to search for, in the words of IMAP: UNSEEN SINCE 1-Feb-2026 FROM "bob".')
    ] = None
    uids: Annotated[Uids | None, host.about("The messages, by uid, instead of criteria.")] = None
    max_messages: Annotated[
        int, msgspec.Meta(ge=1, le=UIDS_MAX, description="The newest so many of what was found. Default: 100.")
    ] = 100
    content: Annotated[bool, host.about("Whether fetch reads texts and attachments too. Default: true.")] = True
    mark_seen: Annotated[bool, host.about("Whether what is fetched counts as read. Default: false.")] = False
    attachments_path: Annotated[
        str | None, host.about("A folder of the store to write attachments to: <folder>/<uid>/<number>-<name>.")
    ] = None
    flags: Annotated[list[str] | None, host.about("Flags such as \\Seen, \\Flagged or a word.")] = None
    to_folder: Annotated[str | None, host.about("Where move puts the messages.")] = None


class ImapAttachment(msgspec.Struct, kw_only=True):
    """A part that is a file; ``file`` names it in the store, if it was written there."""

    filename: str
    content_type: str
    size: int
    file: str | None = None


class ImapMessage(msgspec.Struct, kw_only=True, rename={"from_": "from"}):
    """A message. Texts are absent where there are none, and for what is too large."""

    uid: int
    size: int
    flags: list[str]
    subject: str
    from_: str
    to: str
    cc: str
    date: str
    message_id: str
    text: str | None = None
    html: str | None = None
    attachments: list[ImapAttachment] = []


class ImapOutput(msgspec.Struct, kw_only=True):
    """The output of IMAP: ``folders`` with that command, ``uids`` with the others, ``messages`` with fetch."""

    folders: list[str] | msgspec.UnsetType = msgspec.UNSET
    uids: list[int] | msgspec.UnsetType = msgspec.UNSET
    messages: list[ImapMessage] | msgspec.UnsetType = msgspec.UNSET


def _check(inputs: ImapInputs) -> None:
    host.check(TASK, inputs)
    if inputs.username is None:
        raise definitions.missing(TASK, "username", "the user to log in as")
    if inputs.password is None:
        raise definitions.missing(TASK, "password", "the user's password")
    for name in ("username", "password", "folder", "to_folder", "criteria"):
        value = getattr(inputs, name)
        if value is not None and any(character < " " or character == "\x7f" for character in value):
            raise definitions.invalid(TASK, name, "it contains a control character")
    if inputs.uids is not None and (inputs.criteria is not None or not 0 < len(inputs.uids) <= UIDS_MAX):
        raise definitions.invalid(TASK, "uids", f"expected 1 to {UIDS_MAX:,} uids, without 'criteria'")
    if inputs.criteria is not None and not _balanced(inputs.criteria):
        raise definitions.invalid(TASK, "criteria", "its quotes or parentheses do not match, or it is not ASCII")
    if inputs.command in ("flag", "unflag", "move", "delete") and inputs.uids is None and inputs.criteria is None:
        raise definitions.missing(TASK, "uids", f"what to {inputs.command}, or 'criteria'")
    if inputs.command in ("flag", "unflag") and not inputs.flags:
        raise definitions.missing(TASK, "flags", f"the flags to {'set' if inputs.command == 'flag' else 'take'}")
    if inputs.command == "move" and inputs.to_folder is None:
        raise definitions.missing(TASK, "to_folder", "the folder to move to")
    for one in inputs.flags or ():
        if not _WORD.fullmatch(one):
            raise definitions.invalid(TASK, "flags", "expected flags such as \\Seen or a word")


def _balanced(criteria: str) -> bool:
    """Return whether the criteria are one list of words: nothing in them can become another command."""
    if not criteria.isascii() or "{" in criteria:
        return False
    bare = re.sub(r'"(?:\\.|[^"\\])*"', "", criteria)
    depth = 0
    for character in bare:
        depth += {"(": 1, ")": -1}.get(character, 0)
        if depth < 0 or character in '"\\':
            return False
    return depth == 0 and bool(criteria.strip())


class _TooMuch(Exception):
    """The server says more than anybody can use."""


class _Client(imaplib.IMAP4):
    """imaplib over a connection that is there already, counting what comes."""

    def __init__(self, line: host.Line, trust: ssl.SSLContext | None, connect_timeout: float) -> None:
        self._line, self._trust, self._connect_timeout = line, trust, connect_timeout
        self._left = SAID_BYTES_MAX
        super().__init__()

    def _create_socket(self, timeout: float | None) -> socket.socket:
        connected = self._line.socket
        connected.settimeout(self._connect_timeout)
        return connected if self._trust is None else self._trust.wrap_socket(connected)

    def read(self, size: int) -> bytes:
        self._count(size)
        return super().read(size)

    def readline(self) -> bytes:
        said = super().readline()
        self._count(len(said) + _LINE_BYTES)
        return said

    def _count(self, size: int) -> None:
        self._left -= size
        if self._left < 0:
            raise _TooMuch


class _Visit:
    """One IMAP task under way, in its thread."""

    def __init__(self, inputs: ImapInputs, context: ports.TaskContext, line: host.Line, port: int) -> None:
        self._inputs, self._context, self._line, self._port = inputs, context, line, port

    def __call__(self) -> ImapOutput:
        """Do it; raises what imaplib raises, ``host.Failed`` and ``TaskFailed``."""
        client = self._connected()
        try:
            return self._visited(client)
        finally:
            _hang_up(client)

    def _visited(self, client: _Client) -> ImapOutput:
        inputs = self._inputs
        try:
            client.login(inputs.username or "", inputs.password or "")
        except imaplib.IMAP4.abort:
            raise
        except imaplib.IMAP4.error as error:
            words = f"the server refused the password of {inputs.username}: {host.quoted(_said(error))}"
            raise host.Failed(words) from None
        self._line.entered = True
        client.sock.settimeout(_ANSWER_S)
        try:
            output = self._performed(client)
            client.logout()
        except TimeoutError:
            raise host.Failed(f"the server said nothing for {_ANSWER_S:g} s", passing=True) from None
        return output

    def _connected(self) -> _Client:
        inputs = self._inputs
        wanted = inputs.use_tls is not False
        trust = self._trust() if wanted else None
        client = _Client(self._line, trust if self._port == TLS_PORT else None, inputs.connect_timeout)
        try:
            if trust is not None and self._port != TLS_PORT:
                if "STARTTLS" not in client.capabilities:
                    words = "the server does not offer STARTTLS, and without it no password is sent: 'use_tls' false"
                    raise host.Failed(words)
                client.starttls(trust)
        except BaseException:
            _hang_up(client)
            raise
        return client

    def _trust(self) -> ssl.SSLContext:
        inputs = self._inputs
        return tls.context(
            cacert=inputs.cacert,
            client_cert=inputs.client_cert,
            client_key=inputs.client_key,
            verify=inputs.verify_ssl,
            expected_name=inputs.hostname.strip("[]"),
        )

    def _performed(self, client: _Client) -> ImapOutput:
        inputs = self._inputs
        if inputs.command == "folders":
            return ImapOutput(folders=sorted(_folders(_ok(client.list()))))
        reads = inputs.command == "search" or (inputs.command == "fetch" and not inputs.mark_seen)
        _ok(client.select(_quoted(inputs.folder), readonly=reads))
        uids = inputs.uids
        if uids is None:
            found = _ok(client.uid("SEARCH", inputs.criteria or "ALL"))
            uids = sorted(int(word) for word in (found[0] or b"").split())[-inputs.max_messages :]
        output = ImapOutput(uids=list(uids))
        if not uids:
            output.messages = [] if inputs.command == "fetch" else msgspec.UNSET
            return output
        if inputs.command == "fetch":
            output.messages = [self._message(client, one) for one in self._headed(client, uids)]
            output.uids = [one.uid for one in output.messages]
        elif inputs.command != "search":
            self._change(client, ",".join(map(str, uids)))
        return output

    def _change(self, client: _Client, named: str) -> None:
        inputs = self._inputs
        flags = f"({' '.join(inputs.flags or ())})"
        match inputs.command:
            case "flag" | "unflag":
                _ok(client.uid("STORE", named, "+FLAGS" if inputs.command == "flag" else "-FLAGS", flags))
            case "move":
                self._needs(client, "MOVE")
                _ok(client.uid("MOVE", named, _quoted(inputs.to_folder or "")))
            case "delete":
                self._needs(client, "UIDPLUS")  # without it everything that is marked in the folder would go
                _ok(client.uid("STORE", named, "+FLAGS", "(\\Deleted)"))
                _ok(client.uid("EXPUNGE", named))

    def _needs(self, client: _Client, capability: str) -> None:
        said = _ok(client.capability())
        if capability not in (said[0] or b"").decode(errors="replace").upper().split():
            raise host.Failed(f"the server cannot {self._inputs.command} single messages: it lacks {capability}")

    def _headed(self, client: _Client, uids: Sequence[int]) -> Iterator[ImapMessage]:
        """Yield what the headers say of each message that is there."""
        named = ",".join(map(str, uids))
        parts = "(UID FLAGS RFC822.SIZE BODY.PEEK[HEADER])"
        for about, header in _pairs(_ok(client.uid("FETCH", named, parts))):
            uid, size = _UID.search(about), _SIZE.search(about)
            if uid is None or size is None:
                raise host.Failed("what the server says of a message cannot be read")
            flags = _FLAGS.search(about)
            parsed = email.parser.BytesHeaderParser(policy=email.policy.default).parsebytes(header)
            yield ImapMessage(
                uid=int(uid[1]),
                size=int(size[1]),
                flags=sorted((flags[1] if flags else b"").decode(errors="replace").split()),
                subject=_header(parsed, "Subject"),
                from_=_header(parsed, "From"),
                to=_header(parsed, "To"),
                cc=_header(parsed, "Cc"),
                date=_date(parsed),
                message_id=_header(parsed, "Message-ID"),
            )

    def _message(self, client: _Client, message: ImapMessage) -> ImapMessage:
        """Add the content, where it is wanted and not too large."""
        if not self._inputs.content:
            return message
        if message.size > MESSAGE_BYTES_MAX:
            text = f"message {message.uid} is larger than {MESSAGE_BYTES_MAX >> 20} MiB: without its content"
            self._context.log("WARNING", text)
            return message
        parts = "(UID BODY[])" if self._inputs.mark_seen else "(UID BODY.PEEK[])"
        for _, whole in _pairs(_ok(client.uid("FETCH", str(message.uid), parts))):
            parsed = email.parser.BytesParser(policy=email.policy.default).parsebytes(whole)
            message.text = _body(parsed, "plain")
            message.html = _body(parsed, "html")
            message.attachments = [
                self._attachment(message.uid, number, one) for number, one in enumerate(_files(parsed), 1)
            ]
        return message

    def _attachment(self, uid: int, number: int, part: email.message.Message) -> ImapAttachment:
        payload = part.get_payload(decode=True)
        content = payload if isinstance(payload, bytes) else b""
        name = _printable(part.get_filename() or "")
        made = ImapAttachment(filename=name, content_type=part.get_content_type(), size=len(content))
        if self._inputs.attachments_path is not None:
            folder = stored_files.path(self._inputs.attachments_path).rstrip("/")
            safe = re.sub(r"[^\w.-]+", "_", name).lstrip(".")[-100:] or "attachment"
            path = f"{folder}/{uid}/{number}-{safe}".lstrip("/")
            stored_files.put(self._context, path, content)
            made.file = f"headrace:{path}"
        return made


def _hang_up(client: _Client) -> None:
    with contextlib.suppress(OSError):
        client.shutdown()


def _ok(answer: tuple[str, list[Any]]) -> list[Any]:
    status, data = answer
    if status != "OK":
        said = data[0] if data and isinstance(data[0], bytes) else b""
        raise host.Failed(f"the server refused: {host.quoted(said.decode(errors='replace'))}")
    return data


def _said(error: Exception) -> str:
    said = error.args[0] if error.args else ""
    return said.decode(errors="replace") if isinstance(said, bytes) else str(said)


def _quoted(name: str) -> str:
    """Return a folder's name as IMAP writes it: in its own UTF-7 (RFC 3501, 5.1.3), in quotes."""
    return '"' + _utf7(name).replace("\\", "\\\\").replace('"', '\\"') + '"'


def _utf7(name: str) -> str:
    def coded(match: re.Match[str]) -> str:
        text = match[0].encode("utf-16-be")
        return "&" + binascii.b2a_base64(text, newline=False).decode().rstrip("=").replace("/", ",") + "-"

    return re.sub(r"[^\x20-\x7e]+", coded, name.replace("&", "&-"))


def _plain(name: str) -> str:
    def decoded(match: re.Match[str]) -> str:
        if not match[1]:
            return "&"
        text = match[1].replace(",", "/")
        return binascii.a2b_base64(text + "=" * (-len(text) % 4)).decode("utf-16-be", "replace")

    try:
        return re.sub(r"&([A-Za-z0-9+,]*)-", decoded, name)
    except binascii.Error:
        return name


def _folders(data: list[Any]) -> Iterator[str]:
    for one in data:
        if isinstance(one, tuple):  # the name came as a literal
            yield _plain(one[1].decode(errors="replace"))
        elif one is not None and (match := _FOLDER.match(one)):
            name = match["name"].decode(errors="replace")
            if name.startswith('"'):
                name = re.sub(r"\\(.)", r"\1", name[1:-1])
            if name and not name.startswith("{"):
                yield _plain(name)


def _pairs(data: list[Any]) -> Iterator[tuple[bytes, bytes]]:
    """Yield what is said about each message, and the literal that came with it.

    What comes after the literal belongs to it too: some servers put the flags there."""
    for one, after in zip(data, [*data[1:], None], strict=True):
        if isinstance(one, tuple):
            yield one[0] + (after if isinstance(after, bytes) else b""), one[1]


def _header(parsed: email.message.Message, name: str) -> str:
    try:
        return _printable(str(parsed[name] or ""))
    except (ValueError, LookupError, AttributeError, TypeError):  # the library's parser trips over strange ones
        return ""


def _printable(text: str) -> str:
    return " ".join(text.encode("utf-8", "replace").decode().split())


def _date(parsed: email.message.Message) -> str:
    """Return the date in ISO 8601, or empty."""
    try:
        return email.utils.parsedate_to_datetime(_header(parsed, "Date")).isoformat()
    except (ValueError, TypeError, IndexError, OverflowError):
        return ""


def _body(parsed: email.message.Message, kind: str) -> str | None:
    for part in parsed.walk():
        if part.get_content_type() == f"text/{kind}" and part.get_content_disposition() != "attachment":
            payload = part.get_payload(decode=True)
            content = payload if isinstance(payload, bytes) else b""
            try:
                text = content.decode(part.get_content_charset() or "utf-8", "replace")
            except LookupError:
                text = content.decode("utf-8", "replace")
            return text.replace("\r\n", "\n")
    return None


def _files(parsed: email.message.Message) -> Iterator[email.message.Message]:
    for part in parsed.walk():
        if not part.is_multipart() and (part.get_filename() or part.get_content_disposition() == "attachment"):
            yield part


async def _attempt(settings: definitions.Settings, inputs: ImapInputs, context: ports.TaskContext) -> ImapOutput:
    port = inputs.port or TLS_PORT
    async with host.line(inputs, port, settings.egress) as line:
        try:
            return await line.used(_Visit(inputs, context, line, port), inputs.connect_timeout)
        except (imaplib.IMAP4.error, OSError, _TooMuch, *host.GARBAGE) as error:
            if line.too_late:
                raise host.explained(TimeoutError(), inputs, port) from None
            raise _explained(error, inputs, port) from None


def _explained(error: Exception, inputs: ImapInputs, port: int) -> host.Failed:
    where = f"{inputs.hostname}:{port}"
    match error:
        case imaplib.IMAP4.abort():
            return host.Failed(f"{where} broke off: {host.quoted(_said(error))}", passing=True)
        case imaplib.IMAP4.error():
            return host.Failed(f"what {where} says cannot be used: {host.quoted(_said(error))}")
        case OSError():
            return host.explained(error, inputs, port)
        case _TooMuch():
            return host.Failed(f"{where} says more than {SAID_BYTES_MAX >> 20} MiB: ask for fewer messages")
    return host.Failed(f"what {where} says cannot be used: {host.quoted(str(error))}")


def _is_repeatable(inputs: ImapInputs) -> bool:
    """Return whether twice is as good as once: moving and deleting name messages that may be gone or others by then."""
    return inputs.command not in ("move", "delete") and not (inputs.mark_seen and inputs.criteria is not None)


async def _run(settings: definitions.Settings, inputs: ImapInputs, context: ports.TaskContext) -> ImapOutput:
    attempt = functools.partial(_attempt, settings, inputs, context)
    shown = f"{TASK} {inputs.username}@{inputs.hostname}:{inputs.port or TLS_PORT} {inputs.command}"
    return await host.performed(shown, attempt, inputs, context, settings, repeatable=_is_repeatable(inputs))


def definition(settings: definitions.Settings) -> definitions.TaskDefinition[ImapInputs]:
    """Return the task type IMAP."""
    return definitions.TaskDefinition(
        name=TASK,
        summary="Find, read, mark and move mails",
        description="Reads a mailbox: folders, searches, messages with their attachments; marks, moves and deletes.",
        inputs=ImapInputs,
        output=ImapOutput,
        run=functools.partial(_run, settings),
        idempotent=_is_repeatable,
        check=_check,
        input_aliases={**host.ALIASES, "login": "username"},
    )
