"""SQLITE, with databases that are files of the store."""

from __future__ import annotations

import asyncio
import contextlib
import json
import sqlite3

import pytest

from headrace.engine import errors
from headrace.tasks import sqlite
from headrace.tasks.sql import STATEMENTS

DATABASE = "headrace:shop/a.db"


@pytest.fixture
def sql(call):
    async def run(**inputs):
        return await call("SQLITE", **{"database": DATABASE, **inputs})

    return run


@pytest.fixture
async def table(sql):
    await sql(script="CREATE TABLE t (id INTEGER PRIMARY KEY, name TEXT); INSERT INTO t VALUES (1, 'a')")


async def _failure(coroutine) -> str:
    with pytest.raises(errors.TaskFailed) as failed:
        await coroutine
    return failed.value.message


async def test_rows_a_row_and_a_value_come_back(sql, table):
    assert (await sql(execute="INSERT INTO t VALUES (?, ?), (3, null)", args=[2, "ü'\""]))["row_count"] == 2
    every = [{"id": 1, "name": "a"}, {"id": 2, "name": "ü'\""}, {"id": 3, "name": None}]
    assert await sql(fetch="SELECT * FROM t ORDER BY id") == {"result": every, "row_count": 3}
    assert (await sql(fetchrow="SELECT * FROM t ORDER BY id"))["result"] == every[0]
    assert (await sql(fetchval="SELECT count(*) FROM t"))["result"] == 3
    assert (await sql(fetch="SELECT * FROM t WHERE id > 9"))["result"] == []


async def test_the_file_is_a_database_for_everybody(sql, table, context, tmp_path):
    await sql(executemany="INSERT INTO t VALUES (?, ?)", args=[[5, "e"], [6, "f"]])
    with contextlib.closing(sqlite3.connect(context.files.root / "shop/a.db")) as other:
        assert other.execute("SELECT group_concat(id) FROM t").fetchall() == [("1,5,6",)]
        other.execute("PRAGMA journal_mode = WAL")
        other.execute("INSERT INTO t VALUES (7, 'g')")
        other.commit()
    assert (await sql(fetchval="SELECT max(id) FROM t"))["result"] == 7
    await sql(execute="VACUUM")


async def test_values_have_a_form_in_json(sql):
    text = "SELECT x'00ff' AS bytes, 1.5 AS float, json_extract(?, '$.k[0]') AS json, ? AS yes"
    row = (await sql(database=":memory:", fetchrow=text, args=[{"k": [4]}, True]))["result"]
    assert row == {"bytes": "AP8=", "float": 1.5, "json": 4, "yes": 1}


async def test_what_fails_leaves_the_file_as_it_was(sql, table, context):
    before = context.files.read("shop/a.db")
    many = {"executemany": "INSERT INTO t VALUES (?, ?)", "args": [[5, "e"], [1, "again"]]}
    assert "UNIQUE constraint failed: t.id" in await _failure(sql(**many))
    assert "no such table: u" in await _failure(sql(script="DELETE FROM t; SELECT * FROM u"))
    assert context.files.read("shop/a.db") == before
    assert (await sql(fetchval="SELECT count(*) FROM t"))["result"] == 1


async def test_what_changes_nothing_stores_nothing(sql, table, context):
    path = context.files.root / "shop/a.db"
    before = path.stat().st_mtime_ns
    await sql(fetch="SELECT * FROM t")
    assert path.stat().st_mtime_ns == before


async def test_nothing_can_be_changed_read_only(sql, table, tasks):
    for text in ("DELETE FROM t", "PRAGMA query_only = OFF; DELETE FROM t"):
        await _failure(sql(script=text, read_only=True))
    assert (await sql(fetchval="SELECT count(*) FROM t", read_only=True))["result"] == 1
    assert "there is no file other.db" in await _failure(
        sql(database="headrace:other.db", fetch="SELECT 1", read_only=True)
    )
    inputs = {"database": DATABASE, "fetch": "SELECT 1"}
    assert not tasks.prepare("SQLITE", json.dumps(inputs).encode()).idempotent
    assert tasks.prepare("SQLITE", json.dumps({**inputs, "read_only": True}).encode()).idempotent


