"""Connections: slow ones end, too many make room, and what is not HTTP is refused without a word of it coming back."""

import contextlib
import json
import socket
import time

import pytest

from headrace.daemon import answers
from tests.support import small_server
from tests.support.daemons import until

HEAD = b"POST /echo HTTP/1.1\r\nHost: x\r\n"


def connect(server):
    return contextlib.closing(socket.create_connection(("127.0.0.1", server.port), 20))


def everything(connection):
    """What comes until the other end closes."""
    found = b""
    with contextlib.suppress(ConnectionResetError):
        while chunk := connection.recv(1 << 20):
            found += chunk
    return found


def echoed(connection, text=b"hello"):
    connection.sendall(HEAD + b"Content-Length: %d\r\n\r\n%b" % (len(text), text))
    answer = b""
    while not answer.endswith(text):
        chunk = connection.recv(1 << 20)
        assert chunk, answer
        answer += chunk
    return answer


@pytest.fixture(scope="module")
def impatient():
    with small_server.running(head_s=0.3, write_s=0.5, idle_s=1.5, linger_s=0.3) as server:
        yield server


@pytest.mark.parametrize("sent", [b"", b"G", HEAD, HEAD + b"Content-Le"])
def test_a_head_that_is_not_whole_in_time_ends_the_connection(impatient, sent):
    with connect(impatient) as connection:
        connection.sendall(sent)
        assert everything(connection).startswith(b"HTTP/1.1 408 ")


def test_a_head_that_comes_byte_by_byte_is_late_all_the_same(impatient):
    with connect(impatient) as connection:
        began = time.monotonic()
        with contextlib.suppress(ConnectionError):
            while time.monotonic() - began < 20:
                connection.sendall(b"x" if time.monotonic() - began > 0.01 else HEAD + b"A: ")
                time.sleep(0.05)
        assert time.monotonic() - began < 20


def test_a_second_head_is_waited_for_as_the_first(impatient):
    with connect(impatient) as connection:
        echoed(connection)
        connection.sendall(HEAD)
        assert everything(connection).startswith(b"HTTP/1.1 408 ")


def test_a_slow_handler_and_a_connection_between_requests_are_left_alone(impatient):
    with connect(impatient) as connection:
        connection.sendall(b"GET /slow?s=2 HTTP/1.1\r\nHost: x\r\n\r\n")
        assert b"done" in connection.recv(65536)  # longer than every deadline here
        time.sleep(0.4)  # longer than a head may take: nothing of one came yet
        echoed(connection)
        assert everything(connection) == b""  # closed when it was idle for too long


def test_a_body_in_pieces_is_no_head(impatient):
    with connect(impatient) as connection:
        connection.sendall(HEAD + b"Content-Length: 8\r\n\r\n")
        for _ in range(8):
            time.sleep(0.1)
            connection.sendall(b"x")
        assert connection.recv(65536).endswith(b"x" * 8) or connection.recv(65536) == b"x" * 8


def test_a_reader_that_does_not_read_loses_its_connection(impatient):
    with connect(impatient) as connection:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        connection.sendall(b"GET /big HTTP/1.1\r\nHost: x\r\n\r\n")
        until(lambda: impatient.door.open == 1, "it is connected")
        until(lambda: impatient.door.open == 0, "the connection is given up")


def test_who_waits_longest_for_a_head_makes_room_and_who_asks_is_served():
    with small_server.running(head_s=60, fresh_s=0, connections=20) as server, contextlib.ExitStack() as stack:
        busy = stack.enter_context(connect(server))
        echoed(busy)
        slow = [stack.enter_context(connect(server)) for _ in range(50)]
        until(lambda: server.door.open == 20, "it is full")
        for _ in range(100):
            with connect(server) as fresh:
                echoed(fresh)
        echoed(busy)
        gone = 0
        for connection in slow:
            connection.settimeout(0.01)
            with contextlib.suppress(TimeoutError):
                gone += everything(connection) == b""
        assert gone >= 31 and server.door.open <= 20


