"""The index on disk: a SQLite file with a row for each execution, and where its lines lie in the segments.

Everything here is derived from the journal and can be thrown away at any time. What is stored and how far it goes is
one transaction, so after a crash the file is merely behind. One thread writes; ``Tables`` is what it holds.
"""

from __future__ import annotations

import datetime
import itertools
import operator
import sqlite3
import typing
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import msgspec
import structlog

from .. import events, lifecycle, moments
from . import places, reading, segments

log = structlog.get_logger()

#: Bump it with every change of the tables or of what is put into them: another number means another file.
SCHEMA_VERSION = 4
#: The end of the year 9999: times are not written beyond it.
_LAST_S = 253_402_300_799.0

# ``gone`` has the executions that were deleted or pruned while lines of them are left, up to ``segment``: what is in
# none of the tables is not known to be gone.
# Every listing fixes all columns of one of these indexes but the last (see ``listing``), and is ordered by time, then
# seq (the rowid, which every index ends with).
_SCHEMA = """
CREATE TABLE position (instance TEXT, segment INTEGER, start INTEGER, "end" INTEGER, seq INTEGER, at TEXT);
CREATE TABLE executions (
  seq INTEGER PRIMARY KEY, id TEXT NOT NULL UNIQUE, type TEXT, flow_name TEXT, flow_id TEXT, "commit" TEXT, task TEXT,
  name TEXT, status TEXT, message TEXT, reason TEXT, parent TEXT, created_by TEXT, created_at TEXT, started_at TEXT,
  ended_at TEXT, waiting_call INTEGER, retention_s REAL, expires_at TEXT,
  acknowledged INTEGER);
CREATE INDEX executions_by_kind ON executions (type, status, created_at);
CREATE INDEX executions_by_flow ON executions (flow_name, type, status, created_at) WHERE flow_name != '';
CREATE INDEX executions_by_parent ON executions (parent, type, status, created_at) WHERE parent != '';
CREATE INDEX executions_of_nobody ON executions (type, status, created_at) WHERE parent = '';
CREATE INDEX executions_open ON executions (type, created_at) WHERE status = 'ENDED_ERROR' AND acknowledged = 0;
CREATE INDEX executions_open_of_nobody ON executions (type, created_at)
  WHERE status = 'ENDED_ERROR' AND acknowledged = 0 AND parent = '';
CREATE INDEX executions_by_end ON executions (ended_at) WHERE ended_at IS NOT NULL AND retention_s IS NULL;
CREATE INDEX executions_by_expiry ON executions (expires_at) WHERE expires_at IS NOT NULL;
CREATE VIRTUAL TABLE search USING fts5 (name, message, content='executions', content_rowid='seq', tokenize='trigram');
CREATE TABLE extents (execution INTEGER, segment INTEGER, start INTEGER, "end" INTEGER,
  PRIMARY KEY (execution, segment, start)) WITHOUT ROWID;
CREATE TABLE keys (key TEXT PRIMARY KEY, execution TEXT, digest TEXT, at TEXT, segment INTEGER) WITHOUT ROWID;
CREATE TABLE moving (id TEXT, carry TEXT, segment INTEGER, start INTEGER, "end" INTEGER);
CREATE TABLE gone (id TEXT PRIMARY KEY, segment INTEGER) WITHOUT ROWID;
"""


class Row(msgspec.Struct):
    """An execution as the table ``executions`` holds it, column by column."""

    seq: int
    id: str
    type: str
    flow_name: str
    flow_id: str
    commit: str
    task: str
    name: str
    status: str
    message: str
    reason: str
    parent: str
    created_by: str
    created_at: str
    started_at: str | None
    ended_at: str | None
    waiting_call: int
    retention_s: float | None
    expires_at: str | None  # if it has ended and has a retention of its own
    acknowledged: int  # 1 if somebody saw that it failed


