"""The vocabulary of the journal: what can happen, one struct per kind, named by past-tense nouns.

These are the facts everything else is derived from: an execution's state, the index, the log people read, the stream
the API serves. A new field gets a default, so that older records stay readable for ever; a kind is never reused.

Values of flows travel as ``msgspec.Raw``: JSON text that was checked once (``values.checked``) and is copied from the
flow process to the disk and to the HTTP answer without being decoded. A value over ``values.INLINE_BYTES_MAX`` lies in
a content-addressed file, and the event's ``…_blob`` twin names it. A value that is not there is ``UNSET``, for ``null``
is a value.

A value that holds a secret stands here masked; its ``…_sealed`` twin then names the file that keeps the true one for
the flow (``state.sealed``). What people, logs and shippers read is always the masked one.
"""

from __future__ import annotations

import msgspec

from . import policy, scheduled, upkeep
from .carried import (
    CarriedLine as CarriedLine,
)
from .carried import (
    ExecutionCarried as ExecutionCarried,
)
from .carried import (
    ExecutionsPruned as ExecutionsPruned,
)
from .carried import (
    KeyCarried as KeyCarried,
)
from .carried import (
    LockCarried as LockCarried,
)
from .carried import (
    MessageCarried as MessageCarried,
)
from .carried import (
    RecordCarried as RecordCarried,
)
from .carried import (
    SegmentsDropped as SegmentsDropped,
)
from .event import (
    EMPTY_LIST as EMPTY_LIST,
)
from .event import (
    EMPTY_OBJECT as EMPTY_OBJECT,
)
from .event import (
    Blob as Blob,
)
from .event import (
    Divergence as Divergence,
)
from .event import (
    Event as Event,
)
from .event import (
    Failure as Failure,
)


class ExecutionCreated(Event, frozen=True, tag="execution.created"):
    """Somebody asked for a flow or a task to be run; from here on it cannot be lost."""

    execution: str
    type: str = "FLOW"  # FLOW | TASK | SCRIPT
    name: str = ""
    flow_id: str = ""
    flow_name: str = ""
    commit: str = ""
    path: str = ""  # of the flow's file below the snapshot
    venv: str = ""  # the environment of packages it runs in; empty: the daemon's own
    task: str = ""  # canonical task type, for type TASK
    script_blob: Blob | None = None  # the text, for type SCRIPT
    inputs: msgspec.Raw = EMPTY_OBJECT
    inputs_blob: Blob | None = None
    inputs_sealed: str = ""
    webhook: bool = False  # the inputs are a webhook's delivery
    outside: bool = False  # it, or an execution above it, was started by a webhook
    parent: str = ""
    parent_call: int = 0
    depth: int = 0
    created_by: str = ""
    key: str = ""  # "<scope>:<delivery id or Idempotency-Key>": a second request with it gets this execution
    key_digest: str = ""  # sha256 of the request's body: the same key with another body is a conflict
    queued: bool = True  # False: created only, to be run later
    timeout_s: float | None = None
    reuse: bool = True  # whether its process may take another execution afterwards
    orphan: bool = True  # goes on when its parent is cancelled, unless the parent is waiting for it
    protect_inputs: tuple[str, ...] = ()  # keys people do not see
    protect_outputs: tuple[str, ...] = ()
    retention_time_s: float | None = None
    on_interrupt: str = ""  # resume | restart | fail; empty: resume, or fail if it had an effect of its own
    strict_replay: bool = False  # a replayed call that is given something else than recorded is a divergence
    traceparent: str = ""  # the trace it belongs to, as whoever started it said (W3C Trace Context)
    terms: policy.Terms = policy.NO_TERMS  # what was decided about it when it was made


class ExecutionQueued(Event, frozen=True, tag="execution.queued"):
    """An execution that was only created is to be run now; ``by`` is the execution whose call says so."""

    execution: str
    by: str = ""


class ExecutionStarted(Event, frozen=True, tag="execution.started"):
    """There was room: flow process ``pid`` took it (0 for a task, which runs in the daemon)."""

    execution: str
    attempt: int = 1
    pid: int = 0


class CancelRequested(Event, frozen=True, tag="cancel.requested"):
    """Somebody wants it to end; it meets this at its next call, or is killed after its grace time."""

    execution: str
    by: str = ""


class ExecutionDeleted(Event, frozen=True, tag="execution.deleted"):
    """An ended execution is not to be listed or shown any more; its lines go when their segment does."""

    execution: str
    by: str = ""


class ExecutionAcknowledged(Event, frozen=True, tag="execution.acknowledged"):
    """Somebody has seen that it failed: it is not among those any more that somebody should look at."""

    execution: str
    by: str = ""


class PauseRequested(Event, frozen=True, tag="pause.requested"):
    """Somebody wants it to stand still; it does at its next call, or at once while it waits in one."""

    execution: str
    by: str = ""


