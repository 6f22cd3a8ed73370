"""The fields of a form on a page: how each is asked for, and what it stands for when it comes back. Pure.

A field is called like the form's key. Everything arrives as text; what it stands for is decided here by the form's
elements, and whether it is good by whoever asked. Called by the pages of messages and of flows.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

import msgspec

from ..engine import errors, values
from ..engine.state import forms
from . import access

#: The inputs of a browser that fit an element; the others are told apart in the template.
_INPUTS = {"string": "text", "number": "number", "date": "date", "time": "time", "datetime": "datetime-local"}
#: The field that says on the page of which execution the answer was given.
BACK = "answered on"


class Control(msgspec.Struct, frozen=True, kw_only=True):
    """A control of the page: the element it asks for, and what stands in it."""

    name: str
    element: forms.Element
    input: str
    text: str = ""
    checked: bool = False
    chosen: int = -1  # of the choices
    required: bool = False
    problem: str = ""


def controls(
    form: forms.Form, typed: Mapping[str, str] | None = None, wrong: Mapping[str, str] | None = None
) -> list[Control]:
    """Return the controls of a form, with what was ``typed``, and what is ``wrong`` with it by key."""
    return [control(element, form, typed, (wrong or {}).get(element.key, "")) for element in form.elements]


def answered(form: forms.Form, typed: Mapping[str, str], as_json: Collection[str] = ()) -> dict[str, Any]:
    """Return what the fields of a form stand for; an empty field is none, one ``as_json`` the value its text is."""
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
            case _ if element.key in as_json:
                if text.strip():
                    said[element.key] = values.decode(text.strip().encode())
            case "number":
                if text.strip():
                    said[element.key] = _number(text)
            case _:
                if text:
                    said[element.key] = text.replace("\r\n", "\n")
    return said


def control(
    element: forms.Element, form: forms.Form, typed: Mapping[str, str] | None = None, problem: str = ""
) -> Control:
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
        problem=problem,
    )


def typed_of(form: forms.Form, given: Mapping[str, Any]) -> dict[str, str]:
    """Return what would have been typed to mean ``given``; the other way round of ``answered``."""
    typed = {}
    for element in form.elements:
        if element.key not in given:
            continue
        value = given[element.key]
        if element.element == "toggle":
            text = "true" if value is True else ""
        elif element.element == "dropdown":
            text = next((str(n) for n, choice in enumerate(element.choices) if choice.value == value), "")
        else:
            text = value if isinstance(value, str) else values.encode(value).decode()
        typed[_name(element.key)] = text
    return typed


def _name(key: str) -> str:
    """The name of a key's field: the key, unless the page has a field of its own that is called so."""
    return f"{key} of the form" if key.removesuffix(" of the form") in (access.FORM_FIELD, BACK) else key


def _number(text: str) -> Any:
    """Return the number a text is, or the text, which the form will refuse in words of its own."""
    try:
        return msgspec.json.decode(text.strip(), type=int | float)
    except (msgspec.MsgspecError, UnicodeError):
        return text


def no_json(form: forms.Form, typed: Mapping[str, str], as_json: Collection[str]) -> dict[str, str]:
    """Return which of the fields that are typed ``as_json`` hold none: key → what is wrong."""
    wrong = {}
    for key in as_json:
        try:
            values.checked(typed.get(_name(key), "").strip().encode("utf-8", "surrogatepass") or b"null", "this")
        except errors.HeadraceError as error:
            wrong[key] = error.message.removeprefix("this ")
    return wrong
