"""Forms: what a message asks of a person, and whether an answer will do. Pure.

A form is a JSON Schema object. Each of its properties carries an ``element``, which says how it is asked and what type
its answer has; ``required`` says what must be answered.

Owns: the elements, buttons (``submit``), defaults, dates and times. Everything else of JSON Schema means what it means
there (``schemas``). Refuses: forms nobody could answer, and answers with keys the form does not ask for. No message
repeats an answer, for it may be a password. Called by the keeper, before a message or its answer becomes an event, and
by whoever shows a form.
"""

from __future__ import annotations

import datetime
import re
from collections.abc import Callable, Collection, Mapping
from typing import Any

import msgspec

from .. import errors, values
from . import schemas

BODY_BYTES_MAX = 1024 * 1024
ANSWER_BYTES_MAX = 1024 * 1024
#: More than anybody fills in.
PROPERTIES_MAX = 500
_LISTED_MAX = 20  # choices, or wrong keys, that a message names


class _Kind(msgspec.Struct, frozen=True):
    """What an element asks for: the types it may have (the first is its own), its format, and that in words."""

    types: tuple[str, ...]
    expected: str
    format: str = ""


_KINDS: Mapping[str, _Kind] = {
    "string": _Kind(("string",), "a text"),
    "password": _Kind(("string",), "a text"),
    "textarea": _Kind(("string",), "a text"),
    "number": _Kind(("number", "integer"), "a number"),
    "toggle": _Kind(("boolean",), "true or false"),
    "date": _Kind(("string",), "a date such as 2026-11-24", "date"),
    "time": _Kind(("string",), "a time such as 12:30:00, 12:30 or 12:30:00+01:00", "time"),
    "datetime": _Kind(("string",), "a date and time such as 2026-11-24T12:30:00+01:00", "date-time"),
    "dropdown": _Kind((), "one of its choices"),
    "markdown": _Kind((), "nothing: it is only read"),
    "submit": _Kind(("boolean",), "true, for the button that is pressed"),
}
#: What a property without an element is asked with.
_ELEMENT_OF_TYPE = {"string": "string", "number": "number", "integer": "number", "boolean": "toggle"}
_OFFSET = r"(?:[Zz]|[+-](?:[01]\d|2[0-3]):?[0-5]\d)?"
_TIME = re.compile(r"(?:[01]\d|2[0-3]):[0-5]\d(?::[0-5]\d(?:\.\d+)?)?" + _OFFSET, re.ASCII)
_DATE = re.compile(r"\d{4}-\d\d-\d\d", re.ASCII)
#: Members of a property that are for people and mean nothing to JSON Schema, or something else.
_NOT_SCHEMA = frozenset(
    {"element", "label", "title", "description", "example", "examples", "default", "order", "required", "options"}
)


class Choice(msgspec.Struct, frozen=True):
    """One entry of a dropdown: the JSON value it stands for, and what people read."""

    value: Any
    label: str


class Element(msgspec.Struct, frozen=True):
    """A property of a form, ready to be asked. ``default`` is the prefill, whether or not it would be an answer."""

    key: str
    element: str
    label: str
    description: str
    example: str
    format: str
    default: Any
    order: float
    choices: tuple[Choice, ...]
    required: tuple[str, ...] | None  # of a button: what it requires instead of the form's
    schema: Mapping[str, Any]  # what JSON Schema says about its answer

    @property
    def expected(self) -> str:
        """What an answer must be, in words."""
        if self.choices:
            more = ", …" if len(self.choices) > _LISTED_MAX else ""
            return "one of " + ", ".join(_json(choice.value) for choice in self.choices[:_LISTED_MAX]) + more
        types = _type_names(self.schema.get("type"))
        if "integer" in types and "number" not in types:
            return "a whole number"
        return _KINDS[_ELEMENT_OF_FORMAT.get(self.format, self.element)].expected


class Form(msgspec.Struct, frozen=True):
    """A form that can be answered; its elements stand in the order in which they are asked."""

    elements: tuple[Element, ...]
    required: tuple[str, ...]
    schema: schemas.Schema

    @property
    def buttons(self) -> tuple[Element, ...]:
        """Its submit elements."""
        return tuple(element for element in self.elements if element.element == "submit")


def checked(body: bytes) -> bytes:
    """Return a form with the elements and types that were left out; raises ``InvalidRequest`` that says where."""
    said = _decoded(body)
    _read(said)
    properties = {key: _with_type(said_of) for key, said_of in said["properties"].items()}
    return values.encode({"type": "object", **said, "properties": properties}, "the form")


