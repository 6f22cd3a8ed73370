"""What all SQL types that talk to a server do alike, with servers that run.

SQL Server's is a double of ours, Oracle's one that others made of its protocol: both execute SQLite's statements.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import json
import pathlib
import uuid
from collections.abc import Callable

import pytest

from headrace.engine import errors, values
from tests.support import services
from tests.support.services import Service


@dataclasses.dataclass(frozen=True)
class Product:
    """A database: how its task type is called, and how it says what the tests need."""

    type: str
    served: Callable[[pathlib.Path], contextlib.AbstractContextManager[Service]]
    scheme: str
    endless: str  #: a column of more rows than anybody takes
    large: str  #: many rows of 100,000 characters
    lasting: str  #: what a SELECT with this in it takes longer for than a test has
    running: str  #: how many statements run that hold the text which is the argument
    kill: str  #: ends the connection it comes over
    killed: str
    again: str  #: of a row whose key is there
    absent: str  #: of a table that is not there
    wrong_password: str
    wrong_database: str  #: empty where the listener tells, which tests have elsewhere
    wrong_name: str  #: of a certificate that is of another host
    untrusted: str
    marks: str = "%s"

    def fill(self, text: str) -> str:
        """Return a statement with this product's placeholders instead of ?."""
        for number in range(text.count("?")):
            text = text.replace("?", self.marks.format(number + 1), 1)
        return text


MYSQL = Product(
    "MYSQL", services.mariadb, "mysql",
    endless="SELECT seq FROM seq_1_to_1000000000000",
    large="SELECT repeat('x', 100000) FROM seq_1_to_100",
    lasting="sleep(55)",
    running="SELECT count(*) FROM information_schema.processlist WHERE info LIKE ? AND id <> connection_id()",
    kill="KILL CONNECTION connection_id()",
    killed="killed",
    again="Duplicate entry '1' for key 'PRIMARY' (1062)",
    absent="doesn't exist (1146)",
    wrong_password="Access denied for user 'app'",
    wrong_database="(1044)",
    wrong_name="Hostname mismatch",
    untrusted="certificate of 127.0.0.1",
)  # fmt: skip
POSTGRESQL = Product(
    "SQLPG", services.postgresql, "postgresql",
    endless="SELECT generate_series(1, 1000000000)",
    large="SELECT repeat('x', 100000) FROM generate_series(1, 100)",
    lasting="(SELECT 1 FROM pg_sleep(55))",
    running="SELECT count(*) FROM pg_stat_activity WHERE query LIKE ?::text AND pid <> pg_backend_pid()",
    kill="SELECT pg_terminate_backend(pg_backend_pid()), pg_sleep(50)",
    killed="(57P01)",
    again='duplicate key value violates unique constraint',
    absent="does not exist (42P01)",
    wrong_password='password authentication failed for user "app"',
    wrong_database='database "nowhere" does not exist',
    wrong_name='does not match host name "localhost"',
    untrusted="certificate verify failed",
    marks="${}",
)  # fmt: skip
_COUNTED = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT"
SQL_SERVER = Product(
    "SQLMSSQL", services.sql_server, "mssql",
    endless=f"{_COUNTED} i FROM n",
    large=f"{_COUNTED} printf('%.100000c', 'x') FROM n",
    lasting=f"({_COUNTED} max(i) FROM n)",
    running="SELECT running(?)",
    kill="SELECT hang_up()",
    killed="Server closed connection",
    again="(2627)",
    absent="Invalid object name 'not_there'. (208)",
    wrong_password="Login failed for user 'app'. (18456)",
    wrong_database='Cannot open database "nowhere" requested by the login.',
    wrong_name="Certificate does not match host name 'localhost'",
    untrusted="certificate of 127.0.0.1",
)  # fmt: skip
ORACLE = Product(
    "SQLORACLE", services.oracle, "oracle",
    endless=f"{_COUNTED} i FROM n LIMIT 20000",
    large=f"{_COUNTED} printf('%.100000c', 'x') FROM n LIMIT 20",
    lasting="doze(0.5)",
    running="SELECT running(?)",
    kill="SELECT raise_error(28, 'your session has been killed')",
    killed="ORA-00028",
    again="ORA-00001",
    absent="ORA-00942",
    wrong_password="ORA-01017",
    wrong_database="",
    wrong_name="Hostname mismatch",
    untrusted="certificate of 127.0.0.1",
    marks=":{}",
)  # fmt: skip
PRODUCTS = [MYSQL, POSTGRESQL, SQL_SERVER, ORACLE]


