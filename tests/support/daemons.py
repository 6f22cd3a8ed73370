"""A real daemon as a real process, for end-to-end tests: started, spoken to, killed and started again."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from headrace.daemon.client import Client

READY_S = 30


class Daemon:
    """One daemon on a state directory of its own. ``start`` waits until it takes requests."""

    def __init__(self, state: Path, source: str | Path, *options: str) -> None:
        self.state = state
        self.source = source
        self.options = options
        self.process: subprocess.Popen[bytes] | None = None
        self.log = state.parent / f"{state.name}.log"
        self.environment: dict[str, str] = {}
        self.descriptors: tuple[int, ...] = ()  # that it inherits
        self.program: tuple[str, ...] = ("-m", "headrace")

    def start(self, *wrapper: str, wait: bool = True) -> Daemon:
        """Start it, under ``wrapper`` (strace, say) if one is given."""
        command = [
            *wrapper,
            *(sys.executable, *self.program, "up", str(self.source)),
            *("--state", str(self.state), "--listen", "127.0.0.1:0", *self.options),
        ]
        environment = {**os.environ, "HEADRACE_LOG__FORMAT": "json", **self.environment}
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(command, stdout=log, stderr=log, env=environment, pass_fds=self.descriptors)
        if wait:
            self.until_ready()
        return self

    def until_ready(self) -> None:
        """Wait until a commit is published and requests are taken."""
        deadline = time.monotonic() + READY_S
        while time.monotonic() < deadline:
            assert self.process is not None
            if self.process.poll() is not None:
                raise AssertionError(
                    f"the daemon ended with {self.process.returncode}:\n{self.log.read_text()[-4000:]}"
                )
            try:
                if self.raw("GET", "/readyz")[0] == 200:
                    return
            except (OSError, KeyError, ValueError):
                pass
            time.sleep(0.02)
        raise AssertionError(f"not ready within {READY_S} s:\n{self.log.read_text()[-4000:]}")

    @property
    def client(self) -> Client:
        """A client over the unix socket."""
        return Client.find(state=str(self.state))

    @property
    def url(self) -> str:
        """Where it listens now; of this process, not of an earlier one."""
        lines = [json.loads(line) for line in self.log.read_text().splitlines() if line.startswith("{")]
        starts = [line for line in lines if line.get("event") == "daemon.ready"]
        if not starts or starts[-1].get("pid", self.pid) != self.pid:
            raise KeyError("not ready")
        return str(starts[-1]["url"])

    @property
    def pid(self) -> int:
        assert self.process is not None
        return self.process.pid

    def token(self) -> str:
        return str(json.loads((self.state / "client.json").read_text())["token"])

    def raw(
        self, method: str, path: str, body: Any = None, headers: dict[str, str] | None = None
    ) -> tuple[int, Any, dict[str, str]]:
        """Make one HTTP request over TCP without credentials; returns status, parsed body (or text), headers."""
        data = body if isinstance(body, bytes | None) else json.dumps(body).encode()
        request = urllib.request.Request(self.url + path, data=data, method=method, headers=headers or {})
        try:
            with urllib.request.urlopen(request, timeout=60) as answer:
                status, text, found = answer.status, answer.read(), dict(answer.headers)
        except urllib.error.HTTPError as error:
            with error:
                status, text, found = error.code, error.read(), dict(error.headers)
        try:
            return status, json.loads(text), found
        except ValueError:
            return status, text.decode(errors="replace"), found

    def notices(self) -> list[str]:
        """What people should see to, but for a disk of the machine that is nearly full: no test's doing."""
        return [one for one in self.raw("GET", "/readyz")[1]["notices"] if "free on the disk" not in one]

    @contextlib.contextmanager
    def writing(self, harm: str) -> Iterator[None]:
        """Harm what it writes to its journal, as strace(1) injects it: ``error=ENOSPC``, ``delay_enter=500ms``."""
        segment = max((self.state / "records").glob("*.jsonl"))
        words = ["-P", segment, "-e", "trace=write", "-e", f"inject=write:{harm}", "-p", str(self.pid)]
        strace = subprocess.Popen(["strace", "-f", "-q", "-o", os.devnull, *words])
        threads = Path(f"/proc/{self.pid}/task")
        try:
            until(
                lambda: not any("TracerPid:\t0" in (each / "status").read_text() for each in threads.iterdir()),
                "traced",
            )
            yield
        finally:
            strace.terminate()
            strace.wait()

    def run(self, flow: str, wait_s: float = 60, **inputs: Any) -> dict[str, Any]:
        """Run a flow and return its ended execution."""
        return self.client.wait(self.client.run(flow, inputs)["id"], wait_s)

    def lines(self) -> list[dict[str, Any]]:
        """All lines of the journal."""
        found = []
        for segment in sorted((self.state / "records").glob("*.jsonl")):
            found += [json.loads(line) for line in segment.read_bytes().splitlines()]
        return found

    def record(self, execution: str) -> list[dict[str, Any]]:
        """The journal's lines about one execution."""
        return [line for line in self.lines() if line.get("execution") == execution]

    def kill(self) -> None:
        """kill -9."""
        if self.process is not None:
            self.process.kill()
            self.process.wait()

    def stop(self, timeout_s: float = 40) -> int:
        """Ask it to stop and return its exit code."""
        assert self.process is not None
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        return self.process.wait(timeout_s)


def until(condition: Any, what: str, timeout_s: float = 20) -> Any:
    """Wait until ``condition()`` is true and return its value."""
    deadline = time.monotonic() + timeout_s
    while time.monotonic() < deadline:
        if found := condition():
            return found
        time.sleep(0.02)
    raise AssertionError(f"not within {timeout_s} s: {what}")


def processes_matching(text: str) -> list[int]:
    """The ids of processes whose command line holds ``text``, zombies left out."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                if text in (entry / "cmdline").read_bytes().decode(errors="replace").replace("\0", " "):
                    found.append(int(entry.name))
            except OSError:
                continue
    return found
