"""Filters of listings: conditions on fields, nested by and, or and not, as JSON. Pure.

    {"field": "value.region", "op": "eq", "value": "eu"}
    {"and": [...]}   {"or": [...]}   {"not": {...}}   {"op": "and", "value": [...]}   [...] means and

Owns: the dialect and what its comparisons mean. Values of different types are never equal and never in an order (true
is no number); times compare as the ISO texts they are. Refuses: what is not of the dialect, naming the place.

Besides, how files are chosen by folder and by glob.
"""

from __future__ import annotations

import fnmatch
import glob
import re
import reprlib
from collections.abc import Callable, Mapping
from typing import Any, Protocol

import msgspec

from .. import errors

#: People write a few conditions; a program that writes more wants to list everything and choose itself.
DEPTH_MAX = 32
CONDITIONS_MAX = 1000
CHOICES_MAX = 10_000


class Filter(Protocol):
    """What a record must be like."""

    @property
    def fields(self) -> frozenset[str]:
        """The fields it looks at, dotted where it looks inside."""

    @property
    def required_equals(self) -> dict[str, Any]:
        """Fields that certainly have these values in every record that matches: a search may be narrowed by them."""

    def matches(self, record: Mapping[str, Any]) -> bool:
        """Return whether a record with these fields is one. Never raises; a field that is not there is null."""


class Condition(msgspec.Struct, frozen=True):
    """A field compared with a value."""

    field: str
    op: str
    value: Any
    pattern: re.Pattern[str] | None = None  # of like

    @property
    def fields(self) -> frozenset[str]:
        """See ``Filter``."""
        return frozenset({self.field})

    @property
    def required_equals(self) -> dict[str, Any]:
        """See ``Filter``."""
        return {self.field: self.value} if self.op == "eq" else {}

    def matches(self, record: Mapping[str, Any]) -> bool:
        """See ``Filter``."""
        found = _found(record, self.field)
        if self.pattern is not None:
            return isinstance(found, str) and self.pattern.match(found.casefold()) is not None
        return _COMPARISONS[self.op](found, self.value)


class Every(msgspec.Struct, frozen=True):
    """All of its parts; without any, everything."""

    parts: tuple[Filter, ...] = ()

    @property
    def fields(self) -> frozenset[str]:
        """See ``Filter``."""
        return frozenset[str]().union(*(part.fields for part in self.parts))

    @property
    def required_equals(self) -> dict[str, Any]:
        """See ``Filter``."""
        return {field: value for part in self.parts for field, value in part.required_equals.items()}

    def matches(self, record: Mapping[str, Any]) -> bool:
        """See ``Filter``."""
        return all(part.matches(record) for part in self.parts)


class Either(msgspec.Struct, frozen=True):
    """At least one of its parts; without any, nothing."""

    parts: tuple[Filter, ...]

    @property
    def fields(self) -> frozenset[str]:
        """See ``Filter``."""
        return frozenset[str]().union(*(part.fields for part in self.parts))

    @property
    def required_equals(self) -> dict[str, Any]:
        """See ``Filter``."""
        return self.parts[0].required_equals if len(self.parts) == 1 else {}

    def matches(self, record: Mapping[str, Any]) -> bool:
        """See ``Filter``."""
        return any(part.matches(record) for part in self.parts)


class Not(msgspec.Struct, frozen=True):
    """What its part is not."""

    part: Filter

    @property
    def fields(self) -> frozenset[str]:
        """See ``Filter``."""
        return self.part.fields

    @property
    def required_equals(self) -> dict[str, Any]:
        """See ``Filter``."""
        return {}

    def matches(self, record: Mapping[str, Any]) -> bool:
        """See ``Filter``."""
        return not self.part.matches(record)


def parse(said: Any) -> Filter:
    """Return the filter that decoded JSON says; nothing (``None``, ``{}``, ``[]``) is everything.

    Raises ``InvalidRequest`` with the place."""
    if said is None or said == {}:
        return Every()
    return _Parser().parse(said, "filter", 0)


def in_directory(path: str, directory: str) -> bool:
    """Return whether a file lies in ``directory`` or below it; every file lies in ``""``, ``"."`` and ``"/"``."""
    folder = directory.removeprefix("./").strip("/")
    return folder in ("", ".") or path.startswith(f"{folder}/")


def matches_glob(path: str, pattern: str) -> bool:
    """Return whether a path is like ``pattern``: ``*`` is any text, slashes too, ``?`` a character, ``[ab]`` a set."""
    return fnmatch.fnmatchcase(path, pattern)


