"""What LDAP says on the wire (RFC 4511): elements of BER, requests, results, and filters in their text form (RFC 4515).

Nothing here touches the network. What cannot be understood raises ``ValueError``.
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import msgspec

SEQUENCE, SET, OCTETS, INTEGER, ENUMERATED, BOOLEAN = 0x30, 0x31, 0x04, 0x02, 0x0A, 0x01
ENTRY, DONE, REFERENCE = 0x64, 0x65, 0x73
SCOPES = {"base": 0, "one": 1, "sub": 2}
CHANGES = {"add": 0, "delete": 1, "replace": 2}
START_TLS = b"1.3.6.1.4.1.1466.20037"
WHO_AM_I = b"1.3.6.1.4.1.4203.1.11.3"
_PAGES = b"1.2.840.113556.1.4.319"
_DEPTH_MAX = 64

#: Names of results, as RFC 4511 gives them.
RESULTS = {
    1: "operationsError", 2: "protocolError", 3: "timeLimitExceeded", 4: "sizeLimitExceeded",
    7: "authMethodNotSupported", 8: "strongerAuthRequired", 10: "referral", 11: "adminLimitExceeded",
    12: "unavailableCriticalExtension", 13: "confidentialityRequired", 16: "noSuchAttribute",
    17: "undefinedAttributeType", 18: "inappropriateMatching", 19: "constraintViolation",
    20: "attributeOrValueExists", 21: "invalidAttributeSyntax", 32: "noSuchObject", 34: "invalidDNSyntax",
    48: "inappropriateAuthentication", 49: "invalidCredentials", 50: "insufficientAccessRights", 51: "busy",
    52: "unavailable", 53: "unwillingToPerform", 64: "namingViolation", 65: "objectClassViolation",
    66: "notAllowedOnNonLeaf", 67: "notAllowedOnRDN", 68: "entryAlreadyExists", 80: "other",
}  # fmt: skip


def element(tag: int, *content: bytes) -> bytes:
    """Return one element."""
    body = b"".join(content)
    if len(body) < 0x80:
        return bytes((tag, len(body))) + body
    length = len(body).to_bytes((len(body).bit_length() + 7) // 8, "big")
    return bytes((tag, 0x80 | len(length))) + length + body


def text(value: str, tag: int = OCTETS) -> bytes:
    """Return a text."""
    return element(tag, value.encode())


def number(value: int, tag: int = INTEGER) -> bytes:
    """Return a number that is not negative."""
    return element(tag, value.to_bytes(value.bit_length() // 8 + 1, "big"))


def truth(value: bool) -> bytes:
    """Return true or false."""
    return element(BOOLEAN, b"\xff" if value else b"\0")


def elements(content: bytes) -> Iterator[tuple[int, bytes]]:
    """Yield tag and content of the elements one after the other."""
    at = 0
    while at < len(content):
        if len(content) < at + 2:
            raise ValueError("an element is cut off")
        tag, length, at = content[at], content[at + 1], at + 2
        if length & 0x80:
            size = length & 0x7F
            if not 0 < size <= 4:
                raise ValueError("a length of another form")
            length, at = int.from_bytes(content[at : at + size], "big"), at + size
        if len(content) < at + length:
            raise ValueError("an element is cut off")
        yield tag, content[at : at + length]
        at += length


class Message(msgspec.Struct, frozen=True):
    """What the server says: to which request, what kind, its content, and the cookie of the next page."""

    number: int
    kind: int
    content: bytes
    cookie: bytes = b""


def message(content: bytes) -> Message:
    """Return what the content of a message says."""
    parts = list(elements(content))
    if len(parts) < 2 or parts[0][0] != INTEGER:
        raise ValueError("no message")
    cookie = b""
    for _, control in elements(parts[2][1]) if len(parts) > 2 and parts[2][0] == 0xA0 else ():
        inner = [one for _, one in elements(control)]
        if inner and inner[0] == _PAGES:
            cookie = list(elements(next(elements(inner[-1]))[1]))[1][1]
    return Message(int.from_bytes(parts[0][1], "big"), *parts[1], cookie)


class Result(msgspec.Struct, frozen=True):
    """How a request ended."""

    code: int
    diagnostic: str
    referrals: Sequence[str]
    value: bytes | None = None

    @property
    def words(self) -> str:
        """What it means."""
        name = RESULTS.get(self.code, "an unknown result")
        return f"{name} ({self.code})" + (f": {self.diagnostic}" if self.diagnostic else "")


def result(content: bytes) -> Result:
    """Return what the content of a response says."""
    parts = list(elements(content))
    if len(parts) < 3 or parts[0][0] != ENUMERATED:
        raise ValueError("no result")
    more = dict(parts[3:])
    referrals = [one.decode("utf-8", "replace") for _, one in elements(more.get(0xA3, b""))]
    return Result(int.from_bytes(parts[0][1], "big"), parts[2][1].decode("utf-8", "replace"), referrals, more.get(0x8B))


def entry(content: bytes) -> tuple[str, dict[str, list[Any]]]:
    """Return the name and the attributes of an entry that was found."""
    (_, name), (_, attributes) = elements(content)
    found: dict[str, list[Any]] = {}
    for _, attribute in elements(attributes):
        (_, kind), (_, values) = elements(attribute)
        found[kind.decode()] = [_value(one) for _, one in elements(values)]
    return name.decode("utf-8", "replace"), found


def _value(octets: bytes) -> Any:
    try:
        return octets.decode()
    except UnicodeDecodeError:
        return {"base64": base64.b64encode(octets).decode()}


def _octets(value: Any) -> bytes:
    """Return a value as it is stored: a text, a number, true or false, or bytes as ``{"base64": …}``."""
    match value:
        case str():
            return value.encode()
        case bool():
            return b"TRUE" if value else b"FALSE"
        case int():
            return str(value).encode()
        case {"base64": str(encoded)} if len(value) == 1:
            try:
                return base64.b64decode(encoded, validate=True)
            except binascii.Error:
                pass
    raise ValueError('expected texts, numbers, true or false, or {"base64": …}')


def bind(name: str, password: str) -> bytes:
    """Return the request to log in."""
    return element(0x60, number(3), text(name), text(password, 0x80))


def extended(name: bytes) -> bytes:
    """Return an extended request without a value."""
    return element(0x77, element(0x80, name))


def search(base: str, scope: str, matching: bytes, attributes: Sequence[str]) -> bytes:
    """Return the request to search."""
    wanted = element(SEQUENCE, *(text(one) for one in attributes))
    limits = number(0, ENUMERATED) + number(0) + number(0) + truth(False)
    return element(0x63, text(base), number(SCOPES[scope], ENUMERATED), limits, matching, wanted)


def page(size: int, cookie: bytes) -> bytes:
    """Return the control that asks for one page of what is found."""
    wanted = element(SEQUENCE, number(size), element(OCTETS, cookie))
    return element(0xA0, element(SEQUENCE, element(OCTETS, _PAGES), element(OCTETS, wanted)))


def add(name: str, attributes: Mapping[str, Any]) -> bytes:
    """Return the request to add an entry."""
    return element(0x68, text(name), element(SEQUENCE, *(_attribute(*one) for one in attributes.items())))


def modify(name: str, changes: Mapping[str, Mapping[str, Any]]) -> bytes:
    """Return the request to change an entry: what is done to which attribute, with which values."""
    if any(how not in CHANGES for change in changes.values() for how in change):
        raise ValueError("expected add, delete or replace with each attribute")
    done = [
        element(SEQUENCE, number(CHANGES[how], ENUMERATED), _attribute(attribute, values))
        for attribute, change in changes.items()
        for how, values in change.items()
    ]
    return element(0x66, text(name), element(SEQUENCE, *done))


def _attribute(name: str, values: Any) -> bytes:
    listed = values if isinstance(values, list) else [] if values is None else [values]
    return element(SEQUENCE, text(name), element(SET, *(element(OCTETS, _octets(one)) for one in listed)))


def delete(name: str) -> bytes:
    """Return the request to delete an entry."""
    return text(name, 0x4A)


def rename(name: str, new_rdn: str, new_parent: str | None) -> bytes:
    """Return the request to give an entry another name, and another parent."""
    parent = text(new_parent, 0x80) if new_parent is not None else b""
    return element(0x6C, text(name), text(new_rdn), truth(True), parent)


_ITEM = re.compile(r"(?P<name>[A-Za-z0-9.;_-]*)(?P<rest>(?::[A-Za-z0-9.-]+)*)(?P<how>:=|~=|>=|<=|=)(?P<value>[^()]*)")
_KINDS = {"=": 0xA3, ">=": 0xA5, "<=": 0xA6, "~=": 0xA8}


def parsed_filter(written: str) -> bytes:
    """Return a filter such as ``(&(objectClass=person)(cn=a*))``."""
    whole = written.strip()
    made, rest = _filter(whole if whole.startswith("(") else f"({whole})", 0)
    if rest:
        raise ValueError("there is more after its end")
    return made


def _filter(written: str, depth: int) -> tuple[bytes, str]:
    if depth > _DEPTH_MAX:
        raise ValueError("it is nested too deeply")
    if not written.startswith("("):
        raise ValueError("a parenthesis is missing")
    inside = written[1:].lstrip()
    if inside[:1] in ("&", "|", "!") and inside[:1]:
        tag, parts, inside = {"&": 0xA0, "|": 0xA1, "!": 0xA2}[inside[0]], [], inside[1:].lstrip()
        while inside.startswith("("):
            part, inside = _filter(inside, depth + 1)
            parts.append(part)
            inside = inside.lstrip()
        if tag == 0xA2 and len(parts) != 1:
            raise ValueError("'!' takes one filter")
        made = element(tag, *parts)
    else:
        match = _ITEM.match(inside)
        if match is None:
            raise ValueError("expected attribute=value in parentheses")
        made, inside = _item(match), inside[match.end() :]
    if not inside.startswith(")"):
        raise ValueError("a parenthesis is missing, or one in a value is not written \\28 or \\29")
    return made, inside[1:]


def _item(match: re.Match[str]) -> bytes:
    name, how, value = match["name"], match["how"], match["value"]
    if how == ":=":
        rules = [one for one in match["rest"].split(":") if one]
        by_name = [one for one in rules if one != "dn"]
        return element(
            0xA9,
            *(text(one, 0x81) for one in by_name[:1]),
            text(name, 0x82) if name else b"",
            element(0x83, _unescaped(value)),
            element(0x84, b"\xff") if "dn" in rules else b"",
        )
    if not name or match["rest"]:
        raise ValueError("expected attribute=value in parentheses")
    if how == "=" and value == "*":
        return text(name, 0x87)
    if how == "=" and "*" in value:
        first, *middle, last = [_unescaped(one) for one in value.split("*")]
        parts = [element(0x80, first)] if first else []
        parts += [element(0x81, one) for one in middle if one]
        parts += [element(0x82, last)] if last else []
        if not parts:
            return text(name, 0x87)
        return element(0xA4, text(name), element(SEQUENCE, *parts))
    return element(_KINDS[how], text(name), element(OCTETS, _unescaped(value)))


def _unescaped(value: str) -> bytes:
    if re.search(r"\\(?![0-9A-Fa-f]{2})", value):
        raise ValueError("a backslash is written \\5c")
    return re.sub(rb"\\([0-9A-Fa-f]{2})", lambda one: bytes.fromhex(one[1].decode()), value.encode())
