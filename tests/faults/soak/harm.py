"""What goes wrong each minute of the soak. Every kind comes before one comes again."""

from __future__ import annotations

import contextlib
import os
import random
import shutil
import signal
import socket
import struct
import time
import urllib.parse
from collections.abc import Callable
from pathlib import Path

from tests.bench import stage
from tests.engine.records.test_faults import fill_disk
from tests.support.daemons import Daemon
from tests.support.repositories import Repository

_BROKEN = "def handler(system, this:\n"
_RESETS = 30


class Harm:
    """One for a soak; ``next`` does something bad and says what. Those of ``ENDING`` cost the daemon its life."""

    ENDING = ("kill_daemon", "restart_daemon")

    def __init__(self, daemon: Daemon, repository: Repository, disk: Path | None, chance: random.Random) -> None:
        self._daemon = daemon
        self._repository = repository
        self._disk = disk
        self._random = chance
        self._bag: list[str] = []
        self._kinds: dict[str, Callable[[], str]] = {
            "kill_flow": self._kill_flow,
            "kill_fork_server": self._kill_fork_server,
            "kill_daemon": self._kill_daemon,
            "restart_daemon": self._restart_daemon,
            "stop_flow": self._stop_flow,
            "stop_daemon": self._stop_daemon,
            "broken_commit": self._broken_commit,
            "resets": self._resets,
        }
        if disk is not None:
            self._kinds["full_disk"] = self._full_disk

    def next(self, *, ending: bool) -> str:
        """Do one; ``ending``: the daemon's life may be taken."""
        if not self._bag:
            self._bag = [kind for kind in self._kinds if ending or kind not in self.ENDING]
            self._random.shuffle(self._bag)
        kind = self._bag.pop()
        if kind in self.ENDING and not ending:
            return self.next(ending=ending)
        return f"{kind} {self._kinds[kind]()}".strip()

    def _fork_servers(self) -> list[int]:
        return [pid for pid in _children(self._daemon.pid) if "engine/guest" in _command(pid)]

    def _flows(self) -> list[int]:
        return [child for server in self._fork_servers() for child in _children(server)]

    def _kill_flow(self) -> str:
        if found := self._flows():
            with contextlib.suppress(ProcessLookupError):
                os.kill(self._random.choice(found), signal.SIGKILL)
        return f"of {len(found)}"

    def _kill_fork_server(self) -> str:
        for pid in (found := self._fork_servers()):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        return str(len(found))

    def _kill_daemon(self) -> str:
        self._daemon.kill()
        time.sleep(away := self._random.uniform(0, 3))
        self._daemon.start()
        return f"and it was away for {away:.1f} s"

    def _restart_daemon(self) -> str:
        code = self._daemon.stop(60)
        self._daemon.start()
        assert code == 0, f"the daemon was asked to stop and ended with {code}"
        return ""

    def _stop_flow(self) -> str:
        for pid in (found := self._flows()[:5]):
            _pause(pid, self._random.uniform(0.5, 2))
        return str(len(found))

    def _stop_daemon(self) -> str:
        _pause(self._daemon.pid, self._random.uniform(0.5, 5))
        return ""

    def _broken_commit(self) -> str:
        self._repository.write("version.py", _BROKEN)
        return self._repository.push()[:12]

    def _resets(self) -> str:
        address = urllib.parse.urlsplit(self._daemon.url)
        for number in range(_RESETS):
            with socket.create_connection((address.hostname, address.port), 5) as connection:
                connection.sendall(
                    b"POST /webhook/hook HTTP/1.1\r\nHost: x\r\nContent-Length: 90\r\n\r\n{"[: 20 + 3 * number]
                )
                connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))  # an RST
        return str(_RESETS)

    def _full_disk(self) -> str:
        assert self._disk is not None
        most, rest = self._disk / "most", self._disk / "rest"
        with most.open("wb") as file:
            room = shutil.disk_usage(self._disk).free - 2**20
            os.posix_fallocate(file.fileno(), 0, room)
        fill_disk(rest)
        time.sleep(seconds := self._random.uniform(1, 8))
        most.unlink()
        rest.unlink()
        return f"for {seconds:.1f} s"


def _pause(pid: int, seconds: float) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGSTOP)
        time.sleep(seconds)
        os.kill(pid, signal.SIGCONT)


def _children(pid: int) -> list[int]:
    return [one for one in stage.tree(pid)[1:] if _parent(one) == pid]


def _parent(pid: int) -> int:
    try:
        return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
    except OSError:
        return 0


def _command(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().decode(errors="replace").replace("\0", " ")
    except OSError:
        return ""
