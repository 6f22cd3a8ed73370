"""SQLMSSQL: statements for Microsoft SQL Server, through pytds in a thread.

Placeholders are ``%s``. Cancelled, the connection is cut, which the server answers by rolling back. It was never tried
with the real product, of which there is no package: what is tested is what happens around it.
"""

from __future__ import annotations

import contextlib
import functools
import socket
import ssl
from typing import Any

import msgspec

from ..engine import ports
from . import blocking, extras, host, rows, sql, tls
from . import definition as definitions
from .definition import invalid

TASK = "SQLMSSQL"
PORT = 1433
SCHEMES = ("mssql",)
#: The library tries to log in again on the same broken connection, and sleeps in between: for as long as this.
_NO_PAUSE_S = 0.001
#: Errors that pass: deadlocks, time-outs of locks, and a database that comes up or is moved.
_PASSING = frozenset({1205, 1222, 4060, 10928, 10929, 40197, 40501, 40613, 49918})


class SqlmssqlInputs(sql.SqlInputs):
    """The inputs of SQLMSSQL."""


def _check(inputs: SqlmssqlInputs) -> None:
    sql.check(TASK, inputs, SCHEMES)
    if inputs.client_cert is not None:
        raise invalid(TASK, "client_cert", "SQL Server knows no certificates of clients")
    if not sql.resolved(inputs, SCHEMES).verify_ssl:
        raise invalid(TASK, "verify_ssl", "the library always checks the certificate: give 'cacert'")


class _Patient:
    """A connection without time-outs of its own: the task cuts it instead."""

    def __init__(self, connected: socket.socket) -> None:
        self._connected = connected

    def __getattr__(self, name: str) -> Any:
        return getattr(self._connected, name)

    def settimeout(self, _: float | None) -> None:
        """Do nothing."""


class _Work:
    """One statement on one connection, in a thread."""

    def __init__(self, inputs: SqlmssqlInputs, context: ports.TaskContext, line: host.Line) -> None:
        self._inputs = inputs
        self._context = context
        self._line = line
        self._asked = sql.statement(inputs)
        self._port = inputs.port or PORT

    def run(self) -> sql.SqlOutput:
        library, broken = _library()
        try:
            with contextlib.ExitStack() as files, contextlib.closing(self._open(library, files)) as connection:
                self._line.entered = True
                return self._performed(connection)
        except library.Error as error:
            raise self._late() or _explained(error) from None
        except OSError as error:
            # That time is up is what the library says of every login that failed, and why stands behind it.
            if isinstance(error.__cause__, library.Error):
                raise self._late() or _explained(error.__cause__) from None
            raise self._late() or host.explained(_cause(error), self._inputs, self._port) from None
        except (*host.GARBAGE, broken) as error:
            words = f"what the server says is not understood: {host.quoted(str(error))}"
            raise self._late() or host.Failed(words) from None

    def _late(self) -> host.Failed | None:
        return host.explained(TimeoutError(), self._inputs, self._port) if self._line.too_late else None

    def _open(self, library: Any, files: contextlib.ExitStack) -> Any:
        inputs = self._inputs
        authorities = None
        if inputs.with_tls:
            authorities = ssl.get_default_verify_paths().cafile
            if inputs.cacert is not None:
                authorities = files.enter_context(tls.as_file(inputs.cacert))
        return library.connect(
            dsn=inputs.hostname,
            port=self._port,
            sock=_Patient(self._line.socket),
            user=inputs.username or "",
            password=inputs.password or "",
            database=inputs.database or "",
            login_timeout=_NO_PAUSE_S,
            appname=f"headrace {self._context.execution_id}",
            autocommit=False,
            cafile=authorities,
        )

    def _performed(self, connection: Any) -> sql.SqlOutput:
        asked, cursor = self._asked, connection.cursor()
        if asked.mode == "executemany":
            for args in asked.args:
                cursor.execute(asked.text, tuple(_adapted(args)))
            output = sql.SqlOutput(row_count=len(asked.args))
        else:
            cursor.execute(asked.text, tuple(_adapted(asked.args)))
            output = self._fetched(cursor) if asked.wants_rows else _counted(cursor)
        if self._inputs.read_only:  # the server has no other way to refuse changes for a while
            connection.rollback()
        else:
            connection.commit()
        return output

    def _fetched(self, cursor: Any) -> sql.SqlOutput:
        columns = [column[0] for column in cursor.description or ()]
        found = iter(cursor.fetchone, None) if columns else ()
        return rows.gathered(self._inputs, self._context, columns, found)


def _counted(cursor: Any) -> sql.SqlOutput:
    count = cursor.rowcount
    while cursor.nextset():
        count = cursor.rowcount
    return sql.SqlOutput(row_count=count if isinstance(count, int) and count >= 0 else None)


def _library() -> tuple[Any, type[Exception]]:
    """Return pytds, and what its library for TLS raises."""
    library = extras.require("pytds", extra="mssql", task=TASK)
    broken: type[Exception] = extras.require("OpenSSL.SSL", extra="mssql", task=TASK).Error
    return library, broken


def _adapted(args: Any) -> list[Any]:
    """Objects and lists go as JSON, which OPENJSON understands."""
    return [msgspec.json.encode(one).decode() if isinstance(one, dict | list) else one for one in args]


def _cause(error: OSError) -> OSError:
    return error.__cause__ if isinstance(error.__cause__, OSError) else error


def _explained(error: Any) -> host.Failed:
    code = getattr(error, "number", None) or getattr(error, "msg_no", 0) or 0
    said = host.quoted(str(error)) or type(error).__name__
    return host.Failed(f"{said} ({code})" if code else said, passing=code in _PASSING)


async def _attempt(inputs: SqlmssqlInputs, context: ports.TaskContext, settings: definitions.Settings) -> sql.SqlOutput:
    await blocking.call(_library)
    async with host.line(inputs, inputs.port or PORT, settings.egress) as line:
        return await line.used(_Work(inputs, context, line).run, inputs.connect_timeout)


async def _run(settings: definitions.Settings, given: SqlmssqlInputs, context: ports.TaskContext) -> sql.SqlOutput:
    inputs = sql.resolved(given, SCHEMES)
    attempt = functools.partial(_attempt, inputs, context, settings)
    return await sql.performed(attempt, inputs, PORT, context, settings)


def definition(settings: definitions.Settings) -> definitions.TaskDefinition[SqlmssqlInputs]:
    """Return the task type SQLMSSQL."""
    return definitions.TaskDefinition(
        name=TASK,
        summary="Execute statements in Microsoft SQL Server",
        description="One statement, its rows as JSON. Placeholders are %s.",
        inputs=SqlmssqlInputs,
        output=sql.SqlOutput,
        run=functools.partial(_run, settings),
        idempotent=lambda inputs: inputs.read_only,
        check=_check,
        aliases=("MSSQL",),
        secret_inputs=frozenset({"dsn"}),
        input_aliases=sql.ALIASES,
    )
