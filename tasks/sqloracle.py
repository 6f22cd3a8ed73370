"""SQLORACLE: statements for Oracle Database, through oracledb without Oracle's own libraries ("thin").

Placeholders are ``:1``, ``:2``, …. Cancelled, the task has the server break off the statement before it hangs up. It
was never tried with the real product, of which there is no package: what is tested is what happens around it.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from typing import Any

from ..engine import ports, values
from . import blocking, extras, host, rows, sql
from . import definition as definitions
from .definition import invalid

TASK = "SQLORACLE"
PORT = 1521
#: How long the server may take to break off a statement, and to say good-bye.
_LEAVE_S = 5.0
#: Errors that pass: the server starts, stops, is full, or lost the connection; deadlocks.
_PASSING = ("ORA-00060", "ORA-01033", "ORA-01034", "ORA-01089", "ORA-03113", "ORA-12514", "ORA-12516", "DPY-4011")


class SqloracleInputs(sql.SqlInputs):
    """The inputs of SQLORACLE."""


def _cannot(inputs: SqloracleInputs) -> None:
    if not inputs.database:
        raise definitions.missing(TASK, "database", "the name of the service")
    if inputs.script is not None:
        raise invalid(TASK, "script", "Oracle takes one statement at a time: put several between BEGIN and END;")


class _Session:
    """One attempt."""

    def __init__(self, inputs: SqloracleInputs, context: ports.TaskContext, settings: definitions.Settings) -> None:
        self._inputs = inputs
        self._context = context
        self._settings = settings
        self._asked = sql.statement(inputs)
        self._port = inputs.port or PORT

    async def attempt(self) -> sql.SqlOutput:
        library: Any = await blocking.call(functools.partial(extras.require, "oracledb", extra="oracle", task=TASK))
        with sql.understood(library.Error, explained=_explained):
            async with self._connected(library) as connection:
                return await self._performed(connection)

    @contextlib.asynccontextmanager
    async def _connected(self, library: Any) -> AsyncIterator[Any]:
        inputs = self._inputs
        candidates = await host.addresses(inputs, self._port, self._settings.egress)
        trust = await asyncio.to_thread(host.trust, inputs)

        async def connected(address: str) -> Any:
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

        try:
            async with asyncio.timeout(inputs.connect_timeout):
                connection = await host.first(candidates, connected)
        except (OSError, TimeoutError) as error:
            raise host.explained(error, inputs, self._port) from None
        except library.Error as error:
            if isinstance(error.__cause__, OSError):
                raise host.explained(error.__cause__, inputs, self._port) from None
            raise
        try:
            yield connection
        except asyncio.CancelledError:
            with contextlib.suppress(library.Error, OSError):
                connection.cancel()
            raise
        finally:
            with contextlib.suppress(library.Error, OSError, TimeoutError):
                async with asyncio.timeout(_LEAVE_S):
                    await connection.close()

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
    said = host.quoted(str(error))
    passing = said.startswith(_PASSING) or "refused" in said or "timed out" in said
    return host.Failed(said, passing=passing)


async def _attempt(
    inputs: SqloracleInputs, context: ports.TaskContext, settings: definitions.Settings
) -> sql.SqlOutput:
    return await _Session(inputs, context, settings).attempt()


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
