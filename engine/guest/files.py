"""Files: stored ones, and those of the repository's files folder, read and written whole.

Content travels as base64, because it may be anything.
"""

from __future__ import annotations

import binascii
from typing import Any, Self

from . import exceptions, records

_CONTENT = ("content", "text")


class File(records.Record):
    """A file: ``name`` (its path), ``size`` in bytes, and its content.

    ``get('content')`` is its text, or base64 if it is not text in UTF-8; ``get('text')`` is its text.
    """

    __slots__ = ()

    _TYPE = "file"

    def save(self, **fields: Any) -> Self:
        """Write content, and other fields; makes the file if there is none.

        ``content`` is text or bytes; with ``convert_binary=False`` it is base64. ``text`` is text.

        Example:
            system.file('notes/today.txt').save(content='one line')
            this.log(system.file('notes/today.txt').get('content'))
        """
        given = self._pending | self._plain(fields)
        is_base64 = given.pop("convert_binary", True) is False
        contents = [given.pop(field) for field in _CONTENT if field in given]
        if self._select is None and "name" not in given:
            raise exceptions.InvalidInputError("a file needs a name: system.file('folder/name.txt', content=…)")
        if self._select is None:
            self._select, self._by = given.pop("name"), "name"
        if contents:
            self._write(_from_base64(contents[-1]) if is_base64 else _as_bytes(contents[-1]))
        self._pending.clear()
        if given or not contents:
            super().save(**given)
        return self

    def save_text_content(self, text: str) -> Self:
        """Write ``text``, in UTF-8.

        Example:
            system.file('greeting.txt').save_text_content('Grüß Gott')
        """
        if not isinstance(text, str):
            raise exceptions.InvalidInputError(f"save_text_content takes a text, not {type(text).__name__}")
        return self._write(_as_bytes(text))

    def get_text_content(self) -> str:
        """Return the content as text.

        Raises ``ResourceNotFoundError`` if there is no such file, ``InvalidInputError`` if it is not text in UTF-8.
        """
        return self._as_text(self.get_bytes_content())

    def save_bytes_content(self, content: bytes) -> Self:
        """Write ``content``, bytes as they are.

        Example:
            system.file('zeros.bin').save_bytes_content(bytes(16))
            this.log(system.file('zeros.bin').content_size_bytes())
        """
        if not isinstance(content, (bytes, bytearray, memoryview)):
            raise exceptions.InvalidInputError(f"save_bytes_content takes bytes, not {type(content).__name__}")
        return self._write(bytes(content))

    def get_bytes_content(self) -> bytes:
        """Return the content as bytes; raises ``ResourceNotFoundError`` if there is no such file."""
        return binascii.a2b_base64(self._read())

    def save_base64_content(self, content: str) -> Self:
        """Write what ``content``, base64, stands for; raises ``InvalidInputError`` if it is something else.

        Example:
            system.file('logo.png').save_base64_content('iVBORw0KGgo=')
        """
        return self._write(_from_base64(content))

    def get_base64_content(self) -> str:
        """Return the content as base64; raises ``ResourceNotFoundError`` if there is no such file."""
        return self._read()

    def content_size_bytes(self) -> int:
        """Return how many bytes the content has now; raises ``ResourceNotFoundError`` if there is no such file."""
        return int(self.load("size"))

    def _fetch(self, fields: list[str]) -> dict[str, Any]:
        values: dict[str, Any] = {}
        if any(field in _CONTENT for field in fields):
            content = self.get_bytes_content()
            if "text" in fields:
                values["text"] = self._as_text(content)
            if "content" in fields:
                values["content"] = _text_or_base64(content)
            self._keep(values)
        others = [field for field in fields if field not in _CONTENT]
        return values | super()._fetch(others) if others else values

    def _as_text(self, content: bytes) -> str:
        try:
            return content.decode()
        except UnicodeDecodeError as error:
            raise exceptions.InvalidInputError(
                f"file {self.name!r} is not text in UTF-8 ({error}): get_bytes_content() reads it"
            ) from None

    def _read(self) -> str:
        content: str = self._channel.call("file.read", self.name)["content"]
        return content

    def _write(self, content: bytes) -> Self:
        self._channel.call("file.write", self.name, content=to_base64(content))
        self._known.clear()
        self._lent.clear()
        return self


def to_base64(content: bytes) -> str:
    """Return bytes as base64, on one line."""
    return binascii.b2a_base64(content, newline=False).decode()


def _from_base64(text: Any) -> bytes:
    """Return the bytes that base64 stands for, with or without line breaks; raises ``InvalidInputError``."""
    try:
        compact = b"".join((text.encode("ascii") if isinstance(text, str) else bytes(text)).split())
        return binascii.a2b_base64(compact, strict_mode=True)
    except (ValueError, TypeError) as error:
        raise exceptions.InvalidInputError(f"the content is not base64: {error}") from None


def _as_bytes(content: Any) -> bytes:
    if isinstance(content, str):
        return content.encode("utf-8", "replace")
    if isinstance(content, (bytes, bytearray, memoryview)):
        return bytes(content)
    raise exceptions.InvalidInputError(f"the content of a file is text or bytes, not {type(content).__name__}")


def _text_or_base64(content: bytes) -> str:
    try:
        return content.decode()
    except UnicodeDecodeError:
        return to_base64(content)
