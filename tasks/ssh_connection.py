"""Connections by SSH for SSH, SCP and SFTP, through asyncssh: the inputs they share, the way in, words for failures.

A server shows the host key that was given, or one that the user who runs the daemon trusts; any other is refused,
always. No configuration file, agent or key of that user takes part.
"""

from __future__ import annotations

import asyncio
import contextlib
import pathlib
from collections.abc import AsyncIterator
from types import ModuleType
from typing import TYPE_CHECKING, Annotated, Any

from . import blocking, extras, git_fetch, host, host_key
from . import definition as definitions
from .egress import Egress

if TYPE_CHECKING:
    import asyncssh

PORT = 22
#: Seconds between signs of life, and how many may stay without an answer: a cut cable is noticed within a minute.
_ALIVE_S, _ALIVE_MAX = 15, 3
#: How long a connection may take to be closed in order.
_CLOSE_S = 2.0

Key = Annotated[str | None, host.about("The private key as text, without a passphrase: OpenSSH or PEM.")]
HostKey = Annotated[
    str | None,
    host.about("The server's host key: 'type key', with a comment or not, or the bare base64. Default: what "
    "~/.ssh/known_hosts says."),
]  # fmt: skip


def check(task: str, inputs: Any) -> None:
    """Raise ``InputRefused`` for inputs nobody can log in with; ``inputs`` has a login, ``key`` and ``hostkey``."""
    host.check_hostname(task, inputs)
    if inputs.username is None:
        raise definitions.missing(task, "username", "the user to log in as")
    if inputs.password is None and inputs.key is None:
        raise definitions.missing(task, "key", "the private key, or 'password'")
    if inputs.key is not None and "PRIVATE KEY-----" not in inputs.key:
        raise definitions.invalid(task, "key", "expected a private key, '-----BEGIN … PRIVATE KEY-----'")
    if inputs.hostkey is not None:
        try:
            host_key.parsed(inputs.hostkey)
        except ValueError as problem:
            raise definitions.invalid(task, "hostkey", str(problem)) from None


def shown(task: str, inputs: Any) -> str:
    """Return what was done where, for messages."""
    return f"{task} {inputs.username}@{inputs.hostname}:{inputs.port or PORT}"


@contextlib.asynccontextmanager
async def opened(task: str, inputs: Any, egress: Egress) -> AsyncIterator[asyncssh.SSHClientConnection]:
    """Give a connection that is logged in, and closed after the block; raises ``host.Failed``.

    What breaks inside of the block is told in words too."""
    library = await blocking.call(_library, task)
    port = inputs.port or PORT
    addresses = await host.addresses(inputs, port, egress)
    options = await blocking.call(_options, library, inputs)

    async def connect(address: str) -> asyncssh.SSHClientConnection:
        made: asyncssh.SSHClientConnection = await library.connect(address, port, **options)
        return made

    try:
        async with asyncio.timeout(inputs.connect_timeout):
            connection = await host.first(addresses, connect)
    except (OSError, TimeoutError) as error:
        raise host.explained(error, inputs, port) from None
    except library.Error as error:
        raise _refused(library, error, inputs, port) from None
    try:
        yield connection
    except (library.ConnectionLost, library.DisconnectError) as error:
        raise host.Failed(f"the connection broke: {host.quoted(error.reason)}", passing=True) from None
    except library.ChannelOpenError as error:
        raise host.Failed(f"the server refused to begin: {host.quoted(error.reason)}") from None
    finally:
        connection.close()
        with contextlib.suppress(TimeoutError, OSError, library.Error):
            async with asyncio.timeout(_CLOSE_S):
                await connection.wait_closed()
        connection.abort()


def _library(task: str) -> ModuleType:
    library = extras.require("asyncssh", extra="ssh", task=task)
    library.set_log_level("CRITICAL")  # its lines name users and hosts; what matters of them is in the failure
    return library


def _options(library: Any, inputs: Any) -> dict[str, Any]:
    return {
        "username": inputs.username,
        "password": inputs.password,
        "client_keys": [_key(library, inputs.key)] if inputs.key is not None else None,
        "known_hosts": _known_hosts(library, inputs.hostkey),
        "host_key_alias": inputs.hostname,
        "config": None,
        "agent_path": None,
        "gss_auth": False,
        "gss_kex": False,
        "host_based_auth": False,
        "keepalive_interval": _ALIVE_S,
        "keepalive_count_max": _ALIVE_MAX,
        "login_timeout": inputs.connect_timeout,
        "x509_trusted_certs": None,
        "compression_algs": None,
    }


def _key(library: Any, text: str) -> Any:
    try:
        return library.import_private_key("\n".join(text.strip().splitlines()) + "\n")
    except (library.KeyImportError, library.KeyEncryptionError) as error:
        encrypted = any(word in str(error).lower() for word in ("passphrase", "encryption", "bcrypt"))
        why = "it is encrypted, expected one without a passphrase" if encrypted else "it is damaged"
        raise host.Failed(f"the input 'key' cannot be used: {why}") from None


def _known_hosts(library: Any, given: str | None) -> Any:
    if given is not None:
        return ([library.import_public_key(host_key.parsed(given))], [], [])
    path: pathlib.Path = git_fetch.known_hosts()
    return str(path) if path.is_file() else ([], [], [])


def _refused(library: Any, error: Any, inputs: Any, port: int) -> host.Failed:
    """Return in words why nobody was let in, and whether that may pass."""
    where = f"{inputs.hostname}:{port}"
    match error:
        case library.HostKeyNotVerifiable():
            if inputs.hostkey is not None:
                return host.Failed("the server's host key is not the one that is expected")
            return host.Failed("the server's host key is not among those that ~/.ssh/known_hosts has for it: 'hostkey'")
        case library.PermissionDenied():
            what = (
                "the key" if inputs.password is None else "the password" if inputs.key is None else "key and password"
            )
            return host.Failed(f"the server refused {what} of {inputs.username}")
        case library.ConnectionLost():
            return host.Failed(f"{where} closed the connection before the login", passing=True)
        case library.KeyExchangeFailed():
            return host.Failed(f"no common way to encrypt with {where}: {host.quoted(error.reason)}")
    return host.Failed(f"what answers at {where} cannot be used as an SSH server: {host.quoted(str(error))}")
