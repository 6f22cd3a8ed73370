"""A git server over smart HTTP: git's own http-backend behind aiohttp, with basic authentication or a cookie."""

from __future__ import annotations

import asyncio
import base64
import os
import pathlib
import subprocess
from collections.abc import Awaitable, Callable

from aiohttp import web

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


def backend() -> str:
    """Return where git keeps its CGI program."""
    folder = subprocess.run(["git", "--exec-path"], check=True, capture_output=True, text=True).stdout.strip()
    return f"{folder}/git-http-backend"


def handler(root: pathlib.Path, *, user: str = "", password: str = "", cookie: str = "") -> Handler:
    """Return a handler that serves the repositories below ``root`` to whoever shows what is asked for."""
    wanted = "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode()

    async def serve(request: web.Request) -> web.StreamResponse:
        if user and request.headers.get("Authorization") != wanted:
            return web.Response(status=401, headers={"WWW-Authenticate": 'Basic realm="git"'})
        if cookie and request.headers.get("Cookie") != cookie:
            return web.Response(status=403)
        return await _run(root, request)

    return serve


async def _run(root: pathlib.Path, request: web.Request) -> web.Response:
    environment = {
        "PATH": os.environ["PATH"],
        "GIT_PROJECT_ROOT": str(root),
        "GIT_HTTP_EXPORT_ALL": "1",
        "GIT_CONFIG_NOSYSTEM": "1",
        "HOME": str(root),
        "PATH_INFO": request.path,
        "QUERY_STRING": request.query_string,
        "REQUEST_METHOD": request.method,
        "CONTENT_TYPE": request.headers.get("Content-Type", ""),
        "HTTP_GIT_PROTOCOL": request.headers.get("Git-Protocol", ""),
        "REMOTE_ADDR": "127.0.0.1",
    }
    process = await asyncio.create_subprocess_exec(
        backend(),
        env=environment,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.DEVNULL,
    )
    # aiohttp has unpacked the body, so the backend hears nothing of a content encoding.
    output, _ = await process.communicate(await request.read())
    head, _, body = output.partition(b"\r\n\r\n")
    headers = dict(line.split(": ", 1) for line in head.decode().split("\r\n") if ": " in line)
    status = int(headers.pop("Status", "200").split()[0])
    return web.Response(status=status, headers=headers, body=body)
