"""The types of stored records as one table: their fields, what each may hold, what it is when nobody says. Pure.

Owns: names and fields of settings, files, connections, webhooks, schedules and vault configurations, with other
spellings of a field's name. Refuses: unknown fields, wrong types, fields that the daemon keeps itself (``KEPT``), names
nobody could type. A message never repeats a value, because it may be a secret. Called by whoever takes a record from a
flow or a person, before it becomes an event; what lies in the journal is not checked again.
"""

from __future__ import annotations

import re
import urllib.parse
from collections.abc import Callable, Collection, Mapping
from pathlib import PurePosixPath
from typing import Any, TypeVar

import msgspec

from .. import cron, errors, model, policy, values

NAME_CHARACTERS_MAX = 1024
#: A setting of this name publishes the webhook that the rest of its name says.
WEBHOOK_SETTING = "client.webhook."
#: Fields of every record that the daemon keeps: they are read, never written.
KEPT = frozenset({"id", "name", "created_at", "modified_at", "created_by", "modified_by"})

METHODS = ("GET", "POST", "PUT", "PATCH", "DELETE", "HEAD")
AUTH = model.WEBHOOK_AUTH
#: ``configuration:path.key``, also written ``vault.secret(configuration:path.key)``.
_IN_VAULT = re.compile(r"(vault\.secret\()?[^:()\s][^:()\n]*:[^()\n]+(?(1)\))")
#: ``configuration:path``: one secret whose keys the connection's value refers to as ``vault.secret(key)``.
_SECRET_IN_VAULT = re.compile(r"[^:()\s][^:()\n]*:[^:()\s][^:()\n]*")

V = TypeVar("V")
_EMPTY_TEXT, _OBJECT, _TRUE = msgspec.Raw(b'""'), msgspec.Raw(b"{}"), msgspec.Raw(b"true")


class _Wrong(Exception):
    """A value is not what its field holds; the words say which part of it, if not the whole."""


class Field(msgspec.Struct, frozen=True):
    """What a field holds. ``check`` returns a value in its one form; without one any JSON will do."""

    expected: str
    check: Callable[[Any], Any] | None = None
    default: msgspec.Raw = msgspec.field(default_factory=lambda: _EMPTY_TEXT)
    required: bool = False
    secret: bool = False  # a literal in it is not shown to people


class Kind(msgspec.Struct, frozen=True):
    """A type of record: its fields besides those every record has, and other names of them."""

    fields: Mapping[str, Field]
    aliases: Mapping[str, str] = msgspec.field(default_factory=dict)
    kept: frozenset[str] = frozenset()  # fields of its own that the daemon writes


def name_of(type: str, name: str) -> str:  # noqa: A002 - records have a type
    """Return ``name`` in its one spelling; raises ``InvalidRequest`` if no record can be called so."""
    if not name.strip() or len(name) > NAME_CHARACTERS_MAX or not name.isprintable():
        raise errors.InvalidRequest(
            f"{name[:100]!r} cannot be the name of a {type}",
            hint=f"a name has 1 to {NAME_CHARACTERS_MAX:,} printable characters",
        )
    if type != "file":
        return name
    parts = PurePosixPath(name).parts
    if not parts or ".." in parts or name.startswith("/"):
        raise errors.InvalidRequest(
            f"{name[:100]!r} cannot be the name of a file", hint="use a relative path without .."
        )
    return "/".join(parts)


def checked(type: str, name: str, fields: Mapping[str, msgspec.Raw]) -> dict[str, msgspec.Raw]:  # noqa: A002
    """Return the fields that were given, under their own names and in their one form; raises ``InvalidRequest``.

    ``null`` puts a field back to its default, except where ``null`` is a value."""
    kind = _kind(type)
    name_of(type, name)
    found: dict[str, msgspec.Raw] = {}
    for given, raw in fields.items():
        key = kind.aliases.get(given, given)
        if given in KEPT or given in kind.kept:
            raise errors.InvalidRequest(f"{type} {name!r}: {given!r} is kept by the daemon and cannot be written")
        if key not in kind.fields:
            raise errors.InvalidRequest(
                f"{type} {name!r} has no field {given!r}", hint=f"its fields are {', '.join(kind.fields)}"
            )
        if key in found:
            raise errors.InvalidRequest(f"{type} {name!r}: {given!r} gives {key!r} a second time")
        try:
            found[key] = _checked_field(kind.fields[key], raw)
        except _Wrong as wrong:
            raise errors.InvalidRequest(
                f"{type} {name!r}: {given!r} {wrong}; it must be {kind.fields[key].expected}",
                hint=f"the fields of a {type} are {', '.join(kind.fields)}",
            ) from None
    return found