def read(body: bytes) -> Form:
    """Return the form that a message's body says; raises ``InvalidRequest`` that says where it is wrong."""
    return _read(_decoded(body))


def secret_keys(body: bytes) -> tuple[str, ...]:
    """Return the keys whose answers nobody may read."""
    return tuple(element.key for element in read(body).elements if element.element == "password")


def answer(body: bytes, response: bytes) -> bytes:
    """Return the answer completed with defaults and the button; raises ``AnswerRefused`` naming what is wrong.

    A key that was not answered takes its default if that would be a good answer, else it is absent. An answer that
    came back from here comes back the same."""
    if len(response) > ANSWER_BYTES_MAX:
        raise errors.TooLarge(f"the answer is {len(response):,} bytes, the limit is {ANSWER_BYTES_MAX:,}")
    text = values.checked(response.strip(), "the answer")
    given = values.members(text)
    if given is None:
        raise errors.AnswerRefused("the answer must be an object: the keys of the form with what was answered")
    form = read(body)
    said = {key: values.decode(raw) for key, raw in given.items()}
    wrong = _wrong_keys(form, said)
    pressed = _pressed(form, said, wrong)
    if pressed is not None:
        said[pressed.key] = True
    for button in form.buttons:
        if said.get(button.key) is False:
            del said[button.key]
    _complete(form, said)
    required = form.required if pressed is None or pressed.required is None else pressed.required
    for key in required:
        if key not in said:
            wrong.setdefault(key, f"is missing; it must be {_named(form, key).expected}")
    for key, problem in _problems(form, said).items():
        wrong.setdefault(key, problem)
    if wrong:
        raise _refused(form, wrong)
    kept = {key: given[key] if key in given else msgspec.Raw(values.encode(value)) for key, value in said.items()}
    return values.encode(kept, "the answer")


# -- reading a form -------------------------------------------------------------------------------------------------


def _decoded(body: bytes) -> dict[str, Any]:
    if len(body) > BODY_BYTES_MAX:
        raise errors.TooLarge(f"the form is {len(body):,} bytes, the limit is {BODY_BYTES_MAX:,}")
    said = values.decode(values.checked(body, "the form"))
    if not isinstance(said, dict):
        raise errors.InvalidRequest("the form must be a JSON Schema object", hint="it has properties")
    return said


def _read(said: dict[str, Any]) -> Form:
    if said.get("type", "object") != "object":
        raise errors.InvalidRequest(f"the form's type is {_json(said['type'])[:60]}; it must be object")
    properties = said.get("properties")
    if not isinstance(properties, dict):
        raise errors.InvalidRequest(
            "the form has no properties",
            hint='write {"type": "object", "properties": {"name": {"element": "string"}}}',
        )
    if len(properties) > PROPERTIES_MAX:
        raise errors.InvalidRequest(f"the form has {len(properties):,} properties, the limit is {PROPERTIES_MAX}")
    elements = [_element(key, _with_type(said_of)) for key, said_of in properties.items()]
    for element in elements:
        _check_required(element.required or (), f"form.properties.{element.key}.required", elements)
    required = _names(said.get("required"), "form.required")
    _check_required(required, "form.required", elements)
    whole = {key: value for key, value in said.items() if key not in (*_NOT_SCHEMA, "$schema", "$id")}
    whole["properties"] = {element.key: dict(element.schema) for element in elements}
    return Form(
        tuple(sorted(elements, key=lambda element: element.order)),
        required,
        schemas.Schema(whole, "form", FORMATS),
    )


def _with_type(said: Any) -> Any:
    """Return a property with the element and the type that the other one implies."""
    if not isinstance(said, dict):
        return said
    types = said.get("type")
    element = said.get("element")
    if element is None:
        fits = {_ELEMENT_OF_TYPE.get(type_) for type_ in _type_names(types) if type_ != "null"}
        element = "dropdown" if "enum" in said or "options" in said else fits.pop() if len(fits) == 1 else None
        if element is None:
            return said
        said = {**said, "element": element}
    kind = _KINDS.get(element) if isinstance(element, str) else None
    return {**said, "type": kind.types[0]} if kind and kind.types and types is None else said


def _type_names(types: Any) -> list[str]:
    listed = types if isinstance(types, list) else [types]
    return [type_ for type_ in listed if isinstance(type_, str)]


