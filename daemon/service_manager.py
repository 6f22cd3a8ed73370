"""The service manager that started the daemon: what it is told, and the sockets it may have opened for it.

systemd's two protocols, which others speak as well: a datagram says that the daemon is ready, what it is at and that it
is alive (``sd_notify``), and descriptors from 3 on are sockets that listen already (``LISTEN_FDS``): who connects while
the daemon is restarted waits instead of being refused. Without a manager everything here does nothing.

Being alive means that the event loop turns and that the journal's writer comes round: each ping waits for both. The
variables are taken out of the environment; what the daemon starts has no business with them.
"""

from __future__ import annotations

import asyncio
import os
import socket
import time
from collections.abc import Awaitable, Callable, Coroutine, MutableMapping
from typing import Any

import structlog

from ..engine import errors
from . import written

log = structlog.get_logger()

#: systemd hands descriptors over from here on.
FIRST_DESCRIPTOR = 3
#: While the daemon recovers it asks for so much time, again and again.
EXTENSION_S = 30.0
_EXTEND_S = 5.0
#: A ping comes at least so often, and three times within the watchdog's time.
PING_S = 3.0

#: Returns when the journal's writer has come round.
Pulse = Callable[[], Awaitable[None]]


class ServiceManager:
    """Made once, first of all, from the process's environment."""

    def __init__(self, environment: MutableMapping[str, str]) -> None:
        """Raises ``ConfigurationInvalid`` for a socket that cannot be used."""
        told = {name: environment.pop(name, "") for name in (*_NOTIFY, *_LISTEN)}
        self._address = told["NOTIFY_SOCKET"]
        self._ping_s = _period_s(told["WATCHDOG_USEC"]) if _is_own(told["WATCHDOG_PID"]) else 0.0
        self._task: asyncio.Task[None] | None = None
        count = told["LISTEN_FDS"] if _is_own(told["LISTEN_PID"]) else ""
        self.sockets = [_listening(FIRST_DESCRIPTOR + n) for n in range(int(count) if count.isdigit() else 0)]

    @property
    def address(self) -> str:
        """Where the sockets listen that it opened, as ``listen.address``: the most public one; empty without."""
        addresses = [written.Address(*one.getsockname()[:2]) for one in self.sockets]
        return str(min(addresses, key=lambda address: address.loopback)) if addresses else ""

    def begin(self) -> None:
        """The daemon recovers: ask for time until it is ready. Called on the event loop."""
        if self._address:
            self._go_on(self._hold())

    def ready(self, status: str, pulse: Pulse) -> None:
        """The daemon takes requests; ``pulse`` returns when the journal's writer has come round."""
        self._tell("READY=1", f"STATUS={status}")
        self._go_on(self._watch(pulse) if self._ping_s and self._address else None)

    def reloading(self) -> None:
        """The configuration is read anew; ``reloaded`` follows in any case."""
        self._tell("RELOADING=1", f"MONOTONIC_USEC={time.monotonic_ns() // 1000}", "STATUS=reads its configuration")

    def reloaded(self, status: str) -> None:
        """That is over, for good or ill: ``status`` says which."""
        self._tell("READY=1", f"STATUS={' '.join(status.split())}")

    def stopping(self, status: str) -> None:
        """The daemon was asked to stop; it goes on to be alive until ``close``."""
        self._tell("STOPPING=1", f"STATUS={status}")

    def close(self) -> None:
        """There is nothing more to tell."""
        self._go_on(None)

    def _go_on(self, work: Coroutine[Any, Any, None] | None) -> None:
        if self._task is not None:
            self._task.cancel()
        self._task = None if work is None else asyncio.get_running_loop().create_task(work, name="service manager")

    async def _hold(self) -> None:
        while True:
            self._tell(f"EXTEND_TIMEOUT_USEC={int(EXTENSION_S * 1e6)}", "STATUS=recovering what was recorded")
            await asyncio.sleep(_EXTEND_S)

    async def _watch(self, pulse: Pulse) -> None:
        while True:
            await pulse()
            self._tell("WATCHDOG=1")
            await asyncio.sleep(self._ping_s)

    def _tell(self, *lines: str) -> None:
        """Send it, if anybody listens. One that is lost is made up for by the next, or by the manager's patience."""
        if not self._address:
            return
        address = f"\0{self._address[1:]}" if self._address.startswith("@") else self._address
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK) as telling:
            try:
                telling.sendto("\n".join(lines).encode(), address)
            except OSError as error:
                log.warning("service_manager.deaf", reason=str(error), said=lines[0])


_NOTIFY = ("NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID")
_LISTEN = ("LISTEN_FDS", "LISTEN_PID", "LISTEN_FDNAMES")


def _is_own(pid: str) -> bool:
    """Return whether a variable is meant for this process and not for one that it was started by."""
    return not pid or pid == str(os.getpid())


def _period_s(watchdog_us: str) -> float:
    return min(PING_S, int(watchdog_us) / 1e6 / 3) if watchdog_us.isdigit() else 0.0


def _listening(descriptor: int) -> socket.socket:
    """Return the socket that was handed over; no process of a flow inherits it."""
    try:
        given = socket.socket(fileno=descriptor)
        good = given.family in (socket.AF_INET, socket.AF_INET6) and given.type == socket.SOCK_STREAM
        good = good and bool(given.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN))
    except OSError as error:
        raise errors.ConfigurationInvalid(f"descriptor {descriptor} is no socket: {error.strerror}") from error
    if not good:
        raise errors.ConfigurationInvalid(
            f"descriptor {descriptor} is not a TCP socket that listens", hint="see ListenStream= in the socket's unit"
        )
    given.set_inheritable(False)
    return given
