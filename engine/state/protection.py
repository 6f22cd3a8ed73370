"""Credentials in records: which fields and keys hold them, and the record as people may see it. Pure.

Owns: the places where a credential lies (a field that is one, a key of a connection that is called like one, the key of
a webhook that a setting publishes). Refuses: to guess about other values; a secret the daemon resolved is masked
wherever it turns up, by ``masks``. A reference (``secret.env(X)``, ``vault.secret(…)``) says where a secret lies and
stays readable. Called before a record becomes an event and before it is shown.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any

import msgspec

from .. import errors, values
from . import kinds

MARKER = "[protected]"
_REFERENCE = re.compile(r"secret\.(?:env|credential|file|age)\([^()\n]+\)|vault\.secret\([^()\n]+\)")
#: Keys of a connection that hold a credential, in small letters and without ``-``, ``_`` and blanks.
_CALLED = frozenset({"key", "dsn", "authorization", "proxyauthorization", "httpcookie", "cookie", "pin", "pwd"})
_CALLED_LIKE = (
    "password", "passwd", "passphrase", "token", "secret", "secretid", "apikey", "accesskey", "privatekey", "clientkey",
    "sshkey", "credential", "credentials",
)  # fmt: skip


def is_reference(text: str) -> bool:
    """Return whether ``text`` says where a secret lies, instead of being one."""
    return _REFERENCE.fullmatch(text.strip()) is not None


def shown(
    type: str,  # noqa: A002 - records have a type
    name: str,
    fields: Mapping[str, msgspec.Raw],
) -> tuple[dict[str, msgspec.Raw], frozenset[str]]:
    """Return the fields with ``[protected]`` in place of credentials, and which fields that changed."""
    seen, changed = dict(fields), set()
    for key, raw in fields.items():
        conceal = _rule(type, name, key)
        if conceal is None:
            continue
        try:
            value = values.decode(raw)
            concealed = conceal(value)
            if concealed != value:
                seen[key] = msgspec.Raw(values.encode(concealed))
                changed.add(key)
        except RecursionError:
            raise errors.InvalidRequest(f"{type} {name!r}: {key!r} is nested too deeply") from None
    return seen, frozenset(changed)


def restored(given: msgspec.Raw, seen: msgspec.Raw, true: msgspec.Raw) -> msgspec.Raw:
    """Return what somebody means who edited ``seen``, the form of ``true`` without secrets, into ``given``.

    What they left as they saw it is what it truly was. Raises ``InvalidRequest`` for a ``[protected]`` that stands
    where nothing was."""
    if bytes(given) == bytes(seen):
        return true
    try:
        value = values.decode(given)
        meant = _meant(value, values.decode(seen), values.decode(true))
        if _marked(meant):
            raise errors.InvalidRequest(
                f"{MARKER} stands for a secret that is kept, and none is kept at this place",
                hint="write the secret itself, or a reference such as secret.env(NAME)",
            )
        return given if meant == value else msgspec.Raw(values.encode(meant))
    except RecursionError:
        raise errors.InvalidRequest("the value is nested too deeply") from None


def without_credentials(inputs: bytes) -> bytes:
    """Return a task's inputs, an object's text, with ``[protected]`` in place of what is called like a credential.

    The inputs themselves alone: what lies inside of one is data that is sent."""
    members = values.members(inputs)
    if members is None or not any(_is_credential(key) for key in members):
        return inputs
    return values.encode(
        {key: _concealed(values.decode(raw)) if _is_credential(key) else raw for key, raw in members.items()}
    )


def refuse_markers(type: str, name: str, fields: Mapping[str, msgspec.Raw]) -> None:  # noqa: A002
    """Raise ``InvalidRequest`` for a marker in a new record: a copy of one would have that text for its secret."""
    for key, raw in fields.items():
        if _rule(type, name, key) is not None and _marked(values.decode(raw)):
            raise errors.InvalidRequest(
                f"{type} {name!r}: {MARKER} in {key!r} stands for a secret that is kept, and this record is new",
                hint="write the secret itself, or a reference such as secret.env(NAME)",
            )


def _rule(type: str, name: str, key: str) -> Callable[[Any], Any] | None:  # noqa: A002
    """Return how to conceal what is secret in a field, or None if nothing in it is."""
    kind = kinds.KINDS.get(type)
    if kind is None or key not in kind.fields:
        return None
    if kind.fields[key].secret:
        return _concealed
    if (type, key) == ("connection", "value"):
        return _without_credentials
    if (type, key) == ("setting", "value") and name.startswith(kinds.WEBHOOK_SETTING):
        return _without_webhook_key
    return None


def _concealed(value: Any) -> Any:
    """Conceal every text and number in ``value``."""
    match value:
        case str():
            return value if not value or is_reference(value) else MARKER
        case bool() | None:
            return value
        case dict():
            return {key: _concealed(member) for key, member in value.items()}
        case list():
            return [_concealed(item) for item in value]
    return MARKER


def _without_credentials(value: Any) -> Any:
    match value:
        case dict():
            return {
                key: _concealed(member) if _is_credential(key) else _without_credentials(member)
                for key, member in value.items()
            }
        case list():
            return [_without_credentials(item) for item in value]
    return value


def _without_webhook_key(value: Any) -> Any:
    if isinstance(value, dict) and "key" in value:
        return {**value, "key": _concealed(value["key"])}
    return value


def _is_credential(key: str) -> bool:
    plain = re.sub(r"[-_\s]", "", key.lower())
    return plain in _CALLED or plain.endswith(_CALLED_LIKE)


def _meant(given: Any, seen: Any, true: Any) -> Any:
    if isinstance(given, dict) and isinstance(seen, dict) and isinstance(true, dict):
        return {
            key: _meant(member, seen[key], true[key]) if key in seen and key in true else member
            for key, member in given.items()
        }
    if isinstance(given, list) and isinstance(seen, list) and isinstance(true, list):
        # Items have no names: only a list whose length stayed tells which item is which.
        if len(given) == len(seen) == len(true):
            return [_meant(*items) for items in zip(given, seen, true, strict=True)]
        return given
    return true if isinstance(given, str) and given == seen else given


def _marked(value: Any) -> bool:
    match value:
        case str():
            return value == MARKER
        case dict():
            return any(_marked(member) for member in value.values())
        case list():
            return any(_marked(item) for item in value)
    return False
