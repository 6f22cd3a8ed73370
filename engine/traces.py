"""The trace that an execution belongs to, as W3C Trace Context writes it: ``00-<trace>-<span>-<flags>``. Pure.

Owns what is taken from outside (https://www.w3.org/TR/trace-context/) and what goes on: an execution is a span of its
own in the trace of whoever started it. Called by ``daemon`` for requests, by ``running`` for children and tasks.
"""

from __future__ import annotations

import hashlib
import re

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
