"""A delivery to a webhook as the flow gets it: from the raw request to ``input_value``. Pure.

Owns: which parser a body gets, what becomes of repeated names and of files in a form, and that the key of a webhook
stands nowhere in it. Refuses: a body that says it is JSON and is not, forms with too many fields, multipart bodies that
do not hold together. Who sent it is decided elsewhere, over the bytes as they came. Called by ``webhooks``.
"""

from __future__ import annotations

import base64
import hashlib
import urllib.parse
from collections.abc import Iterable, Mapping
from typing import Any

import msgspec

from ..engine import errors, values
from . import form_data

FIELDS_MAX = form_data.FIELDS_MAX
#: Of a web form without files. Decoding its percent signs takes about a second for each megabyte of them.
FORM_BYTES_MAX = 4 * 1024 * 1024
#: Credentials stay out of what flows and records see.
HIDDEN_HEADERS = frozenset({"authorization", "x-api-key", "cookie", "proxy-authorization"})
KEY = "key"
#: Headers in which senders name a delivery, and name it so again when they repeat it.
_DELIVERY_HEADERS = (
    "x-github-delivery",
    "x-gitea-delivery",
    "x-forgejo-delivery",
    "x-gogs-delivery",
    "webhook-id",
    "idempotency-key",
)
_ID_CHARACTERS_MAX = 200
_CLOUD_EVENT = "application/cloudevents+json"
_FORM = "application/x-www-form-urlencoded"
_UNKNOWN = "application/octet-stream"  # also what a request without a type counts as
#: Command lines send JSON under these types when nobody tells them better; no form begins with a bracket.
_SAYS_NOTHING = frozenset({_FORM, _UNKNOWN, "text/plain", ""})
_BRACKETS = (b"{", b"[")


class Delivery(msgspec.Struct, frozen=True, kw_only=True):
    """The raw request. ``query`` and ``headers`` may name something several times; ``path`` follows the webhook's name.

    ``content_type`` is the media type alone, in small letters."""

    method: str
    path: str
    query: tuple[tuple[str, str], ...]
    headers: tuple[tuple[str, str], ...]
    content_type: str
    body: bytes


class Content(msgspec.Struct, frozen=True):
    """What a body says: ``json`` for the flow, and the body as it may be shown (``None``: it is all in ``json``)."""

    json: Any
    body: bytes | None

    @property
    def key(self) -> str:
        """The field ``key``, where senders may put their key; empty if there is none."""
        found = self.json.get(KEY) if isinstance(self.json, dict) else None
        return found if isinstance(found, str) else ""


def content(delivery: Delivery) -> Content:
    """Return what the body says; raises ``InvalidRequest`` if it is not what its type promises."""
    body, type_ = delivery.body, delivery.content_type
    if not body.strip():
        return Content({}, body)
    if type_.endswith("json"):
        return Content(_json(body), body)
    if type_ in _SAYS_NOTHING and body.lstrip().startswith(_BRACKETS):
        try:
            return Content(_json(body), body)
        except errors.InvalidRequest:  # nobody said that it was
            return Content({}, body)
    if type_ == _FORM:
        return Content(_fields(_pairs(body)), body)
    return _form_data(delivery, body) if type_ == form_data.TYPE else Content({}, body)


def id_of(delivery: Delivery, auth: str, said: Content) -> tuple[str, str]:
    """Return what names this delivery for good, so that a repeated one is known, and what the two must agree in.

    Both are empty if nothing names it. Where a header does, the bodies must agree. Where the body itself does (events
    of Stripe and Slack, CloudEvents), the sender may change other parts of it when it tries again."""
    headers = {name.lower(): value for name, value in delivery.headers}
    names = (*_DELIVERY_HEADERS, "x-request-uuid") if auth == "bitbucket" else _DELIVERY_HEADERS
    id_ = next((headers[name] for name in names if headers.get(name)), "")
    if id_:
        return id_[:_ID_CHARACTERS_MAX], hashlib.sha256(delivery.body).hexdigest()
    inside = _id_inside(delivery, auth, said, headers)
    return (inside, hashlib.sha256(inside.encode()).hexdigest()) if inside else ("", "")


