"""The pages on which people answer: what flows ask, and one message as a form.

    GET  /messages          those that wait for an answer, then the latest others
    GET  /messages/{id}     one message: its form, or what was answered and by whom
    POST /messages/{id}     answer it; what cannot be taken comes back to be mended

What its fields stand for is decided by ``fields``, and whether that is an answer by ``state.forms``, as for every other
way to answer.
"""

from __future__ import annotations

from collections.abc import Mapping

from aiohttp import web

from ..engine import errors, values
from ..engine.running import asking
from ..engine.state import messages
from . import answers, fields, questions, reach, routes, templates, wording
from .reach import Reach

#: Answered and withdrawn ones on the page of messages.
_CLOSED_MAX = 50


class MessagePages:
    """The handlers."""

    def __init__(self, asked: asking.Asking, subjects: reach.Subjects) -> None:
        self._asking = asked
        self._subjects = subjects

    def table(self) -> list[routes.Route]:
        """Return the routes."""
        route, one = routes.Route, "/messages/{id}"
        return [
            route("GET", "/messages", "read", self.list_messages, "the page of messages", Reach.FILTERED, page=True),
            route("GET", one, "read", self.show_message, "the page of one message", Reach.MESSAGE, page=True),
            route("POST", one, "run", self.answer, "answer it from its page", Reach.MESSAGE, page=True),
        ]

    async def list_messages(self, request: web.Request) -> web.Response:
        """What waits for an answer, and what lately did."""
        who, theirs = request[routes.PRINCIPAL], self._subjects.is_theirs
        every = self._asking.all()
        if who.limited:
            every = [one for one in every if one.execution and await theirs(who, one.execution)]
        pending = [message for message in every if message.pending]
        closed = [message for message in every if not message.pending][:_CLOSED_MAX]
        return templates.page(request, "messages.html", pending=pending, closed=closed)

    async def show_message(self, request: web.Request) -> web.Response:
        """One message."""
        return await self._page(request, self._asking.find(request.match_info["id"]))

    async def answer(self, request: web.Request) -> web.Response:
        """Take the answer and show it where it was given; what cannot be taken is shown with what is wrong with it."""
        message = self._asking.find(request.match_info["id"])
        typed = await answers.form_of(request)
        said = fields.answered((await questions.shown(self._asking, message)).form, typed)
        try:
            await self._asking.answer(message.id, values.encode(said), request[routes.PRINCIPAL].name)
        except (errors.AnswerRefused, errors.Conflict) as error:
            return await self._page(request, self._asking.find(message.id), typed=typed, error=error)
        if typed.get(fields.BACK) and message.execution:
            return templates.redirect(f"/executions/{wording.segment(typed[fields.BACK])}#messages")
        return templates.redirect(f"/messages/{message.id}")

    async def _page(
        self,
        request: web.Request,
        message: messages.Message,
        *,
        typed: Mapping[str, str] | None = None,
        error: errors.HeadraceError | None = None,
    ) -> web.Response:
        return templates.page(
            request,
            "message.html",
            status=error.http_status if error else 200,
            question=await questions.shown(self._asking, message, typed, getattr(error, "wrong", {})),
            back=(typed or {}).get(fields.BACK, ""),
            error=error,
        )
