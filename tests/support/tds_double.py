"""A server that speaks TDS 7.4 as SQL Server does: a double, made from the public specification [MS-TDS].

It shows what our side makes of the protocol, not what SQL Server makes of ours. Statements are SQLite's, executed for
each connection in a transaction of its own, so that what comes back is made of what was sent. A column that is named
``"x [decimal]"`` comes back as ``x`` of that type. ``raiserror(number, words)`` fails like the product, ``hang_up()``
ends the connection, ``running(pattern)`` tells how many statements are under way that hold this. Section numbers are
those of the specification.
"""

from __future__ import annotations

import contextlib
import dataclasses
import pathlib
import re
import select
import socket
import socketserver
import sqlite3
import ssl
import struct
import threading
from collections.abc import Callable, Iterator

from tests.support import tds_values

#: Types of packets (2.2.3.1.1).
_BATCH, _RPC, _REPLY, _ATTENTION, _TRANSACTION, _LOGIN, _PRELOGIN = 1, 3, 4, 6, 14, 16, 18
#: What a side says of encryption (2.2.6.5).
_ON, _NOT_SUPPORTED, _REQUIRED = 1, 2, 3
#: Bits of DONE (2.2.7.6).
_MORE, _ERROR, _COUNT, _CANCELLED = 1, 2, 0x10, 0x20
_DONE, _DONE_PROC, _DONE_IN_PROC = b"\xfd", b"\xfe", b"\xff"
_SP_EXECUTESQL = 10
_PIECE = 4096
#: So many steps of SQLite pass between two looks at the connection.
_STEPS = 20_000


class _Gone(Exception):
    """The client is."""


@dataclasses.dataclass
class Server:
    """How it is set up, and what it saw."""

    database: pathlib.Path
    username: str = "app"
    password: str = ""
    tls: ssl.SSLContext | None = None  #: without it encryption is not supported
    forced: bool = False  #: whether it wants encryption of everybody
    unavailable: bool = False  #: whether its database is
    elsewhere: tuple[str, int] | None = None  #: where it sends who was let in (2.2.7.9, type 20)
    port: int = 0
    logins: list[tuple[str, str, str]] = dataclasses.field(default_factory=list)  #: user, password, name of the program
    heard: bytearray = dataclasses.field(default_factory=bytearray)  #: what came in over the wire
    running: list[str] = dataclasses.field(default_factory=list)  #: statements that are being executed
    cancelled: int = 0  #: how many statements a client had it break off


@contextlib.contextmanager
def served(server: Server) -> Iterator[Server]:
    """Serve on loopback, a thread for each client, until the block ends."""

    class Handler(socketserver.BaseRequestHandler):
        def handle(self) -> None:
            with contextlib.suppress(_Gone, OSError), contextlib.closing(_Session(server, self.request)) as session:
                session.serve()

    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), Handler) as listening:
        listening.daemon_threads = True
        server.port = listening.server_address[1]
        thread = threading.Thread(target=listening.serve_forever, args=[0.02], name="tds double")
        thread.start()
        try:
            yield server
        finally:
            listening.shutdown()
            thread.join()


def opening() -> list[bytes]:
    """Return what it says, piece by piece, until the first statement comes over a connection without encryption."""
    return [_packets(one) for one in (_agreed(_NOT_SUPPORTED), _let_in() + _done(_DONE, 0), _begun() + _done(_DONE, 0))]


