"""The shapes of answers, as the description of the API tells them. Handlers send what the engine shows; that it has
these shapes is what the tests with schemathesis and docs/http.md hold them to. Fields may be added, so none of them
forbids others.
"""

from __future__ import annotations

from typing import Any, Generic, Literal, TypeVar

import msgspec

from ..engine import events, model, ports
from ..engine.lifecycle import Status
from ..sync import plan, sources

T = TypeVar("T")
Scope = Literal["read", "run", "edit", "admin"]


class Items(msgspec.Struct, Generic[T], kw_only=True):
    """All there are."""

    items: list[T]


class Page(msgspec.Struct, Generic[T], kw_only=True):
    """A page of a list; ``next`` is the cursor of the following one."""

    items: list[T]
    next: str | None


class Summary(msgspec.Struct, kw_only=True):
    """An execution in a list."""

    id: str
    name: str
    type: Literal["FLOW", "TASK", "SCRIPT"]
    status: Status
    message: str
    reason: str
    flow_id: str
    flow_name: str
    task: str
    commit: str
    parent_execution_id: str | None
    created_by: str
    created_at: str
    started_at: str | None
    ended_at: str | None


class Wait(msgspec.Struct, kw_only=True):
    """A call that a handler sits in."""

    call: int
    kind: str
    target: str
    children: list[str]


class Execution(Summary, kw_only=True):
    """Everything about one execution."""

    description: str
    input_value: Any
    output_value: Any
    attempt: int
    node: str | None
    generation: int
    divergence: Any
    cancel_requested: bool
    pause_requested: bool
    is_paused: bool
    error: events.Failure | None
    effect: dict[str, Any] | None
    waiting_for: list[Wait]
    traceparent: str
    trace_url: str
    schedule: str
    due: str
    retry: int
    retry_of: str
    rerun_of: str
    not_before: str | None
    follows: str
    priority: int
    tags: list[str]
    acknowledged: bool
    held: str | msgspec.UnsetType = msgspec.UNSET  # why it does not begin, where it was asked for by itself


