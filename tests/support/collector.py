"""A collector of OpenTelemetry on loopback: takes OTLP over HTTP, decodes it, and keeps the spans."""

from __future__ import annotations

import asyncio
import gzip
import threading
from typing import Any

from aiohttp import web
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2


class Received:
    """One span as it came, with the attributes of its resource."""

    def __init__(self, span: Any, resource: dict[str, Any]) -> None:
        self.bytes = span.SerializeToString(deterministic=True)
        self.trace, self.id, self.parent = span.trace_id.hex(), span.span_id.hex(), span.parent_span_id.hex()
        self.name, self.kind = span.name, span.kind
        self.began, self.ended = span.start_time_unix_nano, span.end_time_unix_nano
        self.attributes = _plain(span.attributes)
        self.events = [(event.name, _plain(event.attributes)) for event in span.events]
        self.links = [(link.trace_id.hex(), link.span_id.hex(), _plain(link.attributes)) for link in span.links]
        self.status, self.description = span.status.code, span.status.message
        self.resource = resource


def _plain(attributes: Any) -> dict[str, Any]:
    def value(found: Any) -> Any:
        kind = found.WhichOneof("value")
        return [value(one) for one in found.array_value.values] if kind == "array_value" else getattr(found, kind)

    return {one.key: value(one.value) for one in attributes}


class Collector:
    """Its ``address``, the ``spans`` it got, in order, and what it answers: ``status``."""

    def __init__(self, port: int = 0) -> None:
        self.spans: list[Received] = []
        self.headers: list[dict[str, str]] = []
        self.status = 200
        self.port = port
        self._ready = threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._serve()))
        self._thread.start()
        assert self._ready.wait(20)

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.port}/v1/traces"

    def named(self, name: str) -> list[Received]:
        return [span for span in self.spans if span.name == name]

    async def _take(self, request: web.Request) -> web.Response:
        body = await request.read()
        if self.status == 200:
            if request.headers.get("Content-Encoding") == "gzip" and body[:2] == b"\x1f\x8b":
                body = gzip.decompress(body)
            told = trace_service_pb2.ExportTraceServiceRequest.FromString(body)
            for of in told.resource_spans:
                resource = _plain(of.resource.attributes)
                self.spans += [Received(span, resource) for scope in of.scope_spans for span in scope.spans]
        self.headers.append(dict(request.headers))
        return web.Response(status=self.status)

    async def _serve(self) -> None:
        application = web.Application(client_max_size=64 * 1024 * 1024)
        application.add_routes([web.post("/v1/traces", self._take)])
        runner = web.AppRunner(application, handle_signals=False, shutdown_timeout=0)
        await runner.setup()
        await (site := web.TCPSite(runner, "127.0.0.1", self.port)).start()
        assert site._server is not None
        self.port = site._server.sockets[0].getsockname()[1]  # type: ignore[attr-defined]
        self._loop, self._stop = asyncio.get_running_loop(), asyncio.Event()
        self._ready.set()
        await self._stop.wait()
        await runner.cleanup()

    def close(self) -> None:
        if self._thread.is_alive():
            self._loop.call_soon_threadsafe(self._stop.set)
            self._thread.join(20)
