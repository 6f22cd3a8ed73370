"""The shapes of values that people write in flows' metadata and in declaring files. Pure.

Owns: the checks that a value is what its key asks for (a text, a flag, a table with known keys, a reference to a
secret, …) and the words that say so. Each check returns the value in its one form or raises ``Wrong``. Refuses:
secrets written out, and repeating a value that may be one. Used by ``metadata`` (TOML) and ``declarations`` (YAML),
so the words fit both.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

from ..engine import model

Check = Callable[[object], Any]

METHODS = ("GET", "POST", "PUT", "PATCH", "DELETE", "HEAD")
_SECRET = re.compile(r"(?:secret\.(?:env|credential|file|age)|vault\.secret)\([^()\s][^()]*\)")


class Wrong(Exception):
    """What is wrong with a value, and with which key inside it."""

    def __init__(self, message: str, key: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.key = key


def text(value: object) -> str:
    """Return ``value`` if it is a text."""
    if not isinstance(value, str):
        raise Wrong(f"is {shown(value)}; write a text in quotes")
    return value


def full_text(value: object) -> str:
    """Return ``value`` if it is a text with something in it."""
    if not text(value).strip():
        raise Wrong("is empty; write a text")
    return text(value)


def texts(value: object) -> list[str]:
    """Return ``value`` if it is a list of texts."""
    if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
        raise Wrong(f"is {shown(value)}; write a list of texts")
    return value


def flag(value: object) -> bool:
    """Return ``value`` if it is true or false."""
    if not isinstance(value, bool):
        raise Wrong(f"is {shown(value)}; write true or false")
    return value


def table(value: object) -> dict[str, Any]:
    """Return ``value`` if it has keys and values."""
    if not isinstance(value, dict):
        raise Wrong(f"is {shown(value)}; write a table of keys and values")
    return value


def count(value: object) -> int:
    """Return ``value`` if something can be counted with it."""
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise Wrong(f"is {shown(value)}; write a whole number of at least 1")
    return value


def factor(value: object) -> float:
    """Return ``value`` if waiting times can be multiplied by it."""
    if not isinstance(value, (int, float)) or isinstance(value, bool) or not 1 <= value <= 1000:
        raise Wrong(f"is {shown(value)}; write a number of at least 1")
    return float(value)


def one_of(*choices: str) -> Callable[[object], str]:
    """Return the check that a value is one of ``choices``."""

    def check(value: object) -> str:
        if value not in choices:
            raise Wrong(f"is {shown(value)}; write one of {', '.join(choices)}")
        return str(value)

    return check


def fields(**checks: Check) -> Callable[[object], dict[str, Any]]:
    """Return the check that a value is a table with no other keys than these, each as its own check wants it."""

    def check(value: object) -> dict[str, Any]:
        checked = {}
        for key, item in table(value).items():
            if key not in checks:
                raise Wrong(f"is not known; there are {', '.join(checks)}", key)
            try:
                checked[key] = checks[key](item)
            except Wrong as wrong:
                raise Wrong(wrong.message, f"{key}.{wrong.key}" if wrong.key else key) from None
        return checked

    return check


def shown(value: object) -> str:
    """Return ``value`` for a message, short: whatever it is, it came from a file."""
    told = "null" if value is None else repr(value)
    return told if len(told) <= 60 else f"{told[:57]}…"


def auth(value: object) -> str:
    """Return ``value`` if it is a way to tell who calls a webhook."""
    return one_of(*model.WEBHOOK_AUTH)(value)


def is_secret_reference(value: str) -> bool:
    """Return whether ``value`` names a secret."""
    return _SECRET.fullmatch(value) is not None


def secret(value: object) -> str:
    """Return ``value`` if it names a secret."""
    if not isinstance(value, str) or not is_secret_reference(value):
        # The value is not repeated: it may be the secret itself.
        raise Wrong(
            "must name a secret, never hold one: write secret.env(NAME), secret.credential(NAME) or secret.file(PATH)"
        )
    return value


def methods(value: object) -> tuple[str, ...]:
    """Return ``value``, in capitals, if it lists HTTP methods."""
    named = tuple(method.upper() for method in texts(value))
    if not named or not set(named) <= set(METHODS):
        raise Wrong(f"is {shown(value)}; name some of {', '.join(METHODS)}")
    return named


def admission(given: dict[str, Any], *, auth_default: str) -> tuple[str, str]:
    """Return how a webhook's caller is checked and the secret for it, from its table; ``key`` is ``secret`` too."""
    if "secret" in given and "key" in given:
        raise Wrong("is the same as secret; give one of them", "key")
    way, reference = given.get("auth", auth_default), given.get("secret") or given.get("key") or ""
    if way != "none" and not reference:
        raise Wrong(f'is {way!r} and there is no secret; add secret = "secret.env(NAME)"', "auth")
    if way == "none" and reference:
        raise Wrong('is given and would not be asked for; add auth = "key" or auth = "github"', "secret")
    return way, reference
