"""SQLORACLE, with a server that speaks Oracle's protocol: what it does otherwise than other SQL types (test_sql.py)."""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
import struct
import time

import pytest
from seerdb.server import PacketStream

from headrace.engine import errors
from headrace.tasks import definition, egress, host, registry, retry, sqloracle
from tests.support import oracle_server
from tests.support.oracle_server import Server

PASSWORD = "pass-word-of-the-tests"
#: Types of packets of the listener's.
_REFUSE, _REDIRECT, _DATA = 4, 5, 6


class Guarded(egress.Egress):
    """An operator who forbids one address."""

    def refusal(self, address: str) -> str | None:
        return f"{address} is guarded" if address == "127.0.0.2" else None


@pytest.fixture
def served(tmp_path):
    """Start a server."""
    with contextlib.ExitStack() as stack:
        yield lambda **given: stack.enter_context(
            oracle_server.served(Server(tmp_path / "data", password=PASSWORD, **given))
        )


@pytest.fixture
def server(served) -> Server:
    return served()


def _access(port: int) -> dict:
    given = {"hostname": "127.0.0.1", "port": port, "username": "app", "password": PASSWORD, "database": "app"}
    return {**given, "retry_backoff": False}


@pytest.fixture
def sql(call, server: Server):
    async def run(**inputs):
        return await call("ORACLE", **{**_access(server.port), **inputs})

    return run


@pytest.fixture
async def table(sql):
    await sql(execute="CREATE TABLE t (id int PRIMARY KEY, name text)")
    await sql(execute="INSERT INTO t VALUES (1, 'a')")
    return "t"


async def _failure(coroutine) -> str:
    with pytest.raises(errors.TaskFailed) as failed:
        await coroutine
    assert PASSWORD not in failed.value.message
    return failed.value.message


def _packet(kind: int, content: bytes) -> bytes:
    return struct.pack(">HHBBH", len(content) + 8, 0, kind, 0, 0) + content


@contextlib.asynccontextmanager
async def listener(says: bytes):
    """Give the port of one that answers everybody alike."""

    async def answer(reader, writer):
        await reader.read(1)
        writer.write(says)
        await reader.read()  # until the client closes: if we closed with a part of its packets unread, a reset would
        writer.close()  # overtake what we say

    async with await asyncio.start_server(answer, "127.0.0.1", 0) as listening:
        yield listening.sockets[0].getsockname()[1]


def _sends_on(hostname: str, port: int) -> bytes:
    where = f"(ADDRESS=(PROTOCOL=TCP)(HOST={hostname})(PORT={port}))\0(DESCRIPTION=(CONNECT_DATA=(SERVICE_NAME=app)))"
    return _packet(_REDIRECT, struct.pack(">H", len(where))) + _packet(_DATA, b"\0\0" + where.encode())


@pytest.mark.parametrize("version", [7, 12, 24], ids=["12.1", "19c", "23ai"])
async def test_every_version_of_the_protocol_is_spoken(call, served, version):
    given = {**_access(served(version=version).port), "fetch": "SELECT :1 AS n, :2 AS t FROM dual"}
    assert (await call("ORACLE", **given, args=[2**60, "ü" * 3000]))["result"] == [{"n": 2**60, "t": "ü" * 3000}]


async def test_every_kind_of_value_has_a_form_in_json(sql):
    row = await sql(
        fetchrow="""SELECT 9007199254740993 AS big, '12345678901234567.89' AS "exact [decimal]", -0.5 AS float,
        x'00ff' AS bytes, '2026-02-03' AS "date [date]", '2026-02-03 04:05:06.7' AS "at [timestamp]", 'ü' AS text,
        'a long text' AS "long [clob]", NULL AS none"""
    )
    assert row["result"] == {
        "big": 9007199254740993, "exact": "12345678901234567.89", "float": -0.5, "bytes": "AP8=",
        "date": "2026-02-03T00:00:00", "at": "2026-02-03T04:05:06.700000", "text": "ü", "long": "a long text",
        "none": None,
    }  # fmt: skip


async def test_arguments_are_values_and_never_part_of_the_statement(sql):
    text = "SELECT :1 AS quoted, :2 AS json, :3 AS none, :4 AS part"
    row = await sql(fetchrow=text, args=["'; DROP TABLE t --", {"k": [1]}, None, 1.5])
    assert row["result"] == {"quoted": "'; DROP TABLE t --", "json": '{"k":[1]}', "none": None, "part": "1.5"}
    assert "DPY-4009" in await _failure(sql(fetchval="SELECT :1", args=[1, 2]))


