"""Programs on the daemon's own machine, for the task types that start some: bounded, and gone with the task.

A program runs in a session of its own, below a shell that waits for one thing: the end of a pipe the daemon holds. When
that closes (the task ended, or the daemon died, however) the shell kills the program's process group, itself included.
What leaves that group is found by a mark in its environment, unless it took that off too; not when the daemon died.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import pathlib
import signal
from collections.abc import Mapping, Sequence

import msgspec

from . import host

_PIECE_BYTES = 65536
#: How long output may lag behind the end, should somebody hold it open who took the mark off.
_LAG_S = 0.5
#: How often it is looked whether a program has ended.
_LOOK_S = 0.01
_MARK = "HEADRACE_TASK"
# Standard input is the pipe. The watcher waits with a builtin, so that killing it leaves no child behind.
_WATCHED = r"""
input=$1; shift
exec 3<&0
( read -r line <&3; kill -s KILL 0 ) >/dev/null 2>&1 </dev/null &
watcher=$!
"$@" <"$input" 3<&-
status=$?
kill $watcher 2>/dev/null
exit $status
"""


class Ended(msgspec.Struct, frozen=True):
    """How a program ended. ``status`` is 128 and the signal for one that was killed, as shells say it."""

    status: int
    stdout: bytes
    stderr: bytes


def environment(folder: pathlib.Path, more: Mapping[str, str]) -> dict[str, str]:
    """Return a small environment whose home is ``folder``."""
    return {
        "PATH": os.environ.get("PATH", os.defpath),
        "HOME": str(folder),
        "TMPDIR": str(folder),
        "LANG": "C.UTF-8",
        **more,
    }


async def run(
    argv: Sequence[str],
    *,
    folder: pathlib.Path,
    mark: str,
    env: Mapping[str, str],
    stdin: bytes = b"",
    output_bytes_max: int,
) -> Ended:
    """Run a program to its end; raises ``host.Failed`` when it writes more than it may to one of its outputs.

    After return, and cancelled, nothing of it runs."""
    with contextlib.ExitStack() as opened:
        given = os.memfd_create("stdin", os.MFD_CLOEXEC)
        opened.callback(os.close, given)
        with os.fdopen(os.dup(given), "wb") as stream:
            stream.write(stdin)
        reading, writing = os.pipe()
        opened.callback(os.close, writing)
        opened.callback(os.close, reading)
        creating = asyncio.create_task(
            asyncio.create_subprocess_exec(
                *("/bin/sh", "-c", _WATCHED, "headrace", f"/proc/self/fd/{given}", *argv),
                stdin=reading, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
                cwd=folder, env={**env, _MARK: mark}, pass_fds=(given,), start_new_session=True,
            ),
            name="a program is being started",
        )  # fmt: skip
        try:
            process = await asyncio.shield(creating)
        except asyncio.CancelledError:
            # Half started it could not be found again.
            await _gone(await creating, mark, ())
            raise
        return await _ended(process, mark, output_bytes_max)


async def _ended(process: asyncio.subprocess.Process, mark: str, limit: int) -> Ended:
    said, complained = _Output(limit), _Output(limit)
    readers = [
        asyncio.create_task(said.read(process.stdout), name="a program's output"),
        asyncio.create_task(complained.read(process.stderr), name="a program's complaints"),
    ]
    exited = asyncio.create_task(_exited(process), name="a program's end")
    try:
        while not exited.done() and not (said.too_much or complained.too_much):
            running = [one for one in (exited, *readers) if not one.done()]
            await asyncio.wait(running, return_when=asyncio.FIRST_COMPLETED)
    finally:
        exited.cancel()
        await asyncio.shield(asyncio.create_task(_gone(process, mark, readers), name="a program is being ended"))
    if said.too_much or complained.too_much:
        raise host.Failed(f"the program wrote more than {limit >> 20} MiB: it was killed; let it write to a file")
    status = process.returncode or 0
    return Ended(status if status >= 0 else 128 - status, bytes(said.kept), bytes(complained.kept))


async def _exited(process: asyncio.subprocess.Process) -> None:
    """Return when it has ended; ``process.wait`` also waits for whoever holds its outputs open."""
    while process.returncode is None:  # noqa: ASYNC110 - nobody tells
        await asyncio.sleep(_LOOK_S)


class _Output:
    def __init__(self, limit: int) -> None:
        self.kept = bytearray()
        self.too_much = False
        self._limit = limit

    async def read(self, stream: asyncio.StreamReader | None) -> None:
        assert stream is not None, "it is a pipe"
        while piece := await stream.read(_PIECE_BYTES):
            self.kept += piece
            if len(self.kept) > self._limit:
                self.too_much = True
                return


async def _gone(process: asyncio.subprocess.Process, mark: str, readers: Sequence[asyncio.Task[None]]) -> None:
    """Kill all of it, and take what is still in its outputs."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    await asyncio.to_thread(_end_marked, f"{_MARK}={mark}".encode())
    await _exited(process)
    if readers:
        await asyncio.wait(readers, timeout=_LAG_S)
    for one in readers:
        one.cancel()
    await asyncio.gather(*readers, return_exceptions=True)
    process._transport.close()  # type: ignore[attr-defined]  # it would stay while a stranger holds the outputs


def _end_marked(mark: bytes) -> None:
    """Kill what carries the mark, again and again until there is none: one may start another meanwhile."""
    for _ in range(100):
        found = False
        for entry in pathlib.Path("/proc").iterdir():
            if entry.name.isdigit():
                with contextlib.suppress(OSError):
                    if mark in (entry / "environ").read_bytes().split(b"\0"):
                        os.kill(int(entry.name), signal.SIGKILL)
                        found = True
        if not found:
            return
