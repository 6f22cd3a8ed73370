"""The nouns: execution, flow, catalogue. Pure data; an execution changes only by applying an event.

``Execution.apply`` is the single place where an event becomes state. Live supervision, recovery after a crash and the
reading of an old record all go through it, so they cannot disagree.
"""

from __future__ import annotations

import datetime
import difflib
import functools
import sys
from collections.abc import Iterable, Mapping
from typing import assert_never

import msgspec

from . import errors, events, moments, policy, values
from .lifecycle import ENDING, Status, next_status


class Sealed(msgspec.Struct, frozen=True):
    """A value that holds a secret: ``shown`` is what people see, the file called ``id`` keeps the true one."""

    id: str
    shown: msgspec.Raw | events.Blob


#: A JSON value of a flow: here, in a file, or with something in it that people do not see.
Value = msgspec.Raw | events.Blob | Sealed
#: An output: nothing yet, one value, or an object whose members are kept apart so that one key can be set alone.
Output = Value | dict[str, Value] | None
#: Logged values kept in memory for ``output_value['logging']``; a flow that logs more is read from its record.
LOGGED_BYTES_MAX = 64 * 1024
_NULL = msgspec.Raw(b"null")


def value(raw: msgspec.Raw | msgspec.UnsetType, blob: events.Blob | None, sealed: str = "") -> Value:
    """Return the value that an event's three twins stand for."""
    shown = blob or (_NULL if raw is msgspec.UNSET else raw.copy())  # or the whole line it stood in would be kept
    return Sealed(sealed, shown) if sealed else shown


#: Texts that many executions have in common are kept once.
_shared = sys.intern


class PendingCall(msgspec.Struct, eq=False):
    """A call that was started and not answered; see ``events.CallStarted`` for what it waits for."""

    number: int
    kind: str
    target: str
    children: tuple[str, ...]
    waits: bool
    return_when: str
    message: str
    until: float | None
    at: str  # since when


