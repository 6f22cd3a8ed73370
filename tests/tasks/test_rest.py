"""REST against real servers: what is sent, what comes back, what is said when it fails."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import gzip
import json
import socket
import zlib
from collections.abc import Callable

import pytest
from aiohttp import web

from headrace.engine import errors, values
from headrace.tasks import definition, registry, rest
from headrace.tasks.egress import Egress
from tests.support import raw_server
from tests.support.certificates import Certificates
from tests.support.task_context import Context, ManualPacing


async def echo(request: web.Request) -> web.Response:
    return web.json_response(
        {
            "method": request.method,
            "path": request.raw_path,
            "headers": {name.lower(): value for name, value in request.headers.items()},
            "cookies": dict(request.cookies),
            "body": (await request.read()).decode(),
        }
    )


def answering(**kwargs: object) -> Callable:
    async def handler(request: web.Request) -> web.Response:
        return web.Response(**kwargs)  # type: ignore[arg-type]

    return handler


async def failure(awaitable) -> errors.TaskFailed:
    with pytest.raises(errors.TaskFailed) as failed:
        await awaitable
    return failed.value


# --- what is sent


async def test_a_plain_get_gives_status_headers_text_and_json(call, serve) -> None:
    output = await call("REST", url=await serve(echo) + "/a?x=1", params={"y": [2, None, True], "z": "ä &"})
    assert output["status_code"] == 200
    assert output["headers"]["content-type"] == "application/json; charset=utf-8"
    assert output["encoding"] == "utf-8"
    assert json.loads(output["text"]) == output["json"]
    assert output["json"]["path"] == "/a?x=1&y=2&y=true&z=%C3%A4+%26"
    assert output["json"]["headers"]["user-agent"] == "headrace"
    assert output["cookies"] == {}


@pytest.mark.parametrize(
    ("given", "body", "content_type"),
    [
        ({"json": {"a": 1}}, '{"a":1}', "application/json"),
        ({"json": []}, "[]", "application/json"),
        ({"data": {"a": "ä"}}, '{"a":"ä"}', "application/json"),
        ({"data": "raw ä"}, "raw ä", "text/plain; charset=utf-8"),
        ({"data": "headrace:in.txt"}, "from the store", "application/octet-stream"),
        ({"text": "headrace:in.txt"}, "headrace:in.txt", "text/plain; charset=utf-8"),
        ({"urlencoded": {"a": "1 2", "b": [3, False]}}, "a=1+2&b=3&b=false", "application/x-www-form-urlencoded"),
        ({"data": "<a/>", "headers": {"content-type": "text/xml"}}, "<a/>", "text/xml"),
    ],
)
async def test_bodies_are_sent_with_their_type(call, serve, context: Context, given, body, content_type) -> None:
    context.files.root.mkdir()
    (context.files.root / "in.txt").write_text("from the store")
    seen = (await call("REST", url=await serve(echo), method="put", **given))["json"]
    assert (seen["method"], seen["body"], seen["headers"]["content-type"]) == ("PUT", body, content_type)


@pytest.mark.parametrize(
    "multipart",
    [
        {"a": 1, "f": "headrace:dir/in.bin", "g": {"value": "x", "filename": "g.csv", "content_type": "text/csv"}},
        [
            {"name": "a", "value": "1"},
            {"name": "f", "value": "cloudomation:dir/in.bin"},
            {"name": "g", "value": "x", "filename": "g.csv", "content_type": "text/csv"},
        ],
    ],
)
async def test_multipart_carries_fields_and_files_of_the_store(call, serve, context: Context, multipart) -> None:
    (context.files.root / "dir").mkdir(parents=True)
    (context.files.root / "dir/in.bin").write_bytes(b"\0\xff")
    seen = []

    async def handler(request: web.Request) -> web.Response:
        async for part in await request.multipart():
            kind = part.headers.get("Content-Type", "").partition(";")[0]
            seen.append((part.name, part.filename, kind, bytes(await part.read())))
        return web.Response()

    await call("REST", url=await serve(handler), method="post", multipart=multipart)
    assert seen == [
        ("a", None, "text/plain", b"1"),
        ("f", "in.bin", "application/octet-stream", b"\0\xff"),
        ("g", "g.csv", "text/csv", b"x"),
    ]


async def test_a_missing_file_fails_before_anything_is_sent(call, serve) -> None:
    failed = await failure(call("REST", url=await serve(echo), method="post", data="headrace:none"))
    assert failed.message == "cannot read the file 'none': there is no file none"


async def test_headers_cookies_and_basic_authentication_arrive(call, serve) -> None:
    address = await serve(echo)
    given = {"headers": {"X-Number": 5}, "cookies": {"a": "1", "b": "2=3"}, "username": "ü", "password": "p:w"}
    seen = (await call("REST", url=address, **given))["json"]
    assert seen["headers"]["x-number"] == "5"
    assert seen["headers"]["cookie"] == "a=1; b=2=3"
    assert seen["headers"]["authorization"] == "Basic " + base64.b64encode("ü:p:w".encode()).decode()
    seen = (await call("REST", url=address.replace("//", "//me:secret@")))["json"]
    assert seen["headers"]["authorization"] == "Basic " + base64.b64encode(b"me:secret").decode()


@pytest.mark.parametrize(
    ("method", "headers", "key"),
    [
        ("post", {}, "0123456789abcdefghjkmnpqrs"),
        ("patch", {}, "0123456789abcdefghjkmnpqrs"),
        ("post", {"idempotency-key": "mine"}, "mine"),
        ("put", {}, None),
        ("get", {}, None),
    ],
)
async def test_requests_that_change_something_carry_the_executions_id(call, serve, method, headers, key) -> None:
    seen = (await call("REST", url=await serve(echo), method=method, headers=headers))["json"]
    assert seen["headers"].get("idempotency-key") == key


async def test_connections_are_kept_for_the_next_call(call, serve) -> None:
    clients = set()

    async def handler(request: web.Request) -> web.Response:
        clients.add(request.transport.get_extra_info("peername"))
        return web.Response()

    address = await serve(handler)
    for _ in range(3):
        await call("REST", url=address)
    assert len(clients) == 1


async def test_the_environments_proxy_is_ignored(call, serve, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:1")
    assert (await call("REST", url=await serve(echo)))["status_code"] == 200


# --- what comes back


@pytest.mark.parametrize(
    ("body", "content_type", "text", "encoding", "parsed"),
    [
        (b'{"a": 1}', "application/problem+json", '{"a": 1}', "utf-8", {"a": 1}),
        (b"[1]", "text/plain", "[1]", "utf-8", [1]),
        (b"5", "application/json", "5", "utf-8", 5),
        (b"5", "text/plain", "5", "utf-8", None),
        (b"{broken", "application/json", "{broken", "utf-8", None),
        (b"", "application/json", "", "utf-8", None),
        (b'\xef\xbb\xbf{"a": 1}', "application/json", '{"a": 1}', "utf-8", {"a": 1}),
        ("ä".encode("cp1252"), "text/html; charset=windows-1252", "ä", "cp1252", None),
        ("ä".encode("latin-1"), "text/plain", "ä", "iso-8859-1", None),
        ("ä".encode(), "text/plain; charset=nonsense", "ä", "utf-8", None),
        ("ä".encode(), "text/plain; charset=hex", "ä", "utf-8", None),
        (b"a\\ud800", "text/plain; charset=unicode_escape", "a\\ud800", "utf-8", None),
        (b"+2AA-", "text/plain; charset=utf-7", "?", "utf-7", None),
        (b"[" * 100_000, "application/json", "[" * 100_000, "utf-8", None),
    ],
)
async def test_text_is_read_in_its_character_set_and_json_where_it_is_json(
    call, serve, body, content_type, text, encoding, parsed
) -> None:
    output = await call("REST", url=await serve(answering(body=body, headers={"Content-Type": content_type})))
    assert (output["text"], output["encoding"], output["json"]) == (text, encoding, parsed)


async def test_bytes_that_are_no_text_are_replaced_and_the_log_says_so(call, serve, context: Context) -> None:
    handler = answering(body=b"\x89PNG\xff", content_type="image/png")
    assert (await call("REST", url=await serve(handler)))["text"] == "\ufffdPNG\ufffd"
    assert context.text == "WARNING the body is not text in utf-8; 'dst' would keep every byte"


async def test_head_has_no_body(call, serve) -> None:
    output = await call("REST", url=await serve(echo), method="head")
    assert (output["text"], output["json"]) == ("", None)


async def test_dst_streams_the_body_into_a_file(call, serve, context: Context) -> None:
    content = bytes(range(256)) * 20_000
    output = await call("REST", url=await serve(answering(body=content)), dst="headrace:deep/out.bin")
    assert (context.files.root / "deep/out.bin").read_bytes() == content
    assert sorted(output) == ["cookies", "encoding", "headers", "status_code"]


async def test_dst_writes_nothing_when_the_status_is_not_expected(call, serve, context: Context) -> None:
    failed = await failure(call("REST", url=await serve(answering(status=404, text="nope")), dst="out"))
    assert json.loads(failed.output)["text"] == "nope"
    assert context.files.names() == []


async def test_dst_that_leaves_the_store_is_refused(call, serve) -> None:
    failed = await failure(call("REST", url=await serve(echo), dst="../../etc/x"))
    assert failed.message == "cannot write the file '../../etc/x': the path ../../etc/x leaves the store"


async def test_a_broken_off_body_leaves_no_file(call, context: Context) -> None:
    async def script(reader, writer) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 5000000\r\n\r\n" + b"x" * 2_000_000)

    async with raw_server.running(script) as server:
        failed = await failure(call("REST", url=server.address, dst="out", retry_backoff=False))
    assert failed.message == f"GET {server.address}/: the answer broke off or cannot be decompressed"
    assert context.files.names() == []


async def test_an_endless_body_is_cut_off(call, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rest, "BODY_BYTES_MAX", 3 * 1024 * 1024)

    async def script(reader, writer) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\n\r\n")
        while True:
            writer.write(b"x" * 65536)
            await writer.drain()

    async with raw_server.running(script) as server:
        failed = await failure(call("REST", url=server.address))
        await asyncio.wait_for(server.gone.wait(), 10)
    assert failed.message == f"GET {server.address}/: the body is larger than 3 MiB; 'dst' writes it to a file"
    assert json.loads(failed.output)["status_code"] == 200


async def test_an_endless_body_does_not_fill_the_disk(call, context, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rest, "FILE_BYTES_MAX", 3 * 1024 * 1024)

    async def script(reader, writer) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\n\r\n")
        while True:
            writer.write(b"x" * 65536)
            await writer.drain()

    async with raw_server.running(script) as server:
        failed = await failure(call("REST", url=server.address, dst="out"))
    assert failed.message == f"GET {server.address}/: the body is larger than 3 MiB"
    assert context.files.names() == []


@pytest.mark.parametrize("coding", ["gzip", "deflate"])
async def test_a_decompression_bomb_stays_within_the_bound(call, serve, monkeypatch, coding) -> None:
    monkeypatch.setattr(rest, "BODY_BYTES_MAX", 1024 * 1024)
    plain = b"\0" * (100 * 1024 * 1024)
    bomb = gzip.compress(plain, 1) if coding == "gzip" else zlib.compress(plain, 1)
    del plain
    failed = await failure(
        call("REST", url=await serve(answering(body=bomb, headers={"Content-Encoding": coding})), retry_backoff=False)
    )
    assert failed.message.endswith("/: the body is larger than 1 MiB; 'dst' writes it to a file")


async def test_a_compressed_answer_is_decompressed(call, serve) -> None:
    handler = answering(body=gzip.compress(b"hello"), headers={"Content-Encoding": "gzip"}, content_type="text/plain")
    assert (await call("REST", url=await serve(handler)))["text"] == "hello"


# --- redirects


async def test_redirects_are_followed_and_cookies_collected_on_the_way(call, serve) -> None:
    async def handler(request: web.Request) -> web.Response:
        if request.path == "/login":
            response = web.Response(status=303, headers={"Location": "home"})
            response.set_cookie("session", "abc")
            return response
        return await echo(request)

    output = await call("REST", url=await serve(handler) + "/login", method="post", json={"u": 1})
    assert output["cookies"] == {"session": "abc"}
    seen = output["json"]
    assert (seen["method"], seen["path"], seen["body"]) == ("GET", "/home", "")
    assert seen["cookies"] == {"session": "abc"}
    assert "content-type" not in seen["headers"]


@pytest.mark.parametrize(
    ("status", "method", "then"),
    [
        (301, "POST", ("GET", "")),
        (302, "PUT", ("PUT", "b")),
        (303, "PUT", ("GET", "")),
        (307, "POST", ("POST", "b")),
        (308, "PATCH", ("PATCH", "b")),
    ],
)
async def test_method_and_body_survive_a_redirect_as_the_status_says(call, serve, status, method, then) -> None:
    async def handler(request: web.Request) -> web.Response:
        if request.path == "/":
            return web.Response(status=status, headers={"Location": "/next"})
        return await echo(request)

    seen = (await call("REST", url=await serve(handler), method=method, text="b"))["json"]
    assert (seen["method"], seen["body"]) == then


async def test_credentials_stay_with_the_host_they_were_given_for(call, serve) -> None:
    elsewhere = await serve(echo)

    async def handler(request: web.Request) -> web.Response:
        if request.path == "/same":
            return await echo(request)
        target = "/same" if request.path == "/home" else elsewhere.replace("//", "//evil:user@") + "/there"
        return web.Response(status=302, headers={"Location": target})

    address = await serve(handler)
    given = {
        "headers": {"X-Api-Key": "key-1", "Authorization": "Bearer tok-1", "Accept": "text/x"},
        "cookies": {"sid": "cookie-1"},
    }
    kept = (await call("REST", url=address + "/home", **given))["json"]["headers"]
    assert (kept["x-api-key"], kept["authorization"], kept["cookie"]) == ("key-1", "Bearer tok-1", "sid=cookie-1")
    lost = (await call("REST", url=address + "/away", **given))["json"]["headers"]
    assert not {"x-api-key", "authorization", "cookie"} & set(lost)
    assert lost["accept"] == "text/x"
    lost = (await call("REST", url=address + "/away", username="me", password="secret"))["json"]["headers"]
    assert "authorization" not in lost


async def test_a_redirect_loop_ends(call, serve) -> None:
    visits = []

    async def handler(request: web.Request) -> web.Response:
        visits.append(request.path)
        return web.Response(status=302, headers={"Location": request.path + "x"})

    address = await serve(handler)
    failed = await failure(call("REST", url=address, max_redirects=3))
    assert failed.message == f"GET {address}/xxxx: gave up after 3 redirects"
    assert len(visits) == 4


@pytest.mark.parametrize("location", ["file:///etc/passwd", "ftp://x/", "http://[bad", "javascript:1"])
async def test_a_redirect_to_something_else_than_http_fails(call, serve, location) -> None:
    address = await serve(answering(status=302, headers={"Location": location}))
    failed = await failure(call("REST", url=address))
    assert failed.message == f"GET {address}/: redirected to an address that is not http or https"


async def test_redirects_can_be_taken_as_the_answer(call, serve) -> None:
    address = await serve(answering(status=302, headers={"Location": "/x"}))
    output = await call("REST", url=address, allow_redirects=False, expected_status_code=302)
    assert output["headers"]["location"] == "/x"


# --- failures


async def test_an_unexpected_status_says_what_and_carries_everything(call, serve) -> None:
    handler = answering(status=404, text="<h1>No such\n  thing</h1>" + "x" * 300, headers={"X-Why": "because"})
    address = await serve(handler)
    failed = await failure(call("REST", url=address.replace("//", "//u:secret@") + "/a?token=secret"))
    quoted = ("<h1>No such thing</h1>" + "x" * 300)[:200]
    assert failed.message == f"GET {address}/a: status 404, expected 200 or 201 or 202 or 204: {quoted}"
    output = json.loads(failed.output)
    assert (output["status_code"], output["headers"]["x-why"]) == (404, "because")
    assert output["text"].startswith("<h1>")


async def test_an_unexpected_answer_without_end_keeps_its_beginning(call, context, monkeypatch) -> None:
    monkeypatch.setattr(rest, "BODY_BYTES_MAX", 2 * 1024 * 1024)

    async def script(reader, writer) -> None:
        writer.write(b"HTTP/1.1 404 Not Found\r\n\r\n")
        while True:
            writer.write(b"x" * 65536)
            await writer.drain()

    async with raw_server.running(script) as server:
        failed = await failure(call("REST", url=server.address))
        await asyncio.wait_for(server.gone.wait(), 10)
    assert failed.message.startswith(f"GET {server.address}/: status 404, expected 200 or 201 or 202 or 204: xxx")
    assert json.loads(failed.output)["text"] == "x" * 1024 * 1024
    assert context.text == "WARNING the body is too large, only its first 1 MiB are kept"


async def test_a_failure_too_large_to_record_is_recorded_without_its_body(call, serve, monkeypatch) -> None:
    address = await serve(answering(status=404, body=b"\0" * 400))
    monkeypatch.setattr(values, "VALUE_BYTES_MAX", 1000)
    failed = await failure(call("REST", url=address))
    assert sorted(json.loads(failed.output)) == ["cookies", "encoding", "headers", "status_code"]


async def test_expected_statuses_can_be_given(call, serve) -> None:
    address = await serve(answering(status=404))
    assert (await call("REST", url=address, expected_status_code=404))["status_code"] == 404
    assert (await call("REST", url=address, expected_status_code=[200, 404]))["status_code"] == 404
    failed = await failure(call("REST", url=address, expected_status_code=410))
    assert failed.message == f"GET {address}/: status 404, expected 410, without a body"


async def test_no_message_or_log_repeats_a_secret(call, serve, context: Context) -> None:
    async def handler(request: web.Request) -> web.Response:
        said = f"{request.query_string} {dict(request.headers)} {request.headers.get('Authorization')}"
        return web.Response(status=503, text=said)

    secrets = ["pass-word%1", "tok-123456", "cook-987", "query-tok", "in-url"]
    given = {
        "url": await serve(handler) + "/?access_token=in-url",
        "username": "me",
        "password": secrets[0],
        "headers": {"X-Token": secrets[1]},
        "cookies": {"sid": secrets[2]},
        "params": {"api_key": secrets[3]},
        "retry_backoff": {"deadline": 5},
    }
    failed = await failure(call("REST", **given))
    spelled = [*secrets, "pass-word%251", base64.b64encode(b"me:pass-word%1").decode()]
    assert len(context.lines) == 2
    for secret in spelled:
        assert secret not in failed.message + context.text
    assert "***" in failed.message


async def test_a_refused_connection_is_said_plainly(call) -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        port = unused.getsockname()[1]
        failed = await failure(call("REST", url=f"http://127.0.0.1:{port}/a", retry_backoff=False))
    assert failed.message == f"GET http://127.0.0.1:{port}/a: connection refused by 127.0.0.1:{port}"


async def test_a_name_that_does_not_exist_is_said_plainly(call) -> None:
    failed = await failure(call("REST", url="http://nowhere.invalid/", retry_backoff=False))
    assert failed.message.startswith("GET http://nowhere.invalid/: the name nowhere.invalid cannot be resolved: ")


async def test_a_silent_server_runs_into_the_read_timeout(call) -> None:
    async with raw_server.running(raw_server.until_gone) as server:
        failed = await failure(call("REST", url=server.address, read_timeout=0.05, retry_backoff=False))
        await asyncio.wait_for(server.gone.wait(), 10)
    where = server.address.removeprefix("http://")
    assert failed.message == f"GET {server.address}/: {where} sent nothing for 0.05 s"


async def test_a_stalling_body_runs_into_the_read_timeout(call) -> None:
    async def script(reader, writer) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nabc")
        await raw_server.until_gone(reader, writer)

    async with raw_server.running(script) as server:
        failed = await failure(call("REST", url=server.address, read_timeout=0.05, retry_backoff=False))
    assert "sent nothing for 0.05 s" in failed.message


async def test_a_host_that_never_accepts_runs_into_the_connect_timeout(call) -> None:
    with contextlib.ExitStack() as stack:
        deaf = stack.enter_context(socket.create_server(("127.0.0.1", 0), backlog=0))
        for _ in range(3):  # fill the queue of connections that nobody accepts
            waiting = stack.enter_context(socket.socket())
            waiting.setblocking(False)
            waiting.connect_ex(deaf.getsockname())
        where = f"127.0.0.1:{deaf.getsockname()[1]}"
        failed = await failure(call("REST", url=f"http://{where}", connect_timeout=0.05, retry_backoff=False))
    assert failed.message == f"GET http://{where}/: no connection to {where} within 0.05 s"


async def test_an_answer_that_is_not_http_is_said_plainly(call) -> None:
    async def script(reader, writer) -> None:
        writer.write(b"SSH-2.0-OpenSSH_9.2\r\n\r\n")

    async with raw_server.running(script) as server:
        failed = await failure(call("REST", url=server.address))
    assert failed.message.startswith(f"GET {server.address}/: the answer is not valid HTTP: ")


async def test_a_connection_closed_without_an_answer_is_said_plainly(call) -> None:
    async def script(reader, writer) -> None:
        """Just close."""

    async with raw_server.running(script) as server:
        failed = await failure(call("REST", url=server.address, retry_backoff=False))
    where = server.address.removeprefix("http://")
    assert failed.message == f"GET {server.address}/: {where} closed the connection without an answer"


async def test_cancelling_closes_the_connection(call) -> None:
    async with raw_server.running(raw_server.until_gone) as server:
        running = asyncio.create_task(call("REST", url=server.address), name="the call")
        await asyncio.wait_for(server.arrived.wait(), 10)
        running.cancel()
        with pytest.raises(asyncio.CancelledError):
            await running
        await asyncio.wait_for(server.gone.wait(), 10)


async def test_cancelling_a_download_closes_the_connection_and_leaves_no_file(call, context: Context) -> None:
    async def script(reader, writer) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 99999999\r\n\r\n" + b"x" * 3_000_000)
        await raw_server.until_gone(reader, writer)

    async with raw_server.running(script) as server:
        running = asyncio.create_task(call("REST", url=server.address, dst="out"), name="the call")
        while not context.files.names():  # the part that is being written
            await asyncio.sleep(0.005)
        running.cancel()
        with pytest.raises(asyncio.CancelledError):
            await running
        await asyncio.wait_for(server.gone.wait(), 10)
    assert context.files.names() == []


# --- retries


def flaky(*statuses: int, **kwargs) -> tuple[Callable, list]:
    left, seen = list(statuses), []

    async def handler(request: web.Request) -> web.Response:
        seen.append(request.method)
        return web.Response(status=left.pop(0) if left else 200, **kwargs)

    return handler, seen


async def test_a_passing_failure_is_retried(call, serve, context: Context, pacing: ManualPacing) -> None:
    handler, seen = flaky(503, 500, 429)
    address = await serve(handler)
    assert (await call("REST", url=address))["status_code"] == 200
    assert pacing.pauses == [1, 2, 4]
    assert len(seen) == 4
    assert context.lines[0] == (
        "WARNING",
        f"attempt 1 failed, next one in 1.0 s: GET {address}/: status 503, expected 200 or 201 or 202 or 204, "
        "without a body",
    )


async def test_retry_after_is_kept(call, serve, pacing: ManualPacing) -> None:
    handler, _ = flaky(503, headers={"Retry-After": "7"})
    await call("REST", url=await serve(handler))
    assert pacing.pauses == [7]


@pytest.mark.parametrize(
    ("method", "status", "extra", "tries"),
    [
        ("put", 503, {}, 2),
        ("post", 503, {}, 1),
        ("patch", 503, {}, 1),
        ("post", 503, {"retry_backoff": {"initial": 0.1}}, 2),
        ("get", 503, {"retry_backoff": False}, 1),
        ("get", 404, {}, 1),
    ],
)
async def test_only_what_may_be_repeated_is_retried(call, serve, method, status, extra, tries) -> None:
    handler, seen = flaky(status)
    with contextlib.suppress(errors.TaskFailed):
        await call("REST", url=await serve(handler), method=method, **extra)
    assert len(seen) == tries


async def test_a_post_is_sent_once_even_when_the_connection_breaks(call) -> None:
    async def script(reader, writer) -> None:
        """Just close."""

    async with raw_server.running(script) as server:
        await failure(call("REST", url=server.address, method="post", json={}))
    assert len(server.heads) == 1


# --- TLS


async def test_a_certificate_nobody_signed_for_us_is_refused(call, serve, certs: Certificates) -> None:
    address = await serve(echo, certs.server_context())
    where = address.removeprefix("https://")
    failed = await failure(call("REST", url=address))
    assert failed.message.startswith(f"GET {address}/: the certificate of {where} is not trusted: ")


async def test_a_given_authority_is_trusted_and_only_that(call, serve, certs: Certificates) -> None:
    address = await serve(echo, certs.server_context())
    assert (await call("REST", url=address, cacert=certs.text("ca.crt")))["status_code"] == 200
    assert (await call("REST", url=address, verify_ssl=False))["status_code"] == 200
    failed = await failure(call("REST", url=address, cacert=certs.text("client.crt")))
    assert "is not trusted" in failed.message
    named = await failure(call("REST", url=address.replace("127.0.0.1", "localhost"), cacert=certs.text("ca.crt")))
    assert "is not trusted" in named.message


async def test_a_client_certificate_is_shown(call, serve, certs: Certificates) -> None:
    async def handler(request: web.Request) -> web.Response:
        subject = dict(part[0] for part in request.transport.get_extra_info("peercert")["subject"])
        return web.json_response(subject)

    address = await serve(handler, certs.server_context(wants_client=True))
    shown = {"cacert": certs.text("ca.crt"), "client_cert": certs.text("client.crt")}
    output = await call("REST", url=address, **shown, client_key=certs.text("client.key"))
    assert output["json"] == {"commonName": "client"}
    both_in_one = certs.text("client.crt") + certs.text("client.key")
    output = await call("REST", url=address, cacert=shown["cacert"], client_cert=both_in_one)
    assert output["json"] == {"commonName": "client"}
    failed = await failure(call("REST", url=address, cacert=shown["cacert"], retry_backoff=False))
    assert failed.message.startswith(f"GET {address}/: ")


async def test_a_client_certificate_is_not_shown_to_another_host(call, serve, certs: Certificates) -> None:
    seen = []

    async def there(request: web.Request) -> web.Response:
        seen.append(request.transport.get_extra_info("peercert"))
        return web.Response()

    optional = certs.server_context(wants_client=True)
    optional.verify_mode = 1  # ssl.CERT_OPTIONAL
    elsewhere = await serve(there, optional)
    home = await serve(answering(status=302, headers={"Location": elsewhere}), optional)
    shown = {"client_cert": certs.text("client.crt"), "client_key": certs.text("client.key")}
    await call("REST", url=home, cacert=certs.text("ca.crt"), **shown)
    await call("REST", url=elsewhere, cacert=certs.text("ca.crt"), **shown)
    assert [bool(one) for one in seen] == [False, True]


async def test_http_where_https_is_spoken_fails_plainly(call, serve) -> None:
    address = (await serve(echo)).replace("http:", "https:")
    failed = await failure(call("REST", url=address))
    assert "the TLS handshake with 127.0.0.1:" in failed.message


async def test_a_store_that_cannot_write_is_not_taken_for_the_network(call, serve, context: Context) -> None:
    context.files.root.write_text("a file where the folder should be")
    failed = await failure(call("REST", url=await serve(echo), dst="out"))
    assert failed.message == "cannot write the file 'out': File exists"


# --- where tasks may connect to


@pytest.fixture
async def guarded(context: Context):
    built = registry.installed(definition.Settings(egress=Egress(deny_private=True)))

    async def run(**inputs: object) -> None:
        await built.prepare("REST", json.dumps(inputs).encode()).run(context)

    yield run
    await built.aclose()


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "2130706433", "127.1"])
async def test_private_addresses_can_be_forbidden(guarded, serve, host) -> None:
    address = (await serve(echo)).replace("127.0.0.1", host)
    failed = await failure(guarded(url=address))
    assert "is not a public address, and this daemon lets tasks connect to public addresses only" in failed.message


class NotThere(Egress):
    """Forbids one address of loopback, so that a redirect to it can be seen."""

    def refusal(self, address: str) -> str | None:
        return "forbidden" if address == "127.0.0.2" else None


async def test_a_redirect_cannot_lead_to_a_forbidden_address(serve, context: Context) -> None:
    address = await serve(answering(status=302, headers={"Location": "http://127.0.0.2:1/x"}))
    tasks = registry.installed(definition.Settings(egress=NotThere()))
    failed = await failure(tasks.prepare("REST", json.dumps({"url": address}).encode()).run(context))
    assert failed.message == "GET http://127.0.0.2:1/x: forbidden"
    await tasks.aclose()
