"""How programs write a text into other texts: a secret is looked for in each of these spellings."""

from __future__ import annotations

import base64
import html
import json
import re
import urllib.parse
from collections.abc import Iterator

import msgspec

#: Lines of a secret that are this long count alone; shorter ones (``}``, ``EOF``) stand in any file.
LINE_CHARACTERS_MIN = 8

_STANDARD, _URLSAFE = b"+/", b"-_"
#: What the usual functions leave as it is in an address: quote() twice, encodeURIComponent and encodeURI.
_SAFE_IN_URLS = ("", "/", "!'()*", "!#$&'()*+,/:;=?@")
#: Where ``openssl base64`` and ``base64`` break their lines.
_BASE64_WIDTHS = (64, 76)


def of(secret: str) -> Iterator[str]:
    """Yield the spellings of a secret and of its longer lines, some of them more than once."""
    for text in _texts(secret):
        yield from _spellings(text)


def json_plain(text: str) -> str:
    """Return ``text`` as it stands in a JSON text, with nothing escaped that needs not be."""
    return msgspec.json.encode(text).decode()[1:-1]


def _texts(secret: str) -> list[str]:
    """Return the secret and, if it has several, its longer lines: a log may hold them one by one."""
    lines = [line.strip() for line in secret.splitlines()]
    return [secret] if len(lines) < 2 else [secret, *(line for line in lines if len(line) >= LINE_CHARACTERS_MIN)]


def _spellings(text: str) -> Iterator[str]:
    """Yield the ways in which programs write ``text`` into other texts: JSON, addresses, base64, Python, HTML."""
    yield text
    yield html.escape(text)
    yield repr(text)[1:-1]
    yield repr(text.encode())[2:-1]
    plain = json_plain(text)
    ascii_ = [_json_ascii(character) for character in text]
    upper = [part.upper().replace("\\U", "\\u") if part.startswith("\\u") else part for part in ascii_]
    for escaped in (plain, "".join(ascii_), "".join(upper)):
        for form in (escaped, escaped.replace("/", "\\/"), _json_for_html(escaped)):
            yield form
            yield json_plain(form)  # JSON in JSON
    for safe in _SAFE_IN_URLS:
        quoted = urllib.parse.quote(text, safe=safe)
        for form in (quoted, re.sub("%..", lambda escape: escape[0].lower(), quoted)):
            yield form
            yield form.replace("%20", "+")
    yield from _base64(text.encode())


def _json_ascii(character: str) -> str:
    return json.dumps(character)[1:-1]


def _json_for_html(escaped: str) -> str:
    """Some writers (Go, Jinja) escape what HTML would take for markup as well."""
    for character in "<>&'":
        escaped = escaped.replace(character, f"\\u{ord(character):04x}")
    return escaped


def _base64(data: bytes) -> Iterator[str]:
    """Yield what of ``data`` is the same wherever it stands in something that is encoded as a whole.

    Three bytes become four characters, so there are three ways; the characters at the edges also depend on what
    stands there, and are left out."""
    for shift in range(3):
        bits = (shift + len(data)) * 8
        encoded = base64.b64encode(bytes(shift) + data)[-(-shift * 8 // 6) : bits // 6]
        yield encoded.decode()
        yield encoded.translate(bytes.maketrans(_STANDARD, _URLSAFE)).decode()
        for width in _BASE64_WIDTHS if not shift else ():
            lines = [encoded[at : at + width].decode() for at in range(0, len(encoded), width)]
            yield from (line for line in lines if len(line) >= LINE_CHARACTERS_MIN)
