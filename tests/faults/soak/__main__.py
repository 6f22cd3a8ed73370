"""A long life: a daemon with all it does, something that goes wrong each minute, and a ledger of what was promised.

    python -m tests.faults.soak --minutes 120 --directory /var/tmp/soak

In the first and last fifth of the time the daemon's life is taken, too; between them it lives on, so that what grows
can be seen. It stops by itself, writes ``figures.json`` (each minute, too) and ``samples.jsonl`` into the directory,
and its exit status is that of its verdict.
"""

from __future__ import annotations

import argparse
import collections
import json
import os
import random
import socket
import subprocess
import sys
import time
import urllib.parse
from pathlib import Path
from typing import Any

from headrace.engine import errors
from headrace.engine.records import head, recovery
from tests.faults import powered
from tests.support.daemons import Daemon, until
from tests.support.repositories import Repository
from tests.support.world import World

from . import flows, harm, load, samples
from .ledger import Ledger

_DRAINING_S = 240.0
_PRUNED_EVERY_S = 600.0
_KEPT_S = 900.0
_DISK_MB = 1500
#: What a sound daemon does not say, whatever is done to it.
_UNSOUND = frozenset(
    {"request.failed", "execution.failed_internally", "execution.diverged", "journal.failed", "segment.damaged"}
    | {"index.event_odd", "daemon.failed", "history.loss_accepted", "journal.records_lost"}
)


class _Settled(Daemon):
    """One that listens at the same place after each start, as those do that last."""

    @property
    def url(self) -> str:
        return f"http://{self.options[1]}"


def _free_address() -> str:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        return f"127.0.0.1:{listening.getsockname()[1]}"


