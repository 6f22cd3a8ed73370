"""AMQP: publish a message, or take some from a queue (version 0-9-1, as RabbitMQ speaks it).

Pamqp makes and reads frames; they are sent and awaited here, over the event loop. What is published is confirmed by the
broker, and a message that no queue takes is a failure. What was taken is acknowledged when all of it has arrived: a
task that is cancelled before leaves it in the queue.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import re
from typing import Annotated, Any, Literal

import msgspec

from ..engine import ports
from . import blocking, extras, host, messages
from . import definition as definitions
from .definition import invalid, missing
from .host import about

TASK = "AMQP"
PORT, TLS_PORT = 5672, 5671
#: What a frame may take; larger messages come in several.
FRAME_BYTES_MAX = 128 * 1024
_NOT_UNDERSTOOD = "what the broker says is not understood: it may not be AMQP 0-9-1, or may expect TLS"
#: Codes of what passes: the broker stops, lacks something, or the queue is in use.
_PASSING = frozenset({311, 320, 405, 506, 541})
_PERSISTENT = 2
_NAME = re.compile(r"[a-zA-Z0-9\-_.:@#,/+ ]{0,127}")


class AmqpInputs(host.HostInputs):
    """The inputs of AMQP."""

    port: Annotated[host.Port | None, about("Default: 5672, with use_tls 5671.")] = None
    virtual_host: Annotated[str, about("The part of the broker to use. Default: /.")] = "/"
    command: Annotated[Literal["publish", "receive"], about("What to do. Default: publish.")] = "publish"
    queue: Annotated[str | None, about("The queue to take from, or to publish to without an exchange.")] = None
    exchange: Annotated[str, about("For publish: the exchange. Default: the one that knows queues by name.")] = ""
    routing_key: Annotated[str | None, about("For publish: what the exchange decides by. Default: queue.")] = None
    declare: Annotated[bool, about("Make the durable queue if there is none. Default: false.")] = False
    text: messages.Text = None
    json: messages.Json = None
    content: messages.Content = None
    content_type: Annotated[str | None, about("For publish: what the message is. Default: from what was given.")] = None
    headers: Annotated[dict[str, Any] | None, about("For publish: headers of the message.")] = None
    persistent: Annotated[bool, about("For publish: the broker keeps it on disk. Default: true.")] = True
    count: messages.Count = 1
    wait: messages.Wait = None
    acknowledge: Annotated[bool, about("For receive: the messages leave the queue. Default: true.")] = True

    @property
    def where(self) -> int:
        """The port in force."""
        return self.port or (TLS_PORT if self.with_tls else PORT)

    @property
    def message(self) -> tuple[bytes, str]:
        """The message to publish, and what it is."""
        if self.text is not None:
            kind = "text/plain; charset=utf-8"
        else:
            kind = "application/json" if self.content is None else "application/octet-stream"
        return messages.payload(self), kind


class AmqpOutput(msgspec.Struct, kw_only=True):
    """The output of AMQP."""

    messages: Any = msgspec.UNSET  #: with receive


def _check(inputs: AmqpInputs) -> None:
    host.check(TASK, inputs)
    for name in ("queue", "exchange"):
        if not _NAME.fullmatch(getattr(inputs, name) or ""):
            raise invalid(TASK, name, "expected a name of letters, digits, blanks and -_.:@#,/+ of 127 at most")
    if len((inputs.routing_key or "").encode()) > 255:
        raise invalid(TASK, "routing_key", "expected 255 bytes at most")
    if inputs.queue is None and (inputs.command == "receive" or inputs.declare or inputs.routing_key is None):
        raise missing(TASK, "queue", "the queue (or 'routing_key' for an exchange)")
    if inputs.command == "receive":
        messages.check_none(TASK, inputs)
    else:
        messages.check_one(TASK, inputs)


def _library() -> Any:
    library = extras.require("pamqp", extra="amqp", task=TASK)
    for part in ("body", "commands", "exceptions", "frame", "header"):
        extras.require(f"pamqp.{part}", extra="amqp", task=TASK)
    return library


class _Session:
    """A connection with one channel."""

    def __init__(self, library: Any, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._library = library
        self._reader = reader
        self._writer = writer
        self._frame_bytes = FRAME_BYTES_MAX

    async def send(self, frame: Any, channel: int = 1) -> None:
        self._writer.write(self._library.frame.marshal(frame, channel))
        await self._writer.drain()

    async def next(self) -> Any:
        """Return the next frame; raises ``host.Failed`` for none, and for one that ends the connection."""
        head = await self._reader.readexactly(7)
        length = int.from_bytes(head[3:], "big")
        if head[:4] == b"AMQP" or head[0] not in (1, 2, 3, 8):
            raise host.Failed(_NOT_UNDERSTOOD)
        if length > FRAME_BYTES_MAX:
            raise host.Failed(f"the broker sent a frame of more than {FRAME_BYTES_MAX >> 10} KiB")
        whole = head + await self._reader.readexactly(length + 1)
        try:
            _, _, frame = self._library.frame.unmarshal(whole)
        except (self._library.exceptions.PAMQPException, *host.GARBAGE):
            raise host.Failed(_NOT_UNDERSTOOD) from None
        if frame.name in ("Connection.Close", "Channel.Close"):
            words = host.quoted(f"{frame.reply_text} ({frame.reply_code})")
            raise host.Failed(words, passing=frame.reply_code in _PASSING)
        return frame

    async def expect(self, *names: str) -> Any:
        """Return the next frame but for heartbeats, which has to be one of these."""
        while True:
            frame = await self.next()
            if frame.name in names:
                return frame
            if frame.name != "Heartbeat":
                raise host.Failed(_NOT_UNDERSTOOD)
            await asyncio.sleep(0)  # many at once must not keep the daemon from all else

    async def enter(self, inputs: AmqpInputs, name: str) -> None:
        """Log in and open the channel."""
        commands = self._library.commands
        self._writer.write(b"AMQP\0\0\x09\x01")
        await self.expect("Connection.Start")
        known = {"authentication_failure_close": True, "publisher_confirms": True, "basic.nack": True}
        properties = {"product": "headrace", "connection_name": name, "capabilities": known}
        response = f"\0{inputs.username or 'guest'}\0{inputs.password or 'guest'}"
        await self.send(commands.Connection.StartOk(properties, "PLAIN", response, "en_US"), 0)
        tune = await self.expect("Connection.Tune")
        self._frame_bytes = min(tune.frame_max or FRAME_BYTES_MAX, FRAME_BYTES_MAX)
        # Without heartbeats: TCP's own keep-alive tells of a broker that is gone, and a task may have a timeout.
        await self.send(commands.Connection.TuneOk(1, self._frame_bytes, 0), 0)
        await self.send(commands.Connection.Open(inputs.virtual_host), 0)
        await self.expect("Connection.OpenOk")
        await self.send(commands.Channel.Open())
        await self.expect("Channel.OpenOk")
        if inputs.declare:
            await self.send(commands.Queue.Declare(queue=inputs.queue, durable=True))
            await self.expect("Queue.DeclareOk")

    async def publish(self, inputs: AmqpInputs) -> None:
        """Send the message and wait until the broker has it in a queue."""
        commands, (body, kind) = self._library.commands, inputs.message
        await self.send(commands.Confirm.Select())
        await self.expect("Confirm.SelectOk")
        key = inputs.routing_key if inputs.routing_key is not None else inputs.queue
        properties = commands.Basic.Properties(
            content_type=inputs.content_type or kind,
            headers=inputs.headers,
            delivery_mode=_PERSISTENT if inputs.persistent else 1,
        )
        try:
            await self.send(commands.Basic.Publish(exchange=inputs.exchange, routing_key=key, mandatory=True))
            await self.send(self._library.header.ContentHeader(body_size=len(body), properties=properties))
        except (TypeError, ValueError) as error:
            raise host.Failed(f"a header cannot be sent: {host.quoted(str(error))}") from None
        room = self._frame_bytes - 8  # beside what is around it
        for at in range(0, len(body), room):
            await self.send(self._library.body.ContentBody(body[at : at + room]))
        frame = await self.expect("Basic.Ack", "Basic.Nack", "Basic.Return")
        if frame.name == "Basic.Return":
            raise host.Failed(f"no queue takes it: {host.quoted(frame.reply_text)} ({frame.reply_code})")
        if frame.name == "Basic.Nack":
            raise host.Failed("the broker did not take it", passing=True)

    async def take(self, inputs: AmqpInputs) -> list[msgspec.Raw]:
        """Return messages of the queue; those of an earlier one that nobody acknowledged come again."""
        commands = self._library.commands
        await self.send(commands.Basic.Qos(prefetch_count=inputs.count))
        await self.expect("Basic.QosOk")
        await self.send(commands.Basic.Consume(queue=inputs.queue))
        await self.expect("Basic.ConsumeOk")
        taken, last = messages.Taken("take fewer at a time"), 0
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(inputs.wait):
                while len(taken.kept) < inputs.count:
                    last, message = await self._message(taken)
                    taken.add(message)
        if taken.kept and inputs.acknowledge:
            await self.send(commands.Basic.Ack(delivery_tag=last, multiple=True))
        await self._leave()
        return taken.kept

    async def _leave(self) -> None:
        """Close the channel; when the broker says yes it has done all before. What comes meanwhile is left there."""
        await self.send(self._library.commands.Channel.Close(reply_code=200, reply_text="", class_id=0, method_id=0))
        while (await self.next()).name != "Channel.CloseOk":
            pass

    async def _message(self, taken: messages.Taken) -> tuple[int, dict[str, Any]]:
        deliver = await self.expect("Basic.Deliver")
        head = await self.expect("ContentHeader")
        if head.body_size > taken.room:
            raise taken.too_much()
        body = bytearray()
        while len(body) < head.body_size:
            body += (await self.expect("ContentBody")).value
        about_it = head.properties
        message = {
            **messages.shown(bytes(body)),
            "exchange": deliver.exchange,
            "routing_key": deliver.routing_key,
            "redelivered": deliver.redelivered,
            "content_type": about_it.content_type,
            "headers": _plain(about_it.headers or {}),
        }
        return deliver.delivery_tag, message


def _plain(value: Any) -> Any:
    """Return a header's value as JSON can hold it."""
    match value:
        case dict():
            return {str(key): _plain(one) for key, one in value.items()}
        case list():
            return [_plain(one) for one in value]
        case bytes() | bytearray():
            return bytes(value).decode("utf-8", "replace")
        case str() | int() | float() | None:
            return value
    return str(value)


