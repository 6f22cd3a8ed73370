"""WEBDAV with a wsgidav that runs, and XMLRPC with a server of the standard library."""

from __future__ import annotations

import asyncio
import pathlib
import subprocess
import sys
import threading
import time
import xmlrpc.client
import xmlrpc.server

import pytest
from aiohttp import web

from headrace.engine import errors
from tests.support import services

PASSWORD = "pass-word-of-the-share"
WSGIDAV = """
import sys
from cheroot import wsgi
from wsgidav.wsgidav_app import WsgiDAVApp
folder, port, password = sys.argv[1:]
users = {"*": {"ada": {"password": password}}}
app = WsgiDAVApp({
    "provider_mapping": {"/": folder}, "simple_dc": {"user_mapping": users}, "verbose": 0,
    "http_authenticator": {"accept_basic": True, "accept_digest": False, "default_to_digest": False},
})
wsgi.Server(("127.0.0.1", int(port)), app).start()
"""


@pytest.fixture(scope="module")
def root(tmp_path_factory) -> pathlib.Path:
    return tmp_path_factory.mktemp("webdav")


@pytest.fixture(scope="module")
def address(root):
    port = services.free_port()
    process = subprocess.Popen(
        [sys.executable, "-W", "ignore", "-c", WSGIDAV, str(root), str(port), PASSWORD],
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    try:
        ready = services.answers(port)
        while not ready():
            assert process.poll() is None
            time.sleep(0.02)
        yield f"http://127.0.0.1:{port}/"
    finally:
        process.kill()
        process.wait()


@pytest.fixture
def dav(call, address):
    async def ran(**inputs) -> dict:
        access = {"url": address, "username": "ada", "password": PASSWORD, "retry_backoff": False}
        return await call("WEBDAV", **{**access, **inputs})

    return ran


@pytest.fixture
def failure(context):
    async def failed(coroutine) -> str:
        with pytest.raises(errors.TaskFailed) as raised:
            await coroutine
        assert PASSWORD not in raised.value.message + context.text
        return raised.value.message

    return failed


async def test_a_file_goes_there_and_back(dav, context, root):
    content = bytes(range(256)) * 4000
    context.files.root.mkdir()
    (context.files.root / "a").write_bytes(content)
    assert await dav(src="headrace:a", dst="up ü.bin") == {"size": len(content)}
    assert (root / "up ü.bin").read_bytes() == content
    assert await dav(src="/up ü.bin", dst="headrace:b") == {"size": len(content)}
    assert (context.files.root / "b").read_bytes() == content


async def test_files_are_listed_and_changed(dav, failure, root):
    await dav(command="mkdir", path="box")
    (root / "box/b ü").write_text("12")
    (root / "box/c").mkdir()
    entries = (await dav(command="list", path="box"))["entries"]
    assert [(one["name"], one["type"], one["size"]) for one in entries] == [("b ü", "file", 2), ("c", "folder", None)]
    assert abs(entries[0]["modified"] - (root / "box/b ü").stat().st_mtime) < 2
    await dav(command="rename", path="box/b ü", new_path="box/d")
    assert (await dav(command="stat", path="box/d"))["entry"]["size"] == 2
    await dav(command="remove", path="box/d")
    assert (await dav(command="list", path="box"))["entries"][0]["name"] == "c"
    assert "status 404" in await failure(dav(command="list", path="nowhere"))
    assert "status 404" in await failure(dav(src="nowhere", dst="headrace:x"))
    assert "status 405" in await failure(dav(command="mkdir", path="box"))


async def test_wrong_credentials_are_refused(dav, failure):
    assert "status 401" in await failure(dav(command="list", path="/", password="not-the-password"))


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (b"<!DOCTYPE x [<!ENTITY a 'a'>]><x>&a;</x>", "the answer declares a document type: it is not read"),
        (b"nonsense", "the answer is not XML"),
        (b"<x/>", "the answer says nothing of what was asked about"),
    ],
    ids=range(3),
)
async def test_a_server_that_lies_is_a_failure(call, failure, serve, body, message):
    async def answer(request):
        return web.Response(status=207, body=body, content_type="application/xml")

    said = await failure(call("WEBDAV", url=await serve(answer), command="list", path="x", retry_backoff=False))
    assert said == f"WEBDAV list: {message}"


