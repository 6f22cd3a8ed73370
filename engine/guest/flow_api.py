"""What a flow may use: ``system`` and ``this``, importable in every flow as ``flow_api``.

The objects hold no truth of their own: every read and write is a call to the daemon, which records it. A handle keeps
what it read of an execution only where that cannot change any more, so a handle made before a child ended still gives
the current value afterwards.
"""

from __future__ import annotations

import datetime
import enum
import json
from collections.abc import Iterable
from typing import Any

from . import channel as channels
from . import exceptions
from .exceptions import *  # noqa: F403 - the contract: flow_api.DependencyFailedError and its like

_LEVELS = ("DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL")
#: Never inputs, by the contract, and not acted on by this version: refusing them beats leaking what should be hidden.
_NOT_YET = ("init", "protect_inputs", "protect_outputs")
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
    }
)


class ReturnWhen(enum.StrEnum):
    """When waiting for executions is over."""

    ALL_SUCCEEDED = "ALL_SUCCEEDED"  # all ended; raises DependencyFailedError as soon as one failed
    ALL_ENDED = "ALL_ENDED"
    FIRST_ENDED = "FIRST_ENDED"
    FIRST_SUCCEEDED = "FIRST_SUCCEEDED"


class Outcome:
    """What a handler marked as its outcome; the last mark counts."""

    def __init__(self) -> None:
        self.marked: str | None = None
        self.message: str | None = None

    def mark(self, outcome: str, message: object) -> None:
        """Remember ``outcome`` (success or error) and what to tell people."""
        self.marked = outcome
        self.message = None if message is None else str(message)


class Execution:
    """An execution: the running one (``this``) or a child of it."""

    def __init__(self, channel: channels.Channel, known: dict[str, Any], outcome: Outcome | None = None) -> None:
        self._channel = channel
        self._known = known  # constants, and everything once it has ended
        self._set: dict[str, Any] = {}  # set() and not yet saved
        self._outcome = outcome  # of ``this`` only

    def __repr__(self) -> str:
        return f"Execution({self.id!r}, name={self._known.get('name')!r})"

    @property
    def id(self) -> str:
        """The execution's id."""
        return str(self._known["id"])

    # -- children ---------------------------------------------------------------------------------------------------

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
        **more_inputs: Any,
    ) -> Execution:
        """Run another flow as a child and return it.

        Keywords that are not parameters become inputs. ``wait=True`` blocks until it ended and raises
        ``DependencyFailedError`` if it failed; ``wait=False`` starts it and goes on;
        ``wait=system.return_when.ALL_ENDED`` blocks and never raises. ``run=False`` only creates it.
        """
        merged = _merged(inputs, input_value, more_inputs)
        return self._child("flow", flow_name, merged, name, _mode(run, wait))

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
        **more_inputs: Any,
    ) -> Execution:
        """Run a task (``'REST'``, ``'GIT'``, …; case does not matter) as a child and return it; else as ``flow``.

        A trailing underscore escapes a reserved word: ``from_='me@example.com'``.
        """
        merged = _merged(inputs, input_value, more_inputs)
        return self._child("task", task_type, merged, name, _mode(run, wait))

    def run(self) -> Execution:
        """Start and wait; raises ``DependencyFailedError`` if it fails. Does nothing on an ended execution."""
        return self._start(ReturnWhen.ALL_SUCCEEDED)

    def run_async(self) -> Execution:
        """Start without waiting."""
        return self._start(None)

    def wait(self, return_when: ReturnWhen | str = ReturnWhen.ALL_SUCCEEDED, timeout: float | None = None) -> Execution:
        """Wait until it ended; raises ``DependencyFailedError``, and ``DependencyTimeoutError`` after ``timeout`` s."""
        self.wait_for(self, return_when=return_when, timeout=timeout)
        return self

    def wait_for(
        self,
        *executions: Execution | Iterable[Execution],
        return_when: ReturnWhen | str = ReturnWhen.ALL_SUCCEEDED,
        timeout: float | None = None,
    ) -> list[Execution]:
        """Wait for several executions and return those that have ended by then; an empty list returns at once."""
        handles = {handle.id: handle for handle in _flattened(executions)}
        if not handles:
            return []
        ended = self._ask("wait", executions=list(handles), return_when=_return_when(return_when), timeout=timeout)
        for fields in ended:
            handles[fields["id"]]._known.update(fields)
        return [handles[fields["id"]] for fields in ended]

    def cancel(self) -> Execution:
        """Ask it to end; it meets ``ExecutionCancel`` at its next call."""
        self._ask("cancel", execution=self.id)
        return self

    # -- reading and writing ----------------------------------------------------------------------------------------

    def get(self, *fields: str) -> Any:
        """Return one field's value, or a tuple of several in the order asked."""
        values = {field: self._set[field] for field in fields if field in self._set}
        values |= {field: self._known[field] for field in fields if field not in values and field in self._known}
        missing = [field for field in fields if field not in values]
        if missing:
            values |= self._read(missing)
        return values[fields[0]] if len(fields) == 1 else tuple(values[field] for field in fields)

    def load(self, *fields: str) -> Any:
        """The same as ``get``, always read anew; forgets what was only ``set``."""
        for field in fields:
            self._set.pop(field, None)
        values = self._read(list(fields))
        return values[fields[0]] if len(fields) == 1 else tuple(values[field] for field in fields)

    def set(self, **fields: Any) -> Execution:
        """Change fields in this handle only, until ``save``."""
        self._set |= fields
        return self

    def save(self, **fields: Any) -> Execution:
        """Write fields through: ``message`` (the progress text people see), ``name``, ``output_value``."""
        self._ask("save", execution=self.id, fields={**self._set, **fields})
        self._set.clear()
        return self

    def set_output(self, key: str | None = None, value: Any = None, /, **more: Any) -> Execution:
        """Set single keys of the output; others are kept."""
        keys = more if key is None else {key: value, **more}
        self._ask("set_output", execution=self.id, keys=keys)
        return self

    def _read(self, fields: list[str]) -> dict[str, Any]:
        values: dict[str, Any] = self._ask("get", execution=self.id, fields=fields)
        self._known.update({field: value for field, value in values.items() if field in _CONSTANT})
        return {field: values[field] for field in fields}

    # -- the running execution --------------------------------------------------------------------------------------

    def log(self, *args: Any, level: str = "INFO", **labels: Any) -> Execution:
        """Record values in order, and keywords as labels: anything JSON can hold, else its ``str()``."""
        name = str(level).upper()
        if name not in _LEVELS:
            raise exceptions.InvalidInputError(f"level is {level!r}; it may be one of {', '.join(_LEVELS)}")
        self._channel.log(name, [_loggable(value) for value in args], {k: _loggable(v) for k, v in labels.items()})
        return self

    logln = log

    def sleep(self, seconds: float) -> Execution:
        """Wait for so many seconds."""
        if not isinstance(seconds, int | float) or isinstance(seconds, bool) or seconds < 0:
            raise exceptions.InvalidInputError(f"sleep takes a number of seconds, 0 or more, not {seconds!r}")
        self._ask("sleep", seconds=seconds)
        return self

    def sleep_until(self, moment: float | datetime.datetime) -> Execution:
        """Wait until a moment: seconds since the epoch, or a datetime (local time if it has no zone)."""
        until = moment.timestamp() if isinstance(moment, datetime.datetime) else float(moment)
        self._ask("sleep", until=until)
        return self

    def success(self, message: object = None) -> None:
        """Mark the outcome as a success. It counts when the handler returns; the last mark wins."""
        self._marks().mark("success", message)

    def error(self, message: object = None) -> None:
        """Mark the outcome as an error. It counts when the handler returns; the last mark wins."""
        self._marks().mark("error", message)

    def _marks(self) -> Outcome:
        if self._outcome is None:
            raise exceptions.PermissionDenied("only the running execution itself can mark its outcome")
        return self._outcome

    # -- talking to the daemon --------------------------------------------------------------------------------------

    def _child(self, kind: str, target: str, inputs: dict[str, Any], name: str | None, mode: str) -> Execution:
        if not isinstance(target, str) or not target:
            raise exceptions.InvalidInputError(f"the name of a {kind} is a text, not {target!r}")
        known = self._ask(kind, target, inputs=inputs, name=name, mode=mode)
        return Execution(self._channel, known)

    def _start(self, return_when: ReturnWhen | None) -> Execution:
        known = self._ask("run", execution=self.id, mode=return_when or "start")
        self._known.update(known)
        return self

    def _ask(self, kind: str, target: str = "", /, **args: Any) -> Any:
        try:
            return self._channel.call(kind, target, **args)
        except exceptions.DependencyFailedError as error:
            error.execution = Execution(self._channel, error.execution)
            raise


