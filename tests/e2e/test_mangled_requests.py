"""Requests with bytes changed, dropped, doubled and moved: each is answered or cut off, none is a defect, and what
follows on the same connection is never answered as something else."""

import os
import random
import socket

import pytest

MUTATIONS = int(os.environ.get("HEADRACE_MUTATIONS", "1000"))
SEED = int(os.environ.get("HEADRACE_SEED", "0")) or random.SystemRandom().randrange(1 << 32)
HOOK = '# /// script\n# [tool.headrace]\n# webhook = {name = "open", auth = "none"}\n# ///\n'
ECHO = "def handler(system, this, inputs):\n    return this.success()\n"
WORDS = [
    *(b"\r\n", b"\n", b"\r", b"\0", b" ", b"\t", b":", b"%", b"%00", b"//", b"..", b"?", b"#", b"\xff", b"0", b"-1"),
    *(
        b"Transfer-Encoding: chunked\r\n",
        b"Content-Length: 3\r\n",
        b"Host: evil.example\r\n",
        b"Expect: 100-continue\r\n",
    ),
    *(
        b"Upgrade: h2c\r\n",
        b"Connection: close\r\n",
        b"Content-Encoding: gzip\r\n",
        b"GET / HTTP/1.1\r\n",
        b"0\r\n\r\n",
    ),
    *(b"HTTP/0.9", b"HTTP/2.0", b"99999999999999999999", b"Cookie: a=b; ;=\r\n", b"Authorization: Bearer \xff\r\n"),
]


@pytest.fixture(scope="module")
def daemon(workshop):
    workshop.flow("open", HOOK + ECHO)
    return workshop.daemon


def requests(daemon):
    token = daemon.token().encode()
    return [
        b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n",
        b"GET /api/v1/flows?limit=2 HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer " + token + b"\r\n\r\n",
        b"POST /webhook/open?async=1 HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
        b'Content-Length: 7\r\n\r\n{"a":1}',
        b"POST /webhook/open?async=1 HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n"
        b'7\r\n{"a":1}\r\n0\r\n\r\n',
        b"PUT /api/v1/settings/mangled HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer " + token + b"\r\n"
        b"If-Match: *\r\nContent-Type: application/json\r\nContent-Length: 11\r\n\r\n" + b'{"value":1}',
        b"GET /login?next=/ HTTP/1.1\r\nHost: localhost\r\nCookie: headrace=x\r\nAccept: text/html\r\n\r\n",
    ]


def mangled(request, chance):
    found = bytearray(request)
    for _ in range(chance.choice((1, 1, 1, 2, 4))):
        at = chance.randrange(len(found) + 1)
        match chance.randrange(6):
            case 0 if at < len(found):
                found[at] ^= 1 << chance.randrange(8)
            case 1:
                del found[at : at + chance.choice((1, 1, 5, 40))]
            case 2:
                found[at:at] = chance.choice(WORDS)
            case 3:
                found[at:at] = found[at : at + chance.randrange(1, 40)]
            case 4:
                found[at:at] = bytes(chance.randrange(256) for _ in range(chance.randrange(1, 9)))
            case _:
                found[at : at + 1] = chance.choice(WORDS)
    return bytes(found)


def statuses(answer):
    """The status of every answer in what came back."""
    return [int(part[2:5]) for part in answer.split(b"HTTP/1.")[1:] if part[2:5].isdigit()]


def test_no_mangled_request_is_a_defect_or_shifts_what_follows(daemon, record_property):
    port, chance = int(daemon.url.rpartition(":")[2]), random.Random(SEED)
    usual = requests(daemon)
    record_property("seed", SEED)
    record_property("tries", MUTATIONS)
    marker = b"GET /nowhere/marker HTTP/1.1\r\nHost: localhost\r\nX-Request-Id: the-marker\r\nConnection: close\r\n\r\n"
    seen = {}
    for n in range(MUTATIONS):
        request = mangled(chance.choice(usual), chance)
        with socket.create_connection(("127.0.0.1", port), 10) as connection:
            connection.sendall(request + marker)
            connection.settimeout(0.5)
            answer = b""
            try:
                while piece := connection.recv(1 << 16):
                    answer += piece
            except (ConnectionError, TimeoutError):  # cut off, or waiting for the rest of a body that swallowed all
                pass
        for status in statuses(answer):
            seen[status] = seen.get(status, 0) + 1
            assert status < 500 or status == 505, f"seed {SEED}, number {n}: {request!r} got {answer[:300]!r}"
        for part in answer.split(b"HTTP/1.")[1:]:
            # The answer that names the marker is the marker's, and there is nothing at /nowhere/marker; unless the head
            # before it has no end and goes on in it.
            if b"\r\n\r\n" in request and b"the-marker" in part.partition(b"\r\n\r\n")[0]:
                assert part[2:5] in (b"404", b"400", b"421", b"413"), f"seed {SEED}, number {n}: {request!r}"
    assert len(seen) > 4 and sum(seen.values()) > MUTATIONS / 2
    print(f"seed {SEED}: {MUTATIONS} requests, answers {dict(sorted(seen.items()))}")
    said = daemon.log.read_text()
    assert '"request.failed"' not in said
    assert "Traceback" not in said
    assert daemon.raw("GET", "/healthz")[0] == 200
