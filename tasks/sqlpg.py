"""SQLPG: statements for PostgreSQL, through psycopg.

Placeholders are ``$1``, ``$2``, …; the server decides what type each has, so that a text can be a date. Rows come one
at a time. Nothing is prepared and no option is sent at the start, so that a pooler in between does not mind.
Cancelled, the task asks the server to cancel the statement and waits for that for some seconds before it hangs up.
"""

from __future__ import annotations

import asyncio
import contextlib
import ssl
import traceback
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from typing import TYPE_CHECKING, Any

from . import blocking, extras, host, rows, sql, tls
from . import definition as definitions

if TYPE_CHECKING:
    import psycopg

    from ..engine import ports

TASK = "SQLPG"
PORT = 5432
#: How many notices of the server are written into the log.
_NOTICES_MAX = 100
#: Where no file can be: without a name libpq would look into the home directory.
_NO_FILE = "/dev/null/none"
#: Errors that pass: the server starts, stops or is full, or another transaction was in the way (by class or code).
_PASSING = ("08", "53", "57P01", "57P02", "57P03", "40001", "40P01", "55P03")
#: What libpq says of a connection that may come about later.
_PASSING_WORDS = ("refused", "timeout", "timed out", "starting up", "shutting down", "too many", "closed", "reset")


class SqlpgInputs(sql.SqlInputs):
    """The inputs of SQLPG."""


class _Session:
    """One attempt: a connection, and the statement on it."""

    def __init__(self, inputs: SqlpgInputs, context: ports.TaskContext, settings: definitions.Settings) -> None:
        self._inputs = inputs
        self._context = context
        self._settings = settings
        self._statement = sql.statement(inputs)
        self._notices = 0

    async def attempt(self) -> sql.SqlOutput:
        library: Any = await blocking.call(_library)
        with sql.understood(library.Error, explained=_explained):
            async with self._connected(library) as connection:
                return await self._performed(library, connection)

    @contextlib.asynccontextmanager
    async def _connected(self, library: Any) -> AsyncIterator[psycopg.AsyncConnection[Any]]:
        inputs = self._inputs
        port = inputs.port or PORT
        addresses = await host.addresses(inputs, port, self._settings.egress)
        with contextlib.ExitStack() as files:
            try:
                async with asyncio.timeout(inputs.connect_timeout * len(addresses)):
                    connection = await self._opened(library, addresses, self._tls(files))
            except TimeoutError as error:
                raise host.explained(error, inputs, port) from None
            except library.OperationalError as error:
                raise _unconnected(str(error)) from None
            try:
                connection.add_notice_handler(self._notice)
                if inputs.read_only:
                    await connection.set_read_only(True)
                yield connection
            finally:
                await connection.close()

    async def _opened(
        self, library: Any, addresses: Sequence[str], options: dict[str, Any]
    ) -> psycopg.AsyncConnection[Any]:
        inputs = self._inputs
        try:
            connection: psycopg.AsyncConnection[Any] = await library.AsyncConnection.connect(
                autocommit=not inputs.read_only,
                cursor_factory=library.AsyncRawCursor,
                prepare_threshold=None,
                host=",".join([inputs.hostname] * len(addresses)),
                hostaddr=",".join(addresses),
                port=str(inputs.port or PORT),
                dbname=inputs.database or inputs.username or "postgres",
                user=inputs.username or "postgres",
                password=inputs.password or "",
                connect_timeout=max(2, round(inputs.connect_timeout)),
                application_name=f"headrace {self._context.execution_id}",
                passfile="/dev/null",
                gssencmode="disable",
                client_encoding="UTF8",
                **options,
            )
        except asyncio.CancelledError as cancelled:
            # The library leaves a half-made connection open until the last frame that knows it is gone.
            traceback.clear_frames(cancelled.__traceback__)
            raise
        return connection

    def _tls(self, files: contextlib.ExitStack) -> dict[str, Any]:
        """Return libpq's options: certificates are files in memory, also for a second connection that cancels."""
        inputs = self._inputs
        if not inputs.with_tls:
            return {"sslmode": "prefer" if inputs.use_tls is None else "disable", "sslcertmode": "disable"}
        options: dict[str, Any] = {"sslmode": "require", "sslcertmode": "disable", "sslrootcert": _NO_FILE}
        if inputs.verify_ssl:
            options["sslmode"] = "verify-full"
            system = ssl.get_default_verify_paths().cafile or "system"
            options["sslrootcert"] = files.enter_context(tls.as_file(inputs.cacert)) if inputs.cacert else system
        if inputs.client_cert is not None:
            options["sslcertmode"] = "allow"
            options["sslcert"] = files.enter_context(tls.as_file(inputs.client_cert))
            options["sslkey"] = files.enter_context(tls.as_file(inputs.client_key or inputs.client_cert))
        return options

    def _notice(self, diagnostic: psycopg.errors.Diagnostic) -> None:
        self._notices += 1
        if self._notices <= _NOTICES_MAX:
            self._context.log("INFO", f"{diagnostic.severity}: {host.quoted(diagnostic.message_primary or '')}")

    async def _performed(self, library: Any, connection: psycopg.AsyncConnection[Any]) -> sql.SqlOutput:
        asked = self._statement
        async with connection.cursor() as cursor:
            if asked.wants_rows:
                found = self._rows(library, cursor)
                return await rows.streamed(self._inputs, self._context, lambda: _columns(cursor), found)
            if asked.mode == "executemany":
                async with connection.transaction():
                    await cursor.executemany(asked.text.encode(), [self._adapted(library, one) for one in asked.args])
            elif asked.args:
                await cursor.execute(asked.text.encode(), self._adapted(library, asked.args))
            else:
                await cursor.execute(asked.text.encode())
            return sql.SqlOutput(
                result=None if asked.mode == "executemany" else cursor.statusmessage,
                row_count=cursor.rowcount if cursor.rowcount >= 0 else None,
            )

    async def _rows(self, library: Any, cursor: psycopg.AsyncCursor[Any]) -> AsyncGenerator[Sequence[Any], None]:
        """Execute a statement and give its rows one at a time; those nobody wants are not fetched."""
        asked = self._statement
        stream: Any = cursor.stream(asked.text.encode(), self._adapted(library, asked.args))
        async with contextlib.aclosing(stream):
            try:
                async for row in stream:
                    yield row
            except library.ProgrammingError as error:
                if error.sqlstate is not None or "produce a result" not in str(error):
                    raise
                # It was executed and has no rows, such as an INSERT without RETURNING.

    def _adapted(self, library: Any, args: Any) -> list[Any]:
        """Objects go as JSON; everything else is a text, a number, a list of such, or nothing."""
        return [library.types.json.Jsonb(one) if isinstance(one, dict) else one for one in args]


