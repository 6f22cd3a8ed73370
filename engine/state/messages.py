"""Messages to people and their answers. Folded from events.

Owns: which messages there are, which wait for an answer, and that each gets one. Refuses: a second answer, and one to
a message that was withdrawn. Called by the keeper, which checks answers (``forms``) before they become events; what
people and flows see of a message is made there.

Finding a message, those that are pending and those of an execution does not depend on how many others there are; a
message stays in memory until it is deleted.
"""

from __future__ import annotations

from typing import Any

import msgspec

from .. import errors, events, model


class Message(msgspec.Struct, frozen=True):
    """Something a person is told or asked. ``bound``: nobody needs the answer once its execution ended."""

    id: str
    subject: str
    message_type: str
    body: model.Value
    execution: str
    created_at: str
    created_by: str
    bound: bool
    response: model.Value | None = None
    answered_at: str = ""
    answered_by: str = ""
    withdrawn: str = ""  # why, if it was

    @property
    def pending(self) -> bool:
        """Whether an answer is still wanted."""
        return self.response is None and not self.withdrawn


class Messages:
    """All messages there are."""

    def __init__(self) -> None:
        self._messages: dict[str, Message] = {}
        self._pending: dict[str, None] = {}
        self._bound: dict[str, dict[str, None]] = {}  # execution → its pending bound messages

    def apply(self, event: events.MessageEvent, at: str) -> None:
        """Change the state as ``event`` says; raises ``ValueError`` for a second answer."""
        if isinstance(event, events.MessageCreated):
            self._created(event, at)
            return
        if isinstance(event, events.MessageCarried):
            self._carried(event)
            return
        message = self._messages.get(event.message)
        if message is None:
            return  # deleted meanwhile
        match event:
            case events.MessageAnswered():
                if not message.pending:
                    raise ValueError(f"message {message.id} was answered though nobody waits for that")
                response = model.value(event.response, event.response_blob, event.response_sealed)
                self._close(msgspec.structs.replace(message, response=response, answered_at=at, answered_by=event.by))
            case events.MessageWithdrawn():
                if message.pending:
                    self._close(msgspec.structs.replace(message, withdrawn=event.reason or "withdrawn"))
            case events.MessageDeleted():
                self._close(message)
                del self._messages[message.id]

    def find(self, id: str) -> Message:  # noqa: A002 - a message is found by it
        """Return a message; raises ``NotFound``."""
        message = self._messages.get(id)
        if message is None:
            raise errors.NotFound(f"there is no message {id!r}", hint="`headrace messages` lists those that wait")
        return message

    def pending(self, id: str) -> Message:  # noqa: A002
        """Return a message that wants an answer; raises ``NotFound``, and ``Conflict`` if it wants none any more."""
        message = self.find(id)
        if message.response is not None:
            by = f" by {message.answered_by}" if message.answered_by else ""
            raise errors.Conflict(f"message {id} was answered{by} at {message.answered_at}")
        if message.withdrawn:
            raise errors.Conflict(f"message {id} needs no answer any more: {message.withdrawn}")
        return message

    def all(self, *, pending: bool = False) -> list[Message]:
        """Return all messages, or those that want an answer, the newest first."""
        found = [self._messages[id_] for id_ in reversed(self._pending if pending else self._messages)]
        return sorted(found, key=_made, reverse=True)

    def bound_to(self, execution: str) -> list[Message]:
        """Return what nobody needs to answer once that execution ended, the oldest first."""
        return sorted((self._messages[id_] for id_ in self._bound.get(execution, ())), key=_made)

    def carried(self, id: str) -> events.MessageCarried | None:  # noqa: A002 - a message is found by it
        """Return a message as it is, so that applying it changes nothing; None if there is none."""
        message = self._messages.get(id)
        if message is None:
            return None
        said: dict[str, Any] = {}
        for field, value in (("body", message.body), ("response", message.response)):
            shown = value.shown if isinstance(value, model.Sealed) else value
            if isinstance(value, model.Sealed):
                said[f"{field}_sealed"] = value.id
            if shown is not None:
                said[f"{field}_blob" if isinstance(shown, events.Blob) else field] = shown
        plain = ("subject", "message_type", "execution", "created_at", "created_by", "bound")
        told = (*plain, "answered_at", "answered_by", "withdrawn")
        return events.MessageCarried(message=id, **said, **{name: getattr(message, name) for name in told})

    def _created(self, event: events.MessageCreated, at: str) -> None:
        message = Message(
            id=event.message,
            subject=event.subject,
            message_type=event.message_type,
            body=model.value(event.body, event.body_blob),
            execution=event.execution,
            created_at=at,
            created_by=event.created_by,
            bound=event.bound,
        )
        if message.id in self._messages:
            raise ValueError(f"message {message.id} was created twice")
        self._put(message)

    def _carried(self, event: events.MessageCarried) -> None:
        if event.message in self._messages:
            self._close(self._messages[event.message])
        answer = model.value(event.response, event.response_blob, event.response_sealed)
        self._put(
            Message(
                id=event.message,
                subject=event.subject,
                message_type=event.message_type,
                body=model.value(event.body, event.body_blob),
                execution=event.execution,
                created_at=event.created_at,
                created_by=event.created_by,
                bound=event.bound,
                response=answer if event.answered_at else None,
                answered_at=event.answered_at,
                answered_by=event.answered_by,
                withdrawn=event.withdrawn,
            )
        )

    def _put(self, message: Message) -> None:
        self._messages[message.id] = message
        if not message.pending:
            return
        self._pending[message.id] = None
        if message.bound and message.execution:
            self._bound.setdefault(message.execution, {})[message.id] = None

    def _close(self, message: Message) -> None:
        self._messages[message.id] = message
        self._pending.pop(message.id, None)
        bound = self._bound.get(message.execution, {})
        if message.id in bound:
            del bound[message.id]
            if not bound:
                del self._bound[message.execution]


def _made(message: Message) -> str:
    """The order of making, also for messages that were carried forward in the journal."""
    return message.created_at
