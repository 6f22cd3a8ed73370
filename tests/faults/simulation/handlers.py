"""Flow processes that are not there: each answers frames as a guest does, and its handler is drawn from a seed.

A handler draws anew after each answer, from all that it was told: one that is told something else when it is replayed
does something else, and the dispatcher calls that a divergence. A process may be slow, and die at any frame. An
execution may have to wait behind another one in its process, and be taken back from there before it begins.
"""

from __future__ import annotations

import asyncio
import collections
import dataclasses
import random
import zlib
from collections.abc import Callable, Generator
from pathlib import Path
from typing import Any

import msgspec

from headrace.engine.guest import frames
from headrace.engine.workers import flow_process, protocol

FLOWS = ("a", "b", "c")
TASKS = ("AGAIN", "ONCE")
LOCKS = ("l0", "l1")
MODES = ("create", "start", "ALL_SUCCEEDED", "ALL_ENDED", "FIRST_ENDED")
#: Calls of whose answers a guest hands nothing on.
UNREAD = ("continue_as_new", "setting.append")
_DEPTH_MAX = 2
_CALLS_MAX = 6
_GENERATIONS_MAX = 3

Frame = dict[str, Any]
Play = Generator[Frame, dict[str, Any], None]


class _Left(Exception):
    """The handler leaves, with what its last frame says."""

    def __init__(self, **said: Any) -> None:
        self.said = said


