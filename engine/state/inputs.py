"""What a flow says of its inputs (``input_schema`` in its metadata): the form that asks for them, and the check. Pure.

Owns: which JSON Schema may stand there, how it becomes a form (the elements of ``forms``; what has no element of its
own is typed as JSON), and the words for inputs that do not fit. Refuses: schemas of something else than an object, and
forms nobody could fill in. Called by sync, which refuses a flow that says nonsense, and by whoever takes runs from
people and programs.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from typing import Any

import msgspec

from .. import errors, values
from . import forms, schemas

#: What a property with such a format is asked with.
_ELEMENT_OF_FORMAT = {"date": "date", "time": "time", "date-time": "datetime", "password": "password"}
_TYPES_ASKED = ("string", "number", "integer", "boolean")


class Declared(msgspec.Struct, frozen=True):
    """A flow's inputs as it declares them: the form, the keys of it that are typed as JSON, and the whole schema."""

    form: forms.Form
    as_json: frozenset[str]
    required: tuple[str, ...]
    schema: schemas.Schema

    @property
    def secret(self) -> tuple[str, ...]:
        """The keys whose values nobody may read."""
        return tuple(element.key for element in self.form.elements if element.element == "password")

    def problems(self, inputs: Mapping[str, Any]) -> dict[str, str]:
        """Return what is wrong with inputs, by key; empty is the key of what concerns them as a whole."""
        known = {element.key: element for element in self.form.elements}
        wrong = {key: "is missing" for key in self.required if key not in inputs}
        for path, told in self.schema.problems(dict(inputs)).items():
            words = [text for keyword, text in told.items() if path or keyword != "required"]
            key = str(path[0]) if path else ""
            element = known.get(key) if len(path) == 1 and key not in self.as_json else None
            if element is not None and told.keys() & {"type", "enum", "format"}:
                wrong.setdefault(key, f"must be {element.expected}")
            elif words:
                inner = schemas.place("", path[1:]).lstrip(".")
                wrong.setdefault(key, "; ".join(f"{inner} {text}".strip() for text in words))
        return wrong


def checked(said: Mapping[str, Any]) -> str:
    """Return a schema as JSON text; raises ``InvalidRequest`` that says what is wrong with it."""
    text = values.encode(said, "input_schema").decode()
    read(text)
    return text


@functools.lru_cache(maxsize=256)  # of the flows that are run from pages again and again
def read(text: str) -> Declared:
    """Return what the text of a schema declares; raises ``InvalidRequest``."""
    said = values.decode(msgspec.Raw(text.encode()))
    if said.get("type", "object") != "object":
        raise errors.InvalidRequest("the inputs of a flow are an object", hint='write type = "object"')
    properties = said.get("properties", {})
    if not isinstance(properties, dict):
        raise errors.InvalidRequest("properties must be a table of keys and what their values must be")
    required = said.get("required", [])
    asked = {key: _asked(property_) for key, property_ in properties.items()}
    body = {
        "type": "object",
        "properties": {key: shown for key, (shown, _) in asked.items()},
        "required": [key for key in required if key in asked] if isinstance(required, list) else required,
    }
    form = forms.read(values.encode(body, "input_schema"))
    if form.buttons:
        raise errors.InvalidRequest("an input cannot be a button", hint="the form of a run has its own")
    whole = {**said, "properties": {key: _plain(property_) for key, property_ in properties.items()}}
    return Declared(
        form=form,
        as_json=frozenset(key for key, (_, as_json) in asked.items() if as_json),
        required=tuple(required),
        schema=schemas.Schema(whole, "input_schema", forms.FORMATS),
    )


def _asked(said: Any) -> tuple[Any, bool]:
    """Return how a property is asked for, and whether as JSON."""
    if not isinstance(said, dict) or "element" in said:
        return said, False
    shown = dict(said)
    if isinstance(examples := shown.get("examples"), list) and examples and "example" not in shown:
        shown["example"] = examples[0] if isinstance(examples[0], str) else values.encode(examples[0]).decode()
    if isinstance(shown.get("oneOf"), list) and all(isinstance(one, dict) and "const" in one for one in shown["oneOf"]):
        return {**shown, "element": "dropdown"}, False
    if "enum" in shown or "options" in shown:
        return {**shown, "element": "dropdown"}, False
    types = shown.get("type")
    asked = {type_ for type_ in (types if isinstance(types, list) else [types]) if type_ != "null"}
    if len(asked) == 1 and asked <= {*_TYPES_ASKED}:
        element = _ELEMENT_OF_FORMAT.get(str(shown.get("format"))) if asked == {"string"} else None
        return {**shown, "element": element} if element else shown, False
    told = {key: shown[key] for key in ("title", "label", "description", "example", "order") if key in shown}
    told["description"] = ". ".join(filter(None, (str(told.get("description", "")).rstrip("."), "As JSON")))
    if "default" in shown:
        told["default"] = values.encode(shown["default"]).decode()
    return {**told, "element": "textarea"}, True


def _plain(said: Any) -> Any:
    """Return a property without what is for people alone, which JSON Schema would not understand."""
    if not isinstance(said, dict):
        return said
    hidden = {"element", "label", "example", "order", "options"}
    schema = {key: value for key, value in said.items() if key not in hidden}
    if "options" in said and "enum" not in said:
        options = said["options"] if isinstance(said["options"], list) else []
        schema["enum"] = [one["value"] if isinstance(one, dict) and "value" in one else one for one in options]
    return schema


def check(text: str, inputs: bytes) -> tuple[str, ...]:
    """Return the keys to protect, or raise ``InputsUnfit``; ``text`` is the schema, empty for none."""
    if not text:
        return ()
    declared = read(text)
    wrong = declared.problems(values.decode(msgspec.Raw(inputs)))
    if wrong:
        raise errors.InputsUnfit(wrong)
    return declared.secret
