"""A nursery: one fork server as the daemon sees it, with the flow processes it made.

Owns: the fork server's process and control socket, and the requests that wait for it. Refuses: judging its death, which
``Processes`` does. A flow process may be spoken to before its fork server is started. When the fork server dies, the
kernel kills its flow processes; ``wait`` returns when that is known here.

Whoever needs a new process will soon need another: each time the next one is made as well, and waits, of no flow yet.
To fork takes as long as all else that a short execution does, and it need not be waited for.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import socket
import sys
from collections import deque
from collections.abc import Iterator
from pathlib import Path

import msgspec
import structlog

from .. import errors
from ..guest import cgroups, fork_server
from . import flow_process

log = structlog.get_logger()

_STOP_S = 10.0


class Nursery:
    """The fork server of one interpreter; ``python`` is empty for the daemon's own."""

    def __init__(self, python: str, limits: dict[str, int], numbers: Iterator[int], subtree: cgroups.Subtree) -> None:
        self.python = python
        self.idle_since: float | None = None  # kept by whoever looks after it
        self._limits = limits
        self._numbers = numbers
        self._subtree = subtree
        self._living: dict[int, flow_process.FlowProcess] = {}
        self._next: flow_process.FlowProcess | None = None
        self._unsent: deque[tuple[bytes, list[int]]] = deque()
        self._server: asyncio.subprocess.Process | None = None
        self._control: socket.socket | None = None

    @property
    def pid(self) -> int:
        """The fork server's, 0 while there is none."""
        return self._server.pid if self._server is not None and self._server.returncode is None else 0

    @property
    def count(self) -> int:
        """How many flow processes it has, idle ones included; without the next one, which may be leaving."""
        return len(self._living) - (self._next is not None and not self._next.exited.done())

    def spawn(self, now: float) -> flow_process.FlowProcess:
        """Return a new process that may be spoken to at once, and prepare the next; it is ``now``, monotonic.

        Raises ``NotAccepting`` when this host has no descriptors left."""
        process, self._next = self._next, None
        if process is None or not process.alive:
            process = self._make()
        with contextlib.suppress(errors.NotAccepting):
            self._next = self._make()
            self._next.idle_since = now
        return process

    def dismiss_next(self, before: float) -> None:
        """Let the next process leave if nobody needed one since ``before``, monotonic."""
        if self._next is not None and self._next.idle_since < before:
            self._next.dismiss()

    def _make(self) -> flow_process.FlowProcess:
        ends, descriptors = flow_process.make_ends()
        process = flow_process.FlowProcess(asyncio.get_running_loop(), ends)
        process.python = self.python
        number = next(self._numbers)
        self._living[number] = process
        self._unsent.append((f"{number} {self._subtree.cell(number)}".encode(), descriptors))
        self._send_requests()
        return process

    def _send_requests(self) -> None:
        """Hand waiting requests to the fork server; what does not fit now goes when it has read some."""
        while self._unsent and self._control is not None:
            message, descriptors = self._unsent[0]
            try:
                socket.send_fds(self._control, [message], descriptors)
            except BlockingIOError:
                asyncio.get_running_loop().add_writer(self._control.fileno(), self._send_requests)
                return
            except OSError:
                return  # the fork server died; the next one gets them
            self._unsent.popleft()
            for descriptor in descriptors:
                os.close(descriptor)
        if self._control is not None:
            asyncio.get_running_loop().remove_writer(self._control.fileno())

    async def start(self) -> None:
        """Start the fork server; raises ``OSError`` where its interpreter is not to be had."""
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        entry = Path(fork_server.__file__).with_name("__main__.py")
        try:
            self._server = await asyncio.create_subprocess_exec(
                self.python or sys.executable,
                "-P",
                str(entry),
                str(theirs.fileno()),
                json.dumps(self._limits),
                stdin=asyncio.subprocess.DEVNULL,
                pass_fds=[theirs.fileno()],
                env=fork_server.environment(self.python),
                start_new_session=True,
            )
        except OSError:
            ours.close()
            raise
        finally:
            theirs.close()
        ours.setblocking(False)
        self._control = ours
        asyncio.get_running_loop().add_reader(ours.fileno(), self._hear)
        self._send_requests()
        log.debug("fork_server.started", pid=self._server.pid, python=self.python or None)

    def _hear(self) -> None:
        """Take one message of the fork server."""
        assert self._control is not None
        try:
            message, descriptors, _flags, _address = socket.recv_fds(self._control, fork_server.MESSAGE_BYTES_MAX, 1)
        except BlockingIOError:
            return
        except OSError:
            message, descriptors = b"", []
        if not message:
            asyncio.get_running_loop().remove_reader(self._control.fileno())
            return
        news = msgspec.json.decode(message)
        if "spawned" in news:
            process = self._living.get(news["spawned"])
            if process is None:
                os.close(descriptors[0])
            else:
                process.spawned(news["pid"], descriptors[0])
            return
        process = self._living.pop(news["exited"], None)
        if process is not None:
            process.gone(news["status"], news.get("memory", ""))
        if news["orphans"]:
            log.info("orphans.killed", count=news["orphans"])

    async def wait(self) -> int:
        """Return the fork server's exit status when it is dead. What it had made is gone then; what it was not asked
        for yet waits for the next one."""
        assert self._server is not None
        status = await self._server.wait()
        self._lose_control()
        waiting = len(self._unsent)
        unborn = list(self._living)[len(self._living) - waiting :] if waiting else []
        lost = [number for number in self._living if number not in unborn]
        await asyncio.to_thread(cgroups.clear, map(self._subtree.cell, lost))
        for number in lost:
            self._living.pop(number).gone(signal.SIGKILL)
        return status

    def give_up(self) -> None:
        """There will be no next one: tell those who wait for a process of it."""
        while self._unsent:
            for descriptor in self._unsent.popleft()[1]:
                os.close(descriptor)
        while self._living:
            self._living.popitem()[1].gone(-1)

    def dismiss(self) -> None:
        """Let the fork server leave by itself; it kills what it made."""
        self._lose_control()

    async def stop(self) -> None:
        """End the fork server with every flow process and all they started."""
        self._lose_control()
        if self._server is None:
            return
        with contextlib.suppress(ProcessLookupError):
            try:
                async with asyncio.timeout(_STOP_S):
                    await self._server.wait()
            except TimeoutError:
                self._server.kill()
        await self.wait()

    def _lose_control(self) -> None:
        if self._control is not None:
            loop = asyncio.get_running_loop()
            loop.remove_reader(self._control.fileno())
            loop.remove_writer(self._control.fileno())
            self._control.close()
            self._control = None