class Handler:
    """One run of a handler."""

    def __init__(self, seed: int, execution: str, inputs: dict[str, Any]) -> None:
        self.execution = execution
        self.pick = random.Random(f"{seed} {execution} {inputs}")
        self.inputs = inputs
        self.calls = 0
        self.children: list[str] = []
        self.created: list[str] = []
        self.held: set[str] = set()

    def play(self) -> Play:
        """Yield what it says; wants an answer after each call, effect and settle."""
        try:
            for _ in range(self.pick.randrange(_CALLS_MAX + 1)):
                yield from self._step()
            if self.pick.random() < 0.15:
                raise _Left(outcome="error", failure={"type": "ValueError", "message": "drawn"})
            yield {"op": "ended", "outcome": "success", "again": True, "returned": {"drawn": self.pick.randrange(100)}}
        except _Left as left:
            yield {"op": "ended", **left.said}

    def _step(self) -> Play:
        steps: list[Callable[[], Play]] = [
            *(self._sleep, self._sleep, self._log, self._own, self._own, self._shared, self._lock, self._lock),
            *(self._task, self._message, self._wait, self._run, self._other, self._effect, self._again),
        ]
        if self.inputs["depth"] < _DEPTH_MAX:
            steps += [self._flow, self._flow, self._flow]
        yield from self.pick.choice(steps)()

    def _call(self, kind: str, target: str = "", **args: Any) -> Generator[Frame, dict[str, Any], Any]:
        self.calls += 1
        said = {"op": "call", "call": self.calls, "kind": kind, "target": target, "args": args, "where": "a.py:1"}
        answer = yield said
        if kind not in UNREAD:
            self.pick.seed(zlib.crc32(msgspec.json.encode(answer), self.pick.getrandbits(32)))
        if (failure := answer.get("failure")) is None:
            return answer["result"]
        if failure["type"] == "ExecutionCancel":
            raise _Left(outcome="cancelled", met_cancel=True)
        if self.pick.random() < 0.3:
            raise _Left(outcome="error", failure={"type": failure["type"], "message": failure["message"]})
        return None

    def _sleep(self) -> Play:
        yield from self._call("sleep", seconds=self.pick.choice((0, 0.01, 1, 5, 100)))

    def _log(self) -> Play:
        self.calls += 1
        line = [self.pick.randrange(100)]
        yield {"op": "log", "call": self.calls, "level": "INFO", "args": line, "kwargs": {}}

    def _own(self) -> Play:
        match self.pick.randrange(4):
            case 0:
                keys = {"x": self.pick.randrange(9)}
                yield from self._call("set_output", execution=self.execution, keys=keys)
            case 1:
                yield from self._call("append_output", execution=self.execution, key="y", value=1)
            case 2:
                yield from self._call(self.pick.choice(("now", "random")))
            case _:
                yield from self._call("step", "s", result=self.pick.randrange(9))

    def _shared(self) -> Play:
        name = self.pick.choice(("s0", "s1"))
        match self.pick.randrange(4):
            case 0:
                yield from self._call("setting.get", name, fields=["value"])
            case 1:
                yield from self._call("setting.append", name, item=self.pick.randrange(9))
            case 2:
                yield from self._call("setting.exists", name)
            case _:
                yield from self._call("setting.save", name, fields={"value": [self.pick.randrange(9)]})

    def _lock(self) -> Play:
        name = self.pick.choice(LOCKS)
        if name in self.held:
            self.held.discard(name)
            yield from self._call("unlock", name)
        elif self.pick.randrange(4):
            if (yield from self._refusable("lock", name, timeout=self.pick.choice((None, 0.5, 20)))):
                self.held.add(name)
        else:
            yield from self._call("setting.acquire", "unowned", timeout=3)
            yield from self._call("setting.release", "unowned")

    def _refusable(self, kind: str, target: str, **args: Any) -> Generator[Frame, dict[str, Any], bool]:
        """A call whose refusal is told from its result, which is null."""
        self.calls += 1
        answer = yield {"op": "call", "call": self.calls, "kind": kind, "target": target, "args": args}
        failure = answer.get("failure")
        if failure is not None and failure["type"] == "ExecutionCancel":
            raise _Left(outcome="cancelled", met_cancel=True)
        return failure is None

    def _flow(self) -> Play:
        mode, inputs = self.pick.choice(MODES), {"depth": self.inputs["depth"] + 1, "generation": 0}
        init = {"orphan": False} if self.pick.random() < 0.3 else {}
        result = yield from self._call("flow", self.pick.choice(FLOWS), inputs=inputs, mode=mode, init=init)
        if result is not None:
            (self.created if mode == "create" else self.children).append(result["id"])

    def _task(self) -> Play:
        mode = self.pick.choice(("start", "ALL_ENDED", "ALL_SUCCEEDED"))
        result = yield from self._call("task", self.pick.choice(TASKS), inputs={}, mode=mode)
        if result is not None:
            self.children.append(result["id"])

    def _run(self) -> Play:
        if self.created:
            child = self.created.pop()
            yield from self._call("run", "", execution=child, mode=self.pick.choice(MODES[1:]))
            self.children.append(child)

    def _wait(self) -> Play:
        if self.children:
            some = self.children[-2:]
            timeout = self.pick.choice((None, 0.3, 50))
            yield from self._call("wait", "", executions=some, return_when=self.pick.choice(MODES[2:]), timeout=timeout)

    def _message(self) -> Play:
        wait = self.pick.random() < 0.5
        body = {"properties": {"ok": {"type": "boolean"}}}
        yield from self._call(
            "message", "well?", message_type="INFO", body=body, wait=wait, timeout=8 if wait else None
        )

    def _other(self) -> Play:
        if self.children:
            child = self.children[-1]
            match self.pick.randrange(3):
                case 0:
                    yield from self._call("cancel", execution=child)
                case 1:
                    yield from self._call("get", execution=child, fields=["id", "name"])
                case _:
                    yield from self._call("set_output", execution=child, keys={"z": 1})

    def _effect(self) -> Play:
        if self.pick.random() < 0.2:
            yield {"op": "effect", "event": "open", "file": "a.py", "line": 1}
        else:
            yield {"op": "settle"}

    def _again(self) -> Play:
        generation = self.inputs["generation"] + 1
        if generation < _GENERATIONS_MAX and self.pick.random() < 0.3:
            yield from self._call("continue_as_new", inputs=self.inputs | {"generation": generation})
            raise _Left(outcome="continued")


@dataclasses.dataclass
class Ways:
    """How processes of one life of the daemon behave."""

    pick: random.Random
    death: float  # how likely one dies at a frame
    slow: float  # how likely it takes seconds
    crowded: bool = False  # whether executions follow others


class Watching:
    """What a world wants to know of its processes; see ``world``."""

    seed: int

    def process_begins(self, process: Process, execution: str) -> None:
        """It was told to run an execution."""

    def process_told(self, execution: str, call: int, answer: bytes, *, replayed: bool) -> None:
        """A call was answered."""


