"""Sync killed at a chosen system call: of one of the gits it runs, alone or with the daemon, or of the daemon itself.

A wrapper called ``git`` stands first on the PATH and in git's own folder of programs, counts the processes, and puts
strace before the chosen one. ``python -m tests.sync.killing STATE JOURNAL URL [KNOWN]`` makes one pass, as a daemon.
"""

from __future__ import annotations

import asyncio
import collections
import dataclasses
import hashlib
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from signal import SIGKILL

import msgspec
import pytest

from headrace.engine import events
from headrace.sync import loop, manifests, snapshot
from tests.support.repositories import FLOW, Repository, git
from tests.sync.conftest import Daemon

ROOT = Path(__file__).parents[2]

#: Each system call that changes what a file system holds, as far as git, Python and the C library use them here.
CALLS = (
    *("write", "pwrite64", "rename", "renameat", "renameat2", "link", "linkat", "unlink", "unlinkat", "rmdir"),
    *("mkdir", "mkdirat", "chmod", "fchmod", "utimensat", "ftruncate", "fsync", "fdatasync", "syncfs"),
)

#: What happens in the pass: a first clone, a commit of some objects, one of very many, and one after which git packs
#: everything anew.
SCENES = ("first", "next", "pack", "tidy")

_WRAPPER = """#!/bin/sh
test "$*" = version && exec {git} "$@"  # GitPython asks once in a process
export GIT_EXEC_PATH={here}/exec
. {here}/control
printf x >> {here}/count
number=$(wc -c < {here}/count)
if test -d "$traces"; then exec strace -y -s 0 -o "$traces/$number" -e trace=$calls {git} "$@"; fi
test "$number" = "$wanted" || exec {git} "$@"
strace -o /dev/null -e trace=$call -e inject=$call:signal=SIGKILL:when=$k {git} "$@"
status=$?
if test $status = 137; then
  : > {here}/hit
  test -z "$daemon" || kill -9 $daemon
fi
exit $status
"""

#: The other side is left alone, with all it starts.
_OTHER_SIDE = """#!/bin/sh
unset GIT_EXEC_PATH
exec {git} upload-pack "$@"
"""


@dataclasses.dataclass(frozen=True)
class Point:
    """The ``k``-th ``call`` of the ``number``-th git process of a pass; of the daemon itself if that is 0."""

    number: int
    call: str
    k: int


