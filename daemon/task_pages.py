"""The pages that document the task types: GET /tasks, all of them; GET /tasks/{type}, one with inputs and output."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping
from typing import Any

import msgspec
from aiohttp import web

from ..engine import errors, ports
from ..engine.running import keeper
from ..tasks import definition, page
from . import record_pages, routes, templates
from .reach import Reach

_SHARED = frozenset(page.root(msgspec.json.schema(definition.Inputs))["properties"])


class TaskPages:
    """The handlers, the task types, and who keeps connections."""

    def __init__(self, tasks: ports.Tasks, records: keeper.Keeper) -> None:
        self._tasks = tasks
        self._keeper = records

    def table(self) -> list[routes.Route]:
        """Return the routes."""
        route, free = routes.Route, Reach.GENERAL
        return [
            route("GET", "/tasks", "read", self.list_tasks, "the page of task types", touches=free, page=True),
            route("GET", "/tasks/{type}", "read", self.show_task, "one task type", touches=free, page=True),
        ]

    async def list_tasks(self, request: web.Request) -> web.Response:
        """All task types."""
        return templates.page(request, "tasks.html", tasks=await asyncio.to_thread(self._tasks.types))

    async def show_task(self, request: web.Request) -> web.Response:
        """One, with its inputs and its output."""
        name = request.match_info["type"].upper()
        for found in await asyncio.to_thread(self._tasks.types):
            if name == found.name or name in found.aliases:
                inputs, output = page.root(found.inputs), page.root(found.output)
                own = inputs.get("properties", {}).keys() - _SHARED
                tables = [
                    ("Inputs", _rows(inputs, own)),
                    ("Output", _rows(output, output.get("properties", {}))),
                    ("Inputs that all types take", _rows(inputs, _SHARED)),
                ]
                return templates.page(
                    request,
                    "task.html",
                    task=found,
                    tables=tables,
                    example=_example(found.name, inputs),
                    connections=[]
                    if request[routes.PRINCIPAL].limited
                    else await self._connections({found.name, *found.aliases}),
                )
        raise errors.NotFound(f"there is no task type {name!r}")

    async def _connections(self, types: set[str]) -> list[str]:
        """Return the names of the connections that say one of these types."""
        kept = [await self._keeper.for_people(record) for record in self._keeper.all("connection")]
        return [one["name"] for one in kept if record_pages.connection_type(one) in types]


def _rows(schema: Mapping[str, Any], names: Iterable[str]) -> list[tuple[str, str, bool, str, str]]:
    """Return properties of a schema, required ones first: name, type in words, whether it is required, what it is, its
    default."""
    required, properties = set(schema.get("required", ())), schema.get("properties", {})
    return [
        (name, _type(part), name in required, str(part.get("description", "")), _default(part))
        for name, part in sorted(properties.items(), key=lambda item: item[0] not in required)
        if name in names
    ]


def _type(part: Mapping[str, Any]) -> str:
    if "enum" in part:
        return " or ".join(str(value) for value in part["enum"])
    return " or ".join(page.kinds(part)) or "any"


def _default(part: Mapping[str, Any]) -> str:
    """Return its default, unless its description tells it already."""
    is_told = "default" in str(part.get("description", "")).lower()
    return "" if is_told or part.get("default") in (None, "", [], {}) else repr(part["default"])


def _example(name: str, inputs: Mapping[str, Any]) -> str:
    """Return how a handler calls it, with what is required, or else with its first input."""
    properties = inputs.get("properties", {})
    named = [key for key in properties if key in inputs.get("required", ())] or list(properties)[:1]
    given = "".join(f", {key}=…" for key in named)
    return f"output = this.task({name!r}{given}).get('output_value')"
