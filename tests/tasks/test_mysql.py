"""MYSQL, with a MariaDB that runs."""

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
    with services.mariadb(certs.folder) as running:
        yield running


@pytest.fixture
def sql(call, server: Service):
    async def run(**inputs):
        return await call("MYSQL", **{**server.access, "database": "app", "retry_backoff": False, **inputs})

    return run


@pytest.fixture
async def table(sql):
    name = f"t{uuid.uuid4().hex}"
    made = f"CREATE TABLE {name} (id int PRIMARY KEY, name varchar(99)) CHARSET utf8mb4"
    await sql(script=f"{made}; INSERT INTO {name} VALUES (1, 'a')")
    return name


async def _failure(coroutine) -> str:
    with pytest.raises(errors.TaskFailed) as failed:
        await coroutine
    return failed.value.message


async def test_rows_a_row_and_a_value_come_back(sql, table):
    assert await sql(execute=f"INSERT INTO {table} VALUES (%s, %s), (3, null)", args=[2, "b'\"ü"]) == {
        "result": None,
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
            fetchrow="""SELECT 18446744073709551615 AS big, 12.50 AS exact, 0.5e0 AS `float`, x'00ff' AS bytes,
        DATE '2026-02-03' AS date, TIMESTAMP '2026-02-03 04:05:06.7' AS at, TIME '25:00:01' AS span, 'ü%' AS text"""
        )
    )["result"]
    assert row == {
        "big": 18446744073709551615, "exact": "12.50", "float": 0.5, "bytes": "AP8=", "date": "2026-02-03",
        "at": "2026-02-03T04:05:06.700000", "span": "P1DT3601S", "text": "ü%",
    }  # fmt: skip


async def test_arguments_are_values_and_never_part_of_the_statement(sql):
    text = """SELECT %s AS quoted, JSON_VALUE(%s, '$.k[0]') AS json, 5 IN %s AS among, %s AS none, %s AS yes,
        '100%%' AS sign"""
    row = (await sql(fetchrow=text, args=["'; DROP TABLE t -- \\", {"k": [1]}, [4, 5], None, True]))["result"]
    assert row == {"quoted": "'; DROP TABLE t -- \\", "json": "1", "among": 1, "none": None, "yes": 1, "sign": "100%"}


async def test_many_are_all_or_none(sql, table):
    many = f"INSERT INTO {table} VALUES (%s, %s)"
    assert (await sql(executemany=many, args=[[5, "e"], [6, "f"]]))["row_count"] == 2
    said = await _failure(sql(executemany=f"{many} -- one by one", args=[[7, "g"], [1, "again"]]))
    assert "Duplicate entry '1' for key 'PRIMARY' (1062)" in said
    assert (await sql(fetchval=f"SELECT max(id) FROM {table}"))["result"] == 6


async def test_a_script_is_executed_to_its_first_error(sql, table):
    assert "(1146)" in await _failure(sql(script=f"SELECT 1; DELETE FROM {table}; SELECT * FROM nowhere; SELECT 1"))
    assert (await sql(fetchval=f"SELECT count(*) FROM {table}"))["result"] == 0


async def test_one_statement_is_one(sql, table):
    assert "(1064)" in await _failure(sql(execute=f"SELECT 1; DELETE FROM {table}"))
    assert (await sql(fetchval=f"SELECT count(*) FROM {table}"))["result"] == 1


async def test_nothing_can_be_changed_read_only(sql, tasks, table):
    for text in (f"DELETE FROM {table}", f"DROP TABLE {table}"):
        assert "READ ONLY transaction (1792)" in await _failure(sql(execute=text, read_only=True))
    assert (await sql(fetchval=f"SELECT count(*) FROM {table}", read_only=True))["result"] == 1
    given = {"hostname": "x", "fetch": "SELECT 1"}
    assert tasks.prepare("SQLMY", json.dumps({**given, "read_only": True}).encode()).idempotent
    assert not tasks.prepare("SQLMY", json.dumps(given).encode()).idempotent


MANY = "SELECT 'pg_sleep', seq FROM seq_1_to_1000000000000"


async def _statements(sql, part: str) -> int:
    text = "SELECT count(*) FROM information_schema.processlist WHERE info LIKE %s AND id <> connection_id()"
    return (await sql(fetchval=text, args=[f"%{part}%"]))["result"]


