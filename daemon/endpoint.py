"""Where a daemon listens, and one request to it: over TCP, TLS or a unix socket.

It owns what an answer that is not good becomes: ``Unreachable`` when nobody answers, ``Refused`` and its kinds when
the daemon says no, with its reason and its advice. No retries here, no routes; both are ``client``'s, its only caller.
Standard library alone, because the command line must start quickly.
"""

from __future__ import annotations

import abc
import contextlib
import dataclasses
import http.client
import json
import os
import socket
import urllib.parse
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from .. import __version__
from ..engine import errors
from . import written

JSON = dict[str, Any]
ANSWER_S = 30.0  # how long a plain answer may take

_SOCKET_PATH_MAX = 100  # of the kernel's 108 bytes
_PROBLEM_BYTES_MAX = 64 * 1024
_LOOPBACK = frozenset({"localhost", "127.0.0.1", "::1"})


class Unreachable(errors.HeadraceError):
    """No daemon answers there."""

    retryable = True
    exit_code = 69


class Interrupted(Unreachable):
    """The connection broke midway: the request may or may not have been heard."""


class Refused(errors.HeadraceError):
    """The daemon answered that it will not; ``status`` is HTTP's and ``type`` the problem's URI."""

    def __init__(self, status: int, problem: Mapping[str, Any]) -> None:
        detail = problem.get("detail") or problem.get("title") or http.client.responses.get(status, "")
        super().__init__(str(detail or f"HTTP status {status}"), hint=str(problem.get("hint") or ""))
        self.status = status
        self.type = str(problem.get("type") or "about:blank")
        self.detail = self.message
        self.diff = str(problem.get("diff") or "")


class NotFound(Refused, errors.NotFound):
    """What was asked for does not exist."""


class NotAllowed(Refused, errors.NotAllowed):
    """No credentials, wrong ones, or they do not allow this."""


class Invalid(Refused, errors.InvalidRequest):
    """The request breaks a rule that its sender can mend."""


class Conflict(Refused, errors.Conflict):
    """The request contradicts the present state."""


class Unavailable(Refused, errors.NotAccepting):
    """The daemon, or what stands before it, cannot do this now."""

    exit_code = 69


_REFUSALS: dict[int, type[Refused]] = {
    400: Invalid,
    401: NotAllowed,
    403: NotAllowed,
    404: NotFound,
    409: Conflict,
    412: Conflict,
    413: Invalid,
    422: Invalid,
    429: Unavailable,
}

_HEADERS = {"Accept": "application/json", "User-Agent": f"headrace/{__version__}"}


class ServerEvent(NamedTuple):
    """One event of a stream: its number as text (empty for none), its name, its data."""

    id: str
    event: str
    data: dict[str, Any]


class Asking(abc.ABC):
    """What the parts of a client have in common: they ask, and get JSON."""

    @abc.abstractmethod
    def _json(
        self,
        method: str,
        path: str,
        *,
        query: Sequence[tuple[str, str]] = (),
        body: JSON | None = None,
        headers: Any = None,
        timeout_s: float = ANSWER_S,
    ) -> JSON:
        """Ask for something and return the answer."""


