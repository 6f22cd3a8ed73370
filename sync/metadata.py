"""The inline-metadata block of a flow: what it may say, and what of that this version acts on. Pure.

Owns: the table of keys with their types, durations, and the form of a webhook. Refuses: unknown keys, wrong types and
secrets written out, each with its line and key, because a setting that is silently ignored is worse than none. Keys
of the flow contract that this version does not act on are checked all the same and give a warning.
Called by ``check`` with the block that ``compile_flows`` found.
"""

from __future__ import annotations

import dataclasses
import re
import sys
import tomllib
from collections.abc import Callable, Mapping
from typing import Any

from ..engine import errors, model

_UNITS_S = {"ms": 0.001, "s": 1.0, "m": 60.0, "min": 60.0, "h": 3600.0, "d": 86400.0, "w": 604800.0}
_DURATION = re.compile(r"(?:\d+(?:\.\d+)?\s*(?:ms|s|min|m|h|d|w)\s*)+")
_DURATION_PART = re.compile(r"(\d+(?:\.\d+)?)\s*(ms|s|min|m|h|d|w)")
_SECRET = re.compile(r"secret\.(?:env|credential|file)\([^()\s][^()]*\)")
_METHODS = ("GET", "POST", "PUT", "PATCH", "DELETE", "HEAD")
_AUTH = ("none", "key", "github")
_AUTH_LATER = ("gitlab", "gitea", "bitbucket", "slack", "stripe", "standard-webhooks", "hmac")


class MetadataInvalid(errors.HeadraceError):
    """A metadata block that cannot be used; ``line`` is the file's, ``key`` the one at fault."""

    def __init__(self, message: str, *, line: int, key: str = "") -> None:
        super().__init__(message)
        self.line = line
        self.key = key


@dataclasses.dataclass(frozen=True, slots=True)
class Block:
    """A flow's metadata as read, with what is said but not acted on."""

    metadata: model.Metadata
    warnings: tuple[str, ...] = ()


class _Wrong(Exception):
    """What is wrong with a value, and with which key inside it."""

    def __init__(self, message: str, key: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.key = key


def parse(block: str, *, first_line: int, flow_name: str) -> Block:
    """Return what ``block`` says; raises ``MetadataInvalid``. ``first_line`` is the number of its first line."""
    try:
        table = tomllib.loads(block)
    except tomllib.TOMLDecodeError as error:
        found = re.search(r"\(at line (\d+),", str(error))
        line = first_line + (int(found[1]) - 1 if found else 0)
        message = re.sub(r" \(at line \d+, column \d+\)", "", str(error))
        raise MetadataInvalid(f"the metadata block is not TOML: {message}", line=line) from None
    except RecursionError:
        raise MetadataInvalid("the metadata block is nested too deeply", line=first_line) from None
    key = ""
    try:
        for key, value in table.items():
            _check_top(key, value)
        key = "tool"
        settings = _table(table.get("tool", {})).get("headrace", {})
        key = "tool.headrace"
        values: dict[str, Any] = {}
        for key, value in _table(settings).items():
            if key not in _KEYS:
                raise _Wrong(f"is not a key of [tool.headrace]; there are {', '.join(sorted(_KEYS))}")
            values[key] = _KEYS[key](value)
    except _Wrong as wrong:
        whole = f"{key}.{wrong.key}" if wrong.key else key
        raise MetadataInvalid(f"{whole} {wrong.message}", line=first_line + _offset(block, whole), key=whole) from None
    return _block(values, flow_name, dependencies=bool(table.get("dependencies")))


def duration_s(value: object) -> float:
    """Return the seconds that ``2h``, ``90s``, ``1h 30m`` or a plain number of seconds stands for."""
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        seconds = float(value)
    elif isinstance(value, str) and _DURATION.fullmatch(value.strip()):
        seconds = sum(float(number) * _UNITS_S[unit] for number, unit in _DURATION_PART.findall(value))
    else:
        raise _Wrong(f'is {value!r}; write a duration such as "90s", "30 m" or "2h", or a number of seconds')
    if not 0 < seconds < float("inf"):
        raise _Wrong(f"is {value!r}; it must be longer than nothing and finite")
    return seconds


def _block(values: Mapping[str, Any], flow_name: str, *, dependencies: bool) -> Block:
    hook: model.Webhook | None = values.get("webhook")
    if hook is not None and not hook.name:
        hook = model.Webhook(name=flow_name, auth=hook.auth, secret=hook.secret, methods=hook.methods)
    idle = [key for key in values if key not in _ACTED_ON] + ["dependencies"] * dependencies
    return Block(
        model.Metadata(
            description=values.get("description", ""),
            timeout_s=values.get("timeout"),
            reuse=values.get("reuse", True),
            webhook=hook,
        ),
        tuple(f"{key} is not acted on by this version" for key in idle),
    )


def _check_top(key: str, value: object) -> None:
    if key == "requires-python":
        wanted = re.findall(r">=\s*(\d+)\.(\d+)", _text(value))
        if any((int(major), int(minor)) > sys.version_info[:2] for major, minor in wanted):
            raise _Wrong(f"is {value!r}, and flows run on Python {sys.version_info[0]}.{sys.version_info[1]}")
    elif key == "dependencies":
        _texts(value)
    elif key != "tool":
        raise _Wrong("is not a key of the script block; there are requires-python, dependencies, [tool.headrace]")


def _offset(block: str, key: str) -> int:
    """Return in which line of ``block`` the innermost part of ``key`` that can be found stands, counting from 0."""
    lines = block.split("\n")
    for part in reversed(key.split(".")):
        here = re.compile(rf"""(?:^|[{{,\[.\s])["']?{re.escape(part)}["']?\s*(?:=|\]|\.)""")
        for number, line in enumerate(lines):
            if here.search(line.partition("#")[0]):
                return number
    return 0


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise _Wrong(f"is {_shown(value)}; write a text in quotes")
    return value


def _texts(value: object) -> list[str]:
    if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
        raise _Wrong(f"is {_shown(value)}; write a list of texts")
    return value


def _flag(value: object) -> bool:
    if not isinstance(value, bool):
        raise _Wrong(f"is {_shown(value)}; write true or false")
    return value


def _table(value: object) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise _Wrong(f"is {_shown(value)}; write a table {{key = value}}")
    return value


def _count(value: object) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise _Wrong(f"is {_shown(value)}; write a whole number of at least 1")
    return value


def _factor(value: object) -> float:
    if not isinstance(value, (int, float)) or isinstance(value, bool) or not 1 <= value <= 1000:
        raise _Wrong(f"is {_shown(value)}; write a number of at least 1")
    return float(value)


def _one_of(*choices: str) -> Callable[[object], str]:
    def check(value: object) -> str:
        if value not in choices:
            raise _Wrong(f"is {_shown(value)}; write one of {', '.join(choices)}")
        return str(value)

    return check


def _fields(**checks: Callable[[object], object]) -> Callable[[object], dict[str, Any]]:
    def check(value: object) -> dict[str, Any]:
        checked = {}
        for key, item in _table(value).items():
            if key not in checks:
                raise _Wrong(f"is not known; there are {', '.join(checks)}", key)
            try:
                checked[key] = checks[key](item)
            except _Wrong as wrong:
                raise _Wrong(wrong.message, key) from None
        return checked

    return check


def _shown(value: object) -> str:
    """Return ``value`` for a message, short: whatever it is, it came from a file."""
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}…"


