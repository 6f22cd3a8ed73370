"""Records: what the daemon keeps for flows and people besides executions, one class a type.

A record is found by its name (``by='name'``) or its id. Nothing is asked for when a handle is made; whether the record
exists shows when it is read. What was read stays as it was in this handle until ``load`` or ``save``.
"""

from __future__ import annotations

import types
from typing import Any, ClassVar, Self

from . import channel as channels
from . import exceptions, handles


class Record(handles.Handle):
    """What all records can do.

    Every record has the fields ``id``, ``name``, ``description``, ``created_at``, ``modified_at``, ``created_by`` and
    ``modified_by``; times are texts in ISO 8601 with microseconds and offset.
    """

    __slots__ = ("_by", "_label", "_select")

    #: The daemon's name of the type, and how records of it are found if nothing is said.
    _TYPE: ClassVar[str] = ""
    _BY: ClassVar[str] = "name"

    def __init__(
        self, channel: channels.Channel, select: str | None = None, by: str | None = None, *, label: str | None = None
    ) -> None:
        super().__init__(channel, {})
        self._select = select
        self._by = by or self._BY
        self._label = label or select  # what people see of this handle

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self._label!r})"

    @property
    def id(self) -> str:
        """The record's id."""
        if self._by == "id" and self._select is not None:
            return self._select
        return str(self.get("id"))

    @property
    def name(self) -> str:
        """The record's name."""
        if self._by == "name" and self._select is not None:
            return self._select
        return str(self.get("name"))

    def load(self, *fields: str) -> Any:
        """Return fields as ``get`` does, always read anew.

        What was ``set`` or changed in place, and not yet saved, is kept for ``save``.

        Raises ``ResourceNotFoundError`` if it does not exist.

        Example:
            limit = system.setting('limit', value=1)
            limit.set(value=2)
            this.log(limit.get('value'), limit.load('value'))     # 2 1
            limit.save()
            this.log(limit.load('value'))                         # 2
        """
        for field, value in self._changed().items():
            self._pending.setdefault(field, value)
        return super().load(*fields)

    def set(self, **fields: Any) -> Self:
        """Change fields in this handle only, until ``save``."""
        self._pending |= self._plain(fields)
        return self

    def save(self, **fields: Any) -> Self:
        """Write the given fields, what was ``set``, and what was changed in place; makes the record if there is none.

        Raises ``InvalidInputError`` for a field there is not or a value it cannot have, ``PermissionDenied`` where
        flows may not write.

        Example:
            colours = system.setting('colours', value=['red'])
            colours.get('value').append('green')
            colours.save()
            this.log(system.setting('colours').get('value'))
        """
        written = self._changed() | self._pending | self._plain(fields)
        saved = self._ask("save", fields=written) or {}
        self._is_now(saved)
        self._known.clear()
        self._lent.clear()
        self._pending.clear()
        self._keep(written)
        return self

    def exists(self) -> bool:
        """Return whether there is such a record."""
        return self._select is not None and bool(self._ask("exists"))

    def delete(self) -> None:
        """Delete the record; raises ``ResourceNotFoundError`` if there is none."""
        self._ask("delete")
        self._known.clear()
        self._lent.clear()
        self._pending.clear()

    def clone(self, **fields: Any) -> Self:
        """Make a copy with other fields and return it; types with unique names need a new ``name``.

        Example:
            system.setting('staging', value={'host': 'a'}).clone(name='production')
            this.log(system.setting('production').get('value'))
        """
        made = self._ask("clone", fields=self._plain(fields))
        return type(self)(self._channel, made["id"], "id", label=made.get("name"))

    def _fetch(self, fields: list[str]) -> dict[str, Any]:
        values: dict[str, Any] = self._ask("get", fields=fields)
        values = {field: values.get(field) for field in fields}
        self._keep(values)
        return values

    def _keep(self, values: dict[str, Any]) -> None:
        """Remember values until they are loaded or saved again."""
        for field, value in values.items():
            self._known[field] = value
            self._lend(field, value)

    def _is_now(self, saved: dict[str, Any]) -> None:
        """Go on pointing at the record that was saved: it may be new, or called something else."""
        if self._select is None and saved.get("id"):
            self._select, self._by = saved["id"], "id"
        elif self._by == "name" and saved.get("name"):
            self._select = saved["name"]
        self._label = saved.get("name") or self._label

    def _ask(self, what: str, **arguments: Any) -> Any:
        return self._channel.call(f"{self._TYPE}.{what}", self._select or "", by=self._by, **arguments)


