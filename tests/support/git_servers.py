"""Real git servers on loopback that can stop and come back at the same address: https, ssh, and ``git daemon``."""

from __future__ import annotations

import asyncio
import contextlib
import os
import pathlib
import socket
from collections.abc import AsyncIterator
from typing import Any, Protocol

from aiohttp import web

from tests.support import git_http, sshd
from tests.support.certificates import Certificates


class GitServer(Protocol):
    """Serves the bare repository ``upstream.git`` of a folder. ``settings`` are what a source needs to get in."""

    url: str
    settings: dict[str, Any]

    async def start(self) -> None:
        """Serve, from now on at the same port."""

    async def stop(self) -> None:
        """Be gone: connections are refused."""

    def lock_out(self) -> None:
        """Make the source's credentials wrong."""

    def let_in(self) -> None:
        """Make them right again."""


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as free:
        return int(free.getsockname()[1])


class Https:
    """git http-backend behind TLS; a token as password of the user ``git``."""

    token = "canary-t0ken-4711"

    def __init__(self, root: pathlib.Path, keys: pathlib.Path, certificates: Certificates) -> None:
        self._certificates = certificates
        self._token_file = keys / "token"
        self._port = free_port()
        self._runner: web.AppRunner | None = None
        self.root = root
        self.url = f"https://127.0.0.1:{self._port}/upstream.git"
        self.settings = {"token_file": str(self._token_file)}
        self.answer = git_http.handler(root, user="git", password=self.token)  # tests may put another in front
        self.let_in()

    async def start(self) -> None:
        application = web.Application(client_max_size=2**28)
        application.router.add_route("*", "/{path:.*}", self._serve)
        self._runner = web.AppRunner(application, shutdown_timeout=0.1)
        await self._runner.setup()
        await web.TCPSite(
            self._runner, "127.0.0.1", self._port, ssl_context=self._certificates.server_context(), reuse_address=True
        ).start()

    async def _serve(self, request: web.Request) -> web.StreamResponse:
        return await self.answer(request)

    async def stop(self) -> None:
        if self._runner is not None:
            await self._runner.cleanup()
            self._runner = None

    def lock_out(self) -> None:
        self._token_file.write_text("canary-wr0ng-4711\n")

    def let_in(self) -> None:
        self._token_file.write_text(f"{self.token}\n")


class Ssh:
    """sshd with a deploy key; its host key is pinned in a file with a space in its name."""

    def __init__(self, root: pathlib.Path, keys: pathlib.Path) -> None:
        self._root = root
        self._folder = keys / "sshd"
        self._port = free_port()
        self._running = contextlib.AsyncExitStack()
        self.known_hosts = keys / "known hosts"
        self.url = ""
        self.settings = {"ssh_key": str(keys / "deploy key"), "known_hosts": str(self.known_hosts)}

    async def start(self) -> None:
        server = await self._running.enter_async_context(sshd.running(self._folder, self._port))
        self.url = f"ssh://{server.user}@127.0.0.1:{self._port}{self._root}/upstream.git"
        if not self.known_hosts.exists():
            self.trust()
            self.let_in()

    def trust(self) -> None:
        """Pin the host key that the server has now."""
        self.known_hosts.write_text(f"[127.0.0.1]:{self._port} {(self._folder / 'host.pub').read_text()}")

    def new_host_key(self) -> None:
        """Have another host key after the next start."""
        (self._folder / "host").unlink()

    async def stop(self) -> None:
        await self._running.aclose()

    def lock_out(self) -> None:
        (self._folder / "authorized_keys").write_text("")

    def let_in(self) -> None:
        (self._folder / "authorized_keys").write_text((self._folder / "client.pub").read_text())
        key = pathlib.Path(self.settings["ssh_key"])
        key.touch(mode=0o600)
        key.write_text((self._folder / "client").read_text())


@contextlib.asynccontextmanager
async def git_daemon(root: pathlib.Path) -> AsyncIterator[tuple[str, pathlib.Path]]:
    """``git daemon`` for the repositories below ``root``; gives its URL and the log of who asked it."""
    port = free_port()
    log = root / "daemon.log"
    with log.open("wb") as file:
        process = await asyncio.create_subprocess_exec(
            *("git", "daemon", "--export-all", "--verbose", "--reuseaddr", "--listen=127.0.0.1", f"--port={port}"),
            f"--base-path={root}",
            env={"PATH": os.environ["PATH"], "HOME": str(root)},
            stderr=file,
            start_new_session=True,
        )
    try:
        async with asyncio.timeout(10):
            while b"Ready to rumble" not in log.read_bytes():
                await asyncio.sleep(0.01)
        yield f"git://127.0.0.1:{port}", log
    finally:
        os.killpg(process.pid, 15)
        await process.wait()