def _id_inside(delivery: Delivery, auth: str, said: Content, headers: Mapping[str, str]) -> str:
    body = said.json if isinstance(said.json, dict) else {}
    match auth:
        case "stripe":
            found: tuple[Any, ...] = (body.get("id"),)
        case "slack":
            found = (body.get("event_id"),)
        case _ if delivery.content_type == _CLOUD_EVENT:
            found = (body.get("source"), body.get("id"))
        case _ if "ce-specversion" in headers:
            found = (headers.get("ce-source"), headers.get("ce-id"))
        case _:
            return ""
    if not all(isinstance(one, str) and one for one in found):
        return ""
    return f"sha256 {hashlib.sha256(repr(found).encode('utf-8', 'replace')).hexdigest()}"


def challenge(auth: str, said: Content) -> str | None:
    """Return what Slack wants to read before it sends events to an address, None if it wants no such thing.

    https://docs.slack.dev/reference/events/url_verification"""
    if auth != "slack" or not isinstance(said.json, dict) or said.json.get("type") != "url_verification":
        return None
    asked = said.json.get("challenge")
    return asked if isinstance(asked, str) else None


def inputs(delivery: Delivery, said: Content, *, keyed: bool) -> dict[str, Any]:
    """Return the flow's ``input_value``. ``keyed``: a field ``key`` of the body is, or may be, a credential."""
    if keyed and isinstance(said.json, dict) and KEY in said.json:
        said = _without_key(delivery, said)
    found: dict[str, Any] = {
        "method": delivery.method,
        "path": delivery.path,
        "query": _fields((name, value) for name, value in delivery.query if name != KEY),
        "headers": _headers(delivery.headers),
        "json": said.json,
    }
    try:
        found["body"] = (said.body or b"").decode()
    except UnicodeDecodeError:
        found |= {"body": base64.b64encode(said.body or b"").decode(), "body_encoding": "base64"}
    return found


def _headers(given: Iterable[tuple[str, str]]) -> dict[str, str]:
    """Names in small letters, repeated ones joined as RFC 9110 says; credentials left out."""
    found: dict[str, str] = {}
    for name, value in given:
        lower = name.lower()
        if lower not in HIDDEN_HEADERS:
            found[lower] = f"{found[lower]}, {value}" if lower in found else value
    return found


def _fields(pairs: Iterable[tuple[str, Any]]) -> dict[str, Any]:
    """A name that stands once has its value, one that stands several times a list of them, in order."""
    found: dict[str, list[Any]] = {}
    for name, value in pairs:
        found.setdefault(name, []).append(value)
    return {name: several[0] if len(several) == 1 else several for name, several in found.items()}


def _json(body: bytes) -> Any:
    try:
        return msgspec.json.decode(body)
    except (msgspec.MsgspecError, UnicodeError, RecursionError) as error:
        raise errors.InvalidRequest(f"the body is not JSON, though it says so: {error}") from None


def _pairs(body: bytes) -> list[tuple[str, str]]:
    if len(body) > FORM_BYTES_MAX:
        raise errors.InvalidRequest(
            f"the form is {len(body):,} bytes, the limit is {FORM_BYTES_MAX:,}", hint="send it as multipart/form-data"
        )
    try:
        return urllib.parse.parse_qsl(
            body.decode("utf-8", "replace"), keep_blank_values=True, max_num_fields=FIELDS_MAX
        )
    except ValueError:
        raise errors.InvalidRequest(f"the form has more than {FIELDS_MAX:,} fields") from None


def _without_key(delivery: Delivery, said: Content) -> Content:
    """Take the key out of the fields, and out of the body as it came."""
    kept = {name: value for name, value in said.json.items() if name != KEY}
    if delivery.content_type == form_data.TYPE:
        return Content(kept, None)
    if delivery.content_type == _FORM and not delivery.body.lstrip().startswith(_BRACKETS):
        pairs = [(name, value) for name, value in _pairs(delivery.body) if name != KEY]
        return Content(kept, urllib.parse.urlencode(pairs).encode())
    return Content(kept, values.encode(kept))


def _form_data(delivery: Delivery, body: bytes) -> Content:
    """A file of a form is an object with its name, type and content in base64.

    Files stand in the fields alone: in the body once more, a delivery of the largest size would be too large."""
    header = next((value for name, value in delivery.headers if name.lower() == "content-type"), "")
    parts = form_data.read(header, body)
    has_files = any(part.filename is not None for part in parts)
    return Content(_fields([(part.name, _shown(part)) for part in parts]), None if has_files else body)


def _shown(part: form_data.Part) -> Any:
    if part.filename is None:
        return part.text
    content_ = base64.b64encode(part.content).decode()
    return {"filename": part.filename, "content_type": part.content_type, "content": content_}
