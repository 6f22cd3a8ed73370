"""The HTTP API of messages: what flows ask people, and the one answer each gets.

Parses, asks, renders. Whether an answer fits its form is decided where it is taken. Called by ``app`` for the route
table.
"""

from __future__ import annotations

from typing import Any

from aiohttp import web

from ..engine import errors, values
from ..engine.running import asking
from . import answers, operations, paging, reach, routes, shapes
from .reach import Reach

#: Answers are typed by people.
BODY_BYTES_MAX = 4 * 1024 * 1024
_FLAGS = {"": False, "0": False, "false": False, "1": True, "true": True}


_PENDING = operations.Parameter("pending", {"enum": ["true", "false"]}, "those that wait for an answer")


class Messages:
    """The handlers, who has the messages, and whose they are."""

    def __init__(self, questions: asking.Asking, subjects: reach.Subjects) -> None:
        self._asking = questions
        self._subjects = subjects

    def table(self) -> list[routes.Route]:
        """Return the routes."""
        route, message = routes.Route, "/api/v1/messages/{id}"
        return [
            route(
                *("GET", "/api/v1/messages", "read", self.list_messages, "messages, newest first", Reach.FILTERED),
                operations.Operation(gives=shapes.Page[shapes.Message], query=(_PENDING, *paging.PARAMETERS)),
            ),
            route(
                *("GET", message, "read", self.show_message, "one message with its form and its answer"),
                *(Reach.MESSAGE, operations.Operation(gives=shapes.Message)),
            ),
            route(
                *("POST", message + "/response", "run", self.answer, "answer it", Reach.MESSAGE),
                operations.Operation(takes=dict[str, Any], gives=shapes.Message),
            ),
        ]

    async def list_messages(self, request: web.Request) -> web.Response:
        """All of them; with ``pending`` those that wait for somebody."""
        pending = _FLAGS.get(request.query.get("pending", "").lower())
        if pending is None:
            raise errors.InvalidRequest(f"pending={request.query['pending']} is neither true nor false")
        who = request[routes.PRINCIPAL]
        found = self._asking.all(pending=pending)
        if who.limited:
            found = [one for one in found if one.execution and await self._subjects.is_theirs(who, one.execution)]
        return await paging.answer(
            request,
            found,
            lambda message: (message.created_at, message.id),
            self._asking.for_people,
            newest_first=True,
        )

    async def show_message(self, request: web.Request) -> web.Response:
        """Everything about one."""
        message = self._asking.find(request.match_info["id"])
        return answers.json_answer(await self._asking.for_people(message))

    async def answer(self, request: web.Request) -> web.Response:
        """Give the answer; the first one that fits its form counts."""
        body = await answers.json_of(request, BODY_BYTES_MAX)
        response = values.checked(body.strip() or b"{}", "the answer")
        id_ = request.match_info["id"]
        await self._asking.answer(id_, response, request[routes.PRINCIPAL].name)
        return answers.json_answer(await self._asking.for_people(self._asking.find(id_)))
