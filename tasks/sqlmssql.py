"""SQLMSSQL: statements for Microsoft SQL Server, through pytds in a thread.

Placeholders are ``%s``. Cancelled, the connection is cut, which the server answers by rolling back. It was never tried
with the real product, of which there is no package: tests have a double that speaks its protocol.
"""

from __future__ import annotations

import contextlib
import functools
import ipaddress
import logging
import socket
import ssl
from collections.abc import Callable, Iterator
from typing import Any

import msgspec

from ..engine import errors, ports
from . import blocking, extras, host, rows, sql, tls
from . import definition as definitions
from .definition import invalid

TASK = "SQLMSSQL"
PORT = 1433
#: The library tries to log in again on the same broken connection, and sleeps in between: for as long as this.
_NO_SECOND_TRY_S = 0.0
#: So many hosts are asked, where each sends us to the next.
_HOSTS_MAX = 3
#: What the protocol has room for.
_NAME_CHARACTERS_MAX = 128
#: Errors that pass: deadlocks, time-outs of locks, and a database that comes up or is moved.
_PASSING = frozenset({1205, 1222, 4060, 10928, 10929, 40197, 40501, 40613, 49918})


class SqlmssqlInputs(sql.SqlInputs):
    """The inputs of SQLMSSQL."""


def _cannot(inputs: SqlmssqlInputs) -> None:
    if inputs.client_cert is not None:
        raise invalid(TASK, "client_cert", "SQL Server knows no certificates of clients")
    if not inputs.verify_ssl:
        raise invalid(TASK, "verify_ssl", "the library always checks the certificate: give 'cacert'")
    for name in ("hostname", "username", "password", "database"):
        if len((getattr(inputs, name) or "").encode("utf-16le")) > 2 * _NAME_CHARACTERS_MAX:
            raise invalid(TASK, name, f"SQL Server takes at most {_NAME_CHARACTERS_MAX} characters")


class _Patient:
    """A connection without time-outs of its own: the task cuts it instead."""

    def __init__(self, connected: socket.socket) -> None:
        self._connected = connected

    def __getattr__(self, name: str) -> Any:
        return getattr(self._connected, name)

    def settimeout(self, _: float | None) -> None:
        """Do nothing."""


class _Elsewhere(Exception):
    """The server sends us to another one, as Azure's do."""

    def __init__(self, hostname: str, port: int) -> None:
        super().__init__(hostname)
        self.hostname, self.port = hostname, port


class _Work(sql.Work[SqlmssqlInputs]):
    """Through pytds."""

    def run(self) -> sql.SqlOutput:
        library, broken = _library()
        with (
            self._understood(library.Error, OSError, broken),
            contextlib.ExitStack() as files,
            contextlib.closing(self._open(library, files)) as connection,
        ):
            self._line.entered = True
            return self._performed(connection)

    def _open(self, library: Any, files: contextlib.ExitStack) -> Any:
        inputs = self._inputs
        authorities = None
        if inputs.with_tls:
            authorities = ssl.get_default_verify_paths().cafile
            if inputs.cacert is not None:
                authorities = files.enter_context(tls.as_file(inputs.cacert))
        return library.connect(
            dsn=inputs.hostname.strip("[]"),
            port=self._port,
            sock=_Patient(self._line.socket),
            user=inputs.username or "",
            password=inputs.password or "",
            database=inputs.database or "",
            login_timeout=_NO_SECOND_TRY_S,
            appname=f"headrace {self._context.execution_id}",
            autocommit=False,
            cafile=authorities,
        )

    def _performed(self, connection: Any) -> sql.SqlOutput:
        asked, cursor = self._asked, connection.cursor()
        if asked.mode == "executemany":
            output = sql.SqlOutput(row_count=sum(_executed(cursor, asked.text, args) or 0 for args in asked.args))
        elif asked.wants_rows:
            cursor.execute(asked.text, sql.filled(asked.text, asked.args))
            output = self._fetched(cursor)
        else:
            output = sql.SqlOutput(row_count=_executed(cursor, asked.text, asked.args))
        if self._inputs.read_only:  # the server has no other way to refuse changes for a while
            connection.rollback()
        else:
            connection.commit()
        return output

    def _fetched(self, cursor: Any) -> sql.SqlOutput:
        while not cursor.description and cursor.nextset():
            pass  # an INSERT, say, before the SELECT of what it made
        columns = [column[0] for column in cursor.description or ()]
        found: Iterator[Any] = iter(cursor.fetchone, None) if columns else iter(())
        return rows.gathered(self._inputs, self._context, columns, found)

    def _explained(self, error: Any) -> host.Failed:
        library, broken = _library()
        if isinstance(error, broken):
            return self._insecure(error)
        if isinstance(error, OSError):
            # That time is up is what the library says of every login that failed, and why stands behind it.
            if isinstance(error.__cause__, library.Error):
                return self._explained(error.__cause__)
            cause = error.__cause__ if isinstance(error.__cause__, OSError) else error
            return host.explained(cause, self._inputs, self._port)
        code = getattr(error, "number", None) or getattr(error, "msg_no", 0) or 0
        said = host.quoted(str(error.args[0]) if error.args else "") or type(error).__name__
        passing = code in _PASSING or isinstance(error, library.ClosedConnectionError)
        return host.Failed(f"{said} ({code})" if code else said, passing=passing)

    def _insecure(self, error: Exception) -> host.Failed:
        """An error of OpenSSL has a list of library, function and reason."""
        where = f"{self._inputs.hostname}:{self._port}"
        reasons = [str(one[-1]) for one in error.args[0]] if error.args and isinstance(error.args[0], list) else []
        said = host.quoted(", ".join(reasons)) or type(error).__name__
        if "certificate verify failed" in reasons:
            return host.Failed(f"the certificate of {where} is not trusted")
        return host.Failed(f"the TLS connection to {where} failed: {said}")


