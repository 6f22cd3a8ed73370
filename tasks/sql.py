"""What all SQL types share: the inputs, which of them is the statement, and rows as JSON within bounds.

Exactly one of ``fetch``, ``fetchrow``, ``fetchval``, ``execute``, ``executemany`` and ``script`` holds the statement
and says what becomes of its rows. A row is written as JSON when it arrives, so that a result takes no more
memory than its text, and too many rows end the task instead of the daemon.
"""

from __future__ import annotations

import dataclasses
import urllib.parse
from collections.abc import Sequence
from typing import Annotated, Any, Protocol, TypeVar

import msgspec

from ..engine import ports, values
from . import host
from .definition import invalid, missing
from .host import about

STATEMENTS = ("fetch", "fetchrow", "fetchval", "execute", "executemany", "script")
ALIASES = host.ALIASES


Fetch = Annotated[str | None, about("A statement; the result is a list of its rows.")]
FetchRow = Annotated[str | None, about("A statement; the result is its first row, or null.")]
FetchVal = Annotated[str | None, about("A statement; the result is the first column of its first row.")]
Execute = Annotated[str | None, about("A statement whose rows, if there are any, are not wanted.")]
ExecuteMany = Annotated[str | None, about("A statement that is executed for each list in args, all of them or none.")]
Script = Annotated[str | None, about("Several statements, without args.")]
Args = Annotated[list[Any] | None, about("The values of the statement's placeholders, in their order.")]
ReadOnly = Annotated[
    bool, about("Let the database refuse every change; the task may then be repeated. Default: false.")
]
MaxRows = Annotated[
    int, msgspec.Meta(ge=1, le=1_000_000, description="More rows than that are a failure. Default: 10000.")
]
ROWS_MAX = 10_000


class SqlInputs(host.HostInputs):
    """The inputs of every SQL type that talks to a server."""

    hostname: Annotated[str, about("The host: a name or an address. Required unless there is a dsn.")] = ""
    dsn: Annotated[
        str | None, about("All of it as one address: scheme://username:password@hostname:port/database.")
    ] = None
    database: Annotated[str | None, about("The database to use.")] = None
    fetch: Fetch = None
    fetchrow: FetchRow = None
    fetchval: FetchVal = None
    execute: Execute = None
    executemany: ExecuteMany = None
    script: Script = None
    args: Args = None
    read_only: ReadOnly = False
    max_rows: MaxRows = ROWS_MAX


class HasStatement(Protocol):
    """Inputs with a statement in one of these."""

    @property
    def fetch(self) -> str | None: ...
    @property
    def args(self) -> list[Any] | None: ...


class SqlOutput(msgspec.Struct, kw_only=True):
    """The output of every SQL type."""

    result: Any = None  #: the rows, a row or a value, as was asked for
    row_count: int | None = None  #: how many rows were returned or changed, where the database tells


I = TypeVar("I", bound=SqlInputs)  # noqa: E741 - the inputs of one type


@dataclasses.dataclass(frozen=True, slots=True)
class Statement:
    """What is to be executed."""

    mode: str
    text: str
    args: Sequence[Any]

    @property
    def wants_rows(self) -> bool:
        """Whether its rows are the result."""
        return self.mode.startswith("fetch")


def statement(inputs: HasStatement) -> Statement:
    """Return the statement of inputs that were checked."""
    mode = next(name for name in STATEMENTS if getattr(inputs, name) is not None)
    return Statement(mode, getattr(inputs, mode), inputs.args or [])


def check_statement(task: str, inputs: HasStatement) -> None:
    """Raise ``InputRefused`` unless there is one statement with the arguments it takes."""
    given = [name for name in STATEMENTS if getattr(inputs, name) is not None]
    if not given:
        raise missing(task, "fetch", f"the statement, in one of {', '.join(STATEMENTS)}")
    if len(given) > 1:
        raise invalid(task, given[1], f"there is a statement already in '{given[0]}'; give one of them")
    if not getattr(inputs, given[0]).strip():
        raise invalid(task, given[0], "expected a statement, got an empty text")
    if given[0] == "executemany":
        if inputs.args is None:
            raise missing(task, "args", "a list of lists, one for each time")
        if not all(isinstance(one, list) for one in inputs.args):
            raise invalid(task, "args", "executemany takes a list of lists")
    elif given[0] == "script" and inputs.args is not None:
        raise invalid(task, "args", "a script takes none")


