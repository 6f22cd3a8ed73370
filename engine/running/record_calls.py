"""Calls about records: ``<type>.get``, ``.save``, ``.delete``, ``.exists``, ``.clone`` and ``.list``, files, vaults.

What a flow reads is recorded, because a replay must see what the handler saw; where it holds a secret, the record shows
it masked. Types that are not stored (flows, executions, messages, locks, users) are answered from where they live.
"""

from __future__ import annotations

import base64
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, Protocol

import msgspec

from .. import errors, model, moments, ports, values
from ..records import listing
from ..state import filters, kinds
from ..workers import protocol
from . import arguments, asking, calls, flow_run, keeper, live, locking, recorder, views

#: More executions than this are not handed to a flow at once.
LISTED_MAX = 10_000
_PAGE = 200
#: How long a saved flow may take to be in the catalogue before the call goes on without it.
_PUBLISHED_S = 30.0
_SCRIPT_BYTES_MAX = 1024 * 1024
_FLOW_FIELDS = (
    *("id", "name", "description", "script", "commit", "path", "is_broken", "broken_reason"),
    *("created_at", "modified_at", "created_by", "modified_by"),
)


class Executions(Protocol):
    """What these calls need of the dispatcher."""

    async def load(self, execution: str) -> model.Execution:
        """Return an execution's state, live or ended; raises ``NotFound``."""

    async def page(self, query: listing.Query) -> listing.Page:
        """List executions, newest first."""

    async def delete_execution(self, execution: str, by: str) -> None:
        """Show an ended execution no more; raises ``NotFound`` and ``Conflict``."""