class Execution(msgspec.Struct, eq=False):
    """One run of a flow or a task, as its events so far describe it."""

    id: str
    type: str
    name: str
    status: Status
    flow_id: str
    flow_name: str
    commit: str
    path: str
    venv: str
    task: str
    script: events.Blob | None
    inputs: Value
    webhook: bool
    outside: bool
    parent: str
    parent_call: int
    depth: int
    created_by: str
    created_at: str
    timeout_s: float | None
    reuse: bool
    orphan: bool
    protect_inputs: tuple[str, ...]
    protect_outputs: tuple[str, ...]
    retention_time_s: float | None
    on_interrupt: str  # resume | restart | fail, or empty for what depends on ``effect``
    strict_replay: bool
    traceparent: str = ""
    terms: policy.Terms = policy.NO_TERMS
    acknowledged: bool = False  # somebody saw that it failed
    output: Output = None
    message: str = ""
    description: str = ""
    reason: str = ""
    failure: events.Failure | None = None
    started_at: str | None = None
    ended_at: str | None = None
    attempt: int = 0  # how often a process took it
    fruitless: int = 0  # how often in a row its process was cut off before it got any further
    generation: int = 1  # how often it began from the start
    since: str = ""  # when this generation was taken up for the first time: its time limit counts from here
    paused_at: str = ""
    paused_s: float = 0.0  # so long this generation stood still, which its time limit does not count
    divergence: events.Divergence | None = None  # why it is paused, if its replay was not like the record
    pid: int = 0
    node: str = ""  # of a cluster, where it runs or ran last; empty is this machine
    set_off_by: str = ""  # the execution that started it, if another one created it
    cancel_requested: bool = False
    pause_requested: bool = False
    deleted: bool = False
    answer: events.WebhookAnswered | None = None  # for the caller of the webhook that started it
    logged: list[msgspec.Raw] = msgspec.field(default_factory=list)  # by this.log, in order
    logged_bytes: int = 0
    effect: events.EffectNoticed | None = None  # the first one of its own, outside of its calls
    effect_at: str = ""
    calls: int = 0  # the highest call number recorded
    progress: int = 0  # counts what its handler got done: compared at the next interruption
    _progress_before: int = -1
    pending: dict[int, PendingCall] = msgspec.field(default_factory=dict)

    @classmethod
    def created(cls, event: events.ExecutionCreated, at: str) -> Execution:
        """Return the execution that ``event`` brings into being."""
        return cls(
            id=event.execution,
            type=event.type,
            name=_shared(event.name or event.flow_name or event.task),
            status=Status.QUEUED if event.queued else Status.NEW,
            flow_id=_shared(event.flow_id),
            flow_name=_shared(event.flow_name),
            commit=_shared(event.commit),
            path=_shared(event.path),
            venv=_shared(event.venv),
            task=event.task,
            script=event.script_blob,
            inputs=value(event.inputs, event.inputs_blob, event.inputs_sealed),
            webhook=event.webhook,
            outside=event.outside,
            parent=event.parent,
            parent_call=event.parent_call,
            depth=event.depth,
            created_by=_shared(event.created_by),
            created_at=at,
            timeout_s=event.timeout_s,
            reuse=event.reuse,
            orphan=event.orphan,
            protect_inputs=event.protect_inputs,
            protect_outputs=event.protect_outputs,
            retention_time_s=event.retention_time_s,
            on_interrupt=event.on_interrupt,
            strict_replay=event.strict_replay,
            traceparent=event.traceparent,
            terms=event.terms,
        )

    @classmethod
    def told(cls, recorded: Iterable[events.Recorded]) -> Execution | None:
        """Return the execution that its record tells of, None without its creation."""
        state: Execution | None = None
        for line in recorded:
            if isinstance(line.event, events.ExecutionCreated):
                state = cls.created(line.event, line.at)
            elif state is not None and isinstance(line.event, events.ExecutionEvent):
                state.apply(line.event, line.at)
        return state

    def apply(self, event: events.ExecutionEvent, at: str) -> None:
        """Change the state as ``event`` says; raises ``lifecycle.IllegalTransition`` if it cannot happen now."""
        match event:  # what each execution has comes first
            case events.ExecutionStarted():
                self._started(event, at)
            case events.ExecutionEnded():
                self._ended(event, at)
            case events.LogWritten():
                self._logged(event)
            case events.CallStarted():
                self._call_started(event, at)
            case events.CallEnded():
                self._call_ended(event)
            case events.ExecutionSaved():
                self._saved(event)
            case events.CallsRepeated():
                self.calls = max(self.calls, event.call + event.count - 1)
            case events.ExecutionQueued():
                self.status = next_status(self.status, "queued")
                self.set_off_by = event.by
            case events.ExecutionInterrupted():
                self._interrupted(event)
            case events.ExecutionHibernated():
                self.pid = 0
            case events.ExecutionRestarted():
                self._restarted(event)
            case events.CancelRequested():
                self.cancel_requested = True
            case events.PauseRequested():
                self.pause_requested = True
            case events.ExecutionPaused():
                self.status = next_status(self.status, "paused")
                self.reason = event.reason
                self.divergence = event.divergence
                self.paused_at = at
            case events.ExecutionResumed():
                self._resumed(event, at)
            case events.EffectNoticed():
                self.progress += 1
                if self.effect is None:
                    self.effect, self.effect_at = event, at
            case events.WebhookAnswered():
                self.calls = max(self.calls, event.call)
                self.answer = event
            case events.ExecutionDeleted():
                self.deleted = True
            case events.ExecutionAcknowledged():
                self.acknowledged = True
            case events.ExecutionCreated():
                raise ValueError(f"execution {self.id} was created twice")
            case _:
                assert_never(event)

    def _logged(self, event: events.LogWritten) -> None:
        self.calls = max(self.calls, event.call)
        self.progress += event.call > 0
        if event.stream:
            return
        for logged in (event.args_blob or event.args, event.kwargs_blob or event.kwargs):
            bytes_ = logged.bytes if isinstance(logged, events.Blob) else len(bytes(logged))
            self.logged_bytes += bytes_
            if isinstance(logged, msgspec.Raw) and bytes_ > 2 and self.logged_bytes <= LOGGED_BYTES_MAX:
                self.logged.append(logged)

    def _started(self, event: events.ExecutionStarted, at: str) -> None:
        self.status = next_status(self.status, "started")
        self.started_at = self.started_at or at
        self.since = self.since or at
        self.attempt = event.attempt
        self.pid = event.pid
        self.node = event.node
        self.reason = ""
        self._progress_before = self.progress

    def _interrupted(self, event: events.ExecutionInterrupted) -> None:
        self.status = next_status(self.status, "interrupted")
        if not event.daemon:
            self.fruitless = self.fruitless + 1 if self.progress == self._progress_before else 0
        self.pid = 0
        if self.status is Status.QUEUED:
            self.reason = event.reason

    def _restarted(self, event: events.ExecutionRestarted) -> None:
        self.status = next_status(self.status, "restarted")
        if event.inputs is not msgspec.UNSET or event.inputs_blob is not None:
            self.inputs = value(event.inputs, event.inputs_blob, event.inputs_sealed)
        self.generation += 1
        self.attempt = self.fruitless = self.calls = self.pid = self.logged_bytes = 0
        self.since, self.paused_s, self.reason = "", 0.0, event.reason
        self.pause_requested = False
        self.output = self.answer = self.divergence = self.effect = None
        self.logged = []
        self.pending.clear()

    def _resumed(self, event: events.ExecutionResumed, at: str) -> None:
        self.pause_requested = False
        if self.status is Status.PAUSED:
            waits = any(call.waits for call in self.pending.values())
            self.status = next_status(
                self.status, "requeued" if event.queued else "suspended" if waits else "continued"
            )
            self.reason = ""
            self.divergence = None
            self.fruitless = 0  # somebody looked at it
            self.paused_s += moments.seconds_between(self.paused_at, at)

    def left_s(self, now_s: float) -> float | None:
        """Return how long it may go on, in seconds, as of ``now_s`` (since the epoch); None without a limit."""
        if self.timeout_s is None:
            return None
        used = now_s - datetime.datetime.fromisoformat(self.since).timestamp() if self.since else 0.0
        return self.timeout_s - used + self.paused_s

    def _call_started(self, event: events.CallStarted, at: str) -> None:
        if event.waits:
            self.status = next_status(self.status, "suspended")
        self.calls = max(self.calls, event.call)
        self.progress += 1
        self.pending[event.call] = PendingCall(
            event.call,
            _shared(event.kind),
            _shared(event.target),
            event.children,
            event.waits,
            event.return_when,
            event.message,
            event.until,
            at,
        )

    def _call_ended(self, event: events.CallEnded) -> None:
        self.calls = max(self.calls, event.call)
        self.progress += 1
        pending = self.pending.pop(event.call, None)
        if pending is not None and pending.waits:
            self.status = next_status(self.status, "resumed")

    def _saved(self, event: events.ExecutionSaved) -> None:
        if not event.by:
            self.calls = max(self.calls, event.call)
            self.progress += 1
        if event.message is not None:
            self.message = event.message
        if event.name is not None:
            self.name = event.name
        if event.description is not None:
            self.description = event.description
        if event.retention_time_s is not msgspec.UNSET:
            self.retention_time_s = event.retention_time_s
        if event.output is not msgspec.UNSET or event.output_blob is not None:
            self.output = _opened(event.output, event.output_blob, event.output_sealed)
        if event.output_keys or event.output_key_blobs:
            kept = self.output if isinstance(self.output, dict) else {}
            shown: dict[str, msgspec.Raw | events.Blob] = {**event.output_keys, **event.output_key_blobs}
            sealed = event.output_keys_sealed
            self.output = kept | {k: Sealed(sealed[k], v) if k in sealed else v for k, v in shown.items()}

    def _ended(self, event: events.ExecutionEnded, at: str) -> None:
        self.status = next_status(self.status, ENDING[Status(event.status)])
        self.ended_at = at
        self.message = event.message or self.message
        self.reason = event.reason
        self.failure = event.failure
        if event.output is not msgspec.UNSET or event.output_blob is not None:
            self.output = _opened(event.output, event.output_blob, event.output_sealed)
        self.pending.clear()


