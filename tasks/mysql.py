"""MYSQL: statements for MySQL and MariaDB, through PyMySQL in a thread.

Placeholders are ``%s``. Rows come one at a time. Cancelled, the connection is cut, and a second one has the server kill
the first: a server notices by itself only when it has something to send. A password goes in clear text only through TLS
that was checked, whatever the server asks for; it cannot have files of this host either.
"""

from __future__ import annotations

import contextlib
import socket
import ssl
import threading
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from ..engine import values
from . import blocking, extras, host, rows, sql
from . import definition as definitions

if TYPE_CHECKING:
    import pymysql
    import pymysql.cursors

    from ..engine import ports

TASK = "MYSQL"
PORT = 3306
#: How long the second connection may take that ends the first.
_KILL_S = 5.0
_NO_SUCH_THREAD = 1094
#: What one message may have, such as a row, and all that is said of a result's columns: more is never kept.
_MESSAGE_BYTES_MAX = values.VALUE_BYTES_MAX
#: More no result of MySQL or MariaDB has.
_COLUMNS_MAX = 4096
#: Errors that pass: the server is full, stops or was stopped, or another transaction was in the way.
_PASSING = frozenset({1040, 1053, 1203, 1205, 1213, 1927, 2003, 2006, 2013})


class MysqlInputs(sql.SqlInputs):
    """The inputs of MYSQL."""


class _Refused:
    """What is asked for the password in clear text."""

    def __init__(self, connection: Any) -> None:
        pass

    def authenticate(self, _: Any) -> None:
        """Refuse."""
        raise host.Failed("the server wants the password in clear text: that takes use_tls=True")


class _Work(sql.Work[MysqlInputs]):
    """Through PyMySQL."""

    def run(self) -> sql.SqlOutput:
        library: Any = _library()
        with self._understood(library.Error, OSError):
            address = self._line.socket.getpeername()[:2]
            connection: Any = self._open(library, self._line.socket, None)
            self._line.entered = True
            try:
                return self._performed(library, connection)
            finally:
                if self._line.was_cut:
                    self._kill(library, connection, address)
                connection._force_close()  # it reads by a file of its own, which keeps the socket open

    def _open(self, library: Any, connected: socket.socket, read_timeout: float | None) -> pymysql.Connection[Any]:
        inputs = self._inputs
        trust: ssl.SSLContext | None = host.trust(inputs)
        checked = trust is not None and inputs.verify_ssl
        connection: pymysql.Connection[Any] = _bounded(library)(
            host=inputs.hostname,
            user=inputs.username or "",
            password=inputs.password or "",
            database=inputs.database,
            charset="utf8mb4",
            autocommit=True,
            cursorclass=library.cursors.SSCursor,
            client_flag=library.constants.CLIENT.MULTI_STATEMENTS if self._asked.mode == "script" else 0,
            program_name=f"headrace {self._context.execution_id}",
            init_command="SET SESSION TRANSACTION READ ONLY" if inputs.read_only else None,
            read_timeout=read_timeout,
            ssl=trust,
            ssl_disabled=inputs.use_tls is False,
            auth_plugin_map={} if checked else {"mysql_clear_password": _Refused, "dialog": _Refused},
            defer_connect=True,
        )
        connection.connect(connected)
        return connection

    def _kill(self, library: Any, connection: Any, address: tuple[str, int]) -> None:
        try:
            with socket.create_connection(address, _KILL_S) as second, _ended_after(second, _KILL_S):
                cursor: Any = self._open(library, second, _KILL_S).cursor()
                cursor.execute("KILL CONNECTION %s", [connection.thread_id()])
        except (library.Error, OSError, host.Failed, *host.GARBAGE) as error:
            if error.args[:1] != (_NO_SUCH_THREAD,):
                self._context.log("WARNING", f"the statement may go on at the server: {type(error).__name__}")

    def _performed(self, library: Any, connection: pymysql.Connection[Any]) -> sql.SqlOutput:
        cursor: Any = connection.cursor()
        try:
            return self._executed(connection, cursor)
        finally:
            self._leave(cursor)

    def _executed(self, connection: pymysql.Connection[Any], cursor: Any) -> sql.SqlOutput:
        asked = self._asked
        if asked.mode == "executemany":
            connection.begin()
            count = cursor.executemany(asked.text, [sql.filled(asked.text, one, dict) for one in asked.args])
            connection.commit()
            return sql.SqlOutput(row_count=count or 0)
        cursor.execute(asked.text, sql.filled(asked.text, asked.args, dict))
        if asked.wants_rows:
            return self._fetched(cursor)
        count = cursor.rowcount
        while cursor.nextset():
            count = cursor.rowcount
        cursor.close()
        return sql.SqlOutput(row_count=count if 0 <= count < 2**63 else None)

    def _fetched(self, cursor: pymysql.cursors.SSCursor) -> sql.SqlOutput:
        columns = [column[0] for column in cursor.description or ()]
        return rows.gathered(self._inputs, self._context, columns, _found(cursor) if columns else ())

    def _leave(self, cursor: Any) -> None:
        """See to it that rows nobody wants are not sent: the library would take them all, also when it is collected."""
        if cursor._result is not None and cursor._result.unbuffered_active:
            self._line.cut()
            cursor._result.unbuffered_active = False

    def _explained(self, error: pymysql.Error | OSError) -> host.Failed:
        cause = getattr(error, "original_exception", error)
        if isinstance(cause, OSError):
            return host.explained(cause, self._inputs, self._port)
        code = error.args[0] if error.args and isinstance(error.args[0], int) else 0
        said = host.quoted(str(error.args[-1]) if error.args else type(error).__name__)
        return host.Failed(f"{said} ({code})" if code else said, passing=code in _PASSING)


