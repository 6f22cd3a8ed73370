"""How requests are read and answers written: JSON, problems (RFC 9457), waiting (RFC 7240).

Nothing here decides anything; handlers stay parse, call, render.
"""

from __future__ import annotations

import re
import urllib.parse
from typing import Any, TypeVar

import msgspec
from aiohttp import web

from ..engine import errors, values

JSON = "application/json"
PROBLEM = "application/problem+json"
#: Longest a request may be kept waiting for an execution's end; a client that wants more asks again.
WAIT_S_MAX = 600.0
_PREFER_WAIT = re.compile(r"(?:^|[,;\s])wait\s*=\s*(\d+)")
#: Forms of our pages; larger inputs are for the API.
_FORM_BYTES_MAX = 4 * 1024 * 1024
_FORM_FIELDS_MAX = 600  # a message may ask for 500 things
_FORM_TYPE = "application/x-www-form-urlencoded"
_FORM = web.RequestKey("form", dict[str, str])
_Shape = TypeVar("_Shape", bound=msgspec.Struct)


def json_answer(value: Any, *, status: int = 200, headers: dict[str, str] | None = None) -> web.Response:
    """Return ``value`` as JSON."""
    return web.Response(body=msgspec.json.encode(value), status=status, content_type=JSON, headers=headers)


def problem(error: errors.HeadraceError, status: int | None = None) -> web.Response:
    """Return an error as ``application/problem+json``."""
    code = status or error.http_status
    body: dict[str, Any] = {"type": "about:blank", "title": _title(error), "status": code, "detail": error.message}
    if error.hint:
        body["hint"] = error.hint
    headers = {"Retry-After": str(getattr(error, "retry_after_s", 2))} if error.retryable else {}
    if code == 401:
        headers["WWW-Authenticate"] = "Bearer"
    return web.Response(body=msgspec.json.encode(body), status=code, content_type=PROBLEM, headers=headers)


def _title(error: errors.HeadraceError) -> str:
    """``NotFound`` → ``Not found``."""
    words = re.sub(r"(?<=[a-z])(?=[A-Z])", " ", type(error).__name__)
    return words[0] + words[1:].lower()


async def body_of(request: web.Request, bytes_max: int) -> bytes:
    """Return the raw body; raises ``TooLarge`` as soon as it is known to be, and refuses encoded bodies."""
    if request.headers.get("Content-Encoding", "identity").lower() != "identity":
        raise errors.InvalidRequest("encoded bodies are not taken", hint="send it without Content-Encoding")
    if (request.content_length or 0) > bytes_max:
        raise errors.TooLarge(f"the body is {request.content_length:,} bytes, the limit is {bytes_max:,}")
    if not request.body_exists:
        return b""
    body = bytearray()
    async for chunk in request.content.iter_any():
        body += chunk
        if len(body) > bytes_max:
            raise errors.TooLarge(f"the body is over the limit of {bytes_max:,} bytes")
    return bytes(body)


async def form_of(request: web.Request) -> dict[str, str]:
    """Return the fields of a form, empty for any other body; may be asked again. Raises ``InvalidRequest``."""
    if _FORM in request:
        return request[_FORM]
    if request.content_type != _FORM_TYPE:
        return {}
    body = await body_of(request, _FORM_BYTES_MAX)
    try:
        fields = urllib.parse.parse_qsl(body.decode(), keep_blank_values=True, max_num_fields=_FORM_FIELDS_MAX)
    except ValueError as error:
        raise errors.InvalidRequest(f"the form cannot be read: {error}") from None
    request[_FORM] = dict(fields)
    return request[_FORM]


def decoded(body: bytes, shape: type[_Shape]) -> _Shape:
    """Return a JSON body as ``shape`` (an empty one as an empty object); raises ``InvalidRequest`` with the place."""
    try:
        return msgspec.json.decode(body or b"{}", type=shape)
    except (msgspec.MsgspecError, UnicodeError, RecursionError) as error:
        raise errors.InvalidRequest(f"the body cannot be used: {error}") from None


def checked_inputs(text: bytes) -> bytes:
    """Return the inputs of a run as a JSON object's text; raises ``InvalidRequest`` or ``TooLarge``."""
    inputs = values.checked(text, "inputs")
    if not inputs.lstrip().startswith(b"{"):
        raise errors.InvalidRequest("inputs must be an object", hint='write {"name": "value"}')
    return inputs


def wait_s(request: web.Request, default: float | None = None) -> float | None:
    """Return how long the sender wants to wait (``?wait=N`` or ``Prefer: wait=N``), or ``default``."""
    text = request.query.get("wait")
    if text is None:
        match = _PREFER_WAIT.search(request.headers.get("Prefer", ""))
        return default if match is None else min(float(match[1]), WAIT_S_MAX)
    try:
        seconds = float(text or 60)
    except ValueError:
        seconds = -1
    if not 0 <= seconds < float("inf"):
        raise errors.InvalidRequest(f"wait={text} is not a number of seconds")
    return min(seconds, WAIT_S_MAX)
