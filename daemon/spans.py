"""Executions and their calls as spans: what a tracing system shows of a record. Pure, folded from the journal's events.

A span is whole when the event that ends it is durable, and everything about it stands in events: ids follow from the
execution's id, its generation and the number of the call (``engine.traces``), times are those of the record. Whoever
folds the same events gets the same spans, before a crash and after it. Only what a record shows people is read, so that
what is masked there is masked here.

    execution     under the call of its parent that made it, or under whoever sent the traceparent
    └ call        a call that takes time (``call.started``); one that is answered at once is none

Attributes have the names of OpenTelemetry's semantic conventions where those have one, else they begin with
``headrace.``. Called by ``span_exporter``.
"""

from __future__ import annotations

import urllib.parse
from collections.abc import Callable, Iterator
from typing import Any, Literal

import msgspec

from ..engine import events, traces
from ..engine.records import segments
from . import written

Kind = Literal["internal", "server", "client"]
Attributes = dict[str, str | int | float | list[str]]

#: The default limits of OpenTelemetry's SDKs.
EVENTS_MAX = 128
LINKS_MAX = 128
_TEXT_CHARACTERS_MAX = 1000
_TRACEBACK_CHARACTERS_MAX = 8000
#: Types of tasks that ask nobody on the network.
_AT_HOME = frozenset({"ANSIBLE", "COMMAND", "FILE", "SLEEP", "SQLITE", "TERRAFORM"})
#: What is known of a task by its type.
_KNOWN: dict[str, Attributes] = {
    "AMQP": {"messaging.system": "rabbitmq"},
    "MQTT": {"messaging.system": "mqtt"},
    "MYSQL": {"db.system.name": "mysql"},
    "REDIS": {"db.system.name": "redis"},
    "SQLITE": {"db.system.name": "sqlite"},
    "SQLMSSQL": {"db.system.name": "microsoft.sql_server"},
    "SQLORACLE": {"db.system.name": "oracle.db"},
    "SQLPG": {"db.system.name": "postgresql"},
}
#: Calls whose target is the name of something that many executions share; others would make a name for each.
_NAMED_BY_TARGET = frozenset({"connect", "flow", "task"})
#: What happens to an execution between its beginning and its end, and which fields tell of it.
_TOLD: dict[type[events.Event], tuple[str, ...]] = {
    events.ExecutionQueued: ("by",),
    events.ExecutionStarted: ("attempt",),
    events.ExecutionInterrupted: ("reason",),
    events.ExecutionHibernated: (),
    events.ExecutionRestarted: ("by", "reason"),
    events.ExecutionPaused: ("reason",),
    events.ExecutionResumed: ("by",),
    events.PauseRequested: ("by",),
    events.CancelRequested: ("by",),
}


class Happened(msgspec.Struct, frozen=True):
    """Something at one moment of a span."""

    at: str
    name: str
    attributes: Attributes


class Link(msgspec.Struct, frozen=True):
    """Another span that this one has to do with, and how."""

    trace: str
    span: str
    why: str


class Span(msgspec.Struct, frozen=True, kw_only=True):
    """A span that has ended. Times as in the record, ids in hex; ``failed`` is None where nobody can say."""

    trace: str
    span: str
    parent: str
    remote: bool  # the parent is a span of somebody else
    name: str
    kind: Kind
    began: str
    ended: str
    attributes: Attributes
    failed: bool | None
    description: str
    events: list[Happened]
    events_dropped: int
    links: list[Link]


class _Begun(msgspec.Struct, eq=False):
    """A span that has not ended."""

    span: str
    parent: str
    name: str
    kind: Kind
    at: str
    attributes: Attributes
    links: list[Link]
    remote: bool = False
    events: list[Happened] = msgspec.field(default_factory=list)
    events_dropped: int = 0

    def tell(self, at: str, name: str, attributes: Attributes) -> None:
        if len(self.events) < EVENTS_MAX:
            self.events.append(Happened(at, name, attributes))
        else:
            self.events_dropped += 1

    def over(self, trace: str, at: str, failed: bool | None, description: str = "") -> Span:
        return Span(
            trace=trace,
            span=self.span,
            parent=self.parent,
            remote=self.remote,
            name=self.name,
            kind=self.kind,
            began=self.at,
            ended=max(self.at, at),  # the machine's clock may have been put back
            attributes=self.attributes,
            failed=failed,
            description=description[:_TEXT_CHARACTERS_MAX],
            events=self.events,
            events_dropped=self.events_dropped,
            links=self.links[:LINKS_MAX],
        )


class _Execution(msgspec.Struct, eq=False):
    """An execution whose trace is kept, and its calls that have no answer."""

    trace: str
    own: _Begun
    generation: int = 1
    calls: dict[int, _Begun] = msgspec.field(default_factory=dict)