class ExecutionPaused(Event, frozen=True, tag="execution.paused"):
    """It stands still until somebody resumes it; ``reason`` says why when nobody asked for it."""

    execution: str
    reason: str = ""
    divergence: Divergence | None = None  # what its handler did instead of what is recorded, if that is why


class ExecutionResumed(Event, frozen=True, tag="execution.resumed"):
    """It may go on: a pause that was asked for or has begun is over.

    ``queued``: it has no process any more, and waits for room to be replayed."""

    execution: str
    by: str = ""
    queued: bool = False


class ExecutionInterrupted(Event, frozen=True, tag="execution.interrupted"):
    """Its process is gone; it goes on where it was as soon as its handler has been replayed.

    ``daemon``: all of them are, for the daemon was; that says nothing about this execution."""

    execution: str
    reason: str = ""
    daemon: bool = False


class ExecutionHibernated(Event, frozen=True, tag="execution.hibernated"):
    """It waits, and gave its process back meanwhile; its handler is replayed when what it waits for is there."""

    execution: str


class ExecutionRestarted(Event, frozen=True, tag="execution.restarted"):
    """It begins anew: nothing its handler did before this is replayed. ``inputs`` if they are other ones now."""

    execution: str
    by: str = ""
    reason: str = ""
    inputs: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET
    inputs_blob: Blob | None = None
    inputs_sealed: str = ""


class CallStarted(Event, frozen=True, tag="call.started"):
    """The handler made call number ``call``, which is not answered yet; ``waits`` if it sits and waits for it.

    What it waits for stands here whole (``children`` and ``return_when``, ``message``, ``until``), so that a daemon can
    go on waiting without asking the handler."""

    execution: str
    call: int
    kind: str  # flow | task | wait | sleep | …
    target: str = ""  # flow name, task type, …
    args: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET
    args_blob: Blob | None = None
    children: tuple[str, ...] = ()  # executions it created or waits for
    waits: bool = False
    return_when: str = ""  # of those executions
    message: str = ""  # whose answer it waits for
    until: float | None = None  # seconds since the epoch: when the waiting is over in any case
    where: str = ""  # the line of the flow that made it: file:line


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
    result_sealed: str = ""
    failure: Failure | None = None
    where: str = ""


class CallsRepeated(Event, frozen=True, tag="calls.repeated"):
    """The handler read the same as in the call before ``call``, ``count`` times more, and got the same answer."""

    execution: str
    call: int
    count: int = 1


class ExecutionSaved(Event, frozen=True, tag="execution.saved"):
    """A call wrote to an execution: whole fields, or single output keys with the others kept."""

    execution: str
    call: int = 0
    kind: str = ""  # of the call: save | set_output | append_output
    where: str = ""
    by: str = ""  # the execution whose call this was, when it is another one
    message: str | None = None
    name: str | None = None
    description: str | None = None
    retention_time_s: float | msgspec.UnsetType | None = msgspec.UNSET
    output: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET  # replaces the whole output
    output_blob: Blob | None = None
    output_sealed: str = ""
    output_keys: dict[str, msgspec.Raw] = {}
    output_key_blobs: dict[str, Blob] = {}
    output_keys_sealed: dict[str, str] = {}


class LogWritten(Event, frozen=True, tag="log.written"):
    """The flow logged (``args``, ``kwargs``), or its process wrote to ``stream`` (``text``, as it came)."""

    execution: str
    call: int = 0
    level: str = "INFO"
    stream: str = ""  # stdout | stderr | logging (Python's), or empty for this.log
    args: msgspec.Raw = EMPTY_LIST
    args_blob: Blob | None = None
    kwargs: msgspec.Raw = EMPTY_OBJECT
    kwargs_blob: Blob | None = None
    text: str = ""


class EffectNoticed(Event, frozen=True, tag="effect.noticed"):
    """The handler has an effect on the world by itself, outside of its calls: on disk before it happens.

    The first one only. Running the handler again would have it again."""

    execution: str
    effect: str  # Python's audit event: open, socket.connect, subprocess.Popen, …
    detail: str = ""  # a path, an address, a program
    file: str = ""  # of the author's code, below the snapshot
    line: int = 0
    call: int = 0  # the last call before it


class WebhookAnswered(Event, frozen=True, tag="webhook.answered"):
    """The flow says what the caller of its webhook gets when it has ended; ``body`` is text, or base64 (``binary``)."""

    execution: str
    call: int
    status: int = 200
    headers: dict[str, str] = {}
    body: msgspec.Raw = msgspec.Raw(b'""')  # a JSON string
    body_blob: Blob | None = None
    binary: bool = False
    where: str = ""


class ExecutionEnded(Event, frozen=True, tag="execution.ended"):
    """It is over, for good. ``output`` only if the end itself set it (a return value, a task's result)."""

    execution: str
    status: str
    message: str = ""
    reason: str = ""  # interrupted | timeout | killed | … when not its own doing
    output: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET
    output_blob: Blob | None = None
    output_sealed: str = ""
    failure: Failure | None = None


