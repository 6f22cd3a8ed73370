"""What all handles have in common: reading, and keeping what was changed until it is saved.

A handle holds no truth. It remembers three things: what it read and need not read again (``_known``), what was ``set``
and not yet saved (``_pending``), and which lists and dicts it gave out (``_lent``), so that one changed in place can be
told from one that was only looked at.
"""

from __future__ import annotations

import json
from typing import Any, ClassVar

from . import channel as channels
from . import exceptions


class Handle:
    """Something of the daemon's that has fields."""

    __slots__ = ("_channel", "_known", "_lent", "_pending")

    #: Other names of fields.
    _ALIASES: ClassVar[dict[str, str]] = {}

    def __init__(self, channel: channels.Channel, known: dict[str, Any]) -> None:
        self._channel = channel
        self._known = known
        self._pending: dict[str, Any] = {}
        self._lent: dict[str, tuple[Any, str]] = {}

    def get(self, *fields: str) -> Any:
        """Return one field's value, or a tuple of several in the order asked.

        What was ``set`` comes first; what cannot have changed is not read again.

        Raises ``ResourceNotFoundError`` if it does not exist, ``InvalidInputError`` for a field there is not.
        """
        return self._several(fields, fresh=False)

    def load(self, *fields: str) -> Any:
        """Return fields as ``get`` does, always read anew.

        What was ``set`` and not yet saved is kept for ``save``.
        """
        return self._several(fields, fresh=True)

    def _several(self, fields: tuple[str, ...], *, fresh: bool) -> Any:
        names = [self._ALIASES.get(field, field) for field in fields]
        if fresh:
            values = self._fetch(names) if names else {}
        else:
            missing = [name for name in names if name not in self._pending and name not in self._known]
            values = self._known | (self._fetch(missing) if missing else {}) | self._pending
        return values[names[0]] if len(names) == 1 else tuple(values[name] for name in names)

    def _fetch(self, fields: list[str]) -> dict[str, Any]:
        """Read fields of the daemon, and remember what may be remembered."""
        raise NotImplementedError

    def _plain(self, fields: dict[str, Any]) -> dict[str, Any]:
        """Call fields by their first names."""
        return {self._ALIASES.get(field, field): value for field, value in fields.items()}

    def _lend(self, field: str, value: Any) -> None:
        """Note what a value looked like when it was given out."""
        if isinstance(value, (list, dict)):
            self._lent[field] = (value, json.dumps(value))
        else:
            self._lent.pop(field, None)

    def _changed(self) -> dict[str, Any]:
        """Return the values that were changed in place since they were given out."""
        return {field: value for field, (value, text) in self._lent.items() if _text(value) != text}


def _text(value: Any) -> str:
    try:
        return json.dumps(value)
    except (TypeError, ValueError, RecursionError):
        return ""  # changed into what JSON cannot hold: saving it says so


def ask_number(what: str, value: Any, *, optional: bool = False) -> float | None:
    """Return ``value`` as a number of seconds, 0 or more; raises ``InvalidInputError``."""
    if value is None and optional:
        return None
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not value >= 0:
        raise exceptions.InvalidInputError(f"{what} takes a number of seconds, 0 or more, not {value!r}")
    return value
