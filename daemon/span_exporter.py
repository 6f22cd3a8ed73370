"""Sends spans to a collector, as OTLP over HTTP, each as soon as the event that ends it is durable.

It follows the journal like the figures do, and holds nobody up: what cannot be sent waits in a line that is bounded,
the oldest spans fall out of it, and a figure counts them. ``spans.json`` in the state directory says up to which event
everything was sent or fell out. A daemon that starts reads the journal in any case; the spans that ended after that
event are made of it again, with the same ids, and sent. So none is lost with a daemon that dies, and one is sent twice
only if that happens between the collector's answer and the mark: it is the same span then.

The libraries are those of the extra ``otel``, imported here and only when spans are wanted. Sending, and writing the
mark, happen in one thread. Called by ``app``.
"""

from __future__ import annotations

import collections
import datetime
import importlib
import logging
import os
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import msgspec
import structlog

from .. import __version__
from ..engine import errors, events
from . import private_files, spans, tracing

log = structlog.get_logger()

FILE_NAME = "spans.json"
#: Where OTEL_BSP_… says nothing else: so many spans may wait, so many are sent together, so long they are gathered.
_WAITING_MAX, _BATCH_MAX, _GATHER_MS = 10_000, 512, 1000
_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 1.0, 60.0
_CLOSE_S = 3.0
#: Answers after which the same may be sent again; the specification forbids that after any other.
_PASSING = frozenset({408, 429, 502, 503, 504})
_EPOCH = datetime.datetime.fromtimestamp(0, datetime.UTC)
_MICROSECOND = datetime.timedelta(microseconds=1)

#: Counts spans by what became of them: exported, dropped, refused.
Count = Callable[[str, int], None]
_Group = tuple[int, list[spans.Span]]  # those that end with one event, and its number


class Mark(msgspec.Struct, frozen=True):
    """The event of a journal up to which all spans are done with."""

    instance: str
    seq: int


