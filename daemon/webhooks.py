"""The webhook listener: verify, record, acknowledge. It is kept short because it must be the last thing to fail.

    raw body → who is it for, and is it really from them → known delivery? → recorded and durable → answer

An unknown webhook and a wrong credential look the same to the sender. A delivery that was seen before is answered with
the execution it made, and runs nothing. What the flow gets is ``deliveries``' business, what it answers ``replies``'.
"""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Callable
from typing import Any

import msgspec
import structlog
from aiohttp import web

from ..engine import errors, events, model, traces, values
from ..engine.running import dispatcher, keeper, reception, views
from . import access, answers, deliveries, limits, metrics, replies, routes, signatures

log = structlog.get_logger()

BODY_BYTES_MAX = 25 * 1024 * 1024  # what GitHub may send
_LARGE_BYTES = 64 * 1024
#: A caller who does not say how long to wait is kept this long, then told where to look.
_WAIT_S = 60.0
#: What one webhook takes, so that a sender gone wild does not fill the queue of all; a burst may be ten seconds of it.
DELIVERIES_PER_S = 500.0
DELIVERIES_AT_ONCE = 5000
#: This address says "call" after the name, and only then the path.
_OLD_PREFIX = "/api/latest/webhook/"
_OLD_CALL = "call"
#: Who asks before sending: CloudEvents, HTTP 1.1 Web Hooks, section 4. What they then send is verified as ever.
_ORIGIN = re.compile(r"[A-Za-z0-9.:/_-]{1,255}")
#: Folders that the name of a webhook may have in an address that leaves its slashes as they are.
_FOLDERS_MAX = 8
_REFUSED = errors.Unauthenticated("there is no such webhook, or the credentials are wrong")


