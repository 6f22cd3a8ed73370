"""JSON values of flows, as text: checked once at the border, then carried unopened.

A value is ``bytes`` holding one JSON text in UTF-8 without raw line breaks, so it can stand inside a line of the
journal.
"""

from __future__ import annotations

from typing import Any

import msgspec

from . import errors

#: A value up to this size stands in the journal's line; a larger one becomes a blob (lines stay <= 1 MiB).
INLINE_BYTES_MAX = 64 * 1024
#: Messages and tracebacks are for people; what is longer is cut in the middle.
TEXT_CHARACTERS_MAX = 16 * 1024
#: Nobody may hand over a value larger than this: inputs, outputs, results and log arguments alike.
VALUE_BYTES_MAX = 64 * 1024 * 1024

_decode_members = msgspec.json.Decoder(dict[str, msgspec.Raw])


def checked(text: bytes, what: str) -> bytes:
    """Return ``text`` as one line of valid JSON; raises ``InvalidRequest`` or ``TooLarge`` naming ``what``."""
    if len(text) > VALUE_BYTES_MAX:
        raise errors.TooLarge(
            f"{what} is {len(text):,} bytes, the limit is {VALUE_BYTES_MAX:,}",
            hint="put large data into a file and pass its name",
        )
    try:
        value = msgspec.json.decode(text)
        if b"\n" in text or b"\r" in text or not text.isascii():
            return msgspec.json.encode(value)
    except RecursionError:
        raise errors.InvalidRequest(f"{what} is nested too deeply") from None
    except (msgspec.MsgspecError, UnicodeError) as error:
        raise errors.InvalidRequest(f"{what} is not valid JSON: {error}") from None
    return text


def encode(value: Any, what: str = "the value") -> bytes:
    """Return the JSON text of ``value``; raises ``InvalidRequest`` for what JSON cannot hold."""
    try:
        return msgspec.json.encode(value)
    except (TypeError, ValueError, UnicodeError) as error:
        raise errors.InvalidRequest(f"{what} cannot be written as JSON: {error}") from None


def decode(text: bytes | msgspec.Raw) -> Any:
    """Return the Python value of a text made by this module."""
    return msgspec.json.decode(text)


def members(text: bytes | msgspec.Raw) -> dict[str, msgspec.Raw] | None:
    """Return the members of a JSON object with their values unopened, or None if it is something else."""
    return _decode_members.decode(text) if bytes(text).startswith(b"{") else None


def shortened(text: str, characters_max: int) -> str:
    """Return ``text``, cut in the middle with a note if it is longer than that."""
    if len(text) <= characters_max:
        return text
    half = characters_max // 2
    return f"{text[:half]}\n… {len(text) - 2 * half:,} characters left out …\n{text[-half:]}"
