"""The pages of values: what an execution was given and what came of it, unfolded member by member, or as a file.

    GET /executions/{id}/values?of=inputs|outputs    the value, or what lies ``at`` a JSON pointer in it
        &at=/hosts/0&after=100                       the members of it after so many
        &part                                        as a piece of the page that is open already
        &side=first|second                           of two that are compared on that page
        &download                                    as JSON, all of it

Values come as people may see them. One that lies in a file is opened when it is asked for, and on the page of its
execution if it is small. Called by ``app`` for the route table, by ``execution_pages`` for the first look.
"""

from __future__ import annotations

import asyncio
import json
from typing import Any

import msgspec
from aiohttp import web

from ..engine import errors, events, model
from ..engine.running import contents, dispatcher
from . import folding, routes, templates
from .reach import Reach

#: Files so small are opened for the page of an execution.
_OPENED_BYTES_MAX = 256 * 1024
_ON_LOOP_BYTES = 64 * 1024  # a millisecond's worth of reading


class ValuePages:
    """The handlers."""

    def __init__(self, work: dispatcher.Dispatcher) -> None:
        self._work = work

    def table(self) -> list[routes.Route]:
        """Return the routes."""
        row = (
            "GET",
            "/executions/{id}/values",
            "read",
            self.show_value,
            "its inputs or its outputs, or a part of them",
        )
        return [routes.Route(*row, Reach.EXECUTION, page=True)]

    async def show_value(self, request: web.Request) -> web.Response:
        """A value, a part of it, or the file."""
        of, at = request.query.get("of", "inputs"), request.query.get("at", "")
        if of not in ("inputs", "outputs"):
            raise errors.InvalidRequest(f"an execution has inputs and outputs, no {of[:40]!r}")
        side = request.query.get("side", "")
        if side not in ("", "first", "second"):
            raise errors.InvalidRequest(f"two sides are compared, first and second, not {side[:40]!r}")
        state = await self._work.load(request.match_info["id"])
        value = state.inputs if of == "inputs" else state.output
        if "download" in request.query:
            return _file(await self._whole(value), f"{state.id}-{of}.json")
        after = request.query.get("after", "0")
        begin = int(after) if after.isascii() and after.isdecimal() else 0
        node = folding.tree(await self._part(value, at), at, begin)
        where = f"/executions/{state.id}/values?of={of}" + (f"&side={side}" if side else "")
        prefix = f"{side}-{of}" if side else of  # of the ids of its elements
        shown: dict[str, Any] = {"node": node, "where": where, "prefix": prefix}
        if "part" in request.query:
            text = templates.fragment("value_part.html", **shown)
            return web.Response(text=text, content_type="text/html", headers=templates.HEADERS)
        return templates.page(request, "value.html", **shown, of=of, state=state, at=at)

    async def _whole(self, value: model.Output) -> bytes:
        """Return a value as JSON text."""
        held = self._work.ledger.contents
        if value is None:
            return b"null"
        if not isinstance(value, dict):
            return bytes(await held.shown(value))
        return msgspec.json.encode({key: await held.shown(member) for key, member in value.items()})

    async def _part(self, value: model.Output, at: str) -> Any:
        """Return what lies at a pointer, opening no other member of an output than the one it leads to."""
        if isinstance(value, dict) and at:
            key = at.split("/")[1].replace("~1", "/").replace("~0", "~") if at.startswith("/") else ""
            if key not in value:
                raise errors.NotFound(f"there is nothing at {at[:200]!r}")
            value = {key: value[key]}
        return folding.find(await _read(await self._whole(value)), at)


async def first_look(held: contents.Contents, value: model.Output) -> folding.Node | None:
    """Return a value as the page of its execution shows it, None for none: large files stay unopened."""
    if value is None:
        return None
    if not isinstance(value, dict):
        size = _size(value)
        if size > _OPENED_BYTES_MAX:
            return folding.unread("", "", size)
        return folding.tree(await _read(bytes(await held.shown(value))))
    small = {key: member for key, member in value.items() if _size(member) <= _OPENED_BYTES_MAX}
    opened = msgspec.json.encode({key: await held.shown(member) for key, member in small.items()})
    root = folding.tree(await _read(opened))
    for key, member in value.items():
        if key not in small:
            root.members.append(folding.unread(folding.member(key), json.dumps(key), _size(member)))
    root.count = len(value)
    return root


def _size(value: model.Value) -> int:
    seen = value.shown if isinstance(value, model.Sealed) else value
    return seen.bytes if isinstance(seen, events.Blob) else len(bytes(seen))


async def _read(text: bytes) -> Any:
    return folding.read(text) if len(text) <= _ON_LOOP_BYTES else await asyncio.to_thread(folding.read, text)


def _file(text: bytes, name: str) -> web.Response:
    headers = {**templates.HEADERS, "Content-Disposition": f'attachment; filename="{name}"'}
    return web.Response(body=text, content_type="application/json", headers=headers)