def completed(type: str, name: str, fields: Mapping[str, model.Value]) -> dict[str, model.Value]:  # noqa: A002
    """Return all fields of a record, those not given with their defaults.

    Raises ``InvalidRequest`` if one that has none is missing, or the secret of a webhook that asks for one."""
    kind = _kind(type)
    missing = [key for key, field in kind.fields.items() if field.required and key not in fields]
    if missing:
        raise errors.InvalidRequest(
            f"{type} {name!r} needs {', '.join(missing)}",
            hint="; ".join(f"{key} is {kind.fields[key].expected}" for key in missing),
        )
    whole = with_defaults(type, fields)
    if type == "webhook" and whole["auth"] != msgspec.Raw(b'"none"') and whole["secret"] == _EMPTY_TEXT:
        raise errors.InvalidRequest(
            f"webhook {name!r} needs a secret, or nobody could call it",
            hint='give secret (a text, or a reference such as secret.env(NAME)), or auth "none"',
        )
    return whole


def with_defaults(type: str, fields: Mapping[str, V]) -> dict[str, V | msgspec.Raw]:  # noqa: A002
    """Return ``fields`` and the defaults of the others; of a type that is not known here, ``fields`` alone."""
    kind = KINDS.get(type)
    return {**{key: field.default for key, field in kind.fields.items()}, **fields} if kind else {**fields}


def _kind(type: str) -> Kind:  # noqa: A002
    kind = KINDS.get(type)
    if kind is None:
        raise errors.InvalidRequest(f"there are no records of type {type!r}", hint=f"there are {', '.join(KINDS)}")
    return kind


def _checked_field(field: Field, raw: msgspec.Raw) -> msgspec.Raw:
    if field.check is None:
        return raw
    value = values.decode(raw)
    if value is None:
        if field.required:
            raise _Wrong("is null")
        return field.default
    normal = field.check(value)
    return raw if normal is value else msgspec.Raw(values.encode(normal))


# -- what fields hold -----------------------------------------------------------------------------------------------


def _is(value: Any) -> str:
    """Return what ``value`` is, in words, without repeating it."""
    match value:
        case bool():
            return f"is {str(value).lower()}"
        case str():
            return "is a text" if value else "is an empty text"
        case int() | float():
            return "is a number"
        case list():
            return "is a list"
        case dict():
            return "is an object"
    return "is null"


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise _Wrong(_is(value))
    return value


def _full_text(value: Any) -> str:
    if not _text(value).strip():
        raise _Wrong("is an empty text")
    return str(value)


def _flag(value: Any) -> bool:
    if not isinstance(value, bool):
        raise _Wrong(_is(value))
    return value


def _object(value: Any) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise _Wrong(_is(value))
    return value


def _one_of(choices: Collection[str]) -> Callable[[Any], str]:
    def check(value: Any) -> str:
        if _text(value) not in choices:
            raise _Wrong("is another text")
        return str(value)

    return check


def _matching(pattern: re.Pattern[str]) -> Callable[[Any], str]:
    def check(value: Any) -> str:
        if not pattern.fullmatch(_full_text(value).strip()):
            raise _Wrong("is another text")
        return str(value)

    return check


def _cron(value: Any) -> str:
    try:
        return cron.Cron(_full_text(value)).text
    except cron.Invalid as invalid:
        raise _Wrong(str(invalid)) from None


def _zone(value: Any) -> str:
    try:
        cron.zone_called(_full_text(value))
    except cron.Invalid as invalid:
        raise _Wrong(str(invalid)) from None
    return str(value)


def _policy(read: Callable[[object], object]) -> Callable[[Any], Any]:
    def check(value: Any) -> Any:
        try:
            read(value)
        except policy.Invalid as invalid:
            raise _Wrong(f"says something about {invalid.key} that" if invalid.key else "is something else") from None
        return value

    return check


