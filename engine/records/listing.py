"""Questions to the index: which executions, newest first, a page at a time. Blocking; run in reader threads.

A listing filters by type and status always, by each of them if none was asked for: every pair is one short walk along
an index that is already in the right order, and the walks are merged. So no filter, and no combination of them, makes
SQLite sort or search through executions that do not match. Text is looked up in a trigram index.
"""

from __future__ import annotations

import base64
import binascii
import heapq
import itertools
import sqlite3
from collections.abc import Sequence

import msgspec

from .. import errors
from ..lifecycle import Status
from . import tables
from .tables import Row

LIMIT_MAX = 200
TYPES = ("FLOW", "TASK", "SCRIPT")
#: Nobody sees in a picture whether it were more.
HOUR_MAX = 1000
#: The trigram index finds nothing shorter.
_TRIGRAM = 3
#: An owner (flow or parent) with at most so many executions is read through, whatever text is looked for.
_READ_THROUGH_MAX = 5000


class Query(msgspec.Struct, frozen=True, kw_only=True):
    """What to list; an empty field does not filter, but for ``parent``: empty is nobody's, None is anybody's. ``since``
    is included, ``until`` is not (RFC 3339, UTC)."""

    flow: str = ""  # its name
    flows: tuple[str, ...] | None = None  # one of these names; None: any
    status: tuple[str, ...] = ()
    type: str = ""
    parent: str | None = None  # what started it
    since: str = ""
    until: str = ""
    q: str = ""  # text in name or message
    acknowledged: bool | None = None  # whether somebody saw that it failed
    limit: int = 50
    cursor: str = ""


class Summary(msgspec.Struct, frozen=True, kw_only=True):
    """An execution as a listing shows it."""

    id: str
    type: str
    name: str
    status: str
    flow_name: str
    flow_id: str
    commit: str
    task: str
    message: str
    reason: str
    parent: str
    created_by: str
    created_at: str
    started_at: str | None
    ended_at: str | None


class Page(msgspec.Struct, frozen=True):
    """Some executions, newest first, and the cursor of the next page (empty at the end)."""

    items: list[Summary]
    cursor: str


def summary(row: Row) -> Summary:
    """Return what people see of a row."""
    return Summary(**{name: getattr(row, name) for name in Summary.__struct_fields__})


def page(connection: sqlite3.Connection, query: Query) -> Page:
    """Answer ``query``. Raises ``InvalidRequest`` for a limit, status, type or cursor that cannot be."""
    _check(query)
    before = _decode_cursor(query.cursor) if query.cursor else None
    if query.acknowledged is False:  # what nobody saw has an index of its own, and is what failed
        failed = not query.status or Status.ENDED_ERROR in query.status
        query = msgspec.structs.replace(query, status=(Status.ENDED_ERROR,), flows=query.flows if failed else ())
    if query.flows is not None and not query.flows:
        return Page([], "")
    if len(query.q) >= _TRIGRAM and not _is_short(connection, query):
        rows = _found(connection, query, before)
    else:
        rows = _walked(connection, query, before)
    items = rows[: query.limit]
    cursor = _encode_cursor(items[-1]) if len(rows) > query.limit else ""
    return Page([summary(row) for row in items], cursor)


def _check(query: Query) -> None:
    if not 1 <= query.limit <= LIMIT_MAX:
        raise errors.InvalidRequest(f"limit is {query.limit}, it must be from 1 to {LIMIT_MAX}")
    for status in query.status:
        if status not in Status.__members__:
            raise errors.InvalidRequest(f"there is no status {status!r}", hint=f"one of {', '.join(Status)}")
    if query.type and query.type not in TYPES:
        raise errors.InvalidRequest(f"there is no type {query.type!r}", hint=f"one of {', '.join(TYPES)}")


def _encode_cursor(row: Row) -> str:
    return base64.urlsafe_b64encode(f"{row.seq} {row.created_at}".encode()).decode().rstrip("=")


def _decode_cursor(cursor: str) -> tuple[str, int]:
    try:
        seq, created_at = base64.b64decode(cursor + "=" * (-len(cursor) % 4), b"-_", validate=True).decode().split(" ")
        return created_at, int(seq)
    except (ValueError, binascii.Error):
        raise errors.InvalidRequest(
            "the cursor is not one that a listing gave", hint="begin again without it"
        ) from None


def _conditions(query: Query, before: tuple[str, int] | None) -> tuple[str, list[object]]:
    """Return the part of WHERE that any walk shares, beginning with AND."""
    sql, values = "", list[object]()
    for clause, value in (
        ("created_at >= ?", query.since),
        ("created_at < ?", query.until),
        ("flow_name != '' AND flow_name = ?", query.flow),
        ("parent != '' AND parent = ?", query.parent),
    ):
        if value:
            sql += f" AND {clause}"
            values.append(value)
    if query.parent == "":
        sql += " AND parent = ''"
    if query.acknowledged is not None:
        sql += f" AND acknowledged = {query.acknowledged:d}"
    if before is not None:
        sql += " AND (created_at, seq) < (?, ?)"
        values += before
    return sql, values


