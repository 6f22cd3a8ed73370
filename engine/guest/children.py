"""How a child execution is asked for: which inputs it gets, what it is called, and whether to wait for it.

``flow``, ``task``, ``connect`` and ``script`` make an ``Order`` of their arguments. Where it goes is the business of
who has these methods: an execution places it with the daemon, ``using(…)`` puts a wrapper flow around it.
"""

from __future__ import annotations

import enum
import keyword
from typing import Any, Generic, TypeVar

from . import exceptions, records

#: Where a keyword was not given and None means something.
UNSET: Any = object()
_Child = TypeVar("_Child")
#: Never inputs, wherever they come from.
_NEVER_INPUTS = ("init", "protect_inputs", "protect_outputs")
_FLAGS = ("name", "run", "wait", "save")
_INIT = ("orphan", "protect_inputs", "protect_outputs", "retention_time")


class ReturnWhen(enum.StrEnum):
    """When waiting for executions is over; ``system.return_when`` is this class.

    * ``ALL_SUCCEEDED``: all have ended; raises ``DependencyFailedError`` as soon as one did not succeed.
    * ``ALL_ENDED``: all have ended, however they did.
    * ``FIRST_ENDED``: one has ended.
    * ``FIRST_SUCCEEDED``: one has succeeded; raises ``DependencyFailedError`` if none did.
    """

    ALL_SUCCEEDED = "ALL_SUCCEEDED"
    ALL_ENDED = "ALL_ENDED"
    FIRST_ENDED = "FIRST_ENDED"
    FIRST_SUCCEEDED = "FIRST_SUCCEEDED"


class Order:
    """What to run, with which inputs, and how: everything of one call, so that it can be made again."""

    __slots__ = ("extra", "init", "inputs", "kind", "mode", "name", "save", "target")

    def __init__(self, kind: str, target: str, extra: dict[str, Any]) -> None:
        self.kind = kind  # flow, task, connect, script, clone
        self.target = target
        self.extra = extra  # arguments that only this kind has
        self.inputs: dict[str, Any] = {}
        self.init: dict[str, Any] = {}
        self.name: str | None = None
        self.mode = ""
        self.save = True

    def given(self, keywords: dict[str, Any], more: dict[str, Any]) -> Order:
        """Take the arguments of the call; ``more`` are loose keywords, which win over given dicts."""
        inputs = _dict(keywords["inputs"], "inputs") | _dict(keywords["input_value"], "inputs")
        inputs = self._unescaped(inputs) | self._unescaped(more, loose=True) if more else self._unescaped(inputs)
        inits = [inputs.pop("init", None), keywords["init"]]
        init: dict[str, Any] = {}
        for part in inits:
            init |= _dict(part, "init")
        unknown = init.keys() - {*_FLAGS, *_INIT}
        if unknown:
            raise exceptions.InvalidInputError(
                f"init has no {', '.join(map(repr, sorted(unknown)))}; there are {', '.join((*_INIT, *_FLAGS))}"
            )
        for field in ("protect_inputs", "protect_outputs"):
            names = {*_names(field, init.pop(field, None)), *_names(field, inputs.pop(field, None))}
            names |= {*_names(field, keywords[field])}
            if names:
                init[field] = sorted(names)
        if keywords["orphan"] is not None:
            init["orphan"] = bool(keywords["orphan"])
        if keywords["retention_time"] is not UNSET:
            init["retention_time"] = keywords["retention_time"]
        flags = {name: init.pop(name) for name in _FLAGS if name in init}
        if self.kind == "connect":  # a clone of a template may change it
            for field in ("connector_type", "connection_type"):
                if field in inputs:
                    self.extra["connection_type"] = inputs.pop(field)
        self.inputs |= inputs
        self.init |= init
        self.name = keywords["name"] or flags.get("name") or self.name
        self.mode = _mode(keywords["run"] and flags.get("run", True), _first(keywords["wait"], flags.get("wait", True)))
        self.save = bool(keywords["save"] and flags.get("save", True))
        return self

    def copy(self) -> Order:
        """Return the same order once more, to be changed; how it was to be run is not part of it."""
        order = Order(self.kind, self.target, dict(self.extra))
        order.inputs = dict(self.inputs)
        order.init = dict(self.init)
        order.name = self.name
        return order

    def arguments(self, mode: str = "") -> dict[str, Any]:
        """Return the arguments of the call that places it."""
        arguments = {**self.extra, "inputs": self.inputs, "name": self.name, "mode": mode or self.mode}
        if self.init:
            arguments["init"] = self.init
        return arguments

    def _unescaped(self, inputs: dict[str, Any], *, loose: bool = False) -> dict[str, Any]:
        """Take the underscore off names that Python reserves; a task's input never ends in one of its own."""
        if self.kind in ("task", "connect"):
            return {name.removesuffix("_"): value for name, value in inputs.items()}
        if not loose:
            return inputs
        return {
            name[:-1] if name.endswith("_") and keyword.iskeyword(name[:-1]) else name: value
            for name, value in inputs.items()
        }