class Scene:
    """A repository and a state directory before a pass; ``restored`` gives a fresh copy of the latter."""

    def __init__(self, folder: Path, kind: str) -> None:
        self.kind = kind
        self.folder = folder
        self.repository = Repository(folder / "repository")
        self.known: list[events.CommitPublished] = []
        self.before = ""
        self.after = ""
        self._template = folder / "template"
        self._state = folder / "state"
        self._bin = folder / "bin"

    async def prepare(self) -> None:
        write = self.repository.write
        write("a.py")
        write("lib/x.py", "y = 1\n")
        if self.kind == "first":
            self._template.mkdir()
        else:
            self.before = self.repository.push()
            daemon = Daemon(self._state)
            await daemon.synced(await daemon.started(self.repository.url))
            self.known = daemon.published
            self._state.rename(self._template)
            write("a.py", FLOW + "# edited\n")
        for number in range(150 if self.kind == "pack" else 3):
            write(f"lib/{number}.py", f"x = {number}\n")
        if self.kind == "tidy":
            make_untidy(self._template / "mirror.git")
        self.after = self.repository.push()
        self._make_wrapper()

    def _make_wrapper(self) -> None:
        real = shutil.which("git")
        programs = Path(git(self.folder, "--exec-path"))
        (self._bin / "exec").mkdir(parents=True)
        for program in programs.iterdir():
            if program.name not in ("git", "git-upload-pack"):
                (self._bin / "exec" / program.name).symlink_to(program)
        for place, text in (("git", _WRAPPER), ("exec/git", _WRAPPER), ("exec/git-upload-pack", _OTHER_SIDE)):
            (self._bin / place).write_text(text.format(here=self._bin, git=real))
            (self._bin / place).chmod(0o755)

    def restored(self) -> Path:
        """Put the state directory back to what it was before the pass and return it."""
        shutil.rmtree(self._state, ignore_errors=True)
        shutil.copytree(self._template, self._state, symlinks=True)
        return self._state

    def _control(self, point: Point | None, *, daemon: str = "", traces: str = "") -> None:
        """Say what the wrapper does with the gits of the next pass."""
        (self._bin / "count").write_bytes(b"")
        (self._bin / "hit").unlink(missing_ok=True)
        chosen = f"wanted={point.number} call={point.call} k={point.k}" if point else "wanted=none call= k="
        (self._bin / "control").write_text(f"{chosen} daemon={daemon} traces={traces} calls={','.join(CALLS)}\n")

    @property
    def _path(self) -> str:
        return f"{self._bin}:{os.environ['PATH']}"

    def _run(self, *wrapper: str) -> tuple[list[events.CommitPublished], int]:
        """Make a pass in a process of its own; return what it published, and how it ended."""
        journal = self.folder / "journal"
        journal.unlink(missing_ok=True)
        known = [msgspec.json.encode(self.known[-1]).decode()] if self.known else []
        words = [sys.executable, "-m", "tests.sync.killing", str(self._state), str(journal), self.repository.url]
        environment = {**os.environ, "PATH": self._path, "PYTHONPATH": str(ROOT), "PYTHONDONTWRITEBYTECODE": "1"}
        environment["HEADRACE_TEST_PID"] = str(self._bin / "daemon")
        done = subprocess.run(
            [*wrapper, *words, *known], cwd=ROOT, env=environment, capture_output=True, timeout=120, check=False
        )
        lines = journal.read_bytes().splitlines() if journal.exists() else []
        return [msgspec.json.decode(line, type=events.CommitPublished) for line in lines], done.returncode

    def points_of_git(self) -> list[Point]:
        """Return each call by which a git of the pass changes the state directory."""
        traces = self.folder / "traces"
        traces.mkdir()
        self.restored()
        self._control(None, traces=str(traces))
        assert self._run()[1] == 0
        points: list[Point] = []
        for trace in sorted(traces.iterdir(), key=lambda path: int(path.name)):
            points += _points(int(trace.name), trace.read_text().splitlines())
        return points

    def points_of_daemon(self) -> list[Point]:
        """Return each call by which the daemon itself changes the state directory."""
        self.restored()
        self._control(None)
        trace = self.folder / "trace"
        calls = f"trace={','.join(CALLS)}"
        assert self._run("strace", "-f", "-b", "execve", "-y", "-s", "0", "-o", str(trace), "-e", calls)[1] == 0
        threads = collections.defaultdict(list)  # strace counts the calls of each thread by itself
        for line in trace.read_text().splitlines():
            thread, _, rest = line.partition(" ")
            threads[thread].append(rest.strip())
        return sorted({point for lines in threads.values() for point in _points(0, lines)}, key=dataclasses.astuple)

    async def kill_git(self, point: Point, monkeypatch: pytest.MonkeyPatch) -> bool:
        """Have one git of a pass killed alone, and look at this pass, the next one, and a restart.

        Return whether it came to that: when git tidies up, not every pass makes the same calls."""
        daemon = Daemon(self.restored())
        daemon.events = list(self.known)
        self._control(point)
        with monkeypatch.context() as patched:
            patched.setenv("PATH", self._path)
            sync = await daemon.started(self.repository.url)
            status = await daemon.synced(sync)
        hit = (self._bin / "hit").exists()
        assert status.commit in (self.before, self.after)
        await self._check_pass(daemon, sync)
        await self._check_healed(daemon.published[len(self.known) :])
        return hit

    async def kill_daemon(self, point: Point) -> bool:
        """Have the daemon die at ``point`` (of a git, or of its own), and start again; return whether it died."""
        self.restored()
        if point.number:
            self._control(point, daemon=f"$(cat {self._bin / 'daemon'})")
            published, code = self._run()
        else:
            self._control(None)
            inject = f"inject={point.call}:signal=SIGKILL:when={point.k}"
            watched = ("-o", "/dev/null", "-e", f"trace={point.call}", "-e", inject)
            published, code = self._run("strace", "-f", "-b", "execve", *watched)
        await self._check_healed(published)
        return code == -SIGKILL

    async def _check_healed(self, published: list[events.CommitPublished]) -> None:
        """After a restart one of both commits is in force; the next pass brings the new one and leaves nothing over."""
        daemon = Daemon(self._state)
        daemon.events = [*self.known, *published]
        sync = await daemon.started(self.repository.url)
        current = sync.flows.current().commit
        assert current == (daemon.published[-1].commit if daemon.published else "")
        assert current in (self.before, self.after)
        if current:
            self._check_whole(current)
        await self._check_pass(daemon, sync)

    async def _check_pass(self, daemon: Daemon, sync: loop.Synchroniser) -> None:
        status = await daemon.synced(sync)
        assert (status.state, status.commit, status.flows) == ("ok", self.after, 1), status.error
        self._check_whole(self.after)
        self._check_tidy()

    def _check_whole(self, commit: str) -> None:
        manifest = manifests.read(self._state / "snapshots", commit)
        assert manifest is not None
        assert snapshot.is_intact(self._state / "snapshots" / commit, manifest.files)
        listed = git(self.repository.upstream, "ls-tree", "-r", "--name-only", commit).splitlines()
        assert sorted(manifest.files) == sorted(listed)

    def _check_tidy(self) -> None:
        """What is there is what a pass leaves that nobody disturbed."""
        mirror = self._state / "mirror.git"
        assert leftovers(mirror) == []
        assert git(mirror, "fsck", "--connectivity-only", "--no-dangling") == ""
        wanted = {name for commit in (self.before, self.after) if commit for name in (commit, f"{commit}.json")}
        assert {path.name for path in (self._state / "snapshots").iterdir()} == wanted
        names = {path.name for path in self._state.iterdir()}
        assert names <= {"mirror.git", "snapshots", "git-home", "git-config"}, names


