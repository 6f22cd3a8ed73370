"""Executions: the running one (``this``), its children, and any other that is known by its id."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any, ClassVar

from . import channel as channels
from . import children, exceptions, handles, headers, running

#: Fields that stay as they are from the moment an execution exists.
_CONSTANT = frozenset(
    {
        "id",
        "type",
        "input_value",
        "created_at",
        "created_by",
        "parent_execution_id",
        "flow_id",
        "flow_name",
        "commit",
        "protect_inputs",
        "protect_outputs",
    }
)
#: What ``_shaped`` makes something else of.
_SHAPED = ("input_value", "output_value")


class Execution(children.Children["Execution"], running.Running):
    """An execution: the running one (``this``), a child of it, or another one (``system.execution(id)``).

    Fields: ``id``, ``name``, ``type`` (``FLOW``, ``TASK`` or ``SCRIPT``), ``status``, ``message`` (also called
    ``status_message``), ``input_value``, ``output_value``, ``created_at``, ``started_at``, ``ended_at``,
    ``created_by``, ``parent_execution_id``, ``flow_id``, ``flow_name``, ``commit``, ``protect_inputs``,
    ``protect_outputs``, ``retention_time``, ``is_paused``. Times are texts in ISO 8601 with microseconds and offset.
    ``input_value`` is always a dict, and so is the ``output_value`` of an execution that failed.
    """

    __slots__ = ("_name", "_template", "_webhook")

    _ALIASES: ClassVar[dict[str, str]] = {"status_message": "message"}

    def __init__(
        self,
        channel: channels.Channel,
        known: dict[str, Any],
        outcome: running.Outcome | None = None,
        *,
        template: children.Order | None = None,
        webhook: bool = False,
    ) -> None:
        super().__init__(channel, {})
        self._name: str | None = None  # what it was called when last heard of
        self._outcome = outcome
        self._template = template  # of one that is neither stored nor run
        self._webhook = webhook  # whether a webhook started it
        self._learn(known)

    def __repr__(self) -> str:
        if self._template is not None:
            return f"Execution(template of {self._template.kind} {self._template.target!r})"
        return f"Execution({self.id!r}, name={self._name!r})"

    @property
    def id(self) -> str:
        """The execution's id."""
        if self._template is not None:
            raise exceptions.InvalidInputError(
                "a template (save=False) is neither stored nor run: clone() makes an execution of it"
            )
        return str(self._known["id"])

    # -- starting and waiting ---------------------------------------------------------------------------------------

    def using(
        self,
        flow_name: str,
        /,
        inputs: dict[str, Any] | None = None,
        *,
        input_value: dict[str, Any] | None = None,
        name: str | None = None,
        init: dict[str, Any] | None = None,
        **more_inputs: Any,
    ) -> Wrapped:
        """Run the next child through a wrapper flow, which decides when and how it runs.

        The child is only created. The wrapper gets its own inputs, ``child_id``, and ``child`` (``id``, ``name`` and
        ``type``), and runs it with ``system.execution(inputs['child_id']).run()``. What is returned, waited for and
        raised is the wrapper's execution.

        Example:
            wrapper = this.using('hello', who='the wrapper').flow('hello', who='Ada')
            this.log(wrapper.get('input_value')['child'])
        """
        given = {"run": True, "wait": True, "save": True, "orphan": None, "retention_time": children.UNSET}
        given |= {"protect_inputs": None, "protect_outputs": None}
        given |= {"inputs": inputs, "input_value": input_value, "name": name, "init": init}
        return Wrapped(self, children.Order("flow", flow_name, {}).given(given, more_inputs))

    def run(self) -> Execution:
        """Start it and wait until it ended; resume it if it is paused. Does nothing on one that has ended.

        Raises ``DependencyFailedError`` if it fails.

        Example:
            child = this.flow('hello', run=False)
            child.run()
        """
        return self._start(children.ReturnWhen.ALL_SUCCEEDED)

    def run_async(self) -> Execution:
        """Start it, or resume it if it is paused, and go on without waiting.

        Example:
            child = this.flow('hello', run=False).run_async()
            child.wait()
        """
        return self._start("start")

    resume = run_async

    def wait(
        self,
        return_when: children.ReturnWhen | str = children.ReturnWhen.ALL_SUCCEEDED,
        timeout: float | None = None,
    ) -> Execution:
        """Wait until it ended, at most ``timeout`` seconds, and return it.

        Raises ``DependencyFailedError`` if it did not succeed, unless ``return_when`` says otherwise, and
        ``DependencyTimeoutError``.

        Example:
            child = this.flow('hello', wait=False)
            child.wait(system.return_when.ALL_ENDED, timeout=60)
        """
        self.wait_for(self, return_when=return_when, timeout=timeout)
        return self

    def wait_for(
        self,
        *executions: Execution | Iterable[Execution],
        return_when: children.ReturnWhen | str = children.ReturnWhen.ALL_SUCCEEDED,
        timeout: float | None = None,
    ) -> list[Execution]:
        """Wait for several executions and return those that have ended by then; an empty list returns at once.

        Raises ``DependencyFailedError`` as soon as one did not succeed, unless ``return_when`` says otherwise, and
        ``DependencyTimeoutError`` after ``timeout`` seconds.

        Example:
            children = [this.flow('hello', who=name, wait=False) for name in ('Ada', 'Grace')]
            this.wait_for(*children, timeout=60)
        """
        asked: dict[str, list[Execution]] = {}
        for execution in _flattened(executions):
            asked.setdefault(execution.id, []).append(execution)
        if not asked:
            return []
        ended = self._ask(
            "wait",
            executions=list(asked),
            return_when=children.return_when(return_when),
            timeout=handles.ask_number("timeout", timeout, optional=True),
        )
        for fields in ended:
            for execution in asked[fields["id"]]:
                execution._learn(fields)
        return [asked[fields["id"]][0] for fields in ended]

    def clone(
        self,
        inputs: dict[str, Any] | None = None,
        *,
        input_value: dict[str, Any] | None = None,
        name: str | None = None,
        run: bool = True,
        wait: bool | children.ReturnWhen | str = True,
        save: bool = True,
        init: dict[str, Any] | None = None,
        protect_inputs: list[str] | None = None,
        protect_outputs: list[str] | None = None,
        retention_time: float | None = children.UNSET,
        orphan: bool | None = None,
        **more_inputs: Any,
    ) -> Execution:
        """Run the same again, with these inputs over its own and ``init`` merged, and return the new execution.

        It runs and is waited for unless this call says otherwise, whatever was said when the original was made.

        Example:
            template = this.flow('hello', greeting='good morning', save=False)
            for name in ('Ada', 'Grace'):
                template.clone(who=name)
        """
        given = locals()
        if self._template is not None:
            return self._place(self._template.copy().given(given, more_inputs))
        kind = "task" if self._known.get("type") == "TASK" else "clone"
        order = children.Order(kind, self.id, {}).given(given, more_inputs)
        if not order.save:
            raise exceptions.InvalidInputError("only a template can be cloned as a template (save=False)")
        order.kind = "clone"
        return self._place(order)

    def cancel(self) -> Execution:
        """Ask it to end; it meets ``ExecutionCancel`` in its current or next call. The children it waits for end too.

        Example:
            child = this.flow('hello', wait=False)
            child.cancel()
        """
        self._ask("cancel", execution=self.id)
        return self

    def pause(self) -> Execution:
        """Let it stop at its next call, until ``run``, ``run_async`` or ``resume``."""
        self._ask("pause", execution=self.id)
        return self

    def exists(self) -> bool:
        """Return whether there is, still, a record of it."""
        return bool(self._ask("execution.exists", self.id, by="id"))

    def delete(self) -> None:
        """Delete its record; raises ``InvalidInputError`` while it has not ended."""
        self._ask("execution.delete", self.id, by="id")

    # -- reading and writing ----------------------------------------------------------------------------------------

    def set(self, **fields: Any) -> Execution:
        """Change fields in this handle only, until ``save``."""
        self._pending |= self._plain(fields)
        return self

    def save(self, **fields: Any) -> Execution:
        """Write fields through: the given ones, and what was ``set``.

        ``message`` is the progress text people see, ``name`` what it is called in lists, ``output_value`` the whole
        output; ``description`` and ``retention_time`` (seconds) can be saved too. Without fields, an output that was
        changed in place is saved as well.

        Example:
            this.save(message='half way', output_value={'done': 50})
        """
        written = self._pending | self._plain(fields)
        if not fields:
            written = self._changed() | written
        if written:
            self._ask("save", execution=self.id, fields=written)
        self._pending.clear()
        self._lent.clear()
        self._name = written.get("name", self._name)
        return self

    def set_output(self, key: str | None = None, value: Any = None, /, **more: Any) -> Execution:
        """Set single keys of the output; others are kept.

        Example:
            this.set_output('total', 3)
            this.set_output(mean=1.5, values=[1, 2])
        """
        keys = more if key is None else {key: value, **more}
        self._ask("set_output", execution=self.id, keys=keys)
        return self

    def append_output(self, key: str, value: Any, /) -> Execution:
        """Append to the list in one key of the output; makes a list of what is there, or a new one.

        Example:
            for number in range(3):
                this.append_output('squares', number ** 2)
        """
        self._ask("append_output", execution=self.id, key=key, value=value)
        return self

    # -- talking to the daemon --------------------------------------------------------------------------------------

    def _place(self, order: children.Order) -> Execution:
        if not order.save:
            known = {"type": _type(order.kind), "name": order.name, "input_value": order.inputs}
            return Execution(self._channel, known, template=order)
        return Execution(self._channel, self._ask(order.kind, order.target, **order.arguments()))

    def _start(self, mode: str) -> Execution:
        self._learn(self._ask("run", execution=self.id, mode=mode))
        return self

    def _fetch(self, fields: list[str]) -> dict[str, Any]:
        values = self._ask("get", execution=self.id, fields=fields)
        values = {field: self._shaped(field, values[field]) for field in fields}
        self._known |= {field: value for field, value in values.items() if field in _CONSTANT}
        if "output_value" in values:
            self._lend("output_value", values["output_value"])
        return values

    def _learn(self, fields: dict[str, Any]) -> None:
        """Keep what cannot change any more: everything, once it has ended."""
        self._name = fields.get("name", self._name)
        if str(fields.get("status", "")).startswith("ENDED_"):
            self._lent.clear()
        else:
            fields = {field: value for field, value in fields.items() if field in _CONSTANT}
        self._known |= fields
        for field in _SHAPED:
            if field in fields:
                self._known[field] = self._shaped(field, fields[field])

    def _shaped(self, field: str, value: Any) -> Any:
        if field == "output_value":
            return {} if value is None else value
        if field != "input_value":
            return value
        value = value or {}
        if self._webhook and isinstance(value.get("headers"), dict):
            value["headers"] = headers.Headers(value["headers"])
        return value

    def _ask(self, kind: str, target: str = "", /, **args: Any) -> Any:
        try:
            return self._channel.call(kind, target, **args)
        except exceptions.DependencyFailedError as error:
            if error.execution is not None:
                error.execution = Execution(self._channel, error.execution)
            raise


class Wrapped(children.Children[Execution]):
    """What ``this.using(…)`` gives: its children run through the wrapper flow."""

    __slots__ = ("_execution", "_wrapper")

    def __init__(self, execution: Execution, wrapper: children.Order) -> None:
        self._execution = execution
        self._wrapper = wrapper

    def _place(self, order: children.Order) -> Execution:
        if not order.save:
            raise exceptions.InvalidInputError("a template (save=False) cannot be wrapped: wrap what clone() makes")
        child = self._execution._ask(order.kind, order.target, **order.arguments("create"))
        wrapper = self._wrapper.copy()
        wrapper.inputs |= {"child_id": child["id"], "child": {key: child.get(key) for key in ("id", "name", "type")}}
        wrapper.mode = order.mode
        return self._execution._place(wrapper)


def _type(kind: str) -> str:
    return {"flow": "FLOW", "script": "SCRIPT"}.get(kind, "TASK")


def _flattened(executions: Iterable[Execution | Iterable[Execution]]) -> Iterator[Execution]:
    for item in executions:
        if isinstance(item, Execution):
            yield item
        else:
            yield from item
