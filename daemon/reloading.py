"""The configuration, read anew while the daemon runs: taken or refused whole.

It is found as at the start: the same places, the same command line and environment. What is wrong with any of it leaves
everything as it is. Of what is good, those settings count at once that say so (``config.Row.live``), and files with
certificates and secrets are read again; the others are named, and count after a restart. Each part of the daemon that
can follow is a taker: it makes ready what could fail, and returns what cannot, which is called when all are ready.

SIGHUP asks for it, and the API.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable

import structlog

from ..engine import errors, moments
from . import config, service_manager, shapes

log = structlog.get_logger()

#: Makes ready for the settings, which may raise ``ConfigurationInvalid``, ``OSError`` or ``ValueError``; returns what
#: makes them count.
Taker = Callable[[config.Configuration], Callable[[], None]]


class Reloading:
    """``settings`` are those in force; ``takers`` follow them."""

    def __init__(
        self,
        settings: config.Configuration,
        read: Callable[[], config.Configuration],
        manager: service_manager.ServiceManager,
    ) -> None:
        self.settings = settings
        self.takers: list[Taker] = []
        self.last: shapes.Reload | None = None
        self.status = ""  # what the service manager is told of a daemon that is as it should be
        self._read = read
        self._manager = manager
        self._turn = asyncio.Lock()

    @property
    def notices(self) -> list[str]:
        """What somebody should see to, in words."""
        return [self.last.notice] if self.last is not None and self.last.notice else []

    async def run(self, asked: asyncio.Event) -> None:
        """Do it whenever ``asked`` is set, until cancelled."""
        while True:
            await asked.wait()
            asked.clear()
            with contextlib.suppress(errors.ConfigurationInvalid):  # it stands in the log and in ``last``
                await self.reload("SIGHUP")

    async def reload(self, by: str) -> shapes.Reload:
        """Take the configuration as it is now; raises ``ConfigurationInvalid``, and then nothing has changed."""
        async with self._turn:
            self._manager.reloading()
            told = {"at": moments.timestamp(time.time()), "by": by}
            try:
                wanted = await asyncio.to_thread(self._read)
                taken, changed, restart = self.settings.taking(wanted)
                ready = [take(taken) for take in self.takers]
            except errors.ConfigurationInvalid as error:
                raise self._refused(error, told) from None
            except (OSError, ValueError) as error:
                raise self._refused(errors.ConfigurationInvalid(str(error)), told) from error
            else:
                for count in ready:
                    count()
                self.settings = taken
                self.last = shapes.Reload(**told, result="taken", changed=changed, restart=restart)
                log.info("configuration.taken", by=by, changed=changed, restart=restart)
                return self.last
            finally:
                self._manager.reloaded("; ".join([self.status, *self.notices]))

    def _refused(self, error: errors.ConfigurationInvalid, told: dict[str, str]) -> errors.ConfigurationInvalid:
        self.last = shapes.Reload(at=told["at"], by=told["by"], result="refused", problem=error.message)
        log.error("configuration.refused", by=told["by"], reason=error.message, hint=error.hint or None)
        return error