async def test_nothing_can_be_changed_read_only(sql, table):
    assert "ORA-01456" in await _failure(sql(execute="DELETE FROM t", read_only=True))
    assert (await sql(fetchval="SELECT count(*) FROM t", read_only=True))["result"] == 1


@pytest.mark.parametrize(("number", "tries"), [(60, 2), (904, 1)])
async def test_some_errors_pass(sql, pacing, number, tries):
    said = await _failure(sql(fetch=f"SELECT raise_error({number}, 'no')", retry_backoff={"initial": 1, "deadline": 2}))
    assert f"ORA-{number:05}: no" in said and len(pacing.pauses) == tries - 1


async def test_many_rows_come_in_several_answers(sql):
    numbers = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 5000) SELECT i FROM n"
    assert (await sql(fetch=numbers))["result"] == [{"i": number} for number in range(1, 5001)]


@pytest.mark.parametrize(
    ("number", "said", "tries"),
    [(12514, "DPY-6001", 2), (12516, "DPY-6000", 2), (12505, "DPY-6003", 1)],
)
async def test_what_a_listener_refuses_is_told(call, pacing, number, said, tries):
    why = f"(DESCRIPTION=(ERR={number})(VSNNUM=301989888)(ERROR_STACK=(ERROR=(CODE={number})(EMFI=4))))".encode()
    async with listener(_packet(_REFUSE, b"\x22\0" + struct.pack(">H", len(why)) + why)) as port:
        again = {"retry_backoff": {"initial": 1, "deadline": 2}}
        told = await _failure(call("ORACLE", **{**_access(port), **again}, fetch="SELECT 1"))
    assert said in told and len(pacing.pauses) == tries - 1


async def test_to_where_a_listener_sends_us_we_go_as_the_operator_lets_us(call, context, server):
    async with listener(_sends_on("127.0.0.1", server.port)) as port:
        assert (await call("ORACLE", **_access(port), fetchval="SELECT 5"))["result"] == 5
    with socket.create_server(("127.0.0.2", 0)) as forbidden:
        forbidden.settimeout(0.05)
        async with listener(_sends_on(*forbidden.getsockname())) as port:
            guarded = registry.installed(definition.Settings(egress=Guarded(), pacing=retry.Pacing()))
            prepared = guarded.prepare("ORACLE", json.dumps({**_access(port), "fetch": "SELECT 1"}).encode())
            assert "127.0.0.2 is guarded" in await _failure(prepared.run(context))
            with pytest.raises(TimeoutError):
                forbidden.accept()
            await guarded.aclose()


async def test_of_several_addresses_the_first_that_takes_connections_counts(sql, monkeypatch):
    async def several(*_):
        return ["127.0.0.3", "127.0.0.1"]

    monkeypatch.setattr(host, "addresses", several)
    assert (await sql(fetchval="SELECT 5"))["result"] == 5


async def test_cancelled_it_does_not_wait_for_a_server_that_answers_nothing(sql, server, monkeypatch):
    monkeypatch.setattr(sqloracle, "_LEAVE_S", 0.2)
    work = asyncio.create_task(sql(execute="SELECT doze(3)"))
    while not server.running:
        await asyncio.sleep(0.01)
    work.cancel()
    with pytest.raises(asyncio.CancelledError):
        await work
    assert server.running == ["SELECT doze(3)"], "it is at it still"


async def test_what_is_done_counts_though_the_server_does_not_say_good_bye(sql, table, monkeypatch):
    commit, counted = oracle_server._Session.commit, []

    def dozing(session):
        commit(session)
        counted.append(session)
        if len(counted) > 1:  # the second is that of the end of the session
            time.sleep(1)

    monkeypatch.setattr(sqloracle, "_LEAVE_S", 0.2)
    monkeypatch.setattr(oracle_server._Session, "commit", dozing)
    assert (await sql(execute="INSERT INTO t VALUES (2, 'b')"))["row_count"] == 1
    monkeypatch.undo()
    assert (await sql(fetchval="SELECT count(*) FROM t"))["result"] == 2


@pytest.mark.parametrize("babble", [b"", b"\x07" * 9000, b"\x10\x00\xff\xff" * 2000, b"\xff" * 10])
async def test_nonsense_after_the_login_is_told_as_that(sql, server, monkeypatch, babble):
    send = PacketStream.write_packet

    def babbling(stream, kind, body, *more, **named):
        send(stream, kind, babble if server.running else body, *more, **named)

    monkeypatch.setattr(sqloracle, "_LEAVE_S", 0.2)
    monkeypatch.setattr(PacketStream, "write_packet", babbling)
    server.running.append("everything is nonsense from now on")
    await _failure(sql(fetch="SELECT 1", connect_timeout=2))