class RecordCalls:
    """Answers them."""

    def __init__(
        self,
        ledger: live.Ledger,
        records: keeper.Keeper,
        asked: asking.Asking,
        locks: locking.Locking,
        executions: Executions,
        flows: ports.Flows,
        authoring: ports.Authoring,
        vaults: ports.Vaults,
    ) -> None:
        self._ledger = ledger
        self._keeper = records
        self._asking = asked
        self._locking = locks
        self._executions = executions
        self._flows = flows
        self._authoring = authoring
        self._vaults = vaults
        self._recorder = recorder.Recorder(ledger)

    def table(self) -> Mapping[str, calls.Kind]:
        """Return who answers which kind."""
        table: dict[str, calls.Kind] = {}
        for type_ in kinds.KINDS:
            table |= {
                f"{type_}.{verb}": _bound(answer, type_)
                for verb, answer in (
                    ("get", self._get),
                    ("save", self._save),
                    ("delete", self._delete),
                    ("exists", self._exists),
                    ("clone", self._clone),
                    ("list", self._list),
                )
            }
        readers: dict[str, Callable[[str, str], Awaitable[dict[str, Any]]]] = {
            "flow": self._flow_fields,
            "execution": self._execution_fields,
            "message": self._message_fields,
            "lock": self._lock_fields,
            "user": self._user_fields,
        }
        for type_, reader in readers.items():
            table |= {f"{type_}.get": _bound(self._read, reader), f"{type_}.exists": _bound(self._is_there, reader)}
        return table | {
            "setting.append": self._append,
            "file.read": self._read_file,
            "file.write": self._write_file,
            "vault.read": self._read_vault,
            "vault.write": self._write_vault,
            "flow.save": self._save_flow,
            "flow.clone": self._clone_flow,
            "flow.delete": self._delete_flow,
            "flow.list": self._list_flows,
            "execution.list": self._list_executions,
            "execution.delete": self._delete_execution,
            "message.list": self._list_messages,
            "message.delete": self._delete_message,
            "lock.list": self._list_locks,
            "lock.delete": self._release_lock,
            "user.list": self._list_users,
            **{f"{type_}.save": self._not_by_flows for type_ in ("lock", "user", "message", "execution")},
            **{f"{type_}.clone": self._not_by_flows for type_ in ("lock", "user", "message", "execution")},
            "user.delete": self._not_by_flows,
        }

    # -- stored records ---------------------------------------------------------------------------------------------

    async def _get(self, run: flow_run.FlowRun, call: protocol.Call, type_: str) -> bytes:
        args = arguments.decoded(call, arguments.Fields)
        true = await self._keeper.fields(type_, call.target, args.by or "")
        seen = await self._keeper.show(type_, call.target, args.by or "")
        text, shown = (values.encode(_picked(type_, one, args.fields)) for one in (true, seen))
        held = await self._ledger.contents.store(text, shown=None if shown == text else shown)
        self._recorder.ended(run, call, held, args=values.encode(args.fields))
        return text

    async def _save(self, run: flow_run.FlowRun, call: protocol.Call, type_: str) -> bytes:
        args = arguments.decoded(call, arguments.Written)
        if type_ == "file" and not self._keeper.exists("file", call.target, args.by or ""):
            name = values.decode(args.fields.get("name", msgspec.Raw(values.encode(call.target))))
            await self._keeper.write_file(str(name), b"", _actor(run, call))
        record = await self._keeper.save(type_, call.target, args.fields, _actor(run, call), args.by or "")
        result = values.encode({"id": record.id, "name": record.name})
        return await self._recorder.ended_with(run, call, result, args=values.encode({"fields": [*args.fields]}))

    async def _delete(self, run: flow_run.FlowRun, call: protocol.Call, type_: str) -> bytes:
        by = arguments.decoded(call, arguments.Select).by
        await self._keeper.delete(type_, call.target, _actor(run, call), by or "")
        self._recorder.ended(run, call, args=bytes(call.args))
        return b"null"

    async def _exists(self, run: flow_run.FlowRun, call: protocol.Call, type_: str) -> bytes:
        by = arguments.decoded(call, arguments.Select).by
        return await self._said(run, call, self._keeper.exists(type_, call.target, by or ""))

    async def _clone(self, run: flow_run.FlowRun, call: protocol.Call, type_: str) -> bytes:
        args = arguments.decoded(call, arguments.Written)
        record = await self._keeper.clone(type_, call.target, args.fields, _actor(run, call), args.by or "")
        result = values.encode({"id": record.id, "name": record.name})
        return await self._recorder.ended_with(run, call, result, args=values.encode({"fields": [*args.fields]}))

    async def _list(self, run: flow_run.FlowRun, call: protocol.Call, type_: str) -> bytes:
        args = arguments.decoded(call, arguments.Chosen)

        def wanted(name: str) -> bool:
            below = args.dir is None or filters.in_directory(name, args.dir)
            return below and (args.glob is None or filters.matches_glob(name, args.glob))

        return await self._said(run, call, await self._keeper.chosen(type_, args.filter, wanted))

    async def _append(self, run: flow_run.FlowRun, call: protocol.Call) -> bytes:
        item = arguments.decoded(call, arguments.Append).item
        await self._keeper.append(call.target, item, _actor(run, call))
        self._recorder.ended(run, call)
        return b"null"

    # -- files and vaults -------------------------------------------------------------------------------------------

    async def _read_file(self, run: flow_run.FlowRun, call: protocol.Call) -> bytes:
        content = base64.b64encode(await self._keeper.read_file(call.target)).decode()
        return await self._said(run, call, {"content": content})

    async def _write_file(self, run: flow_run.FlowRun, call: protocol.Call) -> bytes:
        content = arguments.decoded(call, arguments.Content).content
        await self._keeper.write_file(call.target, content, _actor(run, call))
        self._recorder.ended(run, call, args=values.encode({"bytes": len(content)}))
        return b"null"

    async def _read_vault(self, run: flow_run.FlowRun, call: protocol.Call) -> bytes:
        path = arguments.decoded(call, arguments.Secret).path
        self._recorder.started(run, call, waits=False, args=values.encode({"path": path}))
        await self._ledger.journal.durable()
        found = await self._vaults.read(await self._keeper.access(call.target), path)
        self._keeper.learn(found)
        return await self._recorder.ended_with(run, call, values.encode(found), protect=found.keys())

    async def _write_vault(self, run: flow_run.FlowRun, call: protocol.Call) -> bytes:
        args = arguments.decoded(call, arguments.Secret)
        self._keeper.learn(args.data)
        self._recorder.started(run, call, waits=False, args=values.encode({"path": args.path, "keys": [*args.data]}))
        await self._ledger.journal.durable()
        await self._vaults.write(await self._keeper.access(call.target), args.path, args.data)
        self._recorder.ended(run, call)
        return b"null"

    # -- flows ------------------------------------------------------------------------------------------------------

    async def _flow_fields(self, select: str, by: str) -> dict[str, Any]:
        flow = self._flow(select, by)
        catalogue = self._flows.current()
        source = self._flows.snapshot(flow.commit) / flow.path if flow.runnable else None
        return {
            "id": flow.id,
            "name": flow.name,
            "description": flow.metadata.description,
            "script": source.read_text("utf-8", "replace") if source is not None else "",
            "commit": flow.commit,
            "path": flow.path,
            "is_broken": flow.broken is not None,
            "broken_reason": flow.broken.reason if flow.broken else "",
            "created_at": catalogue.published_at,
            "modified_at": catalogue.published_at,
            "created_by": "repository",
            "modified_by": "repository",
        }

    def _flow(self, select: str, by: str) -> model.Flow:
        flow = self._flows.find(select)
        if by and getattr(flow, by) != select:
            raise errors.NotFound(f"there is no flow with the {by} {select!r}")
        return flow

    async def _save_flow(self, run: flow_run.FlowRun, call: protocol.Call, said: protocol.Call | None = None) -> bytes:
        """Make or change a flow; ``said`` is the handler's own call, where this one was made of it."""
        said = said or call
        args = arguments.decoded(call, arguments.Written)
        unknown = args.fields.keys() - {"script", "name", "description"}
        if unknown:
            raise errors.InvalidRequest(
                f"{', '.join(sorted(unknown))} cannot be saved", hint="a flow's script and name can"
            )
        name = self._flow(call.target, "id").name if args.by == "id" else call.target
        new_name = recorder.text(args.fields, "name")
        exists = name in self._flows.current().flows
        given = arguments.decoded(said, arguments.Written).fields
        self._recorder.started(run, said, waits=False, args=values.encode({"fields": [*given]}))
        await self._ledger.journal.durable()
        author = _author(run)
        if exists and new_name and new_name != name:
            await self._authoring.rename_flow(name, new_name, **author)
            name = new_name
        name = name or new_name or f"new flow {moments.timestamp(self._ledger_time())}"
        if (script := _script(args.fields)) is not None or not exists:
            await self._authoring.save_flow(name, script or _TEMPLATE, **author)
        await self._authoring.published(_PUBLISHED_S)
        run.saved_flows.add(name)
        flow = self._flows.current().flows.get(name)
        result = values.encode({"id": flow.id if flow else "", "name": name})
        return await self._recorder.ended_with(run, said, result)

    async def _clone_flow(self, run: flow_run.FlowRun, call: protocol.Call) -> bytes:
        args = arguments.decoded(call, arguments.Written)
        source = await self._flow_fields(call.target, args.by or "")
        name = recorder.text(args.fields, "name") or f"{source['name']} copy"
        if name in self._flows.current().flows:
            raise errors.Conflict(f"there is a flow {name!r} already")
        fields = {"script": msgspec.Raw(values.encode(source["script"])), **args.fields}
        fields["name"] = msgspec.Raw(values.encode(name))
        copied = msgspec.structs.replace(call, target=name, args=msgspec.Raw(values.encode({"fields": fields})))
        return await self._save_flow(run, copied, call)

    async def _delete_flow(self, run: flow_run.FlowRun, call: protocol.Call) -> bytes:
        flow = self._flow(call.target, arguments.decoded(call, arguments.Select).by or "")
        self._recorder.started(run, call, waits=False)
        await self._ledger.journal.durable()
        await self._authoring.delete_flow(flow.name, **_author(run))
        await self._authoring.published(_PUBLISHED_S)
        self._recorder.ended(run, call)
        return b"null"

    async def _list_flows(self, run: flow_run.FlowRun, call: protocol.Call) -> bytes:
        chosen = _filter(call)
        flows = sorted(self._flows.current().flows.items())
        found = [
            {"id": flow.id, "name": name}
            for name, flow in flows
            if chosen is None or chosen.matches(await self._flow_fields(name, "name"))
        ]
        return await self._said(run, call, found)

    def _ledger_time(self) -> float:
        return self._keeper.time()

    # -- executions -------------------------------------------------------------------------------------------------

    async def _execution_fields(self, select: str, by: str) -> dict[str, Any]:
        execution = select
        if by == "name":
            page = await self._executions.page(listing.Query(q=select, limit=_PAGE))
            named = [item.id for item in page.items if item.name == select]
            if not named:
                raise errors.NotFound(f"there is no execution called {select!r}")
            execution = named[0]
        state = await self._executions.load(execution)
        return await views.for_flow(self._ledger, state, views.FIELDS, for_people=True)

    async def _list_executions(self, run: flow_run.FlowRun, call: protocol.Call) -> bytes:
        chosen = _filter(call)
        known = chosen.required_equals if chosen is not None else {}

        def asked(field: str) -> str:
            return known[field] if isinstance(known.get(field), str) else ""

        query = listing.Query(
            flow=asked("flow_name"),
            status=(asked("status"),) if asked("status") else (),
            type=asked("type"),
            parent=asked("parent_execution_id") or None,
            limit=_PAGE,
        )
        deep = chosen is not None and any(not hasattr(listing.Summary, f.partition(".")[0]) for f in chosen.fields)
        found: list[dict[str, Any]] = []
        while True:
            page = await self._executions.page(query)
            found += [
                {"id": item.id, "name": item.name}
                for item in page.items
                if chosen is None or chosen.matches(await self._for_filter(item, deep=deep))
            ]
            if len(found) > LISTED_MAX:
                raise errors.TooLarge(f"more than {LISTED_MAX:,} executions match", hint="ask for fewer with a filter")
            if not page.cursor:
                return await self._said(run, call, found)
            query = msgspec.structs.replace(query, cursor=page.cursor)

    async def _for_filter(self, item: listing.Summary, *, deep: bool) -> dict[str, Any]:
        """The fields a filter may look at; inputs and outputs are only opened if it does."""
        if deep:
            state = await self._executions.load(item.id)
            return _opened(await views.for_flow(self._ledger, state, views.FIELDS, for_people=True))
        shown = views.summary(item)
        return shown | {"status_message": shown["message"], "is_paused": shown["status"] == "PAUSED"}

    async def _delete_execution(self, run: flow_run.FlowRun, call: protocol.Call) -> bytes:
        await self._executions.delete_execution(call.target, run.state.id)
        self._recorder.ended(run, call, args=b"{}")
        return b"null"

    # -- messages, locks, users -------------------------------------------------------------------------------------

    async def _message_fields(self, select: str, by: str) -> dict[str, Any]:
        if by == "name":
            named = [message for message in self._asking.all() if message.subject == select]
            if not named:
                raise errors.NotFound(f"there is no message about {select!r}")
            return await self._asking.for_flow(named[0])
        return await self._asking.for_flow(self._asking.find(select))

    async def _list_messages(self, run: flow_run.FlowRun, call: protocol.Call) -> bytes:
        chosen = _filter(call)
        found = [
            {"id": message.id, "name": message.subject}
            for message in self._asking.all()
            if chosen is None or chosen.matches(_opened(await self._asking.for_people(message)))
        ]
        return await self._said(run, call, found)

    async def _delete_message(self, run: flow_run.FlowRun, call: protocol.Call) -> bytes:
        self._asking.delete(call.target, run.state.id)
        self._recorder.ended(run, call, args=b"{}")
        return b"null"

    async def _lock_fields(self, select: str, by: str) -> dict[str, Any]:
        return self._locking.find(select)

    async def _list_locks(self, run: flow_run.FlowRun, call: protocol.Call) -> bytes:
        chosen = _filter(call)
        held = [lock for lock in self._locking.list() if chosen is None or chosen.matches(lock)]
        return await self._said(run, call, [{"id": lock["id"], "name": lock["name"]} for lock in held])

    async def _release_lock(self, run: flow_run.FlowRun, call: protocol.Call) -> bytes:
        self._locking.find(call.target)
        self._locking.release(call.target, run.state.id, call.call)
        self._recorder.ended(run, call, args=b"{}")
        return b"null"

    async def _user_fields(self, select: str, by: str) -> dict[str, Any]:
        for user in self._users():
            if select in (user["id"], user["name"]):
                return user
        raise errors.NotFound(f"there is no user {select!r}")

    async def _list_users(self, run: flow_run.FlowRun, call: protocol.Call) -> bytes:
        chosen = _filter(call)
        users = [user for user in self._users() if chosen is None or chosen.matches(user)]
        return await self._said(run, call, [{"id": user["id"], "name": user["name"]} for user in users])

    def _users(self) -> Sequence[dict[str, Any]]:
        """There is one: whoever has the daemon's token."""
        return ({"id": "admin", "name": "admin", "description": "whoever has the daemon's token"},)

    async def _not_by_flows(self, run: flow_run.FlowRun, call: protocol.Call) -> bytes:
        raise errors.NotAllowed(f"flows cannot do this: {call.kind}")

    # -- in common --------------------------------------------------------------------------------------------------

    async def _read(
        self,
        run: flow_run.FlowRun,
        call: protocol.Call,
        reader: Callable[[str, str], Awaitable[dict[str, Any]]],
    ) -> bytes:
        args = arguments.decoded(call, arguments.Fields)
        found = await reader(call.target, args.by or "")
        text = values.encode(_picked(call.kind.partition(".")[0], found, args.fields))
        secret = call.kind == "message.get" and isinstance(self._asking.find(found["id"]).response, model.Sealed)
        shown = None
        if secret:
            people = await self._asking.for_people(self._asking.find(found["id"]))
            shown = values.encode(_picked("message", people, args.fields))
        held = await self._ledger.contents.store(text, shown=shown)
        self._recorder.ended(run, call, held, args=values.encode(args.fields))
        return text

    async def _is_there(
        self,
        run: flow_run.FlowRun,
        call: protocol.Call,
        reader: Callable[[str, str], Awaitable[dict[str, Any]]],
    ) -> bytes:
        try:
            await reader(call.target, arguments.decoded(call, arguments.Select).by or "")
        except errors.NotFound:
            return await self._said(run, call, False)
        return await self._said(run, call, True)

    async def _said(self, run: flow_run.FlowRun, call: protocol.Call, result: Any) -> bytes:
        """Record and return what a question came to."""
        return await self._recorder.ended_with(run, call, values.encode(result), args=bytes(call.args))


