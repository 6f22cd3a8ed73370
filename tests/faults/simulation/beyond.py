"""What lies around the real parts of a world, played as simply as it can be."""

from __future__ import annotations

import asyncio
import collections
import random
from collections.abc import Callable, Sequence
from pathlib import Path

from headrace.engine import events, model, policy, ports
from headrace.engine.records import journal
from tests.faults.simulation import disk, handlers

COMMIT = "c" * 40
START_S = 1_800_000_000.0


class Clock:
    """The loop's time."""

    def time(self) -> float:
        return START_S + asyncio.get_running_loop().time()

    def monotonic(self) -> float:
        return asyncio.get_running_loop().time()


class Archive:
    """What is durable, by execution; see ``index.Index``."""

    def __init__(self, lines: Sequence[events.Recorded]) -> None:
        self._of: dict[str, list[events.Recorded]] = collections.defaultdict(list)
        self._keys: dict[str, tuple[str, str, str]] = {}
        self.absorb(lines)

    def absorb(self, lines: Sequence[events.Recorded]) -> None:
        for line in lines:
            if isinstance(line.event, events.ExecutionEvent):
                self._of[line.event.execution].append(line)
            if isinstance(line.event, events.ExecutionCreated) and line.event.key:
                self._keys[line.event.key] = (line.event.execution, line.event.key_digest, line.at)

    def find_key(self, key: str) -> tuple[str, str, str] | None:
        return self._keys.get(key)

    async def events_of(self, execution: str) -> list[events.Recorded]:
        return await asyncio.to_thread(lambda: list(self._of.get(execution, ())))


class Flows:
    """See ``ports.Flows``: three flows that never change."""

    def __init__(self, pick: random.Random) -> None:
        kinds = {name: pick.choice(("", "", "", "restart", "resume")) for name in handlers.FLOWS}
        lanes = (None, None, policy.Concurrency(limit=1), policy.Concurrency(limit=1, when_full="replace"))
        retries = (None, None, policy.Retry(attempts=2, delay_s=1))

        def policies() -> policy.Policies:
            return policy.Policies(concurrency=pick.choice(lanes), retry=pick.choice(retries))

        flows = {
            name: model.Flow(
                id=f"id of {name}",
                name=name,
                path=f"{name}.py",
                commit=COMMIT,
                blob="",
                metadata=model.Metadata(
                    on_interrupt=kind,
                    timeout_s=pick.choice((None, None, 300.0)),
                    strict_replay=pick.random() < 0.3,
                    policies=policies(),
                ),
            )
            for name, kind in kinds.items()
        }
        self._catalogue = model.Catalogue(commit=COMMIT, published_at="2026-01-01T00:00:00+00:00", flows=flows)

    def current(self) -> model.Catalogue:
        return self._catalogue

    def find(self, name: str, commit: str = "") -> model.Flow:
        return self._catalogue.find(name)

    def snapshot(self, commit: str) -> Path:
        return Path("/nowhere")

    def kept(self, source: str = "") -> list[model.Kept]:
        return []


class Beyond:
    """Environments and secrets: there are none."""

    async def python(self, venv: str, commit: str) -> str:
        return ""

    async def resolved(self, inputs: bytes, untrusted: bytes = b"") -> bytes:
        return inputs


class World(handlers.Watching):
    """What these want of theirs."""

    ways: handlers.Ways
    lines: journal.Journal | None

    def die(self) -> None:
        """The daemon is gone at this moment."""

    def task_begins(self, task: Task, execution: str) -> None:
        """A task is about to touch the world."""


class Task:
    """See ``ports.PreparedTask``: it waits a while."""

    timeout_s = None
    secret_inputs: frozenset[str] = frozenset()

    def __init__(self, world: World, kind: str) -> None:
        self._world = world
        self.type = kind
        self.idempotent = kind == "AGAIN"

    async def run(self, context: ports.TaskContext) -> bytes:
        self._world.task_begins(self, context.execution_id)
        await asyncio.sleep(self._world.ways.pick.choice((0, 0.001, 0.2, 30)))
        return b'{"done":1}'


class Tasks:
    """See ``ports.Tasks``."""

    def __init__(self, world: World) -> None:
        self._world = world

    async def ready(self, type: str) -> None:  # noqa: A002
        """Nothing is to be loaded."""

    def prepare(self, type: str, inputs: bytes) -> Task:  # noqa: A002
        return Task(self._world, type)


class Thread:
    """The writer, which needs no time of its own."""

    def __init__(self, **_: object) -> None: ...

    def start(self) -> None: ...

    def join(self) -> None: ...


class Drained(Exception):
    """The writer has nothing to do for now."""


class Jobs:
    """The writer's queue; each job is done a little later, on the loop."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._jobs: collections.deque[Callable[[], None] | None] = collections.deque()

    def put(self, job: Callable[[], None] | None) -> None:
        self._jobs.append(job)
        if job is not None:
            asyncio.get_running_loop().call_later(self._world.ways.pick.choice((0.0, 0.0002, 0.002, 0.03)), self._work)

    def get(self) -> Callable[[], None] | None:
        if not self._jobs:
            raise Drained
        return self._jobs.popleft()

    def _work(self) -> None:
        lines = self._world.lines
        assert lines is not None
        try:
            error = lines._serve()
        except Drained:
            return
        except disk.PowerCut:
            self._world.die()
            return
        if error is not None:
            lines._back(lines._poison, error)