class _Parser:
    """Reads one filter, counting its conditions."""

    def __init__(self) -> None:
        self._conditions = 0

    def parse(self, said: Any, place: str, depth: int) -> Filter:
        if depth > DEPTH_MAX:
            raise errors.InvalidRequest(f"the filter is nested more than {DEPTH_MAX} deep")
        match said:
            case list():
                return Every(self._parts(said, place, depth))
            case {"field": _, **rest} if rest.keys() <= {"op", "value"}:
                return self._condition(said, place)
            case {"op": op, "value": inner, **rest} if not rest:
                return self._joined(op, inner, place, "value", depth)
            case dict() if len(said) == 1:
                [(op, inner)] = said.items()
                return self._joined(op, inner, place, op, depth)
        raise _refused(place, f"is {_short(said)}")

    def _joined(self, op: Any, inner: Any, place: str, key: str, depth: int) -> Filter:
        within = f"{place}.{key}"
        match str(op).lower():
            case "and" if isinstance(inner, list):
                return Every(self._parts(inner, within, depth))
            case "or" if isinstance(inner, list):
                return Either(self._parts(inner, within, depth))
            case "not" if isinstance(inner, dict | list):
                return Not(self.parse(inner, within, depth + 1))
            case "and" | "or" | "not":
                raise _refused(within, f"is {_short(inner)}")
        raise _refused(place, f"has no field and joins by {_short(op)}")

    def _parts(self, said: list[Any], place: str, depth: int) -> tuple[Filter, ...]:
        return tuple(self.parse(part, f"{place}[{number}]", depth + 1) for number, part in enumerate(said))

    def _condition(self, said: dict[str, Any], place: str) -> Condition:
        self._conditions += 1
        if self._conditions > CONDITIONS_MAX:
            raise errors.InvalidRequest(f"the filter has more than {CONDITIONS_MAX:,} conditions")
        field, op, value = said["field"], str(said.get("op", "eq")).lower(), said.get("value")
        if not isinstance(field, str) or not field:
            raise _refused(f"{place}.field", f"is {_short(field)}")
        if op not in _COMPARISONS:
            raise _refused(f"{place}.op", f"is {_short(said['op'])}")
        if "value" not in said:
            raise _refused(place, "has no value")
        if _depth_over(value, DEPTH_MAX):
            raise _refused(f"{place}.value", f"is nested more than {DEPTH_MAX} deep")
        if op == "in" and not (isinstance(value, list) and len(value) <= CHOICES_MAX):
            raise _refused(f"{place}.value", f"is {_short(value)}; in needs a list of up to {CHOICES_MAX:,} values")
        if op == "like" and not isinstance(value, str):
            raise _refused(f"{place}.value", f"is {_short(value)}; like needs a text with % and _")
        return Condition(field, op, value, _pattern(str(value)) if op == "like" else None)


def _refused(place: str, problem: str) -> errors.InvalidRequest:
    return errors.InvalidRequest(
        f"{place} {problem}",
        hint='write {"field": …, "op": …, "value": …} with op one of '
        f"{', '.join(_COMPARISONS)}; " + 'join them by {"and": […]}, {"or": […]}, {"not": {…}}',
    )


def _short(value: Any) -> str:
    return reprlib.repr(value)  # whatever its size and depth


def _depth_over(value: Any, limit: int) -> bool:
    """Return whether ``value`` is nested so deeply that comparing it could fail."""
    level = [value]
    for _ in range(limit + 1):
        inner = (item.values() if isinstance(item, dict) else item for item in level if isinstance(item, dict | list))
        level = [item for items in inner for item in items]
    return bool(level)


# -- what comparisons mean ------------------------------------------------------------------------------------------


def _found(record: Mapping[str, Any], field: str) -> Any:
    """Return the value of a field; one with dots reaches into JSON, unless the record has a field of that name."""
    if field in record:
        return record[field]
    found: Any = record
    for part in field.split("."):
        if not isinstance(found, Mapping) or part not in found:
            return None
        found = found[part]
    return found


def _same(a: Any, b: Any) -> bool:
    match a:
        case bool():
            return a is b
        case int() | float():
            return isinstance(b, int | float) and not isinstance(b, bool) and a == b
        case list():
            return isinstance(b, list) and len(a) == len(b) and all(map(_same, a, b))
        case dict():
            return isinstance(b, dict) and a.keys() == b.keys() and all(_same(a[key], b[key]) for key in a)
    return type(a) is type(b) and bool(a == b)


def _ordered(compare: Callable[[Any, Any], bool]) -> Callable[[Any, Any], bool]:
    def ordered(a: Any, b: Any) -> bool:
        if isinstance(a, str):
            return isinstance(b, str) and compare(a, b)
        numbers = all(isinstance(value, int | float) and not isinstance(value, bool) for value in (a, b))
        return numbers and compare(a, b)

    return ordered


def _pattern(like: str) -> re.Pattern[str]:
    r"""Return what ``like`` means: ``%`` any text, ``_`` one character, ``\`` before them makes them plain.

    Built by way of a glob, for the standard library makes those into patterns that do not backtrack for ever."""
    parts = re.split(r"(\\[\\%_]|%|_)", like.casefold())
    wild = {"%": "*", "_": "?"}
    return re.compile(
        fnmatch.translate("".join(wild.get(p) or glob.escape(re.sub(r"^\\(?=[\\%_]$)", "", p)) for p in parts))
    )


_COMPARISONS: Mapping[str, Callable[[Any, Any], bool]] = {
    "eq": _same,
    "ne": lambda a, b: not _same(a, b),
    "gt": _ordered(lambda a, b: a > b),
    "ge": _ordered(lambda a, b: a >= b),
    "lt": _ordered(lambda a, b: a < b),
    "le": _ordered(lambda a, b: a <= b),
    "like": lambda _a, _b: False,  # has its pattern
    "in": lambda a, b: any(_same(a, choice) for choice in b),
}