class Process:
    """See ``flow_process.Turn``; the process is one's own once it is one's turn."""

    burial_s = 10.0
    overdrawn = False

    def __init__(self, ways: Ways, watching: Watching, pid: int, *, follows: bool = False) -> None:
        self._awaits_turn = follows
        self._taken_back: flow_process.TakenBack | None = None
        self._loop = asyncio.get_running_loop()
        self.exited: asyncio.Future[int] = self._loop.create_future()
        self.pid = pid
        self.python = ""
        self.execution = ""  # that it runs
        self._ways = ways
        self._watching = watching
        self._killed = False
        self._closed = ""
        self._inbox: collections.deque[bytes] = collections.deque()
        self._frames: collections.deque[bytes] = collections.deque()
        self._waiter: asyncio.Future[None] | None = None
        self._play: Play | None = None
        self._awaits: Frame = {}
        self._replayed = 0

    @property
    def alive(self) -> bool:
        return not self._closed and not self._killed

    def listen(self, listener: object) -> None:
        pass

    def resume(self, stream: str) -> None:
        pass

    def locate(self, snapshot: Path) -> str:
        return str(snapshot)

    def _delay_s(self) -> float:
        pick = self._ways.pick
        return pick.uniform(0.5, 20) if pick.random() < self._ways.slow else pick.choice((0.0, 0.0001, 0.0007, 0.003))

    def start(self, text: bytes) -> None:
        if not self._awaits_turn:
            self._put(text)
        elif self._ways.pick.random() < 0.4:
            self._loop.call_later(self._delay_s(), self._take_back)
        else:
            self._loop.call_later(self._delay_s(), self._begin, text)

    def _begin(self, text: bytes) -> None:
        if self._taken_back is None:
            self._awaits_turn = False
            self._put(text)

    def _take_back(self) -> None:
        if self._taken_back is None:
            self._taken_back = flow_process.TakenBack("another execution took long")
            self._gone("is another's")

    def send(self, frame: bytes) -> None:
        self._put(frame[frames.HEADER.size :])

    def _put(self, text: bytes) -> None:
        if not self._closed:
            self._inbox.append(text)
            if len(self._inbox) == 1:
                self._loop.call_later(self._delay_s(), self._take)

    async def receive(self) -> protocol.Said:
        while not self._frames:
            if self._taken_back is not None:
                raise self._taken_back
            if self._closed:
                raise EOFError(self._closed)
            self._waiter = self._loop.create_future()
            await self._waiter
        return protocol.decode(self._frames.popleft())

    def kill(self) -> None:
        if self._awaits_turn:
            self._take_back()
        elif not self._killed:
            self._killed = True
            self._loop.call_later(self._ways.pick.choice((0.0, 0.002, 0.5)), self._gone, "was killed")

    def dismiss(self) -> None:
        self._killed = True
        self._gone("was dismissed")

    def _gone(self, how: str) -> None:
        self.execution = ""
        if not self.exited.done():
            self.exited.set_result(9)
        self._closed = self._closed or f"the flow process {how}"
        self._wake()

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    def _take(self) -> None:
        """Work on the next frame that came, and go on until something is to be answered."""
        if not self.alive:
            return
        self._work(msgspec.json.decode(self._inbox[0]), self._inbox[0])
        self._inbox.popleft()
        self._wake()
        if self._inbox:
            self._loop.call_later(self._delay_s(), self._take)

    def _work(self, told: dict[str, Any], text: bytes) -> None:
        said: Frame
        if "execution" in told:
            this = told["execution"]
            self.execution, self._replayed = this["id"], told["replayed"]
            self._watching.process_begins(self, self.execution)
            self._play = Handler(self._watching.seed, self.execution, this["input_value"]).play()
            said = next(self._play)
        elif "cancel" in told or not self._awaits:
            return  # it meets that at its next call
        else:
            call = self._awaits.get("call", 0)
            if call and self._awaits["kind"] not in UNREAD:
                self._watching.process_told(self.execution, call, text, replayed=call <= self._replayed)
            assert self._play is not None
            said = self._play.send(told)
        self._awaits = {}
        while True:
            if self._ways.pick.random() < self._ways.death:
                self._loop.call_soon(self._gone, "died")
                self._killed = True
                return
            self._frames.append(msgspec.json.encode(said))
            if said["op"] == "ended":
                self.execution, self._play = "", None
                return
            if said["op"] != "log":
                self._awaits = said
                return
            assert self._play is not None
            said = self._play.send({})


class Pool:
    """See ``processes.Processes``."""

    def __init__(self, ways: Ways, watching: Watching) -> None:
        self._ways = ways
        self._watching = watching
        self._idle: dict[object, list[Process]] = {}
        self._count = 0

    def take(self, kind: object, *, python: str = "", fresh: bool = False, alone: bool = False) -> Process:
        idle = self._idle.get(kind, [])
        while idle and not fresh:
            process = idle.pop()
            if process.alive:
                return process
        self._count += 1
        follows = self._ways.crowded and not (fresh or alone) and self._ways.pick.random() < 0.5
        return Process(self._ways, self._watching, self._count, follows=follows)

    def expects_quick(self, state: object) -> bool:
        return self._ways.crowded and self._ways.pick.random() < 0.5

    def give_back(self, kind: object, process: Process) -> None:
        self._idle.setdefault(kind, []).append(process)
