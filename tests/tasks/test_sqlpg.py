"""SQLPG, with a PostgreSQL that runs: what it does otherwise than other SQL types (test_sql.py)."""

from __future__ import annotations

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


async def test_a_script_is_one_transaction(sql, table):
    await _failure(sql(script=f"DELETE FROM {table}; SELECT 1/0"))
    assert (await sql(fetchval=f"SELECT count(*) FROM {table}"))["result"] == 1


async def test_nothing_can_be_changed_read_only(sql, table):
    assert "read-only transaction (25006)" in await _failure(
        sql(fetch=f"DELETE FROM {table} RETURNING id", read_only=True)
    )
    assert (await sql(fetchval=f"SELECT count(*) FROM {table}", read_only=True))["result"] == 1


async def test_what_the_server_notices_is_in_the_log(sql, context):
    await sql(execute="DROP TABLE IF EXISTS not_there")
    assert context.lines == [("INFO", 'NOTICE: table "not_there" does not exist, skipping')]


async def test_what_is_protected_is_not_quoted(sql):
    said = await _failure(sql(fetchval="SELECT $1::int", args=["hush-hush-hush"], protect_inputs=["args"]))
    assert "hush" not in said and 'invalid input syntax for type integer: "***" (22P02)' in said


async def test_tls_is_spoken_as_asked(sql, certs):
    own = {"fetchval": "SELECT version FROM pg_stat_ssl WHERE pid = pg_backend_pid()", "cacert": certs.text("ca.crt")}
    assert (await sql(**own))["result"].startswith("TLS")
    pair = {"client_cert": certs.text("client.crt"), "client_key": certs.text("client.key")}
    client = "SELECT client_dn FROM pg_stat_ssl WHERE pid = pg_backend_pid()"
    assert (await sql(**{**own, **pair, "fetchval": client}))["result"] == "/CN=client"
    assert (await sql(**{**own, "cacert": None}, use_tls=True, verify_ssl=False))["result"].startswith("TLS")