_TEMPLATE = """def handler(system, this):
    # TODO: write your automation
    return this.success('all done')
"""


def _bound(answer: Callable[..., Awaitable[bytes]], what: Any) -> calls.Kind:
    async def bound(run: flow_run.FlowRun, call: protocol.Call) -> bytes:
        return await answer(run, call, what)

    return bound


def _actor(run: flow_run.FlowRun, call: protocol.Call) -> keeper.Actor:
    return keeper.Actor(run.state.created_by or run.state.flow_name, run.state.id, call.call)


def _picked(type_: str, found: Mapping[str, Any], fields: tuple[str, ...]) -> dict[str, Any]:
    unknown = [field for field in fields if _alias(field) not in found]
    if unknown:
        raise errors.InvalidRequest(
            f"a {type_} has no field {', '.join(map(repr, unknown))}", hint=f"there are {', '.join(found)}"
        )
    return {field: found[_alias(field)] for field in fields}


def _alias(field: str) -> str:
    return "connection_type" if field == "connector_type" else field


def _opened(shown: Mapping[str, Any]) -> dict[str, Any]:
    opened = values.decode(values.encode(shown))
    assert isinstance(opened, dict)
    return opened


def _author(run: flow_run.FlowRun) -> dict[str, str]:
    """Return who changes a flow: the execution, and with it the person who wanted that, if one did."""
    state = run.state
    person = "" if state.created_by.startswith(("schedule ", "flow ", "webhook")) else state.created_by
    return {"author": f"{state.name} ({state.id})", "on_behalf_of": person}


def _filter(call: protocol.Call) -> filters.Filter | None:
    said = arguments.decoded(call, arguments.Chosen).filter
    return None if said is None else filters.parse(said)


def _script(fields: Mapping[str, msgspec.Raw]) -> str | None:
    if "script" not in fields:
        return None
    script = values.decode(fields["script"])
    if not isinstance(script, str) or len(script.encode("utf-8", "replace")) > _SCRIPT_BYTES_MAX:
        raise errors.InvalidRequest(f"a script is a text of at most {_SCRIPT_BYTES_MAX:,} bytes")
    return script
