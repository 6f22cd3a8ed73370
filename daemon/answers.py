"""How requests are read and answers written: JSON, problems (RFC 9457), waiting (RFC 7240).

Nothing here decides anything; handlers stay parse, call, render.
"""

from __future__ import annotations

import asyncio
import collections
import json
import re
import secrets
import urllib.parse
from collections.abc import Iterable
from typing import Any, ClassVar, TypeVar

import msgspec
from aiohttp import web

from ..engine import errors, values
from ..engine.running import ends
from . import form_data

#: What a request is called in the log, the audit log and its answer.
REQUEST_ID = web.RequestKey("request id", str)
#: What was changed: hashes of it before and after, empty for what was not there. For the audit log.
CHANGE = web.RequestKey("change", tuple[str, str])
#: What has to return before the answer goes out: the disk may still work on what it tells.
CONFIRM: web.RequestKey[ends.Confirm] = web.RequestKey("confirm")
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
#: How deep JSON may be nested: what people and programs write is a tenth of it.
DEPTH_MAX = 64
_CHECKED_ON_LOOP_BYTES = 64 * 1024  # what takes a millisecond; larger bodies are looked through in a thread
#: Forms of our pages; larger inputs are for the API.
_FORM_BYTES_MAX = 4 * 1024 * 1024
FILES_BYTES_MAX = 64 * 1024 * 1024  # of a form with all its files; by the API each may be as large
_FORM_FIELDS_MAX = 600  # a message may ask for 500 things
_FORM_TYPE = "application/x-www-form-urlencoded"
_FORM = web.RequestKey("form", dict[str, str])
_FILES = web.RequestKey("files", list[form_data.Part])
_Shape = TypeVar("_Shape", bound=msgspec.Struct)


def json_answer(value: Any, *, status: int = 200, headers: dict[str, str] | None = None) -> web.Response:
    """Return ``value`` as JSON."""
    return web.Response(body=msgspec.json.encode(value), status=status, content_type=JSON, headers=headers)


def note_change(request: web.Request, before: str = "", after: str = "") -> None:
    """Have the audit log say what was changed: by ETags, empty for what was not there. A later word adds to it."""
    known = request.get(CHANGE, ("", ""))
    request[CHANGE] = (before.strip('"') or known[0], after.strip('"') or known[1])


def problem(error: errors.HeadraceError, status: int | None = None, request_id: str = "") -> web.Response:
    """Return an error as ``application/problem+json``; its ``type`` is named for the error's class and stays."""
    code = status or error.http_status
    title = title_of(type(error))
    body: dict[str, Any] = {"type": type_of(title), "title": title, "status": code, "detail": error.message}
    if error.hint:
        body["hint"] = error.hint
    if isinstance(error, errors.Conflict) and error.diff:
        body["diff"] = error.diff
    if request_id:
        body["request"] = request_id
    headers = (
        {"Retry-After": str(getattr(error, "retry_after_s", 0) or 1 + secrets.randbelow(4))} if error.retryable else {}
    )
    if code == 401:
        headers["WWW-Authenticate"] = "Bearer"
    return web.Response(body=msgspec.json.encode(body), status=code, content_type=PROBLEM, headers=headers)


def title_of(kind: type[errors.HeadraceError]) -> str:
    """``NotFound`` → ``Not found``. What nobody outside can mend is called the same for all: a defect of ours."""
    if kind.http_status == 500:
        return "Internal error"
    words = re.sub(r"(?<=[a-z])(?=[A-Z])", " ", kind.__name__)
    return words[0] + words[1:].lower()


def type_of(title: str) -> str:
    """``Not found`` → ``urn:headrace:not-found``, the problem's type (RFC 9457, section 3.1.1)."""
    return f"urn:headrace:{title.lower().replace(' ', '-')}"


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


