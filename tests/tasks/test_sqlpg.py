"""SQLPG, with a PostgreSQL that runs."""

from __future__ import annotations

import asyncio
import json
import uuid

import pytest

from headrace.engine import errors
from tests.support import services
from tests.support.services import Service


@pytest.fixture(scope="module")
def server(certs):
    with services.postgresql(certs.folder) as running:
        yield running


@pytest.fixture
def sql(call, server: Service):
    async def run(**inputs):
        return await call("SQLPG", **{**server.access, "retry_backoff": False, **inputs})

    return run


@pytest.fixture
async def table(sql):
    name = f"t{uuid.uuid4().hex}"
    await sql(script=f"CREATE TABLE {name} (id int PRIMARY KEY, name text); INSERT INTO {name} VALUES (1, 'a')")
    return name


async def _failure(coroutine) -> str:
    with pytest.raises(errors.TaskFailed) as failed:
        await coroutine
    return failed.value.message


async def test_rows_a_row_and_a_value_come_back(sql, table):
    assert await sql(execute=f"INSERT INTO {table} VALUES ($1, $2), (3, null)", args=[2, "b'\"ü"]) == {
        "result": "INSERT 0 2",
        "row_count": 2,
    }
    every = [{"id": 1, "name": "a"}, {"id": 2, "name": "b'\"ü"}, {"id": 3, "name": None}]
    assert await sql(fetch=f"SELECT * FROM {table} ORDER BY id") == {"result": every, "row_count": 3}
    assert (await sql(fetchrow=f"SELECT * FROM {table} ORDER BY id"))["result"] == every[0]
    assert (await sql(fetchval=f"SELECT count(*) FROM {table}"))["result"] == 3
    nothing = f"SELECT * FROM {table} WHERE id > 9"
    assert [(await sql(**{mode: nothing}))["result"] for mode in ("fetch", "fetchrow", "fetchval")] == [[], None, None]


async def test_every_kind_of_value_has_a_form_in_json(sql):
    row = (
        await sql(
            fetchrow="""SELECT 9007199254740993 AS big, 12.50::numeric AS exact, 0.5::float8 AS float,
        'NaN'::float8 AS nan, true AS bool, '\\x00ff'::bytea AS bytes, DATE '2026-02-03' AS date,
        TIMESTAMPTZ '2026-02-03 04:05:06+00' AS at, INTERVAL '90 s' AS span, '{"a": [1, null]}'::jsonb AS json,
        ARRAY['x', null] AS list, '10.0.0.0/8'::cidr AS net, int4range(1, 3) AS range,
        '0e37df36-f698-11e6-8dd4-cb9ced3df976'::uuid AS id"""
        )
    )["result"]
    assert row == {
        "big": 9007199254740993, "exact": "12.50", "float": 0.5, "nan": None, "bool": True, "bytes": "AP8=",
        "date": "2026-02-03", "at": "2026-02-03T04:05:06Z", "span": "PT90S", "json": {"a": [1, None]},
        "list": ["x", None], "net": "10.0.0.0/8", "range": "[1, 3)", "id": "0e37df36-f698-11e6-8dd4-cb9ced3df976",
    }  # fmt: skip


async def test_the_server_decides_what_an_argument_is(sql):
    text = (
        "SELECT $1::date - 1 AS day, $2 || 'x' AS text, $3::jsonb -> 'k' AS json, 5 = ANY($4) AS among, $5::int AS none"
    )
    row = (await sql(fetchrow=text, args=["2026-03-01", "a", {"k": [1]}, [4, 5], None]))["result"]
    assert row == {"day": "2026-02-28", "text": "ax", "json": [1], "among": True, "none": None}


async def test_many_are_all_or_none(sql, table):
    many = f"INSERT INTO {table} VALUES ($1, $2)"
    assert (await sql(executemany=many, args=[[5, "e"], [6, "f"]]))["row_count"] == 2
    said = await _failure(sql(executemany=many, args=[[7, "g"], [1, "again"]]))
    assert "duplicate key value violates unique constraint" in said and "(23505)" in said
    assert (await sql(fetchval=f"SELECT max(id) FROM {table}"))["result"] == 6


async def test_a_script_is_one_transaction(sql, table):
    await _failure(sql(script=f"DELETE FROM {table}; SELECT 1/0"))
    assert (await sql(fetchval=f"SELECT count(*) FROM {table}"))["result"] == 1


async def test_nothing_can_be_changed_read_only(sql, tasks, table):
    assert "read-only transaction (25006)" in await _failure(
        sql(fetch=f"DELETE FROM {table} RETURNING id", read_only=True)
    )
    assert (await sql(fetchval=f"SELECT count(*) FROM {table}", read_only=True))["result"] == 1
    given = {"hostname": "x", "fetch": "SELECT 1"}
    assert tasks.prepare("SQLPG", json.dumps({**given, "read_only": True}).encode()).idempotent
    assert not tasks.prepare("SQLPG", json.dumps(given).encode()).idempotent