class Webhooks:
    """Answers webhook calls."""

    def __init__(
        self,
        work: dispatcher.Dispatcher,
        records: keeper.Keeper,
        *,
        allow_anonymous: bool,
        rate: limits.Rate,
        figures: metrics.Metrics,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._work = work
        self._keeper = records
        self._clock = clock  # the wall's: senders sign theirs
        self._allow_anonymous = allow_anonymous
        self._rate = rate
        self._figures = figures

    def table(self) -> list[routes.Route]:
        """Return the routes."""
        paths = ("/api/v1/webhook/{name}", _OLD_PREFIX + "{name}", "/webhook/{name}")
        return [
            routes.Route("*", path + tail, access.PUBLIC, self.call, "call a webhook", counted=False)
            for path in paths
            for tail in ("", "/{tail:.*}")
        ]

    async def call(self, request: web.Request) -> web.Response:
        """Take one delivery; or say that its sender may send some, which is asked before of everybody alike."""
        asked_by = request.headers.get("WebHook-Request-Origin", "") if request.method == "OPTIONS" else ""
        if _ORIGIN.fullmatch(asked_by):
            rate = f"{DELIVERIES_PER_S * 60:.0f}"
            return web.Response(headers={"WebHook-Allowed-Origin": asked_by, "WebHook-Allowed-Rate": rate})
        body = await answers.body_of(request, BODY_BYTES_MAX)
        try:
            hook, delivery, said = await self._verified(request, body)
        except errors.HeadraceError as error:  # no such webhook, no such secret, a wrong one, nothing to find it in
            log.info("webhook.refused", webhook=request.match_info["name"], reason=error.message)
            self._figures.delivery("refused")
            raise _REFUSED from None
        if delivery.method not in hook.methods and not (delivery.method == "HEAD" and "GET" in hook.methods):
            raise web.HTTPMethodNotAllowed(delivery.method, hook.methods)
        if (wait_s := self._rate.wait_s(hook.name)) > 0:
            raise limits.TooManyRequests("come to this webhook", wait_s)
        said = said or await _content(delivery)
        if (asked := deliveries.challenge(hook.auth, said)) is not None:
            return web.Response(text=asked)
        inputs = deliveries.inputs(delivery, said, keyed=hook.auth in ("key", "none"))
        wanted = _submission(hook, deliveries.id_of(delivery, hook.auth, said), inputs)
        trace = traces.accepted(request.headers.get("traceparent", ""))
        accepted = await self._work.submit(msgspec.structs.replace(wanted, traceparent=trace) if trace else wanted)
        self._figures.delivery("repeated" if accepted.repeated else "accepted")
        return await self._answer(request, accepted)

    async def _verified(
        self, request: web.Request, body: bytes
    ) -> tuple[model.Webhook, deliveries.Delivery, deliveries.Content | None]:
        """Return the webhook that this is surely meant for, and what of the body had to be read to know."""
        hook, secret, path = await self._find(request)
        delivery = _delivery(request, path, body)
        said = await _content(delivery) if _is_keyed_inside(request, hook) else None
        self._verify(request, hook, secret, body, said.key if said else "")
        return hook, delivery, said

    async def _find(self, request: web.Request) -> tuple[model.Webhook, str, str]:
        """Return the webhook of an address, its secret, and the path behind its name; raises like the keeper.

        A name may have slashes, and senders leave them as they are: then it is looked for in the path, too."""
        name, tail = request.match_info["name"], request.match_info.get("tail", "")
        folders = tail.split("/")[:_FOLDERS_MAX] if tail else []
        unknown: errors.NotFound | None = None
        for count in range(len(folders) + 1):
            try:
                hook, secret = await self._keeper.webhook("/".join([name, *folders[:count]]))
            except errors.NotFound as error:
                unknown = unknown or error
            else:
                return hook, secret, _path(request, tail.split("/")[count:])
        assert unknown is not None
        raise unknown

    def _verify(self, request: web.Request, hook: model.Webhook, secret: str, body: bytes, inside: str) -> None:
        """Raise ``Unauthenticated`` with the reason unless this delivery is really from whoever may send it."""
        match hook.auth:
            case "none":
                if not self._allow_anonymous:
                    raise errors.Unauthenticated("a webhook without credentials is only served on loopback")
            case scheme if scheme in signatures.SCHEMES:
                if not signatures.verified(scheme, body, request.headers, secret, self._clock()):
                    raise errors.Unauthenticated("wrong signature, or an old one")
            case "key":
                if not signatures.keyed(_key(request) or inside, secret):
                    raise errors.Unauthenticated("wrong key")
            case other:
                raise errors.Unauthenticated(f"auth {other!r} is not known")

    async def _answer(self, request: web.Request, accepted: reception.Accepted) -> web.Response:
        headers = {"Location": f"/api/v1/executions/{accepted.execution}"}
        if accepted.repeated:
            headers["Idempotency-Replayed"] = "true"
        later = request.query.get("async", "") not in ("", "0", "false") or bool(self._work.maintaining.state.since)
        state, request[answers.CONFIRM] = await self._work.ends.foresee(
            accepted.execution, 0 if later else answers.wait_s(request, _WAIT_S) or 0
        )
        if later or not state.status.ended:
            return answers.json_answer({"id": state.id, "status": state.status}, status=202, headers=headers)
        if state.answer is not None:
            return await self._reply(state.id, state.answer)
        shown = await views.for_people(self._work.ledger, state)
        del shown["input_value"]  # the caller sent it
        status = 200 if state.status == "ENDED_SUCCESS" else 500
        return answers.json_answer(shown, status=status, headers=headers)

    async def _reply(self, execution: str, answer: events.WebhookAnswered) -> web.Response:
        """Send what the flow said. Its own headers alone: that Headrace runs it is not the caller's business."""
        reply = replies.reply(answer, await self._work.ledger.contents.shown(answer.body_blob or answer.body))
        if reply.refused:
            log.warning("webhook.headers_dropped", execution=execution, headers=reply.refused)
        return web.Response(status=reply.status, headers=reply.headers, body=reply.body)


async def _content(delivery: deliveries.Delivery) -> deliveries.Content:
    """Return what a body says; large ones are read in a thread, for some take seconds."""
    if len(delivery.body) <= _LARGE_BYTES:
        return deliveries.content(delivery)
    return await asyncio.to_thread(deliveries.content, delivery)


def _submission(hook: model.Webhook, named: tuple[str, str], inputs: dict[str, Any]) -> model.Submission:
    """Return the run that a delivery asks for; one whose sender named it is run once."""
    id_, digest = named
    return model.Submission(
        flow=hook.flow,
        inputs=values.encode(inputs),
        webhook=True,
        created_by=f"webhook {hook.name}",
        key=f"webhook:{hook.name}:{id_}" if id_ else "",
        key_digest=digest,
    )


def _path(request: web.Request, parts: list[str]) -> str:
    """Return what follows the webhook's name; the old address has "call" between the two."""
    if request.path.startswith(_OLD_PREFIX) and parts[:1] == [_OLD_CALL]:
        parts = parts[1:]
    return "/".join(parts)


def _delivery(request: web.Request, path: str, body: bytes) -> deliveries.Delivery:
    return deliveries.Delivery(
        method=request.method,
        path=path,
        query=tuple(request.query.items()),
        headers=tuple(request.headers.items()),
        content_type=request.content_type,
        body=body,
    )


def _key(request: web.Request) -> str:
    """Find the key where senders put it: query, header, bearer token."""
    scheme, _, token = request.headers.get("Authorization", "").partition(" ")
    bearer = token.strip() if scheme.lower() == "bearer" else ""
    return request.query.get(deliveries.KEY) or request.headers.get("x-api-key") or bearer


def _is_keyed_inside(request: web.Request, hook: model.Webhook) -> bool:
    """Whether the body has to be read before its sender is known: a key may be one of its fields."""
    return hook.auth == "key" and not _key(request)
