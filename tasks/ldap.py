"""LDAP: search a directory, and change it.

The protocol is spoken here, over the event loop: messages are read one at a time and within bounds, entries beyond
those the task may have end it, and a cancelled task abandons its request before it hangs up. Referrals are told and not
followed: credentials stay with the host they were given for.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
from typing import Annotated, Any, Literal

import msgspec

from ..engine import ports, values
from . import definition as definitions
from . import host
from . import ldap_messages as messages
from .definition import invalid, missing
from .host import about

TASK = "LDAP"
PORT, TLS_PORT = 389, 636
#: What one message may take.
MESSAGE_BYTES_MAX = 16 * 1024 * 1024
#: Entries of a page: servers bound what they give at once, often to 500 or 1000.
_PAGE = 500
_NOT_UNDERSTOOD = "what the server says is not understood: it may not be LDAP, or may expect TLS"
_PASSING = frozenset({51, 52})
Command = Literal["search", "add", "modify", "delete", "rename", "whoami"]
_NEEDS: dict[str, tuple[str, ...]] = {
    "add": ("dn", "attributes"),
    "modify": ("dn", "changes"),
    "delete": ("dn",),
    "rename": ("dn", "new_rdn"),
}


class LdapInputs(host.HostInputs):
    """The inputs of LDAP."""

    port: Annotated[host.Port | None, about("Default: 389, with use_tls 636.")] = None
    username: Annotated[str | None, about("The name to log in as, mostly a DN. Default: nobody.")] = None
    start_tls: Annotated[bool, about("Begin TLS on the plain port, instead of use_tls. Default: false.")] = False
    command: Annotated[Command, about("What to do; whoami tells who the server takes us for. Default: search.")] = (
        "search"
    )
    dn: Annotated[str | None, about("The entry; for search where to begin. Default for search: the root.")] = None
    filter: Annotated[
        str, about("Which entries are searched for, such as (&(objectClass=person)(cn=a*)). Default: all of them.")
    ] = "(objectClass=*)"
    scope: Annotated[
        Literal["base", "one", "sub"], about("The entry dn, those right below it, or all from there. Default: sub.")
    ] = "sub"
    attributes: Annotated[
        list[str] | dict[str, Any] | None,
        about("For search a list of those wanted, default all; for add an object: {name: value or list of values}."),
    ] = None
    changes: Annotated[
        dict[str, dict[str, Any]] | None,
        about("For modify: {attribute: {add, delete or replace: value or list of values}}; delete null is all."),
    ] = None
    new_rdn: Annotated[str | None, about("For rename: the new first part of the name, such as cn=Ada.")] = None
    new_parent: Annotated[str | None, about("For rename: the DN of another parent.")] = None
    max_entries: Annotated[
        int, msgspec.Meta(ge=1, le=1_000_000, description="More entries than that are a failure. Default: 10000.")
    ] = 10_000

    @property
    def where(self) -> int:
        """The port in force."""
        return self.port or (TLS_PORT if self.with_tls and not self.start_tls else PORT)

    @property
    def repeatable(self) -> bool:
        """Whether it changes nothing."""
        return self.command in ("search", "whoami")


class LdapOutput(msgspec.Struct, kw_only=True):
    """The output of LDAP."""

    entries: Any = msgspec.UNSET  #: what was found, with search: ``{"dn", "attributes": {name: [values]}}``
    referrals: list[str] = msgspec.field(default_factory=list)  #: where else there are entries
    result: str | None = None  #: who we are, with whoami


def _check(inputs: LdapInputs) -> None:
    host.check(TASK, inputs)
    if inputs.username and not inputs.password:
        # Servers let such a one in as nobody, and the task would think it was somebody.
        raise missing(TASK, "password", "the password of 'username'")
    if inputs.start_tls and inputs.use_tls is False:
        raise invalid(TASK, "use_tls", "'start_tls' is true, so it cannot be false")
    for name in _NEEDS.get(inputs.command, ()):
        if getattr(inputs, name) is None:
            raise missing(TASK, name, f"{inputs.command} needs it")
    if isinstance(inputs.attributes, dict) != (inputs.command == "add") and inputs.attributes is not None:
        raise invalid(TASK, "attributes", "expected a list of names for search, an object of values for add")
    try:
        messages.parsed_filter(inputs.filter)
    except ValueError as problem:
        raise invalid(TASK, "filter", str(problem)) from None
    try:
        _request(inputs)
    except ValueError as problem:
        raise invalid(TASK, "changes" if inputs.command == "modify" else "attributes", str(problem)) from None


def _request(inputs: LdapInputs) -> bytes:
    name = inputs.dn or ""
    match inputs.command:
        case "search":
            wanted = inputs.attributes if isinstance(inputs.attributes, list) else []
            return messages.search(name, inputs.scope, messages.parsed_filter(inputs.filter), wanted)
        case "add":
            return messages.add(name, inputs.attributes if isinstance(inputs.attributes, dict) else {})
        case "modify":
            return messages.modify(name, inputs.changes or {})
        case "delete":
            return messages.delete(name)
        case "rename":
            return messages.rename(name, inputs.new_rdn or "", inputs.new_parent)
    return messages.extended(messages.WHO_AM_I)


class _Session:
    """A connection; one request at a time."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer
        self._number = 0

    async def send(self, request: bytes, controls: bytes = b"") -> None:
        """Send a request; its answers are the next ones."""
        self._number += 1
        parts = messages.number(self._number), request, controls
        self._writer.write(messages.element(messages.SEQUENCE, *parts))
        await self._writer.drain()

    def abandon(self) -> None:
        """Tell the server that nobody waits for the answer any more."""
        request = messages.number(self._number + 1) + messages.number(self._number, 0x50)
        with contextlib.suppress(OSError, RuntimeError):
            self._writer.write(messages.element(messages.SEQUENCE, request))

    async def next(self) -> messages.Message:
        """Return the next message; raises ``host.Failed``."""
        try:
            message = messages.message(await self._content())
        except (ValueError, IndexError, StopIteration):
            raise host.Failed(_NOT_UNDERSTOOD) from None
        if message.number != self._number:
            said = messages.result(message.content).words if message.kind == 0x78 else _NOT_UNDERSTOOD
            raise host.Failed(f"the server ends the connection: {host.quoted(said)}", passing=message.kind == 0x78)
        return message

    def nothing_more(self) -> None:
        """Refuse what was said before TLS began and would be taken for what was said inside of it."""
        if getattr(self._reader, "_buffer", b""):
            raise host.Failed("the server said something between its yes to TLS and the beginning of it")

    async def _content(self) -> bytes:
        head = await self._reader.readexactly(2)
        length = head[1]
        if head[0] != messages.SEQUENCE:
            raise ValueError("no message")
        if length & 0x80:
            if length & 0x7F > 4:
                raise ValueError("a length of another form")
            length = int.from_bytes(await self._reader.readexactly(length & 0x7F), "big")
        if length > MESSAGE_BYTES_MAX:
            raise host.Failed(f"the server sent a message of more than {MESSAGE_BYTES_MAX >> 20} MiB")
        return await self._reader.readexactly(length)

    async def ask(self, request: bytes) -> messages.Result:
        """Return the good result of a request; raises ``host.Failed``."""
        await self.send(request)
        return _good((await self.next()).content)


