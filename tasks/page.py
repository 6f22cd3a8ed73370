"""The tables of docs/tasks.md, written from the registry: ``python -m headrace.tasks.page`` prints them.

One table of inputs for each built-in type, and one for the inputs that all types share. What stands there is what the
declarations say, so the page is put right by running this again, never by hand; a test compares the two.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Mapping
from typing import Any

import msgspec

from . import definition, registry

_TYPES = {"string": "text", "integer": "whole number", "boolean": "true or false", "object": "object", "array": "list"}
Schema = Mapping[str, Any]


def tables() -> dict[str, str]:
    """Return every table as Markdown, by the name of its type; ``all`` is what they share."""
    shared = root(msgspec.json.schema(definition.Inputs))
    types = registry.built_in().types()
    own = {one.name: _table(root(one.inputs), leave_out=frozenset(shared["properties"])) for one in types}
    return {**own, "all": _table(shared)}


def root(schema: Schema) -> Schema:
    """Return a struct's schema with its properties at the top and every reference replaced by what it refers to."""
    resolved: Schema = _resolved(schema, schema.get("$defs", {}))
    return resolved


def _resolved(node: Any, named: Schema) -> Any:
    """Return ``node`` with every reference replaced by what it refers to."""
    if isinstance(node, list):
        return [_resolved(item, named) for item in node]
    if not isinstance(node, dict):
        return node
    if "$ref" in node:
        return _resolved(named[node["$ref"].rpartition("/")[2]], named)
    return {key: _resolved(item, named) for key, item in node.items() if key != "$defs"}


def _table(schema: Schema, leave_out: frozenset[str] = frozenset()) -> str:
    rows = ["| input | type | meaning |", "| --- | --- | --- |"]
    for name, about in schema["properties"].items():
        if name not in leave_out:
            meaning = ("Required. " if name in schema["required"] else "") + about["description"]
            rows.append(f"| `{name}` | {' or '.join(kinds(about))} | {meaning} |")
    return "\n".join(rows) + "\n"


def kinds(about: Schema) -> Iterator[str]:
    """Yield the types a value may have, in words; ``null`` always means that it was not given."""
    if "anyOf" in about:
        for one in about["anyOf"]:
            if one.get("type") != "null":
                yield from kinds(one)
    elif "enum" in about:
        yield from (f"`{json.dumps(value)}`" for value in about["enum"])
    elif about.get("type") == "array" and "items" in about:
        yield f"list of {' or '.join(kinds(about['items']))}"
    else:
        kind = str(about.get("type", "anything"))
        yield _TYPES.get(kind, kind)


if __name__ == "__main__":
    for name, table in tables().items():
        sys.stdout.write(f"<!-- {name} -->\n{table}\n")