class Soak:
    """One run of it, in ``directory``."""

    def __init__(self, directory: Path, minutes: float, pause_s: float, seed: int) -> None:
        self.directory = directory
        self.minutes = minutes
        self.seed = seed
        self.disk: powered.Disk | None = None
        try:
            self.disk = powered.Disk(directory, _DISK_MB)
        except RuntimeError as reason:
            print(f"without full disks: {reason}", file=sys.stderr)
        self.repository = Repository(directory / "repository")
        for name, text in flows.FLOWS.items():
            self.repository.write(f"{name}.py", text)
        self.repository.push()
        where = self.disk.path if self.disk else directory
        self.tasks = directory / "tasks"
        self.daemon = _Settled(where / "state", self.repository.url, "--listen", _free_address())
        self.daemon.program = ("-m", "tests.faults.soak.observed", str(self.tasks))
        self.daemon.log = directory / "log"
        self.daemon.environment |= {"HEADRACE_RUN__HIBERNATE_AFTER": "5s", "HEADRACE_RUN__STOP_GRACE": "2s"}
        self.ledger = Ledger(self.daemon.state / "records")
        self.users = load.Users(self.daemon, self.repository, pause_s, seed)
        self.ledger.acknowledged = self.users.acknowledged
        self.samples: list[samples.Sample] = []
        self.faults: list[tuple[float, str]] = []
        self.began = 0.0
        self.verdict = "running"
        self.problems: list[str] = []

    def run(self) -> bool:
        """All of it; returns whether all is well."""
        with World() as world:
            self.daemon.start()
            self.daemon.client.keep("settings", "world", {"value": world.url})
            self.daemon.client.keep("settings", "count", {"value": 0})
            self.began = time.monotonic()
            self.users.start()
            try:
                self._through()
            finally:
                self.users.stop()
            until(self._drained, "everything has ended", _DRAINING_S)
            self.users.leave()
            count = self.daemon.client.kept_one("settings", "count")["value"]
            self._sample()
            if (code := self.daemon.stop(60)) != 0:
                self.problems.append(f"its last stop ended with {code}")
            # A start finishes what is torn, and the line after the last one of a batch makes that readable.
            self.daemon.start()
            self.daemon.stop(60)
            self.ledger.read()
            self.problems += self.ledger.problems(_effects(world), count) + self.users.wrong + self._unsound()
        report = recovery.verify(self.daemon.state / "records", head.read(self.daemon.state / head.FILE_NAME))
        if report.problem:
            self.problems.append(report.problem)
        self.problems += samples.leaks(samples.growth(self.samples))
        self.verdict = "failed" if self.problems else "good"
        return not self.problems

    def close(self) -> None:
        """Leave nothing behind that runs."""
        self.daemon.kill()
        self.write()
        if self.disk:
            subprocess.run(["cp", "-a", f"{self.daemon.state}/records", f"{self.directory}/records"], check=False)
            self.disk.close()

    def _through(self) -> None:
        chance = random.Random(self.seed)
        bad = harm.Harm(self.daemon, self.repository, self.disk.path if self.disk else None, chance)
        length = 60 * self.minutes
        fault_at, sample_at, prune_at = 30.0, 0.0, _PRUNED_EVERY_S
        while (passed := time.monotonic() - self.began) < length:
            if passed >= sample_at:
                sample_at += samples.EVERY_S
                self._sample()
            if passed >= fault_at:
                fault_at += 60.0
                self._harm(bad, ending=not 0.2 * length < passed < 0.8 * length)
                self.write()
            if passed >= prune_at:
                prune_at += _PRUNED_EVERY_S
                self._prune()
            time.sleep(max(0.1, min(sample_at, fault_at, prune_at) - (time.monotonic() - self.began)))

    def _harm(self, bad: harm.Harm, *, ending: bool) -> None:
        at = time.monotonic() - self.began
        try:
            with self.users.pushing:
                what = bad.next(ending=ending)
        except (OSError, AssertionError, subprocess.SubprocessError) as error:
            what = f"failed: {error}"
            self.problems.append(f"a fault at {at:.0f} s: {error}")
        self.faults.append((round(at, 1), what))
        print(f"{at:7.0f} s  {what}", flush=True)

    def _sample(self) -> None:
        if sample := samples.look(self.daemon, self.began, self.tasks):
            self.samples.append(sample)
            with (self.directory / "samples.jsonl").open("a") as file:
                file.write(json.dumps({"at_s": round(sample.at_s, 1), "life": sample.life, **sample.values}) + "\n")
        self.ledger.read()

    def _prune(self) -> None:
        self.ledger.read()
        try:
            gone = self.daemon.client.prune(keep_s=_KEPT_S)
            print(f"{time.monotonic() - self.began:7.0f} s  pruned {gone}", flush=True)
        except errors.HeadraceError as error:
            print(f"{time.monotonic() - self.began:7.0f} s  not pruned: {error.message}", flush=True)

    def _drained(self) -> bool:
        self.ledger.read()
        open_ = self.daemon.client.executions(status=["NEW", "QUEUED", "RUNNING", "WAITING", "PAUSED"])["items"]
        time.sleep(0.5)
        return not [one for one in open_ if one["flow_name"] != "tick"]

    def _unsound(self) -> list[str]:
        found: collections.Counter[str] = collections.Counter()
        for line in self.daemon.log.read_text().splitlines():
            if line.startswith("{"):
                said = json.loads(line)
                if said.get("event") in _UNSOUND:
                    found[f"{said['event']}: {said.get('reason', '')} {said.get('exception', '')[-800:]}"] += 1
            elif "Traceback" in line:
                found["traceback"] += 1
        return [f"the log has {times} of {what}" for what, times in found.items()]

    def figures(self) -> dict[str, Any]:
        """What there is so far."""
        cpu: dict[int, float] = {}
        for sample in self.samples:
            cpu[sample.life] = sample.values.get("cpu_daemon_s", 0.0) + sample.values.get("cpu_others_s", 0.0)
        passed = self.samples[-1].at_s if self.samples else 0.0
        ends = collections.Counter(end for seen in list(self.ledger.seen.values()) for end in seen.ends)
        return {
            "verdict": self.verdict,
            "problems": self.problems[:50],
            "wrong_so_far": (self.users.wrong + self.ledger.wrong)[:20],
            "seed": self.seed,
            "minutes": round(passed / 60, 1),
            "planned_minutes": self.minutes,
            "cores_used": round(sum(cpu.values()) / passed, 3) if passed else 0.0,
            "lives": len({sample.life for sample in self.samples}),
            "acknowledged": len(self.users.acknowledged),
            "executions": len(self.ledger.seen),
            "unfinished": len(self.ledger.unfinished()),
            "ends": dict(ends),
            "ticks": len(self.ledger.ticks),
            "ticks_missed": self.ledger.missed,
            "journal_lines": self.ledger.events.total(),
            "users": dict(sorted(self.users.counts.items())),
            "faults": dict(collections.Counter(what.split()[0] for _, what in self.faults)),
            "growth": samples.growth(self.samples),
            "samples": len(self.samples),
        }

    def write(self) -> None:
        """Leave the figures in ``figures.json``."""
        (self.directory / "figures.json").write_text(json.dumps(self.figures(), indent=2) + "\n")


def _effects(world: World) -> collections.Counter[str]:
    found: collections.Counter[str] = collections.Counter()
    for path in world.asked():
        target = urllib.parse.urlsplit(path)
        if target.query.startswith("of="):
            found[target.query.removeprefix("of=")] += world.count(path)
    return found


def main() -> int:
    """Run it as the arguments say."""
    parser = argparse.ArgumentParser(prog="python -m tests.faults.soak", description="A long life, with faults")
    parser.add_argument("--minutes", type=float, default=120)
    parser.add_argument("--directory", type=Path, required=True, help="empty; all of it stays")
    parser.add_argument("--pause", type=float, default=1.0, help="seconds between two requests, on the average")
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(1 << 32))
    chosen = parser.parse_args()
    chosen.directory.mkdir(parents=True, exist_ok=True)
    os.environ.setdefault("TMPDIR", str(chosen.directory))
    soak = Soak(chosen.directory.resolve(), chosen.minutes, chosen.pause, chosen.seed)
    good = False
    try:
        good = soak.run()
    except BaseException as error:
        soak.problems.append(f"the soak broke off: {error!r}")
        soak.verdict = "failed"
        raise
    finally:
        soak.close()
        print(json.dumps(soak.figures(), indent=2))
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
