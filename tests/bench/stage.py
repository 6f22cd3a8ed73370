"""What the benchmarks stand on: how much is asked of them, a daemon with a few flows, and what its processes cost."""

from __future__ import annotations

import compileall
import contextlib
import dataclasses
import os
import urllib.parse
from collections.abc import Iterable, Iterator
from pathlib import Path

import headrace
from tests.support.daemons import Daemon
from tests.support.repositories import Repository

from . import http_load

_TICK_S = 1 / os.sysconf("SC_CLK_TCK")

WEBHOOK_SECRET = "only-for-the-benchmark"
_TRIVIAL = "def handler(system, this):\n    return {'answer': 42}\n"
_METADATA = "# /// script\n# [tool.headrace]\n# {}\n# ///\n"
_HOOK = _METADATA.format('webhook = {auth = "github", secret = "secret.env(BENCH_SECRET)"}') + _TRIVIAL
#: Webhooks for one round each: none takes more than so many at once.
ROUND_HOOKS = tuple(f"hook{number}" for number in range(10))

FLOWS = {
    "warm": _TRIVIAL,
    "fresh": _METADATA.format("reuse = false") + _TRIVIAL,
    "hook": _HOOK,
    **dict.fromkeys(ROUND_HOOKS, _HOOK),
    "freshhook": "# /// script\n# [tool.headrace]\n# reuse = false\n"
    '# webhook = {auth = "github", secret = "secret.env(BENCH_SECRET)"}\n# ///\n' + _TRIVIAL,
    "parallel": (
        "def handler(system, this, inputs):\n"
        "    children = [this.flow('warm', wait=False) for _ in range(inputs['children'])]\n"
        "    this.wait_for(*children)\n"
        "    return {'children': len(children)}\n"
    ),
    "sequential": (
        "def handler(system, this, inputs):\n"
        "    for _ in range(inputs['children']):\n"
        "        this.flow('warm')\n"
        "    return {'children': inputs['children']}\n"
    ),
    "sleeps": "def handler(system, this):\n    this.sleep(3600)\n",
    "long": (
        "def handler(system, this, inputs):\n"
        "    for n in range(inputs['calls']):\n"
        "        this.set_output('n', n)\n"
        "    this.sleep(inputs['seconds'])\n"
        "    return {'calls': inputs['calls']}\n"
    ),
}


@dataclasses.dataclass(frozen=True)
class Plan:
    """How much is measured, and in which folder (on the disk that is meant)."""

    directory: Path
    rounds: int
    share: float = 1.0
    executions: int = 100_000
    limits: dict[str, float] = dataclasses.field(default_factory=dict)  # what the machine takes, filled in first

    def count(self, number: int) -> int:
        """So many tries of the full ``number``."""
        return max(10, round(number * self.share))


def compile_package() -> None:
    """Have the bytecode of our modules on disk, as every installation has. A checkout whose environment forbids to
    write it compiles everything at each start, which tells of that environment."""
    top = Path(headrace.__file__).parent
    for path in (top, *(top / room for room in ("daemon", "engine", "sync", "tasks"))):
        compileall.compile_dir(path, maxlevels=0 if path == top else None, quiet=2)


@contextlib.contextmanager
def running(made: Daemon, *, wait: bool = True) -> Iterator[Daemon]:
    """Start a daemon, by default until it is ready, and be sure that it is gone at the end."""
    try:
        yield made.start(wait=wait)
    finally:
        try:
            made.stop()
        finally:
            made.kill()


@contextlib.contextmanager
def daemon(plan: Plan, name: str) -> Iterator[Daemon]:
    """A ready daemon whose flows come from a bare upstream."""
    with running(prepare(plan, name)) as made:
        yield made


def prepare(plan: Plan, name: str, *, others: int = 0) -> Daemon:
    """The same, not started; ``others`` are as many flows that nobody runs."""
    repository = Repository(plan.directory / name)
    for flow, text in FLOWS.items():
        repository.write(f"{flow}.py", text)
    for number in range(others):
        repository.write(f"others/{number}.py", _TRIVIAL)
    repository.push()
    made = Daemon(plan.directory / name / "state", repository.url)
    made.environment["BENCH_SECRET"] = WEBHOOK_SECRET
    return made


def port(of: Daemon) -> int:
    """Where it listens."""
    return urllib.parse.urlsplit(of.url).port or 0


def authorised(of: Daemon, method: str, path: str, body: bytes = b"") -> bytes:
    """A request of the API with the local client's token."""
    headers = {"Authorization": f"Bearer {of.token()}", "Content-Type": "application/json"}
    return http_load.request(method, f"/api/v1{path}", body, headers)


def page(of: Daemon, path: str) -> bytes:
    """A request for a page, as a browser asks, with the local client's token."""
    return http_load.request("GET", path, b"", {"Authorization": f"Bearer {of.token()}", "Accept": "text/html"})


def run_request(of: Daemon, flow: str, inputs: bytes = b"{}") -> bytes:
    """A request that runs ``flow`` and is answered when that has ended."""
    return authorised(of, "POST", f"/flows/{flow}/run?wait=30", b'{"inputs":%b}' % inputs)


def tree(root: int) -> list[int]:
    """The processes that ``root`` started, and theirs, itself first."""
    found = [root]
    for pid in found:
        with contextlib.suppress(OSError):
            for thread in Path(f"/proc/{pid}/task").iterdir():
                found += [int(word) for word in (thread / "children").read_text().split()]
    return found


def cpu_s(root: int) -> dict[str, float]:
    """Seconds of CPU so far: of the daemon itself, and of all it started, the dead that were collected included."""
    daemon_s, others_s = 0.0, 0.0
    for pid in tree(root):
        with contextlib.suppress(OSError):
            fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
            own, reaped = (int(fields[n]) + int(fields[n + 1]) for n in (11, 13))
            if pid == root:
                daemon_s += own * _TICK_S
                own = 0
            others_s += (own + reaped) * _TICK_S
    return {"daemon": daemon_s, "others": others_s}


def memory_mb(root: int) -> dict[str, float]:
    """Memory of the daemon and all it started: resident, and proportional (shared pages counted once)."""
    return processes_mb(tree(root))


def processes_mb(pids: Iterable[int]) -> dict[str, float]:
    """The same of these processes alone."""
    sums = {"Rss": 0.0, "Pss": 0.0}
    for pid in pids:
        with contextlib.suppress(OSError):  # it ended meanwhile
            for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
                name, _, rest = line.partition(":")
                if name in sums:
                    sums[name] += int(rest.split()[0]) / 1024
    return sums
