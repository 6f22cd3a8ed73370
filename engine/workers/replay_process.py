"""A single flow process for one replay, exec'd by whoever replays: no fork server, no daemon.

It is killed with its group when it is closed; it has nothing to leave behind.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
import sys
from pathlib import Path

from ..guest import fork_server, frames

_ENTRY = Path(frames.__file__).with_name("__main__.py")
#: What a terminal needs, for a debugger.
_TERMINAL = ("TERM", "COLUMNS", "LINES", "COLORTERM", "NO_COLOR")


class ReplayProcess:
    """The process and its channel."""

    def __init__(
        self, process: asyncio.subprocess.Process, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        self._process = process
        self._reader = reader
        self._writer = writer

    @classmethod
    async def start(
        cls, *, python: str = "", debugger: bool = False, effects: bool = False, quiet: bool = False
    ) -> ReplayProcess:
        """Start one, in the environment that ``python`` is the interpreter of.

        With a ``debugger`` it has this process's terminal; ``quiet``: its descriptors 1 and 2 lead nowhere.
        ``effects``: let it have effects of its own."""
        ours, theirs = socket.socketpair()
        words = [*(["debugger"] if debugger else []), *(["effects"] if effects else [])]
        environment = fork_server.environment(python) | {
            name: os.environ[name] for name in _TERMINAL if name in os.environ
        }
        nowhere = asyncio.subprocess.DEVNULL
        with theirs:
            process = await asyncio.create_subprocess_exec(
                *(python or sys.executable, "-P", str(_ENTRY), str(theirs.fileno()), "replay", *words),
                stdin=None if debugger else nowhere,
                stdout=nowhere if quiet else None,
                stderr=nowhere if quiet else None,
                pass_fds=[theirs.fileno()],
                env=environment,
                # A debugger reads the terminal, which it may only in its foreground group: the one it is started in.
                start_new_session=not debugger,
            )
        reader, writer = await asyncio.open_unix_connection(sock=ours)
        return cls(process, reader, writer)

    def send(self, frame: bytes) -> None:
        """Send a frame; nothing if it is gone, which ``receive`` tells."""
        with contextlib.suppress(OSError):
            self._writer.write(frame)

    async def receive(self) -> bytes:
        """Return the next frame it sent; raises ``EOFError`` when it is gone."""
        try:
            head = await self._reader.readexactly(frames.HEADER.size)
            (length,) = frames.HEADER.unpack(head)
            if length > frames.FRAME_BYTES_MAX:
                raise EOFError("the flow process broke the protocol")
            return await self._reader.readexactly(length)
        except (asyncio.IncompleteReadError, OSError):
            raise EOFError("the flow process is gone") from None

    async def close(self, grace_s: float = 0.0) -> None:
        """End it, by force after ``grace_s``, with what it started."""
        self._writer.close()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(grace_s):
                await self._process.wait()
        if self._process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL) if self._leads else self._process.kill()
            await self._process.wait()
        with contextlib.suppress(OSError):
            await self._writer.wait_closed()

    @property
    def _leads(self) -> bool:
        with contextlib.suppress(ProcessLookupError):
            return os.getpgid(self._process.pid) == self._process.pid
        return False
