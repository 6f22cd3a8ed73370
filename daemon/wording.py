"""How pages word what records hold: statuses, times, durations, JSON, and text that programs wrote. Pure.

It makes text, never HTML: escaping is the templates' alone. What a program wrote loses its terminal codes and control
characters here, and what is too long for a page is cut with a note. Called by ``templates`` (as filters) and
``chronicle``.
"""

from __future__ import annotations

import datetime
import json
import re
import urllib.parse

import msgspec

from ..engine import events, model, values

#: A page shows this much of one value; the API has it all.
JSON_CHARACTERS_MAX = 64 * 1024

#: Escape sequences: CSI (colours, cursor), OSC and other strings (titles, links), and the two-character ones.
_TERMINAL_CODES = re.compile(r"\x1b(?:\[[0-?]*[ -/]*[@-~]|[\]PX^_].*?(?:\x07|\x1b\\|\Z)|[ -/]*[0-~])", re.DOTALL)
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")

_CODE = re.compile("`([^`]+)`")

_STATUS_WORDS = {
    "NEW": "New",
    "QUEUED": "Queued",
    "RUNNING": "Running",
    "WAITING": "Waiting",
    "PAUSED": "Paused",
    "ENDED_SUCCESS": "Succeeded",
    "ENDED_ERROR": "Failed",
    "ENDED_CANCELLED": "Cancelled",
}


def status(name: str) -> str:
    """Return the status as a word."""
    return _STATUS_WORDS.get(name, name)


def segment(name: str) -> str:
    """Return a name as one segment of a path."""
    return urllib.parse.quote(name, safe="")


def plain(text: str) -> str:
    """Return text that a program wrote without terminal codes and control characters, line breaks and tabs kept."""
    return _CONTROL.sub("", _TERMINAL_CODES.sub("", text.replace("\r\n", "\n")))


def spans(text: str) -> list[tuple[bool, str]]:
    """Return a text in pieces, with whether each is code: what stands between two backticks."""
    pieces = _CODE.split(text)
    return [(number % 2 == 1, piece) for number, piece in enumerate(pieces) if piece]


#: What an effect was, by the first part of its audit event; a whole event counts before its part.
_EFFECT_WORDS = {
    "open": "opened a file for writing",
    "sqlite3": "opened a database",
    "socket": "used the network",
    "urllib": "used the network",
    "http": "used the network",
    "smtplib": "used the network",
    "ftplib": "used the network",
    "subprocess": "started a program",
    "os.system": "started a program",
    "os.exec": "started a program",
    "os.posix_spawn": "started a program",
    "os.fork": "started a process",
    "os.forkpty": "started a process",
    "os.kill": "sent a signal",
    "os.killpg": "sent a signal",
    "import": "loaded native code",
    "ctypes": "loaded native code",
    "os": "changed files",
    "shutil": "changed files",
    "tempfile": "made a temporary file",
}


def effect(noticed: events.EffectNoticed) -> str:
    """Return what a handler did by itself, in words, with the audit event in which Python told so."""
    words = _EFFECT_WORDS.get(noticed.effect) or _EFFECT_WORDS.get(noticed.effect.partition(".")[0], "had an effect")
    return f"{words} ({noticed.effect}{' ' if noticed.detail else ''}{plain(noticed.detail)})"


def moment(at: str) -> str:
    """Return a recorded time to the second: ``2026-01-31 08:00:00 UTC``."""
    return f"{at[:10]} {at[11:19]} UTC" if at else ""


def ago(at: str, now_s: float) -> str:
    """Return how long ago a recorded time is, in its largest unit."""
    passed_s = now_s - _seconds(at)
    for unit, unit_s in (("day", 86400), ("hour", 3600), ("min", 60)):
        if passed_s >= unit_s:
            count = int(passed_s // unit_s)
            return f"{count} {unit}{'s' if count > 1 and unit != 'min' else ''} ago"
    return "just now" if passed_s < 5 else f"{int(passed_s)} s ago"


def lasted(began: str | None, ended: str | None, now_s: float) -> str:
    """Return how long something took, or has taken so far; empty if it has not begun."""
    if not began:
        return ""
    return duration(max(0.0, (_seconds(ended) if ended else now_s) - _seconds(began)))


def duration(seconds: float) -> str:
    """Return a length of time in at most two units: ``12 ms``, ``3.4 s``, ``2 min 5 s``, ``3 h 12 min``."""
    if seconds < 1:
        return f"{seconds * 1000:.0f} ms"
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest_s = divmod(int(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest_s} s"
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours < 48 else f"{hours // 24} days {hours % 24} h"


def size(count: int) -> str:
    """Return a number of bytes in the unit that suits it."""
    amount = float(count)
    for unit in ("bytes", "KB", "MB", "GB"):
        if amount < 1000:
            return f"{amount:.0f} {unit}" if unit == "bytes" or amount >= 100 else f"{amount:.1f} {unit}"
        amount /= 1000
    return f"{amount:.1f} TB"


def _seconds(at: str) -> float:
    return datetime.datetime.fromisoformat(at).timestamp()


def pretty(value: model.Output) -> str:
    """Return a value as indented JSON, or nothing for an empty object; what lies in a file is named by its size."""
    if value is None:
        return ""
    if isinstance(value, dict):
        parts = {key: _size(part) if isinstance(part, events.Blob) else part for key, part in _seen(value).items()}
        text = msgspec.json.encode(parts)
    else:
        seen = value.shown if isinstance(value, model.Sealed) else value
        if isinstance(seen, events.Blob):
            return _size(seen)
        text = bytes(seen)
    return "" if text == b"{}" else values.shortened(indented(text), JSON_CHARACTERS_MAX)


def _seen(members: dict[str, model.Value]) -> dict[str, msgspec.Raw | events.Blob]:
    return {key: part.shown if isinstance(part, model.Sealed) else part for key, part in members.items()}


def _size(blob: events.Blob) -> str:
    return f"… {blob.bytes:,} bytes, too many for a page …"


def indented(text: bytes) -> str:
    """Return JSON text for reading."""
    try:  # the standard library keeps numbers of any size and writes characters instead of their escapes
        return json.dumps(json.loads(text), indent=2, ensure_ascii=False)
    except (ValueError, RecursionError):
        return text.decode(errors="replace")
