"""The webhook listener: verify, record, acknowledge. It is kept short because it must be the last thing to fail.

    raw body → who is it for, and is it really from them → known delivery? → recorded and durable → answer

An unknown webhook and a wrong credential look the same to the sender. A delivery that was seen before is answered with
the execution it made, and runs nothing.
"""

from __future__ import annotations

import base64
import hashlib
import os
import urllib.parse
from typing import Any

import msgspec
import structlog
from aiohttp import web

from ..engine import errors, model, ports, values
from ..engine.running import dispatcher, views
from ..engine.state import secrets
from . import access, answers, routes, signatures

log = structlog.get_logger()

BODY_BYTES_MAX = 25 * 1024 * 1024  # what GitHub may send
#: A caller who does not say how long to wait is kept this long, then told where to look.
_WAIT_S = 60.0
_FORM = "application/x-www-form-urlencoded"
#: Credentials stay out of what flows and records see.
_HIDDEN_HEADERS = frozenset({"authorization", "x-api-key", "cookie", "proxy-authorization"})
_REFUSED = errors.Unauthenticated("there is no such webhook, or the credentials are wrong")


class Webhooks:
    """Answers webhook calls."""

    def __init__(self, work: dispatcher.Dispatcher, flows: ports.Flows, *, allow_anonymous: bool) -> None:
        self._work = work
        self._flows = flows
        self._allow_anonymous = allow_anonymous
        self._seen: model.Catalogue | None = None
        self._by_name: dict[str, model.Flow] = {}

    def table(self) -> list[routes.Route]:
        """Return the routes."""
        paths = ("/api/v1/webhook/{name}", "/api/latest/webhook/{name}", "/webhook/{name}")
        return [
            routes.Route("*", path + tail, access.PUBLIC, self.call, "call a webhook")
            for path in paths
            for tail in ("", "/{tail:.*}")
        ]

    async def call(self, request: web.Request) -> web.Response:
        """Take one delivery."""
        name = request.match_info["name"]
        body = await answers.body_of(request, BODY_BYTES_MAX)
        flow = self._find(name)
        hook = flow.metadata.webhook if flow is not None else None
        if flow is None or hook is None:
            log.info("webhook.refused", webhook=name, reason="unknown")
            raise _REFUSED
        content = _content(request, body)
        if reason := self._refusal(request, hook, body, content):
            log.info("webhook.refused", webhook=name, reason=reason)
            raise _REFUSED
        if request.method not in hook.methods and not (request.method == "HEAD" and "GET" in hook.methods):
            raise web.HTTPMethodNotAllowed(request.method, hook.methods)
        delivery = signatures.delivery_id(request.headers)
        accepted = await self._work.submit(
            model.Submission(
                flow=flow.id,
                inputs=values.encode(_inputs(request, body, content)),
                created_by=f"webhook {hook.name}",
                key=f"webhook:{hook.name}:{delivery}" if delivery else "",
                key_digest=hashlib.sha256(body).hexdigest() if delivery else "",
            )
        )
        return await self._answer(request, accepted)

    async def _answer(self, request: web.Request, accepted: dispatcher.Accepted) -> web.Response:
        headers = {"Location": f"/api/v1/executions/{accepted.execution}"}
        if accepted.repeated:
            headers["Idempotency-Replayed"] = "true"
        later = request.query.get("async", "") not in ("", "0", "false")
        state = await self._work.wait(accepted.execution, 0 if later else answers.wait_s(request, _WAIT_S) or 0)
        if later or not state.status.ended:
            return answers.json_answer({"id": state.id, "status": state.status}, status=202, headers=headers)
        shown = await views.for_people(self._work.ledger, state)
        del shown["input_value"]  # the caller sent it
        status = 200 if state.status == "ENDED_SUCCESS" else 500
        return answers.json_answer(shown, status=status, headers=headers)

    def _find(self, name: str) -> model.Flow | None:
        catalogue = self._flows.current()
        if catalogue is not self._seen:
            self._by_name = {f.metadata.webhook.name: f for f in catalogue.flows.values() if f.metadata.webhook}
            self._seen = catalogue
        return self._by_name.get(name)

    def _refusal(self, request: web.Request, hook: model.Webhook, body: bytes, content: dict[str, Any]) -> str:
        """Return why this delivery is not taken, or nothing if it is."""
        if hook.auth == "none":
            return "" if self._allow_anonymous else "a webhook without credentials is only served on loopback"
        try:
            secret = secrets.resolve(hook.secret, os.environ)
        except errors.HeadraceError as error:
            return error.message
        if hook.auth == "github":
            return "" if signatures.github(body, request.headers, secret) else "wrong signature"
        if hook.auth == "key":
            return "" if signatures.key(_key(request, content), secret) else "wrong key"
        return f"auth {hook.auth!r} is not known"


def _key(request: web.Request, content: dict[str, Any]) -> str:
    """Find the key where senders put it: query, header, bearer token, JSON field."""
    scheme, _, token = request.headers.get("Authorization", "").partition(" ")
    field = content.get("key")
    return (
        request.query.get("key")
        or request.headers.get("x-api-key")
        or (token.strip() if scheme.lower() == "bearer" else "")
        or (field if isinstance(field, str) else "")
    )


def _content(request: web.Request, body: bytes) -> dict[str, Any]:
    """Return the parsed body: a JSON object's or a form's fields; anything else is empty and in ``body`` only.

    The content type decides the parser once. Called before the signature is looked at only because a key may be one
    of the fields; signed schemes look at the raw bytes."""
    if request.content_type == _FORM:
        return dict(urllib.parse.parse_qsl(body.decode("utf-8", "replace"), keep_blank_values=True))
    if not body or not request.content_type.endswith("json"):
        return {}
    try:
        parsed = msgspec.json.decode(body)
    except (msgspec.MsgspecError, UnicodeError, RecursionError) as error:
        raise errors.InvalidRequest(f"the body is not JSON, though it says so: {error}") from None
    return parsed if isinstance(parsed, dict) else {}


def _inputs(request: web.Request, body: bytes, content: dict[str, Any]) -> dict[str, Any]:
    """Return what the flow gets as ``input_value``."""
    inputs: dict[str, Any] = {
        "method": request.method,
        "path": request.match_info.get("tail", ""),
        "query": {name: value for name, value in request.query.items() if name != "key"},
        "headers": {n.lower(): v for n, v in request.headers.items() if n.lower() not in _HIDDEN_HEADERS},
        "json": {name: value for name, value in content.items() if name != "key"},
    }
    if "key" in content:  # the body as it came would carry it
        plain = {name: value for name, value in content.items() if name != "key"}
        form = request.content_type == _FORM
        body = urllib.parse.urlencode(plain).encode() if form else values.encode(plain)
    try:
        inputs["body"] = body.decode()
    except UnicodeDecodeError:
        inputs |= {"body": base64.b64encode(body).decode(), "body_encoding": "base64"}
    return inputs