@pytest.fixture(scope="module", params=PRODUCTS, ids=lambda product: product.type)
def product(request) -> Product:
    return request.param


@pytest.fixture(scope="module")
def server(product: Product, certs):
    with product.served(certs.folder) as running:
        yield running


@pytest.fixture
def sql(call, server: Service, product: Product):
    async def run(**inputs):
        given = {
            name: product.fill(one) if name in ("fetch", "fetchval", "execute", "executemany") else one
            for name, one in inputs.items()
        }
        return await call(product.type, **{**server.access, "database": "app", "retry_backoff": False, **given})

    return run


@pytest.fixture
async def table(sql):
    name = f"t{uuid.uuid4().hex}"
    await sql(execute=f"CREATE TABLE {name} (id int PRIMARY KEY, name varchar(99))")
    await sql(execute=f"INSERT INTO {name} VALUES (1, 'a')")
    return name


async def _failure(coroutine) -> str:
    with pytest.raises(errors.TaskFailed) as failed:
        await coroutine
    return failed.value.message


async def test_rows_a_row_and_a_value_come_back(sql, table):
    inserted = await sql(execute=f"INSERT INTO {table} VALUES (?, ?), (3, null)", args=[2, "b'\"ü"])
    assert inserted["row_count"] == 2
    every = [{"id": 1, "name": "a"}, {"id": 2, "name": "b'\"ü"}, {"id": 3, "name": None}]
    assert await sql(fetch=f"SELECT * FROM {table} ORDER BY id") == {"result": every, "row_count": 3}
    assert (await sql(fetchrow=f"SELECT * FROM {table} ORDER BY id"))["result"] == every[0]
    assert (await sql(fetchval=f"SELECT count(*) FROM {table}"))["result"] == 3
    nothing = f"SELECT * FROM {table} WHERE id > 9"
    assert [(await sql(**{mode: nothing}))["result"] for mode in ("fetch", "fetchrow", "fetchval")] == [[], None, None]
    assert (await sql(execute=f"UPDATE {table} SET name = 'z' WHERE id > ?", args=[1]))["row_count"] == 2
    await sql(execute=f"SELECT * FROM {table}")


async def test_many_are_all_or_none(sql, product, table):
    many = f"INSERT INTO {table} VALUES (?, ?)"
    assert (await sql(executemany=many, args=[[5, "e"], [6, "f"]]))["row_count"] == 2
    assert (await sql(executemany=f"DELETE FROM {table} WHERE id > ?", args=[[4], [4], [9]]))["row_count"] == 2
    one_by_one = f"{many} -- one by one"
    assert product.again in await _failure(sql(executemany=one_by_one, args=[[7, "g"], [1, "again"]]))
    assert (await sql(fetchval=f"SELECT max(id) FROM {table}"))["result"] == 1


async def test_a_sign_of_percent_is_one_where_there_are_no_arguments(sql):
    assert (await sql(fetchval="SELECT '50%' -- %s"))["result"] == "50%"


async def test_too_many_rows_are_a_failure_and_the_server_stops(sql, product, monkeypatch):
    said = await _failure(sql(fetch=product.endless, max_rows=5))
    assert said.endswith("there are more than 5 rows: ask for fewer of them, or give a larger max_rows")
    assert (await sql(fetchrow=product.endless))["row_count"] == 1
    monkeypatch.setattr(values, "VALUE_BYTES_MAX", 1 << 20)
    assert "1 MiB as JSON" in await _failure(sql(fetch=product.large))
    await _until_nothing_runs(sql, product, product.endless)


