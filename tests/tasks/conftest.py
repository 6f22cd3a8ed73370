"""Servers on loopback, certificates, and what a task is given when it runs."""

from __future__ import annotations

import contextlib
import json
import pathlib
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator

import pytest
from aiohttp import web

from headrace.tasks import definition, registry, retry
from tests.support import certificates
from tests.support.task_context import Context, FolderFiles, ManualPacing


@pytest.fixture
def context(tmp_path: pathlib.Path) -> Context:
    return Context(FolderFiles(tmp_path / "store"))


@pytest.fixture
def pacing() -> ManualPacing:
    return ManualPacing()


@pytest.fixture
async def tasks(pacing: ManualPacing) -> AsyncIterator[registry.Registry]:
    built = registry.installed(
        definition.Settings(pacing=retry.Pacing(sleep=pacing.sleep, monotonic=pacing.monotonic, random=pacing.random))
    )
    yield built
    await built.aclose()


Call = Callable[..., Awaitable[dict]]


@pytest.fixture
def call(tasks: registry.Registry, context: Context) -> Call:
    """Run a task and return its output."""

    async def run(type_: str, **inputs: object) -> dict:
        prepared = tasks.prepare(type_, json.dumps(inputs).encode())
        return json.loads(await prepared.run(context))

    return run


@pytest.fixture(scope="session")
def certs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[certificates.Certificates]:
    return certificates.make(tmp_path_factory.mktemp("certificates"))


@pytest.fixture
async def serve() -> AsyncIterator[Callable[..., Awaitable[str]]]:
    """Start an HTTP server for one handler that takes every path; return its address."""
    async with contextlib.AsyncExitStack() as stack:

        async def start(
            handler: Callable[[web.Request], Awaitable[web.StreamResponse]], tls: ssl.SSLContext | None = None
        ) -> str:
            application = web.Application(client_max_size=64 * 1024 * 1024)
            application.router.add_route("*", "/{path:.*}", handler)
            runner = web.AppRunner(application, handler_cancellation=True, shutdown_timeout=1, access_log=None)
            await runner.setup()
            stack.push_async_callback(runner.cleanup)
            site = web.TCPSite(runner, "127.0.0.1", 0, ssl_context=tls)
            await site.start()
            port = site._server.sockets[0].getsockname()[1]  # type: ignore[union-attr]
            return f"{'https' if tls else 'http'}://127.0.0.1:{port}"

        yield start
