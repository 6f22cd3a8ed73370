"""What all SQL types that talk to a server say of their inputs, and what an address in one text means."""

from __future__ import annotations

import json

import pytest

from headrace.engine import errors
from headrace.tasks import sql

SECRET = "hush-hush-pass-word"
SCHEMES = {"MYSQL": "mysql", "SQLMSSQL": "mssql", "SQLORACLE": "oracle", "SQLPG": "postgresql"}
each = pytest.mark.parametrize("name", SCHEMES)


def _refused(tasks, name: str, inputs: dict) -> str:
    with pytest.raises(errors.InputRefused) as refused:
        tasks.prepare(name, json.dumps({"fetch": "SELECT 1", **inputs}).encode())
    assert SECRET not in refused.value.message
    return refused.value.message


@each
def test_without_a_host_it_is_asked_for(tasks, name):
    assert _refused(tasks, name, {}) == f"{name} needs the input 'hostname': the host of the database (or 'dsn')"


@each
def test_an_address_says_all_of_it(tasks, name):
    dsn = f"{SCHEMES[name]}://u:{SECRET}@db.example:99/shop"
    prepared = tasks.prepare(name, json.dumps({"fetch": "SELECT 1", "dsn": dsn}).encode())
    assert "dsn" in prepared.secret_inputs
    assert _refused(tasks, name, {"dsn": dsn, "port": 5}) == (
        f"{name} cannot use the input 'port': 'dsn' says it already; give one of them"
    )


@each
@pytest.mark.parametrize(
    "dsn",
    [
        f"u:{SECRET}@db.example/shop",
        f"http://u:{SECRET}@db.example/shop",
        f"SCHEME://u:{SECRET}@/shop",
        f"SCHEME://u:{SECRET}@db.example:port/shop",
        f"SCHEME://u:{SECRET}@db.example/shop?sslmode=whatever",
        f"SCHEME://u:{SECRET}@db.example/shop?options=-csomething",
        f"SCHEME://u:{SECRET}@db.example/shop#x",
    ],
)
def test_an_address_that_is_none_is_refused_without_repeating_it(tasks, name, dsn):
    said = _refused(tasks, name, {"dsn": dsn.replace("SCHEME", SCHEMES[name])})
    assert said == (
        f"{name} cannot use the input 'dsn': expected {SCHEMES[name]}://username:password@hostname:port/database, "
        "where only sslmode may follow; escape with %"
    )


def test_what_an_address_means():
    dsn = "postgres://a%40b:p%2Fw@[::1]:7/d%20b?sslmode=require"
    inputs = sql.resolved(sql.SqlInputs(fetch="x", dsn=dsn), ("postgres",))
    assert (inputs.hostname, inputs.port, inputs.username, inputs.password) == ("::1", 7, "a@b", "p/w")
    assert (inputs.database, inputs.use_tls, inputs.verify_ssl, inputs.dsn) == ("d b", True, False, None)
    inputs = sql.resolved(sql.SqlInputs(fetch="x", dsn="postgres://h/?sslmode=verify-full"), ("postgres",))
    assert (inputs.username, inputs.database, inputs.use_tls, inputs.verify_ssl) == (None, None, True, True)


def test_what_a_product_cannot_do_is_said(tasks, certs):
    there = {"hostname": "x", "database": "y"}
    assert _refused(tasks, "ORACLE", {"hostname": "x"}) == (
        "SQLORACLE needs the input 'database': the name of the service"
    )
    assert _refused(tasks, "ORACLE", {**there, "fetch": None, "script": "x"}) == (
        "SQLORACLE cannot use the input 'script': Oracle takes one statement at a time: "
        "put several between BEGIN and END;"
    )
    assert _refused(tasks, "MSSQL", {**there, "verify_ssl": False}) == (
        "SQLMSSQL cannot use the input 'verify_ssl': the library always checks the certificate: give 'cacert'"
    )
    pair = {"client_cert": certs.text("client.crt"), "client_key": certs.text("client.key")}
    assert _refused(tasks, "MSSQL", {**there, **pair}) == (
        "SQLMSSQL cannot use the input 'client_cert': SQL Server knows no certificates of clients"
    )