class RecordSaved(Event, frozen=True, tag="record.saved"):
    """A setting, file, connection, … is this from now on: all its fields, whoever saved it.

    ``base`` is the digest of what the repository declares under this name (empty if nothing): when that changes, the
    repository wins."""

    type: str
    name: str
    id: str
    fields: dict[str, msgspec.Raw] = {}
    field_blobs: dict[str, Blob] = {}
    fields_sealed: dict[str, str] = {}
    base: str = ""
    by: str = ""
    execution: str = ""
    call: int = 0


class RecordDeleted(Event, frozen=True, tag="record.deleted"):
    """It is gone; with ``base`` that hides what the repository declares, until that changes."""

    type: str
    name: str
    base: str = ""
    by: str = ""
    execution: str = ""
    call: int = 0


class RecordSuperseded(Event, frozen=True, tag="record.superseded"):
    """The repository's ``commit`` changed what was saved (or deleted) at run time: the repository counts again."""

    type: str
    name: str
    commit: str = ""


class LockTaken(Event, frozen=True, tag="lock.taken"):
    """``execution`` has the lock; ``owned``: only it can give it back, and does when it ends."""

    name: str
    execution: str
    call: int = 0
    owned: bool = False


class LockReleased(Event, frozen=True, tag="lock.released"):
    """The lock is free, or the next in line has it (which its own ``lock.taken`` says)."""

    name: str
    execution: str = ""  # whose call it was; empty if a person forced it or its owner ended
    call: int = 0
    by: str = ""


class MessageCreated(Event, frozen=True, tag="message.created"):
    """A person is asked, or told, something. ``bound``: it is withdrawn when its execution ends without an answer."""

    message: str
    subject: str
    message_type: str = "INFO"
    body: msgspec.Raw = EMPTY_OBJECT  # the form: a JSON Schema object, see state.forms
    body_blob: Blob | None = None
    execution: str = ""
    call: int = 0
    created_by: str = ""
    bound: bool = False


class MessageAnswered(Event, frozen=True, tag="message.answered"):
    """The one answer a message gets."""

    message: str
    response: msgspec.Raw = EMPTY_OBJECT
    response_blob: Blob | None = None
    response_sealed: str = ""
    by: str = ""


class MessageWithdrawn(Event, frozen=True, tag="message.withdrawn"):
    """Nobody needs an answer any more."""

    message: str
    reason: str = ""


class MessageDeleted(Event, frozen=True, tag="message.deleted"):
    """It is not shown any more."""

    message: str
    by: str = ""


class CommitPublished(Event, frozen=True, tag="commit.published"):
    """From here on ``commit`` is what runs. Its snapshot and manifest (flows and ids) are durable before this is."""

    source: str
    commit: str
    ref: str = ""
    previous: str = ""
    flows: int = 0
    broken: int = 0
    manifest_sha256: str = ""
    carried: bool = False  # said before, in a segment that is to go


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
    | CallsRepeated
    | ExecutionSaved
    | LogWritten
    | EffectNoticed
    | WebhookAnswered
    | PauseRequested
    | ExecutionPaused
    | ExecutionResumed
    | ExecutionInterrupted
    | ExecutionHibernated
    | ExecutionRestarted
    | ExecutionEnded
    | ExecutionDeleted
    | ExecutionAcknowledged
)
RecordEvent = RecordSaved | RecordDeleted | RecordSuperseded | RecordCarried
LockEvent = LockTaken | LockReleased | LockCarried
MessageEvent = MessageCreated | MessageAnswered | MessageWithdrawn | MessageDeleted | MessageCarried
ScheduleEvent = scheduled.ScheduleArmed | scheduled.ScheduleDisarmed | scheduled.TicksMissed | scheduled.ScheduleLate
MaintenanceEvent = upkeep.MaintenanceBegun | upkeep.MaintenanceEnded
#: What flows keep and share, beside their own records, and whether they may begin.
StateEvent = RecordEvent | LockEvent | MessageEvent | ScheduleEvent | MaintenanceEvent
DaemonEvent = CommitPublished | CommitRejected | DaemonStarted | DaemonStopped
RetentionEvent = ExecutionsPruned | ExecutionCarried | KeyCarried | SegmentsDropped
AnyEvent = ExecutionEvent | StateEvent | DaemonEvent | RetentionEvent
#: Nothing new: what happened before, said again.
RetoldEvent = ExecutionCarried | KeyCarried | RecordCarried | LockCarried | MessageCarried


class Recorded(msgspec.Struct, frozen=True):
    """An event as the journal holds it: its number, its time, and where its line lies."""

    seq: int
    at: str  # RFC 3339, microseconds, UTC
    event: AnyEvent
    segment: int
    offset: int  # of the line's first byte in the segment
    length: int  # of the line with its newline, in bytes
