"""A server that speaks Oracle's protocol: the one of seerdb, made without Oracle's sources, with SQLite behind it.

It shows what our side makes of the protocol, not what Oracle makes of our statements: they are SQLite's. A column that
is named ``"x [clob]"`` comes back as ``x`` of that type. ``raise_error(number, words)`` fails like the product,
``doze(seconds)`` takes its time, and answers no interruption meanwhile.
"""

from __future__ import annotations

import contextlib
import dataclasses
import datetime
import decimal
import pathlib
import re
import sqlite3
import ssl
import threading
import time
from collections.abc import Iterator, Sequence
from typing import Any

from seerdb.common import tns_consts
from seerdb.server import BackendError, Capability, ColumnMeta, Result
from seerdb.server import Server as Mirror

_NAMED = re.compile(r"(.*) \[(\w+)\]")
_FIRST_WORD = re.compile(r"\s*(\w+)")
#: Types by the names that columns are given, or that values have in Python: number, bytes at most.
_TYPES = {
    "int": (tns_consts.TNS_TYPE_NUMBER, 22), "decimal": (tns_consts.TNS_TYPE_NUMBER, 22),
    "float": (tns_consts.TNS_TYPE_BDOUBLE, 8), "bytes": (tns_consts.TNS_TYPE_RAW, 2000),
    "clob": (tns_consts.TNS_TYPE_CLOB, 4000), "date": (tns_consts.TNS_TYPE_DATE, 7),
    "timestamp": (tns_consts.TNS_TYPE_TIMESTAMP, 11), "str": (tns_consts.TNS_TYPE_VARCHAR, 4000),
}  # fmt: skip


@dataclasses.dataclass
class Server:
    """How it is set up, and what it saw."""

    database: pathlib.Path
    username: str = "app"
    password: str = ""
    tls: ssl.SSLContext | None = None  #: with it TLS is spoken from the start
    version: int = 24  #: which version of the protocol it has: Oracle 23ai's
    port: int = 0
    running: list[str] = dataclasses.field(default_factory=list)  #: statements that are being executed
    here: int = 0  #: how many clients are logged in or try to


@contextlib.contextmanager
def served(server: Server) -> Iterator[Server]:
    """Serve on loopback, a thread for each client, until the block ends."""
    with contextlib.closing(sqlite3.connect(server.database)) as database:
        database.execute("PRAGMA journal_mode = wal")
        database.execute("CREATE TABLE dual (dummy text)")
        database.execute("INSERT INTO dual VALUES ('X')")
        database.commit()
    mirror = Mirror(
        port=0, backend_factory=lambda: _Session(server), field_version=server.version, ssl_context=server.tls
    )
    server.port = mirror.port
    thread = threading.Thread(target=mirror.serve_forever, name="oracle server")
    thread.start()
    try:
        yield server
    finally:
        mirror.close()
        thread.join()


class _Session:
    """One client, as the server of seerdb knows it."""

    capabilities = frozenset({Capability.TRANSACTIONS})

    def __init__(self, server: Server) -> None:
        self._server = server
        self._raised: tuple[int, str] | None = None
        self._database = sqlite3.connect(server.database, isolation_level=None, timeout=20, check_same_thread=False)
        self._database.execute("PRAGMA synchronous = off")
        self._database.create_function("raise_error", 2, self._raise)
        self._database.create_function("doze", 1, time.sleep)
        self._database.create_function("running", 1, self._running)
        server.here += 1

    def authenticate(self, username: str) -> str | None:
        return self._server.password if username.lower() == self._server.username else None

    def execute(self, sql: str, binds: Sequence[Any] = ()) -> Result:
        """Execute a statement in the transaction that the first one begins."""
        if sql == "SET TRANSACTION READ ONLY":
            self._database.execute("PRAGMA query_only = on")
            return Result()
        self._server.running.append(sql)
        try:
            if not self._database.in_transaction:
                self._database.execute("BEGIN")
            values = {str(number): getattr(one, "value", one) for number, one in enumerate(binds, 1)}
            found = self._database.execute(
                sql, {name: str(one) if isinstance(one, decimal.Decimal) else one for name, one in values.items()}
            )
            result = Result(rowcount=max(found.rowcount, 0))
            if found.description is not None:
                rows = found.fetchall()
                columns, made = _described([name for name, *_ in found.description], rows)
                result = Result(columns=columns, rows=made)
            if _FIRST_WORD.match(sql)[1].upper() in ("CREATE", "DROP", "ALTER"):
                self.commit()  # as Oracle does after each that changes tables themselves
        except sqlite3.Error as error:
            raise self._explained(error) from None
        finally:
            self._server.running.remove(sql)
        return result

    def execute_many(self, sql: str, rows: Sequence[Sequence[Any]]) -> int:
        """Execute a statement for each row of values; what it changed before a failure is the transaction's."""
        return sum(self.execute(sql, row).rowcount for row in rows)

    def commit(self) -> None:
        if self._database.in_transaction:
            self._database.execute("COMMIT")
        self._database.execute("PRAGMA query_only = off")

    def rollback(self) -> None:
        if self._database.in_transaction:
            self._database.execute("ROLLBACK")
        self._database.execute("PRAGMA query_only = off")

    def close(self) -> None:
        self._database.close()
        self._server.here -= 1

    def _explained(self, error: sqlite3.Error) -> BackendError:
        said = str(error)
        if self._raised is not None:
            (number, words), self._raised = self._raised, None
            return BackendError(words, ora_code=number)
        if said.startswith("no such table"):
            return BackendError("table or view does not exist", ora_code=942)
        if isinstance(error, sqlite3.IntegrityError):
            return BackendError("unique constraint violated", ora_code=1)
        if "readonly" in said:
            return BackendError("may not perform insert/delete/update inside a READ ONLY transaction", ora_code=1456)
        return BackendError(said)

    def _raise(self, number: int, words: str) -> None:
        self._raised = number, words
        raise ValueError(words)

    def _running(self, pattern: str) -> int:
        return sum(pattern.strip("%") in text for text in self._server.running if "running(" not in text)


def _described(names: Sequence[str], rows: Sequence[tuple]) -> tuple[list[ColumnMeta], list[tuple]]:
    """Return columns of these names for values like those of the first row, and the rows as they say."""
    columns, kinds = [], []
    for name, value in zip(names, rows[0] if rows else [None] * len(names), strict=True):
        named = _NAMED.fullmatch(name)
        kind = named[2] if named else type(value).__name__
        number, size = _TYPES.get(kind, _TYPES["str"])
        columns.append(ColumnMeta((named[1] if named else name).encode(), number, size, size))
        kinds.append(kind)
    return columns, [tuple(_as(kind, one) for kind, one in zip(kinds, row, strict=True)) for row in rows]


def _as(kind: str, value: Any) -> Any:
    if value is None:
        return None
    if kind == "decimal":
        return decimal.Decimal(str(value))
    if kind in ("date", "timestamp"):
        return datetime.datetime.fromisoformat(str(value))
    return value if kind in ("int", "float", "bytes") else str(value)
