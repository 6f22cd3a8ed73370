"""Tasks as tests play them: what a flow asks the world to do is answered by the test, and the world is left alone.

Inputs are checked as always, by the type itself where it is there. A task that nobody plays fails, and the test is told
of it even if the flow makes light of that. It implements ``ports.Tasks`` over the real ones.
"""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec

from ...engine import errors, ports, values
from ...engine.running import likeness
from . import recordings

JSON = dict[str, Any]
#: What a task comes to: its output, an exception it fails with, or what makes either of the inputs.
Answer = Mapping[str, Any] | Exception | Callable[[JSON], Any]


class StandIn:
    """One task that is played, for all calls that fit. ``calls`` are the inputs of those there were."""

    def __init__(self, type_: str, answers: Sequence[Answer], wanted: Mapping[str, Any], *, once: bool) -> None:
        self.type = type_.upper()
        self.calls: list[JSON] = []
        self._answers = list(answers)
        self._wanted = dict(wanted)
        self._once = once  # each answer is for one call; else the last one is for all that follow

    def takes(self, inputs: JSON) -> bool:
        """Return whether a call with these inputs is for this one."""
        fits = all(name in inputs and likeness.like(value, inputs[name]) for name, value in self._wanted.items())
        return fits and (not self._once or len(self.calls) < len(self._answers))

    def take(self, inputs: JSON) -> Answer:
        """Note a call and return what it comes to."""
        self.calls.append(inputs)
        return self._answers[min(len(self.calls), len(self._answers)) - 1]


class StandIns:
    """All that are played."""

    def __init__(self) -> None:
        self.folder = Path()  # that files are relative to
        self.reset()

    def reset(self) -> None:
        """Forget all of them."""
        self._played: list[StandIn] = []
        self._real: set[str] = set()
        #: What was asked for and nobody played, in words, by the task's execution.
        self.unplayed: dict[str, str] = {}

    def __call__(self, type_: str, /, *answers: Answer, **wanted: Any) -> StandIn:
        """Play a task type, for calls whose inputs have the values ``wanted``.

        Each answer is for one call, the last one for all that follow. What is said later goes before what was said
        earlier."""
        if not answers:
            raise TypeError(
                f"say what {type_} comes to: its output as a dict, an exception, or a function of its inputs"
            )
        return self._add(StandIn(type_, answers, wanted, once=False))

    def once(self, type_: str, inputs: Mapping[str, Any], answer: Answer) -> StandIn:
        """Play one call whose inputs have these values; what is masked in them can be anything."""
        return self._add(StandIn(type_, [answer], inputs, once=True))

    def recorded(self, file: str | Path) -> None:
        """Play every task of a recording once, for the inputs it had, a file beside the test."""
        for task in reversed(recordings.tasks(self.folder / file)):  # the first one of equal calls goes first
            self.once(task.type, task.inputs, task.answer)

    def allow(self, *types: str) -> None:
        """Let these types be what they are: they act on the world."""
        self._real |= {type_.upper() for type_ in types}

    def over(self, real: ports.Tasks) -> ports.Tasks:
        """Return the tasks of a daemon whose own ones are ``real``."""
        return _Stage(real, self)

    def find(self, type_: str, inputs: JSON) -> StandIn | None:
        """Return who plays a call, None if nobody does."""
        return next((one for one in reversed(self._played) if one.type == type_ and one.takes(inputs)), None)

    def is_real(self, type_: str) -> bool:
        """Return whether the type is let be what it is."""
        return type_ in self._real

    def plays(self, type_: str) -> bool:
        """Return whether there is somebody for the type at all."""
        return any(one.type == type_ for one in self._played)

    def _add(self, one: StandIn) -> StandIn:
        self._played.append(one)
        return one


@dataclasses.dataclass(frozen=True, slots=True)
class _Stage:
    """See ``ports.Tasks``."""

    _real: ports.Tasks
    _stand_ins: StandIns

    def types(self) -> Sequence[ports.TaskType]:
        """All types there are."""
        return self._real.types()

    async def ready(self, type: str) -> None:  # noqa: A002 - as in ports
        """Have the type itself at hand."""
        await self._real.ready(type)

    def prepare(self, type: str, inputs: bytes) -> ports.PreparedTask:  # noqa: A002 - as in ports
        """Have the type check the inputs if it is there; one that is not may be played all the same."""
        given: JSON = {name: value for name, value in msgspec.json.decode(inputs).items() if value is not None}
        known: ports.PreparedTask | None = None
        try:
            known = self._real.prepare(type, inputs)
        except errors.NotFound:
            if not self._stand_ins.plays(type.upper()):
                raise
        name = known.type if known is not None else type.upper()
        if known is not None and self._stand_ins.is_real(name):
            return known
        return _Played(name, given, self._stand_ins, known)


@dataclasses.dataclass(frozen=True, slots=True)
class _Played:
    """See ``ports.PreparedTask``."""

    type: str
    _inputs: JSON
    _stand_ins: StandIns
    _known: ports.PreparedTask | None

    @property
    def timeout_s(self) -> float | None:
        """As the type says."""
        return self._known.timeout_s if self._known is not None else None

    @property
    def idempotent(self) -> bool:
        """It may be played again."""
        return True

    @property
    def secret_inputs(self) -> frozenset[str]:
        """As the type says."""
        return self._known.secret_inputs if self._known is not None else frozenset()

    async def run(self, context: ports.TaskContext) -> bytes:
        """Return the answer; raises ``TaskFailed`` for one that is an exception, and where there is none."""
        found = self._stand_ins.find(self.type, self._inputs)
        if found is None:
            text = (
                f"nobody plays the task {self.type} with the inputs {', '.join(self._inputs) or '(none)'}: "
                f"fake_task({self.type!r}, {{…}}) does, and fake_task.allow({self.type!r}) lets it act on the world"
            )
            self._stand_ins.unplayed[context.execution_id] = text
            raise errors.TaskFailed(text)
        answer: Any = found.take(self._inputs)
        if callable(answer):
            answer = await asyncio.to_thread(_made, answer, self._inputs)
        if isinstance(answer, errors.HeadraceError):
            raise answer
        if isinstance(answer, Exception):
            raise errors.TaskFailed(str(answer) or type(answer).__name__)
        if not isinstance(answer, Mapping):
            raise errors.TaskFailed(f"a test answers {self.type} with {type(answer).__name__}: an output is a dict")
        context.log("DEBUG", "played by a test")
        return values.encode(dict(answer), f"the output of {self.type}")


def _made(answer: Callable[[JSON], Any], inputs: JSON) -> Any:
    """Have a test's function answer; what it raises is how the task fails."""
    try:
        return answer(dict(inputs))
    except Exception as error:
        raise errors.TaskFailed(str(error) or type(error).__name__) from error