class _Wire:
    """Messages over one connection (2.2.3), through TLS once that has begun."""

    def __init__(self, server: Server, connected: socket.socket) -> None:
        self._server, self._socket = server, connected
        self._incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._tls: ssl.SSLObject | None = None
        self._early = bytearray()

    def receive(self) -> tuple[int, bytes]:
        """Return type and content of the next message."""
        content, last = b"", False
        while not last:
            kind, status, length = struct.unpack(">BBH4x", self._exactly(8))
            content += self._exactly(length - 8)
            last = bool(status & 1)
        return kind, content

    def send(self, content: bytes, kind: int = _REPLY, *, last: bool = True) -> None:
        """Send a message, or a piece of one."""
        self._write(_packets(content, kind, last=last))

    def begin_tls(self, context: ssl.SSLContext) -> None:
        """Shake hands inside of messages of their own (2.2.6.5, 3.3.5.2), which needs TLS before 1.3."""
        context.maximum_version = ssl.TLSVersion.TLSv1_2
        shaking = context.wrap_bio(self._incoming, self._outgoing, server_side=True)
        while True:
            try:
                shaking.do_handshake()
                break
            except ssl.SSLWantReadError:
                self._send_waiting()
                self._incoming.write(self.receive()[1])
            except ssl.SSLError:
                self._send_waiting()
                raise _Gone from None
        self._send_waiting()
        self._tls = shaking

    def _send_waiting(self) -> None:
        if self._outgoing.pending:
            self.send(self._outgoing.read(), _PRELOGIN)

    def is_interrupted(self) -> bool:
        """Whether the client has something to say, or has gone, while it waits for us."""
        return bool(self._early) or bool(select.select([self._socket], [], [], 0)[0])

    def _exactly(self, count: int) -> bytes:
        while len(self._early) < count:
            self._early += self._read()
        taken = bytes(self._early[:count])
        del self._early[:count]
        return taken

    def _read(self) -> bytes:
        while True:
            if self._tls is not None:
                with contextlib.suppress(ssl.SSLWantReadError):
                    if came := self._tls.read(65536):
                        return came
                    raise _Gone
            came = self._socket.recv(65536)
            self._server.heard += came
            if not came:
                raise _Gone
            if self._tls is None:
                return came
            self._incoming.write(came)

    def _write(self, content: bytes) -> None:
        if self._tls is not None:
            self._tls.write(content)
            content = self._outgoing.read()
        self._socket.sendall(content)


