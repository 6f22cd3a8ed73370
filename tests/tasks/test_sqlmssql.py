"""SQLMSSQL, with a double of SQL Server: what it does otherwise than other SQL types (test_sql.py)."""

from __future__ import annotations

import contextlib
import datetime
import ipaddress
import json
import logging
import socket

import OpenSSL.crypto
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec

from headrace.engine import errors
from headrace.tasks import definition, egress, registry, retry, sqlmssql
from tests.support import tds_double
from tests.support.tds_double import Server

PASSWORD = "pass-word-of-the-tests"
#: How the password looks inside of a login ([MS-TDS] 2.2.6.4): each byte turned around and mixed.
HIDDEN = bytes((one >> 4 | (one & 15) << 4) ^ 0xA5 for one in PASSWORD.encode("utf-16le"))


class Guarded(egress.Egress):
    """An operator who forbids one address."""

    def refusal(self, address: str) -> str | None:
        return f"{address} is guarded" if address == "127.0.0.2" else None


@pytest.fixture
def served(tmp_path):
    """Start a double."""
    with contextlib.ExitStack() as stack:
        yield lambda **given: stack.enter_context(
            tds_double.served(Server(tmp_path / "data", password=PASSWORD, **given))
        )


@pytest.fixture
def server(served) -> Server:
    return served()


def _access(server: Server) -> dict:
    given = {"hostname": "127.0.0.1", "port": server.port, "username": "app", "password": PASSWORD}
    return {**given, "retry_backoff": False}


@pytest.fixture
def sql(call, server: Server):
    async def run(**inputs):
        return await call("MSSQL", **{**_access(server), **inputs})

    return run


@pytest.fixture
async def table(sql):
    await sql(script="CREATE TABLE t (id INTEGER PRIMARY KEY, name text); INSERT INTO t VALUES (1, 'a')")
    return "t"


async def _failure(coroutine) -> str:
    with pytest.raises(errors.TaskFailed) as failed:
        await coroutine
    assert PASSWORD not in failed.value.message
    return failed.value.message


async def test_every_kind_of_value_has_a_form_in_json(sql):
    row = await sql(
        fetchrow="""SELECT 9007199254740993 AS big, '12.50' AS "exact [decimal]", -0.5 AS float, x'00ff' AS bytes,
        1 AS "yes [bit]", '2026-02-03' AS "date [date]", '04:05:06.7' AS "time [time]", 'ü' AS text, NULL AS none,
        '2026-02-03 04:05:06.7' AS "at [datetime2]", '2026-02-03 04:05:06+01:00' AS "there [datetimeoffset]",
        '0e37df36-f698-11e6-8dd4-cb9ced3df976' AS "id [uniqueidentifier]\""""
    )
    assert row["result"] == {
        "big": 9007199254740993, "exact": "12.5", "float": -0.5, "bytes": "AP8=", "yes": True, "date": "2026-02-03",
        "time": "04:05:06.700000", "text": "ü", "none": None, "at": "2026-02-03T04:05:06.700000",
        "there": "2026-02-03T04:05:06+01:00", "id": "0e37df36-f698-11e6-8dd4-cb9ced3df976",
    }  # fmt: skip


async def test_arguments_are_values_and_never_part_of_the_statement(sql):
    text = "SELECT %s AS quoted, %s AS json, %s AS none, %s AS yes, %s AS part, %s AS big, '100%%' AS sign"
    row = await sql(fetchrow=text, args=["'; DROP TABLE t --", {"k": [1]}, None, True, 1.5, 2**60])
    assert row["result"] == {
        "quoted": "'; DROP TABLE t --", "json": '{"k":[1]}', "none": None, "yes": 1, "part": 1.5, "big": 2**60,
        "sign": "100%",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("text", "args", "why"),
    [
        ("SELECT %s, %s", [1], "not enough arguments for format string"),
        ("SELECT %s", [1, 2], "not all arguments converted during string formatting"),
        ("SELECT '50%', %s", [1], "unsupported format character ''' (0x27) at index 11"),
        ("SELECT %(name)s", [1], "format requires a mapping"),
    ],
)
@pytest.mark.parametrize("mode", ["fetch", "execute", "executemany"])
async def test_a_statement_has_a_place_for_each_argument(sql, mode, text, args, why):
    said = await _failure(sql(**{mode: text}, args=[args] if mode == "executemany" else args))
    assert said.endswith(f": the statement and its args do not go together: {why} (a % is written %%)")


