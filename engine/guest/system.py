"""Everything beyond the running execution: ``system``, the way to records of every type."""
# ruff: noqa: A002 - the contract calls these parameters filter and dir

from __future__ import annotations

from typing import Any, ClassVar, TypeVar

from . import channel as channels
from . import children, exceptions, executions, files, messages, records

_Record = TypeVar("_Record", bound=records.Record)


class System:
    """Everything beyond the running execution.

    ``system.setting('limit')`` is one record, ``system.settings()`` all of them; the same for every type. The record is
    found by its name, executions and messages by their id; ``by='id'`` or ``by='name'`` says otherwise. Without fields
    the call only makes a handle: whether the record exists shows when it is read. With fields it is written at once,
    and made if it is not there; without a name or id a new one is made. Fields in ``init`` count only if it is not
    there yet.

    A list is what there was at that moment. ``filter`` picks: ``{'field': 'name', 'op': 'like', 'value': 'shop/%'}``
    with ``eq``, ``ne``, ``gt``, ``ge``, ``lt``, ``le``, ``like`` or ``in``, nested as ``{'and': […]}``, ``{'or': […]}``
    and ``{'not': …}``. ``filter_`` is the same.
    """

    __slots__ = ("_about", "_channel", "_this")

    #: The ways to wait for executions: ``wait=system.return_when.ALL_ENDED``.
    return_when: ClassVar[type[children.ReturnWhen]] = children.ReturnWhen

    def __init__(
        self, channel: channels.Channel, this: executions.Execution, about: dict[str, str] | None = None
    ) -> None:
        self._channel = channel
        self._this = this
        self._about = about or {}  # user, workspace, environment

    def get(self, *fields: str) -> Any:
        """Read the running execution's fields, as ``this.get``.

        Example:
            this.log(system.get('input_value'))
        """
        return self._this.get(*fields)

    def get_own_user(self) -> records.User:
        """Return who started this execution.

        Example:
            this.log(f"started by {system.get_own_user().get('name')}")
        """
        return self._own(records.User, "user")

    def get_own_client(self) -> records.Workspace:
        """Return the workspace this runs in; also called ``get_own_workspace``.

        Example:
            this.log(system.get_own_client().get('name'))
        """
        return self._own(records.Workspace, "workspace")

    get_own_workspace = get_own_client

    def get_env_name(self) -> str:
        """Return the name of the environment this runs in.

        Example:
            if system.get_env_name() == 'production':
                this.log('careful')
        """
        return self._about.get("environment", "")

    def flow(
        self,
        select: str | None = None,
        init: dict[str, Any] | None = None,
        by: str | None = None,
        **fields: Any,
    ) -> records.Flow:
        """Return one flow; with fields, write it: ``script``, ``name``, ``description``.

        A flow without a name is called ``new flow`` and the time.

        Example:
            this.log(system.flow('hello').get('id', 'commit'))
        """
        return self._one(records.Flow, select, init, by, fields)

    def flows(
        self,
        filter: dict[str, Any] | None = None,
        filter_: dict[str, Any] | None = None,
    ) -> list[records.Flow]:
        """Return all flows, in order of name.

        Example:
            this.log([flow.get('name') for flow in system.flows()])
        """
        return self._all(records.Flow, filter, filter_)

    def setting(
        self,
        select: str | None = None,
        init: dict[str, Any] | None = None,
        by: str | None = None,
        **fields: Any,
    ) -> records.Setting:
        """Return one setting; with fields, write it: ``value``, ``description``.

        Example:
            system.setting('limit', value=10)
            system.setting('counters', init={'value': {}})
            this.log(system.setting('limit').get('value'))
        """
        return self._one(records.Setting, select, init, by, fields)

    def settings(
        self,
        filter: dict[str, Any] | None = None,
        filter_: dict[str, Any] | None = None,
    ) -> list[records.Setting]:
        """Return all settings, in order of name.

        Example:
            for setting in system.settings({'field': 'name', 'op': 'like', 'value': 'shop%'}):
                this.log(setting.get('name', 'value'))
        """
        return self._all(records.Setting, filter, filter_)

    def file(
        self,
        select: str | None = None,
        init: dict[str, Any] | None = None,
        by: str | None = None,
        *,
        path: str | None = None,
        **fields: Any,
    ) -> files.File:
        """Return one file; with ``content`` or ``text``, write it. ``path`` is its name; alone it writes nothing.

        Example:
            system.file('notes/today.txt', content='one line')
            this.log(system.file(path='notes/today.txt').get_text_content())
        """
        name = path if path is not None else fields.get("name")
        if select is None and name is not None:
            select, by = name, "name"
            fields.pop("name", None)
        elif path is not None:
            fields["name"] = path
        return self._one(files.File, select, init, by, fields)

    def files(
        self,
        filter: dict[str, Any] | None = None,
        filter_: dict[str, Any] | None = None,
        *,
        dir: str | None = None,
        glob: str | None = None,
    ) -> list[files.File]:
        """Return all files, in order of name: those below ``dir``, those that match ``glob``.

        Example:
            for file in system.files(dir='notes', glob='*.txt'):
                this.log(file.get('name', 'size'))
        """
        places = {"dir": dir, "glob": glob}
        return self._all(files.File, filter, filter_, **{name: at for name, at in places.items() if at is not None})

    def execution(
        self,
        select: str | None = None,
        init: dict[str, Any] | None = None,
        by: str | None = None,
        **fields: Any,
    ) -> executions.Execution:
        """Return the execution with that id (``by='name'``: the newest of that name), the running one if none is given.

        Example:
            child = this.flow('hello', wait=False)
            system.execution(child.id).wait()
        """
        found = self._this
        if select is not None:
            execution = select
            if _checked(by) == "name":
                execution = self._channel.call("execution.get", select, by="name", fields=["id"])["id"]
            found = executions.Execution(self._channel, {"id": execution})
        return found.save(**{**(init or {}), **fields}) if init or fields else found

    def executions(
        self,
        filter: dict[str, Any] | None = None,
        filter_: dict[str, Any] | None = None,
    ) -> list[executions.Execution]:
        """Return executions, the newest first.

        Example:
            failed = system.executions({'field': 'status', 'op': 'eq', 'value': 'ENDED_ERROR'})
            this.log([execution.get('name', 'message') for execution in failed[:10]])
        """
        return [executions.Execution(self._channel, found) for found in self._list("execution", filter, filter_)]

    def message(
        self,
        select: str | None = None,
        init: dict[str, Any] | None = None,
        by: str | None = None,
        *,
        subject: str | None = None,
        message: str | None = None,
        request: str | None = None,
        body: dict[str, Any] | None = None,
        message_type: str = "INFO",
        **fields: Any,
    ) -> messages.Message:
        """Return the message with that id; without one, ask a person, as ``this.message``, and go on.

        Example:
            form = {
                'type': 'object',
                'properties': {
                    'version': {'element': 'string', 'type': 'string', 'label': 'Version', 'order': 1},
                    'go': {'element': 'submit', 'type': 'boolean', 'label': 'Deploy', 'order': 2},
                },
                'required': ['version'],
            }
            question = system.message(subject='Deploy', message_type='POPUP', body=form)
            this.log(question.get('response'))      # None: question.wait() would wait for it
        """
        if select is not None:
            return self._one(messages.Message, select, init, by, fields)
        shown = {"message": message, "request": request, "body": body}
        subject = subject if subject is not None else fields.pop("name", "")
        return messages.create(self._channel, subject, message_type, shown, wait=False, timeout=None)

    def messages(
        self,
        filter: dict[str, Any] | None = None,
        filter_: dict[str, Any] | None = None,
    ) -> list[messages.Message]:
        """Return messages, the newest first.

        Example:
            this.log([message.get('subject') for message in system.messages()])
        """
        return self._all(messages.Message, filter, filter_)

    def connection(
        self,
        select: str | None = None,
        init: dict[str, Any] | None = None,
        by: str | None = None,
        **fields: Any,
    ) -> records.Connection:
        """Return one connection; with fields, write it: ``connection_type``, ``value``, ``vault_secrets``.

        Also called ``connector``.

        Example:
            system.connection('shop', connection_type='REST', value={'url': 'https://shop.example/api'})
        """
        return self._one(records.Connection, select, init, by, fields)

    def connections(
        self,
        filter: dict[str, Any] | None = None,
        filter_: dict[str, Any] | None = None,
    ) -> list[records.Connection]:
        """Return all connections, in order of name; also called ``connectors``.

        Example:
            this.log([connection.get('name', 'connection_type') for connection in system.connections()])
        """
        return self._all(records.Connection, filter, filter_)

    connector = connection
    connectors = connections

    def webhook(
        self,
        select: str | None = None,
        init: dict[str, Any] | None = None,
        by: str | None = None,
        **fields: Any,
    ) -> records.Webhook:
        """Return one webhook; with fields, write it: ``flow_name``, ``auth``, ``secret``, ``methods``, ``is_enabled``.

        Example:
            system.webhook('greet', flow_name='hello', auth='key', secret='a long random text')
        """
        return self._one(records.Webhook, select, init, by, fields)

    def webhooks(
        self,
        filter: dict[str, Any] | None = None,
        filter_: dict[str, Any] | None = None,
    ) -> list[records.Webhook]:
        """Return all webhooks, in order of name."""
        return self._all(records.Webhook, filter, filter_)

    def schedule(
        self,
        select: str | None = None,
        init: dict[str, Any] | None = None,
        by: str | None = None,
        **fields: Any,
    ) -> records.Schedule:
        """Return one schedule; with fields, write it: ``flow_name``, ``cron``, ``timezone``, ``input_value``, ….

        Example:
            system.schedule('every night', flow_name='hello', cron='30 2 * * *', timezone='Europe/Vienna')
        """
        return self._one(records.Schedule, select, init, by, fields)

    def schedules(
        self,
        filter: dict[str, Any] | None = None,
        filter_: dict[str, Any] | None = None,
    ) -> list[records.Schedule]:
        """Return all schedules, in order of name."""
        return self._all(records.Schedule, filter, filter_)

    def vault_config(
        self,
        select: str | None = None,
        init: dict[str, Any] | None = None,
        by: str | None = None,
        **fields: Any,
    ) -> records.VaultConfig:
        """Return one vault configuration; with fields, write it: ``url``, ``token``, ``engine_path``, ….

        Example:
            system.vault_config('my vault', url='https://vault.example:8200', token='s.123', is_enabled=False)
        """
        return self._one(records.VaultConfig, select, init, by, fields)

    def vault_configs(
        self,
        filter: dict[str, Any] | None = None,
        filter_: dict[str, Any] | None = None,
    ) -> list[records.VaultConfig]:
        """Return all vault configurations, in order of name."""
        return self._all(records.VaultConfig, filter, filter_)

    def lock(
        self,
        select: str | None = None,
        init: dict[str, Any] | None = None,
        by: str | None = None,
        **fields: Any,
    ) -> records.Lock:
        """Return one lock, held or not.

        Example:
            with this.lock('the printer'):
                this.log(system.lock('the printer').exists())
        """
        return self._one(records.Lock, select, init, by, fields)

    def locks(
        self,
        filter: dict[str, Any] | None = None,
        filter_: dict[str, Any] | None = None,
    ) -> list[records.Lock]:
        """Return the locks that are held, in order of name."""
        return self._all(records.Lock, filter, filter_)

    def user(
        self,
        select: str | None = None,
        init: dict[str, Any] | None = None,
        by: str | None = None,
        **fields: Any,
    ) -> records.User:
        """Return one user."""
        return self._one(records.User, select, init, by, fields)

    def users(
        self,
        filter: dict[str, Any] | None = None,
        filter_: dict[str, Any] | None = None,
    ) -> list[records.User]:
        """Return all users, in order of name."""
        return self._all(records.User, filter, filter_)

    def _own(self, kind: type[_Record], what: str) -> _Record:
        """A record whose name came with the execution."""
        name = self._about.get(what, "")
        record = kind(self._channel, name)
        record._known["name"] = name
        return record

    def _one(
        self,
        kind: type[_Record],
        select: str | None,
        init: dict[str, Any] | None,
        by: str | None,
        fields: dict[str, Any],
    ) -> _Record:
        if select is None and isinstance(fields.get("name"), str):
            select, by = fields["name"], "name"
        if select is not None and (not isinstance(select, str) or not select):
            raise exceptions.InvalidInputError(f"the name or id of a {kind._TYPE} is a text, not {select!r}")
        record = kind(self._channel, select, _checked(by))
        written = {**init, **fields} if init and not record.exists() else fields
        return record.save(**written) if written else record

    def _all(self, kind: type[_Record], *filters: dict[str, Any] | None, **places: str) -> list[_Record]:
        found = self._list(kind._TYPE, *filters, **places)
        return [
            kind(
                self._channel,
                record.get("id") or record["name"],
                None if record.get("id") is None else "id",
                label=record["name"],
            )
            for record in found
        ]

    def _list(self, kind: str, *filters: dict[str, Any] | None, **places: str) -> list[dict[str, Any]]:
        given = [picked for picked in filters if picked is not None]
        for picked in given:
            if not isinstance(picked, dict):
                raise exceptions.InvalidInputError(f"a filter is a dict, not {type(picked).__name__}")
        arguments: dict[str, Any] = dict(places)
        if given:
            arguments["filter"] = given[0] if len(given) == 1 else {"and": given}
        found: list[dict[str, Any]] = self._channel.call(f"{kind}.list", "", **arguments)
        return found


def _checked(by: str | None) -> str | None:
    if by not in (None, "id", "name"):
        raise exceptions.InvalidInputError(f"by is {by!r}; it may be 'id' or 'name'")
    return by