def _methods(value: Any) -> list[str]:
    if not isinstance(value, list) or not value:
        raise _Wrong("is an empty list" if value == [] else _is(value))
    methods = [_text(item).upper() for item in value]
    if not set(methods) <= set(METHODS):
        raise _Wrong("names another method")
    return methods


def _references(value: Any) -> Any:
    if isinstance(value, str) and _SECRET_IN_VAULT.fullmatch(value):
        return value
    for key, reference in _object(value).items():
        if not isinstance(reference, str) or not _IN_VAULT.fullmatch(reference):
            raise _Wrong(f"has no reference at {key!r}")
    return _object(value)


def _url(value: Any) -> str:
    try:
        parts = urllib.parse.urlsplit(_full_text(value))
        if parts.scheme in ("http", "https") and parts.hostname:
            return str(value)
    except ValueError:
        pass
    raise _Wrong("is no such address")


def _texts(expected: str, *, default: str = "", secret: bool = False) -> Field:
    return Field(expected, _text, msgspec.Raw(values.encode(default)), secret=secret)


_DESCRIPTION = _texts("a text for people")
_ENABLED = Field("true or false", _flag, _TRUE)
_FLOW = Field("the name of a flow", _full_text, required=True)
_SECRET = "a text, or a reference such as secret.env(NAME)"  # noqa: S105 - words, not a password

#: The table. What the daemon does with a field is told where it is done.
KINDS: Mapping[str, Kind] = {
    "setting": Kind({"value": Field("any JSON value", None, msgspec.Raw(b"null")), "description": _DESCRIPTION}),
    "file": Kind({"description": _DESCRIPTION}, kept=frozenset({"size"})),
    "connection": Kind(
        {
            "connection_type": _texts("the name of a task type"),
            "value": Field("an object with inputs of the task", _object, _OBJECT),
            "vault_secrets": Field(
                'an object: input → "configuration:path.key"; or a text "configuration:path"', _references, _OBJECT
            ),
            "description": _DESCRIPTION,
        },
        aliases={"connector_type": "connection_type"},
    ),
    "webhook": Kind(
        {
            "flow_name": _FLOW,
            "auth": Field(f"one of {', '.join(AUTH)}", _one_of(AUTH), msgspec.Raw(b'"key"')),
            "secret": _texts(_SECRET, secret=True),
            "methods": Field(f"a list of some of {', '.join(METHODS)}", _methods, msgspec.Raw(b'["POST"]')),
            "is_enabled": _ENABLED,
            "description": _DESCRIPTION,
        },
        aliases={"flow": "flow_name", "key": "secret"},
    ),
    "schedule": Kind(
        {
            "flow_name": _FLOW,
            "cron": Field('a cron expression such as "30 2 * * mon-fri"', _cron, required=True),
            "timezone": Field('a time zone such as "Europe/Vienna"', _zone, msgspec.Raw(b'"UTC"')),
            "input_value": Field("an object with inputs of the flow", _object, _OBJECT),
            "catchup": Field(
                f"one of {', '.join(policy.CATCHUP)}, or an object with policy, max, window",
                _policy(policy.Catchup.read),
                msgspec.Raw(b'"latest"'),
            ),
            "overlap": Field(f"one of {', '.join(policy.OVERLAP)}", _one_of(policy.OVERLAP), msgspec.Raw(b'"skip"')),
            "expect": Field("an object with start_within, finish_within", _policy(policy.expect), _OBJECT),
            "is_enabled": _ENABLED,
            "description": _DESCRIPTION,
        },
        aliases={"flow": "flow_name"},
    ),
    "vault_config": Kind(
        {
            "url": Field("an address such as https://vault.example:8200", _url, required=True),
            "token": _texts(_SECRET, secret=True),
            "role_id": _texts("a text"),
            "secret_id": _texts(_SECRET, secret=True),
            "engine_path": _texts("the path of a key-value engine", default="secret"),
            "namespace": _texts("a text"),
            "cacert": _texts("a certificate in PEM form"),
            "is_enabled": _ENABLED,
            "description": _DESCRIPTION,
        }
    ),
}
