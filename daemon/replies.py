"""What a flow says the caller of its webhook gets, made safe to send from our address. Pure.

Owns: which headers of a flow may go out. Refuses: those that belong to the connection or to the whole origin, cookies
with the names of our sessions, anything that could break out of its header. A page of a flow is served from the
address of our own pages: unless the flow brings a policy of its own, browsers are told to treat it as from elsewhere,
so that it cannot act with the session of whoever looks at it. Called by ``webhooks``.
"""

from __future__ import annotations

import base64
import re

import msgspec

from ..engine import errors, events, values

#: Forms, scripts and popups work; our cookies and pages are out of reach.
SANDBOX = "sandbox allow-forms allow-scripts allow-popups"
_BODILESS = frozenset({204, 205, 304})
_OF_THE_CONNECTION = frozenset({
    "connection", "content-length", "date", "keep-alive", "proxy-authenticate", "proxy-authorization",
    "proxy-connection", "server", "te", "trailer", "transfer-encoding", "upgrade",
})  # fmt: skip
#: What browsers, and proxies that send files themselves, would heed beyond this one answer.
_OF_THE_ORIGIN = frozenset({
    "alt-svc", "clear-site-data", "nel", "public-key-pins", "report-to", "reporting-endpoints",
    "service-worker-allowed", "strict-transport-security", "x-sendfile",
})  # fmt: skip
_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")  # a token of RFC 9110
_VALUE = re.compile(r"[\t\x20-\x7e\x80-\U0010ffff]*")
_OUR_COOKIE = re.compile(r"(?:__Host-)?headrace(?:-\d+)?", re.IGNORECASE)


class Reply(msgspec.Struct, frozen=True):
    """An answer ready to be sent, and the names of the flow's headers that are not."""

    status: int
    headers: dict[str, str]
    body: bytes
    refused: tuple[str, ...] = ()


def reply(said: events.WebhookAnswered, body: msgspec.Raw) -> Reply:
    """Return the answer of a flow; ``body`` is the JSON string that ``said`` or its file holds.

    Raises ``InvalidRequest`` for a status that ends no request and for a body that is not what it says."""
    if not 200 <= said.status <= 599:
        raise errors.InvalidRequest(
            f"the flow answered with the status {said.status}", hint="webhook_response(status=…) takes 200 to 599"
        )
    last = {name.lower(): name for name in said.headers}  # of one that is spelled in two ways
    headers = {name: said.headers[name] for name in last.values() if _may_go_out(name, said.headers[name])}
    names = {name.lower() for name in headers}
    if "content-security-policy" not in names:
        headers["Content-Security-Policy"] = SANDBOX
    if "x-content-type-options" not in names:
        headers["X-Content-Type-Options"] = "nosniff"
    content = b"" if said.status in _BODILESS else _content(said, body)
    if content and "content-type" not in names:
        headers["Content-Type"] = "application/octet-stream" if said.binary else "text/plain; charset=utf-8"
    refused = tuple(sorted(said.headers.keys() - headers.keys()))
    return Reply(said.status, headers, content, refused)


def _content(said: events.WebhookAnswered, body: msgspec.Raw) -> bytes:
    text = values.decode(body)
    try:
        return base64.b64decode(text, validate=True) if said.binary else str(text).encode()
    except (ValueError, TypeError) as error:
        raise errors.InvalidRequest(f"the flow's answer cannot be sent: {error}") from None


def _may_go_out(name: str, value: str) -> bool:
    lower = name.lower()
    if not _NAME.fullmatch(name) or not _VALUE.fullmatch(value) or not _is_text(value):
        return False
    if lower == "set-cookie":
        return not _OUR_COOKIE.fullmatch(value.partition("=")[0].strip())
    return lower not in _OF_THE_CONNECTION | _OF_THE_ORIGIN and not lower.startswith("x-accel-")


def _is_text(value: str) -> bool:
    try:
        value.encode()
    except UnicodeEncodeError:  # half of a surrogate pair
        return False
    return True
