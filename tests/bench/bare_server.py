"""A bare aiohttp that reads a POST and answers: what HTTP costs without us. Prints its port; ends when told to."""

from __future__ import annotations

import asyncio

import uvloop
from aiohttp import web


async def _answer(request: web.Request) -> web.Response:
    await request.read()
    return web.Response(body=b'{"status":"ENDED_SUCCESS"}', content_type="application/json")


async def main() -> None:
    application = web.Application()
    application.router.add_post("/", _answer)
    runner = web.AppRunner(application, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    print(runner.addresses[0][1], flush=True)
    await asyncio.Event().wait()


if __name__ == "__main__":
    uvloop.run(main())