#: Reads the lines of an extent (segment, start, end) back.
Read = Callable[[int, int, int], Iterable[events.Recorded]]
_PARTS = 'SELECT segment, start, "end" FROM moving WHERE id = ? AND carry = ? ORDER BY segment, start'
COLUMNS = Row.__struct_fields__
_columns_of = operator.attrgetter(*COLUMNS)
SELECT_ROW = "SELECT " + ", ".join(f'"{name}"' for name in COLUMNS) + " FROM executions"  # noqa: S608 - our own names
#: So many rows go into the file with one statement.
_ROWS_MAX = 128


class _Connection(sqlite3.Connection):
    """SQLite tells what is wrong with the words of a damaged schema, which need not be text; that is damage too."""

    def execute(self, *given: Any) -> sqlite3.Cursor:
        try:
            return super().execute(*given)
        except UnicodeDecodeError as error:
            raise sqlite3.DatabaseError(f"database disk image is malformed: {error}") from None


def connect(path: Path, *, read_only: bool = False) -> sqlite3.Connection:
    """Open the file as readers and the writer need it; of one that is damaged nothing stays open."""
    address = f"{path.absolute().as_uri()}?mode={'ro' if read_only else 'rwc'}"
    connection = sqlite3.connect(
        address, uri=True, isolation_level=None, check_same_thread=False, cached_statements=256, factory=_Connection
    )
    try:
        connection.execute("PRAGMA busy_timeout = 5000")
        if not read_only:
            connection.execute("PRAGMA journal_mode = WAL")
            connection.execute("PRAGMA synchronous = NORMAL")
            # Filling touches many pages at once: with SQLite's own 2 MB it costs a fifth more.
            connection.execute("PRAGMA cache_size = -16384")
            connection.execute("PRAGMA wal_autocheckpoint = 8000")
    except BaseException:
        connection.close()
        raise
    return connection


def reached(path: Path) -> int | None:
    """Return the ``seq`` up to which the journal was taken in; None for a file that is not there or cannot be read."""
    try:
        connection = connect(path, read_only=True)
        try:
            row = connection.execute("SELECT seq FROM position").fetchone()
        finally:
            connection.close()
    except sqlite3.Error:
        return None
    return int(row[0]) if row else None


class Tables:
    """The file, open for writing. Raises ``sqlite3.DatabaseError`` for one that is damaged."""

    def __init__(self, path: Path, read: Read) -> None:
        self._connection = connect(path)
        self._read = read

    def close(self) -> None:
        """Let go of the file."""
        self._connection.close()

    def create(self, instance: str) -> None:
        """Make the tables in a new file, for a journal of which nothing was taken in yet."""
        self._connection.executescript(f"BEGIN; {_SCHEMA} PRAGMA user_version = {SCHEMA_VERSION}; COMMIT;")
        self._connection.execute("INSERT INTO position VALUES (?, 1, 0, 0, 0, '')", (instance,))

    def position(self, records: Path, instance: str, end_seq: int) -> tuple[int, int, int] | str:
        """Return (segment, offset, seq) up to which the journal was taken in, or why this file cannot be used."""
        if self._connection.execute("PRAGMA user_version").fetchone() != (SCHEMA_VERSION,):
            return "another schema version"
        row = self._connection.execute("SELECT * FROM position").fetchone()
        if row is None or row[0] != instance:
            return "it belongs to another journal"
        _, segment, start, end, seq, at = row
        if seq > end_seq:
            return "it is ahead of the journal"
        expected = b'{"seq":%d,"batch":' % seq
        line = reading.line(records, segment, start, end)
        if end and not (line.startswith(expected) and at.encode() in line[:120] and line.endswith(b"\n")):
            return "the journal has another history"
        return segment, end, seq

    def take_in(self, batch: Sequence[events.Recorded]) -> None:
        """Store what ``batch`` changes and how far that goes; all of it is there on return, or nothing."""
        if not batch:
            return
        connection = self._connection
        connection.execute("BEGIN IMMEDIATE")
        try:
            intake = _Intake(connection, self._read)
            for recorded in batch:
                intake.add(recorded)
            intake.store()
            last = batch[-1]
            connection.execute(
                'UPDATE position SET segment = ?, start = ?, "end" = ?, seq = ?, at = ?',
                (last.segment, last.offset, last.offset + last.length, last.seq, last.at),
            )
            connection.execute("COMMIT")
        except BaseException:
            if connection.in_transaction:
                connection.execute("ROLLBACK")
            raise


