"""MQTT: publish a message, or receive some (version 3.1.1).

The protocol is small and spoken here, over the event loop. A session is clean: what a task subscribed to ends with it.
A message with ``qos`` 1 or 2 was taken over by the broker when the task succeeds.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
from collections.abc import AsyncIterator
from typing import Annotated, Any, Literal

import msgspec

from ..engine import ports
from . import definition as definitions
from . import host, messages
from .definition import invalid
from .host import about

TASK = "MQTT"
PORT, TLS_PORT = 1883, 8883
#: What one packet may take; a broker may send up to 256 MiB.
PACKET_BYTES_MAX = 16 * 1024 * 1024
_PING_S = 30.0
_KEEP_ALIVE_S = 90
_REFUSALS = {
    1: "it does not speak MQTT 3.1.1",
    2: "it does not take our client id",
    3: "it is not available",
    4: "wrong username or password",
    5: "not allowed",
}
_NOT_UNDERSTOOD = "what the broker says is not understood: it may not be MQTT, or may expect TLS"
CONNECT, CONNACK, PUBLISH, PUBACK, PUBREC, PUBREL, PUBCOMP = 0x10, 0x20, 0x30, 0x40, 0x50, 0x62, 0x70
SUBSCRIBE, SUBACK, PINGREQ, PINGRESP, DISCONNECT = 0x82, 0x90, 0xC0, 0xD0, 0xE0


class MqttInputs(host.HostInputs, kw_only=True):
    """The inputs of MQTT."""

    port: Annotated[host.Port | None, about("Default: 1883, with use_tls 8883.")] = None
    command: Annotated[Literal["publish", "receive"], about("What to do. Default: publish.")] = "publish"
    topic: Annotated[str, about("The topic; for receive with + and # for any.")]
    text: messages.Text = None
    json: messages.Json = None
    content: messages.Content = None
    qos: Annotated[Literal[0, 1, 2], about("0 at most once, 1 at least once, 2 exactly once. Default: 1.")] = 1
    retain: Annotated[bool, about("For publish: the broker keeps it for those who come later. Default: false.")] = False
    count: messages.Count = 1
    wait: messages.Wait = None
    client_id: Annotated[
        str | None, about("How the broker shall know us. Default: one made of the execution's id.")
    ] = None

    @property
    def where(self) -> int:
        """The port in force."""
        return self.port or (TLS_PORT if self.with_tls else PORT)


class MqttOutput(msgspec.Struct, kw_only=True):
    """The output of MQTT."""

    messages: Any = msgspec.UNSET  #: with receive: topic, text or content, qos and retain of each


def _check(inputs: MqttInputs) -> None:
    host.check(TASK, inputs)
    if not inputs.topic or len(inputs.topic.encode()) > 65535 or "\0" in inputs.topic:
        raise invalid(TASK, "topic", "expected the name of a topic")
    if inputs.command == "receive":
        messages.check_none(TASK, inputs)
        return
    if "+" in inputs.topic or "#" in inputs.topic:
        raise invalid(TASK, "topic", "+ and # are for receive")
    messages.check_one(TASK, inputs)


def packet(kind: int, *parts: bytes) -> bytes:
    """Return one packet."""
    body = b"".join(parts)
    length, digits = len(body), bytearray()
    while True:
        length, digit = divmod(length, 128)
        digits.append(digit | (0x80 if length else 0))
        if not length:
            return bytes((kind, *digits)) + body


def text(value: str | bytes) -> bytes:
    """Return a text, or bytes, with its length."""
    octets = value.encode() if isinstance(value, str) else value
    return len(octets).to_bytes(2, "big") + octets


class _Session:
    """A connection to a broker."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer

    async def send(self, kind: int, *parts: bytes) -> None:
        self._writer.write(packet(kind, *parts))
        await self._writer.drain()

    async def next(self) -> tuple[int, bytes]:
        """Return kind and body of the next packet that is no answer to a ping; raises ``host.Failed``."""
        while True:
            kind = (await self._reader.readexactly(1))[0]
            length = await self._length()
            if length > PACKET_BYTES_MAX:
                raise host.Failed(f"the broker sent a message of more than {PACKET_BYTES_MAX >> 20} MiB")
            body = await self._reader.readexactly(length)
            if kind != PINGRESP:
                return kind, body
            await asyncio.sleep(0)  # many at once must not keep the daemon from all else

    async def _length(self) -> int:
        length = 0
        for place in range(4):
            digit = (await self._reader.readexactly(1))[0]
            length |= (digit & 0x7F) << (7 * place)
            if not digit & 0x80:
                return length
        raise host.Failed(_NOT_UNDERSTOOD)

    async def expect(self, kind: int) -> bytes:
        """Return the body of the next packet, which has to be of this kind."""
        found, body = await self.next()
        if found != kind:
            raise host.Failed(_NOT_UNDERSTOOD)
        return body

    async def enter(self, inputs: MqttInputs, client_id: str) -> None:
        """Log in."""
        flags, parts = 0x02, [text(inputs.client_id or client_id)]
        if inputs.username is not None:
            flags |= 0x80
            parts.append(text(inputs.username))
            if inputs.password is not None:
                flags |= 0x40
                parts.append(text(inputs.password))
        head = text("MQTT") + bytes((4, flags)) + _KEEP_ALIVE_S.to_bytes(2, "big")
        await self.send(CONNECT, head, *parts)
        body = await self.expect(CONNACK)
        if len(body) != 2:
            raise host.Failed(_NOT_UNDERSTOOD)
        if body[1]:
            why = _REFUSALS.get(body[1], f"code {body[1]}")
            raise host.Failed(f"the broker does not let us in: {why}", passing=body[1] == 3)

    async def publish(self, inputs: MqttInputs) -> None:
        """Send the message, and wait until the broker has it."""
        number = b"\0\1"
        flags = inputs.qos << 1 | int(inputs.retain)
        await self.send(PUBLISH | flags, text(inputs.topic), number if inputs.qos else b"", messages.payload(inputs))
        if inputs.qos:
            _same(await self.expect(PUBACK if inputs.qos == 1 else PUBREC), number)
        if inputs.qos == 2:
            await self.send(PUBREL, number)
            _same(await self.expect(PUBCOMP), number)
        await self.send(DISCONNECT)

    async def subscribe(self, inputs: MqttInputs) -> None:
        """Ask for messages."""
        await self.send(SUBSCRIBE, b"\0\1", text(inputs.topic), bytes((inputs.qos,)))
        body = await self.expect(SUBACK)
        _same(body[:2], b"\0\1")
        if body[2:] == b"\x80":
            raise host.Failed(f"the broker does not let us subscribe to {inputs.topic}")

    async def message(self) -> dict[str, Any]:
        """Return the next message, acknowledged."""
        while True:
            kind, body = await self.next()
            if kind == PUBREL:
                await self.send(PUBCOMP, body)
                continue
            if kind & 0xF0 != PUBLISH or len(body) < 2:
                raise host.Failed(_NOT_UNDERSTOOD)
            end = 2 + int.from_bytes(body[:2], "big")
            qos, topic, rest = kind >> 1 & 3, body[2:end].decode("utf-8", "replace"), body[end:]
            if qos:
                await self.send(PUBACK if qos == 1 else PUBREC, rest[:2])
                rest = rest[2:]
            return {"topic": topic, **messages.shown(rest), "qos": qos, "retain": bool(kind & 1)}

    async def pings(self) -> None:
        """Show the broker that we are there, for ever."""
        while True:
            await asyncio.sleep(_PING_S)
            await self.send(PINGREQ)


