"""MYSQL, with a MariaDB that runs: what it does otherwise than other SQL types (test_sql.py)."""

from __future__ import annotations

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


async def test_a_script_is_executed_to_its_first_error(sql, table):
    assert "(1146)" in await _failure(sql(script=f"SELECT 1; DELETE FROM {table}; SELECT * FROM nowhere; SELECT 1"))
    assert (await sql(fetchval=f"SELECT count(*) FROM {table}"))["result"] == 0


async def test_one_statement_is_one(sql, table):
    assert "(1064)" in await _failure(sql(execute=f"SELECT 1; DELETE FROM {table}"))
    assert (await sql(fetchval=f"SELECT count(*) FROM {table}"))["result"] == 1


async def test_nothing_can_be_changed_read_only(sql, table):
    for text in (f"DELETE FROM {table}", f"DROP TABLE {table}"):
        assert "READ ONLY transaction (1792)" in await _failure(sql(execute=text, read_only=True))
    assert (await sql(fetchval=f"SELECT count(*) FROM {table}", read_only=True))["result"] == 1


async def test_tls_is_spoken_as_asked(sql, certs):
    own = {"fetchrow": "SHOW STATUS LIKE 'Ssl_version'", "cacert": certs.text("ca.crt")}
    assert (await sql(**own))["result"]["Value"].startswith("TLS")
    pair = {"client_cert": certs.text("client.crt"), "client_key": certs.text("client.key")}
    assert (await sql(**own, **pair))["result"]["Value"].startswith("TLS")
    assert (await sql(**{**own, "cacert": None}, use_tls=True, verify_ssl=False))["result"]["Value"].startswith("TLS")
    assert (await sql(fetchrow=own["fetchrow"], use_tls=False))["result"]["Value"] == ""