@pytest.mark.parametrize(
    "text",
    ["ATTACH '{}' AS other", "VACUUM INTO '{}'", "SELECT load_extension('{}')", "PRAGMA temp_store_directory = '{}'"],
)
async def test_statements_reach_no_other_file(sql, tmp_path, text):
    other = tmp_path / "other.db"
    assert "authori" in await _failure(sql(execute=text.format(other)))
    assert not other.exists()


async def test_files_of_the_host_are_for_developer_mode(sql, context, tmp_path):
    path = str(tmp_path / "höst ?.db")
    assert "in developer mode only" in await _failure(sql(database=path, execute="CREATE TABLE t (a)"))
    context.allow_local_files = True
    await sql(database=path, execute="CREATE TABLE t (a)")
    assert (await sql(database=path, fetchval="SELECT count(*) FROM t", read_only=True))["result"] == 0
    await _failure(sql(database=path, execute="DELETE FROM t", read_only=True))


async def test_tasks_on_one_file_wait_for_each_other(sql, table):
    add = "INSERT INTO t (name) VALUES ('x')"
    await asyncio.gather(*(sql(execute=add) for _ in range(8)))
    assert (await sql(fetchval="SELECT count(*) FROM t"))["result"] == 9
    assert (await sql(fetchval="INSERT INTO t (name) VALUES ('y'), ('z') RETURNING id"))["result"] == 10
    assert (await sql(fetchval="SELECT max(id) FROM t"))["result"] == 11


ENDLESS = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) "


async def test_cancelled_a_statement_without_end_ends(sql, table):
    work = asyncio.create_task(sql(fetchval=ENDLESS + "SELECT count(*) FROM n"))
    await asyncio.sleep(0.05)
    work.cancel()
    with pytest.raises(asyncio.CancelledError):
        await work
    assert (await sql(fetchval="SELECT count(*) FROM t"))["result"] == 1  # nobody holds the file any more


async def test_results_and_databases_are_bounded(sql, table, monkeypatch):
    assert "there are more than 5 rows" in await _failure(sql(fetch=ENDLESS + "SELECT i FROM n", max_rows=5))
    assert "64 MiB as JSON" in await _failure(sql(fetch=ENDLESS + "SELECT hex(zeroblob(5000000)) FROM n"))
    assert "too big" in await _failure(sql(fetchval="SELECT zeroblob(100000000)"))
    monkeypatch.setattr(sqlite, "DATABASE_BYTES_MAX", 100_000)
    fill = ENDLESS + "INSERT INTO t (name) SELECT hex(zeroblob(1000)) FROM n"
    assert "database or disk is full" in await _failure(sql(execute=fill))


async def test_a_file_that_is_no_database_is_told(sql, context):
    context.files.write("shop/a.db").commit()
    assert (await sql(fetchval="SELECT 1"))["result"] == 1  # an empty file is an empty database
    for content in (b"hello" * 1000, b"SQLite format 3\0" + b"\xff" * 5000):
        writer = context.files.write("shop/a.db")
        writer.write(content)
        writer.commit()
        assert "the file is not a database of SQLite" in await _failure(sql(fetchval="SELECT 1"))


@pytest.mark.parametrize(
    ("inputs", "message"),
    [
        ({}, f"SQLITE needs the input 'fetch': the statement, in one of {', '.join(STATEMENTS)}"),
        (
            {"fetch": "a", "execute": "b"},
            "SQLITE cannot use the input 'execute': there is a statement already in 'fetch'; give one of them",
        ),
        ({"fetch": " "}, "SQLITE cannot use the input 'fetch': expected a statement, got an empty text"),
        ({"executemany": "x"}, "SQLITE needs the input 'args': a list of lists, one for each time"),
        ({"executemany": "x", "args": [1]}, "SQLITE cannot use the input 'args': executemany takes a list of lists"),
        ({"script": "x", "args": []}, "SQLITE cannot use the input 'args': a script takes none"),
        ({"fetch": "x", "max_rows": 0}, "SQLITE cannot use the input 'max_rows': expected a whole number >= 1"),
        ({"fetch": "x", "database": "a.db"}, "SQLITE cannot use the input 'database': expected headrace:<path>"),
        ({"fetch": "x", "database": "headrace:"}, "SQLITE cannot use the input 'database': expected headrace:<path>"),
    ],
)
def test_inputs_that_cannot_be_used(tasks, inputs, message):
    with pytest.raises(errors.InputRefused) as refused:
        tasks.prepare("SQLITE", json.dumps(inputs).encode())
    assert refused.value.message == message