async def test_a_script_is_one_transaction_and_tells_the_last_number_of_rows(sql, table):
    assert (await sql(script="INSERT INTO t VALUES (2, 'b'), (3, 'c'); DELETE FROM t WHERE id = 3"))["row_count"] == 1
    assert "(208)" in await _failure(sql(script="DELETE FROM t; SELECT * FROM not_there"))
    assert (await sql(fetchval="SELECT count(*) FROM t"))["result"] == 2


async def test_the_rows_are_those_of_the_first_statement_that_has_any(sql, table):
    text = "INSERT INTO t VALUES (7, 'b'); UPDATE t SET name = 'c'; SELECT last_insert_rowid()"
    assert (await sql(fetchval=text))["result"] == 7
    assert (await sql(fetch="DELETE FROM t"))["result"] == []


async def test_what_was_changed_read_only_is_rolled_back(sql, table):
    assert (await sql(fetch="DELETE FROM t RETURNING id", read_only=True))["result"] == [{"id": 1}]
    assert (await sql(fetchval="SELECT count(*) FROM t", read_only=True))["result"] == 1


async def test_rows_that_nobody_wants_are_called_off(sql, server, table):
    endless = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT i FROM n"
    assert (await sql(fetchval=endless))["result"] == 1
    assert server.cancelled == 1 and server.running == []


async def test_the_execution_stands_in_the_login(sql, server, context):
    await sql(fetchval="SELECT 1")
    assert server.logins == [("app", PASSWORD, f"headrace {context.execution_id}")]


async def test_what_the_library_would_log_is_not_in_the_log_of_the_daemon(sql, caplog):
    with caplog.at_level(logging.DEBUG):
        await _failure(sql(fetchval="SELECT 'a secret of the statement' FROM nowhere"))
    assert not [record for record in caplog.records if record.name.startswith("pytds")]


@pytest.mark.parametrize(("number", "tries"), [(1205, 2), (547, 1)])
async def test_some_errors_pass(sql, pacing, number, tries):
    said = await _failure(sql(execute=f"SELECT raiserror({number}, 'no')", retry_backoff={"initial": 1, "deadline": 2}))
    assert f"no ({number})" in said and len(pacing.pauses) == tries - 1


async def test_a_database_that_is_unavailable_says_so_and_may_come_up(call, served, pacing):
    server = served(unavailable=True)
    again = {"retry_backoff": {"initial": 1, "deadline": 2}}
    said = await _failure(call("MSSQL", **{**_access(server), **again, "fetch": "SELECT 1"}))
    assert "Database 'app' on server 'double' is not currently available. (40613)" in said
    assert pacing.pauses == [1.0] and len(server.logins) == 2, "the library does not try on its own"


async def test_through_tls_nothing_is_said_in_the_clear(call, served, certs):
    server = served(tls=certs.server_context())
    own = {**_access(server), "fetchval": "SELECT 'in the clear'"}
    assert (await call("MSSQL", **own, cacert=certs.text("ca.crt")))["result"] == "in the clear"
    assert HIDDEN not in server.heard and "in the clear".encode("utf-16le") not in server.heard
    await call("MSSQL", **own)
    assert HIDDEN in server.heard and "in the clear".encode("utf-16le") in server.heard


async def test_who_wants_tls_gives_no_password_without_it(call, served, certs):
    server = served()
    own = {**_access(server), "cacert": certs.text("ca.crt"), "fetchval": "SELECT 1"}
    assert "You requested encryption but it is not supported by server" in await _failure(call("MSSQL", **own))
    other = served(tls=certs.server_context())
    refused = {**own, "port": other.port, "hostname": "localhost"}
    assert "Certificate does not match host name 'localhost'" in await _failure(call("MSSQL", **refused))
    assert server.logins == other.logins == []


async def test_a_server_that_wants_tls_says_so(call, served, certs):
    server = served(tls=certs.server_context(), forced=True)
    said = await _failure(call("MSSQL", **_access(server), fetchval="SELECT 1"))
    assert "encryption enabled but it is required by server" in said and server.logins == []


