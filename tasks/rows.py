"""The rows of a statement on their way to the flow: into its result as JSON, or into a file that flows keep.

A result is in memory as a whole, so it has bounds; a row is written as JSON when it arrives, and takes no more than its
text. A file (``dst``) takes rows in pieces, as CSV or JSON lines, and appears whole or not at all. Types whose library
blocks call ``gathered`` in their thread, the others ``streamed``.
"""

from __future__ import annotations

import asyncio
import contextlib
import csv
import io
from collections.abc import AsyncGenerator, Callable, Iterable, Iterator, Sequence
from typing import Any, Protocol

import msgspec

from ..engine import ports, values
from . import blocking, host, sql, stored_files

#: What a file may take.
FILE_BYTES_MAX = 8 * 1024**3
#: Rows are collected up to this size before they are written.
_PIECE_BYTES = 1024 * 1024
#: After so many rows others have their turn: a library does not wait for what has arrived already.
_ROWS_AT_A_TIME = 200


class _Taker(Protocol):
    """Where rows go. What blocks is ``open``, ``flush``, ``end`` and ``abort``."""

    columns: Sequence[str]

    @property
    def complete(self) -> bool:
        """Whether no further row is wanted."""

    @property
    def full(self) -> bool:
        """Whether it is time for ``flush``."""

    def open(self) -> None:
        """Begin. What was begun can be aborted even when nobody waited for the end of this call."""

    def add(self, row: Sequence[Any]) -> None:
        """Take the next row; raises ``host.Failed`` when there are too many."""

    def flush(self) -> None:
        """Write what was collected; raises ``TaskFailed`` and ``host.Failed``."""

    def end(self) -> sql.SqlOutput:
        """Return what is to be told of them; raises likewise. A file is visible then."""

    def abort(self) -> None:
        """Forget them, unless ``end`` came before."""


def gathered(
    inputs: sql.HasStatement, context: ports.TaskContext, columns: Sequence[str], found: Iterable[Sequence[Any]]
) -> sql.SqlOutput:
    """Take the rows that are wanted, in a thread; raises ``host.Failed`` and ``TaskFailed``."""
    rows = _taker(inputs, context)
    try:
        rows.open()
        rows.columns = columns
        for row in found:
            rows.add(row)
            if rows.full:
                rows.flush()
            if rows.complete:
                break
        return rows.end()
    finally:
        rows.abort()


async def streamed(
    inputs: sql.HasStatement,
    context: ports.TaskContext,
    columns: Callable[[], Sequence[str]],
    found: AsyncGenerator[Sequence[Any], None],
) -> sql.SqlOutput:
    """The same over the event loop. ``columns`` is asked when a row is there, or there is none."""
    rows = _taker(inputs, context)
    try:
        await blocking.call(rows.open)
        async with contextlib.aclosing(found):
            count = 0
            async for row in found:
                rows.columns = rows.columns or columns()
                rows.add(row)
                count += 1
                if rows.full:
                    await blocking.call(rows.flush)
                elif count % _ROWS_AT_A_TIME == 0:
                    await asyncio.sleep(0)
                if rows.complete:
                    break
            rows.columns = rows.columns or columns()
        return await blocking.call(rows.end)
    finally:
        await blocking.call(rows.abort)


def _taker(inputs: sql.HasStatement, context: ports.TaskContext) -> _Taker:
    asked = sql.statement(inputs)
    if inputs.dst is None:
        return _Result(asked.mode, inputs.max_rows or sql.ROWS_MAX, context)
    path = stored_files.path(inputs.dst)
    return (_Csv if path.endswith(".csv") else _JsonLines)(path, inputs.max_rows, context)


def _too_many(rows_max: int) -> host.Failed:
    return host.Failed(f"there are more than {rows_max:,} rows: ask for fewer of them, or give a larger max_rows")


class _Result:
    """Rows that become the task's result."""

    full = False

    def __init__(self, mode: str, rows_max: int, context: ports.TaskContext) -> None:
        self._mode, self._rows_max, self._context = mode, rows_max, context
        self._kept: list[msgspec.Raw] = []
        self._bytes = 0
        self.columns: Sequence[str] = ()

    @property
    def complete(self) -> bool:
        return bool(self._kept) and self._mode in ("fetchrow", "fetchval")

    def open(self) -> None:
        pass

    def add(self, row: Sequence[Any]) -> None:
        if len(self._kept) >= self._rows_max:
            raise _too_many(self._rows_max)
        value = row[0] if self._mode == "fetchval" else dict(zip(self.columns, row, strict=True))
        text = as_json(value)
        self._bytes += len(text) + 1
        if self._bytes > values.VALUE_BYTES_MAX:
            raise host.Failed(
                f"the first {len(self._kept):,} rows are {values.VALUE_BYTES_MAX >> 20} MiB as JSON already, which is "
                "the limit: ask for fewer rows or columns, or let them be written into a file (dst)"
            )
        self._kept.append(msgspec.Raw(text))

    def flush(self) -> None:
        pass

    def end(self) -> sql.SqlOutput:
        if self._mode != "fetchval":
            _warn_of_twins(self.columns, self._context)
        if self._mode == "fetch":
            return sql.SqlOutput(result=list(self._kept), row_count=len(self._kept))
        return sql.SqlOutput(result=self._kept[0] if self._kept else None, row_count=len(self._kept))

    def abort(self) -> None:
        pass


