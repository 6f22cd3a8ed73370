"""The vocabulary of the journal: what can happen, one struct per kind, named by past-tense nouns.

These are the facts everything else is derived from: an execution's state, the index, the log people read, the stream
the API serves. A new field gets a default, so that older records stay readable for ever; a kind is never reused.

Values of flows travel as ``msgspec.Raw``: JSON text that was checked once (``values.checked``) and is copied from the
flow process to the disk and to the HTTP answer without being decoded. A value over ``values.INLINE_BYTES_MAX`` lies in
a content-addressed file, and the event's ``…_blob`` twin names it. A value that is not there is ``UNSET``, for ``null``
is a value.
"""

from __future__ import annotations

import msgspec

EMPTY_OBJECT = msgspec.Raw(b"{}")
EMPTY_LIST = msgspec.Raw(b"[]")


class Blob(msgspec.Struct, frozen=True):
    """A value kept outside the journal: ``sha256`` of its JSON text (hex) names the file, ``bytes`` is its size."""

    sha256: str
    bytes: int


class Failure(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Why something failed: exception class, last line, and for flows the traceback and where it was raised."""

    type: str
    message: str
    traceback: str = ""
    file: str = ""
    line: int = 0
    execution: str = ""  # the execution that failed, when this tells of another one


class Event(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, tag_field="event"):
    """One thing that happened. The journal adds ``seq``, ``batch``, ``at`` and the checksum around it."""


class ExecutionCreated(Event, frozen=True, tag="execution.created"):
    """Somebody asked for a flow or a task to be run; from here on it cannot be lost."""

    execution: str
    type: str = "FLOW"  # FLOW | TASK | SCRIPT
    name: str = ""
    flow_id: str = ""
    flow_name: str = ""
    commit: str = ""
    path: str = ""  # of the flow's file below the snapshot
    task: str = ""  # canonical task type, for type TASK
    inputs: msgspec.Raw = EMPTY_OBJECT
    inputs_blob: Blob | None = None
    parent: str = ""
    parent_call: int = 0
    depth: int = 0
    created_by: str = ""
    key: str = ""  # "<scope>:<delivery id or Idempotency-Key>": a second request with it gets this execution
    key_digest: str = ""  # sha256 of the request's body: the same key with another body is a conflict
    queued: bool = True  # False: created only, to be run later
    timeout_s: float | None = None
    reuse: bool = True  # whether its process may take another execution afterwards


class ExecutionQueued(Event, frozen=True, tag="execution.queued"):
    """An execution that was only created is to be run now."""

    execution: str


class ExecutionStarted(Event, frozen=True, tag="execution.started"):
    """There was room: flow process ``pid`` took it (0 for a task, which runs in the daemon)."""

    execution: str
    attempt: int = 1
    pid: int = 0


class CancelRequested(Event, frozen=True, tag="cancel.requested"):
    """Somebody wants it to end; it meets this at its next call, or is killed after its grace time."""

    execution: str
    by: str = ""


class CallStarted(Event, frozen=True, tag="call.started"):
    """The handler made call number ``call``, which is not answered yet; ``waits`` if it sits and waits for it."""

    execution: str
    call: int
    kind: str  # flow | task | wait | sleep | …
    target: str = ""  # flow name, task type, …
    args: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET
    args_blob: Blob | None = None
    children: tuple[str, ...] = ()  # executions it created or waits for
    waits: bool = False


class CallEnded(Event, frozen=True, tag="call.ended"):
    """Call ``call`` has its result or its failure; ``kind``, ``target``, ``args`` only if no ``call.started`` told."""

    execution: str
    call: int
    kind: str = ""
    target: str = ""
    args: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET
    args_blob: Blob | None = None
    result: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET
    result_blob: Blob | None = None
    failure: Failure | None = None


class ExecutionSaved(Event, frozen=True, tag="execution.saved"):
    """A call wrote to an execution: whole fields, or single output keys with the others kept."""

    execution: str
    call: int = 0
    by: str = ""  # the execution whose call this was, when it is another one
    message: str | None = None
    name: str | None = None
    output: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET  # replaces the whole output
    output_blob: Blob | None = None
    output_keys: dict[str, msgspec.Raw] = {}
    output_key_blobs: dict[str, Blob] = {}


class LogWritten(Event, frozen=True, tag="log.written"):
    """The flow logged (``args``, ``kwargs``), or its process wrote to ``stream`` (``text``, as it came)."""

    execution: str
    call: int = 0
    level: str = "INFO"
    stream: str = ""  # stdout | stderr, or empty for this.log
    args: msgspec.Raw = EMPTY_LIST
    args_blob: Blob | None = None
    kwargs: msgspec.Raw = EMPTY_OBJECT
    kwargs_blob: Blob | None = None
    text: str = ""


class ExecutionEnded(Event, frozen=True, tag="execution.ended"):
    """It is over, for good. ``output`` only if the end itself set it (a return value, a task's result)."""

    execution: str
    status: str
    message: str = ""
    reason: str = ""  # interrupted | timeout | killed | … when not its own doing
    output: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET
    output_blob: Blob | None = None
    failure: Failure | None = None


class CommitPublished(Event, frozen=True, tag="commit.published"):
    """From here on ``commit`` is what runs. Its snapshot and manifest (flows and ids) are durable before this is."""

    source: str
    commit: str
    ref: str = ""
    previous: str = ""
    flows: int = 0
    broken: int = 0
    manifest_sha256: str = ""


class CommitRejected(Event, frozen=True, tag="commit.rejected"):
    """A commit that was seen and will not be run; what was published stays."""

    source: str
    commit: str
    ref: str = ""
    reason: str = ""


class DaemonStarted(Event, frozen=True, tag="daemon.started"):
    """A daemon took over this journal."""

    version: str
    pid: int
    unfinished: int = 0  # executions found without an end


class DaemonStopped(Event, frozen=True, tag="daemon.stopped"):
    """The daemon left in an orderly way."""

    reason: str = ""


ExecutionEvent = (
    ExecutionCreated
    | ExecutionQueued
    | ExecutionStarted
    | CancelRequested
    | CallStarted
    | CallEnded
    | ExecutionSaved
    | LogWritten
    | ExecutionEnded
)
DaemonEvent = CommitPublished | CommitRejected | DaemonStarted | DaemonStopped
AnyEvent = ExecutionEvent | DaemonEvent


class Recorded(msgspec.Struct, frozen=True):
    """An event as the journal holds it: its number, its time, and where its line lies."""

    seq: int
    at: str  # RFC 3339, microseconds, UTC
    event: AnyEvent
    segment: int
    offset: int  # of the line's first byte in the segment
    length: int  # of the line with its newline, in bytes
