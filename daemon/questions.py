"""A message as a page shows it: its form to be filled in, or what was answered and by whom.

Called by the pages of messages, and by that of the execution that asks.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from ..engine import values
from ..engine.running import asking
from ..engine.state import forms, messages
from . import fields


class Question(msgspec.Struct, frozen=True, kw_only=True):
    """A message, the form it asks with, its controls, and the answer by key as people may see it."""

    message: messages.Message
    form: forms.Form
    controls: list[fields.Control]
    response: dict[str, Any]

    @property
    def labels(self) -> dict[str, str]:
        """What each key is called."""
        return {element.key: element.label for element in self.form.elements}


async def shown(
    questions: asking.Asking,
    message: messages.Message,
    typed: Mapping[str, str] | None = None,
    wrong: Mapping[str, str] | None = None,
) -> Question:
    """Return a message with what was ``typed`` into its form, and what is ``wrong`` with it by key."""
    record = await questions.for_people(message)
    form = forms.read(bytes(record["body"]))
    response = values.decode(record["response"]) if record["response"] is not None else {}
    return Question(message=message, form=form, controls=fields.controls(form, typed, wrong), response=response)
