"""The HTTP API of what flows keep and share: settings, connections, vault configurations, webhooks, schedules, files
and locks.

Each handler parses, calls the keeper and renders; what a record may hold, what of it people see and when it counts are
the keeper's business. A name is one percent-encoded segment; the path of a file may have its slashes as they are.
Called by ``app`` for the route table.
"""

from __future__ import annotations

import asyncio
import mimetypes
import urllib.parse
from typing import Any

import msgspec
from aiohttp import web

from ..engine import errors, values
from ..engine.running import keeper, locking
from ..engine.state import kinds
from . import answers, operations, paging, preconditions, routes, shapes
from .operations import Operation
from .reach import Reach

#: Segment of the address → type of the records below it.
TYPES = {
    "settings": "setting",
    "connections": "connection",
    "vault_configs": "vault_config",
    "webhooks": "webhook",
    "schedules": "schedule",
}
#: Fields that are shown and say nothing when they come back.
_KEPT = kinds.KEPT | {"is_declared"}
BODY_BYTES_MAX = values.VALUE_BYTES_MAX
#: Files are what flows and people put there: no browser may take one for a page of ours.
_FILE_HEADERS = {"X-Content-Type-Options": "nosniff", "Content-Security-Policy": "sandbox", "Cache-Control": "no-cache"}


class Records:
    """The handlers, who keeps the records, and who gives the locks."""

    def __init__(self, records: keeper.Keeper, locks: locking.Locking) -> None:
        self._keeper = records
        self._locks = locks
        self._changing = asyncio.Lock()  # between looking whether a record is as its sender saw it, and changing it

    def table(self) -> list[routes.Route]:
        """Return the routes."""
        found: list[routes.Route] = []
        for plural, type_ in TYPES.items():
            found += self._rows(f"/api/v1/{plural}", type_)
        file, lock = "/api/v1/files/{path:.+}", "/api/v1/locks/{name}"
        content, gone = operations.BYTES, Operation(statuses=(204,))
        guarded_write = Operation(
            takes=content, gives=shapes.Record, statuses=(200, 201), headers=(operations.IF_MATCH,)
        )
        guarded_delete = Operation(statuses=(204,), headers=(operations.IF_MATCH,))
        locks = Operation(gives=shapes.Page[shapes.Lock], query=paging.PARAMETERS)
        every, all_ = "/api/v1/files", Reach.EVERYTHING
        listed = Operation(gives=shapes.Page[shapes.Record], query=paging.PARAMETERS)
        rows: list[tuple[str, str, str, routes.Handler, str, Reach, Operation]] = [
            ("GET", every, "read", self.list_files, "all files, without their content", all_, listed),
            ("GET", file, "read", self.read_file, "the content of a file", all_, Operation(gives=content)),
            ("PUT", file, "edit", self.write_file, "make the body the content of a file", all_, guarded_write),
            ("DELETE", file, "edit", self.delete_file, "delete a file", all_, guarded_delete),
            ("GET", "/api/v1/locks", "read", self.list_locks, "the locks that are taken, and who waits", all_, locks),
            ("GET", lock, "read", self.show_lock, "one lock that is taken", all_, Operation(gives=shapes.Lock)),
            ("DELETE", lock, "run", self.release_lock, "take a lock from whoever has it", all_, gone),
        ]
        return [*found, *(routes.Route(*row) for row in rows)]

    def _rows(self, path: str, type_: str) -> list[routes.Route]:
        """The routes of one type of record."""

        async def listing(request: web.Request) -> web.Response:
            return await self._list(request, type_)

        async def show(request: web.Request) -> web.Response:
            return _tagged(await self._keeper.show(type_, request.match_info["name"]))

        async def save(request: web.Request) -> web.Response:
            name = request.match_info["name"]
            fields = _fields(type_, name, await answers.json_of(request, BODY_BYTES_MAX))
            async with self._changing:
                is_new = await self._check(request, type_, name)
                await self._keeper.save(type_, name, fields, _actor(request))
            await self._keeper.durable()
            return await self._saved(request, type_, name, is_new=is_new)

        async def delete(request: web.Request) -> web.Response:
            return await self._delete(request, type_, request.match_info["name"])

        what, one = type_.replace("_", " "), path + "/{name}"
        seen, all_, guard = Operation(gives=shapes.Record), Reach.EVERYTHING, (operations.IF_MATCH,)
        listed = Operation(gives=shapes.Page[shapes.Record], query=paging.PARAMETERS)
        saved = Operation(takes=dict[str, Any], gives=shapes.Record, statuses=(200, 201), headers=guard)
        gone = Operation(statuses=(204,), headers=guard)
        return [
            routes.Route("GET", path, "read", listing, f"all {what}s", all_, listed),
            routes.Route("GET", one, "read", show, f"one {what}", all_, seen),
            routes.Route("PUT", one, "edit", save, f"make a {what} or change fields of it", all_, saved),
            routes.Route("DELETE", one, "edit", delete, f"delete a {what}", all_, gone),
        ]

    async def _list(self, request: web.Request, type_: str) -> web.Response:
        return await paging.answer(
            request, self._keeper.all(type_), lambda record: (record.name,), self._keeper.for_people
        )

    async def _check(self, request: web.Request, type_: str, name: str) -> bool:
        """Refuse a change by somebody who saw something else; returns whether the record is new. Under the lock."""
        is_new = not self._keeper.exists(type_, name)
        tag = "" if is_new else preconditions.tag_of(await self._keeper.show(type_, name))
        preconditions.check(request.headers, tag, f"{type_} {name!r}")
        answers.note_change(request, before=tag)
        return is_new

    async def _saved(self, request: web.Request, type_: str, name: str, *, is_new: bool) -> web.Response:
        answer = _tagged(await self._keeper.show(type_, name), status=201 if is_new else 200)
        answers.note_change(request, after=answer.headers["ETag"])
        return answer

    async def _delete(self, request: web.Request, type_: str, name: str) -> web.Response:
        async with self._changing:
            await self._check(request, type_, name)
            await self._keeper.delete(type_, name, _actor(request))
        await self._keeper.durable()
        return web.Response(status=204)

    # -- files ------------------------------------------------------------------------------------------------------

    async def list_files(self, request: web.Request) -> web.Response:
        """All files, by path."""
        return await self._list(request, "file")

    async def read_file(self, request: web.Request) -> web.Response:
        """The content, to be saved rather than shown."""
        path = kinds.name_of("file", request.match_info["path"])
        tag = preconditions.tag_of(await self._keeper.show("file", path))
        content = await self._keeper.read_file(path)
        name = urllib.parse.quote(path.rpartition("/")[2], safe="")
        headers = {**_FILE_HEADERS, "Content-Disposition": f"attachment; filename*=UTF-8''{name}"}
        return web.Response(body=content, headers={**headers, "Content-Type": content_type(path), "ETag": tag})

    async def write_file(self, request: web.Request) -> web.Response:
        """Make the body its content, whatever type it says it is of."""
        path = kinds.name_of("file", request.match_info["path"])
        content = await answers.body_of(request, BODY_BYTES_MAX)
        async with self._changing:
            is_new = await self._check(request, "file", path)
            await self._keeper.write_file(path, content, _actor(request))
        await self._keeper.durable()
        return await self._saved(request, "file", path, is_new=is_new)

    async def delete_file(self, request: web.Request) -> web.Response:
        """Delete it."""
        return await self._delete(request, "file", kinds.name_of("file", request.match_info["path"]))

    # -- locks ------------------------------------------------------------------------------------------------------

    async def list_locks(self, request: web.Request) -> web.Response:
        """Who has which lock, and who waits for it."""

        async def show(lock: dict[str, Any]) -> dict[str, Any]:
            return lock

        return await paging.answer(request, self._locks.list(), lambda lock: (lock["name"],), show)

    async def show_lock(self, request: web.Request) -> web.Response:
        """One lock; one that nobody has is not found."""
        return answers.json_answer(self._locks.find(request.match_info["name"]))

    async def release_lock(self, request: web.Request) -> web.Response:
        """Free it; the next in line has it then."""
        self._locks.force_release(request.match_info["name"], _actor(request))
        await self._keeper.durable()
        return web.Response(status=204)