def _walked(connection: sqlite3.Connection, query: Query, before: tuple[str, int] | None) -> list[Row]:
    sql, values = _conditions(query, before)
    if query.q:
        sql += " AND (name LIKE ? ESCAPE '\\' OR message LIKE ? ESCAPE '\\')"
        values += [_like(query.q)] * 2
    order = " ORDER BY created_at DESC, seq DESC LIMIT ?"
    by = _index(query)
    is_failed = "status = 'ENDED_ERROR' AND status = ?" if by.startswith("open") else "status = ?"
    flow = " AND flow_name != '' AND flow_name = ?" if query.flows else ""
    select = f"{tables.SELECT_ROW} INDEXED BY executions_{by} WHERE type = ? AND {is_failed}{flow}{sql}{order}"
    triples = itertools.product(
        [query.type] if query.type else ["FLOW"] if query.flows else TYPES,
        dict.fromkeys(query.status) or Status,
        [[name] for name in query.flows] if query.flows else [[]],
    )
    walks = [
        [Row(*row) for row in connection.execute(select, [type_, str(status), *of, *values, query.limit + 1])]
        for type_, status, of in triples
    ]
    newest_first = heapq.merge(*walks, key=lambda row: (row.created_at, row.seq), reverse=True)
    return list(itertools.islice(newest_first, query.limit + 1))


def _index(query: Query) -> str:
    """Return the index that narrows it most."""
    if query.parent:
        return "by_parent"
    if query.flow or query.flows:
        return "by_flow"
    if query.parent is None:
        return "open" if query.acknowledged is False else "by_kind"
    return "open_of_nobody" if query.acknowledged is False else "of_nobody"


def _like(text: str) -> str:
    escaped = text.replace("\\", "\\\\").replace("%", "\\%").replace("_", "\\_")
    return f"%{escaped}%"


def _is_short(connection: sqlite3.Connection, query: Query) -> bool:
    """Return whether a flow or parent narrows the query so far that reading through beats looking the text up."""
    if not (query.flow or query.parent):
        return False
    column = "parent" if query.parent else "flow_name"
    matching = f"SELECT 1 FROM executions WHERE {column} = ? AND {column} != '' LIMIT ?"  # noqa: S608 - our own name
    counted = f"SELECT count(*) FROM ({matching})"  # noqa: S608
    count = connection.execute(counted, (query.parent or query.flow, _READ_THROUGH_MAX + 1)).fetchone()[0]
    return int(count) <= _READ_THROUGH_MAX


def _found(connection: sqlite3.Connection, query: Query, before: tuple[str, int] | None) -> list[Row]:
    """Look the text up. Matches come in order of ``seq``: that of time, unless the clock was set back in between."""
    sql, values = _conditions(query, None)
    if before is not None:
        sql += " AND search.rowid < ?"
        values.append(before[1])
    types = (query.type,) if query.type else ()
    for column, wanted in (("type", types), ("status", query.status), ("flow_name", query.flows or ())):
        if wanted:
            sql += f" AND {column} IN ({', '.join('?' * len(wanted))})"
            values += wanted
    columns = ", ".join(f'executions."{name}"' for name in tables.COLUMNS)
    matching = "FROM search CROSS JOIN executions ON executions.seq = search.rowid WHERE search MATCH ?"
    select = f"SELECT {columns} {matching}{sql} ORDER BY search.rowid DESC LIMIT ?"
    phrase = '"' + query.q.replace('"', '""') + '"'
    return [Row(*row) for row in connection.execute(select, [phrase, *values, query.limit + 1])]


def children(connection: sqlite3.Connection, parent: str) -> list[Summary]:
    """Return the executions that ``parent`` created, in order."""
    select = tables.SELECT_ROW + " WHERE parent = ? AND parent != '' ORDER BY seq"
    return [summary(Row(*row)) for row in connection.execute(select, (parent,))]


def counts(connection: sqlite3.Connection) -> dict[str, int]:
    """Return how many executions have each status that occurs."""
    return dict(connection.execute("SELECT status, count(*) FROM executions GROUP BY status").fetchall())


def by_hour(connection: sqlite3.Connection, hours: Sequence[str]) -> dict[str, tuple[int, int]]:
    """Return how many executions of flows began in each of the hours (``2026-01-31T08``) and ended, and how many of
    them failed. Of an hour and a status no more than ``HOUR_MAX`` are counted, along an index: a million cost nothing.
    """
    counted = "SELECT 1 FROM executions INDEXED BY executions_by_kind WHERE type = 'FLOW' AND status = ?"
    select = f"SELECT count(*) FROM ({counted} AND created_at >= ? AND created_at < ? LIMIT {HOUR_MAX})"  # noqa: S608
    found = {}
    for hour in hours:
        by_status = {
            status: int(connection.execute(select, (str(status), f"{hour}:", f"{hour};")).fetchone()[0])
            for status in (one for one in Status if one.ended)
        }
        found[hour] = (sum(by_status.values()), by_status[Status.ENDED_ERROR])
    return found


def extents(connection: sqlite3.Connection, execution: str) -> list[tuple[int, int, int]]:
    """Return where the lines of an execution lie: (segment, start, end), in order."""
    select = (
        'SELECT segment, start, "end" FROM extents WHERE execution = (SELECT seq FROM executions WHERE id = ?)'
        " ORDER BY segment, start"
    )
    return connection.execute(select, (execution,)).fetchall()
