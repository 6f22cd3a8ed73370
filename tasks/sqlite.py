"""SQLITE: statements for a database that is one file, of those that flows keep.

The file is read whole, the statement works on it in memory, and what it changed is stored whole: a task that fails, is
cancelled or dies leaves the file as it was. Tasks that use the same file wait for each other. Statements reach nothing
else: no other file can be attached and no extension loaded. In developer mode a path of this host is used as it is.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import sqlite3
import weakref
from typing import Annotated

from ..engine import errors, ports
from . import blocking, host, rows, sql, stored_files
from . import definition as definitions
from .definition import invalid
from .host import about

TASK = "SQLITE"
#: What a database may take: it is in memory as a whole, twice while it is stored.
DATABASE_BYTES_MAX = 64 * 1024 * 1024
#: A cell may take as much as a whole result.
_LENGTH_MAX = 64 * 1024 * 1024
#: After so many steps of SQLite's machine it looks whether it should stop: some milliseconds.
_STEPS = 20_000
#: How long a database of the host that somebody else writes to is waited for.
_BUSY_S = 5.0
_MAGIC = b"SQLite format 3\0"


class SqliteInputs(definitions.Inputs):
    """The inputs of SQLITE."""

    database: Annotated[
        str,
        about(
            "headrace:<path> of the file; it is made by the first statement that changes something. Default: an empty "
            "database in memory. In developer mode also an absolute path of the daemon's host."
        ),
    ] = ":memory:"
    fetch: sql.Fetch = None
    fetchrow: sql.FetchRow = None
    fetchval: sql.FetchVal = None
    execute: sql.Execute = None
    executemany: sql.ExecuteMany = None
    script: sql.Script = None
    args: sql.Args = None
    read_only: sql.ReadOnly = False
    dst: sql.Dst = None
    max_rows: sql.MaxRows = None


class _Databases:
    """One user at a time for each stored database."""

    def __init__(self) -> None:
        self._locks: weakref.WeakValueDictionary[str, asyncio.Lock] = weakref.WeakValueDictionary()

    def lock(self, path: str) -> asyncio.Lock:
        return self._locks.setdefault(path, asyncio.Lock())


class _Work:
    """One statement on one database, in a thread; ``stop`` may be called from outside."""

    def __init__(self, inputs: SqliteInputs, context: ports.TaskContext) -> None:
        self._inputs = inputs
        self._context = context
        self._asked = sql.statement(inputs)
        self._stopped = False

    def stop(self) -> None:
        """End the statement under way, and let no other begin."""
        self._stopped = True

    def on_content(self, content: bytes) -> tuple[sql.SqlOutput, bytes]:
        """Execute it on the database that ``content`` is, and return its output and the content after it."""
        with contextlib.closing(sqlite3.connect(":memory:", isolation_level=None)) as connection:
            if content:
                try:
                    connection.deserialize(_unlogged(content))
                    connection.execute("SELECT count(*) FROM sqlite_schema")
                except sqlite3.Error:
                    raise host.Failed("the file is not a database of SQLite") from None
            pages = DATABASE_BYTES_MAX // connection.execute("PRAGMA page_size").fetchone()[0]
            connection.execute(f"PRAGMA max_page_count = {pages}")
            output = self._executed(connection)
            nothing = not connection.execute("PRAGMA page_count").fetchone()[0]  # it could not be serialized
            return output, content if nothing or self._inputs.read_only else connection.serialize()

    def on_host(self, path: str) -> sql.SqlOutput:
        """Execute it on a file of this host."""
        mode = "ro" if self._inputs.read_only else "rwc"
        address = "file:" + "".join(one if one.isalnum() or one in "/._-" else f"%{ord(one):02x}" for one in path)
        try:
            with contextlib.closing(
                sqlite3.connect(f"{address}?mode={mode}", uri=True, isolation_level=None, timeout=_BUSY_S)
            ) as connection:
                return self._executed(connection)
        except sqlite3.Error as error:
            raise _explained(error) from None

    def _executed(self, connection: sqlite3.Connection) -> sql.SqlOutput:
        connection.execute("PRAGMA trusted_schema = OFF")
        connection.execute(f"PRAGMA query_only = {'ON' if self._inputs.read_only else 'OFF'}")
        connection.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, _LENGTH_MAX)
        connection.set_authorizer(_authorized)
        connection.set_progress_handler(lambda: self._stopped, _STEPS)
        try:
            return self._performed(connection)
        except (sqlite3.Error, sqlite3.Warning, OverflowError) as error:
            raise _explained(error) from None
        finally:
            connection.set_progress_handler(None, 0)

    def _performed(self, connection: sqlite3.Connection) -> sql.SqlOutput:
        asked = self._asked
        if asked.mode == "script":
            connection.executescript(asked.text)
            return sql.SqlOutput()
        if asked.mode == "executemany":
            connection.execute("BEGIN")
            count = connection.executemany(asked.text, [sql.adapted(one) for one in asked.args]).rowcount
            connection.execute("COMMIT")
            return sql.SqlOutput(row_count=count)
        cursor = connection.execute(asked.text, sql.adapted(asked.args))
        if not asked.wants_rows:
            return sql.SqlOutput(row_count=cursor.rowcount if cursor.rowcount >= 0 else None)
        columns = [column[0] for column in cursor.description or ()]
        with contextlib.closing(cursor):  # what the statement changes it has changed before the first row
            return rows.gathered(self._inputs, self._context, columns, cursor)


def _unlogged(content: bytes) -> bytes:
    """A database that was used with a write-ahead log says so in its header; one in memory has none."""
    wal = content.startswith(_MAGIC) and content[18:20] == b"\2\2"
    return content[:18] + b"\1\1" + content[20:] if wal else content


def _authorized(action: int, first: str | None, second: str | None, *_: str | None) -> int:
    if action == sqlite3.SQLITE_ATTACH and first not in ("", ":memory:"):  # VACUUM works in a nameless one
        return sqlite3.SQLITE_DENY
    if action == sqlite3.SQLITE_PRAGMA and first in ("query_only", "max_page_count", "temp_store_directory") and second:
        return sqlite3.SQLITE_DENY
    return sqlite3.SQLITE_OK


def _explained(error: Exception) -> host.Failed:
    return host.Failed(host.quoted(str(error)), passing="locked" in str(error))


def _check(inputs: SqliteInputs) -> None:
    sql.check_statement(TASK, inputs)
    named = stored_files.is_named(inputs.database)
    if inputs.database != ":memory:" and not named and not inputs.database.startswith("/"):
        raise invalid(TASK, "database", "expected headrace:<path>")
    if named and not stored_files.path(inputs.database):
        raise invalid(TASK, "database", "expected headrace:<path>")


async def _stored(
    work: _Work, inputs: SqliteInputs, context: ports.TaskContext, databases: _Databases
) -> sql.SqlOutput:
    path = stored_files.path(inputs.database)
    async with databases.lock(path):
        try:
            content = await blocking.call(context.files.read, path)
        except errors.NotFound as absent:
            if inputs.read_only:
                raise host.Failed(absent.message) from None
            content = b""
        if len(content) > DATABASE_BYTES_MAX:
            raise host.Failed(f"the file is larger than {DATABASE_BYTES_MAX >> 20} MiB")
        output, after = await blocking.alone(work.on_content, content, on_cancel=work.stop)
        if after != content:
            async with stored_files.writing(context, inputs.database) as sink:
                await sink.write(after)
    return output


async def _attempt(inputs: SqliteInputs, context: ports.TaskContext, databases: _Databases) -> sql.SqlOutput:
    work = _Work(inputs, context)
    if stored_files.is_named(inputs.database):
        return await _stored(work, inputs, context, databases)
    if inputs.database == ":memory:":
        output, _ = await blocking.alone(work.on_content, b"", on_cancel=work.stop)
        return output
    if not context.allow_local_files:
        raise host.Failed("files of the host can be used in developer mode only: expected headrace:<path>")
    return await blocking.alone(work.on_host, inputs.database, on_cancel=work.stop)


async def _run(
    settings: definitions.Settings, databases: _Databases, inputs: SqliteInputs, context: ports.TaskContext
) -> sql.SqlOutput:
    attempt = functools.partial(_attempt, inputs, context, databases)
    shown = f"{sql.statement(inputs).mode} on {inputs.database}"
    return await host.performed(shown, attempt, inputs, context, settings, repeatable=inputs.read_only)


def definition(settings: definitions.Settings) -> definitions.TaskDefinition[SqliteInputs]:
    """Return the task type SQLITE."""
    return definitions.TaskDefinition(
        name=TASK,
        summary="Execute statements in a database that is a file",
        description="One statement on a file that flows keep, its rows as JSON. Placeholders are ?.",
        inputs=SqliteInputs,
        output=sql.SqlOutput,
        run=functools.partial(_run, settings, _Databases()),
        # What is stored is stored whole, but a second INSERT is a second row.
        idempotent=lambda inputs: inputs.read_only or inputs.database == ":memory:",
        check=_check,
    )
