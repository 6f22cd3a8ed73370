"""The nouns: execution, flow, catalogue. Pure data; an execution changes only by applying an event.

``Execution.apply`` is the single place where an event becomes state. Live supervision, recovery after a crash and the
reading of an old record all go through it, so they cannot disagree.
"""

from __future__ import annotations

import dataclasses
import datetime
import difflib
from collections.abc import Mapping
from typing import assert_never

import msgspec

from . import errors, events, values
from .lifecycle import ENDING, Status, next_status

#: An output: nothing yet, one JSON value, or an object whose members are kept apart so that one key can be set alone.
Output = msgspec.Raw | events.Blob | dict[str, msgspec.Raw | events.Blob] | None


def timestamp(epoch_s: float) -> str:
    """Return RFC 3339 in UTC with microseconds and offset, as records, the API and flows show times."""
    return datetime.datetime.fromtimestamp(epoch_s, datetime.UTC).isoformat(timespec="microseconds")


@dataclasses.dataclass(slots=True, eq=False)
class PendingCall:
    """A call that was started and not answered."""

    number: int
    kind: str
    target: str
    children: tuple[str, ...]
    waits: bool


@dataclasses.dataclass(slots=True, eq=False)
class Execution:
    """One run of a flow or a task, as its events so far describe it."""

    id: str
    type: str
    name: str
    status: Status
    flow_id: str
    flow_name: str
    commit: str
    path: str
    task: str
    inputs: msgspec.Raw | events.Blob
    parent: str
    parent_call: int
    depth: int
    created_by: str
    created_at: str
    timeout_s: float | None
    reuse: bool
    output: Output = None
    message: str = ""
    reason: str = ""
    failure: events.Failure | None = None
    started_at: str | None = None
    ended_at: str | None = None
    attempt: int = 0
    pid: int = 0
    cancel_requested: bool = False
    calls: int = 0  # the highest call number recorded
    pending: dict[int, PendingCall] = dataclasses.field(default_factory=dict)

    @classmethod
    def created(cls, event: events.ExecutionCreated, at: str) -> Execution:
        """Return the execution that ``event`` brings into being."""
        return cls(
            id=event.execution,
            type=event.type,
            name=event.name or event.flow_name or event.task,
            status=Status.QUEUED if event.queued else Status.NEW,
            flow_id=event.flow_id,
            flow_name=event.flow_name,
            commit=event.commit,
            path=event.path,
            task=event.task,
            inputs=event.inputs_blob or event.inputs,
            parent=event.parent,
            parent_call=event.parent_call,
            depth=event.depth,
            created_by=event.created_by,
            created_at=at,
            timeout_s=event.timeout_s,
            reuse=event.reuse,
        )

    def apply(self, event: events.ExecutionEvent, at: str) -> None:
        """Change the state as ``event`` says; raises ``lifecycle.IllegalTransition`` if it cannot happen now."""
        match event:
            case events.LogWritten():
                self.calls = max(self.calls, event.call)
            case events.CallStarted():
                self._call_started(event)
            case events.CallEnded():
                self._call_ended(event)
            case events.ExecutionSaved():
                self._saved(event)
            case events.ExecutionQueued():
                self.status = next_status(self.status, "queued")
            case events.ExecutionStarted():
                self.status = next_status(self.status, "started")
                self.started_at = self.started_at or at
                self.attempt = event.attempt
                self.pid = event.pid
            case events.CancelRequested():
                self.cancel_requested = True
            case events.ExecutionEnded():
                self._ended(event, at)
            case events.ExecutionCreated():
                raise ValueError(f"execution {self.id} was created twice")
            case _:
                assert_never(event)

    def _call_started(self, event: events.CallStarted) -> None:
        if event.waits:
            self.status = next_status(self.status, "suspended")
        self.calls = max(self.calls, event.call)
        self.pending[event.call] = PendingCall(event.call, event.kind, event.target, event.children, event.waits)

    def _call_ended(self, event: events.CallEnded) -> None:
        self.calls = max(self.calls, event.call)
        pending = self.pending.pop(event.call, None)
        if pending is not None and pending.waits:
            self.status = next_status(self.status, "resumed")

    def _saved(self, event: events.ExecutionSaved) -> None:
        if not event.by:
            self.calls = max(self.calls, event.call)
        if event.message is not None:
            self.message = event.message
        if event.name is not None:
            self.name = event.name
        if event.output is not msgspec.UNSET or event.output_blob is not None:
            self.output = _opened(event.output, event.output_blob)
        if event.output_keys or event.output_key_blobs:
            kept = self.output if isinstance(self.output, dict) else {}
            self.output = {**kept, **event.output_keys, **event.output_key_blobs}

    def _ended(self, event: events.ExecutionEnded, at: str) -> None:
        self.status = next_status(self.status, ENDING[Status(event.status)])
        self.ended_at = at
        self.message = event.message or self.message
        self.reason = event.reason
        self.failure = event.failure
        if event.output is not msgspec.UNSET or event.output_blob is not None:
            self.output = _opened(event.output, event.output_blob)
        self.pending.clear()


def _opened(output: msgspec.Raw | msgspec.UnsetType, blob: events.Blob | None) -> Output:
    """Keep an object's members apart; anything else stays one value."""
    if output is msgspec.UNSET:
        return blob
    members = values.members(output)
    return output if members is None else dict(members)


class Broken(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Why the newest version of a flow cannot be used, exactly enough to mend it."""

    reason: str
    file: str
    line: int = 0
    commit: str = ""
    key: str = ""  # of the metadata, where one is at fault


class Webhook(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A webhook that a flow publishes. ``secret`` is a reference such as ``secret.env(NAME)``, never a value shown."""

    name: str
    auth: str = "none"  # none | key | github
    secret: str = ""
    methods: tuple[str, ...] = ("POST",)


class Metadata(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What a flow says about itself in its inline-metadata block, as far as this version acts on it."""

    description: str = ""
    timeout_s: float | None = None
    reuse: bool = True
    webhook: Webhook | None = None


class Flow(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A flow as the catalogue offers it: the version that runs, and what is wrong with a newer one, if anything."""

    id: str  # random, stays through renames
    name: str  # path below the flows root without .py
    path: str  # of the file below the snapshot
    commit: str  # whose snapshot runs; older than the catalogue's commit while a newer version is broken
    blob: str  # git's sha of the file's content
    metadata: Metadata = Metadata()
    broken: Broken | None = None
    warnings: tuple[str, ...] = ()
    runnable: bool = True  # False: no good version was ever seen


class Catalogue(msgspec.Struct, frozen=True, kw_only=True):
    """All flows of one source at one moment; replaced whole, never changed."""

    source: str = ""
    ref: str = ""
    commit: str = ""
    published_at: str = ""
    flows: Mapping[str, Flow] = {}

    def find(self, name: str) -> Flow:
        """Return the flow called ``name`` or with that id; raises ``NotFound`` with the nearest names."""
        flow = self.flows.get(name) or next((f for f in self.flows.values() if f.id == name), None)
        if flow is not None:
            return flow
        near = difflib.get_close_matches(name, self.flows, n=3)
        hint = f"did you mean {', '.join(near)}?" if near else "`headrace flows` lists what there is"
        raise errors.NotFound(f"there is no flow {name!r}", hint=hint)


class Submission(msgspec.Struct, frozen=True, kw_only=True):
    """A request from outside for a flow to be run."""

    flow: str
    inputs: bytes = b"{}"  # checked JSON object text
    name: str = ""
    created_by: str = ""
    key: str = ""
    key_digest: str = ""
    queued: bool = True
