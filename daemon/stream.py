"""Following an execution live: its recorded events so far, then each as it becomes durable, without gap or repetition.

An event's number in the journal is its SSE id, so a client that lost the connection resumes after the last one it saw.
Past and future come from the same journal: first the listener is in place, then the past is read, then what the
listener got beyond it.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from typing import Any

import msgspec
from aiohttp import web

from ..engine import errors, events, ports
from ..engine.records import index
from ..engine.running import live

_HEARTBEAT_S = 15.0
#: A client this far behind is let go; it comes back and resumes where it was.
_BEHIND_MAX = 10_000
#: A page that shows changes is not told of them more often.
_CHANGES_APART_S = 0.5

#: Turns a recorded event into (SSE event name, JSON text), or None to pass over it.
Render = Callable[[events.Recorded], Awaitable["tuple[str, bytes] | None"]]
_Queue = asyncio.Queue[events.Recorded | None]


class Hub:
    """Hands durable events to those who follow an execution. ``None`` in a queue means: no more, ever."""

    def __init__(self, journal: ports.Journal) -> None:
        self._followers: dict[str, set[_Queue]] = {}
        self._watchers: dict[asyncio.Event, str] = {}  # → the execution it is about; empty: all
        self._closed = False
        journal.subscribe(self._on_batch)

    def _on_batch(self, batch: Sequence[events.Recorded]) -> None:
        if self._watchers:
            self._wake_watchers(batch)
        if not self._followers:
            return
        for recorded in batch:
            if isinstance(recorded.event, events.RetoldEvent):
                continue
            for queue in self._followers.get(getattr(recorded.event, "execution", ""), ()):
                if queue.qsize() < _BEHIND_MAX:
                    queue.put_nowait(recorded)
                elif queue.qsize() == _BEHIND_MAX:
                    queue.put_nowait(None)

    def _wake_watchers(self, batch: Sequence[events.Recorded]) -> None:
        told = [one.event for one in batch if not isinstance(one.event, (events.LogWritten, events.CallsRepeated))]
        touched = {getattr(event, "execution", "") for event in told}
        for changed, execution in self._watchers.items():
            if touched and (not execution or execution in touched):
                changed.set()

    def close(self) -> None:
        """End all streams: the daemon stops."""
        self._closed = True
        for changed in self._watchers:
            changed.set()
        for queue in (queue for queues in self._followers.values() for queue in queues):
            queue.put_nowait(None)

    async def follow(self, archive: index.Index, execution: str, after: int) -> AsyncIterator[events.Recorded | None]:
        """Yield the events of ``execution`` after number ``after`` until it has ended; ``None`` now and then if idle.

        Raises ``NotFound``.
        """
        queue: _Queue = asyncio.Queue()
        self._followers.setdefault(execution, set()).add(queue)
        try:
            past = await archive.events_of(execution)
            if not past:
                raise errors.NotFound(f"there is no execution {execution!r}")
            for recorded in past:
                if recorded.seq > after:
                    yield recorded
            after = max(after, past[-1].seq)
            over = isinstance(past[-1].event, events.ExecutionEnded)
            while not over and not self._closed:
                try:
                    async with asyncio.timeout(_HEARTBEAT_S):
                        next_one = await queue.get()
                except TimeoutError:
                    yield None
                    continue
                if next_one is None:
                    return
                if next_one.seq > after:
                    after = next_one.seq
                    yield next_one
                over = isinstance(next_one.event, events.ExecutionEnded)
        finally:
            followers = self._followers[execution]
            followers.discard(queue)
            if not followers:
                del self._followers[execution]

    async def changes(self, execution: str = "") -> AsyncIterator[bool]:
        """Yield True at once, then whenever something became durable about ``execution``, or about any; False if idle.

        Changes in quick succession count as one; lines of logs do not count."""
        changed = asyncio.Event()
        changed.set()  # what happened between the page and this is told at once
        self._watchers[changed] = execution
        try:
            while not self._closed:
                try:
                    async with asyncio.timeout(_HEARTBEAT_S):
                        await changed.wait()
                except TimeoutError:
                    yield False
                    continue
                changed.clear()
                if not self._closed:
                    yield True
                    await asyncio.sleep(_CHANGES_APART_S)
        finally:
            del self._watchers[changed]


async def serve_changes(request: web.Request, changes: AsyncIterator[bool]) -> web.StreamResponse:
    """Answer ``request`` with an event stream that says that something changed, not what."""
    response = web.StreamResponse(
        headers={"Content-Type": "text/event-stream", "Cache-Control": "no-cache", "X-Accel-Buffering": "no"}
    )
    await response.prepare(request)
    await response.write(b"retry: 2000\n\n")
    async for changed in changes:
        await response.write(b"event: changed\ndata: {}\n\n" if changed else b": still here\n\n")
    await response.write_eof()
    return response


async def serve(
    request: web.Request, following: AsyncIterator[events.Recorded | None], render: Render
) -> web.StreamResponse:
    """Answer ``request`` with an event stream that closes, after a last ``end`` event, when the execution has ended."""
    first = await anext(following, None)  # raises NotFound before anything is sent
    response = web.StreamResponse(
        headers={"Content-Type": "text/event-stream", "Cache-Control": "no-cache", "X-Accel-Buffering": "no"}
    )
    await response.prepare(request)
    await response.write(b"retry: 1000\n\n")
    recorded = first
    while True:
        if recorded is None:
            await response.write(b": still here\n\n")
        else:
            await _write(response, recorded, await render(recorded))
            if isinstance(recorded.event, events.ExecutionEnded):
                status = msgspec.json.encode({"status": recorded.event.status})
                await _write(response, recorded, ("end", status))
        try:
            recorded = await anext(following)
        except StopAsyncIteration:
            break
    await response.write_eof()
    return response


async def _write(response: web.StreamResponse, recorded: events.Recorded, shown: tuple[str, bytes] | None) -> None:
    if shown is not None:
        await response.write(b"id: %d\nevent: %b\ndata: %b\n\n" % (recorded.seq, shown[0].encode(), shown[1]))


def last_event_id(request: web.Request) -> int:
    """Return the number after which the client wants to go on; 0 from the start."""
    text = request.headers.get("Last-Event-ID", request.query.get("after", "0"))
    if not text.isascii() or not text.isdecimal():
        raise errors.InvalidRequest(f"Last-Event-ID {text[:50]!r} is not the number of an event")
    return int(text)


def line(recorded: events.Recorded) -> bytes:
    """Return the event as the journal shows it, without what only the journal needs."""
    at = json.dumps(recorded.at).encode()
    return b'{"seq":%d,"at":%b,%b' % (recorded.seq, at, msgspec.json.encode(recorded.event)[1:])


async def log_line(ledger: live.Ledger, recorded: events.Recorded) -> dict[str, Any] | None:
    """Return a log event as people read it, or None if it is another kind of event."""
    event = recorded.event
    if not isinstance(event, events.LogWritten):
        return None
    args = await ledger.contents.shown(event.args_blob or event.args)
    kwargs = await ledger.contents.shown(event.kwargs_blob or event.kwargs)
    return {
        "seq": recorded.seq,
        "at": recorded.at,
        "level": event.level,
        "args": args,
        "kwargs": kwargs,
        "text": event.text or _printable(args, kwargs),
        "stream": event.stream,
    }


def _printable(args: msgspec.Raw, kwargs: msgspec.Raw) -> str:
    """Values in order, then labels: text as it is, everything else as JSON."""

    def shown(value: Any) -> str:
        return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)

    parts = [shown(value) for value in msgspec.json.decode(args)]
    return " ".join(parts + [f"{key}={shown(value)}" for key, value in msgspec.json.decode(kwargs).items()])
