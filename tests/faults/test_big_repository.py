"""A repository with a long, heavy history: what syncing it takes of memory and disk.

``HEADRACE_BIG_MB`` is the size of the history. The figures of time are printed, none is asserted.
"""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.faults.conftest import Suite
from tests.support.repositories import FLOW, Repository, git

pytestmark = pytest.mark.timeout(7200)

MEGABYTES = int(os.environ.get("HEADRACE_BIG_MB", "400"))
FILES = 15_000
ROOT = Path(__file__).parents[2]

_PASS = """
import asyncio, json, pathlib, resource, sys
import msgspec
from headrace.engine import events
from tests.sync.conftest import Daemon

async def main():
    state, url, known = sys.argv[1:]
    daemon = Daemon(pathlib.Path(state))
    daemon.events = msgspec.json.decode(known, type=list[events.CommitPublished])
    status = await daemon.synced(await daemon.started(url))
    who = {"daemon": resource.RUSAGE_SELF, "git": resource.RUSAGE_CHILDREN}
    rss = {name: resource.getrusage(one).ru_maxrss // 1024 for name, one in who.items()}
    known = msgspec.json.encode(daemon.published).decode()
    print(json.dumps({"rss": rss, "state": status.state, "error": status.error, "known": known}))

asyncio.run(main())
"""


def synced(state: Path, url: str, known: str) -> dict:
    """Make one pass in a process of its own and return how it went, with the most memory of it and its gits in MiB."""
    began = time.monotonic()
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    words = [sys.executable, "-c", _PASS, str(state), url, known]
    done = subprocess.run(words, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=1800, check=True)
    return {**json.loads(done.stdout.splitlines()[-1]), "seconds": round(time.monotonic() - began, 1)}


def size_mb(folder: Path) -> int:
    return sum(path.stat().st_blocks * 512 for path in folder.rglob("*") if path.is_file()) >> 20


def heavy(repository: Repository) -> None:
    """Import a history of noise, whose newest commit holds 15,000 flows and one file of 200 MB."""
    chance = random.Random(1)
    words = ["git", "fast-import", "--quiet", "--depth=0"]
    with subprocess.Popen(words, cwd=repository.upstream, stdin=subprocess.PIPE) as importer:
        assert importer.stdin is not None
        for number in range(max(1, MEGABYTES // 8)):
            importer.stdin.write(
                b"commit refs/heads/main\ncommitter A <a@x> %d +0000\ndata 1\nx\n" % (1_700_000_000 + number)
            )
            importer.stdin.write(b"M 644 inline noise.bin\ndata %d\n" % (8 << 20))
            importer.stdin.write(chance.randbytes(8 << 20) + b"\n")
        importer.stdin.write(b"commit refs/heads/main\ncommitter A <a@x> 1800000000 +0000\ndata 1\nx\nD noise.bin\n")
        for number in range(FILES):
            text = f"{FLOW}# {number}\n".encode()
            importer.stdin.write(
                b"M 644 inline team%d/flow%d.py\ndata %d\n%s\n" % (number % 100, number, len(text), text)
            )
        importer.stdin.write(b"M 644 inline large.bin\ndata %d\n" % (200 << 20))
        importer.stdin.write(bytes(200 << 20) + b"\n")
    assert importer.returncode == 0


def test_a_big_repository(suite: Suite, tmp_path) -> None:
    repository = Repository(tmp_path / "repository")
    heavy(repository)
    state = tmp_path / "state"
    with suite.attempt("first"):
        first = synced(state, repository.url, "[]")
        assert first["state"] == "ok", first["error"]
        assert first["rss"]["git"] < 600, first
        assert first["rss"]["daemon"] < 400, first
        assert size_mb(state) < 2.2 * size_mb(repository.upstream) + 200
    git(repository.directory, "fetch", "--quiet", "--depth=1", "origin", "main")
    git(repository.directory, "reset", "--quiet", "--hard", "FETCH_HEAD")
    repository.write("team0/flow0.py", FLOW + "# changed\n")
    repository.push()
    with suite.attempt("one more commit"):
        second = synced(state, repository.url, first["known"])
        assert second["state"] == "ok", second["error"]
        assert second["rss"]["git"] < 300, second
    figures = [
        f"{one['seconds']} s, {one['rss']['git']} MiB of git, {one['rss']['daemon']} MiB" for one in (first, second)
    ]
    suite.note = f"{MEGABYTES} MB of history, {size_mb(state)} MB of state; first {figures[0]}; then {figures[1]}"