async def test_too_many_rows_are_a_failure_and_the_server_is_asked_to_stop(sql):
    said = await _failure(sql(fetch="SELECT generate_series(1, 1000000000)", max_rows=5))
    assert said.endswith("there are more than 5 rows: ask for fewer of them, or give a larger max_rows")
    assert "64 MiB as JSON" in await _failure(sql(fetch="SELECT repeat('x', 10000000) FROM generate_series(1, 100)"))
    assert (await sql(fetchval="SELECT generate_series(1, 1000000000)"))["result"] == 1
    assert (await sql(execute="SELECT * FROM generate_series(1, 100000)"))["row_count"] == 100000


async def test_columns_of_one_name_are_told(sql, context):
    assert (await sql(fetchrow="SELECT 1 AS a, 2 AS a"))["result"] == {"a": 2}
    assert context.lines == [("WARNING", "several columns are called a: name them with AS")]


async def test_what_the_server_notices_is_in_the_log(sql, context):
    await sql(execute="DROP TABLE IF EXISTS not_there")
    assert context.lines == [("INFO", 'NOTICE: table "not_there" does not exist, skipping')]


async def test_rows_go_into_a_file(sql, table, context):
    told = await sql(fetch="SELECT n, NULL AS x FROM generate_series(1, 3) n", dst="headrace:a.csv")
    assert told == {"result": None, "row_count": 3, "size": len(context.files.read("a.csv"))}
    assert context.files.read("a.csv") == b"n,x\r\n1,\r\n2,\r\n3,\r\n"
    await sql(fetch=f"SELECT * FROM {table} WHERE id > 9", dst="headrace:none.csv")
    assert context.files.read("none.csv") == b"", "the library knows no names then"
    assert "exist" in await _failure(sql(fetch="SELECT * FROM not_there", dst="headrace:none.csv"))
    assert context.files.names() == ["a.csv", "none.csv"]


async def test_all_of_it_may_be_one_address(call, server):
    dsn = f"postgresql://app:{services.PASSWORD}@127.0.0.1:{server.port}/app?sslmode=require"
    shown = await call("POSTGRES", dsn=dsn, fetchval="SELECT ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()")
    assert shown["result"] is True


async def test_wrong_credentials_are_refused_and_not_shown(sql, context):
    said = await _failure(sql(fetchval="SELECT 1", password="not-the-password"))
    assert 'password authentication failed for user "app"' in said
    assert "not-the-password" not in said + context.text
    assert 'database "nowhere" does not exist' in await _failure(sql(fetchval="SELECT 1", database="nowhere"))


async def test_what_is_protected_is_not_quoted(sql):
    said = await _failure(sql(fetchval="SELECT $1::int", args=["hush-hush-hush"], protect_inputs=["args"]))
    assert "hush" not in said and 'invalid input syntax for type integer: "***" (22P02)' in said


async def test_a_certificate_is_checked_for_its_name(sql, certs):
    own = {"fetchval": "SELECT version FROM pg_stat_ssl WHERE pid = pg_backend_pid()", "cacert": certs.text("ca.crt")}
    assert (await sql(**own))["result"].startswith("TLS")
    pair = {"client_cert": certs.text("client.crt"), "client_key": certs.text("client.key")}
    client = "SELECT client_dn FROM pg_stat_ssl WHERE pid = pg_backend_pid()"
    assert (await sql(**{**own, **pair, "fetchval": client}))["result"] == "/CN=client"
    assert "certificate verify failed" in await _failure(sql(fetchval="SELECT 1", use_tls=True))
    assert 'does not match host name "localhost"' in await _failure(sql(**own, hostname="localhost"))
    assert (await sql(**{**own, "cacert": None}, use_tls=True, verify_ssl=False))["result"].startswith("TLS")


async def _statements(sql) -> int:
    return (await sql(fetchval="SELECT count(*) FROM pg_stat_activity WHERE query LIKE '%pg_sleep(55)'"))["result"]


async def test_cancelled_the_statement_ends_at_the_server_too(sql, table):
    work = asyncio.create_task(sql(execute=f"INSERT INTO {table} SELECT 9, 'x' FROM pg_sleep(55)"))
    while await _statements(sql) == 0:
        await asyncio.sleep(0.01)
    work.cancel()
    with pytest.raises(asyncio.CancelledError):
        await work
    while await _statements(sql):  # it ends by itself only after the test's time
        await asyncio.sleep(0.01)
    assert (await sql(fetchval=f"SELECT count(*) FROM {table} WHERE id = 9"))["result"] == 0


async def test_a_server_that_goes_away_is_a_failure_that_may_pass(sql, pacing):
    kill = "SELECT pg_terminate_backend(pg_backend_pid()), pg_sleep(50)"
    assert "(57P01)" in await _failure(sql(fetchval=kill))
    await _failure(sql(fetchval=kill, retry_backoff={"initial": 1, "deadline": 2}))
    assert pacing.pauses == [1.0]