def _same(body: bytes, number: bytes) -> None:
    if body != number:
        raise host.Failed(_NOT_UNDERSTOOD)


@contextlib.asynccontextmanager
async def _pinging(session: _Session) -> AsyncIterator[None]:
    pings = asyncio.create_task(session.pings(), name="mqtt pings")
    try:
        yield
    finally:
        pings.cancel()
        await asyncio.wait([pings])
        if not pings.cancelled():
            pings.exception()  # the connection broke, which whoever reads has met, too


async def _received(session: _Session, inputs: MqttInputs) -> MqttOutput:
    taken = messages.Taken("wait for fewer")
    await session.subscribe(inputs)
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(inputs.wait), _pinging(session):
            while len(taken.kept) < inputs.count:
                taken.add(await session.message())
    await session.send(DISCONNECT)
    return MqttOutput(messages=taken.kept)


async def _attempt(inputs: MqttInputs, context: ports.TaskContext, settings: definitions.Settings) -> MqttOutput:
    async with host.stream(inputs, inputs.where, settings.egress, limit=65536) as (reader, writer):
        session = _Session(reader, writer)
        try:
            async with asyncio.timeout(inputs.connect_timeout):
                await session.enter(inputs, f"headrace-{context.execution_id}")
        except TimeoutError as error:
            raise host.explained(error, inputs, inputs.where) from None
        if inputs.command == "receive":
            return await _received(session, inputs)
        await session.publish(inputs)
        return MqttOutput()


async def _run(settings: definitions.Settings, inputs: MqttInputs, context: ports.TaskContext) -> MqttOutput:
    attempt = functools.partial(_attempt, inputs, context, settings)
    shown = f"{inputs.command} on {inputs.hostname}:{inputs.where}"
    return await host.performed(shown, attempt, inputs, context, settings, repeatable=inputs.command == "receive")


def definition(settings: definitions.Settings) -> definitions.TaskDefinition[MqttInputs]:
    """Return the task type MQTT."""
    return definitions.TaskDefinition(
        name=TASK,
        summary="Publish and receive messages by MQTT",
        description="One message to a topic, or some from topics.",
        inputs=MqttInputs,
        output=MqttOutput,
        run=functools.partial(_run, settings),
        idempotent=lambda inputs: inputs.command == "receive",
        check=_check,
        input_aliases=host.ALIASES,
    )
