"""The daemon's connections in front of a handful of handlers: short deadlines, in a thread, on uvloop."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Iterator
from typing import Any

import uvloop
from aiohttp import web

from headrace.daemon import answers, connections, routes
from headrace.engine import errors

BIG = b"x" * 50_000_000


async def _echo(request: web.Request) -> web.Response:
    return web.Response(body=await answers.body_of(request, 25 * 1024 * 1024))


async def _big(request: web.Request) -> web.Response:
    return web.Response(body=BIG)


async def _slow(request: web.Request) -> web.Response:
    await asyncio.sleep(float(request.query["s"]))
    return web.Response(text="done")


@web.middleware
async def _problems(request: web.Request, handler: Any) -> web.StreamResponse:
    try:
        response: web.StreamResponse = await handler(request)
    except errors.HeadraceError as error:
        return answers.problem(error)
    return response


class SmallServer:
    """Its ``port``, and the ``door`` that counts its connections."""

    def __init__(self, patience: connections.Patience) -> None:
        self._patience = patience
        self.port = 0
        self.door: Any = None
        self._ready = threading.Event()
        self._loop: Any = None
        self._stop: Any = None

    async def _serve(self) -> None:
        application = web.Application(middlewares=[routes.named, _problems])
        application.on_response_prepare.append(routes.finish)
        application.add_routes([web.post("/echo", _echo), web.get("/big", _big), web.get("/slow", _slow)])
        runner = web.AppRunner(application, handle_signals=False)
        await runner.setup()
        self._loop, self._stop = asyncio.get_running_loop(), asyncio.Event()
        self.door = connections.Door(runner.server, self._patience)  # type: ignore[arg-type]
        listening = await self._loop.create_server(self.door, "127.0.0.1", 0, backlog=1024)
        self.port = listening.sockets[0].getsockname()[1]
        self._ready.set()
        await self._stop.wait()
        listening.close()
        await runner.cleanup()


@contextlib.contextmanager
def running(**patience: Any) -> Iterator[SmallServer]:
    """A server with this patience."""
    server = SmallServer(connections.Patience(**patience))
    thread = threading.Thread(target=lambda: uvloop.run(server._serve()))
    thread.start()
    assert server._ready.wait(20)
    try:
        yield server
    finally:
        server._loop.call_soon_threadsafe(server._stop.set)
        thread.join(20)