def _executed(cursor: Any, text: str, args: Any) -> int | None:
    """Execute a statement, or several, to its end, and return the last number of rows that was told."""
    cursor.execute(text, sql.filled(text, args))
    count, more = cursor.rowcount, True
    while more:
        more = cursor.nextset()
        count = cursor.rowcount if cursor.rowcount >= 0 else count
    return count if count >= 0 else None


def _library() -> tuple[Any, type[Exception]]:
    """Return pytds, and what its library for TLS raises. It is silenced, and two of its functions are replaced."""
    library: Any = extras.require("pytds", extra="mssql", task=TASK)
    broken: type[Exception] = extras.require("OpenSSL.SSL", extra="mssql", task=TASK).Error
    logging.getLogger("pytds").setLevel(logging.CRITICAL)  # its lines quote statements
    if not isinstance(library._connect, functools.partial):
        library._connect = functools.partial(_connected, library._connect)
        library.tls.validate_host = functools.partial(
            _is_of, extras.require("cryptography.x509", extra="mssql", task=TASK)
        )
    return library, broken


def _connected(connect: Callable[..., Any], **given: Any) -> Any:
    """Connect over what is connected alone: to where a server sends us the library would connect by itself."""
    if given["sock"] is None:
        raise _Elsewhere(given["host"], given["port"])
    return connect(**given)


def _is_of(x509: Any, cert: Any, name: bytes) -> bool:
    """Whether a certificate that is trusted is of this host. The library's own look at it knows no addresses."""
    wanted = name.decode("ascii").lower()
    trusted = cert.to_cryptography()
    try:
        names = trusted.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:  # as of those that SQL Server makes for itself
        subject = trusted.subject.get_attributes_for_oid(x509.NameOID.COMMON_NAME)
        return wanted in [str(one.value).lower() for one in subject]
    with contextlib.suppress(ValueError):
        return ipaddress.ip_address(wanted) in names.get_values_for_type(x509.IPAddress)
    of_any = f"*.{wanted.partition('.')[2]}"
    return bool({wanted, of_any} & {one.lower() for one in names.get_values_for_type(x509.DNSName)})


async def _attempt(inputs: SqlmssqlInputs, context: ports.TaskContext, settings: definitions.Settings) -> sql.SqlOutput:
    await blocking.call(_library)
    for _ in range(_HOSTS_MAX):
        port = inputs.port or PORT
        try:
            async with host.line(inputs, port, settings.egress) as line:
                return await line.used(_Work(inputs, context, line, port).run, inputs.connect_timeout)
        except _Elsewhere as there:
            inputs = msgspec.structs.replace(inputs, hostname=there.hostname, port=there.port)
            _check_place(inputs)
    raise host.Failed(f"the server sends us on again and again, at last to {inputs.hostname}:{inputs.port}")


def _check_place(inputs: SqlmssqlInputs) -> None:
    try:
        host.check_hostname(TASK, inputs)
    except errors.InputRefused:
        raise host.Failed("the server sends us to a host whose name is none") from None


definition = sql.Product(
    task=TASK,
    name="Microsoft SQL Server",
    placeholders="%s.",
    inputs=SqlmssqlInputs,
    port=PORT,
    schemes=("mssql",),
    attempt=_attempt,
    cannot=_cannot,
    aliases=("MSSQL",),
).definition