def test_nobody_who_has_just_come_makes_room_for_others():
    with small_server.running(head_s=60, fresh_s=60, connections=3) as server, contextlib.ExitStack() as stack:
        waiting = [stack.enter_context(connect(server)) for _ in range(3)]
        until(lambda: server.door.open == 3, "it is full")
        with connect(server) as one_more:
            assert everything(one_more).startswith(b"HTTP/1.1 503 ")
        for connection in waiting:
            echoed(connection)


def test_when_everybody_is_busy_the_next_one_is_told_to_come_again():
    with small_server.running(connections=3) as server, contextlib.ExitStack() as stack:
        busy = [stack.enter_context(connect(server)) for _ in range(3)]
        for connection in busy:
            connection.sendall(b"GET /slow?s=1.5 HTTP/1.1\r\nHost: x\r\n\r\n")
        until(lambda: server.door.open == 3 and not server.door._headless, "all are busy")
        with connect(server) as one_more:
            assert b"503" in (answer := everything(one_more)) and b"Retry-After" in answer
        for connection in busy:
            assert b"done" in connection.recv(65536)


def test_one_address_does_not_take_all_connections():
    with small_server.running(per_address=5) as server, contextlib.ExitStack() as stack:
        for _ in range(5):
            echoed(stack.enter_context(connect(server)))
        with connect(server) as sixth:
            assert everything(sixth).startswith(b"HTTP/1.1 503 ")
        with contextlib.closing(
            socket.create_connection(("127.0.0.1", server.port), 20, source_address=("127.0.0.9", 0))
        ) as other:
            echoed(other)
    assert server.door.open == 0


#: What aiohttp refused when it was measured (3.14.5), and what else a lenient parser would take: for every upgrade.
FRAMING = {
    "two lengths": HEAD + b"Content-Length: 5\r\nContent-Length: 6\r\n\r\nhello!",
    "two equal lengths": HEAD + b"Content-Length: 5\r\nContent-Length: 5\r\n\r\nhello",
    "a length and chunks": HEAD + b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "chunks and a length": HEAD + b"Transfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n0\r\n\r\n",
    "a signed length": HEAD + b"Content-Length: +5\r\n\r\nhello",
    "a negative length": HEAD + b"Content-Length: -5\r\n\r\nhello",
    "a length in hex": HEAD + b"Content-Length: 0x5\r\n\r\nhello",
    "a length with a list": HEAD + b"Content-Length: 5, 5\r\n\r\nhello",
    "no host": b"POST /echo HTTP/1.1\r\nContent-Length: 0\r\n\r\n",
    "two hosts": HEAD + b"Host: y\r\nContent-Length: 0\r\n\r\n",
    "a bare line feed": b"POST /echo HTTP/1.1\nHost: x\nContent-Length: 0\n\n",
    "a blank before the colon": HEAD + b"Content-Length : 5\r\n\r\nhello",
    "a folded line": HEAD + b"A: b\r\n c\r\nContent-Length: 0\r\n\r\n",
    "a NUL": HEAD + b"A: b\x00c\r\nContent-Length: 0\r\n\r\n",
    "a bare carriage return": HEAD + b"A: b\rc\r\nContent-Length: 0\r\n\r\n",
    "chunked twice": HEAD + b"Transfer-Encoding: chunked, chunked\r\n\r\n0\r\n\r\n",
    "chunked not last": HEAD + b"Transfer-Encoding: chunked, gzip\r\n\r\n0\r\n\r\n",
    "an unknown coding": HEAD + b"Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n",
    "a chunk size of letters": HEAD + b"Transfer-Encoding: chunked\r\n\r\nzz\r\nhello\r\n0\r\n\r\n",
    "a signed chunk size": HEAD + b"Transfer-Encoding: chunked\r\n\r\n+5\r\nhello\r\n0\r\n\r\n",
    "another protocol": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + b"\x00" * 32 + b"\r\n\r\n",
    "version 2": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    "many headers": HEAD + b"".join(b"H%d: x\r\n" % n for n in range(65)) + b"Content-Length: 0\r\n\r\n",
    "a long header": HEAD + b"A: " + b"x" * 9000 + b"\r\nContent-Length: 0\r\n\r\n",
    "a long line": b"POST /" + b"x" * 9000 + b" HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n",
}


