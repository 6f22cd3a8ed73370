"""What a route tells programs about itself: the body it takes, what it answers with, the parameters it knows. Pure.

A row of the route table carries one of these; ``openapi`` makes the description of the API out of all of them.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

#: Bodies and answers that are no JSON.
BYTES = "application/octet-stream"
LINES = "application/x-ndjson"
STREAM = "text/event-stream"


class Parameter(msgspec.Struct, frozen=True):
    """A parameter of the query, or a header; ``schema`` is JSON Schema."""

    name: str
    schema: Mapping[str, Any]
    description: str
    several: bool = False


class Operation(msgspec.Struct, frozen=True, kw_only=True):
    """``takes`` is the type of a JSON body, or a media type; ``gives`` likewise, None for no content.

    ``also`` are media types in which the same is offered besides; ``statuses`` those of good answers."""

    takes: Any = None
    gives: Any = None
    statuses: tuple[int, ...] = (200,)
    also: tuple[str, ...] = ()
    query: tuple[Parameter, ...] = ()
    headers: tuple[Parameter, ...] = ()


_SECONDS = {"type": "number", "minimum": 0}
_TEXT = {"type": "string"}
WAIT = Parameter("wait", _SECONDS, "seconds to wait for the end; 600 at most")
PREFER = Parameter("Prefer", {"type": "string", "pattern": r"^wait=[0-9]{1,3}$"}, "`wait=N`, as ?wait=N")
IDEMPOTENCY_KEY = Parameter(
    "Idempotency-Key", {"type": "string", "maxLength": 200}, "the same key with the same body never runs it twice"
)
TRACEPARENT = Parameter("traceparent", _TEXT, "the trace it belongs to (W3C Trace Context)")
IF_MATCH = Parameter("If-Match", _TEXT, "change it only if it is still what this ETag names")
LAST_EVENT_ID = Parameter(
    "Last-Event-ID", {"type": "string", "pattern": "^[0-9]{1,15}$"}, "go on after this event of a stream"
)
LIMIT = Parameter("limit", {"type": "integer", "minimum": 1, "maximum": 200}, "how many a page has; 50 unless said")
CURSOR = Parameter("cursor", _TEXT, "the page that `next` of the page before named")
