"""INPUT: ask a person one question, the way flows did before there were messages with forms.

The question is a message like any other: it is answered in the browser, with ``headrace answer`` or over HTTP, once. It
outlives the daemon; a task that was cut off goes on waiting for the answer to the same question.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

import msgspec

from ..engine import ports, values
from . import definition as definitions
from .definition import invalid
from .host import about

TASK = "INPUT"
_KEY = "response"
_SUBJECT_CHARACTERS = 200


class InputInputs(definitions.Inputs, kw_only=True):
    """The inputs of INPUT."""

    timeout: Annotated[
        Annotated[float, msgspec.Meta(ge=0)] | None,
        about("Seconds to wait for the answer; 0 is without limit. Default: without limit."),
    ] = None
    request: Annotated[str, about("The question.")]
    type: Annotated[
        Literal["string", "password", "textarea", "number", "toggle", "date", "time", "datetime"],
        about("What kind of answer is wanted. Default: string."),
    ] = "string"
    reference: Annotated[str, about("What the output repeats, to tell several questions apart.")] = ""


class InputOutput(msgspec.Struct, kw_only=True):
    """The output of INPUT."""

    response: Any
    reference: str


def _check(inputs: InputInputs) -> None:
    if not inputs.request.strip():
        raise invalid(TASK, "request", "expected a question")


def _form(inputs: InputInputs) -> bytes:
    asked = {"element": inputs.type, "label": inputs.request, "order": 1}
    button = {"element": "submit", "label": "OK", "order": 2}
    return values.encode({"properties": {_KEY: asked, "OK": button}, "required": [_KEY]})


async def _run(inputs: InputInputs, context: ports.TaskContext) -> InputOutput:
    subject = " ".join(inputs.request.split())[:_SUBJECT_CHARACTERS]
    response = values.decode(await context.ask(subject, _form(inputs)))[_KEY]
    if inputs.type == "password":
        context.hide(response)
    return InputOutput(response=response, reference=inputs.reference)


def definition(_: definitions.Settings) -> definitions.TaskDefinition[InputInputs]:
    """Return the task type INPUT."""
    return definitions.TaskDefinition(
        name=TASK,
        summary="Ask a person",
        description="Asks one question and waits for the answer, also over restarts of the daemon.",
        inputs=InputInputs,
        output=InputOutput,
        run=_run,
        idempotent=lambda _: True,
        check=_check,
    )
