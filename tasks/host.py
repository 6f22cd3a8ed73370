"""The host a task talks to: the inputs that say where it is and who we are, how it is reached, what went wrong there.

For every type that speaks a protocol of its own. The names are the same everywhere: hostname, port, username, password,
connect_timeout, use_tls and what belongs to it. A name is resolved here, once, and every address it has must pass the
operator's policy; who connects uses those very addresses. What a task says of a failure passes ``performed``, which
takes the secrets out of it.
"""

from __future__ import annotations

import asyncio
import contextlib
import re
import socket
import ssl
import struct
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from typing import Annotated, Any, TypeVar

import msgspec

from ..engine import errors, ports, values
from . import blocking, retry, tls
from . import definition as definitions
from .definition import Inputs, invalid, missing
from .egress import Egress

T = TypeVar("T")
#: What a message quotes of what a host said.
_QUOTED_CHARACTERS = 1000
_HOSTNAME = re.compile(r"[A-Za-z0-9._:%-]{1,253}")

Port = Annotated[int, msgspec.Meta(ge=1, le=65535)]
ConnectTimeout = Annotated[
    float, msgspec.Meta(gt=0, description="Seconds to connect and log in, TLS included. Default: 30.")
]


def about(description: str) -> msgspec.Meta:
    """Return the description of an input."""
    return msgspec.Meta(description=description)


class LoginInputs(Inputs):
    """Where the host is, and who we are there."""

    hostname: Annotated[str, about("The host: a name or an address.")]
    port: Annotated[Port | None, about("Default: the usual one.")] = None
    username: Annotated[str | None, about("The user to log in as.")] = None
    password: Annotated[str | None, about("The user's password.")] = None
    connect_timeout: ConnectTimeout = 30.0


class HostInputs(LoginInputs):
    """The same for protocols that may go through TLS."""

    use_tls: Annotated[
        bool | None,
        about("Whether TLS is spoken and the certificate checked. Default: true if cacert or client_cert is given."),
    ] = None
    cacert: Annotated[str | None, about("Certificates to trust instead of the system's, as PEM text.")] = None
    client_cert: Annotated[str | None, about("The certificate to show to the server, as PEM text.")] = None
    client_key: Annotated[str | None, about("Its private key, as PEM text without a passphrase.")] = None
    verify_ssl: Annotated[bool, about("Whether the server's certificate is checked. Default: true.")] = True

    @property
    def with_tls(self) -> bool:
        """Whether TLS must be spoken."""
        return self.cacert is not None or self.client_cert is not None if self.use_tls is None else self.use_tls


#: What libraries raise about what is not their protocol at all.
GARBAGE = (
    *(ValueError, LookupError, TypeError, AttributeError, AssertionError, ArithmeticError),
    *(RuntimeError, EOFError, struct.error),
)
#: Other names of these inputs, as flows in the wild write them.
ALIASES = {"host": "hostname", "user": "username"}


class Failed(Exception):
    """An attempt failed: in which words, whether that may pass, and what there is to show all the same."""

    def __init__(self, words: str, *, passing: bool = False, output: Any = None) -> None:
        super().__init__(words)
        self.words = words
        self.passing = passing
        self.output = output


def check(task: str, inputs: HostInputs, *, nameless: bool = False) -> None:
    """Raise ``InputRefused`` for what names no host, or for TLS inputs that do not go together.

    ``nameless`` is for services where a password alone is enough."""
    check_hostname(task, inputs)
    if inputs.password is not None and inputs.username is None and not nameless:
        raise missing(task, "username", "the user whose 'password' is given")
    check_tls(task, inputs)


def check_hostname(task: str, inputs: LoginInputs) -> None:
    """Raise ``InputRefused`` for what names no host."""
    if not _HOSTNAME.fullmatch(inputs.hostname):
        raise invalid(task, "hostname", "expected a host name or an address, without port or path")


def check_tls(task: str, inputs: HostInputs) -> None:
    """Raise ``InputRefused`` for TLS inputs that do not go together."""
    if inputs.client_key is not None and inputs.client_cert is None:
        raise missing(task, "client_cert", "the certificate that 'client_key' belongs to")
    if inputs.use_tls is False and (inputs.cacert is not None or inputs.client_cert is not None):
        raise invalid(task, "use_tls", "certificates are given, so it cannot be false")
    try:
        tls.check(cacert=inputs.cacert, client_cert=inputs.client_cert, client_key=inputs.client_key)
    except tls.TlsInputInvalid as problem:
        raise invalid(task, problem.name, str(problem)) from None


