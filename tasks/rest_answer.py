"""What an HTTP answer says: its text in the right character set, its JSON, and how long to stay away.

Pure functions over bytes and header values; ``rest`` reads the answer and asks here what it means. Whatever a server
sends becomes a text that can be recorded: nothing here raises.
"""

from __future__ import annotations

import codecs
import email.message
import email.utils
import re
from typing import Any

import msgspec

#: Codecs that Python counts as text but that are no character sets of the web; some can be made to run very long.
_NOT_CHARSETS = frozenset({"idna", "punycode", "unicode_escape", "raw_unicode_escape", "unicode-escape", "undefined"})
_JSON_TYPE = re.compile(r"^(application|text)/([\w.+-]+\+)?(json|x-json|javascript-object)$")


def text(body: bytes, content_type: str) -> tuple[str, str, bool]:
    """Return the body as text, the character set used, and whether every byte had a meaning in it."""
    declared = _charset(content_type)
    candidates = [declared] if declared else ["utf-8-sig" if body.startswith(codecs.BOM_UTF8) else "utf-8"]
    if not declared and content_type.startswith("text/"):
        candidates.append("iso-8859-1")  # what servers that say nothing have always meant
    for name in candidates:
        try:
            return _recordable(body.decode(name)), name.removesuffix("-sig"), True
        except (UnicodeError, ValueError):
            continue
    return _recordable(body.decode(candidates[0], "replace")), candidates[0].removesuffix("-sig"), False


def _charset(content_type: str) -> str | None:
    header = email.message.Message()
    header["Content-Type"] = content_type
    declared = header.get_content_charset()
    if not declared:
        return None
    try:
        found = codecs.lookup(declared).name
        b" ".decode(found)
    except UnicodeError:
        pass  # one byte is no text in UTF-16
    except (LookupError, ValueError):
        return None  # unknown, or a codec from bytes to bytes
    return None if found in _NOT_CHARSETS else found


def _recordable(decoded: str) -> str:
    """Replace halves of surrogate pairs, which some decoders let through and JSON cannot hold."""
    try:
        decoded.encode()
    except UnicodeEncodeError:
        return decoded.encode("utf-8", "replace").decode()
    return decoded


def json(decoded: str, content_type: str) -> Any:
    """Return the parsed body if it is JSON, by its type or by its look; else None."""
    kind = content_type.partition(";")[0].strip().casefold()
    stripped = decoded.lstrip()
    if not _JSON_TYPE.match(kind) and not stripped.startswith(("{", "[")):
        return None
    try:
        return msgspec.json.decode(stripped)
    except (msgspec.MsgspecError, RecursionError, ValueError):
        return None


def retry_after_s(value: str | None, now: float) -> float | None:
    """Return the seconds a ``Retry-After`` header asks for, given as a number or as a date."""
    if not value:
        return None
    if value.strip().isascii() and value.strip().isdigit():
        return float(value)
    try:
        return max(0.0, email.utils.parsedate_to_datetime(value).timestamp() - now)
    except (ValueError, OverflowError):
        return None