def _tagged(shown: dict[str, Any], status: int = 200) -> web.Response:
    """Show a record with the ETag that a change of it may send back."""
    return answers.json_answer(shown, status=status, headers={"ETag": preconditions.tag_of(shown)})


def _actor(request: web.Request) -> keeper.Actor:
    return keeper.Actor(request[routes.PRINCIPAL].name)


def _fields(type_: str, name: str, body: bytes) -> dict[str, msgspec.Raw]:
    """Return the fields of a record that a body gives; raises ``InvalidRequest``.

    Fields that the daemon keeps are passed over, so that what was read can be edited and sent back as it is."""
    given = values.members(values.checked(body.strip() or b"{}", f"the {type_}").lstrip())
    if given is None:
        raise errors.InvalidRequest(f"a {type_} is given as an object of its fields", hint='write {"field": "value"}')
    if "name" in given and values.decode(given["name"]) != name:
        raise errors.InvalidRequest(
            f"the {type_} {name!r} cannot be given another name here", hint="PUT it under its new name, DELETE the old"
        )
    return {field: value for field, value in given.items() if field not in _KEPT}


def content_type(path: str) -> str:
    """Return the media type that a file's name says, with the charset for text."""
    guessed, encoding = mimetypes.guess_type(path)
    if guessed is None or encoding is not None:
        return "application/octet-stream"
    return f"{guessed}; charset=utf-8" if guessed.startswith("text/") else guessed
