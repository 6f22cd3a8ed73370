"""Values of devices, for SNMP: between what JSON says and what pysnmp has, and identifiers as numbers. Pure."""

from __future__ import annotations

import base64
import re
from typing import Any

import msgspec

from .definition import invalid

_OID = re.compile(r"\.?[0-2](\.\d{1,10}){1,127}", re.ASCII)
_ARC_MAX = 2**32 - 1
#: The types of a value to set, by our names; each is a class of pysnmp.
TYPES = {
    "integer": "Integer32",
    "string": "OctetString",
    "oid": "ObjectIdentifier",
    "ipaddress": "IpAddress",
    "counter32": "Counter32",
    "counter64": "Counter64",
    "gauge32": "Gauge32",
    "timeticks": "TimeTicks",
    "opaque": "Opaque",
    "bits": "Bits",
}
_NAMES = {type_: name for name, type_ in TYPES.items()} | {
    "Integer": "integer",
    "Unsigned32": "gauge32",
    "ObjectIdentity": "oid",
    "NoSuchObject": "no such object",
    "NoSuchInstance": "no such instance",
    "EndOfMibView": "end",
    "Null": "null",
}
_RANGES = {
    "integer": (-(2**31), 2**31 - 1),
    "counter32": (0, 2**32 - 1),
    "gauge32": (0, 2**32 - 1),
    "timeticks": (0, 2**32 - 1),
    "counter64": (0, 2**64 - 1),
}
#: What stands for no value.
NOTHING = frozenset({"no such object", "no such instance", "end"})


class Entry(msgspec.Struct, kw_only=True):
    """One value of a device."""

    oid: str
    type: str
    value: Any


def check(task: str, oid: str, name: str) -> None:
    """Raise ``InputRefused`` for what is no identifier in numbers."""
    if not _OID.fullmatch(oid) or any(int(arc) > _ARC_MAX for arc in oid.split(".")):
        raise invalid(task, name, "expected object identifiers in numbers, such as 1.3.6.1.2.1.1.5.0")


def typed(task: str, given: Any) -> tuple[str, Any]:
    """Return type and value of something to set; raises ``InputRefused``."""
    if isinstance(given, dict) and given.keys() == {"type", "value"}:
        kind, value = given["type"], given["value"]
    else:
        kind, value = ("integer" if isinstance(given, int) else "string"), given
    if not isinstance(kind, str) or kind not in TYPES:
        raise invalid(task, "values", f"the type is one of {', '.join(TYPES)}")
    if kind in _RANGES:
        low, high = _RANGES[kind]
        if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
            raise invalid(task, "values", f"expected a whole number from {low} to {high} for {kind}")
    elif isinstance(value, dict) and value.keys() == {"base64"} and kind not in ("oid", "ipaddress"):
        try:
            value = base64.b64decode(value["base64"], validate=True)
        except (ValueError, TypeError):
            raise invalid(task, "values", 'there is a {"base64": …} that is not base64') from None
    elif not isinstance(value, str):
        raise invalid(task, "values", "expected a whole number, a text or {type, value}")
    elif kind == "oid":
        check(task, value.lstrip("."), "values")
        value = value.lstrip(".")
    elif kind == "ipaddress":
        if not re.fullmatch(r"\d{1,3}(\.\d{1,3}){3}", value) or any(int(one) > 255 for one in value.split(".")):
            raise invalid(task, "values", "expected an IPv4 address for ipaddress")
    else:
        value = value.encode()
    return kind, value


def arcs(oid: str) -> tuple[int, ...]:
    """Return the numbers of an identifier, which are compared as devices order them."""
    return tuple(int(arc) for arc in oid.split("."))


def entry(name: Any, value: Any) -> Entry:
    """Return a value as JSON can say it: numbers, texts, addresses in dots, other bytes in base64."""
    kind = _NAMES.get(type(value).__name__, type(value).__name__)
    said: Any
    if kind in NOTHING or kind == "null":
        said = None
    elif kind in _RANGES:
        said = int(value)
    elif kind in ("oid", "ipaddress"):
        said = value.prettyPrint()
    else:
        content = bytes(value)
        said = _text(content) if kind == "string" else None
        if said is None:
            said = {"base64": base64.b64encode(content).decode()}
    return Entry(oid=".".join(str(arc) for arc in tuple(name)), type=kind, value=said)


def _text(content: bytes) -> str | None:
    """Return the text that bytes are, or None if they are none: an address of a network card is not."""
    try:
        text = content.decode()
    except UnicodeDecodeError:
        return None
    return text if all(one.isprintable() or one in "\r\n\t" for one in text) else None