async def test_too_many_rows_are_a_failure_and_the_server_stops(sql):
    said = await _failure(sql(fetch=MANY, max_rows=5))
    assert said.endswith("there are more than 5 rows: ask for fewer of them, or give a larger max_rows")
    assert (await sql(fetchrow=MANY))["row_count"] == 1
    assert "64 MiB as JSON" in await _failure(sql(fetch="SELECT repeat('x', 10000000) FROM seq_1_to_100"))
    assert (await sql(execute="SELECT * FROM seq_1_to_100000"))["result"] is None
    while await _statements(sql, "seq_1_to_1000000000000"):
        await asyncio.sleep(0.01)


async def test_cancelled_the_statement_ends_at_the_server_too(sql, table):
    work = asyncio.create_task(sql(execute=f"INSERT INTO {table} SELECT 9, sleep(55)"))
    while await _statements(sql, "sleep(55)") == 0:
        await asyncio.sleep(0.01)
    work.cancel()
    with pytest.raises(asyncio.CancelledError):
        await work
    while await _statements(sql, "sleep(55)"):  # it ends by itself only after the test's time
        await asyncio.sleep(0.01)
    assert (await sql(fetchval=f"SELECT count(*) FROM {table} WHERE id = 9"))["result"] == 0


async def test_columns_of_one_name_are_told(sql, context):
    assert (await sql(fetchrow="SELECT 1 AS a, 2 AS a"))["result"] == {"a": 2}
    assert context.lines == [("WARNING", "several columns are called a: name them with AS")]


async def test_rows_go_into_a_file(sql, table, context):
    told = await sql(fetch="SELECT 1 AS n, NULL AS x UNION SELECT 2, NULL UNION SELECT 3, NULL", dst="headrace:a.csv")
    assert told == {"result": None, "row_count": 3, "size": len(context.files.read("a.csv"))}
    assert context.files.read("a.csv") == b"n,x\r\n1,\r\n2,\r\n3,\r\n"
    await sql(fetch=f"SELECT * FROM {table} WHERE id > 9", dst="headrace:none.csv")
    assert context.files.read("none.csv") == b"id,name\r\n"
    assert "exist" in await _failure(sql(fetch="SELECT * FROM not_there", dst="headrace:none.csv"))
    assert context.files.names() == ["a.csv", "none.csv"]


async def test_all_of_it_may_be_one_address(call, server):
    dsn = f"mysql://app:{services.PASSWORD}@127.0.0.1:{server.port}/app"
    assert (await call("MYSQL", dsn=dsn, fetchval="SELECT database()"))["result"] == "app"


async def test_wrong_credentials_are_refused_and_not_shown(sql, context):
    said = await _failure(sql(fetchval="SELECT 1", password="not-the-password"))
    assert "Access denied for user 'app'" in said and "(1045)" in said
    assert "not-the-password" not in said + context.text
    assert "(1044)" in await _failure(sql(fetchval="SELECT 1", database="nowhere"))


async def test_a_certificate_is_checked_for_its_name(sql, certs):
    own = {"fetchrow": "SHOW STATUS LIKE 'Ssl_version'", "cacert": certs.text("ca.crt")}
    assert (await sql(**own))["result"]["Value"].startswith("TLS")
    pair = {"client_cert": certs.text("client.crt"), "client_key": certs.text("client.key")}
    assert (await sql(**own, **pair))["result"]["Value"].startswith("TLS")
    assert "certificate of 127.0.0.1" in await _failure(sql(fetchval="SELECT 1", use_tls=True))
    assert "Hostname mismatch" in await _failure(sql(**own, hostname="localhost"))
    assert (await sql(**{**own, "cacert": None}, use_tls=True, verify_ssl=False))["result"]["Value"].startswith("TLS")
    assert (await sql(fetchrow=own["fetchrow"], use_tls=False))["result"]["Value"] == ""


async def test_a_connection_that_was_killed_is_a_failure_that_may_pass(sql, pacing):
    kill = {"execute": "KILL CONNECTION connection_id()"}
    assert "killed" in await _failure(sql(**kill))
    await _failure(sql(**kill, retry_backoff={"initial": 1, "deadline": 2}))
    assert pacing.pauses == [1.0]