class _Session:
    """One client."""

    def __init__(self, server: Server, connected: socket.socket) -> None:
        self._server, self._wire = server, _Wire(server, connected)
        self._database = sqlite3.connect(server.database, isolation_level=None, timeout=20)
        self._database.execute("PRAGMA journal_mode = wal")
        self._database.execute("PRAGMA synchronous = off")
        self._raised: tuple[int, str] | None = None
        self._gone = False
        self._database.create_function("raiserror", 2, self._raise)
        self._database.create_function("hang_up", 0, self._hang_up)
        self._database.create_function("running", 1, self._running)

    def close(self) -> None:
        self._database.close()

    def serve(self) -> None:
        """Do what the client asks until it goes."""
        self._agree(self._wire.receive()[1])
        if self._is_let_in(self._wire.receive()[1]):
            acts: dict[int, Callable[[bytes], None]] = {
                _BATCH: self._batch, _RPC: self._call, _TRANSACTION: self._transaction, _ATTENTION: self._attention,
            }  # fmt: skip
            while True:
                kind, content = self._wire.receive()
                acts[kind](content)

    def _agree(self, asked: bytes) -> None:
        """Answer PRELOGIN (2.2.6.5)."""
        wanted = _NOT_SUPPORTED
        for start in range(0, len(asked), 5):
            if asked[start] == 0xFF:
                break
            option, offset, _ = struct.unpack_from(">BHH", asked, start)
            if option == 1:
                wanted = asked[offset]
        if self._server.tls is None:
            said = _NOT_SUPPORTED
        elif wanted == _NOT_SUPPORTED:
            said = _REQUIRED if self._server.forced else _NOT_SUPPORTED
        else:
            said = _ON
        self._wire.send(_agreed(said))
        if said == _ON and self._server.tls is not None:
            self._wire.begin_tls(self._server.tls)

    def _is_let_in(self, login: bytes) -> bool:
        """Answer LOGIN7 (2.2.6.4)."""

        def text(place: int) -> bytes:
            offset, characters = struct.unpack_from("<HH", login, place)
            return login[offset : offset + 2 * characters]

        hidden = bytes((one ^ 0xA5) >> 4 | ((one ^ 0xA5) & 15) << 4 for one in text(44))
        user, password, program, database = (one.decode("utf-16le") for one in (text(40), hidden, text(48), text(68)))
        self._server.logins.append((user, password, program))
        if (user, password) != (self._server.username, self._server.password):
            return self._refuse(18456, f"Login failed for user '{user}'.")
        if self._server.unavailable:
            return self._refuse(40613, "Database 'app' on server 'double' is not currently available.")
        if database not in ("", "app"):
            words = f'Cannot open database "{database}" requested by the login. The login failed.'
            return self._refuse(4060, words, (18456, f"Login failed for user '{user}'."))
        tokens = _let_in()
        if self._server.elsewhere is not None:
            where, port = self._server.elsewhere
            place = struct.pack("<BHH", 0, port, len(where)) + where.encode("utf-16le")
            tokens += _token(0xE3, b"\x14" + struct.pack("<H", len(place)) + place + b"\0\0")
        self._wire.send(tokens + _done(_DONE, 0))
        return True

    def _batch(self, content: bytes) -> None:
        text = _body(content).decode("utf-16le")
        parts, part = [], ""
        for piece in re.split("(?<=;)", text):
            part += piece
            if sqlite3.complete_statement(part):
                parts.append(part)
                part = ""
        self._execute(parts + [part] * bool(part.strip()) or [""], {}, _DONE)

    def _call(self, content: bytes) -> None:
        """Execute a statement with parameters (2.2.6.6): the text, their declarations, and them."""
        called = _body(content)
        assert struct.unpack_from("<HH", called) == (0xFFFF, _SP_EXECUTESQL)
        (_, text), _, *given = tds_values.parameters(called[6:])
        self._execute([text], {name.removeprefix("@"): value for name, value in given}, _DONE_IN_PROC)

    def _transaction(self, content: bytes) -> None:
        """Begin, commit or roll back (2.2.6.9); another may begin at once."""
        asked = _body(content)
        (what,) = struct.unpack_from("<H", asked)
        tokens = b""
        if what in (7, 8):
            self._database.execute("COMMIT" if what == 7 else "ROLLBACK")
            tokens += _token(0xE3, bytes([what + 2, 0, 8]) + struct.pack("<Q", 1))
        if what == 5 or asked[3] & 1:
            self._database.execute("BEGIN")
            tokens += _begun()
        self._wire.send(tokens + _done(_DONE, 0))

    def _attention(self, _: bytes) -> None:
        self._server.cancelled += 1
        self._wire.send(_done(_DONE, _CANCELLED))

    def _execute(self, texts: list[str], values: dict[str, object], done: bytes) -> None:
        running = " ".join(texts)
        self._server.running.append(running)
        self._database.set_progress_handler(self._wire.is_interrupted, _STEPS)
        try:
            for number, text in enumerate(texts, 1):
                self._answer(text, values, done, more=number < len(texts) or done == _DONE_IN_PROC)
        except sqlite3.Error as error:
            if self._gone:
                raise _Gone from None
            if self._wire.is_interrupted():
                if self._wire.receive()[0] != _ATTENTION:
                    raise _Gone from None
                self._attention(b"")
                return
            self._refuse(*self._words(error))
            return
        finally:
            self._database.set_progress_handler(None, 0)
            self._server.running.remove(running)
        if done == _DONE_IN_PROC:
            self._wire.send(b"\x79\0\0\0\0" + _done(_DONE_PROC, 0))

    def _answer(self, text: str, values: dict[str, object], done: bytes, *, more: bool) -> None:
        found = self._database.execute(text, values)
        tokens, count = b"", max(found.rowcount, 0)
        if found.description is not None:
            row = found.fetchone()
            columns = tds_values.columns([name for name, *_ in found.description], row)
            tokens, count = tds_values.metadata(columns), 0
            while row is not None:
                tokens += b"\xd1" + b"".join(column.encoded(value) for column, value in zip(columns, row, strict=True))
                count += 1
                if len(tokens) > _PIECE:
                    self._wire.send(tokens, last=False)
                    tokens = b""
                    if self._wire.is_interrupted():
                        raise sqlite3.OperationalError("interrupted")
                row = found.fetchone()
        status = _COUNT if found.description is not None or found.rowcount >= 0 else 0
        self._wire.send(tokens + _done(done, status | _MORE * more, count), last=not more)

    def _refuse(self, number: int, words: str, *more: tuple[int, str]) -> bool:
        errors = b"".join(_token(0xAA, _message(*one)) for one in ((number, words), *more))
        self._wire.send(errors + _done(_DONE, _ERROR))
        return False

    def _words(self, error: sqlite3.Error) -> tuple[int, str]:
        said = str(error)
        if self._raised is not None:
            (number, words), self._raised = self._raised, None
            return number, words
        if said.startswith("no such table: "):
            return 208, f"Invalid object name '{said.removeprefix('no such table: ')}'."
        if isinstance(error, sqlite3.IntegrityError):
            return 2627, f"Violation of a constraint: {said}."
        return 102, f"Incorrect syntax: {said}."

    def _raise(self, number: int, words: str) -> None:
        self._raised = number, words
        raise ValueError(words)

    def _running(self, pattern: str) -> int:
        return sum(pattern.strip("%") in text for text in self._server.running)

    def _hang_up(self) -> None:
        self._gone = True
        raise ConnectionError


