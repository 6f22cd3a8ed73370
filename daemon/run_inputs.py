"""The inputs of a run as people type them: in the fields of the form that the flow declares, or as JSON. Pure.

Owns: which of the two was sent, what it stands for, and how it is shown again. Whether inputs fit is
``state.inputs``'s to say. Called by the page of a flow, and by whoever else takes runs from outside.
"""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from ..engine import errors, model, values
from ..engine.state import inputs as declared_inputs
from . import answers, fields, wording

#: What stands beside the fields, called as no input is.
_KEY, _REF = "run:key", "run:ref"


class Typed(msgspec.Struct, frozen=True, kw_only=True):
    """What was typed: a JSON text, or fields. ``key`` is the form's own, ``ref`` the commit to run."""

    json: str = "{}"
    form: dict[str, str] | None = None
    as_json: bool = False
    key: str = ""
    ref: str = ""

    @classmethod
    def prefilled(cls, text: str) -> Typed:
        """What a form begins with: inputs as JSON."""
        return cls(json=text)

    @classmethod
    def sent(cls, form: Mapping[str, str]) -> Typed:
        """What a browser sent."""
        if _KEY in form:
            return cls(form=dict(form), key=form[_KEY], ref=form.get(_REF, "").strip())
        text = form.get("inputs", "").strip() or "{}"
        return cls(json=text, as_json=True, key=form.get("key", ""), ref=form.get("ref", "").strip())

    def inputs(self, schema: str) -> bytes:
        """Return what it stands for as a JSON object's text; raises ``InvalidRequest``, ``InputsUnfit``."""
        if self.form is None:
            return answers.checked_inputs(self.json.encode())
        declared = declared_inputs.read(schema or "{}")
        wrong = fields.no_json(declared.form, self.form, declared.as_json)
        if wrong:
            raise errors.InputsUnfit(wrong)
        return values.encode(fields.answered(declared.form, self.form, declared.as_json), "the inputs")

    def text(self, schema: str) -> str:
        """Return it as JSON for reading, as far as it is any; what nobody may read is left out."""
        if self.form is None:
            return self.json
        declared = declared_inputs.read(schema or "{}")
        wrong = fields.no_json(declared.form, self.form, declared.as_json)
        said = fields.answered(declared.form, self.form, declared.as_json - wrong.keys())
        return wording.indented(values.encode({key: said[key] for key in said if key not in declared.secret}))

    def controls(self, schema: str, wrong: Mapping[str, str]) -> list[fields.Control] | None:
        """Return the controls that ask for it, or None for a flow that declares nothing."""
        if not schema:
            return None
        asked = declared_inputs.read(schema).form
        typed = self.form
        if typed is None and self.json.strip() != "{}":
            typed = fields.typed_of(asked, _members(self.json))
        return fields.controls(asked, typed, wrong)


def check(flow: model.Flow, inputs: bytes) -> tuple[str, ...]:
    """Return which inputs to protect; raises ``InputsUnfit`` for what is not as the flow declares."""
    return declared_inputs.check(flow.metadata.input_schema, inputs)


def _members(text: str) -> dict[str, object]:
    try:
        said = values.decode(text.encode())
    except msgspec.DecodeError:
        return {}
    return said if isinstance(said, dict) else {}