class _Intake:
    """What one transaction changes, gathered first, so that an execution that begins and ends in it is written once."""

    def __init__(self, connection: sqlite3.Connection, read: Read) -> None:
        self._connection = connection
        self._read = read
        self._rows: dict[str, Row] = {}
        self._searchable: dict[int, tuple[str, str]] = {}  # name and message as ``search`` has them now
        self._keys: list[tuple[str, str, str, str, int]] = []
        self._carried_keys: list[tuple[str, str, str, str, int]] = []
        self._deleted: dict[str, tuple[Row, int]] = {}  # with the segment that says so
        self._moved: list[tuple[int, int, int]] = []  # executions whose lines are those from there on
        self._parts: dict[tuple[str, str], list[events.Recorded]] = {}  # of carried records without their last part yet
        self._dropped = 0
        self._extents: list[list[int]] = []
        self._open_extents: dict[int, list[int]] = {}

    def add(self, recorded: events.Recorded) -> None:
        event = recorded.event
        row: Row | None
        if isinstance(event, events.ExecutionCreated):
            row = self._create(event, recorded)
        elif not _is_of_execution(event):
            if isinstance(event, events.RetentionEvent):
                self._retain(event, recorded)
            return
        elif isinstance(event, events.ExecutionDeleted):
            self._delete(event.execution, recorded.segment)
            return
        else:
            row = self._rows.get(event.execution) or self._stored(event.execution)
            if row is None:
                return
            if (change := _CHANGES.get(type(event))) is not None:
                change(row, event, recorded.at)
        self._extend(row.seq, recorded)

    def _create(self, event: events.ExecutionCreated, recorded: events.Recorded) -> Row:
        row = Row(
            seq=recorded.seq,
            id=event.execution,
            type=event.type,
            flow_name=event.flow_name,
            flow_id=event.flow_id,
            commit=event.commit,
            task=event.task,
            name=event.name or event.flow_name or event.task,
            status="QUEUED" if event.queued else "NEW",
            message="",
            reason="",
            parent=event.parent,
            created_by=event.created_by,
            created_at=recorded.at,
            started_at=None,
            ended_at=None,
            waiting_call=0,
            retention_s=event.retention_time_s,
            expires_at=None,
            acknowledged=0,
        )
        self._rows[row.id] = row
        if event.key:
            self._keys.append((event.key, event.execution, event.key_digest, recorded.at, recorded.segment))
        return row

    def _retain(self, event: events.RetentionEvent, recorded: events.Recorded) -> None:
        match event:
            case events.ExecutionsPruned():
                for execution in event.executions:
                    self._delete(execution, recorded.segment)
            case events.ExecutionCarried():
                self._carry(event, recorded)
            case events.KeyCarried():
                key = (event.key, event.execution, event.key_digest, event.created_at, recorded.segment)
                self._carried_keys.append(key)
            case events.SegmentsDropped():
                self._dropped = max(self._dropped, event.segment)

    def _carry(self, event: events.ExecutionCarried, recorded: events.Recorded) -> None:
        """With its last part, make the row anew from the lines of all parts, which lie there from now on."""
        name = (event.execution, event.carry)
        self._parts.setdefault(name, []).append(recorded)
        if not event.last:
            return
        stored = self._connection.execute(_PARTS, name).fetchall()
        parts = [part for extent in stored for part in self._read(*extent)] + self._parts.pop(name)
        if (row := self._rows.get(event.execution) or self._stored(event.execution)) is not None:
            self._open_extents.pop(row.seq, None)
            self._moved.append((row.seq, parts[0].segment, parts[0].offset))
        for part in parts:
            for line in segments.unfolded(part):
                self.add(line)
                if isinstance(line.event, events.ExecutionCreated) and line.event.key:
                    self._carried_keys.append(self._keys.pop())

    def _delete(self, execution: str, segment: int) -> None:
        row = self._rows.get(execution) or self._stored(execution)
        if row is not None:
            self._deleted[execution] = (self._rows.pop(execution), segment)

    def _stored(self, execution: str) -> Row | None:
        if execution in self._deleted:
            return None
        stored = self._connection.execute(SELECT_ROW + " WHERE id = ?", (execution,)).fetchone()
        if stored is None:
            return None
        row = self._rows[execution] = Row(*stored)
        self._searchable[row.seq] = (row.name, row.message)
        return row

    def _extend(self, execution: int, recorded: events.Recorded) -> None:
        end = recorded.offset + recorded.length
        extent = self._open_extents.get(execution)
        if extent is None or extent[1] != recorded.segment or recorded.offset - extent[3] > places.GAP_BYTES:
            extent = [execution, recorded.segment, recorded.offset, end]
            self._open_extents[execution] = extent
            self._extents.append(extent)
        else:
            extent[3] = end

    def _insert(self, into: str, rows: Sequence[Sequence[object]]) -> None:
        """Insert many rows with one statement.

        sqlite lets go of the interpreter for each statement it runs, and getting it back from a busy event loop costs
        more than the insert itself. Powers of two keep the statements few, so that they stay prepared.
        """
        start, size = 0, _ROWS_MAX
        while start < len(rows):
            while size > len(rows) - start:
                size //= 2
            marks = ", ".join([f"({', '.join('?' * len(rows[start]))})"] * size)
            values = itertools.chain.from_iterable(rows[start : start + size])
            self._connection.execute(f"{into} VALUES {marks}", tuple(values))
            start += size

    def store(self) -> None:
        execute_many = self._connection.executemany
        rows = self._rows.values()
        stale, fresh = [], []
        for row in rows:
            before, now = self._searchable.get(row.seq), (row.name, row.message)
            if before != now:
                fresh.append((row.seq, *now))
                if before is not None:
                    stale.append((row.seq, *before))
        execute_many("INSERT INTO search (search, rowid, name, message) VALUES ('delete', ?, ?, ?)", stale)
        self._insert("INSERT INTO search (rowid, name, message)", fresh)
        self._insert("INSERT OR REPLACE INTO executions", [_columns_of(row) for row in rows])
        self._insert("INSERT OR REPLACE INTO extents", self._extents)
        execute_many("DELETE FROM extents WHERE execution = ? AND (segment, start) < (?, ?)", self._moved)
        waiting = [(*name, one) for name, parts in self._parts.items() for one in parts]
        execute_many(
            "INSERT INTO moving VALUES (?, ?, ?, ?, ?)",
            [(id_, carry, one.segment, one.offset, one.offset + one.length) for id_, carry, one in waiting],
        )
        execute_many("INSERT OR IGNORE INTO keys VALUES (?, ?, ?, ?, ?)", self._keys)
        execute_many("INSERT OR REPLACE INTO keys VALUES (?, ?, ?, ?, ?)", self._carried_keys)
        self._forget([row for row, _ in self._deleted.values()])
        execute_many("INSERT OR REPLACE INTO gone VALUES (?, ?)", [(id_, at) for id_, (_, at) in self._deleted.items()])
        if self._dropped:
            for table in ("keys", "gone", "moving"):
                self._connection.execute(f"DELETE FROM {table} WHERE segment <= ?", (self._dropped,))  # noqa: S608

    def _forget(self, rows: Sequence[Row]) -> None:
        execute_many = self._connection.executemany
        known = [(row.seq, *self._searchable[row.seq]) for row in rows if row.seq in self._searchable]
        execute_many("INSERT INTO search (search, rowid, name, message) VALUES ('delete', ?, ?, ?)", known)
        for table, column in (("executions", "seq"), ("extents", "execution")):
            delete = f"DELETE FROM {table} WHERE {column} = ?"  # noqa: S608 - our own names
            execute_many(delete, [(row.seq,) for row in rows])


