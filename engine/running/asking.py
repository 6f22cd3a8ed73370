"""Messages to people: asked by executions, answered once, waited for by whoever has the id.

An answer is checked against the message's form and is durable before whoever gave it is told so. What was answered in a
password field is sealed. A message that ``this.message`` waits for is withdrawn when its execution ends without an
answer: nobody would read it any more.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Callable
from typing import Any

from .. import errors, events, model, ports
from ..state import forms, messages
from . import contents

TYPES = ("INFO", "SUCCESS", "WARNING", "ERROR", "POPUP")
_SUBJECT_CHARACTERS_MAX = 1000


class Asking:
    """All messages."""

    def __init__(
        self,
        state: messages.Messages,
        journal: ports.Journal,
        values_in: contents.Contents,
        new_id: Callable[[], str],
    ) -> None:
        self._messages = state
        self._journal = journal
        self._contents = values_in
        self._new_id = new_id
        self._waits: defaultdict[str, list[asyncio.Future[bool]]] = defaultdict(list)

    def _record(self, event: events.MessageEvent) -> None:
        event = self._contents.masks.event(event)
        self._messages.apply(event, self._journal.append(event))

    async def create(
        self,
        subject: str,
        message_type: str,
        body: bytes,
        *,
        execution: str = "",
        call: int = 0,
        created_by: str = "",
        bound: bool = False,
    ) -> messages.Message:
        """Ask; raises ``InvalidRequest`` for a form that cannot be used."""
        if message_type not in TYPES:
            raise errors.InvalidRequest(f"a message is one of {', '.join(TYPES)}, not {message_type[:100]!r}")
        held = await self._contents.store(forms.checked(body))
        id_ = self._new_id()
        self._record(
            events.MessageCreated(
                message=id_,
                subject=subject[:_SUBJECT_CHARACTERS_MAX],
                message_type=message_type,
                body=events.EMPTY_OBJECT if held.blob is not None else held.raw or events.EMPTY_OBJECT,
                body_blob=held.blob,
                execution=execution,
                call=call,
                created_by=created_by,
                bound=bound,
            )
        )
        return self._messages.find(id_)

    async def answer(self, id_: str, response: bytes, by: str) -> None:
        """Take the answer; durable on return. Raises ``AnswerRefused``, ``NotFound``, and ``Conflict`` for a second."""
        message = self._messages.pending(id_)
        if self._journal.stalled:
            raise errors.NotAccepting(self._journal.stalled, hint="free disk space")
        body = bytes(await self._contents.shown(message.body))
        complete = forms.answer(body, response)
        held = await self._contents.store(complete, protect=forms.secret_keys(body), patient=False)
        self._messages.pending(id_)  # somebody else may have been quicker
        self._record(events.MessageAnswered(message=id_, by=by, **held.twins("response")))
        self._tell(id_)
        await self._journal.durable()

    def ended(self, execution: str) -> None:
        """An execution is over: nobody waits for the answers that it alone wanted."""
        for message in self._messages.bound_to(execution):
            self._withdraw(message.id, "its execution ended")

    def settle(self, is_live: Callable[[str], bool]) -> None:
        """At start: withdraw what belongs to executions that ended just before the daemon did."""
        for message in self._messages.all(pending=True):
            if message.bound and not is_live(message.execution):
                self._withdraw(message.id, "its execution ended")

    def _withdraw(self, id_: str, reason: str) -> None:
        self._record(events.MessageWithdrawn(message=id_, reason=reason))
        self._tell(id_)

    def delete(self, id_: str, by: str) -> None:
        """Show it no more; raises ``NotFound``."""
        self._messages.find(id_)
        self._record(events.MessageDeleted(message=id_, by=by))
        self._tell(id_)

    def _tell(self, id_: str) -> None:
        for hold in self._waits.pop(id_, []):
            if not hold.done():
                hold.set_result(False)

    def wait(self, id_: str, hold: asyncio.Future[bool]) -> bool:
        """Return True if there is nothing to wait for; else ``hold`` is done when that is so."""
        if not self._messages.find(id_).pending:
            return True
        self._waits[id_].append(hold)
        return False

    def give_up(self, id_: str, hold: asyncio.Future[bool]) -> None:
        """Wait no more; harmless after the end."""
        waiting = self._waits.get(id_, [])
        if hold in waiting:
            waiting.remove(hold)
        if not waiting:
            self._waits.pop(id_, None)

    async def settled(self, id_: str) -> messages.Message:
        """Return a message when it wants no answer any more; raises ``NotFound`` when it is deleted before."""
        hold: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
        if not self.wait(id_, hold):
            try:
                await hold
            finally:
                self.give_up(id_, hold)
        return self._messages.find(id_)

    def question_of(self, execution: str) -> messages.Message | None:
        """Return the last message that an execution asked for itself, answered or not; looks at all of them."""
        return next((one for one in self._messages.all() if one.bound and one.execution == execution), None)

    def find(self, id_: str) -> messages.Message:
        """Return a message; raises ``NotFound``."""
        return self._messages.find(id_)

    def all(self, *, pending: bool = False) -> list[messages.Message]:
        """Return all messages, or those that want an answer, the newest first."""
        return self._messages.all(pending=pending)

    async def response(self, message: messages.Message) -> bytes:
        """Return the answer as the flow gets it, ``null`` if there is none."""
        return b"null" if message.response is None else bytes(await self._contents.true(message.response))

    async def for_people(self, message: messages.Message) -> dict[str, Any]:
        """Return a message as people see it."""
        return self._view(message) | {
            "body": await self._contents.shown(message.body),
            "response": None if message.response is None else await self._contents.shown(message.response),
        }

    async def for_flow(self, message: messages.Message) -> dict[str, Any]:
        """Return a message as flows see it."""
        shown = await self.for_people(message)
        if isinstance(message.response, model.Sealed):
            shown["response"] = await self._contents.true(message.response)
        return shown

    def _view(self, message: messages.Message) -> dict[str, Any]:
        status = "pending" if message.pending else "withdrawn" if message.response is None else "answered"
        return {
            "id": message.id,
            "name": message.subject,
            "subject": message.subject,
            "message_type": message.message_type,
            "status": status,
            "execution_id": message.execution or None,
            "created_at": message.created_at,
            "created_by": message.created_by,
            "modified_at": message.answered_at or message.created_at,
            "modified_by": message.answered_by or message.created_by,
            "answered_at": message.answered_at or None,
            "answered_by": message.answered_by or None,
            "withdrawn": message.withdrawn or None,
        }
