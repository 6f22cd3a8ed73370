"""Values as TDS 7.4 writes them, for the double of SQL Server: columns of rows, and parameters ([MS-TDS] 2.2.5.4-5)."""

from __future__ import annotations

import dataclasses
import datetime
import decimal
import re
import struct
import uuid
from collections.abc import Callable, Iterator, Sequence

#: Latin1_General_CI_AS.
COLLATION = bytes.fromhex("0904d00034")
_INTEGER, _BIT, _FLOAT, _DECIMAL, _TEXT, _BYTES = 0x26, 0x68, 0x6D, 0x6A, 0xE7, 0xA5
_WITHOUT_END = 0xFFFF
_NULL, _UNKNOWN = 2**64 - 1, 2**64 - 2
_NAMED = re.compile(r"(.*) \[(\w+)\]")


@dataclasses.dataclass(frozen=True)
class Column:
    """A column: its name, how its type is described, and how a value of it is written."""

    name: str
    info: bytes
    encoded: Callable[[object], bytes]


def columns(names: Sequence[str], row: Sequence[object] | None) -> list[Column]:
    """Return columns of these names for values like those of the first row."""
    made = []
    for name, value in zip(names, row or [None] * len(names), strict=True):
        named = _NAMED.fullmatch(name)
        kind = named[2] if named else type(value).__name__
        made.append(Column(named[1] if named else name, *_KINDS.get(kind, _KINDS["str"])))
    return made


def metadata(described: Sequence[Column]) -> bytes:
    """COLMETADATA (2.2.7.4)."""
    said = struct.pack("<BH", 0x81, len(described))
    for one in described:
        name = one.name.encode("utf-16le")
        said += struct.pack("<IH", 0, 1) + one.info + bytes([len(name) // 2]) + name
    return said


def parameters(content: bytes) -> Iterator[tuple[str, object]]:
    """Give name and value of each parameter of a call (2.2.6.6)."""
    at = 0
    while at < len(content):
        characters = content[at]
        name = content[at + 1 : at + 1 + 2 * characters].decode("utf-16le")
        value, at = _decoded(content, at + 2 + 2 * characters)
        yield name, value


def _decoded(content: bytes, at: int) -> tuple[object, int]:
    """Return the value whose type is described here, and where it ends."""
    kind = content[at]
    if kind in (_TEXT, _BYTES):
        (most,) = struct.unpack_from("<H", content, at + 1)
        at += 8 if kind == _TEXT else 3
        raw, at = _chunks(content, at) if most == _WITHOUT_END else _short(content, at)
        return raw if raw is None or kind == _BYTES else raw.decode("utf-16le"), at
    at += 2
    scale = 0
    if kind == _DECIMAL:
        scale, at = content[at + 1], at + 2
    length, at = content[at], at + 1
    raw, at = content[at : at + length], at + length
    if not raw:
        return None, at
    if kind == _FLOAT:
        return struct.unpack("<d" if length == 8 else "<f", raw)[0], at
    if kind == _DECIMAL:
        number = decimal.Decimal(int.from_bytes(raw[1:], "little")).scaleb(-scale)
        return str(number if raw[0] else -number), at
    assert kind in (_INTEGER, _BIT), f"parameters of the type {kind:#x} are not known here"
    return int.from_bytes(raw, "little", signed=kind == _INTEGER), at


def _short(content: bytes, at: int) -> tuple[bytes | None, int]:
    (length,) = struct.unpack_from("<H", content, at)
    return (None, at + 2) if length == 0xFFFF else (content[at + 2 : at + 2 + length], at + 2 + length)


def _chunks(content: bytes, at: int) -> tuple[bytes | None, int]:
    """A value in pieces (2.2.5.2.3)."""
    (whole,) = struct.unpack_from("<Q", content, at)
    at, found = at + 8, b""
    if whole == _NULL:
        return None, at
    while length := struct.unpack_from("<I", content, at)[0]:
        found, at = found + content[at + 4 : at + 4 + length], at + 4 + length
    return found, at + 4


def _in_pieces(content: bytes) -> bytes:
    piece = struct.pack("<I", len(content)) + content if content else b""
    return struct.pack("<Q", _UNKNOWN) + piece + struct.pack("<I", 0)


def _large(raw: Callable[[object], bytes]) -> Callable[[object], bytes]:
    return lambda value: struct.pack("<Q", _NULL) if value is None else _in_pieces(raw(value))


def _small(raw: Callable[[object], bytes]) -> Callable[[object], bytes]:
    def encoded(value: object) -> bytes:
        content = b"" if value is None else raw(value)
        return bytes([len(content)]) + content

    return encoded


def _date(value: datetime.date) -> bytes:
    return (value.toordinal() - 1).to_bytes(3, "little")


def _time(value: datetime.time) -> bytes:
    seconds = (value.hour * 60 + value.minute) * 60 + value.second
    return (seconds * 10**7 + value.microsecond * 10).to_bytes(5, "little")


def _moment(value: object) -> bytes:
    moment = datetime.datetime.fromisoformat(str(value))
    return _time(moment.time()) + _date(moment)


def _moment_with_zone(value: object) -> bytes:
    moment = datetime.datetime.fromisoformat(str(value))
    offset = moment.utcoffset() or datetime.timedelta()
    return _moment(moment.astimezone(datetime.UTC).replace(tzinfo=None)) + struct.pack("<h", offset.seconds // 60)


def _number(value: object) -> bytes:
    """A decimal with two digits behind the point."""
    hundredths = int(decimal.Decimal(str(value)) * 100)
    return bytes([hundredths >= 0]) + abs(hundredths).to_bytes(16, "little")


_KINDS: dict[str, tuple[bytes, Callable[[object], bytes]]] = {
    "int": (bytes([_INTEGER, 8]), _small(lambda value: struct.pack("<q", int(str(value))))),
    "float": (bytes([_FLOAT, 8]), _small(lambda value: struct.pack("<d", float(str(value))))),
    "str": (bytes([_TEXT, 0xFF, 0xFF]) + COLLATION, _large(lambda value: str(value).encode("utf-16le"))),
    "bytes": (bytes([_BYTES, 0xFF, 0xFF]), _large(lambda value: bytes(value))),  # type: ignore[call-overload]
    "bit": (bytes([_BIT, 1]), _small(lambda value: bytes([bool(value)]))),
    "decimal": (bytes([_DECIMAL, 17, 38, 2]), _small(_number)),
    "uniqueidentifier": (bytes([0x24, 16]), _small(lambda value: uuid.UUID(str(value)).bytes_le)),
    "date": (bytes([0x28]), _small(lambda value: _date(datetime.date.fromisoformat(str(value))))),
    "time": (bytes([0x29, 7]), _small(lambda value: _time(datetime.time.fromisoformat(str(value))))),
    "datetime2": (bytes([0x2A, 7]), _small(_moment)),
    "datetimeoffset": (bytes([0x2B, 7]), _small(_moment_with_zone)),
}
