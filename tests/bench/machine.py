"""What this machine can do at best, measured in the same run: the limits that stand beside our figures."""

from __future__ import annotations

import asyncio
import os
import socket
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import uvloop

from headrace.daemon import app
from headrace.engine.workers import processes

from . import http_load
from .results import Row
from .stage import Plan

_FORKS_AT_ONCE = 8
_IDLE_GOVERNOR = Path("/sys/devices/system/cpu/cpuidle/current_governor")
_IDLE_POLL = Path("/sys/module/haltpoll/parameters/guest_halt_poll_ns")

#: Keys of ``Plan.limits``.
FDATASYNC, ROUND_TRIP, FORK, FORKS, POST, POSTS = "fdatasync", "round trip", "fork", "forks", "POST", "POSTs"


def measure(plan: Plan) -> Iterator[Row]:
    """Yield the limits, and leave them in the plan for the rows of others."""
    for key, row in _rows(plan):
        plan.limits[key] = row.figure
        yield row


def _rows(plan: Plan) -> Iterator[tuple[str, Row]]:
    tries = plan.count(300)
    rounds = [_median_ms(tries, _fdatasync(plan.directory / f"bare{n}")) for n in range(plan.rounds)]
    polls = {"an idle CPU polls for ms": idle_poll_ms()}
    yield FDATASYNC, Row("limit: write 200 bytes and fdatasync", "ms", rounds, tries * len(rounds), also=polls)
    tries = plan.count(2_000)
    rounds = [_socket_round_trip(tries) for _ in range(plan.rounds)]
    yield ROUND_TRIP, Row("limit: round trip to a process over a socket pair", "ms", rounds, tries * len(rounds))
    tries = plan.count(100)
    forks = [uvloop.run(_fork_and_exit(tries)) for _ in range(plan.rounds)]
    name = "limit: the fork server forks, the child exits"
    yield FORK, Row(name, "ms", [one for one, _ in forks], tries * len(forks))
    name += f", {_FORKS_AT_ONCE} at once"
    yield FORKS, Row(name, "/s", [many for _, many in forks], tries * len(forks), more_is_better=True)
    alone, many = _bare_aiohttp(plan)
    yield POST, Row("limit: POST to a bare aiohttp, 1 caller", "ms", alone, plan.count(1_000) * len(alone))
    name = "limit: POST to a bare aiohttp, 32 callers"
    yield POSTS, Row(name, "/s", many, plan.count(10_000) * len(many), more_is_better=True)


def idle_poll_ms() -> float:
    """Return how long a CPU of this virtual machine looks for something to do before it is given back to the host, from
    which every disk and every partner has to get it back; 0 where Linux does not say, or does not do what it would."""
    try:
        return int(_IDLE_POLL.read_text()) / 1e6 if _IDLE_GOVERNOR.read_text().strip() == "haltpoll" else 0.0
    except OSError:
        return 0.0


def _median_ms(tries: int, action: Callable[[], object]) -> float:
    samples = []
    for _ in range(tries):
        began = time.perf_counter()
        action()
        samples.append(time.perf_counter() - began)
    return 1000 * statistics.median(samples)


def _fdatasync(path: Path) -> Callable[[], None]:
    descriptor = os.open(path, os.O_CREAT | os.O_WRONLY | os.O_APPEND)

    def write() -> None:
        os.write(descriptor, b"x" * 200)
        os.fdatasync(descriptor)

    return write


def _socket_round_trip(tries: int) -> float:
    ours, theirs = socket.socketpair()
    child = os.fork()
    if child == 0:
        ours.close()
        while chunk := theirs.recv(100):
            theirs.send(chunk)
        os._exit(0)
    theirs.close()

    def ask() -> None:
        ours.send(b"x" * 100)
        ours.recv(100)

    try:
        return _median_ms(tries, ask)
    finally:
        ours.close()
        os.waitpid(child, 0)


async def _fork_and_exit(tries: int) -> tuple[float, float]:
    """Return milliseconds for one, and how many a second when several are asked for together."""
    pool = processes.Processes(app.SystemClock(), idle_max=0)
    await pool.start()

    async def one() -> float:
        began = time.perf_counter()
        process = pool.take(("flow", "commit"), fresh=True)
        process.dismiss()
        await process.exited
        return time.perf_counter() - began

    try:
        samples = [await one() for _ in range(tries)]
        began = time.perf_counter()
        for _ in range(0, tries, _FORKS_AT_ONCE):
            await asyncio.gather(*(one() for _ in range(_FORKS_AT_ONCE)))
        elapsed = time.perf_counter() - began
    finally:
        await pool.stop()
    return 1000 * statistics.median(samples), -(-tries // _FORKS_AT_ONCE) * _FORKS_AT_ONCE / elapsed


def _bare_aiohttp(plan: Plan) -> tuple[list[float], list[float]]:
    server = subprocess.Popen([sys.executable, "-m", "tests.bench.bare_server"], stdout=subprocess.PIPE, text=True)
    try:
        assert server.stdout is not None
        port = int(server.stdout.readline())
        text = http_load.request("POST", "/", b'{"inputs": {}}', {"Content-Type": "application/json"})
        http_load.generate(port, text, requests=200)
        alone, many = [], []
        for _ in range(plan.rounds):
            alone.append(http_load.generate(port, text, requests=plan.count(1_000)).percentile_ms(50))
            many.append(http_load.generate(port, text, requests=plan.count(10_000), callers=32).per_s)
        return alone, many
    finally:
        server.terminate()
        server.wait()
        if server.stdout is not None:
            server.stdout.close()
