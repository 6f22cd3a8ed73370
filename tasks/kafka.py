"""KAFKA: publish a message to a topic, or take some from it; aiokafka on a loop of its own.

A message is published when all replicas in sync have it, and the library's own repetitions make no second one. What was
taken is committed for a group when all of it has arrived. Brokers are found through the one that is named, and each of
them must be where the operator allows.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import logging
import re
import ssl
from collections.abc import AsyncIterator
from typing import Annotated, Any, Literal

import msgspec

from ..engine import ports, values
from . import blocking, extras, fence, host, messages, scram
from . import definition as definitions
from .definition import invalid, missing
from .host import about

TASK = "KAFKA"
PORT = 9092
#: What may come in: the messages, and as much again around them.
_BYTES_MAX = 2 * values.VALUE_BYTES_MAX
#: How long a broker may take for an answer, and for the goodbye when it is over.
_ANSWER_S, _LEAVE_S = 30.0, 1.0
_TOPIC = re.compile(r"[a-zA-Z0-9._-]{1,249}")
_Offset = Annotated[int, msgspec.Meta(ge=0, le=2**63 - 1)]


class KafkaInputs(host.HostInputs, kw_only=True):
    """The inputs of KAFKA."""

    port: Annotated[host.Port | None, about("Default: 9092.")] = None
    mechanism: Annotated[
        Literal["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"],
        about("How username and password are shown. Default: PLAIN."),
    ] = "PLAIN"
    command: Annotated[Literal["publish", "receive"], about("What to do. Default: publish.")] = "publish"
    topic: Annotated[str, about("The topic.")]
    partition: Annotated[
        Annotated[int, msgspec.Meta(ge=0, le=2**31 - 1)] | None,
        about("Only this partition. Default: for publish as message_key says, for receive all."),
    ] = None
    text: messages.Text = None
    json: messages.Json = None
    content: messages.Content = None
    message_key: Annotated[str | None, about("For publish: messages with the same key stay in order.")] = None
    headers: Annotated[dict[str, str] | None, about("For publish: headers of the message.")] = None
    count: messages.Count = 1
    wait: messages.Wait = None
    group: Annotated[str | None, about("For receive: the group that goes on where it was, shared with others.")] = None
    acknowledge: Annotated[
        bool, about("For receive with group: the group is behind the messages then. Default: true.")
    ] = True
    offsets: Annotated[
        dict[str, _Offset] | None, about("For receive without group: where to begin, as an earlier one gave it back.")
    ] = None
    start: Annotated[
        Literal["earliest", "latest"],
        about("For receive: where to begin if neither group nor offsets know. Default: earliest."),
    ] = "earliest"

    @property
    def where(self) -> int:
        """The port in force."""
        return self.port or PORT


class KafkaOutput(msgspec.Struct, kw_only=True):
    """The output of KAFKA."""

    partition: int | msgspec.UnsetType = msgspec.UNSET  #: with publish, where it is
    offset: int | msgspec.UnsetType = msgspec.UNSET
    messages: Any = msgspec.UNSET  #: with receive
    offsets: dict[str, int] | msgspec.UnsetType = msgspec.UNSET


def _check(inputs: KafkaInputs) -> None:
    host.check(TASK, inputs)
    if inputs.username is not None and inputs.password is None:
        raise missing(TASK, "password", "the password of 'username'")
    if not _TOPIC.fullmatch(inputs.topic) or inputs.topic in (".", ".."):
        raise invalid(TASK, "topic", "expected letters, digits, dots, - and _, 249 at most")
    if inputs.command == "receive":
        messages.check_none(TASK, inputs)
        for name in ("message_key", "headers"):
            if getattr(inputs, name) is not None:
                raise invalid(TASK, name, "receive sends nothing")
        for name in ("offsets", "partition"):
            if inputs.group is not None and getattr(inputs, name) is not None:
                raise invalid(TASK, name, "the group decides that")
        if not all(one.isdecimal() and len(one) < 11 for one in inputs.offsets or ()):
            raise invalid(TASK, "offsets", "expected {partition: offset}")
        return
    for name in ("group", "offsets", "wait"):
        if getattr(inputs, name) is not None:
            raise invalid(TASK, name, "publish takes nothing")
    messages.check_one(TASK, inputs)


def _libraries() -> tuple[Any, Any, Any]:
    logging.getLogger("aiokafka").setLevel(logging.CRITICAL + 1)  # what it could tell, failures tell
    library, connections, problems = (
        extras.require(name, extra="kafka", task=TASK) for name in ("aiokafka", "aiokafka.conn", "aiokafka.errors")
    )
    _guard(connections)
    return library, connections, problems


@functools.cache
def _guard(connections: Any) -> None:
    """Have the library refuse what no broker should ask for; once."""

    class Careful(connections.ScramAuthenticator):  # type: ignore[misc]
        def create_salted_password(self, salt: bytes, iterations: int) -> None:
            scram.check(iterations)
            super().create_salted_password(salt, iterations)

    connections.ScramAuthenticator = Careful


class _Session:
    """What is done on the library's loop."""

    def __init__(self, libraries: tuple[Any, Any, Any], inputs: KafkaInputs, trust: ssl.SSLContext | None) -> None:
        self._library, self._connections, self._problems = libraries
        self._inputs = inputs
        protocol = ("SASL_" if inputs.username is not None else "") + ("PLAINTEXT" if trust is None else "SSL")
        self._access: dict[str, Any] = {
            "security_protocol": protocol, "ssl_context": trust, "request_timeout_ms": int(_ANSWER_S * 1000),
            "sasl_mechanism": inputs.mechanism, "sasl_plain_username": inputs.username,
            "sasl_plain_password": inputs.password,
        }  # fmt: skip

    async def run(self, loop: fence.Loop) -> KafkaOutput:
        """Do what is asked; raises ``host.Failed``."""
        try:
            async with asyncio.timeout(self._inputs.connect_timeout):
                await self._enter()
            return await (self._received() if self._inputs.command == "receive" else self._published())
        except self._problems.KafkaError as error:
            raise self._explained(error, loop) from None
        except (OSError, *host.GARBAGE) as error:
            where = f"{self._inputs.hostname}:{self._inputs.where}"
            told = fence.explained(error, loop, self._inputs, self._inputs.where)
            raise told or host.Failed(f"what {where} says cannot be used: {host.quoted(str(error))}") from None

    async def _enter(self) -> None:
        """Connect and log in once, whose failure says why; that of the library's clients does not."""
        hostname = self._inputs.hostname.strip("[]")
        await (await self._connections.create_conn(hostname, self._inputs.where, **self._access)).close()

    @contextlib.asynccontextmanager
    async def _client(self, client: Any) -> AsyncIterator[Any]:
        try:
            async with asyncio.timeout(self._inputs.connect_timeout + _ANSWER_S):
                await client.start()
            yield client
        finally:
            with contextlib.suppress(TimeoutError, self._problems.KafkaError):
                async with asyncio.timeout(_LEAVE_S):
                    await client.stop()

    @property
    def _servers(self) -> str:
        name = self._inputs.hostname.strip("[]")
        return f"[{name}]:{self._inputs.where}" if ":" in name else f"{name}:{self._inputs.where}"

    async def _published(self) -> KafkaOutput:
        inputs = self._inputs
        made = self._library.AIOKafkaProducer(
            bootstrap_servers=self._servers, acks="all", enable_idempotence=True, max_request_size=_BYTES_MAX,
            **self._access,
        )  # fmt: skip
        async with self._client(made) as producer:
            if inputs.partition is not None and inputs.partition not in await producer.partitions_for(inputs.topic):
                raise host.Failed(f"the topic has no partition {inputs.partition}")
            told = await producer.send_and_wait(
                inputs.topic,
                messages.payload(inputs),
                key=None if inputs.message_key is None else inputs.message_key.encode(),
                partition=inputs.partition,
                headers=[(name, value.encode()) for name, value in (inputs.headers or {}).items()],
            )
        return KafkaOutput(partition=told.partition, offset=told.offset)

    async def _received(self) -> KafkaOutput:
        inputs = self._inputs
        topics = () if inputs.partition is not None else (inputs.topic,)
        made = self._library.AIOKafkaConsumer(
            *topics, bootstrap_servers=self._servers, group_id=inputs.group, enable_auto_commit=False,
            auto_offset_reset=inputs.start, isolation_level="read_committed", **self._access,
        )  # fmt: skip
        async with self._client(made) as consumer:
            if inputs.partition is not None:
                consumer.assign([self._library.TopicPartition(inputs.topic, inputs.partition)])
            offsets = await self._begun(consumer)
            messages = await self._taken(consumer, offsets)
            if inputs.group is not None and inputs.acknowledge and messages:
                own = {self._library.TopicPartition(inputs.topic, number): offset for number, offset in offsets.items()}
                await consumer.commit({one: own[one] for one in consumer.assignment() if one in own})
        return KafkaOutput(
            messages=messages, offsets={str(number): offset for number, offset in sorted(offsets.items())}
        )

    async def _begun(self, consumer: Any) -> dict[int, int]:
        """Return where each partition begins."""
        asked = {int(number): offset for number, offset in (self._inputs.offsets or {}).items()}
        partitions = {one.partition: one for one in consumer.assignment()}
        for number, offset in asked.items():
            if number not in partitions:
                raise host.Failed(f"the topic has no partition {number}, which 'offsets' names")
            one = partitions[number]
            first, end = (await consumer.beginning_offsets([one]))[one], (await consumer.end_offsets([one]))[one]
            if not first <= offset <= end:
                raise host.Failed(f"partition {number} has no offset {offset}: it has {first} to {end}")
            consumer.seek(one, offset)
        return {number: await consumer.position(one) for number, one in partitions.items()}

    async def _taken(self, consumer: Any, offsets: dict[int, int]) -> list[msgspec.Raw]:
        inputs, clock = self._inputs, asyncio.get_running_loop().time
        taken, end = messages.Taken("take fewer at a time"), None if inputs.wait is None else clock() + inputs.wait
        while (count := inputs.count - len(taken.kept)) > 0:
            left_s = 60.0 if end is None else end - clock()
            if left_s <= 0:
                break
            batches = await consumer.getmany(timeout_ms=int(left_s * 1000) + 1, max_records=count)
            for one in (record for records in batches.values() for record in records):
                taken.add(_message(one))
                offsets[one.partition] = one.offset + 1
        return taken.kept

    def _explained(self, error: Any, loop: fence.Loop) -> host.Failed:
        problems, inputs = self._problems, self._inputs
        where = f"{inputs.hostname}:{inputs.where}"
        if isinstance(error, problems.SaslAuthenticationFailed | problems.AuthenticationFailedError):
            said = host.quoted(str(error))
            return host.Failed(f"{where} refused the password of {inputs.username}: {said}")
        if isinstance(error, problems.KafkaConnectionError):
            told = fence.explained(error, loop, inputs, inputs.where) if loop.failed is not None else None
            return told or host.Failed(f"{where} closed the connection: it may expect TLS or a login", passing=True)
        words = getattr(error, "description", None) or str(error) or type(error).__name__
        return host.Failed(f"{type(error).__name__}: {host.quoted(words)}", passing=bool(error.retriable))


