"""Room to run: who holds a slot, who waits for one.

A slot is membership in a set, never a counter, so it cannot leak by being counted twice: when an execution's
supervision ends, its id leaves the set. An execution that waits (for a child, a moment, a person) holds none, so
parents cannot starve the children they wait for; when it is to go on it comes before everything that has not begun.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable


class Slots:
    """At most ``limit`` executions at a time; ``on_room`` is called when one who has not begun may enter."""

    def __init__(self, limit: int, on_room: Callable[[], None]) -> None:
        self.limit = limit
        self._holders: set[str] = set()
        self._returning: deque[tuple[str, asyncio.Future[None]]] = deque()
        self._on_room = on_room

    @property
    def free(self) -> bool:
        """Whether one who has not begun may enter now."""
        return len(self._holders) < self.limit and not self._returning

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

    def enter(self, execution: str) -> None:
        """Take a slot that is ``free``."""
        assert self.free
        self._holders.add(execution)

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
        self._fill()

    def _fill(self) -> None:
        while self._returning and len(self._holders) < self.limit:
            returning, place = self._returning.popleft()
            if not place.done():
                self._holders.add(returning)
                place.set_result(None)
        if self.free:
            self._on_room()