def _warn_of_twins(columns: Sequence[str], context: ports.TaskContext) -> None:
    """Tell of names that several columns have: an object keeps the last of each."""
    twice = sorted({name for name in columns if list(columns).count(name) > 1})
    if twice:
        context.log("WARNING", f"several columns are called {', '.join(twice)}: name them with AS")


class _File:
    """Rows that go into a file. A subclass says how they are written."""

    complete = False

    def __init__(self, path: str, rows_max: int | None, context: ports.TaskContext) -> None:
        self._path, self._rows_max, self._context = path, rows_max, context
        self._writer: ports.FileWriter | None = None
        self._rows = self._bytes = 0
        self.columns: Sequence[str] = ()

    def open(self) -> None:
        with self._told():
            self._writer = self._context.files.write(self._path)

    def add(self, row: Sequence[Any]) -> None:
        if self._rows_max is not None and self._rows >= self._rows_max:
            raise _too_many(self._rows_max)
        self._collect(row)
        self._rows += 1

    def flush(self) -> None:
        piece = self._collected()
        self._bytes += len(piece)
        if self._bytes > FILE_BYTES_MAX:
            raise host.Failed(f"the rows are larger than {FILE_BYTES_MAX >> 30} GiB")
        assert self._writer is not None, "open comes first"
        with self._told():
            self._writer.write(piece)

    def end(self) -> sql.SqlOutput:
        self.flush()
        assert self._writer is not None, "open comes first"
        with self._told():
            self._writer.commit()
        return sql.SqlOutput(row_count=self._rows, size=self._bytes)

    def abort(self) -> None:
        if self._writer is not None:
            self._writer.abort()

    @contextlib.contextmanager
    def _told(self) -> Iterator[None]:
        with stored_files.told(f"write the file '{self._path}'"):
            yield

    def _collect(self, row: Sequence[Any]) -> None:
        raise NotImplementedError

    def _collected(self) -> bytes:
        raise NotImplementedError


class _JsonLines(_File):
    """An object in each line."""

    def __init__(self, path: str, rows_max: int | None, context: ports.TaskContext) -> None:
        super().__init__(path, rows_max, context)
        self._lines = bytearray()

    @property
    def full(self) -> bool:
        return len(self._lines) >= _PIECE_BYTES

    def end(self) -> sql.SqlOutput:
        _warn_of_twins(self.columns, self._context)
        return super().end()

    def _collect(self, row: Sequence[Any]) -> None:
        self._lines += as_json(dict(zip(self.columns, row, strict=True)))
        self._lines += b"\n"

    def _collected(self) -> bytes:
        piece = bytes(self._lines)
        self._lines.clear()
        return piece


class _Csv(_File):
    """A line of names, then one for each row (RFC 4180, UTF-8); nothing stands for null."""

    def __init__(self, path: str, rows_max: int | None, context: ports.TaskContext) -> None:
        super().__init__(path, rows_max, context)
        self._text = io.StringIO()
        self._lines = csv.writer(self._text)
        self._headed = False

    @property
    def full(self) -> bool:
        return self._text.tell() >= _PIECE_BYTES

    def _collect(self, row: Sequence[Any]) -> None:
        self._head()
        self._lines.writerow([_as_text(one) for one in row])

    def _collected(self) -> bytes:
        self._head()
        piece = self._text.getvalue().encode("utf-8", "replace")
        self._text.seek(0)
        self._text.truncate()
        return piece

    def _head(self) -> None:
        if not self._headed and self.columns:
            self._lines.writerow(self.columns)
            self._headed = True


def _as_text(value: Any) -> Any:
    """Return a value as CSV shows it: as JSON does, without the quotation marks of a text."""
    if value is None or type(value) in (str, int):
        return value
    shown = msgspec.json.decode(text := as_json(value))
    return shown if isinstance(shown, str) else None if shown is None else text.decode()


def as_json(value: Any) -> bytes:
    """Return a database's value as JSON: times in ISO 8601, exact decimals and ids as text, bytes in base64."""
    return msgspec.json.encode(value, enc_hook=_otherwise)


def _otherwise(value: Any) -> Any:
    if isinstance(value, memoryview):
        return bytes(value)
    return int(value) if isinstance(value, int) else str(value)
