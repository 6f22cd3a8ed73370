"""SQLORACLE: statements for Oracle Database, through oracledb without Oracle's own libraries ("thin").

Placeholders are ``:1``, ``:2``, …. Cancelled, the task has the server break off the statement before it hangs up. The
listener may send us to another host, so the library connects behind a fence. It was never tried with the real product,
of which there is no package, but with a server that others made of its protocol.
"""

from __future__ import annotations

import asyncio
import decimal
import functools
import re
import ssl
from collections.abc import AsyncGenerator, Sequence
from typing import Any

from ..engine import ports, values
from . import blocking, extras, fence, host, rows, sql
from . import definition as definitions
from .definition import invalid

TASK = "SQLORACLE"
PORT = 1521
#: How long the server may take to break off a statement, and to say good-bye.
_LEAVE_S = 5.0
#: So much may come in: more than the largest file of rows takes.
_BYTES_MAX = 4 * rows.FILE_BYTES_MAX
#: Errors that pass: the server starts, stops, is full, or lost the connection; deadlocks. The library has words of its
#: own (DPY) for a service that is not there yet, and for a connection that is gone.
_PASSING = (
    *("ORA-00028", "ORA-00060", "ORA-01033", "ORA-01034", "ORA-01089", "ORA-03113", "ORA-03135", "ORA-08177"),
    *("DPY-4011", "DPY-6001"),
)
#: What the library says before it says why.
_UNCONNECTED = re.compile(r"^DPY-6005: [^(]*\(CONNECTION_ID=[^)]*\)\.\s*(?=\S)")


class SqloracleInputs(sql.SqlInputs):
    """The inputs of SQLORACLE."""


def _cannot(inputs: SqloracleInputs) -> None:
    if not inputs.database:
        raise definitions.missing(TASK, "database", "the name of the service")
    if inputs.script is not None:
        raise invalid(TASK, "script", "Oracle takes one statement at a time: put several between BEGIN and END;")