def _auth(value: object) -> str:
    if value in _AUTH_LATER:
        raise _Wrong(f"is {value!r}, which this version does not offer; use {' or '.join(_AUTH)}")
    return _one_of(*_AUTH)(value)


def _secret(value: object) -> str:
    if not isinstance(value, str) or not _SECRET.fullmatch(value):
        # The value is not repeated: it may be the secret itself.
        raise _Wrong(
            "must name a secret, never hold one: write secret.env(NAME), secret.credential(NAME) or secret.file(PATH)"
        )
    return value


def _methods(value: object) -> tuple[str, ...]:
    methods = tuple(method.upper() for method in _texts(value))
    if not methods or not set(methods) <= set(_METHODS):
        raise _Wrong(f"is {_shown(value)}; name some of {', '.join(_METHODS)}")
    return methods


def _webhook_name(value: object) -> str:
    name = _text(value)
    if not name or name != name.strip("/ ") or not name.isprintable():
        raise _Wrong(f"is {_shown(value)}; write a name without slashes or blanks at its ends")
    return name


_webhook_fields = _fields(name=_webhook_name, auth=_auth, secret=_secret, key=_secret, methods=_methods)


def _webhook(value: object) -> model.Webhook | None:
    if isinstance(value, bool):
        return model.Webhook(name="") if value else None
    fields = _webhook_fields(value)
    if "secret" in fields and "key" in fields:
        raise _Wrong("is the same as secret; give one of them", "key")
    auth, secret = fields.get("auth", "none"), fields.get("secret") or fields.get("key") or ""
    if auth != "none" and not secret:
        raise _Wrong(f'is {auth!r} and there is no secret; add secret = "secret.env(NAME)"', "auth")
    if auth == "none" and secret:
        raise _Wrong('is given and would not be asked for; add auth = "key" or auth = "github"', "secret")
    return model.Webhook(
        name=fields.get("name", ""), auth=auth, secret=secret, methods=fields.get("methods", ("POST",))
    )


_ACTED_ON = frozenset({"description", "timeout", "reuse", "webhook"})
_KEYS: dict[str, Callable[[object], Any]] = {
    "description": _text,
    "timeout": duration_s,
    "reuse": _flag,
    "webhook": _webhook,
    "schedule": _text,
    "timezone": _text,
    "catchup": _one_of("none", "last", "all"),
    "concurrency": _fields(limit=_count, when_full=_one_of("queue", "skip", "replace")),
    "retry": _fields(attempts=_count, delay=duration_s, factor=_factor),
    "on_failure": _text,
    "on_interrupt": _one_of("resume", "restart", "fail"),
    "input_schema": _table,
    "strict_replay": _flag,
    "resources": _table,
    "worker": _text,
}