@dataclasses.dataclass(frozen=True, slots=True)
class Endpoint:
    """Where a daemon listens. ``path`` is the socket for scheme ``unix``, else what stands before every path."""

    scheme: str
    host: str
    port: int
    path: str

    @classmethod
    def parse(cls, url: str) -> Endpoint:
        """Read ``http://host:port``, ``https://host/prefix`` or ``unix:///run/headrace/daemon.sock``."""
        with contextlib.suppress(ValueError):  # of urlsplit for brackets, of .port for numbers
            parts = urllib.parse.urlsplit(url)
            if parts.scheme == "unix" and parts.path:
                return cls("unix", "localhost", 0, urllib.parse.unquote(parts.path))
            if parts.scheme in ("http", "https") and parts.hostname:
                port = parts.port or (443 if parts.scheme == "https" else 80)
                return cls(parts.scheme, parts.hostname, port, parts.path.rstrip("/"))
        raise errors.InvalidRequest(
            f"{written.without_credentials(url)!r} is not the address of a daemon",
            hint="write http://HOST:PORT, https://HOST or unix:///PATH/daemon.sock",
        )

    def same_daemon(self, other: Endpoint) -> bool:
        """Whether both surely lead to the same daemon, so that the other's token may be sent here."""
        hosts = {self.host, other.host}
        return (self.scheme, self.port) == (other.scheme, other.port) and (len(hosts) == 1 or hosts <= _LOOPBACK)

    def __str__(self) -> str:
        if self.scheme == "unix":
            return f"unix://{self.path}"
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{self.scheme}://{host}:{self.port}{self.path}"

    @contextlib.contextmanager
    def ask(
        self,
        method: str,
        target: str,
        body: bytes | None = None,
        headers: Mapping[str, str] | None = None,
        timeout_s: float = ANSWER_S,
    ) -> Iterator[http.client.HTTPResponse]:
        """Yield a good answer, open for reading; everything else is raised."""
        with contextlib.closing(self._connection(timeout_s)) as connection:
            try:
                connection.connect()
            except OSError as error:
                raise self._unreachable(error) from error
            prefix = "" if self.scheme == "unix" else self.path
            try:
                connection.request(method, prefix + target, body, {**_HEADERS, **(headers or {})})
                with connection.getresponse() as response:
                    if response.status >= 300:
                        raise refusal(response.status, response.read(_PROBLEM_BYTES_MAX))
                    yield response
            except TimeoutError as error:
                raise Interrupted(f"{self} took longer than {timeout_s:g} s to answer") from error
            except (OSError, http.client.HTTPException) as error:
                raise Interrupted(f"{self} broke off midway: {error or type(error).__name__}") from error

    def _connection(self, timeout_s: float) -> http.client.HTTPConnection:
        if self.scheme == "unix":
            return _UnixConnection(self.path, timeout_s)
        kind = http.client.HTTPSConnection if self.scheme == "https" else http.client.HTTPConnection
        return kind(self.host, self.port, timeout=timeout_s)

    def _unreachable(self, error: OSError) -> Unreachable:
        hint = (
            "start one with `headrace up DIRECTORY`, or say where it is: "
            "--state DIR or --url URL (STATE_DIRECTORY, HEADRACE_URL)"
        )
        reason = error.strerror or str(error) or type(error).__name__
        return Unreachable(f"no daemon answers at {self}: {reason}", hint=hint)


class _UnixConnection(http.client.HTTPConnection):
    def __init__(self, path: str, timeout_s: float) -> None:
        super().__init__("localhost", timeout=timeout_s)
        self._path = path

    def connect(self) -> None:
        with contextlib.ExitStack() as stack:
            path = self._path
            if len(os.fsencode(path)) > _SOCKET_PATH_MAX:  # a deep state directory: reach it through its open folder
                folder = os.open(Path(path).parent, os.O_PATH | os.O_DIRECTORY)
                stack.callback(os.close, folder)
                path = f"/proc/self/fd/{folder}/{Path(path).name}"
            sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
            sock.settimeout(self.timeout)
            try:
                sock.connect(path)
            except OSError:
                sock.close()
                raise
            self.sock = sock


def parse_events(lines: Iterable[bytes]) -> Iterator[ServerEvent]:
    """Yield the complete events of a ``text/event-stream``; what a broken connection cut off is not an event."""
    id_ = name = ""
    data: list[str] = []
    for line in lines:
        text = line.decode()
        if not text.endswith("\n"):
            return
        field, _, value = text.rstrip("\r\n").partition(":")
        value = value.removeprefix(" ")
        if field == "data":
            data.append(value)
        elif field == "event":
            name = value
        elif field == "id":
            id_ = value
        elif not text.strip():
            if data:
                yield ServerEvent(id_, name or "message", json.loads("\n".join(data)))
            id_, name, data = "", "", []


def refusal(status: int, body: bytes) -> Refused:
    """Return what an answer that is not good is raised as."""
    try:
        problem = json.loads(body)
    except ValueError:
        problem = {}
    kind = _REFUSALS.get(status, Unavailable if status >= 500 else Refused)
    return kind(status, problem if isinstance(problem, dict) else {})
