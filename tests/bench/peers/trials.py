"""The same work for each peer, and its figures as rows: what one peer cannot do is said, and the next trial goes on.

Each trial but the first starts the peer anew on a state of its own, so that none carries another's load.
"""

from __future__ import annotations

import collections
import contextlib
import dataclasses
import re
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from tests.bench import http_load, stage
from tests.bench.results import Row

from .peer import Amount, Ask, Peer

CALLERS = 32
CHILDREN = 100
KILLED = 20
_WINDOW_S = 3.0
_IDLE_S = 10.0  # the kernel tells CPU in hundredths of a second, so 0.1 % is the least that can be seen
_FOREVER_S = 7_200
_LOAD_S = 900.0  # a peer that answers no more does not hold up the others

#: What is measured, as the page's lines name it.
READY, IDLE, CPU, P50, P99, RATE, PARENT, WAITING, ALL, FINISHED = (
    "start → first execution done", "idle memory (PSS)", "idle CPU", "request → done, p50", "request → done, p99",
    f"executions, {CALLERS} callers", f"parent with {CHILDREN} children", "each waiting execution",
    "all processes with these waiting", f"finished, of {KILLED} killed in mid-wait",
)  # fmt: skip


@dataclasses.dataclass
class Outcome:
    """What became of executions that were killed in mid-wait, as the ledger tells."""

    finished: int
    unfinished: int
    repeated: int
    told: str = ""  # what the peer says of the unfinished ones


