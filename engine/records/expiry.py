"""Questions to the index: which executions have been kept long enough. Blocking; run in reader threads.

An execution without a parent goes when its retention is over: its own (``retention_s``), else that of everything. What
it made goes with it; earlier, if that had a retention of its own and everything above it has ended; later, if that is
not over yet. Nothing below an execution that has not ended goes: it may ask for what its children returned.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Iterator, Mapping

import msgspec

from ..lifecycle import ENDED

_ENDED = ", ".join(f"'{status.value}'" for status in sorted(ENDED))
_BY_AGE = """
SELECT id FROM executions INDEXED BY executions_by_end
WHERE ended_at IS NOT NULL AND retention_s IS NULL AND ended_at < :ended_before
AND (parent = '' OR NOT EXISTS (SELECT 1 FROM executions AS above WHERE above.id = executions.parent))
ORDER BY ended_at
"""
_BY_OWN_RETENTION = """
SELECT id FROM executions WHERE expires_at IS NOT NULL AND expires_at < :now ORDER BY expires_at
"""
_BY_COUNT = f"""
SELECT id FROM executions INDEXED BY executions_by_flow
WHERE flow_name = :flow AND flow_name != '' AND type = 'FLOW' AND status IN ({_ENDED})
ORDER BY created_at DESC, seq DESC LIMIT -1 OFFSET :count
"""  # noqa: S608 - words of our own
_UNFINISHED_ABOVE = f"""
WITH RECURSIVE above (id) AS (
  SELECT parent FROM executions WHERE id = :id
  UNION SELECT executions.parent FROM executions JOIN above ON executions.id = above.id)
SELECT 1 FROM above CROSS JOIN executions ON executions.id = above.id WHERE status NOT IN ({_ENDED}) LIMIT 1
"""  # noqa: S608
_BELOW = f"""
SELECT id FROM executions INDEXED BY executions_by_parent
WHERE parent = :id AND parent != '' AND status IN ({_ENDED}) AND (expires_at IS NULL OR expires_at < :now)
"""  # noqa: S608
_IDS_AT_ONCE = 500


class Terms(msgspec.Struct, frozen=True, kw_only=True):
    """What is over: ``ended_before`` for executions without a retention of their own (empty: never), and how many
    ended ones of a flow stay."""

    now: str
    ended_before: str = ""
    counts: Mapping[str, int] = {}


def expired(connection: sqlite3.Connection, terms: Terms, limit: int) -> list[str]:
    """Return executions that may go now, each with all below it that goes along; about ``limit`` of them."""
    found: dict[str, None] = {}
    for execution in _candidates(connection, terms):
        if execution not in found and not _is_needed(connection, execution):
            found.update(dict.fromkeys(_with_all_below(connection, execution, terms.now)))
        if len(found) >= limit:
            break
    return list(found)


def _candidates(connection: sqlite3.Connection, terms: Terms) -> Iterator[str]:
    def column(select: str, **values: object) -> Iterator[str]:
        return (row[0] for row in connection.execute(select, values))

    if terms.ended_before:
        yield from column(_BY_AGE, ended_before=terms.ended_before)
    yield from column(_BY_OWN_RETENTION, now=terms.now)
    for flow, count in terms.counts.items():
        yield from column(_BY_COUNT, flow=flow, count=count)


def _is_needed(connection: sqlite3.Connection, execution: str) -> bool:
    return connection.execute(_UNFINISHED_ABOVE, {"id": execution}).fetchone() is not None


def _with_all_below(connection: sqlite3.Connection, execution: str, now: str) -> Iterator[str]:
    line = [execution]
    while line:
        yield (one := line.pop())
        line += [row[0] for row in connection.execute(_BELOW, {"id": one, "now": now})]


def not_gone(connection: sqlite3.Connection, executions: Iterable[str]) -> set[str]:
    """Return those that were neither deleted nor pruned, as far as anybody knows."""
    asked = list(executions)
    left = set(asked)
    for start in range(0, len(asked), _IDS_AT_ONCE):
        some = asked[start : start + _IDS_AT_ONCE]
        select = f"SELECT id FROM gone WHERE id IN ({', '.join('?' * len(some))})"  # noqa: S608
        left.difference_update(row[0] for row in connection.execute(select, some))
    return left
