"""The daemon as asyncio programs see it: the methods of ``client.Client``, to be awaited.

    async with AsyncClient.find() as client:
        execution = await client.wait((await client.run("reports/daily", {"day": "monday"}))["id"])

Names, arguments, results and errors are those of the synchronous client, which says more about each; so is the
patience: waiting and following outlive a restart of the daemon without a gap. It brings aiohttp, so the command line,
which must start quickly, does not use it.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import urllib.parse
import uuid
from collections.abc import AsyncIterator, Mapping, Sequence
from types import TracebackType
from typing import Any

import aiohttp

from ..engine import errors
from .client import ENDED, JSON, Client
from .endpoint import ANSWER_S, Endpoint, Interrupted, ServerEvent, Unavailable, Unreachable, parse_events, refusal

_SILENCE_S = 60.0
_WAIT_SLICE_S = 20.0
_PATIENCE_S = 60.0
_REST_S = 0.2
_PAGE = 1000


class AsyncClient:
    """One daemon. Use it with ``async with``, or call ``aclose`` at the end."""

    def __init__(self, endpoint: Endpoint, token: str = "") -> None:
        self.endpoint = endpoint
        headers = {"Accept": "application/json"} | ({"Authorization": f"Bearer {token}"} if token else {})
        unix = endpoint.scheme == "unix"
        self._prefix = "http://localhost" if unix else str(endpoint)
        self._session = aiohttp.ClientSession(
            connector=aiohttp.UnixConnector(endpoint.path) if unix else aiohttp.TCPConnector(),
            headers=headers,
            trust_env=False,
        )

    @classmethod
    def find(
        cls, url: str = "", token: str = "", state: str = "", environ: Mapping[str, str] = os.environ
    ) -> AsyncClient:
        """Return the client of the daemon meant; see ``Client.find``."""
        found = Client.find(url, token, state, environ)
        return cls(found.endpoint, found.token)

    async def __aenter__(self) -> AsyncClient:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """Close the connections."""
        await self._session.close()

    async def me(self) -> JSON:
        """Return whom the credentials stand for."""
        return await self._json("GET", "/me")

    async def flows(self) -> list[JSON]:
        """Return the catalogue."""
        return await self._every("/flows")

    async def flow(self, name: str) -> JSON:
        """Return one flow with its script."""
        return await self._json("GET", f"/flows/{_segment(name)}")

    async def run(self, flow: str, inputs: Mapping[str, Any] | None = None, *, name: str = "", key: str = "") -> JSON:
        """Have ``flow`` run and return its execution, which is durable from then on."""
        body: JSON = {"inputs": dict(inputs or {})} | ({"name": name} if name else {})
        headers = {"Idempotency-Key": key or str(uuid.uuid4())}
        path = f"/flows/{_segment(flow)}/run"
        try:
            return await self._json("POST", path, body=body, headers=headers)
        except Interrupted:
            return await self._json("POST", path, body=body, headers=headers)

    async def rerun(
        self, execution_id: str, inputs: Mapping[str, Any] | None = None, *, same_commit: bool = False
    ) -> JSON:
        """Run again what it ran, with its inputs but for those given, and return the new execution."""
        body = {"inputs": dict(inputs or {}), "version": "same" if same_commit else "latest"}
        return await self._json("POST", f"/executions/{_segment(execution_id)}/rerun", body=body)

    async def wait(self, execution_id: str, timeout_s: float | None = None) -> JSON:
        """Return the execution when it has ended, or as it is after ``timeout_s``; bridges restarts of the daemon."""
        now_s = asyncio.get_running_loop().time
        until = now_s() + timeout_s if timeout_s is not None else float("inf")
        patience = _Patience()
        while True:
            left_s = max(0.0, until - now_s())
            try:
                execution = await self.execution(execution_id, wait_s=min(_WAIT_SLICE_S, left_s))
            except (Unreachable, Unavailable) as error:
                await patience.rest(error)
                continue
            patience.contact()
            if execution["status"] in ENDED or left_s <= 0:
                return execution

    async def executions(self, *, limit: int = 50, cursor: str = "", **filters: str | Sequence[str]) -> JSON:
        """Return one page, newest first: ``items`` and ``next``."""
        query: list[tuple[str, str]] = [("limit", str(limit))]
        for name, value in (filters | {"cursor": cursor}).items():
            query += [(name, each) for each in ([value] if isinstance(value, str) else value) if each]
        return await self._json("GET", f"/executions?{urllib.parse.urlencode(query)}")

    async def execution(self, execution_id: str, wait_s: float = 0) -> JSON:
        """Return one execution, after waiting up to ``wait_s`` for its end."""
        query = f"?wait={wait_s:g}" if wait_s > 0 else ""
        return await self._json("GET", f"/executions/{_segment(execution_id)}{query}", timeout_s=ANSWER_S + wait_s)

    async def record(self, execution_id: str) -> list[JSON]:
        """Return the record's events as they are now."""
        return await self._items(f"/executions/{_segment(execution_id)}/events")

    def follow_log(self, execution_id: str, last_event_id: str = "") -> AsyncIterator[ServerEvent]:
        """Yield log lines after ``last_event_id`` as they come, then ``end`` with the status; bridges restarts."""
        return self._follow(f"/executions/{_segment(execution_id)}/log", last_event_id)

    def events(self, execution_id: str, last_event_id: str = "") -> AsyncIterator[ServerEvent]:
        """Yield the record's events after ``last_event_id`` as they come, then ``end``; bridges restarts."""
        return self._follow(f"/executions/{_segment(execution_id)}/events", last_event_id)

    async def cancel(self, execution_id: str) -> JSON:
        """Ask for it to end and return it."""
        return await self._json("POST", f"/executions/{_segment(execution_id)}/cancel")

    async def pause(self, execution_id: str) -> JSON:
        """Ask for it to stand still and return it."""
        return await self._json("POST", f"/executions/{_segment(execution_id)}/pause")

    async def resume(self, execution_id: str) -> JSON:
        """Let it go on and return it."""
        return await self._json("POST", f"/executions/{_segment(execution_id)}/resume")

    async def kept(self, plural: str) -> list[JSON]:
        """Return all records of a kind."""
        return await self._every(f"/{plural}")

    async def kept_one(self, plural: str, name: str) -> JSON:
        """Return one of them."""
        return await self._json("GET", f"/{plural}/{_segment(name)}")

    async def keep(self, plural: str, name: str, fields: JSON) -> JSON:
        """Make one, or change those ``fields`` of it."""
        return await self._json("PUT", f"/{plural}/{_segment(name)}", body=fields)

    async def drop(self, plural: str, name: str) -> None:
        """Delete one."""
        async with self._answer("DELETE", f"/{plural}/{_segment(name)}"):
            pass

    async def messages(self, *, pending: bool) -> list[JSON]:
        """Return messages, newest first; with ``pending`` those that wait for an answer."""
        return await self._every("/messages?pending=true" if pending else "/messages")

    async def answer(self, message_id: str, response: JSON) -> JSON:
        """Answer a message."""
        return await self._json("POST", f"/messages/{_segment(message_id)}/response", body=response)

    async def sync_state(self) -> JSON:
        """Return what is published and how the last look at the source went."""
        return await self._json("GET", "/sync")

    async def sync(self, wait_s: float = 60) -> JSON:
        """Have the source looked at now and return how it went."""
        return await self._json("POST", f"/sync?wait={wait_s:g}", timeout_s=ANSWER_S + wait_s)

    # -- one request ------------------------------------------------------------------------------------------------

    async def _every(self, target: str) -> list[JSON]:
        """Return the entries of all pages of a list."""
        found: list[JSON] = []
        cursor: str | None = ""
        while cursor is not None:
            more = {"limit": str(_PAGE)} | ({"cursor": cursor} if cursor else {})
            page = await self._json("GET", f"{target}{'&' if '?' in target else '?'}{urllib.parse.urlencode(more)}")
            found += page["items"]
            cursor = page.get("next")
        return found

    async def _items(self, target: str) -> list[JSON]:
        items: list[JSON] = (await self._json("GET", target))["items"]
        return items

    async def _json(
        self,
        method: str,
        target: str,
        *,
        body: JSON | None = None,
        headers: Mapping[str, str] | None = None,
        timeout_s: float = ANSWER_S,
    ) -> JSON:
        async with self._answer(method, target, body=body, headers=headers, timeout_s=timeout_s) as answer:
            try:
                found = await answer.json()
            except (ValueError, aiohttp.ContentTypeError):
                found = None
            if not isinstance(found, dict):
                raise Unavailable(502, {"detail": f"{self.endpoint} did not answer as a headrace daemon does"})
            return found

    @contextlib.asynccontextmanager
    async def _answer(
        self,
        method: str,
        target: str,
        *,
        body: JSON | None = None,
        headers: Mapping[str, str] | None = None,
        timeout_s: float | None = ANSWER_S,
    ) -> AsyncIterator[aiohttp.ClientResponse]:
        """Yield a good answer; everything else is raised as the synchronous client does."""
        timeout = aiohttp.ClientTimeout(total=timeout_s, sock_read=_SILENCE_S if timeout_s is None else None)
        try:
            async with self._session.request(
                method, f"{self._prefix}/api/v1{target}", json=body, headers=headers, timeout=timeout
            ) as answer:
                if answer.status >= 300:
                    raise refusal(answer.status, await answer.read())
                yield answer
        except aiohttp.ClientConnectorError as error:
            raise Unreachable(f"no daemon answers at {self.endpoint}: {error.strerror or error}") from error
        except (aiohttp.ClientError, TimeoutError) as error:
            raise Interrupted(f"{self.endpoint} broke off midway: {error or type(error).__name__}") from error

    async def _follow(self, target: str, last_event_id: str) -> AsyncIterator[ServerEvent]:
        patience = _Patience()
        while True:
            headers = {"Accept": "text/event-stream"} | ({"Last-Event-ID": last_event_id} if last_event_id else {})
            try:
                async with self._answer("GET", target, headers=headers, timeout_s=None) as answer:
                    patience.contact()
                    async for event in _events(answer):
                        last_event_id = event.id or last_event_id
                        yield event
                        if event.event == "end":
                            return
                raise Interrupted(f"{self.endpoint} closed the stream before its end")
            except (Unreachable, Unavailable) as error:
                await patience.rest(error)


class _Patience:
    """How long to go on trying after contact was lost."""

    def __init__(self) -> None:
        self._until_s: float | None = None

    def contact(self) -> None:
        self._until_s = None

    async def rest(self, error: errors.HeadraceError) -> None:
        """Sleep before the next attempt, or raise ``error`` when it was long enough."""
        now_s = asyncio.get_running_loop().time()
        self._until_s = self._until_s or now_s + _PATIENCE_S
        if now_s >= self._until_s:
            raise error
        await asyncio.sleep(_REST_S)


async def _events(answer: aiohttp.ClientResponse) -> AsyncIterator[ServerEvent]:
    """Yield the complete events of a stream."""
    lines: list[bytes] = []
    pending = b""
    async for chunk in answer.content.iter_any():
        *whole, pending = (pending + chunk).split(b"\n")
        for line in whole:
            lines.append(line + b"\n")
            if not line.strip():
                for event in parse_events(lines):
                    yield event
                lines = []


def _segment(name: str) -> str:
    return urllib.parse.quote(name, safe="")
