"""What a route touches, and whether somebody who is limited to some flows may touch it.

A route that does not say what it touches touches everything: whoever is limited is refused there. To them, what is not
theirs does not exist: they get the answer for something that is not there, and cannot tell the two apart. An execution
is theirs if its flow is, or the flow of one above it. Called by ``access``, and by handlers that list.
"""

from __future__ import annotations

import collections
import enum
from collections.abc import Iterable, Mapping
from typing import Protocol, TypeVar

from ..engine import errors, ports
from ..engine.running import asking, dispatcher
from . import principals

#: Facts about executions that are remembered; they never change.
_FACTS_MAX = 10_000
#: As deep as executions go; a chain that is longer is none of ours.
_DEPTH_MAX = 1000


class Identified(Protocol):
    """Whatever is listed by the id of an execution."""

    @property
    def id(self) -> str:
        """The execution's id."""


Listed = TypeVar("Listed", bound=Identified)


class Reach(enum.Enum):
    """What the handler of a route touches."""

    EVERYTHING = "everything"
    GENERAL = "nothing that belongs to a flow"
    FLOW = "the flow {name}"
    EXECUTION = "the execution {id}"
    MESSAGE = "the message {id}"
    FILTERED = "what its sender may touch: the handler sees to it"


class Subjects:
    """Tells what belongs to which flow."""

    def __init__(self, flows: ports.Flows, work: dispatcher.Dispatcher, questions: asking.Asking) -> None:
        self._flows = flows
        self._work = work
        self._asking = questions
        self._facts: collections.OrderedDict[str, tuple[str, str]] = collections.OrderedDict()

    async def check(self, who: principals.Principal, reach: Reach, named: Mapping[str, str]) -> None:
        """Raise ``NotAllowed`` or ``NotFound`` unless ``who`` may touch what a request names."""
        if not who.limited or reach in (Reach.GENERAL, Reach.FILTERED):
            return
        match reach:
            case Reach.FLOW:
                self.check_flow(who, named["name"])
            case Reach.EXECUTION:
                if not await self.is_theirs(who, named["id"]):
                    raise errors.NotFound(f"there is no execution {named['id']!r}")
            case Reach.MESSAGE:
                asked_by = self._asking.find(named["id"]).execution
                if not asked_by or not await self.is_theirs(who, asked_by):
                    raise errors.NotFound(f"there is no message {named['id']!r}")
            case _:
                raise errors.NotAllowed("this token is limited to some flows, and this concerns more than those")

    def check_flow(self, who: principals.Principal, name: str) -> None:
        """Raise ``NotFound`` for a flow that is not theirs, as for one that is not there."""
        if who.limited and not who.may_touch(self._flow_name(name)):
            raise errors.NotFound(f"there is no flow {name!r}", hint="`headrace flows` lists what there is")

    def _flow_name(self, name: str) -> str:
        """Return the name of the flow with that name or id; an unknown name is one, too: it may become a flow."""
        try:
            return self._flows.find(name).name
        except errors.NotFound:
            return name

    async def is_theirs(self, who: principals.Principal, execution: str) -> bool:
        """Whether an execution is theirs to see; one that does not exist is not."""
        for _ in range(_DEPTH_MAX if who.limited else 0):
            try:
                flow, parent = await self._facts_of(execution)
            except errors.NotFound:
                return False
            if flow and who.may_touch(flow):
                return True
            if not parent:
                return False
            execution = parent
        return not who.limited

    async def theirs(self, who: principals.Principal, found: Iterable[Listed]) -> list[Listed]:
        """Return those of the executions that ``who`` may see."""
        return [one for one in found if await self.is_theirs(who, one.id)]

    async def _facts_of(self, execution: str) -> tuple[str, str]:
        """Return the flow of an execution and the execution above it."""
        known = self._facts.get(execution)
        if known is None:
            state = await self._work.load(execution)
            known = self._facts[execution] = (state.flow_name, state.parent)
            if len(self._facts) > _FACTS_MAX:
                self._facts.popitem(last=False)
        return known
