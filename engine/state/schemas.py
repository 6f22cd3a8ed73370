"""JSON Schemas that come from flows (draft 2020-12): read without ever fetching anything, and bounded.

Owns: what a schema may refer to (its own parts), how much checking one value may cost, and the words for what does not
fit; they never repeat the value, which may be a password. Refuses: schemas that are none, references to elsewhere or in
circles. Called by ``forms``.
"""

from __future__ import annotations

import collections
import urllib.parse
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Never

from .. import errors

DEPTH_MAX = 32
#: With every reference written out in place, a schema has no more parts than that: a few small ones that refer to each
#: other twice would else take years to check.
PARTS_MAX = 100_000
#: How often a pattern may go back on one text before it counts as not matching.
_BACKTRACKS_MAX = 20_000
_WHERE_ELSE = ("$dynamicRef", "$recursiveRef", "$id", "$anchor", "$dynamicAnchor", "$recursiveAnchor")

Format = Callable[[str], bool]


class Schema:
    """A schema that can be used."""

    def __init__(self, schema: dict[str, Any], what: str, formats: Mapping[str, Format]) -> None:
        """Read ``schema``; raises ``InvalidRequest`` that says where in ``what`` it is wrong."""
        import jsonschema_rs  # the marked place: it takes 3 MB, and most flows say nothing about their inputs

        _bounded(schema, what)
        try:
            self._validator = jsonschema_rs.Draft202012Validator(
                schema,
                formats=dict(formats),
                validate_formats=True,
                retriever=_fetch_nothing,
                mask="this",
                pattern_options=jsonschema_rs.FancyRegexOptions(backtrack_limit=_BACKTRACKS_MAX),
            )
        except jsonschema_rs.ValidationError as error:
            raise errors.InvalidRequest(
                f"{place(what, error.instance_path)} cannot be used: {error.message}",
                hint="it must be JSON Schema, draft 2020-12",
            ) from None
        except ValueError as error:  # nested too deeply for it, or a text that is none
            raise errors.InvalidRequest(f"{what} cannot be used: {error}") from None

    def problems(self, value: Any) -> dict[tuple[str | int, ...], dict[str, str]]:
        """Return where ``value`` does not fit: place → the keyword that says so → words about ``this``."""
        found: dict[tuple[str | int, ...], dict[str, str]] = collections.defaultdict(dict)
        for error in self._validator.iter_errors(value):
            found[tuple(error.instance_path)][str(error.schema_path[-1])] = error.message
        return found


def place(what: str, path: Sequence[str | int]) -> str:
    """Return where something lies, as people write it: ``body.properties.my age.minimum``."""
    return what + "".join(f"[{key}]" if isinstance(key, int) else f".{key}" for key in path)


def _fetch_nothing(uri: str) -> Never:
    raise ValueError(f"{uri} is outside of the schema, and nothing is fetched")


def _bounded(schema: dict[str, Any], what: str) -> None:
    """Refuse a schema that leads elsewhere, in circles, or to more work than a value is worth."""
    cost_of: dict[int, int] = {}  # id of a part → how many parts it has, references written out
    walking: set[int] = set()

    def cost(part: Any, path: list[str | int]) -> int:
        if not isinstance(part, dict | list):
            return 1
        if len(path) > DEPTH_MAX:
            raise errors.InvalidRequest(f"{what} is nested more than {DEPTH_MAX} deep")
        if id(part) in walking:
            raise errors.InvalidRequest(f"{place(what, path)} refers to itself")
        if id(part) not in cost_of:
            walking.add(id(part))
            members = part.items() if isinstance(part, dict) else enumerate(part)
            total = 1 + sum(cost(member, [*path, key]) for key, member in members)
            if isinstance(part, dict):
                total += _of_reference(part, path)
            walking.discard(id(part))
            cost_of[id(part)] = total
            if total > PARTS_MAX:
                raise errors.InvalidRequest(f"{place(what, path)} has more than {PARTS_MAX:,} parts")
        return cost_of[id(part)]

    def _of_reference(part: dict[str, Any], path: list[str | int]) -> int:
        for keyword in _WHERE_ELSE:
            if isinstance(part.get(keyword), str):
                raise errors.InvalidRequest(
                    f"{place(what, path)} has {keyword}", hint='a part is referred to by {"$ref": "#/$defs/…"} alone'
                )
        reference = part.get("$ref")
        if not isinstance(reference, str):
            return 0
        return cost(_referred(schema, reference, place(what, path)), [*path, "$ref"])

    cost(schema, [])


def _referred(schema: dict[str, Any], reference: str, where: str) -> Any:
    """Return the part of ``schema`` that ``reference`` names."""
    found: Any = schema
    if reference != "#" and not reference.startswith("#/"):
        raise errors.InvalidRequest(
            f"{where} refers to {reference[:100]!r}, which is outside of it", hint="nothing is ever fetched"
        )
    for step in reference.split("/")[1:]:
        key = urllib.parse.unquote(step).replace("~1", "/").replace("~0", "~")
        if isinstance(found, dict) and key in found:
            found = found[key]
        elif isinstance(found, list) and key.isdecimal() and int(key) < len(found):
            found = found[int(key)]
        else:
            raise errors.InvalidRequest(f"{where} refers to {reference[:100]!r}, which is not there")
    return found
