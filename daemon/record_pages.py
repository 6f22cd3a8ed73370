"""The pages of what flows keep and share: settings and files to be changed, the others to be looked at.

    GET  /settings                       all of them; GET /settings/{name} one, with its value as YAML
    POST /settings/{name} · …/delete     change it, delete it; ``name`` of the form makes a new one
    POST /edit/yaml                      what is wrong with a text, for the editor's margin (JSON)
    GET  /files · POST /files            all of them, with a place to drop more (scripts send them through the API)
    POST /files/delete                   delete one
    GET  /connections · /vault_configs
    GET  /schedules                      those of flows and of records, and when each is due next
    GET  /webhooks                       likewise, with their addresses
    GET  /locks · POST /locks/release    who has what, who waits; take a lock from whoever has it

What a record may hold is the keeper's business; secrets come masked from it.
"""

from __future__ import annotations

from typing import Any

import msgspec
import yaml
from aiohttp import web

from ..engine import errors, ports, values
from ..engine.running import keeper, locking, schedules
from ..engine.state import kinds
from . import answers, preconditions, routes, templates, wording

#: Pages that list one type of record: address → type, title, what such a record is.
_LISTED = {
    "connections": ("connection", "Connections", "How flows reach other systems without knowing their passwords."),
    "vault_configs": ("vault_config", "Vaults", "Where secrets are read from."),
}


