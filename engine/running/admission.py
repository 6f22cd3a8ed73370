"""The line of executions that have not begun: those of a higher priority first, else in the order they came."""

from __future__ import annotations

from collections import deque

from . import live


class Line:
    """Who waits for a slot."""

    def __init__(self) -> None:
        self._by_priority: dict[int, deque[live.Live]] = {}
        self._first: list[int] = []  # the priorities that somebody has, the highest first

    def __len__(self) -> int:
        return sum(map(len, self._by_priority.values()))

    def __bool__(self) -> bool:
        return bool(self._first)

    @property
    def first(self) -> live.Live:
        """Whose turn it is."""
        return self._by_priority[self._first[0]][0]

    def append(self, subject: live.Live) -> None:
        """Stand in line."""
        priority = subject.state.terms.priority
        same = self._by_priority.get(priority)
        if same is None:
            same = self._by_priority[priority] = deque()
            self._first = sorted(self._by_priority, reverse=True)
        same.append(subject)

    def popleft(self) -> live.Live:
        """Take the first out of the line."""
        same = self._by_priority[self._first[0]]
        subject = same.popleft()
        if not same:
            del self._by_priority[self._first.pop(0)]
        return subject

    def clear(self) -> None:
        """Send everybody away."""
        self._by_priority.clear()
        self._first.clear()
