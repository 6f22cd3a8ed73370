"""Death at every system call of a pass of retention: what counts is not lost, and two passes later nothing leaks."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from headrace.engine import events
from headrace.engine.records import recovery, segments, sweeping
from headrace.engine.running import pruning
from tests.engine.records.test_faults import needs_strace
from tests.engine.running import archives

ROOT = Path(__file__).parents[3]
CALLS = ("write", "fdatasync", "fsync", "rename", "fchmod", "unlink", "ftruncate")
#: Every so-and-so-many'th point in a quick run; 1 is all of them.
STRIDE = int(os.environ.get("HEADRACE_FAULT_STRIDE", "10"))
#: Another part of them each time.
FIRST = os.getpid() % STRIDE
LASTING = ("maintenance", "records", "ids", "locks", "owned", "published", "executions", "pending", "bound")


async def lived(directory: Path) -> None:
    """A life of which retention can drop much, but not all."""
    async with archives.opened(directory, segment_bytes=8000) as archive:
        history = archives.History(archive, seed=5)
        await history.go_on(50)
        archive.blobs.put(b'"orphan"')
        archive.sealed.put(b'"orphan"')
        await archive.run("asked for", retention_time_s=1e9, key="k", key_digest="d")
        for number in range(120):
            await archive.run(f"r{number}", key="" if number % 10 else f"k{number + 100}")
        await history.go_on(20)


def prune(directory: Path, *strace: str) -> tuple[int, str]:
    """Make two passes in a process of their own; return its exit code and the trace of what it did to the files."""
    trace = directory.parent / "trace"
    # Only calls on these count: not those on the index, which may go at any time.
    numbers = [number for number, _ in segments.files(directory / "records")]
    coming = [directory / "records" / segments.file_name(n) for n in range(numbers[0], numbers[-1] + 12)]
    files = [path for name in ("blobs", "sealed") for path in (directory / name).rglob("*")]
    watched = [directory / "records", *coming, *(path.with_suffix(".tmp") for path in coming), *files]
    paths = [part for path in watched for part in ("-P", str(path))]
    command = ["strace", "-f", "-y", "-o", str(trace), *paths, *strace]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONDONTWRITEBYTECODE": "1"}
    command += [sys.executable, "-m", "tests.engine.running.archives", str(directory)]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=120, check=False)
    assert ("done" in done.stdout) == (done.returncode == 0), done.stderr
    return done.returncode, trace.read_text()


async def known(directory: Path) -> tuple[dict[str, Any], dict[str, list[Any]]]:
    """What a start finds: the state, and the record of each execution that is listed."""
    async with archives.opened(directory) as archive:
        page = await archive.index.query(archives.index.listing.Query(limit=200))
        assert not page.cursor
        records = {one.id: await archive.index.events_of(one.id) for one in page.items}
        told = {id_: [(one.seq, one.at, one.event) for one in lines] for id_, lines in records.items()}
        for names in archive.state.store._saved.values():
            for saved in names.values():
                for value in saved.fields.values():
                    if isinstance(value, events.Blob):
                        archive.blobs.get(value)
        return archives.seen(archive.found), told


async def keys(directory: Path) -> dict[str, tuple[str, ...] | None]:
    """What a start without an index finds of the keys of requests."""
    (directory / "index.db").unlink(missing_ok=True)
    async with archives.opened(directory) as archive:
        return {key: archive.index.find_key(key) for key in ("k", *(f"k{number}" for number in range(220)))}


def files(directory: Path) -> set[str]:
    return {path.name for name in ("blobs", "sealed") for path in (directory / name).rglob("*") if path.is_file()}


def named(directory: Path) -> set[str]:
    return {
        name.decode()
        for _, path in segments.files(directory / "records")
        for name in sweeping._NAMES.findall(path.read_bytes())
    }


@needs_strace
@pytest.mark.timeout(900)
async def test_killed_at_every_system_call_nothing_that_counts_is_lost_and_nothing_leaks(
    tmp_path, monkeypatch, record_property
):
    monkeypatch.setattr(pruning, "KEYS_S", archives.YEAR_S)
    life = tmp_path / "life"
    await lived(life)
    before, records = await known(life)
    whole = tmp_path / "whole" / "s"
    shutil.copytree(life, whole)
    asked = await keys(whole)
    assert len([key for key, execution in asked.items() if execution]) > 12
    code, trace = prune(whole, "-e", f"trace={','.join(CALLS)}")
    assert code == 0
    counted = {call: len(re.findall(rf"\b{call}\(", trace)) for call in CALLS}
    assert counted["unlink"] > 8
    dropped = segments.files(whole / "records")[0][0]
    assert dropped > 4
    after, left = await known(whole)
    assert "asked for" in left
    assert len(left) < len(records) / 2
    points = [(call, k) for call, count in counted.items() for k in range(1, count + 1)][FIRST::STRIDE]
    print(f"{len(points)} points, {counted}")
    record_property("tries", len(points))
    state = tmp_path / "killed" / "s"
    for call, k in points:
        code = 0
        while not code and k:  # the last ones may not come, as batches are cut by time: then it is an earlier one
            shutil.rmtree(state.parent, ignore_errors=True)
            shutil.copytree(life, state)
            code, _ = prune(state, "-e", f"inject={call}:signal=SIGKILL:when={k}")
            k = k if code else 2 * k // 3
        assert code, f"no {call} came at all"
        assert recovery.verify(state / "records").problem == "", (call, k)
        found, listed = await known(state)
        for kind in LASTING:
            assert found[kind] == before[kind], (call, k)
        assert {one.id for one in after["messages"]} <= {one.id for one in found["messages"]}, (call, k)
        assert listed.keys() >= left.keys(), (call, k)
        assert all(records[id_] == told for id_, told in listed.items()), (call, k)
        async with archives.opened(state) as archive:
            await archive.pruner.prune()
            await archive.pruner.prune()
        found, listed = await known(state)
        for kind in (*LASTING, "messages"):
            assert found[kind] == after[kind], (call, k)
        assert listed == left, (call, k)
        assert segments.files(state / "records")[0][0] >= dropped, (call, k)
        assert await keys(state) == asked, (call, k)
        assert files(state) <= named(state), (call, k)
        assert not list(state.rglob("*.tmp")), (call, k)


@needs_strace
async def test_a_start_that_is_killed_while_it_removes_what_was_dropped_is_gone_on_with_by_the_next(tmp_path):
    life = tmp_path / "s"
    await lived(life)
    before, _ = await known(life)
    count = len(segments.files(life / "records"))
    for _ in range(3):
        assert prune(life, "-e", "inject=unlink:signal=SIGKILL:when=2")[0] != 0
    left = segments.files(life / "records")
    assert 1 < left[0][0] < count
    found, _ = await known(life)
    for kind in LASTING:
        assert found[kind] == before[kind]
    assert segments.files(life / "records")[0][0] > left[0][0]