@contextlib.contextmanager
def _ended_after(connected: socket.socket, seconds: float) -> Iterator[None]:
    """Cut the connection when the block takes longer: a server may say one byte after the other for ever."""
    line = host.Line(connected)
    timer = threading.Timer(seconds, line.cut)
    timer.start()
    try:
        yield
    finally:
        timer.cancel()
        line.close()


def _bounded(library: Any) -> Any:
    """Return the library's connection, with a bound to what it keeps of what a server says."""

    class Connection(library.connections.Connection):  # type: ignore[misc]
        """The library collects a message whole, however long it becomes, and all columns, however many are said."""

        _bytes = _columns = 0

        def _read_packet(self, *kind: Any) -> Any:
            if kind:  # a column, one of those that were announced
                self._columns += 1
            else:
                self._columns, self._bytes = 0, 0
            if self._columns > _COLUMNS_MAX:
                raise host.Failed(f"the server sends more than {_COLUMNS_MAX:,} columns")
            return super()._read_packet(*kind)

        def _read_bytes(self, num_bytes: int) -> bytes:
            self._bytes += num_bytes
            if self._bytes > _MESSAGE_BYTES_MAX:
                raise host.Failed(f"the server says more than {_MESSAGE_BYTES_MAX >> 20} MiB at once")
            found: bytes = super()._read_bytes(num_bytes)
            return found

    return Connection


def _found(cursor: Any) -> Iterator[Sequence[Any]]:
    """Yield rows, each when the next was asked for: after a single one nothing is left that had to be cut off."""
    row = cursor.fetchone()
    while row is not None:
        following = cursor.fetchone()
        yield row
        row = following


def _library() -> Any:
    library: Any = extras.require("pymysql", extra="mysql", task=TASK)
    extras.require("pymysql.cursors", extra="mysql", task=TASK)
    return library


async def _attempt(inputs: MysqlInputs, context: ports.TaskContext, settings: definitions.Settings) -> sql.SqlOutput:
    await blocking.call(_library)
    port = inputs.port or PORT
    async with host.line(inputs, port, settings.egress) as line:
        return await line.used(_Work(inputs, context, line, port).run, inputs.connect_timeout)


definition = sql.Product(
    task=TASK,
    name="MySQL or MariaDB",
    placeholders="%s.",
    inputs=MysqlInputs,
    port=PORT,
    schemes=("mysql", "mariadb"),
    attempt=_attempt,
    aliases=("SQLMY",),
).definition