class Setting(Record):
    """A named value of any JSON type, in ``value``; people edit it as YAML.

    Each name is also a lock, whether or not the setting exists: ``acquire`` and ``release``, or ``with``.
    """

    __slots__ = ()

    _TYPE = "setting"

    def list_append(self, item: Any) -> Self:
        """Append to the list in ``value``, so that nothing another execution appends is lost; makes the list.

        Raises ``InvalidInputError`` if the value is something else than a list.

        Example:
            system.setting('visitors').list_append({'name': 'Ada'})
        """
        self._channel.call("setting.append", self.name, item=item)
        self._known.pop("value", None)
        self._lent.pop("value", None)
        return self

    def acquire(self, timeout: float | None = None) -> Self:
        """Take this name's lock, waiting at most ``timeout`` seconds for it, for ever by default.

        The lock has no owner: it outlives the execution that took it, until any execution releases it.

        Raises ``LockTimeoutError``.

        Example:
            machine = system.setting('the one machine')
            machine.acquire(timeout=60)
            machine.release()
        """
        seconds = handles.ask_number("timeout", timeout, optional=True)
        self._channel.call("setting.acquire", self.name, timeout=seconds)
        return self

    def release(self) -> Self:
        """Let this name's lock go; releasing a free one does no harm."""
        self._channel.call("setting.release", self.name)
        return self

    def __enter__(self) -> Self:
        return self.acquire()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: types.TracebackType | None,
    ) -> None:
        self.release()


class Flow(Record):
    """A flow: ``name``, ``script`` (its text), ``commit`` (of the repository).

    Saving one is a commit to the repository; ``PermissionDenied`` where the daemon may not write there.

    Example:
        this.log(system.flow('hello').get('script'))
    """

    __slots__ = ()

    _TYPE = "flow"


class Connection(Record):
    """Where a task goes, and as whom: ``connection_type``, ``value`` (inputs of that task), ``vault_secrets``.

    ``vault_secrets`` names inputs that are read from a vault: ``{'password': 'my vault:path.key'}``.

    Example:
        system.connection('shop', connection_type='REST', value={'url': 'https://shop.example/api'})
    """

    __slots__ = ()

    _TYPE = "connection"
    _ALIASES: ClassVar[dict[str, str]] = {"connector_type": "connection_type"}


class Webhook(Record):
    """An address that starts a flow: ``flow_name``, ``auth``, ``secret``, ``methods``, ``is_enabled``.

    Example:
        system.webhook('greet', flow_name='hello', auth='key', secret='a long random text')
    """

    __slots__ = ()

    _TYPE = "webhook"


class Schedule(Record):
    """When a flow starts: ``flow_name``, ``cron``, ``timezone``, ``input_value``, ``catchup``, ``is_enabled``.

    Example:
        system.schedule('every night', flow_name='hello', cron='30 2 * * *', timezone='Europe/Vienna')
    """

    __slots__ = ()

    _TYPE = "schedule"


class VaultConfig(Record):
    """Where a vault is and how to enter it: ``url``, ``token`` or ``role_id`` and ``secret_id``, ``engine_path``, ….

    Example:
        system.vault_config('my vault', url='https://vault.example:8200', token='s.123', is_enabled=False)
    """

    __slots__ = ()

    _TYPE = "vault_config"

    def write_secret(self, path: str, data: dict[str, Any]) -> Self:
        """Write a secret, a dict, at ``path``."""
        if not isinstance(data, dict):
            raise exceptions.InvalidInputError(f"a secret is a dict, not {type(data).__name__}")
        self._channel.call("vault.write", self.name, path=path, data=data)
        return self

    def read_secret(self, path: str) -> dict[str, Any]:
        """Return the secret at ``path``; raises ``ResourceNotFoundError`` if there is none."""
        secret: dict[str, Any] = self._channel.call("vault.read", self.name, path=path)
        return secret


class Lock(Record):
    """A lock that somebody holds. Take one with ``this.lock(name)``; ``delete`` breaks it."""

    __slots__ = ()

    _TYPE = "lock"


class User(Record):
    """Somebody who starts executions and answers messages."""

    __slots__ = ()

    _TYPE = "user"


class Workspace(Record):
    """The installation that runs this: its ``name``."""

    __slots__ = ()

    _TYPE = "workspace"
    _OWN: ClassVar[frozenset[str]] = frozenset({"id", "name"})

    def _ask(self, what: str, **arguments: Any) -> Any:
        """Answer here: the daemon keeps no record of itself."""
        if what == "get" and self._OWN.issuperset(arguments["fields"]):
            return dict.fromkeys(arguments["fields"], self._select)
        if what == "exists":
            return True
        raise exceptions.InvalidInputError("of a workspace there is only its name, and it cannot be changed")
