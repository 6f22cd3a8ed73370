"""How requests are read and answers written: JSON, problems (RFC 9457), waiting (RFC 7240).

Nothing here decides anything; handlers stay parse, call, render.
"""

from __future__ import annotations

import asyncio
import re
import secrets
import urllib.parse
from typing import Any, ClassVar, TypeVar

import msgspec
from aiohttp import web

from ..engine import errors, values

JSON = "application/json"
PROBLEM = "application/problem+json"
#: Longest a request may be kept waiting for an execution's end; a client that wants more asks again.
WAIT_S_MAX = 600.0
#: A body has so long to begin with, and for every second more this many bytes; at most so long altogether.
BODY_S = 30.0
_BODY_BYTES_PER_S = 1024
_BODY_S_MAX = 600.0
#: What bodies that are still arriving may take of the memory together: four of the largest, or thousands of the usual.
BODIES_BYTES_MAX = 256 * 1024 * 1024
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
    headers = (
        {"Retry-After": str(getattr(error, "retry_after_s", 0) or 1 + secrets.randbelow(4))} if error.retryable else {}
    )
    if code == 401:
        headers["WWW-Authenticate"] = "Bearer"
    return web.Response(body=msgspec.json.encode(body), status=code, content_type=PROBLEM, headers=headers)


def _title(error: errors.HeadraceError) -> str:
    """``NotFound`` → ``Not found``."""
    words = re.sub(r"(?<=[a-z])(?=[A-Z])", " ", type(error).__name__)
    return words[0] + words[1:].lower()


async def body_of(request: web.Request, bytes_max: int) -> bytes:
    """Return the raw body; raises ``TooLarge`` as soon as it is known to be, ``TooSlow`` if it does not come, and
    ``NotAccepting`` while too much of others' is being read. Refuses encoded bodies."""
    if request.headers.get("Content-Encoding", "identity").lower() != "identity":
        raise UnsupportedBody("encoded bodies are not taken", hint="send it without Content-Encoding")
    if (request.content_length or 0) > bytes_max:
        raise errors.TooLarge(f"the body is {request.content_length:,} bytes, the limit is {bytes_max:,}")
    if not request.body_exists:
        return b""
    try:
        if not request.content.is_eof():
            return await _arriving(request, bytes_max)
        body = request.content.read_nowait(-1)  # it came with the head, as small ones do
    except web.RequestPayloadError as error:
        raise errors.InvalidRequest(f"the body does not hold together: {error}") from None
    if len(body) > bytes_max:
        raise errors.TooLarge(f"the body is over the limit of {bytes_max:,} bytes")
    return body


async def _arriving(request: web.Request, bytes_max: int) -> bytes:
    body = bytearray()
    began = asyncio.get_running_loop().time()
    try:
        async with asyncio.timeout(BODY_S) as deadline:
            async for chunk in request.content.iter_any():
                body += chunk
                _in_memory.add(len(chunk))
                if len(body) > bytes_max:
                    raise errors.TooLarge(f"the body is over the limit of {bytes_max:,} bytes")
                deadline.reschedule(began + min(BODY_S + len(body) / _BODY_BYTES_PER_S, _BODY_S_MAX))
    except TimeoutError:
        raise TooSlow(
            "the body did not come in time", hint=f"it must bring {_BODY_BYTES_PER_S:,} bytes a second"
        ) from None
    finally:
        _in_memory.give_back(len(body))
    return bytes(body)


class TooSlow(errors.InvalidRequest):
    """The body did not come in time."""

    http_status: ClassVar[int] = 408


class UnsupportedBody(errors.InvalidRequest):
    """The body is encoded, and nothing is unpacked for strangers."""

    http_status: ClassVar[int] = 415


class _InMemory:
    """How much of bodies that are still arriving lies in memory; the daemon has one."""

    def __init__(self) -> None:
        self._bytes = 0

    def add(self, count: int) -> None:
        self._bytes += count
        if self._bytes > BODIES_BYTES_MAX:
            raise errors.NotAccepting("too many large bodies are arriving at once", hint="send it again a little later")

    def give_back(self, count: int) -> None:
        self._bytes -= count


_in_memory = _InMemory()


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
