"""What all SQL types share: the inputs, and which of them is the statement. What becomes of rows is in ``rows``.

Exactly one of ``fetch``, ``fetchrow``, ``fetchval``, ``execute``, ``executemany`` and ``script`` holds the statement
and says which of its rows are wanted. A type that talks to a server is a ``Product``: its own is how one attempt goes,
and what the errors of its library mean.
"""

from __future__ import annotations

import contextlib
import functools
import urllib.parse
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from typing import Annotated, Any, Generic, Protocol, TypeVar

import msgspec

from ..engine import ports
from . import definition as definitions
from . import host, stored_files
from .definition import invalid, missing
from .host import about

STATEMENTS = ("fetch", "fetchrow", "fetchval", "execute", "executemany", "script")
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
Dst = Annotated[
    str | None,
    about(
        "With fetch: headrace:<path> of a file to write the rows to, instead of returning them: .csv, or .jsonl "
        "(.ndjson) for an object in each line."
    ),
]
MaxRows = Annotated[
    Annotated[int, msgspec.Meta(ge=1, le=1_000_000_000)] | None,
    about("More rows than that are a failure. Default: 10000; as many as there are with dst."),
]
ROWS_MAX = 10_000
#: A result of more rows takes more memory than its text says.
_RESULT_ROWS_MAX = 1_000_000
#: How the name of a file of rows may end.
_ENDINGS = (".csv", ".jsonl", ".ndjson")


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
    dst: Dst = None
    max_rows: MaxRows = None


class HasStatement(Protocol):
    """Inputs with a statement in one of these."""

    @property
    def fetch(self) -> str | None: ...
    @property
    def args(self) -> list[Any] | None: ...
    @property
    def dst(self) -> str | None: ...
    @property
    def max_rows(self) -> int | None: ...


class SqlOutput(msgspec.Struct, kw_only=True):
    """The output of every SQL type."""

    result: Any = None  #: the rows, a row or a value, as was asked for
    row_count: int | None = None  #: how many rows were returned or changed, where the database tells
    size: int | msgspec.UnsetType = msgspec.UNSET  #: with dst: of the file, in bytes


I = TypeVar("I", bound=SqlInputs)  # noqa: E741 - the inputs of one type


class Statement(msgspec.Struct, frozen=True):
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
    if inputs.dst is None and (inputs.max_rows or 0) > _RESULT_ROWS_MAX:
        raise invalid(task, "max_rows", f"expected a whole number <= {_RESULT_ROWS_MAX}, unless 'dst' is given")
    if inputs.dst is not None:
        if given[0] != "fetch":
            raise invalid(task, "dst", f"{given[0]} returns no rows for a file; use fetch")
        if not stored_files.is_named(inputs.dst) or not inputs.dst.endswith(_ENDINGS):
            raise invalid(task, "dst", "expected headrace:<path> with a name that ends with .csv, .jsonl or .ndjson")


def resolved(inputs: I, schemes: Sequence[str]) -> I:
    """Return the inputs with what ``dsn`` says in their proper places."""
    if inputs.dsn is None:
        return inputs
    return msgspec.structs.replace(inputs, dsn=None, **(_parsed(inputs.dsn, schemes) or {}))


