"""Hosts that speak HTTP badly or say anything, to every type that speaks it: a task fails, or takes it.

Whatever comes, it ends soon, holds no more of it than its bound, tells no secret, and is never a defect of ours.
"""

from __future__ import annotations

import gzip
import json

import pytest

from headrace.engine import errors
from headrace.tasks import docker_engine, git_fetch, http, rest, vault_client
from tests.support.task_calls import ROWS
from tests.tasks.test_hosts import host

SECRET = "hush-hush-word"
#: A call of each type; S3 speaks as AWS does.
CALLS = {row.type: row.given for row in ROWS if "{url}" in json.dumps(row.given) and row.type != "S3"}


def _answer(body: bytes, *more: bytes, kind: bytes = b"application/json") -> bytes:
    head = [
        b"HTTP/1.1 200 OK",
        b"Content-Type: " + kind,
        b"Content-Length: %d" % len(body),
        b"Connection: close",
        *more,
    ]
    return b"\r\n".join([*head, b"", body])


LAUGHS = b"<!DOCTYPE x [<!ENTITY a0 'ha'>%s]><x>&a19;</x>" % b"".join(
    b"<!ENTITY a%d '%s'>" % (n, b"&a%d;" % (n - 1) * 10) for n in range(1, 20)
)
ANSWERS = {
    "null": _answer(b"null"),
    "list": _answer(b"[null]"),
    "members": _answer(b'{"items":7,"data":null,"access_token":7,"choices":{},"error":[],"status":{},"metadata":0}'),
    "text": _answer(b'"x"'),
    "empty": _answer(b""),
    "no text": _answer(b"\xff\xfe\x00"),
    "deep": _answer(b"[" * 1_000_000),
    "digits": _answer(b"9" * 1_000_000),
    "laughs": _answer(LAUGHS, kind=b"text/xml; charset=utf-8"),
    "a bomb": _answer(gzip.compress(bytes(32 << 20), 1), b"Content-Encoding: gzip"),
    "not packed": _answer(b"garbage", b"Content-Encoding: gzip"),
    "cut off": _answer(b"x" * 100)[:-50],
    "no length": b"HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n",
    "no pieces": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nnonsense\r\n",
    "no HTTP": bytes(range(256)) * 16,
    "nothing": b"",
    "goes in circles": b"HTTP/1.1 307 Go\r\nLocation: /x\r\nContent-Length: 0\r\nConnection: close\r\n\r\n",
    "goes to a file": b"HTTP/1.1 302 Go\r\nLocation: file:///etc/passwd\r\nContent-Length: 0\r\n\r\n",
}
#: What begins with the first is followed by the second for ever.
ENDLESS = {
    "head": (b"HTTP/1.1 200 OK\r\n", b"X-More: %s\r\n" % (b"x" * 1000)),
    "line": (b"HTTP/1.1 200 OK\r\nX: ", b"x" * 65536),
    "body": (b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n\r\n", b'{"a":[],' * 8192),
    "refusal": (b"HTTP/1.1 500 No\r\nContent-Type: application/json\r\n\r\n", b'{"a":[],' * 8192),
    "go on": (b"", b"HTTP/1.1 100 Continue\r\n\r\n" * 1000),
}


#: Types that speak it in a way of their own; the others do through REST.
OWN = ("AWS", "DOCKER", "GIT", "REST", "SOAP", "VAULT")


@pytest.fixture
def ask(call, context, monkeypatch):
    """Do a task with a host that begins with what is said and goes on so for ever; return how it fails, if it does."""
    for module, name in ((rest, "BODY_BYTES_MAX"), (http, "BODY_BYTES_MAX"), (vault_client, "_BODY_BYTES_MAX")):
        monkeypatch.setattr(module, name, 4 << 20)
    monkeypatch.setattr(docker_engine, "OUTPUT_BYTES_MAX", 4 << 20)
    monkeypatch.setattr(git_fetch, "MEMORY_BYTES_MAX", 128 << 20)

    async def asked(type_: str, begun: bytes, more: bytes = b"") -> str | None:
        async def answers(reader, writer):
            await reader.readuntil(b"\r\n\r\n")
            writer.write(begun)
            await writer.drain()
            while more and not writer.is_closing():
                writer.write(more)
                await writer.drain()

        async with host(answers) as bad:
            given = json.dumps(CALLS[type_]).replace("{url}", f"http://127.0.0.1:{bad.port}")
            own = json.loads(given.replace("{secret}", SECRET))
            failure = None
            try:
                await call(type_, **own, retry_backoff=False)
            except errors.TaskFailed as failed:
                failure = failed
            told = b"" if failure is None else failure.message.encode() + failure.output
            assert SECRET.encode() not in told + context.text.encode(), type_
            return None if failure is None else failure.message

    return asked


@pytest.mark.parametrize("type_", CALLS)
async def test_whatever_is_answered(ask, type_):
    for answer in ("null", "list", "members", "empty", "laughs") if type_ not in OWN else ANSWERS:
        await ask(type_, ANSWERS[answer])


@pytest.mark.parametrize("type_", OWN)
async def test_what_has_no_end(ask, type_):
    for begun, more in ENDLESS.values():
        assert await ask(type_, begun, more) is not None, begun