def _element(key: str, said: Any) -> Element:
    where = f"form.properties.{key}"
    if not isinstance(said, dict):
        raise errors.InvalidRequest(f"{where} must be an object", hint=f"with an element: {', '.join(_KINDS)}")
    element = said.get("element")
    kind = _KINDS.get(element) if isinstance(element, str) else None
    if kind is None or not isinstance(element, str):
        problem = "has no element" if element is None else f"has the unknown element {_json(element)[:60]}"
        raise errors.InvalidRequest(f"{where} {problem}", hint=f"there are {', '.join(_KINDS)}")
    types = said.get("type")
    if kind.types and types is not None and not {*_type_names(types)} <= {*kind.types, "null"}:
        raise errors.InvalidRequest(
            f"{where}.type is {_json(types)[:60]}; the element {element} has the type {' or '.join(kind.types)}"
        )
    order = said.get("order")
    if order is not None and (isinstance(order, bool) or not isinstance(order, int | float)):
        raise errors.InvalidRequest(f"{where}.order is {_json(order)[:60]}; it must be a number")
    required = _names(said["required"], f"{where}.required") if said.get("required") is not None else None
    if required is not None and element != "submit":
        raise errors.InvalidRequest(
            f"{where}.required has no meaning: only a submit has its own",
            hint=f'write "required": [{_json(key)}] in the form',
        )
    choices = _choices(said, where) if element == "dropdown" else ()
    format_ = _text(said, "format", where) or kind.format
    return Element(
        key=key,
        element=element,
        label=_text(said, "label", where) or _text(said, "title", where) or key,
        description=_text(said, "description", where),
        example=_text(said, "example", where),
        format=format_,
        default=said.get("default"),
        order=float("inf") if order is None else order,
        choices=choices,
        required=required,
        schema=_schema(said, element, format_, choices),
    )


def _schema(said: dict[str, Any], element: str, format_: str, choices: tuple[Choice, ...]) -> dict[str, Any]:
    """Return what JSON Schema is to check of a property."""
    if element == "markdown":
        return {}
    schema = {key: value for key, value in said.items() if key not in _NOT_SCHEMA and value is not None}
    schema.pop("format", None)
    if format_:
        schema["format"] = format_
    if choices:
        schema.pop("oneOf", None)
        schema["enum"] = [choice.value for choice in choices]
    return schema


def _text(said: Mapping[str, Any], key: str, where: str) -> str:
    value = said.get(key)
    if value is None or isinstance(value, bool | int | float):
        return "" if value is None else _json(value)
    if not isinstance(value, str):
        raise errors.InvalidRequest(f"{where}.{key} must be a text")
    return value


def _choices(said: Mapping[str, Any], where: str) -> tuple[Choice, ...]:
    """Return the choices of a dropdown: values, or objects with value and label, or with const and title."""
    source = next((key for key in ("enum", "options", "oneOf") if isinstance(said.get(key), list)), "")
    found = []
    for entry in said[source] if source else ():
        named = next((key for key in ("value", "const") if isinstance(entry, dict) and key in entry), "")
        if source == "oneOf" and not named:
            raise errors.InvalidRequest(f"{where}.oneOf must list objects with const and title")
        value = entry[named] if named else entry
        label = (entry.get("label") or entry.get("title")) if named else None
        found.append(
            Choice(value, label if isinstance(label, str) else value if isinstance(value, str) else _json(value))
        )
    if not found:
        raise errors.InvalidRequest(
            f"{where} is a dropdown with nothing to choose", hint='give enum, a list of values or {"value", "label"}'
        )
    return tuple(found)


def _names(said: Any, where: str) -> tuple[str, ...]:
    if said is None:
        return ()
    if not isinstance(said, list) or not all(isinstance(name, str) for name in said):
        raise errors.InvalidRequest(f"{where} must be a list of keys of the form")
    return tuple(dict.fromkeys(said))


def _check_required(names: Collection[str], where: str, elements: Collection[Element]) -> None:
    known = {element.key: element.element for element in elements}
    for name in names:
        if name not in known:
            raise errors.InvalidRequest(
                f"{where} names {name!r}, which the form does not have",
                hint=f"it has {', '.join(list(known)[:_LISTED_MAX])}",
            )
        if known[name] == "markdown":
            raise errors.InvalidRequest(f"{where} names {name!r}, which is only read and never answered")


# -- judging an answer ----------------------------------------------------------------------------------------------