def _good(content: bytes) -> messages.Result:
    try:
        result = messages.result(content)
    except (ValueError, IndexError):
        raise host.Failed(_NOT_UNDERSTOOD) from None
    if result.code == 10:
        raise host.Failed(f"that lies elsewhere: {host.quoted(', '.join(result.referrals))}")
    if result.code:
        raise host.Failed(host.quoted(result.words), passing=result.code in _PASSING)
    return result


async def _enter(session: _Session, writer: asyncio.StreamWriter, inputs: LdapInputs) -> None:
    """Begin TLS where it is wanted, and log in."""
    if inputs.start_tls:
        await session.ask(messages.extended(messages.START_TLS))
        session.nothing_more()
        secured = msgspec.structs.replace(inputs, use_tls=True)
        await writer.start_tls(await asyncio.to_thread(host.trust, secured))  # type: ignore[arg-type]
    if inputs.username:
        await session.ask(messages.bind(inputs.username, inputs.password or ""))


class _Found:
    """The entries of a search, as JSON, within bounds."""

    def __init__(self, entries_max: int) -> None:
        self._entries_max = entries_max
        self._bytes = 0
        self.entries: list[msgspec.Raw] = []

    def add(self, content: bytes) -> None:
        """Take one more; raises ``host.Failed`` when there are too many."""
        if len(self.entries) >= self._entries_max:
            raise host.Failed(
                f"there are more than {self._entries_max:,} entries: search for fewer, or give a larger max_entries"
            )
        name, attributes = messages.entry(content)
        text = values.encode({"dn": name, "attributes": attributes}, "an entry")
        self._bytes += len(text) + 1
        if self._bytes > values.VALUE_BYTES_MAX:
            raise host.Failed(
                f"the first {len(self.entries):,} entries are {values.VALUE_BYTES_MAX >> 20} MiB as JSON already, "
                "which is the limit: search for fewer entries or attributes"
            )
        self.entries.append(msgspec.Raw(text))