async def _attempt(inputs: AmqpInputs, context: ports.TaskContext, settings: definitions.Settings) -> AmqpOutput:
    library = await blocking.call(_library)
    async with host.stream(inputs, inputs.where, settings.egress, limit=65536) as (reader, writer):
        session = _Session(library, reader, writer)
        try:
            async with asyncio.timeout(inputs.connect_timeout):
                await session.enter(inputs, f"headrace {context.execution_id}")
        except TimeoutError as error:
            raise host.explained(error, inputs, inputs.where) from None
        if inputs.command == "receive":
            return AmqpOutput(messages=await session.take(inputs))
        await session.publish(inputs)
        return AmqpOutput()


async def _run(settings: definitions.Settings, inputs: AmqpInputs, context: ports.TaskContext) -> AmqpOutput:
    attempt = functools.partial(_attempt, inputs, context, settings)
    shown = f"{inputs.command} on {inputs.hostname}:{inputs.where}"
    return await host.performed(shown, attempt, inputs, context, settings, repeatable=False)


def definition(settings: definitions.Settings) -> definitions.TaskDefinition[AmqpInputs]:
    """Return the task type AMQP."""
    return definitions.TaskDefinition(
        name=TASK,
        summary="Publish messages, and take them from queues, by AMQP",
        description="One message to an exchange or queue, or some from a queue.",
        inputs=AmqpInputs,
        output=AmqpOutput,
        run=functools.partial(_run, settings),
        idempotent=lambda inputs: inputs.command == "receive" and not inputs.acknowledge,
        check=_check,
        aliases=("RABBITMQ",),
        input_aliases=host.ALIASES,
    )
