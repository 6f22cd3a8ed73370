"""The HTTP API of what flows keep and share: settings, connections, vault configurations, webhooks, schedules, files
and locks.

Each handler parses, calls the keeper and renders; what a record may hold, what of it people see and when it counts are
the keeper's business. A name is one percent-encoded segment; the path of a file may have its slashes as they are.
Called by ``app`` for the route table.
"""

from __future__ import annotations

import mimetypes
import urllib.parse

import msgspec
from aiohttp import web

from ..engine import errors, values
from ..engine.running import keeper, locking
from ..engine.state import kinds
from . import answers, routes

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

    def table(self) -> list[routes.Route]:
        """Return the routes."""
        found: list[routes.Route] = []
        for plural, type_ in TYPES.items():
            found += self._rows(f"/api/v1/{plural}", type_)
        route, file, lock = routes.Route, "/api/v1/files/{path:.+}", "/api/v1/locks/{name}"
        return [
            *found,
            route("GET", "/api/v1/files", "read", self.list_files, "all files, without their content"),
            route("GET", file, "read", self.read_file, "the content of a file"),
            route("PUT", file, "edit", self.write_file, "make the body the content of a file"),
            route("DELETE", file, "edit", self.delete_file, "delete a file"),
            route("GET", "/api/v1/locks", "read", self.list_locks, "the locks that are taken, and who waits for them"),
            route("GET", lock, "read", self.show_lock, "one lock that is taken"),
            route("DELETE", lock, "run", self.release_lock, "take a lock from whoever has it"),
        ]

    def _rows(self, path: str, type_: str) -> list[routes.Route]:
        """The routes of one type of record."""

        async def listing(request: web.Request) -> web.Response:
            return answers.json_answer({"items": await self._keeper.listing(type_)})

        async def show(request: web.Request) -> web.Response:
            return answers.json_answer(await self._keeper.show(type_, request.match_info["name"]))

        async def save(request: web.Request) -> web.Response:
            name = request.match_info["name"]
            fields = _fields(type_, name, await answers.body_of(request, BODY_BYTES_MAX))
            is_new = not self._keeper.exists(type_, name)
            await self._keeper.save(type_, name, fields, _actor(request))
            await self._keeper.durable()
            return answers.json_answer(await self._keeper.show(type_, name), status=201 if is_new else 200)

        async def delete(request: web.Request) -> web.Response:
            await self._keeper.delete(type_, request.match_info["name"], _actor(request))
            await self._keeper.durable()
            return web.Response(status=204)

        what = type_.replace("_", " ")
        return [
            routes.Route("GET", path, "read", listing, f"all {what}s"),
            routes.Route("GET", path + "/{name}", "read", show, f"one {what}"),
            routes.Route("PUT", path + "/{name}", "edit", save, f"make a {what} or change fields of it"),
            routes.Route("DELETE", path + "/{name}", "edit", delete, f"delete a {what}"),
        ]

    # -- files ------------------------------------------------------------------------------------------------------

    async def list_files(self, request: web.Request) -> web.Response:
        """All files, by path."""
        return answers.json_answer({"items": await self._keeper.listing("file")})

    async def read_file(self, request: web.Request) -> web.Response:
        """The content, to be saved rather than shown."""
        path = request.match_info["path"]
        content = await self._keeper.read_file(path)
        name = urllib.parse.quote(path.rpartition("/")[2], safe="")
        headers = {**_FILE_HEADERS, "Content-Disposition": f"attachment; filename*=UTF-8''{name}"}
        return web.Response(body=content, headers={**headers, "Content-Type": content_type(path)})

    async def write_file(self, request: web.Request) -> web.Response:
        """Make the body its content, whatever type it says it is of."""
        path = request.match_info["path"]
        content = await answers.body_of(request, BODY_BYTES_MAX)
        is_new = not self._keeper.exists("file", path)
        await self._keeper.write_file(path, content, _actor(request))
        await self._keeper.durable()
        return answers.json_answer(await self._keeper.show("file", path), status=201 if is_new else 200)

    async def delete_file(self, request: web.Request) -> web.Response:
        """Delete it."""
        await self._keeper.delete("file", request.match_info["path"], _actor(request))
        await self._keeper.durable()
        return web.Response(status=204)

    # -- locks ------------------------------------------------------------------------------------------------------

    async def list_locks(self, request: web.Request) -> web.Response:
        """Who has which lock, and who waits for it."""
        return answers.json_answer({"items": self._locks.list()})

    async def show_lock(self, request: web.Request) -> web.Response:
        """One lock; one that nobody has is not found."""
        return answers.json_answer(self._locks.find(request.match_info["name"]))

    async def release_lock(self, request: web.Request) -> web.Response:
        """Free it; the next in line has it then."""
        self._locks.force_release(request.match_info["name"], _actor(request))
        await self._keeper.durable()
        return web.Response(status=204)


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