@pytest.mark.parametrize(("type_", "more"), [("WEBDAV", {"command": "list", "path": "."}), ("XMLRPC", {"method": "m"})])
async def test_nobody_listens_or_answers(call, failure, serve, type_, more):
    port = services.free_port()
    assert "refused" in await failure(call(type_, url=f"http://127.0.0.1:{port}", retry_backoff=False, **more))
    arrived, left = asyncio.Event(), asyncio.Event()

    async def silent(request):
        arrived.set()
        try:
            await asyncio.sleep(60)
        finally:
            left.set()

    work = asyncio.create_task(call(type_, url=await serve(silent), **more))
    await arrived.wait()
    work.cancel()
    with pytest.raises(asyncio.CancelledError):
        await work
    await left.wait()


@pytest.mark.parametrize(
    ("inputs", "message"),
    [
        ({"url": "ftp://x"}, "WEBDAV cannot use the input 'url': expected an address with http or https"),
        ({"path": "a/../../b"}, "WEBDAV cannot use the input 'path': expected a path that stays below 'url'"),
        ({"path": None}, "WEBDAV needs the input 'path': the command list is about it"),
    ],
    ids=range(3),
)
async def test_inputs_of_webdav_that_cannot_be_used(dav, inputs, message):
    with pytest.raises(errors.InputRefused) as refused:
        await dav(**{"command": "list", "path": "x", **inputs})
    assert refused.value.message == message


# --- XML-RPC


@pytest.fixture(scope="module")
def rpc():
    server = xmlrpc.server.SimpleXMLRPCServer(("127.0.0.1", 0), logRequests=False, allow_none=True)
    server.register_function(lambda *given: list(given), "echo")
    server.register_function(
        lambda: [xmlrpc.client.Binary(b"\0\xff"), xmlrpc.client.DateTime("20260203T04:05:06")], "kinds"
    )
    server.register_function(lambda: 1 / 0, "fails")
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    yield f"http://127.0.0.1:{server.server_address[1]}/RPC2"
    server.shutdown()
    thread.join()
    server.server_close()


async def test_a_method_is_called(call, rpc):
    params = [1, -2.5, True, None, "ü <&>", ["x"], {"k": {"n": [1]}}]
    assert await call("XMLRPC", url=rpc, method="echo", params=params) == {"result": params}
    assert await call("XMLRPC", url=rpc, method="kinds") == {"result": ["AP8=", "2026-02-03T04:05:06"]}


async def test_a_fault_is_a_failure(call, failure, rpc):
    said = await failure(call("XMLRPC", url=rpc, method="fails"))
    assert said.startswith("XMLRPC fails: the server answered with fault 1: ") and "division by zero" in said
    assert "not supported" in await failure(call("XMLRPC", url=rpc, method="no.such"))


DEEP = "<value><array><data>" * 200 + "<value>1</value>" + "</data></array></value>" * 200


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ("<!DOCTYPE x [<!ENTITY a 'a'>]><x>&a;</x>", "the answer declares a document type: it is not read"),
        ("nonsense", "the answer is not XML"),
        ("<methodResponse></methodResponse>", "the answer is not XML-RPC"),
        (
            f"<methodResponse><params><param>{DEEP}</param></params></methodResponse>",
            "the answer is not XML-RPC: its values are nested more than 100 deep",
        ),
        (
            "<methodResponse><params><param><value><int>x</int></value></param></params></methodResponse>",
            "the answer is not XML-RPC",
        ),
    ],
    ids=range(5),
)
async def test_an_answer_that_is_none_is_a_failure(call, failure, serve, body, message):
    async def answer(request):
        return web.Response(text=body, content_type="text/xml")

    assert message in await failure(call("XMLRPC", url=await serve(answer), method="m"))


@pytest.mark.parametrize(
    ("inputs", "message"),
    [
        ({"method": "a b"}, "XMLRPC cannot use the input 'method': expected the name of a method"),
        ({"params": [2**40]}, "XMLRPC cannot use the input 'params': whole numbers have 32 bits there"),
    ],
    ids=range(2),
)
async def test_inputs_of_xmlrpc_that_cannot_be_used(call, inputs, message):
    with pytest.raises(errors.InputRefused) as refused:
        await call("XMLRPC", **{"url": "http://x", "method": "m", **inputs})
    assert refused.value.message == message


def test_what_may_be_repeated(tasks):
    assert not tasks.prepare("XMLRPC", b'{"url":"http://x","method":"m"}').idempotent
    assert tasks.prepare("WEBDAV", b'{"url":"http://x","command":"list","path":"/"}').idempotent
    assert not tasks.prepare("WEBDAV", b'{"url":"http://x","command":"remove","path":"/"}').idempotent
