"""REDIS: commands for Redis and Valkey.

One command a task, on a connection of its own: cancelled, the connection is gone, and with it what the server was
waiting for on our behalf. Answers are texts in UTF-8, unless the task says that they are bytes.
"""

from __future__ import annotations

import asyncio
import base64
import functools
from typing import Annotated, Any

import msgspec

from ..engine import ports
from . import definition as definitions
from . import host, resp
from .definition import invalid
from .host import about

TASK = "REDIS"
PORT = 6379
#: Commands that never answer once, or change what the connection is.
_ENDLESS = frozenset({"SUBSCRIBE", "PSUBSCRIBE", "SSUBSCRIBE", "MONITOR", "SYNC", "PSYNC", "HELLO", "RESET", "QUIT"})
#: Commands that change nothing.
READING = frozenset(
    """
    BITCOUNT BITPOS DBSIZE DUMP ECHO EXISTS EXPIRETIME GEODIST GEOHASH GEOPOS GEOSEARCH GET GETBIT GETRANGE HEXISTS
    HGET HGETALL HKEYS HLEN HMGET HRANDFIELD HSCAN HSTRLEN HVALS INFO KEYS LASTSAVE LCS LINDEX LLEN LPOS LRANGE MGET
    PEXPIRETIME PING PTTL RANDOMKEY SCAN SCARD SDIFF SINTER SINTERCARD SISMEMBER SMEMBERS SMISMEMBER SRANDMEMBER
    SSCAN STRLEN SUBSTR SUNION TIME TTL TYPE XINFO XLEN XRANGE XREVRANGE ZCARD ZCOUNT ZDIFF ZINTER ZINTERCARD
    ZLEXCOUNT ZMSCORE ZRANDMEMBER ZRANGE ZRANGEBYLEX ZRANGEBYSCORE ZRANK ZREVRANGE ZREVRANGEBYLEX ZREVRANGEBYSCORE
    ZREVRANK ZSCAN ZSCORE ZUNION
    """.split()  # noqa: SIM905 - a list would take a page
)
#: Errors that pass, by their first word.
_PASSING = ("LOADING", "TRYAGAIN", "CLUSTERDOWN", "MASTERDOWN", "BUSY", "ERR max number of clients")


class RedisInputs(host.HostInputs, kw_only=True):
    """The inputs of REDIS."""

    port: Annotated[host.Port | None, about("Default: 6379.")] = None
    username: Annotated[str | None, about("The user to log in as. Default: the server's default user.")] = None
    database: Annotated[int, msgspec.Meta(ge=0, description="The number of the database. Default: 0.")] = 0
    command: Annotated[str, about("The command, such as GET or CLIENT LIST.")]
    args: Annotated[list[str | int | float] | None, about("Its arguments.")] = None
    binary: Annotated[bool, about("Texts of the answer are bytes, given in base64. Default: false.")] = False

    @property
    def words(self) -> list[bytes]:
        """The command with its arguments."""
        return [*(word.encode() for word in self.command.split()), *(str(one).encode() for one in self.args or [])]

    @property
    def repeatable(self) -> bool:
        """Whether doing it twice is the same as doing it once."""
        return self.command.split()[0].upper() in READING


class RedisOutput(msgspec.Struct, kw_only=True):
    """The output of REDIS."""

    result: Any = None  #: the answer; maps are objects


def _check(inputs: RedisInputs) -> None:
    if not inputs.command.split():
        raise invalid(TASK, "command", "expected a command such as GET")
    name = inputs.command.split()[0].upper()
    if name in _ENDLESS:
        raise invalid(TASK, "command", f"{name} does not answer once and be done")
    host.check(TASK, inputs, nameless=True)


class _Session:
    """A connection that is let in, one command at a time."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._answers = resp.Answers(reader)
        self._writer = writer

    async def ask(self, *words: bytes) -> Any:
        """Return the answer to a command."""
        self._writer.write(resp.command(words))
        await self._writer.drain()
        return await self._answers.next()

    async def enter(self, inputs: RedisInputs, name: str) -> None:
        """Log in, with the newer protocol where the server has it; raises ``host.Failed``."""
        user, password = (inputs.username or "default").encode(), (inputs.password or "").encode()
        who = [b"AUTH", user, password] if inputs.password is not None else []
        answer = await self.ask(b"HELLO", b"3", *who)
        if isinstance(answer, resp.Problem) and answer.text.startswith(("ERR unknown command", "NOPROTO")):
            answer = await self.ask(*([b"AUTH", password] if inputs.username is None else who)) if who else None
        _good(answer)
        if inputs.database:
            _good(await self.ask(b"SELECT", b"%d" % inputs.database))
        await self.ask(b"CLIENT", b"SETNAME", name.encode())  # for whoever looks at the server; it need not know it


def _good(answer: Any) -> Any:
    if isinstance(answer, resp.Problem):
        said = host.quoted(answer.text)
        raise host.Failed(said, passing=said.startswith(_PASSING))
    return answer


def _plain(value: Any, *, binary: bool) -> Any:
    """Return an answer as JSON can hold it."""
    match value:
        case bytes():
            if binary:
                return base64.b64encode(value).decode()
            try:
                return value.decode()
            except UnicodeDecodeError:
                raise host.Failed("the answer is not text in UTF-8: binary=True gives bytes in base64") from None
        case resp.Problem():
            return {"error": value.text}
        case resp.Pairs():
            return {str(_plain(key, binary=binary)): _plain(one, binary=binary) for key, one in value}
        case list():
            return [_plain(one, binary=binary) for one in value]
    return value


async def _attempt(inputs: RedisInputs, context: ports.TaskContext, settings: definitions.Settings) -> RedisOutput:
    port = inputs.port or PORT
    async with host.stream(inputs, port, settings.egress, limit=resp.LINE_BYTES_MAX) as (reader, writer):
        session = _Session(reader, writer)
        try:
            async with asyncio.timeout(inputs.connect_timeout):
                await session.enter(inputs, f"headrace-{context.execution_id}")
        except TimeoutError as error:
            raise host.explained(error, inputs, port) from None
        answer = _good(await session.ask(*inputs.words))
        return RedisOutput(result=_plain(answer, binary=inputs.binary))


async def _run(settings: definitions.Settings, inputs: RedisInputs, context: ports.TaskContext) -> RedisOutput:
    attempt = functools.partial(_attempt, inputs, context, settings)
    shown = f"{inputs.command.split()[0].upper()} on {inputs.hostname}:{inputs.port or PORT}"
    return await host.performed(shown, attempt, inputs, context, settings, repeatable=inputs.repeatable)


def definition(settings: definitions.Settings) -> definitions.TaskDefinition[RedisInputs]:
    """Return the task type REDIS."""
    return definitions.TaskDefinition(
        name=TASK,
        summary="Send a command to Redis or Valkey",
        description="One command with its arguments, and its answer.",
        inputs=RedisInputs,
        output=RedisOutput,
        run=functools.partial(_run, settings),
        idempotent=lambda inputs: inputs.repeatable,
        check=_check,
        aliases=("VALKEY",),
        input_aliases={**host.ALIASES, "db": "database"},
    )