class Children(Generic[_Child]):
    """The calls that make child executions.

    Inputs are given as keywords, as a dict (``inputs=…`` or ``input_value=…``), or both; keywords win. These keywords
    are never inputs: ``name`` (what people see in lists), ``run=False`` (only create it), ``wait`` (``True``: until it
    ended, raising ``DependencyFailedError`` if it did not succeed; ``False``: go on at once; a value of
    ``system.return_when``), ``save=False`` (make a template for ``clone``), ``protect_inputs`` and ``protect_outputs``
    (names of keys nobody shall see in records), ``retention_time`` (seconds the record is kept), ``orphan=False``
    (cancel it with its parent, also if nobody waits for it), and ``init``, a dict that may hold all of these.
    """

    __slots__ = ()

    def flow(
        self,
        flow_name: str,
        /,
        inputs: dict[str, Any] | None = None,
        *,
        input_value: dict[str, Any] | None = None,
        name: str | None = None,
        run: bool = True,
        wait: bool | ReturnWhen | str = True,
        save: bool = True,
        init: dict[str, Any] | None = None,
        protect_inputs: list[str] | None = None,
        protect_outputs: list[str] | None = None,
        retention_time: float | None = UNSET,
        orphan: bool | None = None,
        **more_inputs: Any,
    ) -> _Child:
        """Run another flow as a child and return it.

        Raises ``ResourceNotFoundError`` if there is no such flow, ``DependencyFailedError`` if it failed.

        Example:
            child = this.flow('hello', who='Ada')
            this.log(child.get('status'))
            later = this.flow('hello', {'who': 'Grace'}, name='a greeting', wait=False)
            later.wait()
        """
        return self._order(Order("flow", _target("flow", flow_name), {}), locals())

    def task(
        self,
        task_type: str,
        /,
        inputs: dict[str, Any] | None = None,
        *,
        input_value: dict[str, Any] | None = None,
        name: str | None = None,
        run: bool = True,
        wait: bool | ReturnWhen | str = True,
        save: bool = True,
        init: dict[str, Any] | None = None,
        protect_inputs: list[str] | None = None,
        protect_outputs: list[str] | None = None,
        retention_time: float | None = UNSET,
        orphan: bool | None = None,
        **more_inputs: Any,
    ) -> _Child:
        """Run a task (``'REST'``, ``'GIT'``, …; case does not matter) as a child and return it.

        A trailing underscore escapes a name that Python reserves: ``from_='me@example.com'``.

        Raises ``MissingInputError``, ``InvalidInputError`` or ``ExtraInputError`` before anything is sent if the inputs
        are wrong, ``DependencyFailedError`` if it failed.

        Example:
            get = this.task('REST', url='https://example.com/api', run=False)
            this.log(get.get('status'))     # 'NEW': get.run() would send it
        """
        return self._order(Order("task", _target("task", task_type), {}), locals())

    def connect(
        self,
        connection: str | None = None,
        /,
        inputs: dict[str, Any] | None = None,
        *,
        connection_type: str | None = None,
        connector_type: str | None = None,
        input_value: dict[str, Any] | None = None,
        name: str | None = None,
        run: bool = True,
        wait: bool | ReturnWhen | str = True,
        save: bool = True,
        init: dict[str, Any] | None = None,
        protect_inputs: list[str] | None = None,
        protect_outputs: list[str] | None = None,
        retention_time: float | None = UNSET,
        orphan: bool | None = None,
        **more_inputs: Any,
    ) -> _Child:
        """Run a task from a stored connection, or of a ``connection_type`` at hand, and return it.

        What is given here wins over what the connection stores. ``connector_type`` is ``connection_type``.

        Raises ``ResourceNotFoundError`` if there is no such connection; else as ``task``.

        Example:
            system.connection('example', connection_type='REST', value={'url': 'https://example.com/'})
            get = this.connect('example', params={'page': 2}, run=False)
            this.log(get.get('type'))
        """
        kind = connection_type or connector_type
        if connection is None and kind is None:
            raise exceptions.InvalidInputError("connect takes the name of a connection, or connection_type=…")
        target = "" if connection is None else _target("connection", connection)
        return self._order(Order("connect", target, {"connection_type": kind} if kind else {}), locals())

    def script(
        self,
        text: str,
        /,
        inputs: dict[str, Any] | None = None,
        *,
        input_value: dict[str, Any] | None = None,
        name: str | None = None,
        run: bool = True,
        wait: bool | ReturnWhen | str = True,
        save: bool = True,
        init: dict[str, Any] | None = None,
        protect_inputs: list[str] | None = None,
        protect_outputs: list[str] | None = None,
        retention_time: float | None = UNSET,
        orphan: bool | None = None,
        **more_inputs: Any,
    ) -> _Child:
        """Run the text of a flow, with a ``handler`` of its own, as a child and return it.

        Example:
            text = 'def handler(system, this, inputs):\\n    return {"twice": inputs["n"] * 2}'
            child = this.script(text, n=21)
            this.log(child.get('output_value')['twice'])
        """
        if not isinstance(text, str):
            raise exceptions.InvalidInputError(f"a script is a text, not {type(text).__name__}")
        return self._order(Order("script", "", {"text": text}), locals())

    def _order(self, order: Order, given: dict[str, Any]) -> _Child:
        return self._place(order.given(given, given["more_inputs"]))

    def _place(self, order: Order) -> _Child:
        raise NotImplementedError


