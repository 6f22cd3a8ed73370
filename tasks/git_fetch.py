"""Fetching from a git remote into a private, temporary, bare repository that is gone afterwards, and pushing from it.

git runs with an environment and a configuration of its own: no user or system configuration, no hooks, no helpers, no
prompts, one allowed protocol. Secrets stand in files of mode 0600 in a folder of mode 0700, never in an argument, an
address, the environment or a message, and git itself gives them only to the server they are for. Cancelling kills
git with everything it started. Nothing is checked out: ``git`` reads objects from the repository.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import pathlib
import re
import shlex
import socket
from collections.abc import AsyncIterator

import msgspec

from . import blocking, definition, git_address, host, process
from .egress import Egress

#: A pack larger than this is cut off.
PACK_BYTES_MAX = 1024 * 1024 * 1024
#: What git may keep in memory: it takes an answer whole, however large.
MEMORY_BYTES_MAX = 2 * 1024**3
#: One git command may take this long, whatever the timeout of the task.
COMMAND_TIMEOUT_S = 1800.0
_STDERR_BYTES_MAX = 64 * 1024
_SAID_BYTES_MAX = 16 * 1024 * 1024
_TRUST = ("GIT_SSL_CAINFO", "SSL_CERT_FILE", "SSL_CERT_DIR")
#: Where what was fetched is found.
FETCHED = "refs/headrace/fetched"

_ABSENT = re.compile(r"couldn't find remote ref|not our ref|unadvertised object|no such remote ref", re.IGNORECASE)
_PASSING = re.compile(
    r"Could not resolve host|Temporary failure in name resolution|Connection refused|Failed to connect|timed out"
    r"|Connection reset|Connection closed|early EOF|unexpected disconnect|returned error: (429|5\d\d)|too slow",
    re.IGNORECASE,
)
#: What the client says before it sends anything, and what the server says when another push came in between.
_MOVED = re.compile(
    r"\((fetch first|non-fast-forward|stale info|cannot lock ref|failed to update ref)|is at \w+ but exp"
)
_NOISE = re.compile(
    r"^($|warning: |hint: |remote: *$|Please make sure you have the correct|and the repository exists)"
    r"|^fatal: (Could not read from remote|index-pack failed)|^To |^error: failed to push"
)


class FetchFailed(Exception):
    """git could not fetch or push.

    ``passing`` says whether it may work later, ``absent`` that the ref is not there, ``moved`` that it is elsewhere."""

    def __init__(self, words: str, *, passing: bool = False, absent: bool = False, moved: bool = False) -> None:
        super().__init__(words)
        self.words, self.passing, self.absent, self.moved = words, passing, absent, moved


class Access(msgspec.Struct, frozen=True, kw_only=True):
    """How to get in."""

    address: git_address.Address
    username: str | None = None
    password: str | None = None
    ssh_key: str | None = None
    ssh_host_key: str | None = None
    cookie: str | None = None


class Repository(msgspec.Struct, frozen=True):
    """The temporary repository: its folder and the environment every git command on it needs."""

    path: pathlib.Path
    environment: dict[str, str]

    async def fetch(self, *refspecs: str, options: tuple[str, ...] = ()) -> None:
        """Fetch from the remote; raises ``FetchFailed``."""
        arguments = ["fetch", "--quiet", "--no-tags", "--no-write-fetch-head", "--no-recurse-submodules", *options]
        status, said = await _git(self, [*arguments, "--end-of-options", "origin", *refspecs])
        if status:
            raise _explained(said)

    async def push(self, refspec: str) -> None:
        """Push to the remote, all or nothing, never over what somebody else did; raises ``FetchFailed``."""
        arguments = ["push", "--quiet", "--no-follow-tags", "--no-recurse-submodules", "--no-signed"]
        status, said = await _git(self, [*arguments, "--end-of-options", "origin", refspec])
        if status:
            raise _explained(said)


@contextlib.asynccontextmanager
async def repository(access: Access, settings: definition.Settings) -> AsyncIterator[Repository]:
    """Give an empty repository whose ``origin`` is the address. Everything of it is gone after the block."""
    addresses = await _allowed_addresses(access.address, settings.egress)
    async with settings.folders.opened("git") as folder:
        yield await blocking.call(_configured, folder, access, addresses)


async def _allowed_addresses(address: git_address.Address, egress: Egress) -> list[str]:
    """Return the numeric addresses git has to use where the policy restricts them; raises ``FetchFailed``."""
    if not egress.deny_private or not address.host:
        return []
    try:
        found = await asyncio.get_running_loop().getaddrinfo(address.host, address.port, type=socket.SOCK_STREAM)
    except OSError as error:
        raise FetchFailed(f"the name {address.host} cannot be resolved: {error.strerror}", passing=True) from None
    addresses = [str(one[4][0]) for one in found]
    for one in addresses:
        if (refusal := egress.refusal(one)) is not None:
            raise FetchFailed(refusal)
    return addresses


def _configured(folder: pathlib.Path, access: Access, addresses: list[str]) -> Repository:
    path = folder / "repository.git"
    for name in ("objects", "refs"):
        (path / name).mkdir(parents=True)
    (path / "HEAD").write_text("ref: refs/heads/nothing\n")
    _write_private(path / "config", _config(folder, access, addresses))
    environment = {
        "PATH": os.environ.get("PATH", os.defpath),
        "HOME": str(folder),
        "LC_ALL": "C",
        "GIT_DIR": str(path),
        "GIT_CONFIG_NOSYSTEM": "1",
        "GIT_CONFIG_GLOBAL": os.devnull,
        "GIT_TERMINAL_PROMPT": "0",
        "GIT_PROTOCOL_FROM_USER": "0",
        "GIT_NO_LAZY_FETCH": "1",
        # Which authorities the operator trusts is about the host, not about the call.
        **{
            name: os.environ[name] for name in ("GIT_SSL_CAINFO", "SSL_CERT_FILE", "SSL_CERT_DIR") if name in os.environ
        },
    }
    if access.address.scheme == "ssh":
        environment["GIT_SSH_COMMAND"] = shlex.join(_ssh(folder, access, addresses))
        environment["GIT_SSH_VARIANT"] = "ssh"
    return Repository(path, environment)


def _write_private(path: pathlib.Path, text: str) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w") as stream:
        stream.write(text)


def _config(folder: pathlib.Path, access: Access, addresses: list[str]) -> str:
    address = access.address
    entries = [
        ("core", "", "bare", "true"),
        ("core", "", "hooksPath", os.devnull),
        ("core", "", "fsmonitor", "false"),
        ("protocol", "", "allow", "never"),
        ("protocol", address.scheme, "allow", "always"),
        ("transfer", "", "fsckObjects", "true"),
        ("transfer", "", "bundleURI", "false"),
        # Old repositories are full of these two, and nothing here depends on them.
        ("fetch", "fsck", "badTimezone", "ignore"),
        ("fetch", "fsck", "zeroPaddedFilemode", "ignore"),
        ("gc", "", "auto", "0"),
        ("maintenance", "", "auto", "false"),
        ("remote", "origin", "url", address.url),
        ("credential", "", "helper", ""),
    ]
    if address.scheme in ("http", "https"):
        entries += _http_entries(folder, access, addresses)
    lines = []
    for section, subsection, name, value in entries:
        lines.append(f"[{section} {_quoted(subsection)}]" if subsection else f"[{section}]")
        lines.append(f"\t{name} = {_quoted(value)}")
    return "\n".join(lines) + "\n"


def _http_entries(folder: pathlib.Path, access: Access, addresses: list[str]) -> list[tuple[str, str, str, str]]:
    address = access.address
    entries = [
        ("http", "", "followRedirects", "false" if addresses else "initial"),
        ("http", "", "lowSpeedLimit", "1"),
        ("http", "", "lowSpeedTime", "60"),
    ]
    if addresses and ":" not in address.host:
        # The very addresses that were checked: a name may point elsewhere a moment later.
        numbers = ",".join(f"[{one}]" if ":" in one else one for one in addresses)
        entries.append(("http", "", "curloptResolve", f"{address.host}:{address.port}:{numbers}"))
    if access.cookie is not None:
        entries.append(("http", address.origin, "extraHeader", f"Cookie: {access.cookie}"))
    user = access.username or address.user
    password = access.password or address.password
    if user is not None or password is not None:
        answer = folder / "credential"
        _write_private(answer, f"username={user or 'git'}\npassword={password or ''}\n")
        # git asks this helper for this origin only, so that a redirect elsewhere gets nothing.
        helper = f'!f() {{ test "$1" = get && cat {shlex.quote(str(answer))}; }}; f'
        entries.append(("credential", address.origin, "helper", helper))
    return entries


def _quoted(value: str) -> str:
    return '"' + value.replace("\\", "\\\\").replace('"', '\\"') + '"'


def _ssh(folder: pathlib.Path, access: Access, addresses: list[str]) -> list[str]:
    address = access.address
    options = {
        "BatchMode": "yes",
        "StrictHostKeyChecking": "yes",
        "CheckHostIP": "no",
        "UpdateHostKeys": "no",
        "IdentitiesOnly": "yes",
        "IdentityAgent": "none",
        "ConnectTimeout": "30",
        "ServerAliveInterval": "15",
        "ServerAliveCountMax": "4",
    }
    if access.ssh_host_key is not None:
        _write_private(folder / "known_hosts", f"server {access.ssh_host_key}\n")
        options |= {
            "HostKeyAlias": "server",
            "UserKnownHostsFile": str(folder / "known_hosts"),
            "GlobalKnownHostsFile": os.devnull,
        }
    else:
        options["UserKnownHostsFile"] = str(known_hosts())
        if addresses:
            options["HostKeyAlias"] = address.host if address.port == 22 else f"[{address.host}]:{address.port}"
    if addresses:
        options["HostName"] = addresses[0]
    if access.ssh_key is not None:
        _write_private(folder / "key", "\n".join(access.ssh_key.strip().splitlines()) + "\n")
        options["IdentityFile"] = str(folder / "key")
    user = address.user or access.username
    if user is not None:
        options["User"] = user
    return ["ssh", "-F", "none", *(f"-o{name}={value}" for name, value in options.items())]


def known_hosts() -> pathlib.Path:
    """Return the file of host keys that the user who runs the daemon trusts."""
    return pathlib.Path.home() / ".ssh" / "known_hosts"


async def _git(repository: Repository, arguments: list[str]) -> tuple[int, str]:
    """Run git to its end and return its status and what it complained about; cancelled, kill all of it."""
    # What git starts to write the pack inherits the bounds, which shells count in pieces of 512 bytes and in KiB.
    bounded = f'ulimit -f {PACK_BYTES_MAX // 512}; ulimit -d {MEMORY_BYTES_MAX // 1024}; exec git "$@"'
    try:
        async with asyncio.timeout(COMMAND_TIMEOUT_S):
            ended = await process.run(
                ["/bin/sh", "-c", bounded, "git", *arguments],
                folder=repository.path,
                mark=repository.path.parent.name,
                env=repository.environment,
                output_bytes_max=_SAID_BYTES_MAX,
            )
    except TimeoutError:
        raise FetchFailed(f"git did not finish within {COMMAND_TIMEOUT_S:g} s", passing=True) from None
    except host.Failed:
        raise FetchFailed(f"the server says more than {_SAID_BYTES_MAX // 1024**2} MiB beside the files") from None
    return ended.status, ended.stderr[-_STDERR_BYTES_MAX:].decode(errors="replace")


def _explained(said: str) -> FetchFailed:
    """Turn git's words into ours."""
    lines = [line.strip() for line in said.splitlines() if not _NOISE.match(line.strip())]
    words = "; ".join(lines[-3:]) or said.strip() or "git gave no reason"
    for pattern, plain in _MEANINGS:
        if pattern.search(said):
            words = plain
            break
    passing, absent, moved = (one.search(said) is not None for one in (_PASSING, _ABSENT, _MOVED))
    return FetchFailed(words, passing=passing, absent=absent, moved=moved)


_MEANINGS = (
    (re.compile("Host key verification failed"), "the server's host key is not the one that is expected"),
    (re.compile("Authentication failed"), "the server refused the username and password"),
    (re.compile("could not read Username|could not read Password"), "the server asks for a username and a password"),
    (re.compile("Permission denied \\("), "the server refused the key"),
    (re.compile("[Oo]ut of memory"), "the server says more than git has memory for"),
    (re.compile("File too large|died of signal 25"), f"there is more than {PACK_BYTES_MAX // 1024**2} MiB to fetch"),
)