class _Session:
    """One attempt: a connection, and the statement on it. It runs behind the fence."""

    def __init__(self, library: Any, inputs: SqloracleInputs, context: ports.TaskContext) -> None:
        self._library = library
        self._inputs = inputs
        self._context = context
        self._asked = sql.statement(inputs)
        self._port = inputs.port or PORT

    async def run(self, candidates: Sequence[str], trust: ssl.SSLContext | None, _: fence.Loop) -> sql.SqlOutput:
        """Do what is asked of the first of these addresses that takes connections; raises ``host.Failed``."""
        with sql.understood(self._library.Error, explained=_explained):
            connection = await self._connected(candidates, trust)
            try:
                output = await self._performed(connection)
            except asyncio.CancelledError:
                raise  # the library has had the server break off the statement; the fence cuts the connection
            except BaseException:
                await self._leave(connection, undo=True)
                raise
            await self._leave(connection)
            return output

    async def _connected(self, candidates: Sequence[str], trust: ssl.SSLContext | None) -> Any:
        inputs, library = self._inputs, self._library

        async def connected(address: str) -> Any:
            try:
                return await library.connect_async(
                    user=inputs.username,
                    password=inputs.password,
                    host=address,
                    port=self._port,
                    service_name=inputs.database,
                    protocol="tcp" if trust is None else "tcps",
                    ssl_context=trust,
                    ssl_server_dn_match=False,  # our context checks the name that was asked for
                    tcp_connect_timeout=inputs.connect_timeout,
                    retry_count=0,
                    program="headrace",
                    terminal=self._context.execution_id,
                )
            except library.Error as error:
                if isinstance(error.__cause__, OSError):
                    raise error.__cause__ from None
                raise

        try:
            async with asyncio.timeout(inputs.connect_timeout):
                connection = await host.first(candidates, connected)
        except (OSError, TimeoutError) as error:
            raise host.explained(error, inputs, self._port) from None
        connection.outputtypehandler = self._fetched_as
        return connection

    def _fetched_as(self, cursor: Any, column: Any) -> Any:
        """Say how a column is fetched: numbers as they are, where the library would make floats of them."""
        if column.type_code is not self._library.DB_TYPE_NUMBER or (column.precision and not column.scale):
            return None
        convert = None if (column.scale or 0) > 0 else _whole
        return cursor.var(decimal.Decimal, arraysize=cursor.arraysize, outconverter=convert)

    async def _leave(self, connection: Any, *, undo: bool = False) -> None:
        """Say good-bye, for a while. A server takes that for a commit, unless it was told otherwise before."""

        async def said() -> None:
            if undo:
                await connection.rollback()
            await connection.close()

        leaving = asyncio.ensure_future(said())
        try:
            await asyncio.wait([leaving], timeout=_LEAVE_S)
        finally:
            while not leaving.done():  # cancelled once, the library would wait for the server once more
                leaving.cancel()
                await asyncio.sleep(0)
        if not leaving.cancelled():
            leaving.exception()  # what was asked is done, or failed with words of its own

    async def _performed(self, connection: Any) -> sql.SqlOutput:
        asked = self._asked
        with connection.cursor() as cursor:
            if self._inputs.read_only:
                await cursor.execute("SET TRANSACTION READ ONLY")
            if asked.mode == "executemany":
                await cursor.executemany(asked.text, [sql.adapted(one) for one in asked.args])
                output = sql.SqlOutput(row_count=cursor.rowcount)
            else:
                await cursor.execute(asked.text, sql.adapted(asked.args))
                output = await self._fetched(cursor) if asked.wants_rows else sql.SqlOutput(row_count=cursor.rowcount)
        await connection.commit()
        return output

    async def _fetched(self, cursor: Any) -> sql.SqlOutput:
        columns = [column[0] for column in cursor.description or ()]
        return await rows.streamed(self._inputs, self._context, lambda: columns, _rows(cursor))


def _whole(number: decimal.Decimal) -> int | decimal.Decimal:
    """Return a whole number as one: that it has no fraction, its column does not say."""
    return int(number) if number == number.to_integral_value() else number


async def _rows(cursor: Any) -> AsyncGenerator[Sequence[Any], None]:
    while cursor.description and (row := await cursor.fetchone()) is not None:
        yield [await _value(one) for one in row]


async def _value(value: Any) -> Any:
    """Return a value with what is large read: the server keeps that until it is asked for."""
    if not hasattr(value, "read"):
        return value
    if await value.size() > values.VALUE_BYTES_MAX:
        raise host.Failed(f"a value is larger than {values.VALUE_BYTES_MAX >> 20} MiB")
    return await value.read()


def _explained(error: Any) -> host.Failed:
    said = host.quoted(_UNCONNECTED.sub("", str(error)))
    passing = said.startswith(_PASSING) or "refused" in said or "timed out" in said
    return host.Failed(said, passing=passing)


async def _attempt(
    inputs: SqloracleInputs, context: ports.TaskContext, settings: definitions.Settings
) -> sql.SqlOutput:
    library: Any = await blocking.call(functools.partial(extras.require, "oracledb", extra="oracle", task=TASK))
    candidates = await host.addresses(inputs, inputs.port or PORT, settings.egress)
    trust = await asyncio.to_thread(host.trust, inputs)
    run = functools.partial(_Session(library, inputs, context).run, candidates, trust)
    return await fence.call(run, settings.egress, bytes_max=_BYTES_MAX, patience_s=_LEAVE_S)


definition = sql.Product(
    task=TASK,
    name="Oracle Database",
    placeholders=":1, :2, …",
    inputs=SqloracleInputs,
    port=PORT,
    schemes=("oracle",),
    attempt=_attempt,
    cannot=_cannot,
    aliases=("ORACLE",),
    input_aliases={"service_name": "database"},
).definition