# What ``model.Execution.apply`` does to the whole execution, as far as the table shows it.


def _move(row: Row, transition: str) -> bool:
    """Follow the arrow of the life cycle, or stay where it has none: the index refuses nothing that was recorded."""
    status = _NEXT.get((row.status, transition))
    if status is None:
        log.warning("index.event_odd", execution=row.id, status=row.status, transition=transition)
        return False
    row.status = status
    return True


def _queued(row: Row, event: events.ExecutionQueued, at: str) -> None:
    _move(row, "queued")


def _started(row: Row, event: events.ExecutionStarted, at: str) -> None:
    if _move(row, "started"):
        row.started_at = row.started_at or at
        row.reason = ""


def _call_started(row: Row, event: events.CallStarted, at: str) -> None:
    if event.waits and _move(row, "suspended"):
        row.waiting_call = event.call


def _call_ended(row: Row, event: events.CallEnded, at: str) -> None:
    if row.waiting_call and event.call == row.waiting_call and _move(row, "resumed"):
        row.waiting_call = 0


def _paused(row: Row, event: events.ExecutionPaused, at: str) -> None:
    if _move(row, "paused"):
        row.reason = event.reason


def _resumed(row: Row, event: events.ExecutionResumed, at: str) -> None:
    arrow = "requeued" if event.queued else "suspended" if row.waiting_call else "continued"
    if row.status == "PAUSED" and _move(row, arrow):
        row.reason = ""


