"""The pages that document the task types: GET /tasks, all of them; GET /tasks/{type}, one with inputs and output."""

from __future__ import annotations

from typing import Any

from aiohttp import web

from ..engine import errors, ports
from . import routes, templates
from .reach import Reach


class TaskPages:
    """The handlers, and the task types."""

    def __init__(self, tasks: ports.Tasks) -> None:
        self._tasks = tasks

    def table(self) -> list[routes.Route]:
        """Return the routes."""
        route, free = routes.Route, Reach.GENERAL
        return [
            route("GET", "/tasks", "read", self.list_tasks, "the page of task types", touches=free, page=True),
            route("GET", "/tasks/{type}", "read", self.show_task, "one task type", touches=free, page=True),
        ]

    async def list_tasks(self, request: web.Request) -> web.Response:
        """All task types."""
        return templates.page(request, "tasks.html", tasks=self._tasks.types())

    async def show_task(self, request: web.Request) -> web.Response:
        """One, with its inputs and its output."""
        name = request.match_info["type"].upper()
        for found in self._tasks.types():
            if name == found.name or name in found.aliases:
                tables = [("Inputs", _rows(found.inputs)), ("Output", _rows(found.output))]
                return templates.page(request, "task.html", task=found, tables=tables)
        raise errors.NotFound(f"there is no task type {name!r}")


def _rows(schema: dict[str, Any]) -> list[tuple[str, str, bool, str]]:
    """Return the properties of a schema: name, type in words, whether it is required, what it is."""
    required = set(schema.get("required", ()))
    return [
        (name, _type(part), name in required, str(part.get("description", "")))
        for name, part in schema.get("properties", {}).items()
    ]


def _type(part: dict[str, Any]) -> str:
    if "enum" in part:
        return " or ".join(str(value) for value in part["enum"])
    kind = part.get("type", "")
    return " or ".join(kind) if isinstance(kind, list) else str(kind or "any")