def _columns(cursor: psycopg.AsyncCursor[Any]) -> list[str]:
    return [column.name for column in cursor.description or ()]


def _library() -> Any:
    library = extras.require("psycopg", extra="postgres", task=TASK)
    extras.require("psycopg.types.json", extra="postgres", task=TASK)
    return library


def _unconnected(said: str) -> host.Failed:
    """Libpq says a line for every address it tried; the last is of the last."""
    line = next((one for one in reversed(said.splitlines()) if "failed" in one or "error" in one), said)
    words = host.quoted(line.strip().removeprefix("connection failed: ").removeprefix("- "))
    return host.Failed(words, passing=any(word in said for word in _PASSING_WORDS) and "certificate" not in said)


def _explained(error: psycopg.Error) -> host.Failed:
    code, about = error.sqlstate, error.diag
    if code is None:
        return host.Failed(host.quoted(str(error)), passing="connection" in str(error))
    words = f"{about.message_primary} ({code})"
    for more in (about.message_detail, about.message_hint):
        words += f"; {more}" if more else ""
    return host.Failed(host.quoted(words), passing=code.startswith(_PASSING))


async def _attempt(inputs: SqlpgInputs, context: ports.TaskContext, settings: definitions.Settings) -> sql.SqlOutput:
    return await _Session(inputs, context, settings).attempt()


definition = sql.Product(
    task=TASK,
    name="PostgreSQL",
    placeholders="$1, $2, …",
    inputs=SqlpgInputs,
    port=PORT,
    schemes=("postgresql", "postgres"),
    attempt=_attempt,
    aliases=("POSTGRES", "SQLPS"),
).definition