def _opened(output: msgspec.Raw | msgspec.UnsetType, blob: events.Blob | None, sealed: str) -> Output:
    """Keep an object's members apart; anything else stays one value."""
    if output is msgspec.UNSET or sealed:
        return value(output, blob, sealed)
    members = values.members(output)
    return output if members is None else dict(members)


class Broken(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Why the newest version of a flow cannot be used, exactly enough to mend it."""

    reason: str
    file: str
    line: int = 0
    commit: str = ""
    key: str = ""  # of the metadata, where one is at fault


#: How a webhook may know who calls it.
WEBHOOK_AUTH = (
    "none",
    "key",
    "github",
    "gitlab",
    "gitea",
    "bitbucket",
    "slack",
    "stripe",
    "standard-webhooks",
    "hmac",
)


class Webhook(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A webhook: which flow a delivery runs. ``secret`` is a reference such as ``secret.env(NAME)``, never a value."""

    name: str
    flow: str = ""  # name or id; empty in a flow's own metadata, which stands for that flow
    auth: str = "none"  # one of WEBHOOK_AUTH
    secret: str = ""
    methods: tuple[str, ...] = ("POST",)


class Metadata(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What a flow says about itself in its inline-metadata block, as far as this version acts on it."""

    description: str = ""
    timeout_s: float | None = None
    reuse: bool = True
    webhook: Webhook | None = None
    on_interrupt: str = ""  # resume | restart | fail; empty: whichever its effects allow
    strict_replay: bool = False  # what calls are given counts in a replay, too
    retention_s: float | None = None  # how long an execution is kept after its end; None: as long as all others
    retention_count: int = 0  # how many ended executions are kept; 0: any number
    policies: policy.Policies = policy.Policies()
    dependencies: tuple[str, ...] | None = None  # in their normal form; None: those of the repository, if it has some
    input_schema: str = ""  # JSON Schema as text


class Kept(msgspec.Struct, frozen=True):
    """A published commit whose flows may still be run, and when it was published."""

    commit: str
    at: str


class Flow(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A flow as the catalogue offers it: the version that runs, and what is wrong with a newer one, if anything."""

    id: str  # random, stays through renames
    name: str  # path below the flows root without .py
    path: str  # of the file below the snapshot
    commit: str  # whose snapshot runs; older than the catalogue's commit while a newer version is broken
    blob: str  # git's sha of the file's content
    metadata: Metadata = Metadata()
    broken: Broken | None = None
    venv: str = ""  # the environment of packages it runs in; empty: the daemon's own
    runnable: bool = True  # False: no good version was ever seen
    source: str = ""  # prefix of the source it comes from, where there are several


class Declared(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A setting, file, connection, … as the repository declares it.

    ``fields`` are its fields as JSON text (of a file: none, its content is read from ``path`` below the snapshot of
    ``commit``). ``digest`` changes whenever what is declared does, and only then."""

    digest: str
    path: str
    commit: str
    source: str = ""  # the prefix of the source that declares it
    fields: dict[str, msgspec.Raw] = {}
    size: int = 0  # of a file, in bytes


class Catalogue(msgspec.Struct, frozen=True, kw_only=True, dict=True):
    """All flows at one moment, and what the repository declares; replaced whole, never changed."""

    source: str = ""
    ref: str = ""
    commit: str = ""
    published_at: str = ""
    flows: Mapping[str, Flow] = {}
    declared: Mapping[str, Mapping[str, Declared]] = {}  # type of record → name → what is declared
    problems: tuple[Broken, ...] = ()  # files that declare something and cannot be used
    venv: str = ""  # the environment of scripts
    commits: Mapping[str, str] = {}  # of several sources: prefix → commit

    def commit_of(self, flow: Flow) -> str:
        """Return the commit that is published of the source a flow comes from."""
        return self.commits.get(flow.source, self.commit)

    @functools.cached_property
    def _by_id(self) -> dict[str, Flow]:
        return {flow.id: flow for flow in self.flows.values()}

    def find(self, name: str) -> Flow:
        """Return the flow called ``name`` or with that id; raises ``NotFound`` with the nearest names."""
        flow = self.flows.get(name) or self._by_id.get(name)
        if flow is not None:
            return flow
        near = difflib.get_close_matches(name, self.flows, n=3)
        hint = f"did you mean {', '.join(near)}?" if near else "`headrace flows` lists what there is"
        raise errors.NotFound(f"there is no flow {name!r}", hint=hint)


class Submission(msgspec.Struct, frozen=True, kw_only=True):
    """A request from outside for a flow, or a ``script``, to be run."""

    flow: str = ""
    script: str = ""
    inputs: bytes = b"{}"  # checked JSON object text
    name: str = ""
    created_by: str = ""
    key: str = ""
    key_digest: str = ""
    queued: bool = True
    webhook: bool = False  # the inputs are a webhook's delivery
    outside: bool = False  # they were, of the execution that this one repeats
    commit: str = ""  # the flow as it was published with this one; else as it is published now
    protect_inputs: tuple[str, ...] = ()
    protect_outputs: tuple[str, ...] = ()
    traceparent: str = ""
    terms: policy.Terms = policy.NO_TERMS  # what its sender decides: its schedule and tick, whose end it is told of
