"""Messages: questions to people, as forms, and their answers."""

from __future__ import annotations

from typing import Any, ClassVar, Self

from . import channel as channels
from . import exceptions, handles, records

_TYPES = ("INFO", "SUCCESS", "WARNING", "ERROR", "POPUP")


class Message(records.Record):
    """A message: ``subject``, ``message_type``, ``body`` (a form), ``response`` (None until it is answered).

    Found by its id.
    """

    __slots__ = ()

    _TYPE = "message"
    _BY = "id"
    #: Fields that stay as they are; the answer does too, once it is there.
    _CONSTANT: ClassVar[frozenset[str]] = frozenset(
        {"id", "subject", "message_type", "body", "created_at", "created_by", "execution_id"}
    )

    def wait(self, timeout: float | None = None) -> Self:
        """Wait until somebody answered, at most ``timeout`` seconds; returns at once if somebody did.

        Raises ``MessageResponseTimeoutError``; the message stays open.

        Example:
            question = system.message(subject='Lunch', request='Pizza or pasta?')
            try:
                this.log(question.wait(timeout=0.1).get('response')['string'])
            except flow_api.MessageResponseTimeoutError:
                this.log('nobody is hungry')
        """
        seconds = handles.ask_number("timeout", timeout, optional=True)
        if self._known.get("response") is None:
            self._keep(self._channel.call("message.wait", self.id, timeout=seconds))
        return self

    def _keep(self, values: dict[str, Any]) -> None:
        for field, value in values.items():
            if field in self._CONSTANT or (field == "response" and value is not None):
                self._known[field] = value


def create(
    channel: channels.Channel,
    subject: str,
    message_type: str,
    shown: dict[str, Any],
    wait: bool,
    timeout: float | None,
) -> Message:
    """Ask a person; ``shown`` holds ``message``, ``request`` and ``body``, of which some may be None."""
    kind = str(message_type).upper()
    if kind not in _TYPES:
        raise exceptions.InvalidInputError(f"message_type is {message_type!r}; it may be one of {', '.join(_TYPES)}")
    made = channel.call(
        "message",
        subject,
        message_type=kind,
        body=_form(subject, **shown),
        wait=bool(wait),
        timeout=handles.ask_number("timeout", timeout, optional=True),
    )
    handle = Message(channel, made["id"], label=subject)
    handle._keep(made)
    return handle


def _form(subject: str, message: Any, request: Any, body: Any) -> dict[str, Any]:
    """Return the form: ``body`` as it is, else one of a text, a question, or both, and an OK button."""
    if body is not None:
        if message is not None or request is not None:
            raise exceptions.InvalidInputError("give either body=, or message= and request=")
        if not isinstance(body, dict):
            raise exceptions.InvalidInputError(f"body is a JSON Schema object, not {type(body).__name__}")
        return body
    properties: dict[str, Any] = {}
    if message is not None or request is None:
        text = subject if message is None else str(message)
        properties["message"] = {"element": "markdown", "description": text, "order": 1}
    if request is not None:
        properties["string"] = {"element": "string", "type": "string", "label": str(request), "order": 2}
    properties["OK"] = {"element": "submit", "type": "boolean", "label": "OK", "order": 3}
    form: dict[str, Any] = {"type": "object", "properties": properties}
    return form if request is None else {**form, "required": ["string"]}