class Product(msgspec.Struct, Generic[I], frozen=True, kw_only=True):
    """A database that is a server, and its task type."""

    task: str
    name: str
    placeholders: str
    inputs: type[I]
    port: int
    schemes: Sequence[str]
    #: Performs the statement on a connection of its own; raises ``host.Failed``.
    attempt: Callable[[I, ports.TaskContext, definitions.Settings], Awaitable[SqlOutput]]
    #: Raises ``InputRefused`` for what this product cannot do. Nothing stands in ``dsn`` any more.
    cannot: Callable[[I], None] = lambda inputs: None
    aliases: tuple[str, ...] = ()
    input_aliases: Mapping[str, str] = msgspec.field(default_factory=dict)

    def definition(self, settings: definitions.Settings) -> definitions.TaskDefinition[I]:
        """Return the task type."""
        return definitions.TaskDefinition(
            name=self.task,
            summary=f"Execute statements in {self.name}",
            description=f"One statement, its rows as JSON. Placeholders are {self.placeholders}",
            inputs=self.inputs,
            output=SqlOutput,
            run=functools.partial(self._run, settings),
            idempotent=lambda inputs: inputs.read_only,
            check=self._check,
            aliases=self.aliases,
            secret_inputs=frozenset({"dsn"}),
            input_aliases={**host.ALIASES, **self.input_aliases},
        )

    async def _run(self, settings: definitions.Settings, given: I, context: ports.TaskContext) -> SqlOutput:
        inputs = resolved(given, self.schemes)
        shown = f"{statement(inputs).mode} on {inputs.hostname}:{inputs.port or self.port}"
        attempt = functools.partial(self.attempt, inputs, context, settings)
        return await host.performed(shown, attempt, inputs, context, settings, repeatable=inputs.read_only)

    def _check(self, inputs: I) -> None:
        """Raise ``InputRefused`` for inputs that reach no database or do not make one statement."""
        check_statement(self.task, inputs)
        if inputs.dsn is None and not inputs.hostname:
            raise missing(self.task, "hostname", "the host of the database (or 'dsn')")
        if inputs.dsn is not None:
            for name in ("hostname", "port", "username", "password", "database"):
                if getattr(inputs, name):
                    raise invalid(self.task, name, "'dsn' says it already; give one of them")
            if _parsed(inputs.dsn, self.schemes) is None:
                expected = f"{self.schemes[0]}://username:password@hostname:port/database"
                raise invalid(self.task, "dsn", f"expected {expected}, where only sslmode may follow; escape with %")
        host.check(self.task, resolved(inputs, self.schemes))
        self.cannot(resolved(inputs, self.schemes))


@contextlib.contextmanager
def understood(*raised: type[Exception], explained: Callable[[Any], host.Failed]) -> Iterator[None]:
    """Raise ``host.Failed`` for what a library raises in the block: its own errors, and what it trips over."""
    try:
        yield
    except raised as error:
        raise explained(error) from None
    except host.GARBAGE as error:
        raise host.Failed(f"what the server says is not understood: {host.quoted(str(error))}") from None


class Work(Generic[I]):
    """One statement on one connection, in a thread, for libraries that block. A subclass says how."""

    def __init__(self, inputs: I, context: ports.TaskContext, line: host.Line, port: int) -> None:
        self._inputs = inputs
        self._context = context
        self._line = line
        self._port = port
        self._asked = statement(inputs)

    def _explained(self, error: Any) -> host.Failed:
        """Return what an error of the library means."""
        raise NotImplementedError

    @contextlib.contextmanager
    def _understood(self, *raised: type[Exception]) -> Iterator[None]:
        """The same as ``understood``, where all may have gone wrong because the connection was cut in time."""
        try:
            with understood(*raised, explained=self._explained):
                yield
        except host.Failed:
            if not self._line.too_late:
                raise
            raise host.explained(TimeoutError(), self._inputs, self._port) from None


def adapted(args: Any, kinds: type | tuple[type, ...] = (dict, list)) -> list[Any]:
    """Return the values of placeholders, with those of these kinds as JSON text."""
    return [msgspec.json.encode(one).decode() if isinstance(one, kinds) else one for one in args]


def filled(text: str, args: Any, kinds: type | tuple[type, ...] = (dict, list)) -> tuple[Any, ...] | None:
    """Return the values for a text with ``%s``, or None without any: then a % is just that.

    Raises ``host.Failed`` unless there are as many as places: the library would not say what is wrong."""
    if not args:
        return None
    try:
        text % tuple("x" for _ in args)
    except (TypeError, ValueError) as error:
        raise host.Failed(f"the statement and its args do not go together: {error} (a % is written %%)") from None
    return tuple(adapted(args, kinds))


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