class SpanExporter:
    """``visit`` the journal at its recovery, ``begin``, ``take`` every batch, ``close``."""

    def __init__(self, setting: tracing.Export, state: Path, environment: str, count: Count) -> None:
        """``environment`` is what flows know as theirs. Raises ``ConfigurationInvalid`` without the libraries."""
        self._path = state / FILE_NAME
        self._count = count
        self._collector = _Collector(setting, environment)
        self._waiting_max = _number("OTEL_BSP_MAX_QUEUE_SIZE", _WAITING_MAX)
        self._batch_max = min(_number("OTEL_BSP_MAX_EXPORT_BATCH_SIZE", _BATCH_MAX), self._waiting_max)
        self._gather_s = _number("OTEL_BSP_SCHEDULE_DELAY", _GATHER_MS) / 1000
        self._mark = _read(self._path)
        self._spans = spans.Spans()
        self._line: collections.deque[_Group] = collections.deque()
        self._flying: list[_Group] = []
        self._size = 0  # spans in the line, and under way
        self._changed = threading.Condition()
        self._stopping = False
        self._stalled = False
        self._mark_failing = False
        self._thread = threading.Thread(target=self._work, name="spans", daemon=True)

    @property
    def waiting(self) -> int:
        """How many spans have ended and are not sent."""
        return self._size

    def visit(self, recorded: events.Recorded) -> None:
        """Take an event of the past."""
        ended = self._spans.take(recorded)
        if ended and self._mark is not None and recorded.seq > self._mark.seq:
            self._put((recorded.seq, ended))

    def begin(self, instance: str, seq: int) -> None:
        """Begin to send. The journal ``instance`` was visited up to event ``seq``."""
        if self._mark is None or self._mark.instance != instance or self._mark.seq > seq:
            # Another journal's mark, or the first start with spans: what ended before is not told.
            self._line.clear()
            self._size = 0
            self._set_mark(Mark(instance, seq))
        self._thread.start()

    def take(self, batch: Sequence[events.Recorded]) -> None:
        """Take what has become durable; returns at once."""
        for recorded in batch:
            if ended := self._spans.take(recorded):
                with self._changed:
                    self._put((recorded.seq, ended))
                    self._changed.notify()

    def _put(self, group: _Group) -> None:
        self._line.append(group)
        self._size += len(group[1])
        while self._size > self._waiting_max and len(self._line) > 1:
            dropped = len(self._line.popleft()[1])
            self._size -= dropped
            self._count("dropped", dropped)

    def close(self) -> None:
        """Send what is there, if the collector takes it at once; what it does not is sent after the next start.

        Blocking."""
        with self._changed:
            self._stopping = True
            self._changed.notify()
        if self._thread.is_alive():
            self._thread.join(_CLOSE_S)
        self._collector.close()

    # In the thread.

    def _work(self) -> None:
        pause_s = _FIRST_PAUSE_S
        while self._gathered():
            result, reason = self._collector.send([span for _, group in self._flying for span in group])
            if not result:
                self._say_stalled(reason)
                with self._changed:
                    if self._stopping or self._changed.wait_for(lambda: self._stopping, pause_s):
                        return
                pause_s = min(_LONGEST_PAUSE_S, pause_s * 2)
                continue
            pause_s = _FIRST_PAUSE_S
            self._done(result, reason)

    def _gathered(self) -> bool:
        """Wait until there is something to send, and take it out of the line; False if there is nothing any more."""
        with self._changed:
            self._changed.wait_for(lambda: self._flying or self._line or self._stopping)
            if not self._flying:
                self._changed.wait_for(lambda: self._stopping or self._size >= self._batch_max, self._gather_s)
                size = 0
                while self._line and size < self._batch_max:
                    self._flying.append(self._line.popleft())
                    size += len(self._flying[-1][1])
            return bool(self._flying)

    def _done(self, result: str, reason: str) -> None:
        """Mark that what was under way is done with, then forget it."""
        count, seq = sum(len(group) for _, group in self._flying), self._flying[-1][0]
        assert self._mark is not None
        self._set_mark(Mark(self._mark.instance, seq))
        with self._changed:
            self._flying = []
            self._size -= count
            self._count(result, count)
        if result == "refused":
            log.warning("spans.refused", spans=count, reason=reason)
        elif self._stalled:
            self._stalled = False
            log.info("spans.resumed")

    def _set_mark(self, mark: Mark) -> None:
        self._mark = mark
        try:
            private_files.write(self._path, msgspec.json.encode(mark).decode())
            self._mark_failing = False
        except OSError as error:  # a full disk: if the daemon dies now, they are sent again
            if not self._mark_failing:
                log.warning("spans.mark_failed", reason=error.strerror)
            self._mark_failing = True

    def _say_stalled(self, reason: str) -> None:
        if not self._stalled:
            log.warning("spans.stalled", reason=reason, hint="sent later; if too many wait, the oldest are dropped")
        self._stalled = True