def return_when(value: ReturnWhen | str) -> ReturnWhen:
    """Return the way to wait that was meant; raises ``InvalidInputError`` naming all of them."""
    try:
        return ReturnWhen(value)
    except ValueError:
        raise exceptions.InvalidInputError(
            f"return_when is {value!r}; it may be one of {', '.join(ReturnWhen)}"
        ) from None


def _mode(run: Any, wait: Any) -> str:
    """How the daemon shall create it: only create, start, or start and wait until …"""
    if not run:
        return "create"
    if wait is False:
        return "start"
    return return_when(ReturnWhen.ALL_SUCCEEDED if wait is True else wait)


def _first(given: Any, default: Any) -> Any:
    """The keyword if it says something, else what ``init`` says."""
    return default if given is True else given


def _dict(value: Any, what: str) -> dict[str, Any]:
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise exceptions.InvalidInputError(f"{what} are a dict, not {type(value).__name__}")
    return value


def _names(field: str, value: Any) -> list[str]:
    """Return names of keys; a text is one name."""
    names = [value] if isinstance(value, str) else list(value) if isinstance(value, (list, tuple, set)) else value
    if names is None:
        return []
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise exceptions.InvalidInputError(f"{field} is a list of names, not {value!r}")
    return names


def _target(kind: str, target: Any) -> str:
    if isinstance(target, records.Record):
        return target.name
    if not isinstance(target, str) or not target:
        raise exceptions.InvalidInputError(f"the name of a {kind} is a text, not {target!r}")
    return target
