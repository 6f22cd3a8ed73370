"""The pages on which people answer: what flows ask, and one message as a form.

    GET  /messages          those that wait for an answer, then the latest others
    GET  /messages/{id}     one message: its form, or what was answered and by whom
    POST /messages/{id}     answer it; what cannot be taken comes back to be mended

A field is called like the form's key. Everything arrives as text; what it stands for is decided here by the form's
elements, and whether it is an answer by ``state.forms``, as for every other way to answer.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec
from aiohttp import web

from ..engine import errors, values
from ..engine.running import asking
from ..engine.state import forms, messages
from . import access, answers, reach, routes, templates
from .reach import Reach

#: Answered and withdrawn ones on the page of messages.
_CLOSED_MAX = 50
#: The inputs of a browser that fit an element; the others are told apart in the template.
_INPUTS = {"string": "text", "number": "number", "date": "date", "time": "time", "datetime": "datetime-local"}


class Control(msgspec.Struct, frozen=True, kw_only=True):
    """A control of the page: the element it asks for, and what stands in it."""

    name: str
    element: forms.Element
    input: str
    text: str = ""
    checked: bool = False
    chosen: int = -1  # of the choices
    required: bool = False


class MessagePages:
    """The handlers."""

    def __init__(self, questions: asking.Asking, subjects: reach.Subjects) -> None:
        self._asking = questions
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
        """Take the answer and show it; an answer that cannot be taken is shown with what is wrong with it."""
        message = self._asking.find(request.match_info["id"])
        typed = await answers.form_of(request)
        said = answered(await self._form(message), typed)
        try:
            await self._asking.answer(message.id, values.encode(said), request[routes.PRINCIPAL].name)
        except (errors.AnswerRefused, errors.Conflict) as error:
            return await self._page(request, self._asking.find(message.id), typed=typed, error=error)
        return templates.redirect(f"/messages/{message.id}")

    async def _page(
        self,
        request: web.Request,
        message: messages.Message,
        *,
        typed: Mapping[str, str] | None = None,
        error: errors.HeadraceError | None = None,
    ) -> web.Response:
        form = await self._form(message)
        shown = await self._asking.for_people(message)
        response = values.decode(shown["response"]) if shown["response"] is not None else {}
        return templates.page(
            request,
            "message.html",
            status=error.http_status if error else 200,
            message=message,
            controls=[control(element, form, typed) for element in form.elements],
            labels={element.key: element for element in form.elements},
            response=response,
            error=error,
        )

    async def _form(self, message: messages.Message) -> forms.Form:
        return forms.read(bytes((await self._asking.for_people(message))["body"]))


def answered(form: forms.Form, typed: Mapping[str, str]) -> dict[str, Any]:
    """Return the answer that the fields of a form stand for; an empty field is none."""
    said: dict[str, Any] = {}
    for element in form.elements:
        text = typed.get(_name(element.key), "")
        match element.element:
            case "markdown":
                pass
            case "submit":
                if text:
                    said[element.key] = True
            case "toggle":
                said[element.key] = bool(text)
            case "dropdown":
                if text.isascii() and text.isdecimal() and int(text) < len(element.choices):
                    said[element.key] = element.choices[int(text)].value
            case "number":
                if text.strip():
                    said[element.key] = _number(text)
            case _:
                if text:
                    said[element.key] = text.replace("\r\n", "\n")
    return said


def control(element: forms.Element, form: forms.Form, typed: Mapping[str, str] | None) -> Control:
    """Return how an element is asked for: with what was ``typed``, else with its default. Passwords are typed anew."""
    name = _name(element.key)
    kind = element.format if element.format in _INPUTS else element.element
    default, text = element.default, typed.get(name, "") if typed is not None else ""
    if typed is None and default is not None:
        text = default if isinstance(default, str) else values.encode(default).decode()
    chosen = next((n for n, choice in enumerate(element.choices) if choice.value == default), -1)
    return Control(
        name=name,
        element=element,
        input=_INPUTS.get(kind, "text"),
        text="" if element.element == "password" else text,
        checked=bool(text) if typed is not None else default is True,
        chosen=int(text) if typed is not None and text.isdecimal() else chosen,
        required=element.key in form.required,
    )


def _name(key: str) -> str:
    """The name of a key's field: the key, unless that is the name of what keeps strangers out."""
    return f"{key} of the form" if key.removesuffix(" of the form") == access.FORM_FIELD else key


def _number(text: str) -> Any:
    """Return the number a text is, or the text, which the form will refuse in words of its own."""
    try:
        return msgspec.json.decode(text.strip(), type=int | float)
    except (msgspec.MsgspecError, UnicodeError):
        return text