class Spans:
    """The executions and calls under way. Give it every event, in the journal's order."""

    def __init__(self) -> None:
        self._executions: dict[str, _Execution] = {}
        self._parts: dict[tuple[str, str], list[events.Recorded]] = {}  # of records that are carried
        self._takers: dict[type[Any], Callable[[Any, str], Iterator[Span]]] = {
            events.ExecutionCreated: self._created,
            events.CallStarted: self._call_started,
            events.CallEnded: self._call_ended,
            events.ExecutionEnded: self._ended,
            **dict.fromkeys(_TOLD, self._told),
            events.ExecutionRestarted: self._restarted,
        }

    def take(self, recorded: events.Recorded) -> list[Span]:
        """Take one event; return the spans that end with it."""
        if isinstance(recorded.event, events.ExecutionCarried):
            self._carried(recorded.event, recorded)
        taker = self._takers.get(type(recorded.event))
        return list(taker(recorded.event, recorded.at)) if taker is not None else []

    def _carried(self, event: events.ExecutionCarried, recorded: events.Recorded) -> None:
        """Begin an execution anew with its record as it was carried; what ended in it was told before."""
        parts = self._parts.setdefault((event.execution, event.carry), [])
        parts.append(recorded)
        if event.last:
            del self._parts[event.execution, event.carry]
            known = self._executions.pop(event.execution, None)
            for line in (line for part in parts for line in segments.unfolded(part)):
                self.take(line)
            anew = self._executions.get(event.execution)
            if known is not None and anew is not None:
                anew.own.parent = known.own.parent  # whoever made it may have begun anew since

    def _created(self, event: events.ExecutionCreated, at: str) -> Iterator[Span]:
        if traces.is_sampled(event.traceparent):
            _, trace, above, _ = event.traceparent.split("-")
            begun = _execution(event, at)
            begun.links += _links(event, trace)
            begun.parent, begun.remote = self._parent(event, above)
            self._executions[event.execution] = _Execution(trace, begun)
        yield from ()

    def _parent(self, event: events.ExecutionCreated, above: str) -> tuple[str, bool]:
        """Return the span above an execution, and whether that is somebody else's."""
        if above == traces.span(event.execution):
            return "", False  # its trace begins with it
        parent = self._executions.get(event.parent)
        if parent is not None and above == parent.own.span:
            return traces.span_of_call(event.parent, parent.generation, event.parent_call), False
        return above, not event.parent and not event.terms.retry_of and not event.terms.follows

    def _call_started(self, event: events.CallStarted, at: str) -> Iterator[Span]:
        if (subject := self._executions.get(event.execution)) is not None:
            others = (self._executions.get(child) for child in event.children[:LINKS_MAX])
            subject.calls[event.call] = _Begun(
                traces.span_of_call(event.execution, subject.generation, event.call),
                subject.own.span,
                f"{event.kind} {event.target}" if event.kind in _NAMED_BY_TARGET and event.target else event.kind,
                "internal",
                at,
                _call(event),
                [Link(other.trace, other.own.span, "waits for") for other in others if other is not None],
            )
        yield from ()

    def _call_ended(self, event: events.CallEnded, at: str) -> Iterator[Span]:
        subject = self._executions.get(event.execution)
        call = subject.calls.pop(event.call, None) if subject is not None else None
        if subject is None or call is None:
            return
        failure = event.failure
        if failure is not None:
            call.attributes["error.type"] = failure.type
            call.tell(at, "exception", _exception(failure))
        yield call.over(subject.trace, at, True if failure is not None else None, failure.message if failure else "")

    def _told(self, event: Any, at: str) -> Iterator[Span]:
        if (subject := self._executions.get(event.execution)) is not None:
            kind = type(event)
            said = {f"headrace.{name}": value for name in _TOLD[kind] if (value := getattr(event, name))}
            subject.own.tell(at, str(kind.__struct_config__.tag), said)
        yield from ()

    def _restarted(self, event: events.ExecutionRestarted, at: str) -> Iterator[Span]:
        yield from self._told(event, at)
        if (subject := self._executions.get(event.execution)) is not None:
            yield from self._cut_off(subject, at, "the execution began anew")
            subject.generation += 1

    def _cut_off(self, subject: _Execution, at: str, why: str) -> Iterator[Span]:
        """End the calls that will never have an answer."""
        for call in subject.calls.values():
            yield call.over(subject.trace, at, None, why)
        subject.calls.clear()

    def _ended(self, event: events.ExecutionEnded, at: str) -> Iterator[Span]:
        subject = self._executions.pop(event.execution, None)
        if subject is None:
            return
        yield from self._cut_off(subject, at, "the execution ended")
        own = subject.own
        own.attributes["headrace.execution.status"] = event.status
        if event.reason:
            own.attributes["headrace.execution.reason"] = event.reason
        if subject.generation > 1:
            own.attributes["headrace.execution.generation"] = subject.generation
        own.attributes |= _answer(own.attributes, event)
        if event.failure is not None:
            own.attributes["error.type"] = event.failure.type
            own.tell(at, "exception", _exception(event.failure))
        failed = {"ENDED_SUCCESS": False, "ENDED_ERROR": True}.get(event.status)
        yield own.over(subject.trace, at, failed, event.message if failed else "")


