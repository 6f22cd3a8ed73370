"""Forms that may hold files: ``multipart/form-data`` (RFC 7578), read from a body that is there whole. Pure.

Refuses bodies that do not hold together, and forms with too many fields. Called by ``deliveries`` for webhooks and by
``answers`` for the forms of pages.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

import msgspec

from ..engine import errors

TYPE = "multipart/form-data"
FIELDS_MAX = 1000
_UNKNOWN = "application/octet-stream"
_PARAMETER = re.compile(r';\s*([\w*-]+)\s*=\s*(?:"((?:[^"\\]|\\.)*)"|([^;\s]*))')
#: Browsers write these three into a quoted name so (HTML, "multipart/form-data encoding algorithm").
_ESCAPED = {"%22": '"', "%0D": "\r", "%0A": "\n", "%0d": "\r", "%0a": "\n"}
_ESCAPES = re.compile("|".join(_ESCAPED))


class Part(msgspec.Struct, frozen=True, kw_only=True):
    """A field, or a file of one: then it has a ``filename``, which may be empty."""

    name: str
    content: bytes
    filename: str | None = None
    content_type: str = _UNKNOWN

    @property
    def text(self) -> str:
        """What a field says."""
        return self.content.decode("utf-8", "replace")


def read(content_type: str, body: bytes) -> list[Part]:
    """Return the parts of a body, in order; ``content_type`` is the whole header. Raises ``InvalidRequest``."""
    boundary = _parameters(content_type).get("boundary", "")
    if not boundary:
        raise errors.InvalidRequest("the multipart body has no boundary", hint="name it in Content-Type")
    between = b"\r\n--" + re.escape(boundary.encode()) + rb"(?=--|[ \t]*\r\n)"
    _, *parts = re.split(between, b"\r\n" + body, maxsplit=FIELDS_MAX + 1)
    end = next((number for number, part in enumerate(parts) if part.startswith(b"--")), None)
    if end is None and len(parts) > FIELDS_MAX:
        raise errors.InvalidRequest(f"the form has more than {FIELDS_MAX:,} fields")
    if end is None:
        raise errors.InvalidRequest("the multipart body ends too early: its last boundary is missing")
    return [_part(part) for part in parts[:end]]


def _part(part: bytes) -> Part:
    head, separator, content = part.partition(b"\r\n\r\n")
    said = _headers(head)
    disposition = _parameters(said.get("content-disposition", ""))
    if not separator or "name" not in disposition:
        raise errors.InvalidRequest("a part of the multipart body does not say which field it is")
    return Part(
        name=disposition["name"],
        content=content,
        filename=disposition.get("filename"),
        content_type=said.get("content-type", _UNKNOWN),
    )


def _headers(head: bytes) -> dict[str, str]:
    lines = head.decode("utf-8", "replace").split("\r\n")
    named = (line.partition(":") for line in lines if ":" in line)
    return {name.strip().lower(): value.strip() for name, _, value in named}


def _parameters(header: str) -> Mapping[str, str]:
    return {
        name.lower(): _ESCAPES.sub(lambda found: _ESCAPED[found[0]], re.sub(r"\\(.)", r"\1", quoted)) or plain
        for name, quoted, plain in _PARAMETER.findall(header)
    }
