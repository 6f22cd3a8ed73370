"""The driver of a Ray cluster as the daemon sees it: a process that is started again whenever it is gone.

Owns: that process and the lines between the two (``ray_driver`` tells which); whether the cluster is reached, in words
if it is not. Refuses: knowing what the lines are about, which ``cluster`` does.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
import sys
import tempfile
from collections.abc import Awaitable, Callable
from typing import Any, BinaryIO

import msgspec
import structlog

log = structlog.get_logger()

_AGAIN_S, _AGAIN_MAX_S = 0.5, 15.0
_LINE_BYTES_MAX = 16 * 1024 * 1024
_SILENT_S = 30.0
_ASK_EVERY_S = 2.0

Line = dict[str, Any]


class Driver:
    """Keeps one alive; ``hear`` gets its lines, the first of each life being that it is ready."""

    def __init__(self, address: str, hear: Callable[[Line], Awaitable[None]]) -> None:
        self.reason = f"the Ray cluster ({address}) has not been reached yet"
        self._address = address
        self._hear = hear
        self._process: asyncio.subprocess.Process | None = None
        self._writer: asyncio.StreamWriter | None = None
        self._heard_at = 0.0

    @property
    def is_ready(self) -> bool:
        """Whether it takes what it is told."""
        return self._writer is not None

    def tell(self, line: Line) -> None:
        """Tell it something; nothing while there is none, whose next life has to be told."""
        if self._writer is not None:
            self._writer.write(json.dumps(line).encode() + b"\n")

    async def run(self) -> None:
        """Keep it alive until this is cancelled."""
        tries = 0
        try:
            while True:
                reached = await self._live()
                tries = 0 if reached else tries + 1
                log.warning("cluster.lost", address=self._address, reason=self.reason)
                await asyncio.sleep(min(_AGAIN_MAX_S, _AGAIN_S * 2 ** min(tries, 10)))
        finally:
            await self._end()

    async def _live(self) -> bool:
        """See one through its life; whether it ever reached the cluster."""
        ours, theirs = socket.socketpair()
        with theirs, tempfile.TemporaryFile() as said:
            words = ["-P", "-m", f"{__package__}.ray_driver", str(theirs.fileno()), self._address]
            self._process = await asyncio.create_subprocess_exec(
                sys.executable,
                *words,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=asyncio.subprocess.DEVNULL,
                stderr=said,
                pass_fds=[theirs.fileno()],
            )
            theirs.close()
            reader, writer = await asyncio.open_unix_connection(sock=ours, limit=_LINE_BYTES_MAX)
            asking: asyncio.Task[None] | None = None
            failed = ""
            try:
                while line := await reader.readline():
                    told: Line = msgspec.json.decode(line, type=dict[str, Any])
                    if "failed" in told:
                        failed = f"the Ray cluster ({self._address}) cannot be reached: {told['failed']}"
                        continue
                    if "ready" in told:
                        self._writer = writer
                        asking = asyncio.create_task(self._ask())
                    self._heard_at = asyncio.get_running_loop().time()
                    self.reason = ""
                    await self._hear(told)
            except (OSError, ValueError) as error:  # msgspec's errors are values too
                failed = f"the driver of the Ray cluster ({self._address}) broke off: {error}"
            finally:
                self._writer = None
                if asking is not None:
                    asking.cancel()
                writer.close()
                await self._end()
            self.reason = failed or f"the Ray cluster ({self._address}) was lost{_last_line(said)}"
        return asking is not None

    async def _ask(self) -> None:
        """Ask about the nodes now and then, which shows whether the cluster answers."""
        while True:
            self.tell({"nodes": True})
            await asyncio.sleep(_ASK_EVERY_S)
            if asyncio.get_running_loop().time() - self._heard_at > _SILENT_S:
                self.reason = f"the Ray cluster ({self._address}) does not answer"

    async def _end(self) -> None:
        process, self._process = self._process, None
        if process is not None:
            with contextlib.suppress(ProcessLookupError):
                process.kill()
            await process.wait()


def _last_line(said: BinaryIO) -> str:
    """Return what a driver wrote last, for people."""
    said.seek(0)
    lines = [line for line in said.read()[-4000:].decode(errors="replace").splitlines() if line.strip()]
    return f": {lines[-1].strip()[:300]}" if lines else ""
