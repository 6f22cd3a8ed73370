"""What the trials ask of every peer, and the processes that a peer consists of.

A peer listens on one port of loopback and takes four requests: run something trivial and answer when it is done, run a
parent with so many children, start something that waits, and start something that writes ``began N`` into the ledger,
waits, and writes ``ended N``. An adapter says how its peer is started and what these requests look like to it.
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Mapping
from pathlib import Path

from tests.bench import http_load, stage

APPS = Path(__file__).parent / "apps"
_READY_S = 180.0


class Failed(Exception):
    """A peer did not do what was asked of it; says what it said last."""


@dataclasses.dataclass(frozen=True)
class Ask:
    """A request, and what its good answer looks like."""

    text: bytes
    expected: str = ""
    good: int = 200


@dataclasses.dataclass(frozen=True)
class Amount:
    """How much is asked of a peer; less of slow ones, so that a run ends."""

    latency: int = 200
    many: int = 1_000
    parents: int = 5
    rounds: int = 3
    waiting: int = 1_000
    kills: int = 2

    def tenth(self) -> Amount:
        """For a quick look: one round of a tenth, but as many that wait."""
        fewer = {name: max(1, getattr(self, name) // 10) for name in ("latency", "many", "parents")}
        return dataclasses.replace(self, **fewer, rounds=1, kills=1)


class Peer:
    """One peer with a state of its own below ``folder``; subclasses are the adapters."""

    name = ""
    version = ""
    settings = ""  # how it is set up, a phrase for the page
    done = ""  # what is true when its answer comes, and how it comes
    waits = ""  # what waits, for the page
    amount = Amount()
    sleep_s = 8.0  # how long those wait that are killed in mid-wait
    settle_s = 20.0  # how long after their time and the restart everything is given
    rest_s = 5.0  # how long those that wait are left alone before memory is looked at

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.port = 0
        self.processes: list[subprocess.Popen[bytes]] = []

    @classmethod
    def install(cls) -> None:
        """Have its programs, and say in ``version`` which; raises ``installing.Missing``."""

    def start(self) -> None:
        """Start all its processes; nobody waits until they are ready."""
        raise NotImplementedError

    def trivial(self) -> Ask:
        """Run something trivial."""
        return self.asking("/trivial", expected="DONE")

    def children(self, count: int) -> Ask:
        """Run a parent with so many children."""
        return self.asking(f"/children?count={count}", expected="DONE")

    def wait(self, seconds: int) -> Ask:
        """Start something that waits."""
        return self.asking(f"/wait?seconds={seconds}", expected="ACCEPTED")

    def begin(self, seconds: int) -> Ask:
        """Start something that writes into the ledger, waits, and writes again; its number stands in the request."""
        return self.asking(f"/begin?number={http_load.NUMBER.decode()}&seconds={seconds}", expected="ACCEPTED")

    def unfinished(self) -> str:
        """Say what became of those that did not finish, as the peer has it, for the page; asked after their time."""
        return ""

    def asking(self, path: str, body: bytes = b"", *, expected: str = "", good: int = 200) -> Ask:
        """A POST to its port."""
        return Ask(http_load.request("POST", path, body, {"Content-Type": "application/json"}), expected, good)

    @property
    def ledger(self) -> Path:
        """Where side effects show."""
        return self.folder / "ledger"

    def spawn(
        self, words: list[str | Path], environment: Mapping[str, str] | None = None, *, user: str | None = None
    ) -> subprocess.Popen[bytes]:
        """Start one of its processes; what it says goes into a log in its folder."""
        own = {"PORT": str(self.port), "LEDGER": str(self.ledger), "PYTHONUNBUFFERED": "1", **(environment or {})}
        with (self.folder / "log").open("ab") as log:
            process = subprocess.Popen(
                [str(word) for word in words], stdin=subprocess.DEVNULL, stdout=log, stderr=log, cwd=self.folder,
                env={**os.environ, **own}, start_new_session=True, user=user,
            )  # fmt: skip
        self.processes.append(process)
        return process

    def until(self, condition: Callable[[], bool], what: str, timeout_s: float = _READY_S) -> None:
        """Wait until ``condition()``, as long as all its processes live."""
        deadline = time.monotonic() + timeout_s
        while not condition():
            dead = [process for process in self.processes if process.poll() is not None]
            if dead or time.monotonic() > deadline:
                how = f"a process ended with {dead[0].returncode}" if dead else f"not within {timeout_s:.0f} s"
                raise Failed(f"{what}: {how}; it said: {self.said()}")
            time.sleep(0.01)

    def said(self) -> str:
        """The end of its log, for a failure."""
        path = self.folder / "log"
        return path.read_text(errors="replace")[-2000:] if path.exists() else "nothing"

    def until_first_done(self) -> None:
        """Wait until something trivial is done."""
        self.until(lambda: answered(self.port, self.trivial()), "the first execution")

    @property
    def roots(self) -> list[int]:
        """The processes it consists of, without those that they started."""
        return [process.pid for process in self.processes if process.poll() is None]

    @property
    def pids(self) -> list[int]:
        """All its processes, and what they started."""
        return [pid for root in self.roots for pid in stage.tree(root)]

    def kill(self) -> None:
        """kill -9 of all of it at once."""
        for pid in self.pids:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        for process in self.processes:
            process.kill()
            process.wait()
        self.processes.clear()

    def stop(self) -> None:
        """Ask all of it to stop, in the opposite order; kill what does not."""
        for process in reversed(self.processes):
            process.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(10)
        self.kill()


def answered(port: int, ask: Ask) -> bool:
    """Whether one request is answered well."""
    try:
        with socket.create_connection(("127.0.0.1", port), 1) as connection:
            connection.settimeout(60)
            connection.sendall(ask.text.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n", 1))
            answer = b"".join(iter(lambda: connection.recv(65536), b""))
    except OSError:
        return False
    return answer[9:12] == str(ask.good).encode() and ask.expected.encode() in answer


def listening(port: int) -> Callable[[], bool]:
    """Whether somebody listens there."""

    def tried() -> bool:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
            return True
        return False

    return tried


def free_port() -> int:
    """A port nobody has."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        return int(free.getsockname()[1])


def version_of(python: Path, package: str) -> str:
    """Which version of a package a virtual environment has."""
    code = f"import importlib.metadata; print(importlib.metadata.version({package!r}))"
    return subprocess.run([python, "-c", code], capture_output=True, text=True, check=True).stdout.strip()