async def test_to_where_a_server_sends_us_we_go_as_the_operator_lets_us(call, context, served, server):
    gateway = served(elsewhere=("127.0.0.1", server.port))
    assert (await call("MSSQL", **_access(gateway), fetchval="SELECT 5"))["result"] == 5
    assert len(gateway.logins) == len(server.logins) == 1
    with socket.create_server(("127.0.0.2", 0)) as forbidden:
        forbidden.settimeout(0.05)
        gateway.elsewhere = forbidden.getsockname()
        guarded = registry.installed(definition.Settings(egress=Guarded(), pacing=retry.Pacing()))
        prepared = guarded.prepare("MSSQL", json.dumps({**_access(gateway), "fetchval": "SELECT 1"}).encode())
        assert "127.0.0.2 is guarded" in await _failure(prepared.run(context))
        with pytest.raises(TimeoutError):
            forbidden.accept()
        await guarded.aclose()


@pytest.mark.parametrize(("where", "said"), [("no/host", "whose name is none"), (None, "again and again")])
async def test_where_a_server_sends_us_without_end_or_sense(call, served, where, said):
    server = served()
    server.elsewhere = (where or "127.0.0.1", server.port)
    assert said in await _failure(call("MSSQL", **_access(server), fetchval="SELECT 1"))
    assert len(server.logins) == (1 if where else 3)


@pytest.mark.parametrize("name", ["username", "password", "database"])
def test_names_are_no_longer_than_the_protocol_has_room_for(tasks, name):
    inputs = {"hostname": "x", "username": "u", "fetch": "SELECT 1", name: "x" * 129}
    with pytest.raises(errors.InputRefused) as refused:
        tasks.prepare("MSSQL", json.dumps(inputs).encode())
    assert refused.value.message == f"SQLMSSQL cannot use the input '{name}': SQL Server takes at most 128 characters"
    tasks.prepare("MSSQL", json.dumps({**inputs, name: "x" * 128}).encode())


@pytest.mark.parametrize("babble", [b"\x04\x01\x00\x08\x00\x00\x01\x00", b"\xaa" * 9000, b"\x81\xff\x7f" * 3000])
async def test_nonsense_after_the_login_is_told_as_that(call, served, monkeypatch, babble):
    def transaction(session, _):
        session._wire._socket.sendall(tds_double._packets(babble))

    monkeypatch.setattr(tds_double._Session, "_transaction", transaction)
    await _failure(call("MSSQL", **_access(served()), fetchval="SELECT 1", timeout=5))


@pytest.mark.parametrize(
    ("common", "names", "host", "fits"),
    [
        ("db.example", [], "DB.example", True),
        ("db.example", [], "x.example", False),
        ("db.example", ["other.example"], "db.example", False),
        ("x", ["Db.example", "other.example"], "db.example", True),
        ("x", ["*.example"], "db.example", True),
        ("x", ["*.example"], "a.db.example", False),
        ("x", ["*.example"], "example", False),
        ("x", ["127.0.0.1", "::1"], "127.0.0.1", True),
        ("x", ["127.0.0.1", "::1"], "0:0::1", True),
        ("x", ["127.0.0.1"], "127.0.0.2", False),
        ("127.0.0.1", ["db.example"], "127.0.0.1", False),
    ],
)
def test_whose_a_certificate_is(common, names, host, fits):
    library, _ = sqlmssql._library()
    key = ec.generate_private_key(ec.SECP256R1())
    name, now = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, common)]), datetime.datetime.now(datetime.UTC)
    made = x509.CertificateBuilder().subject_name(name).issuer_name(name).public_key(key.public_key())
    made = made.serial_number(1).not_valid_before(now).not_valid_after(now + datetime.timedelta(1))
    if names:
        made = made.add_extension(x509.SubjectAlternativeName([_general(one) for one in names]), critical=False)
    certificate = OpenSSL.crypto.X509.from_cryptography(made.sign(key, hashes.SHA256()))
    assert library.tls.validate_host(cert=certificate, name=host.encode()) is fits


def _general(name: str) -> x509.GeneralName:
    with contextlib.suppress(ValueError):
        return x509.IPAddress(ipaddress.ip_address(name))
    return x509.DNSName(name)