def _wrong_keys(form: Form, said: Mapping[str, Any]) -> dict[str, str]:
    known = {element.key: element.element for element in form.elements}
    asked = ", ".join([key for key, element in known.items() if element != "markdown"][:_LISTED_MAX])
    wrong = {}
    for key in said:
        if key not in known:
            wrong[key] = f"is not asked for; there {'are ' + asked if asked else 'is nothing to answer'}"
        elif known[key] == "markdown":
            wrong[key] = "is only read and takes no answer"
    return wrong


def _pressed(form: Form, said: Mapping[str, Any], wrong: dict[str, str]) -> Element | None:
    """Return the button that was pressed.

    A program need not say so if there is only one, or if only one is pressed by default."""
    buttons = form.buttons
    for button in buttons:
        if button.key in said and not isinstance(said[button.key], bool):
            wrong[button.key] = f"must be {button.expected}"
            return None
    pressed = [button for button in buttons if said.get(button.key) is True]
    if not pressed and not any(button.key in said for button in buttons):
        pressed = list(buttons) if len(buttons) == 1 else [b for b in buttons if b.default is True]
        if len(pressed) > 1:
            pressed = []
    if not pressed and buttons:
        keys = " or ".join(_json(button.key) for button in buttons[:_LISTED_MAX])
        wrong[buttons[0].key] = f"no button is pressed; send true for {keys}"
    for button in pressed[1:]:
        wrong[button.key] = f"is pressed beside {_json(pressed[0].key)}, and only one can be"
    return pressed[0] if pressed else None


def _complete(form: Form, said: dict[str, Any]) -> None:
    """Add the defaults that would be good answers."""
    defaults = {
        element.key: element.default
        for element in form.elements
        if element.key not in said and element.default is not None and element.element not in ("submit", "markdown")
    }
    if defaults:
        # Together with the answer, for what is good may depend on it; and the same when it comes a second time.
        unfit = _problems(form, {**said, **defaults})
        said |= {key: value for key, value in defaults.items() if key not in unfit}


def _problems(form: Form, said: Mapping[str, Any]) -> dict[str, str]:
    """Return what JSON Schema says against an answer, by key; empty is the key of what concerns it as a whole."""
    asked = {element.key: element for element in form.elements if element.element != "markdown"}
    found: dict[str, str] = {}
    for path, problems in form.schema.problems({key: said[key] for key in said if key in asked}).items():
        key = str(path[0]) if path else ""
        element = asked.get(key) if len(path) == 1 else None
        if element is not None and problems.keys() & _told_by(element):
            found[key] = f"must be {element.expected}"
        else:
            inner = schemas.place("", path[1:]).lstrip(".")
            found.setdefault(key, "; ".join(f"{inner} {words}".strip() for words in problems.values()))
    return found


def _told_by(element: Element) -> set[str]:
    """Return the keywords whose meaning ``expected`` tells."""
    return {"type"} | ({"enum"} if element.choices else set()) | ({"format"} if element.format in FORMATS else set())


def _named(form: Form, key: str) -> Element:
    return next(element for element in form.elements if element.key == key)


def _refused(form: Form, wrong: Mapping[str, str]) -> errors.AnswerRefused:
    told = [f"{_json(key)}: {problem}" if key else problem for key, problem in wrong.items()]
    more = [f"and {len(told) - _LISTED_MAX} more"] if len(told) > _LISTED_MAX else []
    return errors.AnswerRefused(
        "the answer cannot be taken: " + "; ".join(told[:_LISTED_MAX] + more),
        hint="the message stays open: answer again",
        wrong=wrong,
    )


def _json(value: Any) -> str:
    return values.encode(value).decode()


# -- dates and times ------------------------------------------------------------------------------------------------


def _is_date(text: str) -> bool:
    try:
        return _DATE.fullmatch(text) is not None and bool(datetime.date.fromisoformat(text))
    except ValueError:
        return False


def _is_time(text: str) -> bool:
    return _TIME.fullmatch(text) is not None


def _is_datetime(text: str) -> bool:
    return text[10:11] in ("T", "t", " ") and _is_date(text[:10]) and _is_time(text[11:])


#: What the names of formats mean in forms.
FORMATS: Mapping[str, Callable[[str], bool]] = {
    "date": _is_date,
    "time": _is_time,
    "datetime": _is_datetime,
    "date-time": _is_datetime,
}
_ELEMENT_OF_FORMAT = {"date": "date", "time": "time", "datetime": "datetime", "date-time": "datetime"}
