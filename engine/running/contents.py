"""Values of flows on their way into events and out again: where they lie, and what people may see of them.

A large value goes to a file (``records.blobs``). What nobody shall read (a secret the daemon resolved, a key that was
asked to be protected) gives way to a marker in the event, and the true value is sealed (``state.sealed``) for the flow.
So there are two ways to read: ``shown`` for people, ``true`` for flows and tasks.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection
from typing import Any, TypeVar

import msgspec

from .. import errors, events, model, values
from ..records import blobs
from ..state import masks, protection, sealed

#: How often a value that found no room on the disk is tried again.
_ROOM_RETRY_S = 0.5
#: Longer texts are data; certificates and keys are shorter.
_SECRET_CHARACTERS_MAX = 8 * 1024
_PROTECTED = msgspec.Raw(values.encode(protection.MARKER))
_T = TypeVar("_T")


class Held(msgspec.Struct, frozen=True):
    """A value as an event holds it."""

    raw: msgspec.Raw | msgspec.UnsetType
    blob: events.Blob | None = None
    sealed: str = ""

    def twins(self, field: str) -> dict[str, Any]:
        """Return it as the fields of an event: ``field``, ``field_blob``, ``field_sealed``, without what is empty."""
        said: dict[str, Any] = {} if self.raw is msgspec.UNSET else {field: self.raw}
        if self.blob is not None:
            said[f"{field}_blob"] = self.blob
        if self.sealed:
            said[f"{field}_sealed"] = self.sealed
        return said


def held(value: model.Value) -> Held:
    """Return a value, as it was read from an event, as the next event holds it."""
    seal = value.id if isinstance(value, model.Sealed) else ""
    shown = value.shown if isinstance(value, model.Sealed) else value
    if isinstance(shown, events.Blob):
        return Held(msgspec.UNSET, shown, seal)
    return Held(shown, None, seal)


class Contents:
    """The stores of values together."""

    def __init__(self, store: blobs.Blobs, seals: sealed.Sealed, known: masks.Masks) -> None:
        self.blobs = store
        self.masks = known
        self._sealed = seals

    def files(self) -> tuple[blobs.Blobs, sealed.Sealed]:
        """Return the stores whose files are named by lines of the journal."""
        return self.blobs, self._sealed

    async def store(
        self,
        value: bytes | msgspec.Raw,
        *,
        protect: Collection[str] = (),
        shown: bytes | msgspec.Raw | None = None,
        inline: bool = True,
        patient: bool = True,
    ) -> Held:
        """Return a value as an event holds it. ``protect``: keys of an object that nobody shall see; what lies there is
        masked from now on. ``shown`` is what people see instead, if the caller knows.

        On a full disk this waits for room, as the journal does with what has happened already; one that is not
        ``patient``, because nothing was promised yet, raises ``NotAccepting``.
        """
        text = bytes(value)
        seen = text if shown is None else bytes(shown)
        if protect and (members := values.members(seen)) is not None and not members.keys().isdisjoint(protect):
            given = values.members(text) or {}
            for key in protect:
                if key in given:
                    self.learn_protected(given[key])
            seen = values.encode({key: _PROTECTED if key in protect else raw for key, raw in members.items()})
        if self.masks.knows():
            seen = self.masks.json(seen)
        seal = ""
        if seen != text:
            seal = await self._put(lambda: self._sealed.put(text, self._secrets_in(text)), patient=patient)
        if inline and len(seen) <= values.INLINE_BYTES_MAX:
            return Held(msgspec.Raw(seen), None, seal)
        return Held(msgspec.UNSET, await self._put(lambda: self.blobs.put(seen), patient=patient), seal)

    def learn_protected(self, value: msgspec.Raw) -> None:
        """Mask a value that was asked to be protected wherever else it turns up: if it looks like a secret.

        The leaves of an object and the lines of a page do not: masking those would hide half of what is recorded."""
        text = values.decode(value)
        if isinstance(text, str) and len(text) <= _SECRET_CHARACTERS_MAX and ("\n" not in text or "-----BEGIN" in text):
            self.masks.learn(text)

    async def store_hidden(self, value: bytes) -> Held:
        """Return a value of which people see nothing but that it is there."""
        return await self.store(value, shown=_PROTECTED)

    async def store_file(self, content: bytes, *, patient: bool) -> events.Blob:
        """Keep the content of a file; ``patient`` as in ``store``: what runs waits for room, who asks is refused."""
        return await self._put(lambda: self.blobs.put(content), patient=patient)

    async def _put(self, put: Callable[[], _T], *, patient: bool) -> _T:
        while True:
            try:
                return await asyncio.to_thread(put)
            except errors.NotAccepting:
                if not patient:
                    raise
                await asyncio.sleep(_ROOM_RETRY_S)

    def _secrets_in(self, text: bytes) -> list[str]:
        """The secrets as they are spelled in ``text``: who opens it after a restart has to mask them again."""
        return [text[begin:end].decode("utf-8", "ignore") for begin, end in self.masks.spans(text)]

    async def shown(self, value: model.Value) -> msgspec.Raw:
        """Return a value as people see it."""
        seen = value.shown if isinstance(value, model.Sealed) else value
        if isinstance(seen, events.Blob):
            return msgspec.Raw(await asyncio.to_thread(self.blobs.get, seen))
        return seen

    async def true(self, value: model.Value) -> msgspec.Raw:
        """Return a value as it truly is."""
        if isinstance(value, model.Sealed):
            return msgspec.Raw(await asyncio.to_thread(self._sealed.get, value.id))
        return await self.shown(value)