class RunBody(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """What to run a flow with. ``ref`` is a commit that is still kept, or a branch or tag that may be run from;
    without it what is published now runs."""

    inputs: dict[str, Any] = {}
    name: str = ""
    ref: str = ""


class ExecutionBody(RunBody, kw_only=True, forbid_unknown_fields=True):
    """What to run: a flow of the catalogue, or the text of a script that is none."""

    flow: str = ""
    script: str = ""


class RerunBody(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """What is to be otherwise: single inputs, the name, the version of the flow."""

    inputs: dict[str, Any] = {}
    name: str = ""
    version: Literal["latest", "same"] = "latest"


class FlowWebhook(msgspec.Struct, kw_only=True):
    """The webhook that a flow publishes."""

    name: str
    auth: str
    methods: list[str]


class Flow(msgspec.Struct, kw_only=True):
    """A flow of the catalogue."""

    id: str
    name: str
    path: str
    commit: str
    runnable: bool
    broken: model.Broken | None
    webhook: FlowWebhook | None
    description: str
    timeout_s: float | None
    policies: dict[str, Any]
    dependencies: list[str] | None
    venv: str
    input_schema: dict[str, Any] | None


class FlowWithScript(msgspec.Struct, kw_only=True):
    """A flow with the text of the version that runs, and of a newer one that does not.

    As it was in a commit it is only ``name``, ``commit`` and ``script``."""

    name: str
    commit: str
    script: str
    newest_script: str | msgspec.UnsetType = msgspec.UNSET
    id: str | msgspec.UnsetType = msgspec.UNSET
    path: str | msgspec.UnsetType = msgspec.UNSET
    runnable: bool | msgspec.UnsetType = msgspec.UNSET
    broken: model.Broken | msgspec.UnsetType | None = msgspec.UNSET
    webhook: FlowWebhook | msgspec.UnsetType | None = msgspec.UNSET
    description: str | msgspec.UnsetType = msgspec.UNSET
    timeout_s: float | msgspec.UnsetType | None = msgspec.UNSET
    policies: dict[str, Any] | msgspec.UnsetType = msgspec.UNSET
    dependencies: list[str] | msgspec.UnsetType | None = msgspec.UNSET
    venv: str | msgspec.UnsetType = msgspec.UNSET
    input_schema: dict[str, Any] | msgspec.UnsetType | None = msgspec.UNSET


class FlowDiff(msgspec.Struct, kw_only=True):
    """What two versions of a flow differ in, as a unified diff; empty where they do not."""

    name: str
    from_: str = msgspec.field(name="from")
    to: str
    diff: str


class Committed(msgspec.Struct, kw_only=True):
    """A change that is committed; the catalogue may not have it yet, then only ``name`` and ``published`` are there."""

    name: str
    published: bool | msgspec.UnsetType = msgspec.UNSET


class Record(msgspec.Struct, kw_only=True):
    """What every record has beside the fields of its type."""

    id: str
    name: str
    created_at: str | None
    modified_at: str | None
    created_by: str
    modified_by: str
    is_declared: bool


class Tick(msgspec.Struct, kw_only=True):
    """When a schedule is due: as UTC, and in its own zone."""

    utc: str
    local: str


class Scheduled(msgspec.Struct, kw_only=True):
    """A schedule, of a flow or a record; ``missed``: so many ticks since the last one that ran."""

    id: str
    name: str
    flow_name: str
    source: Literal["flow", "record"]
    cron: str
    explained: str
    timezone: str
    is_enabled: bool
    catchup: str
    overlap: str
    problem: str
    missed: int
    next: list[Tick]


class Running(msgspec.Struct, kw_only=True):
    """An execution that has a process."""

    execution_id: str
    flow_name: str


class Worker(msgspec.Struct, kw_only=True):
    """A machine: ``local`` is the daemon's own, others are nodes of the cluster by the id Ray gives them.

    ``resources``: how much there is in all, by Ray's names (memory in bytes); of this machine, how many may run."""

    id: str
    host: str
    alive: bool
    resources: dict[str, float]
    labels: dict[str, str] = {}
    running: list[Running] = []


class Cluster(msgspec.Struct, kw_only=True):
    """The Ray cluster; ``reason`` says why it cannot be reached, ``waiting`` how many executions have no place yet."""

    address: str
    reason: str
    waiting: int


class Workers(msgspec.Struct, kw_only=True):
    """Where flow processes run; ``cluster`` is null where all run on the daemon's machine."""

    cluster: Cluster | None
    items: list[Worker]


class BulkItem(msgspec.Struct, kw_only=True):
    """One of many executions, and what came of what was to be done: the new one, or why it could not be done."""

    id: str
    rerun: str | msgspec.UnsetType = msgspec.UNSET
    error: str | msgspec.UnsetType = msgspec.UNSET


class Bulk(msgspec.Struct, kw_only=True):
    """What was done, or would be; ``more``: the filter finds others."""

    items: list[BulkItem]
    more: bool
    dry_run: bool


class LockWait(msgspec.Struct, kw_only=True):
    """Who waits for a lock."""

    execution_id: str


class Lock(msgspec.Struct, kw_only=True):
    """A lock that is taken."""

    id: str
    name: str
    execution_id: str
    owned: bool
    since: str
    waiting: list[LockWait]


class Message(msgspec.Struct, kw_only=True):
    """What a flow asks people, and the answer."""

    id: str
    name: str
    subject: str
    message_type: str
    status: Literal["pending", "answered", "withdrawn"]
    execution_id: str | None
    created_at: str
    created_by: str
    modified_at: str
    modified_by: str
    answered_at: str | None
    answered_by: str | None
    withdrawn: str | None
    body: Any
    response: Any


class LogLine(msgspec.Struct, kw_only=True):
    """A line of a log."""

    seq: int
    at: str
    level: str
    args: list[Any]
    kwargs: dict[str, Any]
    text: str
    stream: str


class JournalLine(msgspec.Struct, kw_only=True):
    """An event of a record; its other fields depend on its kind."""

    seq: int
    at: str
    event: str


class Me(msgspec.Struct, kw_only=True):
    """Whom credentials stand for."""

    name: str
    scopes: list[Scope]
    flows: list[str]


class Token(msgspec.Struct, kw_only=True):
    """A token without its secret."""

    id: str
    name: str
    scopes: list[Scope]
    flows: list[str]
    created_at: str
    created_by: str
    expires_at: str | None
    last_used_at: str | None


class NewToken(Token, kw_only=True):
    """A token that was made just now, with its secret."""

    token: str


class Health(msgspec.Struct, kw_only=True):
    """That it is alive."""

    status: Literal["ok"]
    version: str


class Readiness(msgspec.Struct, kw_only=True):
    """Whether it can take work, why not, and what somebody should see to all the same."""

    status: Literal["ready", "not ready"]
    reasons: list[str]
    notices: list[str]


class Maintenance(msgspec.Struct, kw_only=True):
    """Nothing new begins: since when, why, who said so, and how many executions wait for its end."""

    since: str
    reason: str
    by: str
    waiting: int


class LogLevel(msgspec.Struct, kw_only=True):
    """The least severe lines of the log, and until when if that is not what the settings say."""

    level: str
    until: str


class Reload(msgspec.Struct, frozen=True, kw_only=True):
    """How it went: which settings count now, which need a restart, or why none was taken."""

    at: str
    by: str
    result: Literal["taken", "refused"]
    changed: list[str] = []
    restart: list[str] = []
    problem: str = ""

    @property
    def notice(self) -> str:
        """What somebody should see to; empty if all is well."""
        if self.result == "refused":
            said = " ".join(self.problem.split())
            return f"the configuration was refused at {self.at[:19]}Z, the one before counts: {said}"
        return f"settings that count after a restart: {', '.join(self.restart)}" if self.restart else ""


class Cgroups(msgspec.Struct, kw_only=True):
    """Where flow processes have a cgroup each and of what they have shares there, or the ``reason`` why they do not."""

    path: str
    controllers: list[str]
    reason: str


class Service(msgspec.Struct, kw_only=True):
    """How the daemon is: since when it runs, how many slots are taken, and how the last reload went."""

    status: Literal["ready", "not ready"]
    version: str
    since: str
    reasons: list[str]
    notices: list[str]
    running: int
    cgroups: Cgroups
    maintenance: Maintenance | None
    log: LogLevel
    reload: Reload | None


class Pushed(msgspec.Struct, kw_only=True):
    """What became of a forge's event; ``reason`` says why it was ignored."""

    status: Literal["accepted", "ignored"]
    reason: str


class Problem(msgspec.Struct, kw_only=True):
    """An error (RFC 9457)."""

    type: str
    title: str
    status: int
    detail: str
    hint: str | msgspec.UnsetType = msgspec.UNSET
    diff: str | msgspec.UnsetType = msgspec.UNSET  # of a conflict: what somebody else changed meanwhile
    request: str | msgspec.UnsetType = msgspec.UNSET


TaskType = ports.TaskType
Sync = sources.SyncStatus
Plan = plan.Plan