def check(task: str, inputs: SqlInputs, schemes: Sequence[str]) -> None:
    """Raise ``InputRefused`` for inputs that reach no database or do not make one statement."""
    check_statement(task, inputs)
    if inputs.dsn is None and not inputs.hostname:
        raise missing(task, "hostname", "the host of the database (or 'dsn')")
    if inputs.dsn is not None:
        for name in ("hostname", "port", "username", "password", "database"):
            if getattr(inputs, name):
                raise invalid(task, name, "'dsn' says it already; give one of them")
        if _parsed(inputs.dsn, schemes) is None:
            expected = f"{schemes[0]}://username:password@hostname:port/database"
            raise invalid(task, "dsn", f"expected {expected}, where only sslmode may follow; escape with %")
    host.check(task, resolved(inputs, schemes))


def resolved(inputs: I, schemes: Sequence[str]) -> I:
    """Return the inputs with what ``dsn`` says in their proper places."""
    if inputs.dsn is None:
        return inputs
    return msgspec.structs.replace(inputs, dsn=None, **(_parsed(inputs.dsn, schemes) or {}))


def _parsed(dsn: str, schemes: Sequence[str]) -> dict[str, Any] | None:
    """Return what the address says, or None if it is none or says what we do not know."""
    try:
        parts = urllib.parse.urlsplit(dsn.strip())
        port = parts.port
        query = urllib.parse.parse_qs(parts.query, strict_parsing=bool(parts.query))
    except ValueError:
        return None
    sslmode = query.pop("sslmode", ["absent"])[-1]
    if parts.scheme not in schemes or not parts.hostname or query or sslmode not in _TLS or parts.fragment:
        return None
    said: dict[str, Any] = {"hostname": parts.hostname, "port": port, **_TLS[sslmode]}
    for name, text in (("username", parts.username), ("password", parts.password), ("database", parts.path[1:])):
        said[name] = urllib.parse.unquote(text) if text else None
    return said


#: What PostgreSQL's word in an address means in ours.
_TLS: dict[str, dict[str, Any]] = {
    "absent": {},
    "disable": {"use_tls": False},
    "allow": {},
    "prefer": {},
    "require": {"use_tls": True, "verify_ssl": False},
    "verify-ca": {"use_tls": True},
    "verify-full": {"use_tls": True},
}


class Rows:
    """The rows of one statement, as JSON. Raises ``host.Failed`` when there are too many."""

    def __init__(self, asked: Statement, rows_max: int) -> None:
        self._mode = asked.mode
        self._rows_max = rows_max
        self._kept: list[msgspec.Raw] = []
        self._bytes = 0
        self.columns: Sequence[str] = ()

    def __len__(self) -> int:
        return len(self._kept)

    @property
    def complete(self) -> bool:
        """Whether no further row is wanted."""
        return bool(self._kept) and self._mode in ("fetchrow", "fetchval")

    def warn(self, context: ports.TaskContext) -> None:
        """Tell of names that several columns have: a row keeps the last of each."""
        twice = sorted({name for name in self.columns if list(self.columns).count(name) > 1})
        if twice and self._mode != "fetchval":
            context.log("WARNING", f"several columns are called {', '.join(twice)}: name them with AS")

    def add(self, row: Sequence[Any]) -> None:
        """Take the next row."""
        if len(self._kept) >= self._rows_max:
            raise host.Failed(
                f"there are more than {self._rows_max:,} rows: ask for fewer of them, or give a larger max_rows"
            )
        value = row[0] if self._mode == "fetchval" else dict(zip(self.columns, row, strict=True))
        text = as_json(value)
        self._bytes += len(text) + 1
        if self._bytes > values.VALUE_BYTES_MAX:
            raise host.Failed(
                f"the first {len(self._kept):,} rows are {values.VALUE_BYTES_MAX >> 20} MiB as JSON already, which is "
                "the limit: ask for fewer rows or columns"
            )
        self._kept.append(msgspec.Raw(text))

    @property
    def result(self) -> Any:
        """What was asked for."""
        if self._mode == "fetch":
            return list(self._kept)
        return self._kept[0] if self._kept else None


def as_json(value: Any) -> bytes:
    """Return a database's value as JSON: times in ISO 8601, exact decimals and ids as text, bytes in base64."""
    return msgspec.json.encode(value, enc_hook=_otherwise)


def _otherwise(value: Any) -> Any:
    if isinstance(value, memoryview):
        return bytes(value)
    return int(value) if isinstance(value, int) else str(value)