@pytest.mark.parametrize("name", FRAMING)
def test_what_two_parsers_could_read_in_two_ways_is_refused_and_nothing_behind_it_is_read(impatient, name):
    with connect(impatient) as connection:
        connection.sendall(FRAMING[name] + b"GET /slow?s=0 HTTP/1.1\r\nHost: x\r\n\r\n")
        answer = everything(connection)
    assert answer.startswith((b"HTTP/1.1 400 ", b"HTTP/1.0 400 ")), answer
    assert answer.count(b"HTTP/1.") == 1 and b"done" not in answer
    head, _, body = answer.partition(b"\r\n\r\n")
    assert b"aiohttp" not in head and b"application/problem+json" in head
    assert json.loads(body)["status"] == 400


@pytest.mark.parametrize(
    ("head", "status"),
    [
        (b"GET /" + b"x" * 5000 + b" HTTP/1.1\r\nHost: x\r\n", 414),
        (b"GET /slow?s=0 HTTP/1.1\r\nHost: x\r\n" + b"".join(b"H%d: %b\r\n" % (n, b"x" * 800) for n in range(50)), 431),
    ],
)
def test_a_head_that_is_whole_and_too_large_is_refused(impatient, head, status):
    with connect(impatient) as connection:
        connection.sendall(head + b"Connection: close\r\n\r\n")
        assert everything(connection).startswith(b"HTTP/1.1 %d " % status)


def test_requests_in_one_piece_are_answered_in_their_order(impatient):
    texts = [b"first", b"second", b"third"]
    with connect(impatient) as connection:
        connection.sendall(b"".join(HEAD + b"Content-Length: %d\r\n\r\n%b" % (len(text), text) for text in texts))
        answer = everything(connection)
    positions = [answer.index(text) for text in texts]
    assert positions == sorted(positions) and answer.count(b"200 OK") == 3


@pytest.mark.parametrize("encoding", ["gzip", "deflate", "br", "zstd", "gzip, gzip"])
def test_nothing_is_unpacked_for_strangers(impatient, encoding):
    with connect(impatient) as connection:
        connection.sendall(HEAD + b"Content-Encoding: %b\r\nContent-Length: 3\r\n\r\nabc" % encoding.encode())
        assert b" 415 " in connection.recv(65536)


def test_a_body_over_the_limit_is_refused_as_soon_as_that_is_known(impatient):
    with connect(impatient) as connection:
        connection.sendall(HEAD + b"Content-Length: 30000000\r\n\r\n")
        assert b" 413 " in connection.recv(65536)
    with connect(impatient) as connection:
        connection.sendall(HEAD + b"Transfer-Encoding: chunked\r\n\r\n")
        chunk = b"100000\r\n" + b"x" * 0x100000 + b"\r\n"
        with contextlib.suppress(ConnectionError):
            for _ in range(40):
                connection.sendall(chunk)
        assert b" 413 " in everything(connection)


def test_a_body_that_does_not_come_is_not_waited_for(impatient, monkeypatch):
    monkeypatch.setattr(answers, "BODY_S", 0.3)
    with connect(impatient) as connection:
        connection.sendall(HEAD + b"Content-Length: 10\r\n\r\nhalf")
        assert b" 408 " in connection.recv(65536)


def test_bodies_that_arrive_at_the_same_time_share_their_room_and_give_it_back(impatient, monkeypatch):
    monkeypatch.setattr(answers, "BODIES_BYTES_MAX", 5_000_000)
    half, rest = b"x" * 2_000_000, b"x" * 1_000_000
    with contextlib.ExitStack() as stack:
        senders = [stack.enter_context(connect(impatient)) for _ in range(3)]
        for sender in senders[:2]:
            sender.sendall(HEAD + b"Content-Length: %d\r\n\r\n%b" % (len(half + rest), half))
        until(lambda: answers._in_memory._bytes == 4_000_000, "two halves have arrived")
        senders[2].sendall(HEAD + b"Content-Length: %d\r\n\r\n%b" % (len(half), half))
        assert b" 503 " in senders[2].recv(65536)
    until(lambda: answers._in_memory._bytes == 0, "all of it is given back")
    with connect(impatient) as again:
        echoed(again, b"x" * 4_000_000)
