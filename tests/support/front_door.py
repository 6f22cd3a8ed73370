"""Requests as strangers and friends send them: single ones, from a loopback address of one's own, read to the end."""

from __future__ import annotations

import contextlib
import http.client
import itertools
import json
import types
from typing import Any, NamedTuple

from headrace.daemon import (
    app,
    config,
    entrance,
    front,
    metrics,
    openapi,
    reloading,
    routes,
    service_manager,
    written,
)
from tests.support.clocks import Clock

_ADDRESSES = (f"127.{a}.{b}.{c}" for a in range(1, 255) for b in range(255) for c in range(1, 255))


class Answer(NamedTuple):
    """What came back."""

    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        """The parsed body."""
        return json.loads(self.body)


def a_new_address() -> str:
    """A loopback address that nobody has used before: what it did wrong is held against it alone."""
    return next(_ADDRESSES)


def ask(
    daemon: Any,
    method: str,
    path: str,
    token: str = "",
    *,
    body: Any = None,
    headers: dict[str, str] | None = None,
    origin: str = "127.0.0.1",
) -> Answer:
    """Send one request over TCP, its path as it is, and return the answer."""
    host, _, port = daemon.url.removeprefix("http://").partition(":")
    sent = ({"Authorization": f"Bearer {token}"} if token else {}) | (headers or {})
    data = body if isinstance(body, bytes | None) else json.dumps(body).encode()
    with contextlib.closing(
        http.client.HTTPConnection(host, int(port), timeout=30, source_address=(origin, 0))
    ) as connection:
        connection.request(method, path, data, sent)
        answer = connection.getresponse()
        return Answer(answer.status, {name.lower(): value for name, value in answer.getheaders()}, answer.read())


def table(tmp_path: Any) -> list[routes.Route]:
    """Every route of a daemon, as one would serve it; the handlers are of no use."""
    nothing: Any = types.SimpleNamespace(notices=None, keeper=None, locking=None, asking=None, maintaining=None)
    parts: Any = types.SimpleNamespace(
        work=nothing,
        synchroniser=types.SimpleNamespace(flows=None, authoring=None),
        pool=types.SimpleNamespace(subtree=None),
        tasks=None,
        hub=None,
        pruner=None,
        schedules=None,
        remote=None,
        figures=metrics.Metrics(),
    )
    settings = config.load({"source.url": "/flows"}, {}, {})
    turn = reloading.Reloading(settings, lambda: settings, service_manager.ServiceManager({}))
    door = entrance.Entrance(
        tmp_path,
        nothing,
        Clock(),
        entrance.Options(front=front.Front(None, behind_proxy=False, address=written.Address("127.0.0.1", 0))),
        metrics.Metrics(),
        nothing,
    )
    return openapi.described([*app._front(turn, parts, nothing, nothing, nothing), *door.table()])


def counter() -> itertools.count[int]:
    """Numbers for names."""
    return itertools.count()
