"""Room to run: who holds a slot, who waits for one.

A slot is membership in a set, never a counter, so it cannot leak by being counted twice: when an execution's
supervision ends, its id leaves the set. An execution that waits (for a child, a moment, a person) holds none, so
parents cannot starve the children they wait for; when it is to go on it comes before everything that has not begun.

Few may be new at the same time. More than the cores can serve only push each other aside and fill the caches with as
many processes: with 32 callers on two cores, 8 at a time gave 16 % more executions a second than 32, each for a tenth
less CPU. Who has been there for a moment is new no more; so those that wait for something outside hold up nobody. Quick
ones are counted for themselves and may be more, because they share processes, see ``workers.processes``.
"""

from __future__ import annotations

import asyncio
import sys
from collections import deque
from collections.abc import Callable

#: So long an execution is new. Trivial ones end within that, also while all that may be new are.
NEW_S = 0.01


class _Newcomers:
    """Those who entered a moment ago. When there are as many as may be, ``on_room`` tells that one is new no more."""

    def __init__(self, most: int, on_room: Callable[[], None]) -> None:
        self.most = most
        self._since: dict[str, float] = {}  # in that order
        self._on_room = on_room
        self._aging: asyncio.TimerHandle | None = None  # until the first is new no more, if that matters

    @property
    def full(self) -> bool:
        """Whether nobody else may be new."""
        return len(self._since) >= self.most

    def add(self, execution: str) -> None:
        """It enters now."""
        self._since[execution] = asyncio.get_running_loop().time()
        self._watch_age()

    def discard(self, execution: str) -> None:
        """It left; harmless if it was not new."""
        self._since.pop(execution, None)

    def _watch_age(self) -> None:
        if self.full and self._aging is None:
            first_s = next(iter(self._since.values()))
            self._aging = asyncio.get_running_loop().call_at(first_s + NEW_S, self._age, first_s)

    def _age(self, since_s: float) -> None:
        """Those who came at about that time are new no more; if they left before, it is the turn of others."""
        self._aging = None
        for execution in [one for one, entered_s in self._since.items() if entered_s <= since_s + NEW_S / 10]:
            del self._since[execution]
        self._watch_age()
        self._on_room()


class Slots:
    """At most ``limit`` executions at a time; ``on_room`` is called when one who has not begun may enter.

    No more than ``new_max`` of them may be new, and ``quick_max`` more of those that are soon over."""

    def __init__(
        self, limit: int, on_room: Callable[[], None], *, new_max: int = sys.maxsize, quick_max: int = 0
    ) -> None:
        self.limit = limit
        self._holders: set[str] = set()
        self._new = _Newcomers(new_max, self._fill)
        self._quick = _Newcomers(quick_max, self._fill)
        self._returning: deque[tuple[str, asyncio.Future[None]]] = deque()
        self._on_room = on_room

    def has_room(self, *, quick: bool = False) -> bool:
        """Whether one who has not begun may enter now."""
        newcomers = self._quick if quick else self._new
        return len(self._holders) < self.limit and not newcomers.full and not self._returning

    def __contains__(self, execution: str) -> bool:
        return execution in self._holders

    @property
    def held(self) -> int:
        """How many slots are taken."""
        return len(self._holders)

    def resize(self, limit: int) -> None:
        """Have so many from now on. If more have one, nobody has to leave; the next enters when there is room again."""
        self.limit = limit
        self._fill()

    def enter(self, execution: str, *, quick: bool = False) -> None:
        """Take a slot for which there is room."""
        assert self.has_room(quick=quick)
        self._holders.add(execution)
        newcomers = self._quick if quick else self._new
        if newcomers.most < self.limit:
            newcomers.add(execution)

    async def come_back(self, execution: str) -> None:
        """Take a slot again after waiting, before any newcomer; first come, first served."""
        if len(self._holders) < self.limit and not self._returning:
            self._holders.add(execution)
            return
        place: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._returning.append((execution, place))
        try:
            await place
        except asyncio.CancelledError:
            if place.done() and not place.cancelled():
                self.leave(execution)
            raise

    def leave(self, execution: str) -> None:
        """Give the slot up; harmless if none is held."""
        self._holders.discard(execution)
        self._new.discard(execution)
        self._quick.discard(execution)
        self._fill()

    def _fill(self) -> None:
        while self._returning and len(self._holders) < self.limit:
            returning, place = self._returning.popleft()
            if not place.done():
                self._holders.add(returning)
                place.set_result(None)
        if len(self._holders) < self.limit and not self._returning:
            self._on_room()