def _interrupted(row: Row, event: events.ExecutionInterrupted, at: str) -> None:
    if _move(row, "interrupted") and row.status == "QUEUED":
        row.reason = event.reason


def _restarted(row: Row, event: events.ExecutionRestarted, at: str) -> None:
    if _move(row, "restarted"):
        row.waiting_call = 0
        row.reason = event.reason


def _saved(row: Row, event: events.ExecutionSaved, at: str) -> None:
    row.message = row.message if event.message is None else event.message
    row.name = row.name if event.name is None else event.name
    if event.retention_time_s is not msgspec.UNSET:
        row.retention_s = event.retention_time_s
        row.expires_at = _expiry(row)


def _ended(row: Row, event: events.ExecutionEnded, at: str) -> None:
    if _move(row, _ENDING.get(event.status, event.status)):
        row.ended_at = at
        row.message = event.message or row.message
        row.reason = event.reason
        row.expires_at = _expiry(row)


def _expiry(row: Row) -> str | None:
    if row.ended_at is None or row.retention_s is None:
        return None
    ended_s = datetime.datetime.fromisoformat(row.ended_at).timestamp()
    return moments.timestamp(min(ended_s + max(0.0, row.retention_s), _LAST_S))


_OF_EXECUTIONS = frozenset(typing.get_args(events.ExecutionEvent))


def _is_of_execution(event: events.AnyEvent) -> typing.TypeGuard[events.ExecutionEvent]:
    """What isinstance says, without asking fourteen types one by one for each event."""
    return type(event) in _OF_EXECUTIONS


#: The life cycle in plain strings, as rows hold them.
_NEXT = {(status.value, transition): after.value for (status, transition), after in lifecycle.TABLE.items()}
_ENDING = {status.value: transition for status, transition in lifecycle.ENDING.items()}


def _acknowledged(row: Row, _event: events.ExecutionAcknowledged, _at: str) -> None:
    row.acknowledged = 1


_CHANGES: dict[type, Callable[[Row, Any, str], None]] = {
    events.ExecutionQueued: _queued,
    events.ExecutionStarted: _started,
    events.CallStarted: _call_started,
    events.CallEnded: _call_ended,
    events.ExecutionSaved: _saved,
    events.ExecutionPaused: _paused,
    events.ExecutionResumed: _resumed,
    events.ExecutionInterrupted: _interrupted,
    events.ExecutionRestarted: _restarted,
    events.ExecutionEnded: _ended,
    events.ExecutionAcknowledged: _acknowledged,
}