async def addresses(inputs: LoginInputs, port: int, egress: Egress) -> list[str]:
    """Return the numeric addresses to connect to, the preferred one first; raises ``Failed``."""
    name = inputs.hostname.strip("[]")
    try:
        async with asyncio.timeout(inputs.connect_timeout):
            found = await asyncio.get_running_loop().getaddrinfo(name, port, type=socket.SOCK_STREAM)
    except TimeoutError:
        raise Failed(f"the name {name} was not resolved within {inputs.connect_timeout:g} s", passing=True) from None
    except (OSError, UnicodeError) as error:
        # A name that does not exist is a mistake; a resolver that does not answer may come back.
        passing = isinstance(error, socket.gaierror) and error.errno != socket.EAI_NONAME
        why = error.strerror if isinstance(error, OSError) else "it is not a host name"
        raise Failed(f"the name {name} cannot be resolved: {why}", passing=passing) from None
    every = list(dict.fromkeys(str(one[4][0]) for one in found))
    for one in every:
        if (refusal := egress.refusal(one)) is not None:
            raise Failed(refusal)
    return every


async def first(candidates: Sequence[str], connect: Callable[[str], Awaitable[T]]) -> T:
    """Return what ``connect`` gives for the first address that takes connections; raises the last ``OSError``."""
    for address in candidates[:-1]:
        with contextlib.suppress(OSError):
            return await connect(address)
    return await connect(candidates[-1])


async def opened(inputs: LoginInputs, port: int, egress: Egress) -> socket.socket:
    """Return a connection to the host, for libraries that block; raises ``Failed``."""

    async def connected(address: str) -> socket.socket:
        family = socket.AF_INET6 if ":" in address else socket.AF_INET
        made = socket.socket(family, socket.SOCK_STREAM)
        try:
            made.setblocking(False)
            async with asyncio.timeout(inputs.connect_timeout):
                await asyncio.get_running_loop().sock_connect(made, (address, port))
            made.setblocking(True)
            made.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            made.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        except BaseException:
            made.close()
            raise
        return made

    try:
        return await first(await addresses(inputs, port, egress), connected)
    except OSError as error:
        raise explained(error, inputs, port) from None


@contextlib.asynccontextmanager
async def stream(
    inputs: HostInputs, port: int, egress: Egress, *, limit: int, plain: bool = False
) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    """Give a connection to the host, with TLS where it is wanted; gone after the block. Raises ``Failed``.

    ``limit`` is how many bytes a line may have, ``plain`` is for protocols that begin TLS later. What breaks inside
    of the block is told as what it means, too."""
    candidates = await addresses(inputs, port, egress)
    trusted = None if plain else await asyncio.to_thread(trust, inputs)

    async def connected(address: str) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        return await asyncio.open_connection(address, port, ssl=trusted, limit=limit)

    try:
        async with asyncio.timeout(inputs.connect_timeout):
            reader, writer = await first(candidates, connected)
    except (OSError, TimeoutError) as error:
        raise explained(error, inputs, port) from None
    try:
        yield reader, writer
    except asyncio.IncompleteReadError:
        raise Failed(f"{inputs.hostname}:{port} closed the connection", passing=True) from None
    except OSError as error:
        raise explained(error, inputs, port) from None
    finally:
        writer.transport.abort()  # nothing that is still to be sent matters


class Line:
    """A connection a blocking library uses in a thread, which others may cut: then every call on it ends at once."""

    def __init__(self, connected: socket.socket) -> None:
        self.socket = connected
        #: The same connection: libraries close theirs, or make another object of it for TLS.
        self._own = connected.dup()
        self.was_cut = False
        #: Whether the host has let us in; until then only so much time may pass.
        self.entered = False
        self.too_late = False

    async def used(self, function: Callable[[], T], connect_timeout: float) -> T:
        """Return what ``function`` returns, in a thread of its own. It says when we are in by ``entered``.

        Cancelled, or not let in within ``connect_timeout``, the connection is cut, so that it ends."""
        timer = asyncio.get_running_loop().call_later(connect_timeout, self._give_up)
        try:
            return await blocking.alone(function, on_cancel=self.cut)
        finally:
            timer.cancel()

    def _give_up(self) -> None:
        if not self.entered:
            self.too_late = True
            self.cut()

    def cut(self) -> None:
        """End whatever waits on it."""
        self.was_cut = True
        with contextlib.suppress(OSError):
            self._own.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        """Let go of it."""
        self._own.close()
        self.socket.close()


