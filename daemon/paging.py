"""Lists a page at a time: ``limit``, ``cursor`` and ``Link: rel="next"``.

A cursor says behind which entry the next page begins, by the entry's key: entries that come or go meanwhile neither
repeat others nor hide them. It is opaque to whoever gets it. Used by the handlers of everything that is listed but
executions, whose pages the index makes.
"""

from __future__ import annotations

import base64
import binascii
import bisect
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, TypeVar

import msgspec
from aiohttp import web

from ..engine import errors
from . import answers, operations

LIMIT = 200
LIMIT_MAX = 1000
#: The parameters of a list, for the description of the API.
PARAMETERS = (
    operations.Parameter(
        "limit",
        {"type": "integer", "minimum": 1, "maximum": LIMIT_MAX},
        f"how many a page has; {LIMIT} unless said",
    ),
    operations.CURSOR,
)
_Entry = TypeVar("_Entry")


def limit_of(query: Mapping[str, str], default: int, most: int) -> int:
    """Return how many entries the sender wants; raises ``InvalidRequest``."""
    text = query.get("limit", str(default))
    if not text.isascii() or not text.isdecimal() or len(text) > 9 or not 1 <= int(text) <= most:
        raise errors.InvalidRequest(f"limit={text[:100]} is not a number from 1 to {most}")
    return int(text)


def written_cursor(key: object) -> str:
    """Return the cursor of the page behind the entry with this key."""
    return base64.urlsafe_b64encode(msgspec.json.encode(key)).decode().rstrip("=")


def read_cursor(query: Mapping[str, str], form: type[_Entry]) -> _Entry | None:
    """Return the key in the query's cursor, None if there is none; raises ``InvalidRequest`` for one of no page."""
    text = query.get("cursor", "")
    if not text:
        return None
    try:
        return msgspec.json.decode(base64.urlsafe_b64decode(text + "=" * (-len(text) % 4)), type=form)
    except (binascii.Error, msgspec.MsgspecError, UnicodeError, ValueError):
        raise errors.InvalidRequest(
            "the cursor is not one of this list", hint="use `next` of the page before, or leave it out"
        ) from None


async def answer(
    request: web.Request,
    entries: Sequence[_Entry],
    key: Callable[[_Entry], tuple[str, ...]],
    show: Callable[[_Entry], Awaitable[Any]],
    *,
    newest_first: bool = False,
) -> web.Response:
    """Answer with the page of ``entries`` that was asked for, in order of ``key`` (which tells all of them apart)."""
    limit = limit_of(request.query, LIMIT, LIMIT_MAX)
    behind = read_cursor(request.query, tuple[str, ...])
    ordered = sorted(entries, key=key)
    if newest_first:
        end = len(ordered) if behind is None else bisect.bisect_left(ordered, behind, key=key)
        page, more = ordered[max(0, end - limit) : end][::-1], end > limit
    else:
        begin = 0 if behind is None else bisect.bisect_right(ordered, behind, key=key)
        page, more = ordered[begin : begin + limit], begin + limit < len(ordered)
    return linked(request, [await show(entry) for entry in page], written_cursor(key(page[-1])) if more else "")


def linked(request: web.Request, items: list[Any], cursor: str) -> web.Response:
    """Answer with a page and where the next one is; ``cursor`` is empty on the last page."""
    headers = {"Link": f'<{request.rel_url.update_query(cursor=cursor)}>; rel="next"'} if cursor else {}
    return answers.json_answer({"items": items, "next": cursor or None}, headers=headers)