async def json_of(request: web.Request, bytes_max: int) -> bytes:
    """Return the body of a request of the API, which has to be JSON that everybody reads alike; may be empty.

    Raises ``InvalidRequest`` for a key that stands twice in an object and for what is nested too deeply. How many keys
    there are is not limited: their hashes have a random seed."""
    body = await body_of(request, bytes_max)
    if len(body) <= _CHECKED_ON_LOOP_BYTES:
        _read_alike(body)
    else:
        await asyncio.to_thread(_read_alike, body)
    return body


def _read_alike(body: bytes) -> None:
    try:
        text = body.decode().strip() or "{}"
        value, end = _DECODER.raw_decode(text)
        if end < len(text):
            raise json.JSONDecodeError("Extra data", text, end)
    except RecursionError:
        raise _too_deep() from None
    except json.JSONDecodeError as error:
        raise errors.InvalidRequest(f"the body cannot be used: it is not valid JSON: {error}") from None
    except ValueError as error:  # a key that stands twice, a number of too many digits, no UTF-8
        raise errors.InvalidRequest(f"the body cannot be used: {error}") from None
    if body.count(b"{") + body.count(b"[") <= DEPTH_MAX:  # as nearly always: there are not enough for that depth
        return
    level = _containers([value])
    depth = 0
    while level:
        if (depth := depth + 1) > DEPTH_MAX:
            raise _too_deep()
        inside = (outer.values() if isinstance(outer, dict) else outer for outer in level)
        level = [container for found in inside for container in _containers(found)]


def _containers(found: Iterable[Any]) -> list[Any]:
    return [value for value in found if isinstance(value, dict | list)]


def _once_each(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        twice = collections.Counter(key for key, _ in pairs).most_common(1)[0][0]
        raise ValueError(f"the key {twice[:100]!r} stands twice in an object")
    return found


#: Made once: that costs more than to decode what most requests say.
_DECODER = json.JSONDecoder(object_pairs_hook=_once_each)


def _too_deep() -> errors.InvalidRequest:
    return errors.InvalidRequest(f"the body is nested more than {DEPTH_MAX} deep", hint="flatten it, or pass a file")


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
    except ConnectionError:  # nobody will read this, the log apart
        raise errors.InvalidRequest("the sender hung up before the body was whole") from None
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


async def form_of(request: web.Request, *, files: bool = False) -> dict[str, str]:
    """Return the fields of a form, empty for any other body; may be asked again. Raises ``InvalidRequest``.

    ``files``: one that may hold files is read as well, which are many bytes to take from a stranger."""
    if _FORM in request:
        return request[_FORM]
    if files and request.content_type == form_data.TYPE:
        return await _form_with_files(request)
    if request.content_type != _FORM_TYPE:
        return {}
    body = await body_of(request, _FORM_BYTES_MAX)
    try:
        fields = urllib.parse.parse_qsl(body.decode(), keep_blank_values=True, max_num_fields=_FORM_FIELDS_MAX)
    except ValueError as error:
        raise errors.InvalidRequest(f"the form cannot be read: {error}") from None
    request[_FORM] = dict(fields)
    return request[_FORM]


async def files_of(request: web.Request) -> list[form_data.Part]:
    """Return the files of a form, fields that were left empty apart; may be asked again. Raises as ``form_of`` does."""
    await form_of(request, files=True)
    sent: list[form_data.Part] = request.get(_FILES, [])
    return sent


async def _form_with_files(request: web.Request) -> dict[str, str]:
    """Read it once, whole: the token that says that a page of ours sent it lies in the body, too."""
    body = await body_of(request, FILES_BYTES_MAX)
    parts = await asyncio.to_thread(form_data.read, request.headers["Content-Type"], body)
    fields = [part for part in parts if part.filename is None]
    if sum(len(part.content) for part in fields) > _FORM_BYTES_MAX:
        raise errors.TooLarge(f"the fields of the form are over the limit of {_FORM_BYTES_MAX:,} bytes")
    request[_FILES] = [part for part in parts if part.filename]
    request[_FORM] = {part.name: part.text for part in fields}
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