class _Asked(msgspec.Struct):
    """What of a REST task's inputs is known of its request."""

    url: Any = None
    method: Any = None


class _Answered(msgspec.Struct):
    """What of its output is known of the answer."""

    status_code: Any = None


def _execution(event: events.ExecutionCreated, at: str) -> _Begun:
    said: Attributes = {
        "headrace.execution.id": event.execution,
        "headrace.execution.type": event.type,
        "headrace.created_by": event.created_by,
    }
    if event.type == "TASK":
        said |= {"headrace.task.type": event.task} | _KNOWN.get(event.task, {})
        if event.task == "REST":
            said |= _request(event.inputs)
        kind: Kind = "internal" if event.task in _AT_HOME else "client"
        return _Begun(traces.span(event.execution), "", f"task {event.task}", kind, at, said, [])
    said |= {"faas.invocation_id": event.execution, "vcs.ref.head.revision": event.commit}
    if event.flow_name:
        said |= {"headrace.flow.name": event.flow_name, "code.file.path": event.path}
    if event.terms.schedule:
        said |= {"faas.trigger": "timer", "faas.time": event.terms.due}
    elif not event.parent and not event.terms.follows:
        said["faas.trigger"] = "http"
    if event.terms.tags:
        said["headrace.tags"] = list(event.terms.tags)
    if event.terms.retry:
        said["headrace.retry"] = event.terms.retry
    name = f"flow {event.flow_name}" if event.flow_name else "script"
    server = said.get("faas.trigger") == "http" and not event.terms.retry
    return _Begun(traces.span(event.execution), "", name, "server" if server else "internal", at, said, [])


def _links(event: events.ExecutionCreated, trace: str) -> Iterator[Link]:
    said = event.terms
    if said.retry_of:
        yield Link(trace, traces.span(said.retry_of), "retry of")
    if said.follows and event.traceparent.split("-")[2] != traces.span(event.execution):
        yield Link(trace, traces.span(said.follows), "follows")
    if said.rerun_trace:
        _, other, span, _ = said.rerun_trace.split("-")
        yield Link(other, span, "rerun of")


def _call(event: events.CallStarted) -> Attributes:
    said: Attributes = {"headrace.call.number": event.call, "headrace.call.kind": event.kind}
    if event.target:
        said["headrace.call.target"] = event.target[:_TEXT_CHARACTERS_MAX]
    file, _, line = event.where.rpartition(":")
    if file and line.isdecimal():
        said |= {"code.file.path": file, "code.line.number": int(line)}
    return said


def _request(inputs: msgspec.Raw) -> Attributes:
    """What the conventions for HTTP clients ask for. An address's query is left out: it holds keys too often."""
    asked = _read(inputs, _Asked)
    if asked is None or not isinstance(asked.url, str):
        return {}
    method = asked.method.upper() if isinstance(asked.method, str) else "GET"
    said: Attributes = {"http.request.method": method}
    try:
        found = urllib.parse.urlsplit(asked.url)
        host, port = found.hostname, found.port or {"http": 80, "https": 443}.get(found.scheme)
    except ValueError:  # a template, or a mistake that the task itself reports
        return said
    if host and port:
        shown = written.without_credentials(found._replace(query="", fragment="").geturl())
        said |= {"server.address": host, "server.port": port, "url.full": shown[:_TEXT_CHARACTERS_MAX]}
    return said


def _answer(asked: Attributes, event: events.ExecutionEnded) -> Attributes:
    if "http.request.method" not in asked or event.output is msgspec.UNSET:
        return {}
    found = _read(event.output, _Answered)
    return {"http.response.status_code": found.status_code} if found and isinstance(found.status_code, int) else {}


def _read(text: msgspec.Raw | msgspec.UnsetType, form: type[Any]) -> Any:
    try:
        return msgspec.json.decode(text, type=form) if text is not msgspec.UNSET else None
    except (msgspec.MsgspecError, UnicodeDecodeError):  # masked, or no object
        return None


def _exception(failure: events.Failure) -> Attributes:
    message = failure.message.removeprefix(f"{failure.type}: ")[:_TEXT_CHARACTERS_MAX]
    said: Attributes = {"exception.type": failure.type, "exception.message": message}
    if failure.traceback:
        said["exception.stacktrace"] = failure.traceback[-_TRACEBACK_CHARACTERS_MAX:]
    return said