@dataclasses.dataclass
class Trials:
    """The trials of one kind of peer, in folders below ``directory``."""

    kind: type[Peer]
    directory: Path
    amount: Amount
    failed: dict[str, str] = dataclasses.field(default_factory=dict)

    def rows(self) -> Iterator[Row]:
        """Measure everything; what fails is left in ``failed``, by the name of its trial."""
        trials: dict[str, Callable[[], Iterator[Row]]] = {
            P50: self._latency, PARENT: self._parents, WAITING: self._waiting, FINISHED: self._killing,
        }  # fmt: skip
        for name, trial in trials.items():
            try:
                yield from trial()
            except Exception as error:  # whatever ails a peer, the others are worth measuring
                self.failed[name] = _brief(str(error) or repr(error))

    @contextlib.contextmanager
    def started(self) -> Iterator[Peer]:
        """A peer on an empty state that has done something trivial."""
        with tempfile.TemporaryDirectory(dir=self.directory, prefix="peer-", ignore_cleanup_errors=True) as name:
            folder = Path(name)
            folder.chmod(0o755)  # databases have a user of their own
            peer = self.kind(folder)
            try:
                peer.start()
                peer.until_first_done()
                yield peer
            finally:
                peer.kill()

    def _latency(self) -> Iterator[Row]:
        """One caller, then many; at first how it is with none, and how soon it is there."""
        amount = self.amount
        with self.started() as peer:
            yield from _idle_rows(peer, amount.rounds)
            for name, count, callers in ((P50, amount.latency, 1), (RATE, amount.many, CALLERS)):
                count = max(callers, count)
                ask = peer.trivial()
                if amount.rounds > 1 and callers < count:
                    loaded(peer, ask, requests=max(1, count // 5), callers=callers)
                loads = [loaded(peer, ask, requests=count, callers=callers) for _ in range(amount.rounds)]
                if name == RATE:
                    yield Row(name, "/s", [load.per_s for load in loads], count * len(loads), more_is_better=True)
                    continue
                for line, percent in ((P50, 50), (P99, 99)):
                    yield Row(line, "ms", [load.percentile_ms(percent) for load in loads], count * len(loads))
            # With what is recorded now, which is when it matters.
            yield Row(READY, "s", [_restarted_s(peer) for _ in range(min(3, amount.rounds))], min(3, amount.rounds))

    def _parents(self) -> Iterator[Row]:
        amount = self.amount
        count = amount.parents
        with self.started() as peer:
            ask = peer.children(CHILDREN)
            loaded(peer, ask, requests=1, callers=1)
            loads = [loaded(peer, ask, requests=count, callers=1) for _ in range(amount.rounds)]
            yield Row(PARENT, "ms", [load.percentile_ms(50) for load in loads], count * len(loads))

    def _waiting(self) -> Iterator[Row]:
        count = self.amount.waiting
        with self.started() as peer:
            time.sleep(_WINDOW_S)
            before_mb = memory_mb(peer)
            ask = peer.wait(_FOREVER_S)
            loaded(peer, ask, requests=count, callers=min(8, count))
            time.sleep(self.kind.rest_s)
            after_mb = settled_mb(peer)
            yield Row(WAITING, "KB", [1024 * (after_mb - before_mb) / count], count, also={"waiting": count})
            yield Row(ALL, "MB", [after_mb], count, also={"waiting": count})

    def _killing(self) -> Iterator[Row]:
        outcomes = [self._outcome() for _ in range(self.amount.kills)]
        also: dict[str, object] = {
            "unfinished": sum(one.unfinished for one in outcomes),
            "effects repeated": sum(one.repeated for one in outcomes),
            "waited s": self.kind.settle_s,
            "told": "; ".join(dict.fromkeys(one.told for one in outcomes if one.told)),
        }
        yield Row(FINISHED, "", [one.finished for one in outcomes], len(outcomes), more_is_better=True, also=also)

    def _outcome(self) -> Outcome:
        with self.started() as peer:
            seconds = round(self.kind.sleep_s)
            loaded(peer, peer.begin(seconds), requests=KILLED, callers=min(8, KILLED))
            peer.until(lambda: len(lines(peer.ledger, "began")) >= KILLED, "20 side effects", self.kind.sleep_s)
            time.sleep(0.5)  # whatever they write about that
            assert not lines(peer.ledger, "ended"), "one ended before it could be killed"
            peer.kill()
            peer.start()
            deadline = time.monotonic() + self.kind.sleep_s + self.kind.settle_s
            while time.monotonic() < deadline and len(set(lines(peer.ledger, "ended"))) < KILLED:
                time.sleep(0.2)
            time.sleep(_WINDOW_S)  # what comes twice comes late
            outcome = judged(lines(peer.ledger, "began"), lines(peer.ledger, "ended"))
            if outcome.unfinished:
                try:
                    outcome.told = peer.unfinished()
                except OSError as error:
                    outcome.told = f"it does not say: {_brief(str(error))}"
            return outcome


def judged(began: list[str], ended: list[str]) -> Outcome:
    """What a ledger says: who finished, and what was written more than once."""
    finished = len(set(ended))
    repeated = sum(count - 1 for written in (began, ended) for count in collections.Counter(written).values())
    return Outcome(finished, len(set(began) - set(ended)), repeated)


def lines(ledger: Path, word: str) -> list[str]:
    """The numbers that a ledger has with that word."""
    if not ledger.exists():
        return []
    written = [line.split() for line in ledger.read_text().splitlines()]
    return [number for first, number in written if first == word]


def loaded(peer: Peer, ask: Ask, *, requests: int, callers: int) -> http_load.Load:
    """Ask so many times; the numbers of requests are new ones each time."""
    return http_load.generate(
        peer.port, ask.text, requests=requests, callers=callers, expected=ask.expected, good=ask.good,
        first=time.time_ns() // 1_000 % 10**11, timeout_s=_LOAD_S,
    )  # fmt: skip


def memory_mb(peer: Peer) -> float:
    """Memory of all its processes, shared pages counted once."""
    return stage.processes_mb(peer.pids)["Pss"]


def settled_mb(peer: Peer) -> float:
    """Its memory, when three looks have given the median."""
    found = []
    for _ in range(3):
        time.sleep(1.0)
        found.append(memory_mb(peer))
    return statistics.median(found)


def _idle_rows(peer: Peer, rounds: int) -> Iterator[Row]:
    time.sleep(_WINDOW_S)
    memory, cpu, resident, processes = [], [], [], 0
    for _ in range(rounds):
        before = _cpu_s(peer)
        time.sleep(_IDLE_S)
        cpu.append(max(0.0, 100 * (_cpu_s(peer) - before) / _IDLE_S))
        memory.append(memory_mb(peer))
        resident.append(stage.processes_mb(peer.pids)["Rss"])
        processes = len(peer.pids)
    also = {"resident": statistics.median(resident), "processes": processes}
    yield Row(IDLE, "MB", memory, rounds, also=also)
    yield Row(CPU, "%", cpu, rounds)


def _cpu_s(peer: Peer) -> float:
    return sum(sum(stage.cpu_s(pid).values()) for pid in peer.roots)


def _restarted_s(peer: Peer) -> float:
    peer.stop()
    began = time.perf_counter()
    peer.start()
    peer.until_first_done()
    return time.perf_counter() - began


def _brief(text: str) -> str:
    text = re.sub(r"(/[\w.@+-]+){2,}/", "…/", text)  # where it lies on this machine is nobody's concern
    last = [line for line in text.strip().splitlines() if line.strip()] or ["no word"]
    return f"{last[0][:160]} … {last[-1][-160:]}" if len(last) > 1 else last[0][:300]
