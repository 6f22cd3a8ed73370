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

import msgspec

from ..engine import ports, values
from . import blocking, extras, host, rows, sql
from . import definition as definitions
from .definition import invalid

TASK = "SQLORACLE"
PORT = 1521
SCHEMES = ("oracle",)
#: How long the server may take to break off a statement, and to say good-bye.
_LEAVE_S = 5.0
#: Errors that pass: the server starts, stops, is full, or lost the connection; deadlocks.
_PASSING = ("ORA-00060", "ORA-01033", "ORA-01034", "ORA-01089", "ORA-03113", "ORA-12514", "ORA-12516", "DPY-4011")


class SqloracleInputs(sql.SqlInputs):
    """The inputs of SQLORACLE."""


def _check(inputs: SqloracleInputs) -> None:
    sql.check(TASK, inputs, SCHEMES)
    if not sql.resolved(inputs, SCHEMES).database:
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
        try:
            async with self._connected(library) as connection:
                return await self._performed(connection)
        except library.Error as error:
            raise _explained(error) from None
        except host.GARBAGE as error:
            raise host.Failed(f"what the server says is not understood: {host.quoted(str(error))}") from None

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
                await cursor.executemany(asked.text, [_adapted(one) for one in asked.args])
                output = sql.SqlOutput(row_count=cursor.rowcount)
            else:
                await cursor.execute(asked.text, _adapted(asked.args))
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


def _adapted(args: Any) -> list[Any]:
    """Objects and lists go as JSON text."""
    return [msgspec.json.encode(one).decode() if isinstance(one, dict | list) else one for one in args]


def _explained(error: Any) -> host.Failed:
    said = host.quoted(str(error))
    passing = said.startswith(_PASSING) or "refused" in said or "timed out" in said
    return host.Failed(said, passing=passing)


async def _run(settings: definitions.Settings, given: SqloracleInputs, context: ports.TaskContext) -> sql.SqlOutput:
    inputs = sql.resolved(given, SCHEMES)
    session = _Session(inputs, context, settings)
    return await sql.performed(session.attempt, inputs, PORT, context, settings)


def definition(settings: definitions.Settings) -> definitions.TaskDefinition[SqloracleInputs]:
    """Return the task type SQLORACLE."""
    return definitions.TaskDefinition(
        name=TASK,
        summary="Execute statements in Oracle Database",
        description="One statement, its rows as JSON. Placeholders are :1, :2, …",
        inputs=SqloracleInputs,
        output=sql.SqlOutput,
        run=functools.partial(_run, settings),
        idempotent=lambda inputs: inputs.read_only,
        check=_check,
        aliases=("ORACLE",),
        secret_inputs=frozenset({"dsn"}),
        input_aliases={**sql.ALIASES, "service_name": "database"},
    )