async def _until_nothing_runs(sql, product: Product, part: str) -> None:
    while (await sql(fetchval=product.running, args=[f"%{part}%"]))["result"]:
        await asyncio.sleep(0.01)


async def test_cancelled_the_statement_ends_at_the_server_too(sql, product, table):
    work = asyncio.create_task(sql(execute=f"INSERT INTO {table} SELECT 9, {product.lasting}"))
    while (await sql(fetchval=product.running, args=[f"%{product.lasting}%"]))["result"] == 0:
        await asyncio.sleep(0.01)
    work.cancel()
    with pytest.raises(asyncio.CancelledError):
        await work
    await _until_nothing_runs(sql, product, product.lasting)  # it ends by itself only after the test's time
    assert (await sql(fetchval=f"SELECT count(*) FROM {table} WHERE id = 9"))["result"] == 0


async def test_what_only_reads_may_be_repeated(tasks, product):
    given = {"hostname": "x", "database": "app", "fetch": "SELECT 1"}
    assert tasks.prepare(product.type, json.dumps({**given, "read_only": True}).encode()).idempotent
    assert not tasks.prepare(product.type, json.dumps(given).encode()).idempotent


async def test_columns_of_one_name_are_told(sql, context):
    assert (await sql(fetchrow="SELECT 1 AS a, 2 AS a"))["result"] == {"a": 2}
    assert context.lines == [("WARNING", "several columns are called a: name them with AS")]


async def test_rows_go_into_a_file(sql, product, table, context):
    told = await sql(fetch="SELECT 1 AS n, NULL AS x UNION SELECT 2, NULL ORDER BY n", dst="headrace:a.csv")
    assert told == {"result": None, "row_count": 2, "size": len(context.files.read("a.csv"))}
    assert context.files.read("a.csv") == b"n,x\r\n1,\r\n2,\r\n"
    await sql(fetch=f"SELECT * FROM {table} WHERE id > 9", dst="headrace:none.csv")
    # The library of PostgreSQL knows no names when there are no rows.
    assert context.files.read("none.csv") == (b"" if product is POSTGRESQL else b"id,name\r\n")
    assert product.absent in await _failure(sql(fetch="SELECT * FROM not_there", dst="headrace:none.csv"))
    assert context.files.names() == ["a.csv", "none.csv"]


async def test_all_of_it_may_be_one_address(call, product, server):
    dsn = f"{product.scheme}://app:{services.PASSWORD}@127.0.0.1:{server.port}/app"
    assert (await call(product.type, dsn=dsn, fetchval="SELECT 5"))["result"] == 5


async def test_wrong_credentials_are_refused_and_not_shown(sql, product, context):
    said = await _failure(sql(fetchval="SELECT 1", password="not-the-password"))
    assert product.wrong_password in said
    assert "not-the-password" not in said + context.text
    if product.wrong_database:
        assert product.wrong_database in await _failure(sql(fetchval="SELECT 1", database="nowhere"))


async def test_a_certificate_is_checked_for_its_name(sql, product, server, certs):
    own = {"fetchval": "SELECT 5", "cacert": certs.text("ca.crt"), "port": server.tls_port or server.port}
    assert (await sql(**own))["result"] == 5
    assert product.untrusted in await _failure(sql(**{**own, "cacert": None}, use_tls=True))
    assert product.wrong_name in await _failure(sql(**own, hostname="localhost"))


async def test_a_connection_that_is_ended_is_a_failure_that_may_pass(sql, product, pacing):
    assert product.killed in await _failure(sql(execute=product.kill))
    await _failure(sql(execute=product.kill, retry_backoff={"initial": 1, "deadline": 2}))
    assert pacing.pauses == [1.0]