class RecordPages:
    """The handlers; who keeps the records and gives the locks; what flows say of themselves; who knows the time."""

    def __init__(
        self, records: keeper.Keeper, locks: locking.Locking, flows: ports.Flows, timetable: schedules.Schedules
    ) -> None:
        self._keeper = records
        self._locks = locks
        self._flows = flows
        self._timetable = timetable

    def table(self) -> list[routes.Route]:
        """Return the routes."""

        def row(method: str, path: str, handler: routes.Handler, summary: str, scope: str = "edit") -> routes.Route:
            return routes.Route(method, path, "read" if method == "GET" else scope, handler, summary, page=True)

        return [
            row("GET", "/settings", self.list_settings, "the page of settings"),
            row("POST", "/settings", self.save_setting, "make a setting from its page"),
            row("GET", "/settings/{name}", self.show_setting, "the page of one setting"),
            row("POST", "/settings/{name}", self.save_setting, "change a setting from its page"),
            row("POST", "/settings/{name}/delete", self.delete_setting, "delete a setting from its page"),
            routes.Route(
                "POST", "/edit/yaml", "read", self.check_yaml, "what is wrong with a YAML text", audited=False
            ),
            row("GET", "/files", self.list_files, "the page of files"),
            row("POST", "/files", self.upload_files, "upload files from their page"),
            row("POST", "/files/delete", self.delete_file, "delete a file from its page"),
            row("GET", "/schedules", self.list_schedules, "the page of schedules"),
            row("GET", "/webhooks", self.list_webhooks, "the page of webhooks"),
            row("GET", "/locks", self.list_locks, "the page of locks"),
            row("POST", "/locks/release", self.release_lock, "free a lock from its page", "run"),
            *(row("GET", f"/{plural}", self.list_records, f"the page of {plural}") for plural in _LISTED),
        ]

    # -- settings ---------------------------------------------------------------------------------------------------

    async def list_settings(self, request: web.Request) -> web.Response:
        """All settings, with the beginning of their values."""
        sought = request.query.get("q", "").strip()
        found = [one for one in await self._all("setting") if sought.lower() in one["name"].lower()]
        shown = [(one, values.shortened(_yaml(one.get("value")).strip(), 120)) for one in found]
        return templates.page(request, "settings.html", live="/live", settings=shown, q=sought)

    async def show_setting(self, request: web.Request) -> web.Response:
        """One setting and its editor."""
        shown = await self._keeper.show("setting", request.match_info["name"])
        return self._setting_page(request, shown, _yaml(shown.get("value")))

    async def save_setting(self, request: web.Request) -> web.Response:
        """Make the text of the form its value; what is no YAML comes back to be mended."""
        form = await answers.form_of(request)
        name = request.match_info.get("name") or form.get("name", "").strip()
        text = form.get("value", "")
        try:
            value = _value(text)
            await self._note(request, "setting", name)
            await self._keeper.save("setting", name, {"value": value}, _actor(request))
        except NoYaml as problem:
            refused = errors.InvalidRequest(f"line {problem.line}: {problem.message}")
            return self._setting_page(request, await self._shown(name), text, refused, problem.line)
        except errors.InvalidRequest as error:
            return self._setting_page(request, await self._shown(name), text, error)
        await self._keeper.durable()
        answers.note_change(request, after=preconditions.tag_of(await self._keeper.show("setting", name)))
        return templates.redirect(f"/settings/{wording.segment(name)}")

    async def check_yaml(self, request: web.Request) -> web.Response:
        """What is wrong with a text, and in which line, for the margin of the editor."""
        problems: list[dict[str, Any]] = []
        try:
            _value((await answers.body_of(request, values.VALUE_BYTES_MAX)).decode("utf-8", "replace"))
        except NoYaml as problem:
            problems = [{"line": problem.line, "message": problem.message, "severity": "error"}]
        except errors.InvalidRequest as error:
            problems = [{"line": 1, "message": error.message, "severity": "error"}]
        return answers.json_answer({"problems": problems})

    async def delete_setting(self, request: web.Request) -> web.Response:
        """Delete it."""
        await self._note(request, "setting", request.match_info["name"])
        await self._keeper.delete("setting", request.match_info["name"], _actor(request))
        await self._keeper.durable()
        return templates.redirect("/settings")

    async def _note(self, request: web.Request, type_: str, name: str) -> None:
        """Have the audit log say what there is before it is changed."""
        if name and self._keeper.exists(type_, name):
            answers.note_change(request, before=preconditions.tag_of(await self._keeper.show(type_, name)))

    async def _all(self, type_: str) -> list[dict[str, Any]]:
        """Return the records of a type by name, as people see them."""
        return [await self._keeper.for_people(record) for record in self._keeper.all(type_)]

    async def _shown(self, name: str) -> dict[str, Any]:
        if name and self._keeper.exists("setting", name):
            return await self._keeper.show("setting", name)
        return {"name": name, "is_declared": False}

    def _setting_page(
        self,
        request: web.Request,
        setting: dict[str, Any],
        text: str,
        error: errors.HeadraceError | None = None,
        line: int = 0,
    ) -> web.Response:
        status = 200 if error is None else error.http_status
        shown: dict[str, Any] = {"setting": setting, "text": text, "error": error, "line": line}
        return templates.page(request, "setting.html", status=status, **shown)

    # -- the others -------------------------------------------------------------------------------------------------

    async def list_records(self, request: web.Request) -> web.Response:
        """All records of one type."""
        plural = request.path.strip("/")
        type_, title, lead = _LISTED[plural]
        records = [(one, _fields(one), connection_type(one)) for one in await self._all(type_)]
        return templates.page(
            request, "records.html", live="/live", title=title, lead=lead, plural=plural, records=records
        )

    async def list_schedules(self, request: web.Request) -> web.Response:
        """All schedules, of flows and of records, with their next ticks."""
        found = await self._timetable.timetable()
        return templates.page(request, "schedules.html", live="/live", schedules=found)

    async def list_webhooks(self, request: web.Request) -> web.Response:
        """Those that records publish, which decide about their names, and those of flows."""
        records = [(one, _fields(one)) for one in await self._all("webhook")]
        taken = {one["name"] for one, _ in records}
        flows = self._flows.current().flows
        hooks = {name: flow.metadata.webhook for name, flow in sorted(flows.items()) if flow.metadata.webhook}
        of_flows = [(name, hook) for name, hook in hooks.items() if hook.name not in taken]
        return templates.page(request, "webhooks.html", live="/live", records=records, of_flows=of_flows)

    async def list_files(self, request: web.Request) -> web.Response:
        """All files."""
        sought = request.query.get("q", "").strip()
        files = [one for one in await self._all("file") if sought.lower() in one["name"].lower()]
        sizes = [(one, values.decode(one["size"]) if "size" in one else 0) for one in files]
        return templates.page(request, "files.html", files=sizes, q=sought)

    async def upload_files(self, request: web.Request) -> web.Response:
        """Keep those of the form; none of them if one has a name that is not taken."""
        uploaded = await answers.files_of(request)
        if not uploaded:
            raise errors.InvalidRequest("no file was chosen", hint="go back and choose one")
        folder = (await answers.form_of(request)).get("folder", "").strip().strip("/")
        names = [(part.filename or "").rpartition("/")[2] for part in uploaded]
        paths = [kinds.name_of("file", f"{folder}/{name}" if folder else name) for name in names]
        for path, part in zip(paths, uploaded, strict=True):
            await self._note(request, "file", path)
            await self._keeper.write_file(path, part.content, _actor(request))
        await self._keeper.durable()
        answers.note_change(request, after=preconditions.tag_of(await self._keeper.show("file", paths[-1])))
        return templates.redirect("/files")

    async def delete_file(self, request: web.Request) -> web.Response:
        """Delete one."""
        name = (await answers.form_of(request)).get("name", "")
        await self._note(request, "file", name)
        await self._keeper.delete("file", name, _actor(request))
        await self._keeper.durable()
        return templates.redirect("/files")

    async def list_locks(self, request: web.Request) -> web.Response:
        """Who has which lock, and who waits for it."""
        return templates.page(request, "locks.html", live="/live", locks=self._locks.list())

    async def release_lock(self, request: web.Request) -> web.Response:
        """Free one; the next in line has it then."""
        name = (await answers.form_of(request)).get("name", "")
        self._locks.force_release(name, _actor(request))
        await self._keeper.durable()
        return templates.redirect("/locks")