def _packets(content: bytes, kind: int = _REPLY, *, last: bool = True) -> bytes:
    """A message, or a piece of one (2.2.3.1)."""
    said = b""
    for start in range(0, len(content) or 1, _PIECE - 8):
        piece = content[start : start + _PIECE - 8]
        ends = last and start + len(piece) >= len(content)
        said += struct.pack(">BBHHBB", kind, ends, len(piece) + 8, 51, 1, 0) + piece
    return said


def _agreed(encryption: int) -> bytes:
    """What answers PRELOGIN (2.2.6.5): the version, and what becomes of encryption."""
    return struct.pack(">BHHBHHB", 0, 11, 6, 1, 17, 1, 0xFF) + bytes([16, 0, 0x10, 0, 0, 0, encryption])


def _let_in() -> bytes:
    """What answers LOGIN7: the database, the collation, and who it is (2.2.7.9, 2.2.7.14)."""
    name, product = "app".encode("utf-16le"), "Microsoft SQL Server".encode("utf-16le")
    tokens = _token(0xE3, b"\1\3" + name + b"\6" + "master".encode("utf-16le"))
    tokens += _token(0xAB, _message(5701, "Changed database context to 'app'."))
    tokens += _token(0xE3, b"\7\5" + tds_values.COLLATION + b"\0")
    version = bytes.fromhex("74000004")
    return tokens + _token(0xAD, b"\1" + version + bytes([len(product) // 2]) + product + b"\x10\0\x10\0")


def _begun() -> bytes:
    return _token(0xE3, b"\x08\x08" + struct.pack("<Q", 1) + b"\0")


def _body(content: bytes) -> bytes:
    """Return a request without the headers before it (2.2.5.3)."""
    return content[struct.unpack_from("<I", content)[0] :]


def _token(kind: int, content: bytes) -> bytes:
    return struct.pack("<BH", kind, len(content)) + content


def _message(number: int, words: str) -> bytes:
    """An error or what is told (2.2.7.10, 2.2.7.13)."""
    server = "double".encode("utf-16le")
    head = struct.pack("<IBBH", number, 1, 14, len(words)) + words.encode("utf-16le")
    return head + bytes([len(server) // 2]) + server + b"\0" + struct.pack("<I", 1)


def _done(kind: bytes, status: int, count: int = 0) -> bytes:
    return kind + struct.pack("<HHQ", status, 0, count)