def _message(one: Any) -> dict[str, Any]:
    return {
        **({"text": None} if one.value is None else messages.shown(one.value)),
        "partition": one.partition,
        "offset": one.offset,
        "timestamp": one.timestamp,
        "message_key": None if one.key is None else one.key.decode("utf-8", "replace"),
        "headers": {name: (value or b"").decode("utf-8", "replace") for name, value in one.headers},
    }


async def _attempt(inputs: KafkaInputs, settings: definitions.Settings) -> KafkaOutput:
    libraries = await blocking.call(_libraries)
    await host.addresses(inputs, inputs.where, settings.egress)
    session = _Session(libraries, inputs, await blocking.call(_trust, inputs))
    return await fence.call(session.run, settings.egress, bytes_max=_BYTES_MAX)


def _trust(inputs: KafkaInputs) -> ssl.SSLContext | None:
    """Return the TLS context, which checks the name each broker is reached by."""
    return host.trust(inputs, pinned=False)


async def _run(settings: definitions.Settings, inputs: KafkaInputs, context: ports.TaskContext) -> KafkaOutput:
    attempt = functools.partial(_attempt, inputs, settings)
    shown = f"{inputs.command} on {inputs.hostname}:{inputs.where}"
    return await host.performed(shown, attempt, inputs, context, settings, repeatable=_is_repeatable(inputs))


def _is_repeatable(inputs: KafkaInputs) -> bool:
    return inputs.command == "receive" and (inputs.group is None or not inputs.acknowledge)


def definition(settings: definitions.Settings) -> definitions.TaskDefinition[KafkaInputs]:
    """Return the task type KAFKA."""
    return definitions.TaskDefinition(
        name=TASK,
        summary="Publish messages to topics of Kafka, and take them",
        description="One message to a topic, or some from it.",
        inputs=KafkaInputs,
        output=KafkaOutput,
        run=functools.partial(_run, settings),
        idempotent=_is_repeatable,
        check=_check,
        input_aliases=host.ALIASES,
    )