@contextlib.asynccontextmanager
async def line(inputs: LoginInputs, port: int, egress: Egress) -> AsyncIterator[Line]:
    """Give a connection to the host, gone after the block; raises ``Failed``."""
    made = Line(await opened(inputs, port, egress))
    try:
        yield made
    finally:
        made.cut()
        made.close()


def trust(inputs: HostInputs, *, pinned: bool = True) -> ssl.SSLContext | None:
    """Return the TLS context for the host, or None for a plain connection. Takes milliseconds, off the event loop.

    ``pinned`` is for who connects to addresses: the certificate is checked for the name in the inputs then."""
    if not inputs.with_tls:
        return None
    return tls.context(
        cacert=inputs.cacert,
        client_cert=inputs.client_cert,
        client_key=inputs.client_key,
        verify=inputs.verify_ssl,
        expected_name=inputs.hostname.strip("[]") if pinned else None,
    )


def explained(error: Exception, inputs: LoginInputs, port: int) -> Failed:
    """Return in words what an ``OSError`` or a ``TimeoutError`` of a connection means, and whether it may pass."""
    where = f"{inputs.hostname}:{port}"
    match error:
        case ssl.SSLCertVerificationError():
            return Failed(f"the certificate of {where} is not trusted: {error.verify_message}")
        case ssl.SSLError():
            reason = (error.reason or str(error)).replace("_", " ").lower()
            return Failed(f"the TLS handshake with {where} failed: {reason}")
        case TimeoutError():
            return Failed(f"no connection to {where} within {inputs.connect_timeout:g} s", passing=True)
        case ConnectionRefusedError():
            return Failed(f"connection refused by {where}", passing=True)
        case OSError():
            return Failed(f"the connection to {where} broke: {error.strerror or error}", passing=True)
    return Failed(f"{where} cannot be used: {error}")


def quoted(text: str) -> str:
    """Return what a host said as one line of bounded length."""
    return " ".join(text[: _QUOTED_CHARACTERS * 4].split())[:_QUOTED_CHARACTERS]


async def performed(
    shown: str,
    attempt: Callable[[], Awaitable[T]],
    inputs: Inputs,
    context: ports.TaskContext,
    settings: definitions.Settings,
    *,
    repeatable: bool,
    secret: Sequence[str] = (),
) -> T:
    """Return what ``attempt`` returns, trying again as the inputs say; raises ``TaskFailed`` for what ``Failed`` says.

    ``shown`` says in the message what was done where. What stands in the inputs ``password``, ``client_key``, in those
    named by ``secret`` and in those that the call protects is taken out of it."""
    hidden = _secrets(inputs, ("password", "client_key", *secret, *(inputs.protect_inputs or ())))

    async def once() -> T:
        try:
            return await attempt()
        except Failed as failed:
            output = b"{}" if failed.output is None else values.encode(failed.output, "the output")
            failure = errors.TaskFailed(_without(hidden, f"{shown}: {failed.words}"), output=output)
            passing = failed.passing
        raise retry.Transient(failure) if passing else failure

    return await retry.attempts(
        once, retry.chosen(inputs.retry_backoff, repeatable=repeatable), context, settings.pacing
    )


def _secrets(inputs: Inputs, names: Sequence[str]) -> list[str]:
    found = {text for name in names for text in _texts(getattr(inputs, name, None)) if text}
    return sorted(found, key=len, reverse=True)  # one may be part of another


def _texts(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
        yield from (line for line in value.splitlines() if len(line) > 7)
    elif isinstance(value, dict):
        for one in value.values():
            yield from _texts(one)
    elif isinstance(value, list):
        for one in value:
            yield from _texts(one)


def _without(hidden: Sequence[str], text: str) -> str:
    for secret in hidden:
        text = text.replace(secret, "***")
    return text
