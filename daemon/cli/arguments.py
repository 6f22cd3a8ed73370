"""What people type as data: ``KEY=VALUE``, ``KEY:=JSON``, documents from a file, from stdin or written out.

Everything that cannot be used is a usage error that names it. Called by the verbs that send something.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any, NoReturn

import click

from ..client import JSON


def pairs(given: tuple[str, ...]) -> JSON:
    """Return ``KEY=VALUE`` and ``KEY:=JSON`` as one object."""
    found: JSON = {}
    for pair in given:
        key, equals, value = pair.partition("=")
        if not equals or not key.removesuffix(":"):
            raise click.UsageError(f"{pair!r} is neither KEY=VALUE nor KEY:=JSON")
        if key.endswith(":"):
            found[key[:-1]] = _json(value, key[:-1])
        else:
            found[key] = value
    return found


def document(given: str) -> JSON:
    """Return the JSON object that ``--input`` gives; empty without one."""
    if not given:
        return {}
    value = _json(text(given, "--input"), "--input")
    if not isinstance(value, dict):
        raise click.UsageError('--input must be a JSON object, such as {"day": "monday"}')
    return value


def text(given: str, what: str) -> str:
    """Return ``given`` itself, what stands in ``@FILE``, or for ``-`` what comes on stdin."""
    if given == "-":
        return sys.stdin.read()
    if not given.startswith("@"):
        return given
    try:
        return Path(given[1:]).read_text(encoding="utf-8")
    except (OSError, UnicodeError) as error:
        raise click.UsageError(f"{what}: {given[1:]} cannot be read: {error}") from error


def content(given: str, what: str) -> bytes:
    """Return the bytes of ``@FILE``, or for ``-`` those of stdin."""
    if given == "-":
        return sys.stdin.buffer.read()
    if not given.startswith("@"):
        raise click.UsageError(f"{what} is given as @FILE, or as - for what comes on stdin")
    try:
        return Path(given[1:]).read_bytes()
    except OSError as error:
        raise click.UsageError(f"{what}: {given[1:]} cannot be read: {error}") from error


def _json(given: str, what: str) -> Any:
    def refuse(constant: str) -> NoReturn:
        raise ValueError(f"{constant} is not JSON")

    try:
        return json.loads(given, parse_constant=refuse)
    except (ValueError, RecursionError) as error:
        raise click.UsageError(f"{what} is not valid JSON: {error}") from error
