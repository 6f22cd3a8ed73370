"""Locks: who holds them, who waits, in which order, and whether a wait could never end. Folded from events.

Owns: the one namespace of locks; two ways to hold one. An *owned* lock (``this.lock``) is given back by its execution
alone, at the latest when that ends. One taken through a setting has no owner: any execution may release it, and it
outlives the one that took it. Refuses: releasing another's owned lock. Who waits is no event; it is forgotten with the
daemon, and each wait is entered anew when its execution goes on.

The keeper takes a lock so, in one step of the event loop: ``enqueue``; if ``next_for`` is that waiter, append and
apply ``lock.taken`` and ``leave``; else wait. After each release and each ``leave`` it asks ``next_for`` again. A
waiter who is late never overtakes: first come, first served. When an execution ends, its waits (``wanted_by``) leave
before its locks (``held_by``) are released, or it would be given them anew.

Everything here takes constant time, but for lists, and ``deadlock`` and ``circle``, which follow each wait once.
"""

from __future__ import annotations

import collections
from collections.abc import Callable, Iterable, Iterator

import msgspec

from .. import errors, events


class Holder(msgspec.Struct, frozen=True):
    """Who has a lock, and since when."""

    name: str
    execution: str
    owned: bool
    since: str
    call: int = 0  # the call of that execution which took it


class Waiter(msgspec.Struct, frozen=True, eq=False):
    """One wait for a lock; two with the same words are two. ``deadline``: it ends by itself."""

    name: str
    execution: str
    owned: bool
    deadline: bool


class Locks:
    """All locks that somebody holds or waits for."""

    def __init__(self) -> None:
        self._holders: dict[str, Holder] = {}
        self._owned: dict[str, dict[str, None]] = {}  # execution → names, in the order of taking
        # Ordered and not plain dicts: the first of a dict that was emptied from its front is slow to find.
        self._queues: dict[str, collections.OrderedDict[Waiter, None]] = {}
        self._waits: dict[str, dict[Waiter, None]] = {}  # of each execution

    # -- who holds --------------------------------------------------------------------------------------------------

    def apply(self, event: events.LockEvent, at: str) -> None:
        """Change the state as ``event`` says; raises ``ValueError`` for a lock that is taken from its holder."""
        match event:
            case events.LockTaken():
                if event.name in self._holders:
                    raise ValueError(f"lock {event.name!r} was taken twice")
                self._holders[event.name] = Holder(event.name, event.execution, event.owned, at, event.call)
                if event.owned:
                    self._owned.setdefault(event.execution, {})[event.name] = None
            case events.LockCarried():
                self._release(event.name)
                self._holders[event.name] = Holder(event.name, event.execution, event.owned, event.since)
                if event.owned:
                    self._owned.setdefault(event.execution, {})[event.name] = None
            case events.LockReleased():
                self._release(event.name)

    def _release(self, name: str) -> None:
        holder = self._holders.pop(name, None)
        if holder is not None and holder.owned:
            owned = self._owned[holder.execution]
            del owned[name]
            if not owned:
                del self._owned[holder.execution]

    def carried(self) -> list[events.LockCarried]:
        """Return all locks that are held, in the order of taking: applied in that order they change nothing."""
        return [
            events.LockCarried(name=one.name, execution=one.execution, owned=one.owned, since=one.since)
            for one in self._holders.values()
        ]

    def holder(self, name: str) -> Holder | None:
        """Return who has the lock, None if it is free."""
        return self._holders.get(name)

    def held_by(self, execution: str) -> list[str]:
        """Return the owned locks of an execution, which end with it, the last one taken first."""
        return list(reversed(self._owned.get(execution, {})))

    def all(self) -> list[Holder]:
        """Return all locks that are held, by name."""
        return [self._holders[name] for name in sorted(self._holders)]

    def releasable(self, name: str, execution: str) -> bool:
        """Return whether there is something to release; raises ``NotAllowed`` if that is not up to ``execution``."""
        holder = self._holders.get(name)
        if holder is not None and holder.owned and holder.execution != execution:
            raise errors.NotAllowed(
                f"lock {name!r} belongs to execution {holder.execution}, which alone can give it back",
                hint="it does when it leaves its `with this.lock(…)`, or ends",
            )
        return holder is not None

    # -- who waits --------------------------------------------------------------------------------------------------

    def enqueue(self, waiter: Waiter) -> None:
        """Let ``waiter`` stand at the end of its lock's line."""
        self._queues.setdefault(waiter.name, collections.OrderedDict())[waiter] = None
        self._waits.setdefault(waiter.execution, {})[waiter] = None

    def leave(self, waiter: Waiter) -> None:
        """Take ``waiter`` out of the line: it has the lock, or does not want it any more. Harmless if it is gone."""
        for waiters, key in ((self._queues, waiter.name), (self._waits, waiter.execution)):
            line = waiters.get(key)
            if line is not None and waiter in line:
                del line[waiter]
                if not line:
                    del waiters[key]

    def next_for(self, name: str) -> Waiter | None:
        """Return whose turn it is to take the lock, None while somebody has it or nobody wants it."""
        queue = self._queues.get(name)
        return next(iter(queue)) if queue and name not in self._holders else None

    def waiting(self, name: str) -> list[Waiter]:
        """Return who waits for a lock, the first in line first."""
        return list(self._queues.get(name, ()))

    def wanted_by(self, execution: str) -> list[Waiter]:
        """Return what an execution waits for."""
        return list(self._waits.get(execution, ()))

    # -- waits without end ------------------------------------------------------------------------------------------

    def deadlock(self, waiter: Waiter, waits_for: Callable[[str], Iterable[str]]) -> list[str]:
        """Return, in words, the circle that makes waiting pointless if ``waiter`` waits; empty if there is none.

        ``waits_for`` says which executions another one waits for *all* of, and without a deadline. A lock without
        an owner makes no circle: anybody may release it, even one who is not in the circle."""
        if waiter.deadline:
            return []
        return self._circle(waiter.execution, self._waited_for(waiter), waits_for)

    def circle(self, execution: str, waits_for: Callable[[str], Iterable[str]]) -> list[str]:
        """Return the circle of waits that ``execution`` is in already; empty if there is none.

        For one that begins to wait for others while somebody waits for its locks."""
        return self._circle(execution, self._next(execution, waits_for), waits_for)

    def _circle(
        self, start: str, first: Iterator[tuple[str, str]], waits_for: Callable[[str], Iterable[str]]
    ) -> list[str]:
        """Follow the waits from ``start``, depth first, until they come back to it."""
        seen: set[str] = set()
        path: list[str] = []
        open_: list[Iterator[tuple[str, str]]] = [first]
        while open_:
            for target, words in open_[-1]:
                if target == start:
                    return [*path, words]
                if target not in seen:
                    seen.add(target)
                    path.append(words)
                    open_.append(self._next(target, waits_for))
                    break
            else:
                open_.pop()
                if path:
                    path.pop()
        return []

    def _next(self, execution: str, waits_for: Callable[[str], Iterable[str]]) -> Iterator[tuple[str, str]]:
        for waiter in self._waits.get(execution, ()):
            if not waiter.deadline:
                yield from self._waited_for(waiter)
        for other in waits_for(execution):
            yield other, f"execution {execution} waits for execution {other}"

    def _waited_for(self, waiter: Waiter) -> Iterator[tuple[str, str]]:
        holder = self._holders.get(waiter.name)
        if holder is not None and holder.owned:
            yield (
                holder.execution,
                f"execution {waiter.execution} waits for lock {waiter.name!r}, which execution {holder.execution} has",
            )