def leftovers(mirror: Path) -> list[str]:
    """Return what of a killed git lies in the mirror."""
    found = [*mirror.rglob("*.lock"), *mirror.glob("gc.pid"), *mirror.glob("objects/**/tmp_*")]
    packs = mirror / "objects" / "pack"
    found += [*packs.glob(".tmp-*"), *packs.glob("*.keep")]
    found += [path for path in packs.glob("*.pack") if not path.with_suffix(".idx").exists()]
    return [str(path.relative_to(mirror)) for path in found]


def _points(number: int, lines: list[str]) -> list[Point]:
    seen: collections.Counter[str] = collections.Counter()
    points = []
    for line in lines:
        call = re.match(r"\w+", line)
        if call is None or "resumed>" in line or call[0] not in CALLS:
            continue
        seen[call[0]] += 1
        if not re.match(r"write\(\d+<(pipe|socket|/dev|anon)", line):
            points.append(Point(number, call[0], seen[call[0]]))
    return points


def make_untidy(mirror: Path) -> None:
    """Have git think that there are more than 2,000 loose objects: it looks into the folder ``17`` and multiplies."""
    made = 0
    number = 0
    while made < 10:
        number += 1
        content = b"untidy %d\n" % number
        if hashlib.sha1(b"blob %d\0" % len(content) + content, usedforsecurity=False).hexdigest().startswith("17"):
            git(mirror, "hash-object", "-w", "--stdin", stdin=content)
            made += 1


class _Recording(Daemon):
    def __init__(self, state: Path, journal: Path) -> None:
        super().__init__(state)
        self._journal = journal

    async def publish(self, event: events.CommitPublished | events.CommitRejected) -> str:
        with self._journal.open("ab") as journal:
            journal.write(msgspec.json.encode(event) + b"\n")
        return await super().publish(event)


async def _main() -> None:
    state, journal, url, *known = sys.argv[1:]
    Path(os.environ["HEADRACE_TEST_PID"]).write_text(str(os.getpid()))
    daemon = _Recording(Path(state), Path(journal))
    daemon.events = [msgspec.json.decode(line, type=events.CommitPublished) for line in known]
    status = await daemon.synced(await daemon.started(url))
    assert status.state == "ok", status.error


if __name__ == "__main__":
    asyncio.run(_main())
