"""The description of the API as OpenAPI 3.1, made of the route table: what is served is what is described.

Owns how rows become paths, parameters, bodies and answers. Routes for people in a browser are left out. Called by
``app`` for ``GET /openapi.json``, and by ``headrace openapi``.
"""

from __future__ import annotations

import asyncio
import functools
import re
from collections.abc import Iterable
from typing import Any

import msgspec
from aiohttp import web

from .. import __version__
from . import access, answers, operations, routes, shapes
from .reach import Reach

_REFERENCES = "#/components/schemas/{name}"
_PARAMETER = re.compile(r"\{(\w+)(:[^}]*)?\}")
_PROBLEM = {"description": "an error, as a problem (RFC 9457)"}
#: Names in paths that say the same everywhere.
_NAMES = {
    "name": "a name, percent-encoded, or an id",
    "id": "an id",
    "path": "the path of a file; its slashes may stand as they are",
    "type": "a type of task",
}


def described(table: Iterable[routes.Route]) -> list[routes.Route]:
    """Return the routes with one more, which describes them all: when it is asked for the first time, as no start
    waits for that."""
    rows = list(table)

    @functools.cache
    def text() -> bytes:
        return msgspec.json.encode(document([*rows, own]))

    async def show(request: web.Request) -> web.Response:
        """The document."""
        return web.Response(body=await asyncio.to_thread(text), content_type=answers.JSON)

    own = routes.Route(
        *("GET", "/openapi.json", access.PUBLIC, show, "this description of the API", Reach.GENERAL),
        operations.Operation(gives=dict[str, Any]),
    )
    return [*rows, own]


def document(table: Iterable[routes.Route]) -> dict[str, Any]:
    """Return the description of the routes that tell about themselves."""
    rows = [row for row in table if row.tells is not None]
    schemas = _schemas(rows)
    paths: dict[str, dict[str, Any]] = {}
    for row in rows:
        paths.setdefault(_PARAMETER.sub(r"{\1}", row.path), {})[row.method.lower()] = _operation(row, schemas)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "Headrace",
            "version": __version__,
            "description": "Flows from git, run durably. docs/http.md tells it in words.",
        },
        "servers": [{"url": "/"}],
        "security": [{"token": []}],
        "paths": dict(sorted(paths.items())),
        "components": {
            "securitySchemes": {"token": {"type": "http", "scheme": "bearer"}},
            "schemas": dict(sorted(schemas.components.items())),
            "responses": {
                "Problem": _PROBLEM
                | {"content": {answers.PROBLEM: {"schema": {"$ref": _REFERENCES.format(name="Problem")}}}}
            },
        },
    }


class _schemas:  # noqa: N801 - it is used as a function
    """The schemas of all types that rows name."""

    def __init__(self, rows: Iterable[routes.Route]) -> None:
        types: dict[int, Any] = {id(shapes.Problem): shapes.Problem}
        for row in rows:
            assert row.tells is not None
            for type_ in (row.tells.takes, row.tells.gives):
                if type_ is not None and not isinstance(type_, str):
                    types[id(type_)] = type_
        found, self.components = msgspec.json.schema_components(list(types.values()), ref_template=_REFERENCES)
        self._of = dict(zip(types, found, strict=True))

    def of(self, type_: Any) -> dict[str, Any]:
        return self._of[id(type_)]


def _operation(row: routes.Route, schemas: _schemas) -> dict[str, Any]:
    tells = row.tells
    assert tells is not None
    name = re.sub(r"\W+", "_", row.method.lower() + _PARAMETER.sub(r"\1", row.path)).strip("_")
    found: dict[str, Any] = {
        "operationId": name,
        "summary": row.summary,
        "parameters": [_in_path(name) for name, _ in _PARAMETER.findall(row.path)]
        + [_parameter(one, "query") for one in tells.query]
        + [_parameter(one, "header") for one in tells.headers],
        "responses": {str(status): _answer(tells, schemas) for status in tells.statuses}
        | {"default": {"$ref": "#/components/responses/Problem"}},
    }
    if row.scope == access.PUBLIC:
        found["security"] = []
    else:
        found["description"] = f"Needs the scope `{row.scope}`."
    if tells.takes is not None:
        found["requestBody"] = {"content": _content(tells.takes, schemas)}
    return found


def _answer(tells: operations.Operation, schemas: _schemas) -> dict[str, Any]:
    if tells.gives is None:
        return {"description": "done"}
    content = _content(tells.gives, schemas) | {media: {"schema": {"type": "string"}} for media in tells.also}
    return {"description": "what was asked for", "content": content}


def _content(type_: Any, schemas: _schemas) -> dict[str, Any]:
    if isinstance(type_, str):
        return {type_: {"schema": {"type": "string"}}}
    return {answers.JSON: {"schema": schemas.of(type_)}}


def _in_path(name: str) -> dict[str, Any]:
    return {
        "name": name,
        "in": "path",
        "required": True,
        "description": _NAMES[name],
        "schema": {"type": "string", "minLength": 1},
    }


def _parameter(one: operations.Parameter, where: str) -> dict[str, Any]:
    schema = {"type": "array", "items": dict(one.schema)} if one.several else dict(one.schema)
    found = {"name": one.name, "in": where, "description": one.description, "schema": schema}
    return found | ({"explode": True} if one.several else {})