class _Collector:
    """The receiver of spans, spoken to with OpenTelemetry's own exporter, which also reads OTEL_EXPORTER_OTLP_…"""

    def __init__(self, setting: tracing.Export, environment: str) -> None:
        self._otel = _libraries()
        logging.getLogger("opentelemetry").setLevel(logging.CRITICAL)  # what it has to say is told once, by us
        self._status = 0
        session = self._otel.requests.Session()
        session.hooks["response"].append(self._answered)
        self._exporter = self._otel.exporter.OTLPSpanExporter(
            endpoint=setting.endpoint or None,
            headers=tracing.headers(setting.headers_file) if setting.headers_file else None,
            session=session,
        )
        named = {"deployment.environment.name": environment} if environment else {}
        service = setting.service or os.environ.get("OTEL_SERVICE_NAME") or "headrace"
        self._resource = self._otel.resources.Resource.create({"service.version": __version__, **named}).merge(
            self._otel.resources.Resource({"service.name": service})
        )
        self._scope = self._otel.instrumentation.InstrumentationScope("headrace", __version__)

    def _answered(self, response: Any, *_args: Any, **_more: Any) -> None:
        self._status = response.status_code

    def send(self, ended: Sequence[spans.Span]) -> tuple[str, str]:
        """Return what became of them, and why: ``exported``, ``refused``, or nothing if it may be tried again."""
        self._status = 0
        result = self._exporter.export([self._readable(span) for span in ended])
        if result is self._otel.export.SpanExportResult.SUCCESS and self._status < 300:
            return "exported", ""
        reason = f"the collector answered {self._status}" if self._status else "the collector does not answer"
        return "" if not self._status or self._status in _PASSING else "refused", reason

    def close(self) -> None:
        """End it, also in the midst of sending."""
        self._exporter.shutdown()

    def _readable(self, span: spans.Span) -> Any:
        """Return it as the exporter wants it."""
        otel = self._otel
        codes = otel.trace.StatusCode
        links = [otel.trace.Link(self._context(one.trace, one.span), {"headrace.link": one.why}) for one in span.links]
        code = {None: codes.UNSET, False: codes.OK, True: codes.ERROR}[span.failed]
        told = otel.util.BoundedList(spans.EVENTS_MAX)
        for one in span.events:
            told.append(otel.sdk.Event(one.name, one.attributes, _nanoseconds(one.at)))
        told.dropped += span.events_dropped
        return otel.sdk.ReadableSpan(
            name=_sound(span.name),
            context=self._context(span.trace, span.span),
            parent=self._context(span.trace, span.parent, remote=span.remote) if span.parent else None,
            resource=self._resource,
            attributes=span.attributes,
            events=told,
            links=links,
            kind=otel.trace.SpanKind[span.kind.upper()],
            status=otel.trace.Status(code, _sound(span.description) or None if span.failed else None),
            start_time=_nanoseconds(span.began),
            end_time=_nanoseconds(span.ended),
            instrumentation_scope=self._scope,
        )

    def _context(self, trace: str, span: str, *, remote: bool = False) -> Any:
        sampled = self._otel.trace.TraceFlags(self._otel.trace.TraceFlags.SAMPLED)
        return self._otel.trace.SpanContext(int(trace, 16), int(span, 16), is_remote=remote, trace_flags=sampled)


def _libraries() -> SimpleNamespace:
    """The marked place for OpenTelemetry; raises ``ConfigurationInvalid``."""

    def load(module: str) -> ModuleType:
        return importlib.import_module(module)

    try:
        return SimpleNamespace(
            exporter=load("opentelemetry.exporter.otlp.proto.http.trace_exporter"),
            sdk=load("opentelemetry.sdk.trace"),
            export=load("opentelemetry.sdk.trace.export"),
            resources=load("opentelemetry.sdk.resources"),
            instrumentation=load("opentelemetry.sdk.util.instrumentation"),
            util=load("opentelemetry.sdk.util"),
            trace=load("opentelemetry.trace"),
            requests=load("requests"),
        )
    except ImportError as absent:
        raise errors.ConfigurationInvalid(
            f"traces.export needs OpenTelemetry, which cannot be imported where the daemon runs: {absent}",
            hint="pip install 'headrace[otel]', or take traces.export away",
        ) from absent


def _nanoseconds(at: str) -> int:
    return (datetime.datetime.fromisoformat(at) - _EPOCH) // _MICROSECOND * 1000


def _sound(text: str) -> str:
    """Return text without halves of surrogate pairs, which protobuf refuses."""
    return text.encode("utf-8", "replace").decode()


def _number(variable: str, usual: int) -> int:
    text = os.environ.get(variable, "").strip()
    return int(text) if text.isdecimal() and int(text) else usual


def _read(path: Path) -> Mark | None:
    """Return the mark, None if there is none; a torn or foreign file is none."""
    try:
        return msgspec.json.decode(path.read_bytes(), type=Mark)
    except (OSError, msgspec.MsgspecError):
        return None
