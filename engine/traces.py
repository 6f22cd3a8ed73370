"""The trace that an execution belongs to, as W3C Trace Context writes it: ``00-<trace>-<span>-<flags>``. Pure.

Owns what is taken from outside (https://www.w3.org/TR/trace-context/), what goes on, and the ids: an execution is a
span of its own in the trace of whoever started it, and so is each of its calls. All ids follow from the execution's, so
they are the same whenever they are asked for. Called by ``daemon`` for requests, by ``running`` for children and tasks.
"""

from __future__ import annotations

import hashlib
import re

import msgspec

_TRACEPARENT = re.compile(r"([0-9a-f]{2})-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})(-.*)?")


def accepted(header: str) -> str:
    """Return the ``traceparent`` that a request came with, empty if it is none.

    Of later versions than 00 what this one knows is taken, as the standard asks for."""
    match = _TRACEPARENT.fullmatch(header)
    if match is None or match[1] == "ff" or (match[1] == "00" and match[5]):
        return ""
    if not match[2].strip("0") or not match[3].strip("0"):
        return ""
    return f"00-{match[2]}-{match[3]}-{match[4]}"


def onward(traceparent: str, execution: str) -> str:
    """Return what an execution hands on to what it starts: the same trace, with itself as the parent."""
    if not traceparent:
        return ""
    _, trace, _, flags = traceparent.split("-")
    return f"00-{trace}-{span(execution)}-{flags}"


def span(execution: str) -> str:
    """Return the span of an execution: it follows from its id, so it is known wherever that is."""
    return hashlib.sha256(execution.encode()).hexdigest()[:16]


def span_of_call(execution: str, generation: int, call: int) -> str:
    """Return the span of a call; calls are numbered anew in each generation."""
    return span(f"{execution}/{generation}/{call}")


def is_sampled(traceparent: str) -> bool:
    """Return whether who began the trace wants it kept."""
    return bool(traceparent) and int(traceparent[-2:], 16) & 1 == 1


class Tracing(msgspec.Struct, frozen=True):
    """What is decided about traces here. ``ratio``: of executions that come without a trace so many begin one that is
    kept, others one that is not; None: they begin none. ``url``: where people see a trace, with {trace} in it."""

    ratio: float | None = None
    url: str = ""

    def begun(self, execution: str) -> str:
        """Return the ``traceparent`` of an execution that came without one, with itself in the place of the parent.

        Empty if it begins no trace. The lower half of the trace's id decides if it is kept, as it does for
        OpenTelemetry's TraceIdRatioBased sampler."""
        if self.ratio is None:
            return ""
        trace = hashlib.sha256(f"trace {execution}".encode()).hexdigest()[:32]
        is_kept = int(trace[16:], 16) < round(self.ratio * 2**64)
        return f"00-{trace}-{span(execution)}-{'01' if is_kept else '00'}"

    def page(self, traceparent: str, execution: str) -> str:
        """Return where people see the trace of an execution; empty if nowhere, or if it is not kept."""
        if not self.url or not is_sampled(traceparent):
            return ""
        placed = {"trace": traceparent.split("-")[1], "span": span(execution), "execution": execution}
        return self.url.format_map(placed)