class System:
    """Everything beyond the running execution."""

    return_when = ReturnWhen

    def __init__(self, channel: channels.Channel, this: Execution) -> None:
        self._channel = channel
        self._this = this

    def get(self, *fields: str) -> Any:
        """Read the running execution's fields: ``system.get('input_value')``."""
        return self._this.get(*fields)

    def execution(self, select: str | None = None) -> Execution:
        """Return the execution with that id, the running one if none is given."""
        return self._this if select is None else Execution(self._channel, {"id": select})


def _merged(inputs: dict[str, Any] | None, input_value: dict[str, Any] | None, more: dict[str, Any]) -> dict[str, Any]:
    """All ways of giving inputs, in one dict; loose keywords win."""
    merged: dict[str, Any] = {}
    for given in (inputs, input_value, more):
        if given is not None and not isinstance(given, dict):
            raise exceptions.InvalidInputError(f"inputs are a dict, not {type(given).__name__}")
        merged |= given or {}
    for name in _NOT_YET:
        if name in merged:
            raise exceptions.InvalidInputError(f"{name} is not supported by this version of Headrace")
    return merged


def _mode(run: bool, wait: bool | ReturnWhen | str) -> str:
    """How the daemon shall create it: only create, start, or start and wait until …"""
    if not run:
        return "create"
    if wait is False:
        return "start"
    return _return_when(ReturnWhen.ALL_SUCCEEDED if wait is True else wait)


def _return_when(value: ReturnWhen | str) -> ReturnWhen:
    try:
        return ReturnWhen(value)
    except ValueError:
        raise exceptions.InvalidInputError(
            f"return_when is {value!r}; it may be one of {', '.join(ReturnWhen)}"
        ) from None


def _flattened(executions: Iterable[Execution | Iterable[Execution]]) -> Iterable[Execution]:
    for item in executions:
        if isinstance(item, Execution):
            yield item
        else:
            yield from item


def _loggable(value: Any) -> Any:
    """The value itself if JSON can hold it, else its text."""
    try:
        json.dumps(value, allow_nan=False)
    except (TypeError, ValueError, RecursionError):
        return str(value)
    return value