async def _searched(session: _Session, inputs: LdapInputs) -> LdapOutput:
    found, output, cookie = _Found(inputs.max_entries), LdapOutput(), b""
    while True:
        await session.send(_request(inputs), messages.page(_PAGE, cookie))
        while True:
            message = await session.next()
            try:
                if message.kind == messages.ENTRY:
                    found.add(message.content)
                elif message.kind == messages.REFERENCE:
                    output.referrals += [
                        one.decode("utf-8", "replace") for _, one in messages.elements(message.content)
                    ]
                    if len(output.referrals) > inputs.max_entries:
                        raise host.Failed(f"there are more than {inputs.max_entries:,} referrals")
                else:
                    break
            except ValueError:
                raise host.Failed(_NOT_UNDERSTOOD) from None
        _good(message.content)
        cookie = message.cookie
        if not cookie:
            output.entries = found.entries
            return output


async def _attempt(inputs: LdapInputs, context: ports.TaskContext, settings: definitions.Settings) -> LdapOutput:
    stream = host.stream(inputs, inputs.where, settings.egress, limit=65536, plain=inputs.start_tls)
    async with stream as (reader, writer):
        session = _Session(reader, writer)
        try:
            async with asyncio.timeout(inputs.connect_timeout):
                await _enter(session, writer, inputs)
        except TimeoutError as error:
            raise host.explained(error, inputs, inputs.where) from None
        try:
            if inputs.command == "search":
                return await _searched(session, inputs)
            result = await session.ask(_request(inputs))
        except (asyncio.CancelledError, host.Failed):
            session.abandon()
            raise
        who = (result.value or b"").decode("utf-8", "replace")
        return LdapOutput(result=who if inputs.command == "whoami" else None)


async def _run(settings: definitions.Settings, inputs: LdapInputs, context: ports.TaskContext) -> LdapOutput:
    attempt = functools.partial(_attempt, inputs, context, settings)
    shown = f"{inputs.command} on {inputs.hostname}:{inputs.where}"
    return await host.performed(shown, attempt, inputs, context, settings, repeatable=inputs.repeatable)


def definition(settings: definitions.Settings) -> definitions.TaskDefinition[LdapInputs]:
    """Return the task type LDAP."""
    return definitions.TaskDefinition(
        name=TASK,
        summary="Search and change a directory",
        description="One search, or one change of one entry.",
        inputs=LdapInputs,
        output=LdapOutput,
        run=functools.partial(_run, settings),
        idempotent=lambda inputs: inputs.repeatable,
        check=_check,
        input_aliases=host.ALIASES,
    )
