"""The events of retention: what is gone, and what still counts of segments that are to go.

That is said again, as it is now, at the end of the journal; each such event replaces whatever was known of its subject,
so that hearing it twice changes nothing. A part of the vocabulary in ``events``, where everybody finds them.
"""

from __future__ import annotations

import msgspec

from .event import EMPTY_OBJECT, Blob, Event


class ExecutionsPruned(Event, frozen=True, tag="executions.pruned"):
    """These ended long enough ago: they are not listed or shown any more; their lines go when their segment does."""

    executions: tuple[str, ...]


class CarriedLine(msgspec.Struct, frozen=True):
    """A line as it stood elsewhere: its number and time then, and its event's JSON object."""

    seq: int
    at: str
    event: msgspec.Raw


class ExecutionCarried(Event, frozen=True, tag="execution.carried"):
    """The whole record of an execution moved here, in one or more parts; it counts from its ``last`` part on.

    Parts of one ``carry`` belong together; one without a last part was cut off, and what was before still counts."""

    execution: str
    carry: str
    last: bool = True
    lines: tuple[CarriedLine, ...] = ()


class RecordCarried(Event, frozen=True, tag="record.carried"):
    """What was saved under a name at run time; without ``id``, that it was deleted. Fields as in ``record.saved``."""

    type: str
    name: str
    id: str = ""
    fields: dict[str, msgspec.Raw] = {}
    field_blobs: dict[str, Blob] = {}
    fields_sealed: dict[str, str] = {}
    base: str = ""
    created_at: str = ""
    modified_at: str = ""
    created_by: str = ""
    modified_by: str = ""


class LockCarried(Event, frozen=True, tag="lock.carried"):
    """``execution`` has the lock ``since`` then."""

    name: str
    execution: str
    owned: bool = False
    since: str = ""


class MessageCarried(Event, frozen=True, tag="message.carried"):
    """A message as it is now; ``answered_at`` is empty while it has no answer."""

    message: str
    subject: str
    message_type: str = "INFO"
    body: msgspec.Raw = EMPTY_OBJECT
    body_blob: Blob | None = None
    execution: str = ""
    created_at: str = ""
    created_by: str = ""
    bound: bool = False
    response: msgspec.Raw = EMPTY_OBJECT
    response_blob: Blob | None = None
    response_sealed: str = ""
    answered_at: str = ""
    answered_by: str = ""
    withdrawn: str = ""


class KeyCarried(Event, frozen=True, tag="key.carried"):
    """A request made at ``created_at`` had ``key``: another one with it still gets this execution."""

    key: str
    execution: str
    key_digest: str = ""
    created_at: str = ""


class SegmentsDropped(Event, frozen=True, tag="segments.dropped"):
    """All segments up to ``segment`` may be gone: it ended with line ``last_seq`` and ``last_crc``, sealed ``sha256``.

    Durable before the first of them goes; without it a journal that does not begin at its beginning is refused."""

    segment: int
    last_seq: int
    last_crc: str
    sha256: str