def _actor(request: web.Request) -> keeper.Actor:
    return keeper.Actor(request[routes.PRINCIPAL].name)


class NoYaml(Exception):
    """A text that is no YAML, or means something that is not kept: in which line, and what is wrong."""

    def __init__(self, line: int, message: str) -> None:
        super().__init__(message)
        self.line = line
        self.message = message


def _line(mark: Any) -> int:
    """Return the number of the line that a mark of the parser is in; the first if it has none."""
    return 1 if mark is None else int(mark.line) + 1


def _value(text: str) -> msgspec.Raw:
    """Return what a YAML text means as JSON; raises ``NoYaml``, and ``InvalidRequest`` for what is too large.

    An alias is refused: a few of them, nested, are more than any memory holds."""
    try:
        for event in yaml.parse(text, yaml.SafeLoader):
            if isinstance(event, yaml.AliasEvent):
                raise NoYaml(_line(event.start_mark), "aliases (*name) are not taken here")
        meant = yaml.safe_load(text)
        return msgspec.Raw(values.checked(msgspec.json.encode(meant), "the setting"))
    except yaml.MarkedYAMLError as error:
        line = _line(error.problem_mark or error.context_mark)
        raise NoYaml(line, wording.plain(str(error.problem or error.context))[:300]) from None
    except yaml.reader.ReaderError as error:
        line = text.count("\n", 0, int(error.position)) + 1
        raise NoYaml(line, f"the character {chr(error.character)!r} may not stand here") from None
    except (yaml.YAMLError, TypeError, ValueError, RecursionError) as error:
        raise NoYaml(1, f"this cannot be kept as JSON: {str(error)[:300]}") from None


def _yaml(value: Any) -> str:
    """Return a value as YAML, for people to edit."""
    plain = values.decode(value) if isinstance(value, msgspec.Raw) else value
    return str(yaml.safe_dump(plain, allow_unicode=True, sort_keys=False)).removesuffix("...\n")


def connection_type(record: dict[str, Any]) -> str:
    """Return the task type that a connection is for, empty for other records and for those that say none."""
    raw = record.get("connection_type")
    said = values.decode(raw) if isinstance(raw, msgspec.Raw) else raw
    return said.upper() if isinstance(said, str) else ""


def _fields(record: dict[str, Any]) -> str:
    """Return the fields that make a record what it is, as YAML."""
    told = {"id", "name", "created_at", "modified_at", "created_by", "modified_by", "description", "is_declared"}
    own = {key: value for key, value in record.items() if key not in told and value not in (None, "")}
    plain = {key: values.decode(value) if isinstance(value, msgspec.Raw) else value for key, value in own.items()}
    return values.shortened(_yaml(plain).strip(), 4000) if plain else ""
