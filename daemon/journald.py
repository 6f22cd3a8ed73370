"""systemd's journal, spoken to natively: each line of the log is an entry with fields of its own.

    journalctl HEADRACE_EXECUTION=01m856bcmrxcws5vz77mpfshm4

The protocol (systemd.io/JOURNAL_NATIVE_PROTOCOL): a datagram with ``NAME=value`` lines, or, for a value of several
lines, its name alone, its length as 64 bits, and itself; what is too large for a datagram is a sealed memory file whose
descriptor is sent. While nobody listens the line goes to stderr, which is the same journal under systemd. Called by
``logs``, which has masked what is secret.
"""

from __future__ import annotations

import array
import contextlib
import errno
import fcntl
import json
import logging
import os
import re
import socket
import struct
from collections.abc import Iterator, Mapping
from typing import Any, TextIO

import structlog

SOCKET = "/run/systemd/journal/socket"
#: A journal that is busy for longer is not waited for.
_PATIENCE_S = 1.0
#: syslog's severities.
_PRIORITIES = {"debug": 7, "info": 6, "warning": 4, "error": 3, "critical": 2}
_CODE = {"pathname": "CODE_FILE", "lineno": "CODE_LINE", "func_name": "CODE_FUNC"}
_NAME_CHARACTERS_MAX = 64
_NOT_IN_NAMES = re.compile(r"[^A-Z0-9_]")
_SEALS = fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_WRITE | fcntl.F_SEAL_SEAL

#: Says where in the code a line was written.
WHERE = structlog.processors.CallsiteParameterAdder(
    [
        structlog.processors.CallsiteParameter.PATHNAME,
        structlog.processors.CallsiteParameter.LINENO,
        structlog.processors.CallsiteParameter.FUNC_NAME,
    ],
    additional_ignores=["headrace.daemon.logs", "headrace.daemon.journald"],
)


def is_behind(stream: TextIO, environ: Mapping[str, str]) -> bool:
    """Return whether what is written to ``stream`` goes to the journal: systemd names its device and inode."""
    with contextlib.suppress(OSError, ValueError):
        found = os.fstat(stream.fileno())
        return environ.get("JOURNAL_STREAM", "") == f"{found.st_dev}:{found.st_ino}"
    return False


def entry(line: str) -> bytes:
    """Return a line of JSON as the journal takes it."""
    return b"".join(_encoded(name, value) for name, value in _fields(json.loads(line)))


def _fields(event: dict[str, Any]) -> Iterator[tuple[str, str]]:
    event.pop("at", None)  # the journal notes the time itself
    name, trace = str(event.pop("event", "")), event.pop("exception", "")
    yield "PRIORITY", str(_PRIORITIES.get(event.pop("level", ""), 6))
    yield "SYSLOG_IDENTIFIER", "headrace"
    yield "HEADRACE_EVENT", name
    for ours, theirs in _CODE.items():
        if ours in event:
            yield theirs, str(event.pop(ours))
    told = {key: _text(value) for key, value in event.items() if value is not None}
    for key, value in told.items():
        yield f"HEADRACE_{_NOT_IN_NAMES.sub('_', key.upper())}"[:_NAME_CHARACTERS_MAX], value
    words = [name, *(f"{key}={value}" for key, value in told.items())]
    yield "MESSAGE", " ".join(words) + (f"\n{trace}" if trace else "")


def _text(value: object) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _encoded(name: str, value: str) -> bytes:
    data = value.encode(errors="backslashreplace")
    if b"\n" not in data:
        return b"%s=%s\n" % (name.encode(), data)
    return b"%s\n%s%s\n" % (name.encode(), struct.pack("<Q", len(data)), data)


class Channel:
    """Takes lines of JSON, as structlog's logger does. ``fallback`` gets those that the journal does not take."""

    def __init__(self, fallback: TextIO, path: str = "") -> None:
        self._path = path or SOCKET
        self._fallback = fallback
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.settimeout(_PATIENCE_S)

    def send(self, line: str) -> None:
        """Hand one over."""
        try:
            self._send(entry(line))
        except OSError:  # it is restarted, or full: what was to be said must not be lost for that
            with contextlib.suppress(OSError):
                self._fallback.write(line + "\n")
                self._fallback.flush()

    def close(self) -> None:
        """Nothing more is said here; what is all the same goes to the fallback."""
        self._socket.close()

    debug = info = warning = error = critical = exception = msg = send

    def _send(self, datagram: bytes) -> None:
        try:
            self._socket.sendto(datagram, self._path)
        except OSError as error:
            if error.errno not in (errno.EMSGSIZE, errno.ENOBUFS):
                raise
            self._send_file(datagram)

    def _send_file(self, content: bytes) -> None:
        descriptor = os.memfd_create("headrace-log", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
        try:
            with open(descriptor, "wb", closefd=False) as file:
                file.write(content)
            fcntl.fcntl(descriptor, fcntl.F_ADD_SEALS, _SEALS)
            passed = (socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [descriptor]).tobytes())
            self._socket.sendmsg([], [passed], 0, self._path)
        finally:
            os.close(descriptor)


class Handler(logging.Handler):
    """What libraries log takes the same way; its formatter makes lines of JSON."""

    def __init__(self, channel: Channel) -> None:
        super().__init__()
        self._channel = channel

    def emit(self, record: logging.LogRecord) -> None:
        """Hand it over."""
        self._channel.send(self.format(record))

    def close(self) -> None:
        """The log goes elsewhere from now on."""
        self._channel.close()
        super().close()
