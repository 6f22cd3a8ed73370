"""The daemon's own log: lines for people on a terminal, entries for journald, JSON lines for log shippers.

``configure`` is called before anything logs, and again when that is to change. structlog is the only interface of our
code; what libraries write through ``logging`` and ``warnings`` takes the same way out. Times are UTC. The last step
before a line becomes text hides secrets, in field values, in nested values and in tracebacks, so no caller has to think
of it.

The lines go to stderr: stdout belongs to data. A flow's log is a record, not this.
"""

from __future__ import annotations

import functools
import json
import logging
import os
import re
import sys
import time
from collections.abc import Mapping, MutableMapping
from typing import Any, TextIO

import msgspec
import structlog

from ..engine import moments
from . import journald, written

#: A field whose name says that it holds a secret is never written, whatever it holds.
_SECRET_NAME = re.compile(
    r"(?i)(?:^|[_-])(password|passwd|secret|token|authorization|cookie|api[_-]?key|private[_-]?key)$"
)
_SECRET_TEXT = re.compile(r"(?i)\b(bearer|basic)\s+[\w.~+/=-]{6,}|\bhr_[\w-]{8,}")
_HIDDEN = "***"


def configure(form: str, level: str, stream: TextIO | None = None) -> None:
    """Send every log line to ``stream`` (stderr), or to journald.

    ``form`` is ``auto``, ``json``, ``console`` or ``journald``, ``level`` a name. While journald does
    not listen, lines are JSON."""
    out = sys.stderr if stream is None else stream
    number = logging.getLevelNamesMapping()[level.upper()]
    for_people = out.isatty() if form == "auto" else form == "console"
    channel = None
    if form == "journald" or (form == "auto" and journald.is_behind(out, os.environ)):
        channel = journald.Channel(out)
    shared: list[structlog.typing.Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.processors.add_log_level,
        _add_time,
        *([journald.WHERE] if channel else []),
    ]
    # Tracebacks become text before the mask, which could not look into them otherwise.
    rendered = _console(out) if for_people and not channel else _json_line
    last: list[structlog.typing.Processor] = [structlog.processors.format_exc_info, mask, rendered]
    writer = structlog.WriteLogger(out)
    structlog.configure(
        processors=[*shared, *last],
        wrapper_class=structlog.make_filtering_bound_logger(number),
        logger_factory=lambda *_: channel or writer,
        cache_logger_on_first_use=False,  # what is configured anew counts at once
    )
    handler: logging.Handler = journald.Handler(channel) if channel else logging.StreamHandler(out)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=[*shared, structlog.stdlib.add_logger_name],
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *last],
        )
    )
    logging.basicConfig(handlers=[handler], level=number, force=True)
    logging.getLogger("watchfiles").setLevel(max(number, logging.WARNING))  # it reports every change it sees
    logging.captureWarnings(capture=True)


def _add_time(_logger: object, _method: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    event["at"] = moments.timestamp(time.time()).replace("+00:00", "Z")
    return event


def mask(_logger: object, _method: str, event: MutableMapping[str, Any]) -> Mapping[str, Any]:
    """Return the line's fields with everything that looks like a secret hidden (a structlog processor)."""
    if _is_harmless(event):
        return event
    return {name: _masked(name, value) for name, value in event.items()}


def _is_harmless(event: Mapping[str, Any]) -> bool:
    """Whether no field needs a closer look, as in nearly all lines: that costs a fifth of looking at each of them."""
    texts = []
    for value in event.values():
        if isinstance(value, str):
            texts.append(value)
        elif value is not None and not isinstance(value, int | float):
            return False
    text = "\0".join(texts).casefold()
    could_be = "bearer" in text or "basic" in text or "hr_" in text or "://" in text
    return not could_be and not any(map(_names_secret, event))


@functools.lru_cache(maxsize=1024)
def _names_secret(name: str) -> bool:
    return _SECRET_NAME.search(name) is not None


def _masked(name: str, value: Any) -> Any:
    if isinstance(value, str):
        if value and _names_secret(name):
            return _HIDDEN
        text = _SECRET_TEXT.sub(_HIDDEN, value)
        return written.without_credentials(text) if "://" in text else text
    if isinstance(value, bytes):
        return _masked(name, value.decode(errors="replace"))
    if isinstance(value, Mapping):
        return {str(key): _masked(str(key), member) for key, member in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [_masked(name, member) for member in value]
    if value is None or isinstance(value, bool | int | float):
        return value
    return _masked(name, str(value))


def _json_line(_logger: object, _method: str, event: MutableMapping[str, Any]) -> str:
    first = {name: event.pop(name) for name in ("at", "level", "event") if name in event}
    try:
        return msgspec.json.encode({**first, **event}).decode()
    except (UnicodeEncodeError, OverflowError):  # a file name that is not UTF-8, a huge number: the line still counts
        return json.dumps({**first, **event})


def _console(out: TextIO) -> structlog.typing.Processor:
    return structlog.dev.ConsoleRenderer(
        colors=out.isatty(), timestamp_key="at", exception_formatter=structlog.dev.plain_traceback, pad_event_to=24
    )
