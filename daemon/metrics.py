"""Figures for whoever watches: counters of what happened since the start, gauges of what is so now (Prometheus).

Owns the names and labels; docs/operation.md lists them. Counting must cost next to nothing, so it is adding up in a
dictionary, which is put into the counters when somebody reads; what takes a question to the index is asked then, too.
No label has more values than the code or the route table has. Called by ``routes`` for requests, by the journal for
events, by ``health``; all of them on the event loop.
"""

from __future__ import annotations

import typing
from collections.abc import Callable, Sequence

import prometheus_client
from prometheus_client import exposition

from .. import __version__
from ..engine import events, lifecycle
from ..engine.records import listing

CONTENT_TYPE = exposition.CONTENT_TYPE_LATEST
_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 60.0)
_METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE"})


class Metrics:
    """All figures of one daemon."""

    def __init__(self) -> None:
        self._registry = prometheus_client.CollectorRegistry()
        prometheus_client.ProcessCollector(registry=self._registry)
        build = prometheus_client.Info("headrace_build", "the version that runs", registry=self._registry)
        build.info({"version": __version__})
        self._requests = prometheus_client.Counter(
            *("headrace_http_requests", "answered requests"), ("method", "route", "status"), registry=self._registry
        )
        self._durations = prometheus_client.Histogram(
            *("headrace_http_request_duration_seconds", "from the head of a request to its answer; waiting counts"),
            ("route",),
            buckets=_SECONDS,
            registry=self._registry,
        )
        self._deliveries = prometheus_client.Counter(
            *("headrace_webhook_deliveries", "deliveries to webhooks"), ("result",), registry=self._registry
        )
        self._events = prometheus_client.Counter(
            *("headrace_journal_events", "events that are durable"), ("event",), registry=self._registry
        )
        self._created = prometheus_client.Counter(
            *("headrace_executions_created", "executions asked for"), ("type",), registry=self._registry
        )
        self._ended = prometheus_client.Counter(
            *("headrace_executions_ended", "executions that are over"), ("status",), registry=self._registry
        )
        self._spans = prometheus_client.Counter(
            *("headrace_spans", "spans by what became of them"), ("result",), registry=self._registry
        )
        self._begin_at_zero()
        self._gauges: dict[str, prometheus_client.Gauge] = {}
        self._uncounted: dict[tuple[prometheus_client.Counter, tuple[str | int, ...]], int] = {}
        self._became_durable: dict[type[events.AnyEvent], int] = {}
        self._observing: dict[str, Callable[[float], None]] = {}  # by route, looked up once

    def _begin_at_zero(self) -> None:
        """Have the counters whose labels are known stand there before they count: the first step from nothing to one
        is no increase for Prometheus."""
        for counter, labels in (
            (self._deliveries, ("accepted", "repeated", "refused")),
            (self._created, listing.TYPES),
            (self._ended, lifecycle.ENDED),
            (self._spans, ("exported", "dropped", "refused")),
            (self._events, (str(kind.__struct_config__.tag) for kind in typing.get_args(events.AnyEvent))),
        ):
            for label in labels:
                counter.labels(label)

    def request(self, method: str, route: str, status: int, seconds: float) -> None:
        """Count an answered request; ``route`` is the pattern of the table."""
        method = method if method in _METHODS else "other"
        self._count(self._requests, method, route, status)
        observe = self._observing.get(route)
        if observe is None:
            observe = self._observing[route] = self._durations.labels(route).observe
        observe(seconds)

    def delivery(self, result: str) -> None:
        """Count a delivery: accepted, repeated or refused."""
        self._count(self._deliveries, result)

    def spans(self, result: str, count: int) -> None:
        """Count spans: exported, dropped for want of room, or refused by the collector."""
        self._spans.labels(result).inc(count)

    def durable(self, batch: Sequence[events.Recorded]) -> None:
        """Count what became durable."""
        counts = self._became_durable
        for recorded in batch:
            event = recorded.event
            kind = type(event)
            counts[kind] = counts.get(kind, 0) + 1
            if isinstance(event, events.ExecutionCreated):
                self._count(self._created, event.type)
            elif isinstance(event, events.ExecutionEnded):
                self._count(self._ended, event.status)

    def _count(self, counter: prometheus_client.Counter, *labels: str | int) -> None:
        key = (counter, labels)
        self._uncounted[key] = self._uncounted.get(key, 0) + 1

    def _add_up(self) -> None:
        """Put into the counters what was counted since somebody read them."""
        for (counter, labels), count in self._uncounted.items():
            counter.labels(*labels).inc(count)
        self._uncounted.clear()
        for kind, count in self._became_durable.items():
            self._events.labels(str(kind.__struct_config__.tag)).inc(count)
        self._became_durable.clear()

    def gauge(self, name: str, help_: str, read: Callable[[], float]) -> None:
        """Have ``read`` asked for this figure whenever somebody looks."""
        prometheus_client.Gauge(name, help_, registry=self._registry).set_function(read)

    def executions(self, counts: dict[str, int]) -> None:
        """Say how many executions are in each status."""
        gauge = self._gauges.get("executions")
        if gauge is None:
            gauge = self._gauges["executions"] = prometheus_client.Gauge(
                *("headrace_executions", "executions that are recorded"), ("status",), registry=self._registry
            )
        for status in lifecycle.Status:  # also those that nothing is in any more
            gauge.labels(status).set(counts.get(status, 0))

    def text(self) -> bytes:
        """Return all figures as they are read by Prometheus."""
        self._add_up()
        return exposition.generate_latest(self._registry)

    def names(self) -> set[str]:
        """Return the names of all families of figures."""
        return {family.name for family in self._registry.collect()}
