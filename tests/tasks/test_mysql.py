"""MYSQL, with a MariaDB that runs: what it does otherwise than other SQL types (test_sql.py)."""

from __future__ import annotations

import asyncio
import uuid

import pytest

from headrace.engine import errors
from headrace.tasks import mysql
from tests.support import services
from tests.support.services import Service
from tests.tasks.test_hosts import host


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


class Lying:
    """A server that lets everybody in, and answers a SELECT as it likes; everything else is fine."""

    def __init__(self, said, greeting: bytes | None = None) -> None:
        self._said, self._greeting = said, greeting
        self._came = 0
        self.asked = asyncio.Event()

    async def serve(self, reader, writer) -> None:
        self._came += 1
        if self._came > 1 and self._greeting is not None:
            await _repeated(writer, b"", self._greeting, pause_s=0.01)
        capabilities = 0xF7FF.to_bytes(2, "little"), 0x0008.to_bytes(2, "little")
        hello = b"\x0a5.7\0" + bytes(4) + b"12345678\0" + capabilities[0] + b"\x2d\x02\0" + capabilities[1]
        writer.write(_packet(0, hello + b"\x15" + bytes(10) + b"123456789012\0mysql_native_password\0"))
        await _taken(reader)
        writer.write(_packet(2, _FINE))
        while True:
            if b"SELECT" in await _taken(reader):
                self.asked.set()
                await self._said(writer)
            else:
                writer.write(_packet(1, _FINE))


_FINE = b"\0\0\0\2\0\0\0"
_COLUMN = b"\3def\0\0\0\1x\0\x0c\x3f\0\x0b\0\0\0\3\0\0\0\0\0"


def _packet(number: int, content: bytes) -> bytes:
    return len(content).to_bytes(3, "little") + bytes([number % 256]) + content


async def _taken(reader) -> bytes:
    head = await reader.readexactly(4)
    return await reader.readexactly(int.from_bytes(head[:3], "little"))


async def _repeated(writer, begun: bytes, more: bytes, pause_s: float = 0) -> None:
    writer.write(begun)
    while not writer.is_closing():
        writer.write(more)
        await writer.drain()
        await asyncio.sleep(pause_s)


async def _columns(writer) -> None:
    """Announce more columns than there can be, and send them all."""
    writer.write(_packet(1, b"\xfe" + b"\xff" * 7 + b"\0"))
    await _repeated(writer, b"", b"".join(_packet(2 + n, _COLUMN) for n in range(256)))


async def _row(writer) -> None:
    """Send a row that is always continued."""
    await _rows_begin(writer)
    part = bytes(0xFFFFFF)
    for number in range(4, 4 + 250):
        writer.write(b"\xff\xff\xff" + bytes([number]) + part)
        await writer.drain()


async def _rows_begin(writer) -> None:
    writer.write(_packet(1, b"\1") + _packet(2, _COLUMN) + _packet(3, b"\xfe\0\0\2\0"))


async def _rows(writer) -> None:
    await _rows_begin(writer)
    await _repeated(writer, b"", b"".join(_packet(4 + n, b"\x011") for n in range(256)))


ACCESS = {"hostname": "127.0.0.1", "username": "u", "password": "p", "retry_backoff": False}


@pytest.mark.parametrize(
    ("said", "asked", "words"),
    [
        (_columns, "fetch", "the server sends more than 4,096 columns"),
        (_row, "fetch", "the server says more than 20 MiB at once"),
        (_row, "execute", "the server says more than 20 MiB at once"),
        (_rows, "fetch", "there are more than 10,000 rows"),
    ],
    ids=range(4),
)
async def test_a_server_that_sends_without_end_is_left(call, monkeypatch, said, asked, words):
    monkeypatch.setattr(mysql, "_MESSAGE_BYTES_MAX", 20 << 20)
    monkeypatch.setattr(mysql, "_KILL_S", 0.2)
    async with host(Lying(said).serve) as lying:
        assert words in await _failure(call("MYSQL", **ACCESS, port=lying.port, **{asked: "SELECT 1"}))
        await lying.left_alone()


async def test_a_server_that_dribbles_cannot_hold_who_leaves(call, context, monkeypatch):
    """The second connection, which is to end the first, gets a byte now and then."""
    monkeypatch.setattr(mysql, "_KILL_S", 0.2)
    server = Lying(_rows, greeting=b"\x40")
    async with host(server.serve) as lying:
        work = asyncio.create_task(call("MYSQL", **ACCESS, port=lying.port, execute="SELECT 1"))
        await server.asked.wait()
        work.cancel()
        with pytest.raises(asyncio.CancelledError):
            await work
        await lying.left_alone()
    assert "the statement may go on at the server" in context.text
