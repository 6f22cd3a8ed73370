"""The headers of the request that started an execution: a dict whose look-up does not care for case."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


class Headers(dict[str, Any]):
    """Keys are lower-case inside, so it equals and is written as the plain dict it came from."""

    def __init__(self, headers: Mapping[str, Any]) -> None:
        super().__init__({name.lower(): value for name, value in headers.items()})

    def __getitem__(self, name: str) -> Any:
        return super().__getitem__(_folded(name))

    def __setitem__(self, name: str, value: Any) -> None:
        super().__setitem__(_folded(name), value)

    def __delitem__(self, name: str) -> None:
        super().__delitem__(_folded(name))

    def __contains__(self, name: object) -> bool:
        return super().__contains__(_folded(name))

    def get(self, name: str, default: Any = None) -> Any:
        """Return a header's value, ``default`` if it is not there."""
        return super().get(_folded(name), default)

    def pop(self, name: str, *default: Any) -> Any:
        """Take a header out and return its value; raises ``KeyError`` without a default."""
        return super().pop(_folded(name), *default)

    def setdefault(self, name: str, default: Any = None) -> Any:
        """Return a header's value, set to ``default`` if it was not there."""
        return super().setdefault(_folded(name), default)


def _folded(name: Any) -> Any:
    return name.lower() if isinstance(name, str) else name
